//! Subtransactions of user code: savepoints, and blocks with EXCEPTION in plpgsql.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::c_void;

/// The number of a subtransaction, which no other one of its transaction has; 1 is the transaction itself.
pub type SubId = u32;

/// Returns the current subtransaction.
pub fn current() -> SubId {
    // SAFETY: reads the state of the transaction.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// The end of a subtransaction.
#[derive(Clone, Copy)]
pub enum End {
    /// What it did is its parent's from now on.
    Released { by: SubId, to: SubId },
    /// What it did is undone.
    RolledBack(SubId),
}

thread_local! {
    static ENDS: RefCell<Vec<fn(End)>> = const { RefCell::new(Vec::new()) };
}

/// Calls `end` at the end of each subtransaction of this backend. It must not raise. A function that is registered again
/// is called once. When the whole transaction is rolled back, the open subtransactions may be called for or not.
pub fn at_end(end: fn(End)) {
    let is_first = ENDS.with_borrow_mut(|ends| {
        let is_first = ends.is_empty();
        if !ends.iter().any(|&known| std::ptr::fn_addr_eq(known, end)) {
            ends.push(end);
        }
        is_first
    });
    if is_first {
        // SAFETY: registered once for the life of the backend.
        unsafe { pg_sys::RegisterSubXactCallback(Some(event), std::ptr::null_mut()) }
    }
}

unsafe extern "C-unwind" fn event(event: pg_sys::SubXactEvent::Type, by: SubId, to: SubId, _: *mut c_void) {
    let end = match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => End::Released { by, to },
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => End::RolledBack(by),
        _ => return,
    };
    // None of these functions registers another.
    ENDS.with_borrow(|ends| ends.iter().for_each(|known| known(end)));
}

/// Values that are undone with the subtransaction that noted them. Those of a subtransaction that is open lie behind
/// those of its parent, which notes nothing meanwhile: so what ends is at the end, and costs no look at the rest.
pub struct Noted<T>(Vec<(SubId, T)>);

impl<T> Default for Noted<T> {
    fn default() -> Noted<T> {
        Noted::none()
    }
}

impl<T> Noted<T> {
    pub const fn none() -> Noted<T> {
        Noted(Vec::new())
    }

    /// Notes a value for the current subtransaction.
    pub fn note(&mut self, value: T) {
        self.0.push((current(), value));
    }

    /// Notes a value in place of what the current subtransaction noted last.
    pub fn replace(&mut self, value: T) {
        self.0.pop_if(|(by, _)| *by == current());
        self.note(value);
    }

    /// Merges the last value into the one before, if both are of the same subtransaction and `merge` returns true.
    pub fn merge_last(&mut self, merge: impl FnOnce(&mut T, &T) -> bool) {
        if let [.., (before_by, before), (by, last)] = &mut self.0[..]
            && before_by == by
            && merge(before, last)
        {
            self.0.pop();
        }
    }

    /// Follows the end of a subtransaction. Returns the values that are undone.
    pub fn follow(&mut self, end: End) -> Vec<T> {
        let (End::Released { by: ended, .. } | End::RolledBack(ended)) = end;
        let from = self.0.iter().rposition(|(by, _)| *by != ended).map_or(0, |at| at + 1);
        match end {
            End::Released { to, .. } => {
                self.0[from..].iter_mut().for_each(|(by, _)| *by = to);
                Vec::new()
            }
            End::RolledBack(_) => self.0.drain(from..).map(|(_, value)| value).collect(),
        }
    }

    pub fn last(&self) -> Option<&T> {
        self.0.last().map(|(_, value)| value)
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Forgets all. Returns the values.
    pub fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.0).into_iter().map(|(_, value)| value).collect()
    }
}
