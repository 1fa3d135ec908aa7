//! Latches and signals: waiting, being woken, and being interrupted. pgrx's BackgroundWorker waits on its own latch only,
//! and its signal handlers know nothing of cancels.
//!
//! `pg_cancel_backend` cancels user code in these processes: a handler, from its call to the end of its transaction,
//! and the function that returns forbidden flags. At other times cancels are held, except where a statement waits for a
//! lock with a timeout.

use super::catch::{PgError, catch};
use super::{clock, python};
use pgrx::pg_sys;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn StatementCancelHandler(signal: c_int);
    fn ProcessInterrupts();
    fn SetLatch(latch: *mut pg_sys::Latch);
}

/// The latch of a process, kept in shared memory so that others can set it.
///
/// A process's latch is valid as long as the server runs. Once its process has ended it may belong to another, which
/// ignores a wake-up that it did not need.
#[derive(Default)]
pub struct LatchOf(AtomicUsize);

impl LatchOf {
    /// Makes this process the one that is woken.
    pub fn is_mine(&self) {
        // SAFETY: every process that runs our code has a latch.
        self.0.store(unsafe { pg_sys::MyLatch } as usize, Ordering::Release);
    }

    pub fn disown(&self) {
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

/// Waits until this process's latch is set or `timeout` has passed (an hour at most), serves interrupts, and resets the
/// latch. The caller must look at what the latch stands for after this call. Exits if the postmaster has died.
pub fn wait(timeout: Option<Duration>) {
    const LONGEST: Duration = Duration::from_secs(3600);
    // Rounded up: a wait that ends a little early would be followed by more of 0 ms each.
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

/// Serves interrupts: termination, cancel, barriers.
pub fn serve_interrupts() {
    pg_sys::check_for_interrupts!();
}

/// Raises the error of a cancel again, after it was served or turned into another error.
pub fn cancelled() -> Result<(), PgError> {
    // SAFETY: sets two variables, as a cancel's signal does.
    unsafe {
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
    }
    interrupted()
}

/// Serves interrupts as [`serve_interrupts`] does, and returns the error that they raise.
pub fn interrupted() -> Result<(), PgError> {
    // SAFETY: the closure makes one C call, where Postgres's own macro would.
    unsafe {
        if pg_sys::InterruptPending != 0 {
            catch(|| ProcessInterrupts())?;
        }
    }
    Ok(())
}

/// Ignores `pg_cancel_backend` until [`let_cancel`]. An ERROR resets Postgres's own holdoff counter, even one that a
/// user's trigger catches within our statement. So from here on no cancel is noted at all, and a pending one is
/// forgotten.
pub fn hold_cancels() {
    RUNS.store(false, Ordering::SeqCst);
    // SAFETY: sets two variables of this process.
    unsafe {
        pg_sys::QueryCancelHoldoffCount = 1;
        pg_sys::QueryCancelPending = 0;
    }
    forget_what_was_asked();
}

/// True while user code runs. A request to end it is then passed to Postgres and to its interpreter, and noted.
static RUNS: AtomicBool = AtomicBool::new(false);

static ASKED: AtomicPtr<AtomicI64> = AtomicPtr::new(std::ptr::null_mut());
static OBSERVER: AtomicPtr<LatchOf> = AtomicPtr::new(std::ptr::null_mut());

/// Notes in `asked` the tick at which user code in this process was first asked to end, and wakes the `observer`. It is
/// 0 again once that code has ended, of which the observer is told as well.
pub fn tell_what_is_asked(asked: &'static AtomicI64, observer: &'static LatchOf) {
    OBSERVER.store(std::ptr::from_ref(observer).cast_mut(), Ordering::SeqCst);
    ASKED.store(std::ptr::from_ref(asked).cast_mut(), Ordering::SeqCst);
}

/// The arguments of [`tell_what_is_asked`].
fn who_is_told() -> Option<(&'static AtomicI64, &'static LatchOf)> {
    // SAFETY: what was stored lives as long as the process.
    unsafe { Some((ASKED.load(Ordering::SeqCst).as_ref()?, OBSERVER.load(Ordering::SeqCst).as_ref()?)) }
}

/// Notes a request to end. For signal handlers.
fn ask_to_end() {
    if !RUNS.load(Ordering::SeqCst) {
        return;
    }
    python::interrupt();
    if let Some((asked, observer)) = who_is_told()
        && asked.compare_exchange(0, clock::tick(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    {
        observer.set();
    }
}

fn forget_what_was_asked() {
    python::forget_interrupt();
    if let Some((asked, observer)) = who_is_told()
        && asked.swap(0, Ordering::SeqCst) != 0
    {
        observer.set();
    }
}

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Returns true if a cancel has come since [`let_cancel`], by `pg_cancel_backend` or a [`Timer`]. The SQLSTATE alone
/// does not tell, as any code can raise it.
pub fn was_cancelled() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

/// Allows cancels from here on. One that came before is forgotten.
pub fn let_cancel() {
    forget_what_was_asked();
    RUNS.store(true, Ordering::SeqCst);
    CANCELLED.store(false, Ordering::Relaxed);
    // SAFETY: sets two variables of this process.
    unsafe {
        pg_sys::QueryCancelPending = 0;
        pg_sys::QueryCancelHoldoffCount = 0;
    }
}

/// Runs user code within our own.
pub fn cancellable<T>(f: impl FnOnce() -> T) -> T {
    let_cancel();
    let result = f();
    hold_cancels();
    result
}

static STOP: AtomicBool = AtomicBool::new(false);
static RELOAD: AtomicBool = AtomicBool::new(false);

/// Returns true if the server is shutting down.
pub fn stop_asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Returns true if a reload is to come.
pub fn is_reload_asked() -> bool {
    RELOAD.load(Ordering::Relaxed)
}

/// Reloads the configuration if that was asked since the last call. Returns true if it was.
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
/// - SIGTERM from this process itself is a handler's doing, see [`ended_itself`].
/// - SIGTERM from anyone else is `pg_terminate_backend`: it ends the process as it ends any backend.
/// - SIGINT is `pg_cancel_backend`, see [`let_cancel`].
/// - SIGUSR2 cancels if a request concerns what runs, see [`cancel_if`].
/// - SIGHUP is noted, see [`reload_if_asked`].
pub fn receive_signals() {
    handle(libc::SIGTERM, on_sigterm);
    handle(libc::SIGHUP, on_sighup);
    handle(libc::SIGINT, on_sigint);
    handle(libc::SIGUSR2, on_sigusr2);
    hold_cancels();
    // It may have come, and been ignored, before.
    RELOAD.store(true, Ordering::Relaxed);
    // SAFETY: called once, by a background worker.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() }
}

static ENDED_ITSELF: AtomicBool = AtomicBool::new(false);

/// Whether what runs here has called `pg_terminate_backend` for this process since the last call. Ending the process
/// would release the job, to do the same in the next one, and so for ever: what runs is cancelled instead.
pub fn ended_itself() -> bool {
    ENDED_ITSELF.swap(false, Ordering::Relaxed)
}

static HOW_IT_ENDS: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static CRASHED: AtomicU32 = AtomicU32::new(0);
static INNOCENT: AtomicU32 = AtomicU32::new(0);

/// Has this process write into `how`, if it is not what `innocent` is, why it ends where it cannot say so itself:
/// `crashed` when it receives the signal of a crash of its own, `innocent` when the postmaster has it quit because of
/// another's, or of an immediate shutdown.
pub fn tell_how_it_ends(how: &'static AtomicU32, crashed: u32, innocent: u32) {
    CRASHED.store(crashed, Ordering::Relaxed);
    INNOCENT.store(innocent, Ordering::Relaxed);
    HOW_IT_ENDS.store(std::ptr::from_ref(how).cast_mut(), Ordering::SeqCst);
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGABRT] {
        handle(signal, on_crash);
    }
    handle(libc::SIGQUIT, on_sigquit);
}

extern "C" fn on_crash(signal: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: what was stored lives as long as the process; the calls are those that a signal handler may make. The
    // signal is raised again, to do what it does by default.
    unsafe {
        if let Some(how) = HOW_IT_ENDS.load(Ordering::SeqCst).as_ref()
            && how.load(Ordering::SeqCst) != INNOCENT.load(Ordering::Relaxed)
        {
            how.store(CRASHED.load(Ordering::Relaxed), Ordering::SeqCst);
        }
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

extern "C" fn on_sigquit(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: as above; as Postgres's own handler does, nothing is cleared up: shared memory may be what is broken.
    unsafe {
        if let Some(how) = HOW_IT_ENDS.load(Ordering::SeqCst).as_ref() {
            how.store(INNOCENT.load(Ordering::Relaxed), Ordering::SeqCst);
        }
        libc::_exit(2);
    }
}

/// Runs `f`, which may install a SIGINT handler of its own: ours is put back, and meanwhile the signal waits.
pub(super) fn keeping_sigint<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: a set of this one signal, blocked and unblocked.
    unsafe {
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut());
        let result = f();
        handle(libc::SIGINT, on_sigint);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, signals.as_ptr(), std::ptr::null_mut());
        result
    }
}

/// While it lives, a system call that waits is ended by the signals that have a call end, so that an interpreter sees
/// them. Elsewhere it goes on: Postgres expects that of files. What ran may also have installed handlers of its own.
pub struct Impatience(());

impl Impatience {
    pub fn begin() -> Impatience {
        [libc::SIGINT, libc::SIGTERM, libc::SIGUSR2, libc::SIGALRM]
            .into_iter()
            .for_each(|signal| restart_calls(signal, false));
        Impatience(())
    }
}

impl Drop for Impatience {
    fn drop(&mut self) {
        handle(libc::SIGTERM, on_sigterm);
        handle(libc::SIGINT, on_sigint);
        handle(libc::SIGUSR2, on_sigusr2);
        restart_calls(libc::SIGALRM, true);
    }
}

fn restart_calls(signal: c_int, restart: bool) {
    // SAFETY: changes a flag of the handler that is there.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        libc::sigaction(signal, std::ptr::null(), &mut action);
        if restart {
            action.sa_flags |= libc::SA_RESTART;
        } else {
            action.sa_flags &= !libc::SA_RESTART;
        }
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
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
    // SAFETY: the kernel passes a valid siginfo; the rest is what Postgres's own handlers do.
    keeping_errno(|| unsafe {
        let sender = (*info).si_pid();
        if sender == pg_sys::PostmasterPid {
            STOP.store(true, Ordering::Relaxed);
            SetLatch(pg_sys::MyLatch);
        } else if sender == pg_sys::MyProcPid {
            ENDED_ITSELF.store(true, Ordering::Relaxed);
            cancel(signal);
        } else {
            die(signal);
            ask_to_end();
        }
    });
}

extern "C" fn on_sigint(signal: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    if RUNS.load(Ordering::SeqCst) {
        CANCELLED.store(true, Ordering::Relaxed);
    }
    keeping_errno(|| cancel(signal));
}

static IS_ASKED: OnceLock<fn() -> bool> = OnceLock::new();

/// Has [`have_requests_looked_at`] cancel what runs in this process if `is_asked` returns true: a signal handler calls
/// it.
pub fn cancel_if(is_asked: fn() -> bool) {
    _ = IS_ASKED.set(is_asked);
}

/// Has a process look whether what it runs is to be cancelled: see [`cancel_if`].
pub fn have_requests_looked_at(pid: i32) {
    // SAFETY: the pid is that of a background worker of ours. Before it has a handler for this signal, it ignores it.
    unsafe { libc::kill(pid, libc::SIGUSR2) };
}

extern "C" fn on_sigusr2(signal: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    if IS_ASKED.get().is_some_and(|is_asked| is_asked()) {
        keeping_errno(|| cancel(signal));
    }
}

/// What runs is cancelled, if it is users' code. For signal handlers.
fn cancel(signal: c_int) {
    if !RUNS.load(Ordering::SeqCst) {
        return;
    }
    // SAFETY: what Postgres's own handler does.
    unsafe { StatementCancelHandler(signal) }
    ask_to_end();
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

/// Waits in a session until its latch is set or `time` has passed. Errors: those of interrupts.
pub fn wait_in_session(time: Duration) -> Result<(), PgError> {
    wait_for_latch(time.as_micros().div_ceil(1000).min(3_600_000) as i64);
    interrupted()
}

/// Waits for `time` in a backend, whose latch is others' to set too; serves interrupts, a cancel included.
pub fn wait_a_moment(time: Duration) {
    wait_for_latch(time.as_millis() as i64);
    serve_interrupts();
}

/// A timer that has this process cancel what it runs, as statement_timeout would. Stopped when dropped.
pub struct Timer(());

// Not in pgrx's bindings.
unsafe extern "C-unwind" {
    fn enable_timeout_after(timeout: c_int, milliseconds: c_int);
    fn disable_timeout(timeout: c_int, keep_indicator: bool);
    fn get_timeout_indicator(timeout: c_int, reset: bool) -> bool;
}

/// The same number in every version.
const STATEMENT_TIMEOUT: c_int = 3;

impl Timer {
    pub fn start(after: Duration) -> Timer {
        let milliseconds = c_int::try_from(after.as_millis()).unwrap_or(c_int::MAX).max(1);
        // SAFETY: every backend has this timeout registered, and a background worker does not use it otherwise.
        unsafe { enable_timeout_after(STATEMENT_TIMEOUT, milliseconds) };
        Timer(())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: stops what `start` started. If it went off too late to cancel anything, that is forgotten.
        unsafe {
            if get_timeout_indicator(STATEMENT_TIMEOUT, true) {
                pg_sys::QueryCancelPending = 0;
            }
            disable_timeout(STATEMENT_TIMEOUT, false);
        }
    }
}
