//! Fault points: places where a test makes a process fail. Only a build with the feature `fault` has them, and such a
//! build is never installed into a server that is used. In any other build a point does nothing.
//!
//! A test arms a point with a file of its name in the folder `kongtask.fault` of the data directory. The file says what
//! happens. It happens once, to the process that removes the file.

use super::catch::{Failure, Raise};

/// The error of a fault point. Without the feature there is none.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    #[cfg(feature = "fault")]
    At(&'static str),
}

impl Fault {
    /// Returns it as an error to raise: 58030 (io_error).
    pub fn read(&self) -> Raise {
        match *self {
            #[cfg(feature = "fault")]
            Fault::At(place) => Raise {
                sqlstate: *b"58030",
                message: format!("fault point {place}").into(),
                detail: None,
                hint: None,
                context: None,
            },
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Ours(fault.read())
    }
}

#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn point(_name: &'static str) -> Result<(), Fault> {
    Ok(())
}

/// Does what a test has planned for this point.
#[cfg(feature = "fault")]
pub fn point(name: &'static str) -> Result<(), Fault> {
    // The current directory of each server process is the data directory.
    let file = format!("kongtask.fault/{name}");
    match std::fs::read_to_string(&file) {
        Ok(action) if std::fs::remove_file(&file).is_ok() => armed::act(action.trim(), name),
        _ => Ok(()),
    }
}

#[cfg(feature = "fault")]
mod armed {
    use super::Fault;
    use crate::pg::catch::Failure;
    use crate::pg::function::{Call, sql_function};
    use crate::pg::spi::Value;
    use pgrx::pg_sys;

    // For handlers, and to be one: a test declares kongtask_fault(text) or (json).
    sql_function!(kongtask_fault, fault);

    fn fault(call: &mut Call) -> Result<Value, Failure> {
        let action = call.text(0).map(|action| action.read().to_string()).unwrap_or_default();
        Ok(act(action.trim_matches('"'), "a handler").map(|()| None)?)
    }

    pub fn act(action: &str, place: &'static str) -> Result<(), Fault> {
        match action {
            // SAFETY: none, which is the purpose: it crashes.
            "crash" => _ = std::hint::black_box(unsafe { libc::strlen(std::hint::black_box(std::ptr::null())) }),
            // SAFETY: ends this process.
            "kill" => _ = unsafe { libc::raise(libc::SIGKILL) },
            // SAFETY: stops this process until a test continues it.
            "stop" => _ = unsafe { libc::raise(libc::SIGSTOP) },
            // SAFETY: cancels as pg_cancel_backend does, at the next check for interrupts.
            "cancel" => _ = unsafe { libc::raise(libc::SIGINT) },
            // SAFETY: ends this process in order, as a lost connection or a FATAL error does.
            "exit" => unsafe { pg_sys::proc_exit(1) },
            // Checks for no interrupts, as a loop in C, until a test ends it.
            "spin" => {
                while super::point("spun").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
            "error" => return Err(Fault::At(place)),
            "panic" => panic!("fault point {place}"),
            _ => panic!("fault point {place}: unknown action {action:?}"),
        }
        Ok(())
    }
}
