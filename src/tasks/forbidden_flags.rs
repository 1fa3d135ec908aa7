//! The flags whose jobs must not run in this server: those in kongtask.forbidden_flags, and those that
//! kongtask.forbidden_flags_function returns.

use crate::error::{Error, headline};
use crate::pg::catch::{Level, log_with};
use crate::pg::text::DbText;
use crate::pg::{latch, xact};
use crate::settings;
use crate::tasks::handler;
use std::time::{Duration, Instant};

/// A worker's copy of the function's answer.
#[derive(Default)]
pub struct Flags {
    /// The function's latest answer, and when it was asked. The answer is `None` if the function failed.
    answer: Option<(Instant, Option<Vec<DbText>>)>,
    warned: Option<Instant>,
}

impl Flags {
    /// Returns the flags that are forbidden now, or `None` if the function failed: then no job may run. Calls the
    /// function as the current role, at most once a second. To be called within a transaction.
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
