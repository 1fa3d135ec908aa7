//! Memory that outlives the server's shared memory: a file, mapped by the postmaster and so by all of its children.

use std::ffi::CStr;

/// Maps `size` bytes of a file, which is made or made as long; `None` if that cannot be done. A crash of any process leaves
/// what was written.
pub fn map(path: &CStr, size: usize) -> Option<*mut u8> {
    const MODE: libc::c_uint = 0o600;
    // SAFETY: system calls on a file of ours; the mapping is kept for the life of the process.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, MODE);
        if file < 0 {
            return None;
        }
        let grown = libc::ftruncate(file, size as libc::off_t) == 0;
        let memory = if grown {
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0)
        } else {
            libc::MAP_FAILED
        };
        libc::close(file);
        (memory != libc::MAP_FAILED).then_some(memory.cast())
    }
}
