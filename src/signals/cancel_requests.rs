//! Cancels of running jobs: noted while a transaction runs, asked for once it has committed. Nothing is asked for what
//! is rolled back, with a subtransaction or as a whole, or prepared for a two-phase commit.

use crate::error::Error;
use crate::pg::subxact::{self, Noted};
use crate::pg::text::DbText;
use crate::pg::{background, fault, latch, xact};
use crate::shared::cancels::Reservation;
use crate::shared::{self, DatabaseEntry};
use pgrx::pg_sys::InvalidOid;
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;

thread_local! {
    static NOTED: RefCell<Noted<Reservation>> = const { RefCell::new(Noted::none()) };
}

/// Notes that the job is to be cancelled at commit. Errors: 55P03 if no scheduler serves this database, so that no
/// worker can have the job; 53400 if too many cancels are under way.
pub fn note(job: i64, text: &DbText) -> Result<(), Error> {
    let database = background::database();
    let board = shared::board().ok_or(Error::JobLocked(job))?;
    let is_served = |entry: &DatabaseEntry| entry.attendance.has_scheduler() || entry.attendance.is_watched();
    let has_scheduler = |oid| board.database(oid).is_some_and(is_served);
    if !has_scheduler(database) {
        return Err(Error::JobLocked(job));
    }
    subxact::at_end(|end| {
        NOTED.with_borrow_mut(|noted| noted.follow(end)).into_iter().for_each(Reservation::give_back)
    });
    xact::at_end(end);
    if NOTED.with_borrow(|noted| noted.values().any(|known| known.job == job)) {
        return Ok(());
    }
    let cancels = board.cancels();
    let reservation = cancels.reserve(database, job, text).or_else(|| {
        // Those of databases that nobody serves any more are nobody's.
        cancels.free_of(|database| !has_scheduler(database));
        cancels.reserve(database, job, text)
    });
    let reservation = reservation.ok_or(Error::TooManyCancels)?;
    NOTED.with_borrow_mut(|noted| noted.note(reservation));
    Ok(())
}

/// Called at the end of a transaction; must not raise.
fn end(committed: bool) {
    let noted = NOTED.with_borrow_mut(Noted::take);
    if noted.is_empty() {
        return;
    }
    if !committed {
        noted.into_iter().for_each(Reservation::give_back);
        return;
    }
    let jobs: Vec<i64> = noted.iter().map(|reservation| reservation.job).collect();
    // A fault point's error is dropped, as nothing may raise here. It may still stop the process.
    let _ = fault::point("cancel_committed");
    noted.into_iter().for_each(Reservation::ask);
    let _ = fault::point("cancel_asked");
    interrupt(&jobs);
    if let Some(board) = shared::board()
        && let Some(entry) = board.database(background::database())
    {
        // The scheduler cancels the jobs that do not run any more.
        if entry.attendance.is_watched() {
            board.want_watched(entry, InvalidOid);
        } else {
            entry.scheduler.set();
        }
    }
}

/// Has the workers of this database that may have one of these jobs look whether their call is to end. Returns those
/// jobs.
pub fn interrupt(jobs: &[i64]) -> Vec<i64> {
    find_taken(jobs, latch::have_requests_looked_at)
}

/// Returns those of these jobs that a worker of this database may have.
pub fn taken(jobs: &[i64]) -> Vec<i64> {
    find_taken(jobs, |_| ())
}

fn find_taken(jobs: &[i64], with_pid: impl Fn(i32)) -> Vec<i64> {
    let mut taken = Vec::new();
    let Some(board) = shared::board() else { return taken };
    for (_, worker) in board.workers_of(background::database()) {
        let Some(held) = worker.held() else { continue };
        let of_worker: Vec<i64> = jobs.iter().copied().filter(|job| (held.ids.0..=held.ids.1).contains(job)).collect();
        let pid = worker.pid.load(SeqCst);
        if !of_worker.is_empty() && pid != 0 {
            with_pid(pid);
            taken.extend(of_worker);
        }
    }
    taken
}
