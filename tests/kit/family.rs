//! A postmaster and its children, and what can happen to them.

use crate::{SOON, wait_until};
use std::fs;
use std::path::Path;

/// The postmaster that a data directory says it has.
pub fn postmaster_of(data: &Path) -> Option<i32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok()
}

/// A postmaster and its children.
pub struct Family {
    postmaster: i32,
    children: Vec<i32>,
}

impl Family {
    /// Stops the postmaster for the moment, so that it has no further children.
    pub fn of(postmaster: i32) -> Family {
        signal(postmaster, libc::SIGSTOP);
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))
            .expect("the kernel lists children");
        let children = children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        Family { postmaster, children }
    }

    /// Kills the postmaster only; true once all its children have seen that and are gone.
    pub fn lose_postmaster(self) -> bool {
        signal(self.postmaster, libc::SIGKILL);
        self.is_gone()
    }

    /// Kills all at once, as a machine that is switched off; true once they are gone.
    pub fn lose_all(self) -> bool {
        self.signal(libc::SIGKILL);
        self.is_gone()
    }

    /// Stops all of them, until [`Family::thaw`].
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, number: i32) {
        signal(self.postmaster, number);
        self.children.iter().for_each(|child| signal(*child, number));
    }

    fn is_gone(&self) -> bool {
        let is_gone = |pid: &i32| !fs::exists(format!("/proc/{pid}")).unwrap_or(true);
        wait_until(SOON, || is_gone(&self.postmaster) && self.children.iter().all(is_gone))
    }
}

/// Sends a signal to a process.
pub fn signal(pid: i32, number: i32) {
    // SAFETY: a process of a cluster of ours.
    unsafe { libc::kill(pid, number) };
}
