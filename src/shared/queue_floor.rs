//! Where the worker that works a queue down must look for the queue's next job.
//!
//! Entries of finished jobs stay in the index of queues as long as an old snapshot may see them, and each look from the
//! queue's beginning would pass all of them. So a worker that holds a queue looks from its latest job on, and sessions
//! tell it which jobs they added or changed meanwhile: some may come before.
//!
//! As with a ready list, no job is missed: the worker forgets what it was told before it takes the snapshot of its look,
//! and a session tells it after its commit. So the look either shows the job, or what it was told is remembered until
//! the next look.
//!
//! A process that reads or writes `lowered` holds the lock of floors.

use super::ready_list::Position;
use std::cell::UnsafeCell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

pub struct QueueFloor {
    /// The hash of the queue's name; 0 if the worker works no queue down. Written by the worker; read by sessions after
    /// their commit, without the lock.
    queue: AtomicU64,
    /// The lowest position where a job was added to the queue, or changed, since the worker last looked.
    lowered: UnsafeCell<Position>,
}

// SAFETY: `lowered` is reached under the lock only, as the functions' callers say.
unsafe impl Sync for QueueFloor {}

impl QueueFloor {
    /// Begins to work a queue down. Pairs with `is_of`: a session that does not see this has committed before the
    /// worker's next look.
    pub fn begin(&self, queue: u64) {
        self.queue.store(queue, SeqCst);
    }

    pub fn end(&self) {
        self.queue.store(0, SeqCst);
    }

    /// Returns true if a queue is worked down.
    pub fn is_used(&self) -> bool {
        self.queue.load(SeqCst) != 0
    }

    /// Returns true if the queue with this hash is worked down.
    pub fn is_of(&self, queue: u64) -> bool {
        self.queue.load(SeqCst) == queue
    }

    /// Notes that a job was added to the queue, or changed. The lock is held.
    pub(super) fn lower(&self, position: Position) {
        // SAFETY: the lock is held.
        unsafe { *self.lowered.get() = (*self.lowered.get()).min(position) }
    }

    /// Returns what was noted, and forgets it. The lock is held.
    pub(super) fn take(&self) -> Position {
        // SAFETY: the lock is held.
        unsafe { std::mem::replace(&mut *self.lowered.get(), Position::END) }
    }
}
