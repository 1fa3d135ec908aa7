//! Fault points: places in the life of a job where a test has the process fail. They are there in a build with the feature
//! `fault`, which is never installed into a server that anybody uses; in any other, a point is nothing.
//!
//! A point is armed by a file of its name in the folder `kongtask.fault` of the data directory, which says what happens there.
//! It happens once, to whichever process takes the file away.

use super::catch::{Failure, Raise};

/// A test had a process fail at this point. Without the feature there is none.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    #[cfg(feature = "fault")]
    At(&'static str),
}

impl Fault {
    /// The error that it is, 58030 (io_error).
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

/// What a test has planned for this point.
#[cfg(feature = "fault")]
pub fn point(name: &'static str) -> Result<(), Fault> {
    // Every process of the server's is in the data directory.
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

    // For handlers, and to be one: kongtask_fault(text), or of json, to be declared by a test.
    sql_function!(kongtask_fault, fault);

    fn fault(call: &mut Call) -> Result<Value, Failure> {
        let action = call.text(0).map(|action| action.read().to_string()).unwrap_or_default();
        Ok(act(action.trim_matches('"'), "a handler").map(|()| None)?)
    }

    pub fn act(action: &str, place: &'static str) -> Result<(), Fault> {
        match action {
            // SAFETY: that of C, which is none.
            "crash" => _ = std::hint::black_box(unsafe { libc::strlen(std::hint::black_box(std::ptr::null())) }),
            // SAFETY: ends this process.
            "kill" => _ = unsafe { libc::raise(libc::SIGKILL) },
            // SAFETY: stops it, until it is told to go on.
            "stop" => _ = unsafe { libc::raise(libc::SIGSTOP) },
            // SAFETY: what pg_cancel_backend does, to this process; whoever looks next is cancelled.
            "cancel" => _ = unsafe { libc::raise(libc::SIGINT) },
            // SAFETY: ends it in order, as a lost connection or a FATAL error does.
            "exit" => unsafe { pg_sys::proc_exit(1) },
            // Looks at no interrupt, as any loop in C, until it is told that it is enough.
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
