//! NOTIFY. pgrx has no wrapper, and NOTIFY through SPI would parse a statement each time.

use std::ffi::{CStr, c_char};

unsafe extern "C-unwind" {
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Notifies at commit; the same notification twice in a transaction is sent once.
pub fn notify(channel: &CStr, payload: &CStr) {
    // SAFETY: the texts are copied. It raises only on channel names and payloads that are too long, which ours are not.
    unsafe { Async_Notify(channel.as_ptr(), payload.as_ptr()) }
}
