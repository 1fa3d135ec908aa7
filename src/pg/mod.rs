//! Safe wrappers of Postgres's functions and types: with `shared`, the only place for FFI and `unsafe`. They hand out
//! safe, owned types, and import nothing from the other modules.
//!
//! pgrx's guard turns a Postgres ERROR into a panic that loses its SQLSTATE (where that is not one of the server's
//! own), its context and the constraint that it names. The queue must pass all of that on, to the caller of `add_job`
//! and to `last_error`. So whatever may raise is called through `catch::catch`, which returns the whole error. Where
//! pgrx has a wrapper that is not used, the file says why.

pub mod args;
pub mod background;
pub mod catalog;
pub mod catch;
pub mod clock;
pub mod dblink;
pub mod definition;
pub mod fault;
pub mod function;
pub mod heap;
pub mod hooks;
pub mod index_scan;
pub mod interval;
pub mod invalidation;
pub mod latch;
pub mod libraries;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod portal;
pub mod procedure;
pub mod python;
pub mod role;
pub mod session;
pub mod spi;
pub mod scan;
pub mod subxact;
pub mod text;
pub mod trigger;
pub mod version;
pub mod xact;
pub mod zone;
