//! Where the workers of one role in one database find what is ready to run.

use super::SharedOid;
use crate::pg::lock::Lock;
use crate::shared::ready_list::ReadyList;
use pgrx::pg_sys::{InvalidOid, Oid};
use std::cell::UnsafeCell;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

/// A list of jobs, and whose it is: there is one while the role has a worker.
pub struct SharedReadyList {
    /// Which of the board's locks guards it.
    lock: AtomicU32,
    database: SharedOid,
    role: SharedOid,
    /// How many workers use it.
    users: AtomicU32,
    ready: UnsafeCell<ReadyList>,
}

// SAFETY: what is not atomic is reached through `with` only, under the lock.
unsafe impl Sync for SharedReadyList {}

impl SharedReadyList {
    pub fn is_in(&self, database: Oid) -> bool {
        self.users() > 0 && self.database.get() == database
    }

    pub fn is_of(&self, database: Oid, role: Oid) -> bool {
        self.is_in(database) && self.role.get() == role
    }

    pub fn users(&self) -> usize {
        self.users.load(SeqCst) as usize
    }

    /// Reads and changes the list. Waits for others who do; nothing that can raise may be called meanwhile.
    pub fn with<T>(&self, f: impl FnOnce(&mut ReadyList) -> T) -> T {
        let _lock = Lock::take(self.lock.load(SeqCst) as usize);
        // SAFETY: the lock is held, and nobody calls this from within it.
        f(unsafe { &mut *self.ready.get() })
    }

    /// As [`SharedReadyList::with`], if it is still that role's.
    pub fn with_of<T>(&self, database: Oid, role: Oid, f: impl FnOnce(&mut ReadyList) -> T) -> Option<T> {
        self.with(|ready| self.is_of(database, role).then(|| f(ready)))
    }

    /// In fresh memory: it is nobody's.
    pub(super) fn lay_out(&self, lock: usize) {
        self.lock.store(lock as u32, SeqCst);
        self.database.set(InvalidOid);
        self.role.set(InvalidOid);
        self.users.store(0, SeqCst);
    }

    /// A worker begins to use it. The board's lock is held.
    pub(super) fn join(&self, database: Oid, role: Oid) {
        if self.users() == 0 {
            self.with(|ready| {
                self.database.set(database);
                self.role.set(role);
                ready.reset();
                self.users.store(1, SeqCst);
            });
        } else {
            self.users.fetch_add(1, SeqCst);
        }
    }

    /// A worker no longer uses it. The board's lock is held.
    pub(super) fn leave(&self, pid: i32) {
        self.with(|ready| {
            ready.abandon_search(pid);
            if self.users.fetch_sub(1, SeqCst) == 1 {
                self.database.set(InvalidOid);
                self.role.set(InvalidOid);
            }
        });
    }
}
