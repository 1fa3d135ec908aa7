//! The background workers of the extension. Each file begins with the life of its process.

// Lowest first.
mod backoff;
mod worker;
mod pool;
mod scheduler;
pub mod launcher;
