//! Wake-ups: a process that sleeps is woken for whatever comes after its last look. A wake-up that is lost leaves a thread waiting
//! for ever, which loom reports as a deadlock. (The server would be late by kongtask.poll_interval.)

use kongtask_models::protocols::{Attendance, Attendant, NextDue, Request, State, WorkerState};
use kongtask_models::ready_list::{Hint, Kind, Position, ReadyList};
use kongtask_models::{Latch, expect_deadlock, explore};
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::convert::Infallible;

fn hint(id: i64) -> Hint {
    Hint { position: Position { priority: 0, run_at: id, id }, key: 0, row: 0, task: 1, kind: Kind::Plain }
}

fn searched_list() -> Mutex<Box<ReadyList>> {
    // SAFETY: only numbers, and an enum that has a variant 0.
    let mut list: Box<ReadyList> = unsafe { Box::new_zeroed().assume_init() };
    list.reset();
    list.begin_search(1);
    list.end_search(&[], Position::END);
    Mutex::new(list)
}

struct Worker {
    state: WorkerState,
    latch: Latch,
}

impl Worker {
    fn new() -> Worker {
        let worker = Worker { state: WorkerState::default(), latch: Latch::default() };
        worker.state.set(State::Looking);
        worker
    }
}

/// How a worker goes to sleep.
type Sleep = fn(&Worker, &dyn Fn() -> bool);

fn sleep(worker: &Worker, look: &dyn Fn() -> bool) {
    worker.state.sleep(|| Ok::<_, Infallible>(look()), || worker.latch.wait()).unwrap();
}

/// One role's workers, whose list has been searched to its end, and the jobs that they have run.
struct Role {
    list: Mutex<Box<ReadyList>>,
    workers: Vec<Worker>,
    run: AtomicUsize,
}

/// A session commits a job: the list first, and then an idle worker.
fn commit(role: &Role, id: i64) {
    role.list.lock().unwrap().offer(hint(id));
    wake_one(role);
}

fn wake_one(role: &Role) {
    role.workers.iter().any(|worker| worker.state.wake(|| worker.latch.set()));
}

/// A worker runs jobs until it has run as many as it can get; it is stopped by the model once all have run.
fn work(role: &Role, me: usize, jobs: usize, sleep: Sleep) {
    let me = &role.workers[me];
    while role.run.load(SeqCst) < jobs {
        let taken = role.list.lock().unwrap().take(|_| 1);
        if taken.is_empty() {
            sleep(me, &|| role.list.lock().unwrap().has_more() || role.run.load(SeqCst) >= jobs);
        } else if role.run.fetch_add(1, SeqCst) + 1 == jobs {
            // All have run: those that sleep are to end.
            role.workers.iter().for_each(|worker| worker.latch.set());
        }
    }
}

fn workers_beside_commits(workers: usize, jobs: usize, sleep: Sleep, commit: fn(&Role, i64)) {
    explore(2, move || {
        let all = (0..workers).map(|_| Worker::new()).collect();
        let role = Arc::new(Role { list: searched_list(), workers: all, run: AtomicUsize::new(0) });
        let threads: Vec<_> = (1..workers)
            .map(|me| {
                let role = role.clone();
                thread::spawn(move || work(&role, me, jobs, sleep))
            })
            .chain((0..jobs).map(|id| {
                let role = role.clone();
                thread::spawn(move || commit(&role, id as i64))
            }))
            .collect();
        work(&role, 0, jobs, sleep);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(role.run.load(SeqCst), jobs);
    });
}

#[test]
fn a_worker_runs_every_job_that_commits_while_it_goes_idle() {
    workers_beside_commits(1, 2, sleep, commit);
}

#[test]
fn two_workers_run_every_job_that_commits_while_they_go_idle() {
    workers_beside_commits(2, 1, sleep, commit);
}

#[test]
fn broken_if_a_worker_looks_before_it_goes_idle() {
    fn sleep(worker: &Worker, look: &dyn Fn() -> bool) {
        if !look() {
            worker.state.set(State::Idle);
            worker.latch.wait();
            worker.state.change(State::Idle, State::Looking);
        }
    }
    expect_deadlock(|| workers_beside_commits(1, 1, sleep, commit));
}

#[test]
fn broken_if_a_session_wakes_before_its_job_is_on_the_list() {
    fn commit(role: &Role, id: i64) {
        wake_one(role);
        role.list.lock().unwrap().offer(hint(id));
    }
    expect_deadlock(|| workers_beside_commits(1, 1, sleep, commit));
}

