//! The shared libraries that user code has had this process load. pgrx has no wrapper.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

thread_local! {
    /// How many had ever been loaded at the latest look.
    static LOADED: Cell<u64> = const { Cell::new(0) };
}

/// True if any was loaded since this was last asked. Costs less than a microsecond.
pub fn were_loaded() -> bool {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, loaded: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid entry, and the pointer that it was given. Every entry has the count.
        unsafe { *loaded.cast::<u64>() = (*info).dlpi_adds };
        1
    }
    let mut loaded = 0u64;
    // SAFETY: the callback keeps to the protocol.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut loaded).cast()) };
    LOADED.replace(loaded) != loaded
}

/// True if a library of this file name is loaded.
pub fn has(name: &CStr) -> bool {
    unsafe extern "C" fn is_it(info: *mut libc::dl_phdr_info, _: usize, name: *mut c_void) -> c_int {
        // SAFETY: as above; names are NUL-terminated.
        unsafe {
            let (path, name) = ((*info).dlpi_name, &*name.cast::<&CStr>());
            let is_it = !path.is_null()
                && CStr::from_ptr(path).to_bytes().rsplit(|&byte| byte == b'/').next() == Some(name.to_bytes());
            c_int::from(is_it)
        }
    }
    let mut name = name;
    // SAFETY: the callback keeps to the protocol.
    unsafe { libc::dl_iterate_phdr(Some(is_it), (&raw mut name).cast()) != 0 }
}

/// The function or variable of this name, of any library that is loaded; null if there is none.
pub fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: a look-up. Postgres has the loader share what its libraries need.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}
