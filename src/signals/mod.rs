//! How a session tells the processes that there is work for them.

// Lowest first.
pub mod wake;
pub mod commit_notes;
pub mod cancel_requests;
pub mod waits;
pub mod ddl_hooks;
