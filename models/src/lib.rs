//! The protocols of `src/shared`, compiled with loom's atomics and a list that is full after a few jobs. The files are the
//! extension's own: only `sync` is another. The models are in `tests/`.

pub mod sync {
    pub use loom::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, Ordering, fence};

    pub const CAPACITY: usize = 2;
    pub const LANES: usize = 2;
}

#[path = "../../src/shared/protocols.rs"]
pub mod protocols;

#[expect(clippy::len_without_is_empty, reason = "the extension, where it is private, has no use for one")]
#[path = "../../src/shared/ready_list.rs"]
pub mod ready_list;

use loom::sync::{Condvar, Mutex};
use std::process::Command;

/// Postgres's latch: it stays set until the process that waits for it has seen that.
pub struct Latch {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Default for Latch {
    fn default() -> Latch {
        Latch { is_set: Mutex::new(false), changed: Condvar::new() }
    }
}

impl Latch {
    pub fn set(&self) {
        *self.is_set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// Waits until the latch is set, and resets it. Unlike the server's it waits for ever, so that a lost wake-up is a deadlock,
    /// which loom reports.
    pub fn wait(&self) {
        let mut is_set = self.is_set.lock().unwrap();
        while !*is_set {
            is_set = self.changed.wait(is_set).unwrap();
        }
        *is_set = false;
    }
}

/// Tries every order of steps in which no more than `preemptions` times a thread is interrupted that could go on.
pub fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Expects that the model of a broken protocol ends in a deadlock. loom then ends the process, so the test that calls this runs
/// itself again in a process of its own.
pub fn expect_deadlock(model: impl FnOnce()) {
    const IS_CHILD: &str = "KONGTASK_MODEL_MAY_FAIL";
    if std::env::var_os(IS_CHILD).is_some() {
        return model();
    }
    let this = std::thread::current();
    let test = this.name().expect("a test has a name").to_owned();
    let program = std::env::current_exe().expect("this program");
    let run = Command::new(program).args([&test, "--exact", "--nocapture"]).env(IS_CHILD, "1").output();
    let run = run.expect("this program runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("deadlock; threads ="), "the broken protocol passed: {said}");
}
