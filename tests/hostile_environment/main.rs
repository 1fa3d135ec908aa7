//! Surroundings that break what does not expect them: settings, disks, memory, clocks, standbys, statements that rewrite the tables.

mod clock;
mod ddl;
mod resources;
mod settings;
mod standbys;

use kongtask_tests::{Cluster, every_kind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Adds jobs of every kind until told to stop, or the server is gone; how many it was told are there.
pub fn load(cluster: &Cluster, stop: &AtomicBool, added: &AtomicUsize) {
    let Ok(mut db) = cluster.try_connect_as("postgres", "postgres") else { return };
    while !stop.load(SeqCst) {
        let Ok(count) = every_kind::add(&mut db, added.load(SeqCst) + 1) else { return };
        added.fetch_add(count, SeqCst);
    }
}

/// Tells others to stop when its owner is done, or fails.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
