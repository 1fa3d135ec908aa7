//! What a handler asks for by kongtask.snooze, kongtask.retry_in and kongtask.give_up. A mark lies in the memory of the
//! worker, where only these functions leave it: a handler that raises the same SQLSTATE or message leaves none.
//!
//! | mark | concerns a call that | undone when the block that made it is rolled back |
//! |---|---|---|
//! | snooze | returns | yes, as what the block did |
//! | retry_in | raises, or whose transaction cannot be committed | no: a failure undoes every block anyway |
//! | give_up | raises the error of give_up | no, but it takes that error: caught, it has no effect |
//!
//! Marks are made while a call runs, and are read when it has ended or its transaction has failed. The next call begins
//! without any. In a batch, each job has a call of its own; in a set, the one call is all jobs'.

use crate::error::Error;
use crate::pg::catch::Raise;
use crate::pg::interval::Interval;
use crate::pg::subxact::{self, End, Noted};
use crate::pg::text::DbText;
use crate::pg::xact;
use crate::shared::Worker;
use std::cell::{Cell, RefCell};

/// The marks of a call.
pub struct Marks {
    snoozes: Noted<Interval>,
    retry_in: Option<Interval>,
    gave_up: Option<DbText>,
}

/// What follows a failed attempt.
#[derive(Clone, Default)]
pub enum AfterFailure {
    /// Another attempt after the task's back-off, if there are any left.
    #[default]
    Backoff,
    /// Another attempt after this time, if there are any left.
    RetryIn(Interval),
    /// No other attempt. The message is the job's last_error.
    Never(DbText),
    /// No other attempt, as a session has cancelled the job. The text is its last_error.
    Cancelled(DbText),
}

/// The SQLSTATE of the error that kongtask.give_up raises.
pub const GAVE_UP: [u8; 5] = *b"KT001";

impl Marks {
    const fn none() -> Marks {
        Marks { snoozes: Noted::none(), retry_in: None, gave_up: None }
    }

    /// Returns what follows the failure of the call.
    pub fn after_failure(self, error: &Raise) -> AfterFailure {
        match (self.gave_up, self.retry_in) {
            // By the SQLSTATE, as some languages put words before the message of an error that passes through them.
            (Some(message), _) if error.sqlstate == GAVE_UP => AfterFailure::Never(message),
            (_, Some(delay)) => AfterFailure::RetryIn(delay),
            _ => AfterFailure::Backoff,
        }
    }
}

thread_local! {
    static MARKS: RefCell<Marks> = const { RefCell::new(Marks::none()) };
    /// True once a call has made a mark. Most calls make none, and cost no look at them.
    static HAS_ANY: Cell<bool> = const { Cell::new(false) };
    /// The worker, while a call runs.
    static CALLER: Cell<Option<&'static Worker>> = const { Cell::new(None) };
}

/// While it exists, a call runs, which may make marks.
pub struct Marking(());

impl Marking {
    /// Begins a call, without marks.
    pub fn begin(me: &'static Worker) -> Marking {
        forget();
        CALLER.set(Some(me));
        Marking(())
    }
}

impl Drop for Marking {
    fn drop(&mut self) {
        CALLER.set(None);
    }
}

/// Forgets the marks of the last call: what fails from here on was not called.
pub fn forget() {
    if HAS_ANY.get() {
        take();
    }
}

/// Returns the marks of the last call, and forgets them.
pub fn take() -> Marks {
    HAS_ANY.set(false);
    MARKS.replace(Marks::none())
}

/// Returns after what time the jobs of the last call, which has returned, are due again; `None` if they are completed.
pub fn snoozed() -> Option<Interval> {
    if HAS_ANY.get() { MARKS.with_borrow(|marks| marks.snoozes.last().copied()) } else { None }
}

/// Returns the worker whose call runs. Errors: 55000 if none does, for the function that asks.
pub fn caller(function: &'static str) -> Result<&'static Worker, Error> {
    CALLER.get().ok_or(Error::NotInHandler(function))
}

/// Marks the jobs of the call to be due again after `delay` if it returns. The last one counts.
pub fn snooze(delay: Interval) -> Result<(), Error> {
    subxact::at_end(|end: End| MARKS.with_borrow_mut(|marks| drop(marks.snoozes.follow(end))));
    // A procedure may end transactions.
    xact::at_end(|committed| {
        if !committed {
            MARKS.with_borrow_mut(|marks| drop(marks.snoozes.take()));
        }
    });
    mark("snooze", |marks| marks.snoozes.replace(delay))
}

/// Marks the jobs of the call to be due again after `delay` if it raises. The last one counts.
pub fn retry_in(delay: Interval) -> Result<(), Error> {
    mark("retry_in", |marks| marks.retry_in = Some(delay))
}

/// Marks the jobs of the call as failed for good if it raises the error that the caller is to raise now.
pub fn give_up(message: DbText) -> Result<(), Error> {
    mark("give_up", |marks| marks.gave_up = Some(message))
}

fn mark(function: &'static str, mark: impl FnOnce(&mut Marks)) -> Result<(), Error> {
    caller(function)?;
    HAS_ANY.set(true);
    MARKS.with_borrow_mut(mark);
    Ok(())
}