/// A role whose table is to be searched. The first of two jobs runs until the second has run.
struct Unsearched {
    role: Role,
    rows: Mutex<Vec<i64>>,
    second_has_run: Latch,
}

/// How many others a worker wakes after its search, of what it has found and of whether something is left to search.
type Others = fn(usize, bool) -> usize;

fn others(found: usize, is_left: bool) -> usize {
    (found + usize::from(is_left)).saturating_sub(1)
}

impl Unsearched {
    fn work(&self, me: usize, others: Others) {
        let role = &self.role;
        while role.run.load(SeqCst) < 2 {
            let taken = role.list.lock().unwrap().take(|_| 1);
            if let [hint] = taken[..] {
                self.run(hint.position.id);
                continue;
            }
            let begins = role.list.lock().unwrap().begin_search(me as i32 + 1).is_some();
            if begins {
                let found: Vec<Hint> = self.rows.lock().unwrap().iter().copied().map(hint).collect();
                let is_left = {
                    let mut list = role.list.lock().unwrap();
                    list.end_search(&found, Position::END);
                    list.next_search() != Position::END
                };
                (0..others(found.len(), is_left)).for_each(|_| wake_one(role));
            } else {
                let look = || role.list.lock().unwrap().has_more() || role.run.load(SeqCst) >= 2;
                sleep(&role.workers[me], &look);
            }
        }
    }

    fn run(&self, job: i64) {
        {
            let mut rows = self.rows.lock().unwrap();
            let Some(at) = rows.iter().position(|row| *row == job) else { return };
            rows.remove(at);
        }
        if job == 0 {
            self.second_has_run.wait();
        } else {
            self.second_has_run.set();
        }
        if self.role.run.fetch_add(1, SeqCst) + 1 == 2 {
            self.role.workers.iter().for_each(|worker| worker.latch.set());
        }
    }
}

fn searching_workers_beside_a_commit(others: Others) {
    explore(2, move || {
        let list = searched_list();
        list.lock().unwrap().reset();
        let role = Role { list, workers: vec![Worker::new(), Worker::new()], run: AtomicUsize::new(0) };
        let all = Arc::new(Unsearched { role, rows: Mutex::new(vec![0]), second_has_run: Latch::default() });
        let worker = {
            let all = all.clone();
            thread::spawn(move || all.work(1, others))
        };
        let session = {
            let all = all.clone();
            thread::spawn(move || {
                all.rows.lock().unwrap().push(1);
                commit(&all.role, 1);
            })
        };
        all.work(0, others);
        worker.join().unwrap();
        session.join().unwrap();
    });
}

#[test]
fn a_job_that_commits_during_a_search_does_not_wait_for_what_the_search_has_found() {
    searching_workers_beside_a_commit(others);
}

#[test]
fn broken_if_nobody_is_woken_for_what_is_left_to_search() {
    expect_deadlock(|| searching_workers_beside_a_commit(|found, _| found.saturating_sub(1)));
}

/// A scheduler that watches for due jobs, and the sessions that schedule them.
struct Schedule {
    /// The run_at of committed jobs, all later than now.
    rows: Mutex<Vec<i64>>,
    next_due: NextDue,
    scheduler: Latch,
}

/// How a scheduler looks at the table.
type LookForDue = fn(&Schedule);

fn look_for_due(schedule: &Schedule) {
    schedule.next_due.take();
    let first = schedule.rows.lock().unwrap().iter().min().copied();
    if let Some(due) = first {
        schedule.next_due.lower(due);
    }
}

fn a_scheduler_beside_commits(look: LookForDue) {
    explore(3, move || {
        let schedule =
            Arc::new(Schedule { rows: Mutex::default(), next_due: NextDue::default(), scheduler: Latch::default() });
        schedule.next_due.reset();
        let sessions = [7, 5].map(|run_at| {
            let schedule = schedule.clone();
            thread::spawn(move || {
                schedule.rows.lock().unwrap().push(run_at);
                if schedule.next_due.lower(run_at) {
                    schedule.scheduler.set();
                }
            })
        });
        look(&schedule);
        // It sleeps until the time it knows, and looks at the table no sooner: until that is the earliest, it must be woken.
        while schedule.next_due.get() > 5 {
            schedule.scheduler.wait();
        }
        for session in sessions {
            session.join().unwrap();
        }
    });
}

