//! Processes that crash, are killed or terminated, and what becomes of the jobs they ran.

mod crashes;
mod fault_points;
mod terminated_workers;
