//! The only room for FFI and `unsafe` (with `shmem`): everything it hands out is a safe, owned type.
//!
//! pgrx's own guard turns a Postgres ERROR into a panic that has lost its SQLSTATE (where that is not one of the
//! server's own), its context and the constraint it names. A queue must hand those on unharmed, to the caller of
//! `add_job` and to `last_error`: so what may raise is called through [`catch`], which returns the error whole.

pub mod args;
pub mod background;
pub mod catalog;
pub mod catch;
pub mod clock;
pub mod dblink;
pub mod fault;
pub mod function;
pub mod heap;
pub mod hooks;
pub mod invalidation;
pub mod latch;
pub mod libraries;
pub mod lock;
pub mod mapping;
pub mod memory;
pub mod notify;
pub mod procedure;
pub mod python;
pub mod role;
pub mod session;
pub mod spi;
pub mod text;
pub mod trigger;
pub mod version;
pub mod xact;
pub mod zone;
