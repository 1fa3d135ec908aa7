//! The launcher, schedulers and workers: who starts, sleeps, is woken, and leaves.

mod absent;
mod create_and_drop_extension;
mod databases;
mod elastic;
mod interrupts;
mod refused_drops;
mod shutdown;
mod slots;
mod wakeup;
mod workers;
