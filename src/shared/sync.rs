//! What the protocols of this folder are made of. The crate `models/` compiles the same protocols with its own version
//! of this file: loom's atomics, which let it try every order of steps, and a list that is full after a few jobs.

pub use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, Ordering, fence};

/// How many jobs a ready list holds: as many as one call of a handler may get.
pub const CAPACITY: usize = 10_000;

/// How many lanes there are for the keys of limited jobs.
pub const LANES: usize = 1 << 14;