#[test]
fn a_scheduler_is_told_of_the_earliest_due_time() {
    a_scheduler_beside_commits(look_for_due);
}

#[test]
fn broken_if_the_due_time_is_taken_after_the_table_is_read() {
    expect_deadlock(|| {
        a_scheduler_beside_commits(|schedule| {
            let first = schedule.rows.lock().unwrap().iter().min().copied();
            schedule.next_due.take();
            if let Some(due) = first {
                schedule.next_due.lower(due);
            }
        })
    });
}

/// A scheduler that needs an idle worker of another role, and such a worker.
struct Exchange {
    worker: Worker,
    wants_idle_notice: Request,
    scheduler: Latch,
}

/// How the scheduler sets its request.
type Ask = fn(&Exchange);

fn a_scheduler_beside_a_worker_that_becomes_idle(ask: Ask) {
    explore(3, move || {
        let exchange = Arc::new(Exchange {
            worker: Worker::new(),
            wants_idle_notice: Request::default(),
            scheduler: Latch::default(),
        });
        let worker = {
            let exchange = exchange.clone();
            thread::spawn(move || {
                let look = || {
                    if exchange.wants_idle_notice.is_set() {
                        exchange.scheduler.set();
                    }
                    false
                };
                sleep(&exchange.worker, &look);
            })
        };
        // A pass: the pool looks for an idle worker, and if there is none the scheduler asks to be told of one.
        while exchange.worker.state.get() != State::Idle {
            ask(&exchange);
            exchange.scheduler.wait();
        }
        exchange.worker.latch.set();
        worker.join().unwrap();
    });
}

#[test]
fn a_scheduler_that_waits_for_an_idle_worker_is_told_of_it() {
    a_scheduler_beside_a_worker_that_becomes_idle(|exchange| {
        exchange.wants_idle_notice.set(true, || exchange.scheduler.set());
    });
}

#[test]
fn broken_if_a_scheduler_does_not_look_again_once_it_has_asked() {
    expect_deadlock(|| {
        a_scheduler_beside_a_worker_that_becomes_idle(|exchange| exchange.wants_idle_notice.set(true, || ()))
    });
}

/// A database, its scheduler, and the launcher, beside a session that creates the extension.
struct Database {
    /// Whether the catalog has the extension.
    has_extension: Mutex<bool>,
    attendance: Attendance,
    board: Mutex<()>,
    launcher: Latch,
    scheduler: Latch,
    /// Whether a scheduler serves the database.
    serves: loom::sync::atomic::AtomicBool,
}

/// Which process a session wakes once it has committed.
type Want = fn(&Database);

fn want(database: &Database) {
    let board = database.board.lock().unwrap();
    database.attendance.want();
    drop(board);
    match database.attendance.attendant() {
        Attendant::Scheduler => database.scheduler.set(),
        Attendant::Launcher => database.launcher.set(),
    }
}

/// The life of a scheduler process: it looks for the extension once, and ends if there is none.
fn schedule(database: &Database) {
    {
        let _board = database.board.lock().unwrap();
        database.attendance.begin(1);
    }
    if *database.has_extension.lock().unwrap() {
        database.serves.store(true, SeqCst);
        return;
    }
    database.attendance.end();
    database.launcher.set();
}

fn a_launcher_beside_a_session_that_creates_the_extension(want: Want) {
    explore(3, move || {
        let database = Arc::new(Database {
            has_extension: Mutex::new(false),
            attendance: Attendance::default(),
            board: Mutex::new(()),
            launcher: Latch::default(),
            scheduler: Latch::default(),
            serves: loom::sync::atomic::AtomicBool::new(false),
        });
        let scheduler = {
            let database = database.clone();
            thread::spawn(move || schedule(&database))
        };
        let session = {
            let database = database.clone();
            thread::spawn(move || {
                *database.has_extension.lock().unwrap() = true;
                want(&database);
            })
        };
        // The launcher has started a scheduler, and starts another if the database is wanted after that one has ended.
        scheduler.join().unwrap();
        while !database.serves.load(SeqCst) {
            let taken = {
                let _board = database.board.lock().unwrap();
                database.attendance.is_wanted() && database.attendance.take()
            };
            if taken {
                schedule(&database);
            } else {
                database.launcher.wait();
            }
        }
        session.join().unwrap();
    });
}

#[test]
fn a_database_is_served_whose_extension_is_created_while_a_scheduler_finds_none() {
    a_launcher_beside_a_session_that_creates_the_extension(want);
}

