//! Waiting for a job to end. The entry in shared memory is given back however the wait ends: when it returns, when the
//! statement fails, and when the session is terminated, which aborts its transaction.

use crate::error::Error;
use crate::pg::{background, clock, latch, xact};
use crate::shared;
use crate::shared::waits::Waiter;
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static ENTRY: Cell<Option<&'static Waiter>> = const { Cell::new(None) };
}

/// While it exists, whoever ends the job wakes this session.
pub struct Waiting(&'static Waiter);

impl Waiting {
    /// Errors: 53400 if too many sessions wait, 55000 if the library is not preloaded.
    pub fn begin(job: i64) -> Result<Waiting, Error> {
        let board = shared::board().ok_or(Error::NotPreloaded)?;
        xact::at_end(|_| leave());
        let waiter = board.waits().enter(background::database(), job).ok_or(Error::TooManyWaits)?;
        ENTRY.set(Some(waiter));
        Ok(Waiting(waiter))
    }

    /// Sleeps until the job may have ended, or `time` has passed. Errors: those of a cancel.
    pub fn sleep(&self, time: Duration) -> Result<(), Error> {
        let until = clock::after(clock::tick(), time);
        while !self.0.take_news() {
            let left = clock::until_tick(until).unwrap_or(time);
            if left.is_zero() {
                break;
            }
            latch::wait_in_session(left)?;
        }
        Ok(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    if let (Some(waiter), Some(board)) = (ENTRY.take(), shared::board()) {
        board.waits().leave(waiter);
    }
}
