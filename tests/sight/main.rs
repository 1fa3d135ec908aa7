//! What can be seen of jobs: counters, states, and what the doctor finds.

mod counters;
mod doctor;
mod log;
mod states;
