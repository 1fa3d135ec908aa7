//! What can be seen of jobs: the state of each, why it does not run, and how many are in which state.

// Lowest first.
pub mod states;
pub mod overview;
