//! Waiting and being woken: latches, and the signals that set them.

use pgrx::pg_sys;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn SetLatch(latch: *mut pg_sys::Latch);
}

/// The latch of some process, to be kept in shared memory and set by others.
///
/// A process's latch is part of shared memory for as long as the server runs; once its process is gone it may serve
/// another, which takes a wake-up for nothing in its stride.
#[derive(Default)]
pub struct LatchOf(AtomicUsize);

impl LatchOf {
    /// From now on, this process is the one that is woken.
    pub fn is_mine(&self) {
        // SAFETY: every process that runs our code has a latch.
        self.0.store(unsafe { pg_sys::MyLatch } as usize, Ordering::Release);
    }

    pub fn is_nobodys(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Wakes the process, if there is one. Never raises.
    pub fn set(&self) {
        let latch = self.0.load(Ordering::Acquire) as *mut pg_sys::Latch;
        if !latch.is_null() {
            // SAFETY: a latch in shared memory, valid while the server runs; setting it is safe anywhere.
            unsafe { SetLatch(latch) }
        }
    }
}

/// Waits until this process's latch is set or `timeout` has passed (at most an hour), serves interrupts, and leaves the
/// latch reset: what the latch tells of must be looked at after this. Exits if the postmaster is gone.
pub fn wait(timeout: Option<Duration>) {
    const LONGEST: Duration = Duration::from_secs(3600);
    // Rounded up: a wait that ends a little early would be followed by another of 0 ms, and another.
    let ms = timeout.unwrap_or(LONGEST).min(LONGEST).as_micros().div_ceil(1000) as i64;
    wait_for_latch(ms);
    // SAFETY: sets a variable. A cancel that came while there was nothing to cancel is forgotten.
    unsafe { pg_sys::QueryCancelPending = 0 }
    serve_interrupts();
}

fn wait_for_latch(ms: i64) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: our own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, ms, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Serves what other processes ask of every process: termination, cancellation, barriers.
pub fn serve_interrupts() {
    pg_sys::check_for_interrupts!();
}

static STOP: AtomicBool = AtomicBool::new(false);
static RELOAD: AtomicBool = AtomicBool::new(false);

/// Whether the server is being shut down.
pub fn stop_asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Reads the configuration again if that was asked since the last call; whether it was.
pub fn reload_if_asked() -> bool {
    let asked = RELOAD.swap(false, Ordering::Relaxed);
    if asked {
        // SAFETY: called at the top of a worker's loop, as every backend does.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
    }
    asked
}

/// Installs the handlers of a background worker, and lets signals in.
///
/// - SIGTERM from the postmaster is a shutdown: noted, see [`stop_asked`]. The scheduler gives running jobs their time.
/// - SIGTERM from anyone else is `pg_terminate_backend`: it ends the process as it ends any backend.
/// - SIGHUP is noted, see [`reload_if_asked`]. SIGINT cancels what runs, as Postgres has set it up.
pub fn receive_signals() {
    handle(libc::SIGTERM, on_sigterm);
    handle(libc::SIGHUP, on_sighup);
    // SAFETY: called once, by a background worker.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() }
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

fn handle(signal: c_int, handler: Handler) {
    // SAFETY: a zeroed sigaction with a handler of the SA_SIGINFO form. Not pqsignal: it does not tell who sent it.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

/// Runs `f`, and leaves errno as it was.
fn keeping_errno(f: impl FnOnce()) {
    // SAFETY: errno's own address.
    unsafe {
        let errno = *libc::__errno_location();
        f();
        *libc::__errno_location() = errno;
    }
}

extern "C" fn on_sigterm(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo; die and SetLatch are what Postgres's own handlers call.
    keeping_errno(|| unsafe {
        if (*info).si_pid() == pg_sys::PostmasterPid {
            STOP.store(true, Ordering::Relaxed);
            SetLatch(pg_sys::MyLatch);
        } else {
            die(signal);
        }
    });
}

extern "C" fn on_sighup(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    RELOAD.store(true, Ordering::Relaxed);
    // SAFETY: as above.
    keeping_errno(|| unsafe { SetLatch(pg_sys::MyLatch) });
}

/// Asks a process to end, as `pg_terminate_backend` does.
pub fn terminate(pid: i32) {
    // SAFETY: the pid is that of a background worker of ours; if it has just exited, nobody is hit but by a pid reused
    // within that instant.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

/// Waits for `time` in a backend, whose latch is others' to set too; serves interrupts, a cancel included.
pub fn wait_a_moment(time: Duration) {
    wait_for_latch(time.as_millis() as i64);
    serve_interrupts();
}
