//! Tasks: which of them are handled in this database, by which function, as which role, and which are paused.

// Lowest first.
pub mod pauses;
pub mod limits;
mod task_rows;
pub mod registry;
pub mod command;
pub mod handler;
pub mod forbidden_flags;
