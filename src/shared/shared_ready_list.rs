//! The ready list of one role in one database, as it lies in shared memory.

use super::SharedOid;
use crate::pg::lock::Lock;
use crate::shared::ready_list::ReadyList;
use pgrx::pg_sys::{InvalidOid, Oid};
use std::cell::UnsafeCell;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

/// A ready list and the role that it belongs to. A role has one as long as it has a worker.
///
/// `database` and `role` are written under both locks, the board's and this list's own, so that either suffices to read
/// them; `users` under the board's. Sessions look for a role's list without a lock, and check again whose it is once
/// they hold the list's own ([`SharedReadyList::with_of`]): it may have been given to another role. If no list is
/// found, none is needed: the role's next worker starts with an empty one, whose search begins at the start of the
/// table after that.
pub struct SharedReadyList {
    /// The number of the lock that guards it. Written once, by the postmaster.
    lock: AtomicU32,
    database: SharedOid,
    role: SharedOid,
    /// How many workers use it; 0 if it belongs to no role.
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

    /// Reads and changes the list under its lock. `f` must call nothing that can raise.
    pub fn with<T>(&self, f: impl FnOnce(&mut ReadyList) -> T) -> T {
        let _lock = Lock::take(self.lock.load(SeqCst) as usize);
        // SAFETY: the lock is held, and no `f` calls this.
        f(unsafe { &mut *self.ready.get() })
    }

    /// Does the same if the list still belongs to that role; otherwise returns `None`.
    pub fn with_of<T>(&self, database: Oid, role: Oid, f: impl FnOnce(&mut ReadyList) -> T) -> Option<T> {
        self.with(|ready| self.is_of(database, role).then(|| f(ready)))
    }

    /// Initialises a list in fresh memory, which belongs to no role.
    pub(super) fn lay_out(&self, lock: usize) {
        self.lock.store(lock as u32, SeqCst);
        self.database.set(InvalidOid);
        self.role.set(InvalidOid);
        self.users.store(0, SeqCst);
    }

    /// Counts a worker that begins to use the list. The board's lock is held.
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

    /// Counts out a worker that ends, and gives up its search. Returns true if it was the last and there may be more to
    /// run. The board's lock is held.
    pub(super) fn leave(&self, pid: i32) -> bool {
        self.with(|ready| {
            ready.abandon_search(pid);
            let was_last = self.users.fetch_sub(1, SeqCst) == 1;
            if was_last {
                self.database.set(InvalidOid);
                self.role.set(InvalidOid);
            }
            was_last && ready.leaves_more()
        })
    }
}
