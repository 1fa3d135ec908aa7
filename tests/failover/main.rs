//! Failovers under load: by Patroni, and by hand with pg_rewind. What was acknowledged runs, effects are there once, schedules go
//! on, and a standby runs nothing.

mod account;
mod by_hand;
mod load;
mod patroni;
