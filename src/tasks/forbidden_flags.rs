//! Which jobs are not to be run here: those with any of some flags, by a list, by a function, or both.

use crate::error::{Error, headline};
use crate::pg::catch::{Level, log_with};
use crate::pg::text::DbText;
use crate::pg::{latch, xact};
use crate::settings;
use crate::tasks::handler;
use std::time::{Duration, Instant};

/// What a worker knows of forbidden flags.
#[derive(Default)]
pub struct Flags {
    /// What the function answered, and when it was asked; `None`: it failed.
    answer: Option<(Instant, Option<Vec<DbText>>)>,
    warned: Option<Instant>,
}

impl Flags {
    /// The flags forbidden now; `None` if that cannot be known, and so no job may run. Within a transaction; asks the
    /// function as the current role, at most once a second.
    pub fn forbidden(&mut self) -> Result<Option<Vec<DbText>>, Error> {
        const KEPT: Duration = Duration::from_secs(1);
        let mut flags = settings::forbidden_flags();
        let Some(function) = settings::forbidden_flags_function() else { return Ok(Some(flags)) };
        let fresh = self.answer.as_ref().is_some_and(|(asked, _)| asked.elapsed() < KEPT);
        if !fresh {
            self.answer = Some((Instant::now(), self.ask(&function)));
        }
        let answer = self.answer.as_ref().and_then(|(_, answer)| answer.clone());
        Ok(answer.map(|more| {
            flags.extend(more);
            flags
        }))
    }

    fn ask(&mut self, function: &DbText) -> Option<Vec<DbText>> {
        const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);
        let ask = || handler::call_for_texts(function).map_err(|error| headline(&error.read()));
        match latch::cancellable(|| xact::in_subtransaction(ask)) {
            Ok(flags) => Some(flags),
            Err(message) => {
                if self.warned.is_none_or(|warned| warned.elapsed() > BETWEEN_WARNINGS) {
                    self.warned = Some(Instant::now());
                    log_with(
                        Level::Warning,
                        format!(
                            "kongtask.forbidden_flags_function failed, and no job runs until it succeeds: {message}"
                        ),
                        None,
                        Some("Correct the function, or set kongtask.forbidden_flags_function to ''.".into()),
                    );
                }
                None
            }
        }
    }
}