#[test]
fn broken_if_a_session_looks_for_the_scheduler_before_it_wants_one() {
    expect_deadlock(|| {
        a_launcher_beside_a_session_that_creates_the_extension(|database| {
            let attendant = database.attendance.attendant();
            let board = database.board.lock().unwrap();
            database.attendance.want();
            drop(board);
            match attendant {
                Attendant::Scheduler => database.scheduler.set(),
                Attendant::Launcher => database.launcher.set(),
            }
        })
    });
}

/// A database whose scheduler leaves, the launcher, and sessions that commit jobs.
struct Leaving {
    /// The jobs that are committed and have not run. Its lock stands for Postgres's own of commits and snapshots.
    rows: Mutex<usize>,
    attendance: Attendance,
    board: Mutex<()>,
    launcher: Latch,
    scheduler: Latch,
    run: AtomicUsize,
}

impl Leaving {
    /// Runs what a snapshot shows. Returns true if that was anything.
    fn search(&self) -> bool {
        let found = std::mem::take(&mut *self.rows.lock().unwrap());
        self.run.fetch_add(found, SeqCst);
        found > 0
    }
}

/// A session's end of the protocol: it commits, and then tells.
fn commit_job(database: &Leaving) {
    *database.rows.lock().unwrap() += 1;
    if database.attendance.is_watched() {
        if database.attendance.is_wanted() {
            return;
        }
        let board = database.board.lock().unwrap();
        database.attendance.want();
        drop(board);
        match database.attendance.attendant() {
            Attendant::Scheduler => database.scheduler.set(),
            Attendant::Launcher => database.launcher.set(),
        }
    } else if database.attendance.has_scheduler() {
        database.scheduler.set();
    }
}

/// How a scheduler leaves. Returns false if it stays.
type Leave = fn(&Leaving) -> bool;

fn leave(database: &Leaving) -> bool {
    database.attendance.hand_over();
    if database.search() || database.attendance.is_wanted() {
        database.attendance.take_back();
        return false;
    }
    true
}

/// The life of a scheduler that has nothing to do but what is committed meanwhile.
fn serve(database: &Leaving, jobs: usize, leave: Leave) {
    {
        let _board = database.board.lock().unwrap();
        database.attendance.begin(1);
    }
    database.attendance.take_back();
    database.search();
    while database.run.load(SeqCst) < jobs && !leave(database) {}
    database.attendance.end();
    database.launcher.set();
}

fn a_scheduler_that_leaves_beside_commits(jobs: usize, leave: Leave) {
    explore(3, move || {
        let database = Arc::new(Leaving {
            rows: Mutex::new(0),
            attendance: Attendance::default(),
            board: Mutex::new(()),
            launcher: Latch::default(),
            scheduler: Latch::default(),
            run: AtomicUsize::new(0),
        });
        let sessions: Vec<_> = (0..jobs)
            .map(|_| {
                let database = database.clone();
                thread::spawn(move || commit_job(&database))
            })
            .collect();
        // The launcher, and in its thread the schedulers, one after another: there is never more than one.
        serve(&database, jobs, leave);
        while database.run.load(SeqCst) < jobs {
            let taken = {
                let _board = database.board.lock().unwrap();
                database.attendance.is_wanted() && database.attendance.take()
            };
            if taken {
                serve(&database, jobs, leave);
            } else {
                database.launcher.wait();
            }
        }
        sessions.into_iter().for_each(|session| session.join().unwrap());
    });
}

#[test]
fn a_job_runs_that_is_committed_while_the_scheduler_leaves() {
    a_scheduler_that_leaves_beside_commits(1, leave);
}

#[test]
fn two_jobs_run_that_are_committed_while_the_scheduler_leaves() {
    a_scheduler_that_leaves_beside_commits(2, leave);
}

#[test]
fn broken_if_a_scheduler_looks_before_it_hands_over() {
    expect_deadlock(|| {
        a_scheduler_that_leaves_beside_commits(1, |database| {
            if database.search() {
                return false;
            }
            database.attendance.hand_over();
            true
        })
    });
}

#[test]
fn broken_if_a_scheduler_forgets_that_it_is_wanted_after_it_has_looked() {
    expect_deadlock(|| {
        a_scheduler_that_leaves_beside_commits(1, |database| {
            database.attendance.hand_over();
            if database.search() {
                database.attendance.take_back();
                return false;
            }
            // It would, if it took the wish for one that it has seen to.
            database.attendance.take();
            true
        })
    });
}
