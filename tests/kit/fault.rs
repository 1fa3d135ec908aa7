//! Servers whose extension has fault points: built by `make fault-build`, and never installed into the server that is tested.

use crate::server_copy::copy_server;
use crate::{Cluster, SOON, Server, hand_over, rows, tested_version, wait_until};
use postgres::Client;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Where a point is armed, in the data directory.
const FOLDER: &str = "kongtask.fault";

impl Cluster {
    /// As [`Cluster::with_extension`], with fault points, and `kongtask_fault(text)` for handlers that a superuser writes.
    pub fn with_faults(settings: &[&str]) -> Cluster {
        let cluster = Cluster::stopped_of(server().clone(), settings);
        let folder = cluster.data().join(FOLDER);
        fs::create_dir(&folder).expect("a folder");
        hand_over(&folder);
        cluster.start();
        cluster.sql(
            "create extension kongtask;
             create function kongtask_fault(what text) returns void language c as '$libdir/kongtask', 'kongtask_fault'",
        );
        cluster
    }

    /// Has whichever process comes to a point next do this there: `crash`, `kill`, `exit`, `error`, `panic`, `stop`,
    /// `cancel`, `spin` (until the point `spun` is armed).
    pub fn arm(&self, point: &str, action: &str) {
        let folder = self.data().join(FOLDER);
        // Under another name first: a process that came to the point in between would read nothing.
        let written = folder.join(format!("{point}.new"));
        fs::write(&written, action).expect("write");
        fs::rename(written, folder.join(point)).expect("rename");
    }

    /// Whether nobody had come to the point.
    pub fn disarm(&self, point: &str) -> bool {
        fs::remove_file(self.data().join(FOLDER).join(point)).is_ok()
    }

    /// Whether nobody has come to the point since.
    pub fn is_armed(&self, point: &str) -> bool {
        self.data().join(FOLDER).join(point).exists()
    }
}

/// A copy of the tested server with the library that has fault points.
fn server() -> &'static Server {
    static COPY: OnceLock<Server> = OnceLock::new();
    COPY.get_or_init(|| {
        let built = format!("{}/../target/fault/pg{}/kongtask.so", env!("CARGO_MANIFEST_DIR"), tested_version());
        assert!(Path::new(&built).exists(), "no {built}: run make fault-build, for this PG_CONFIG");
        let (server, folders) = copy_server();
        let library = folders.libraries.join("kongtask.so");
        fs::remove_file(&library).expect("the library that is installed");
        fs::copy(&built, &library).expect("copy");
        server
    })
}

/// Waits until a fault point has stopped one of the server's processes; its id.
pub fn stopped(cluster: &Cluster, db: &mut Client) -> i32 {
    let mut found = None;
    let stands_still = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    };
    let came = wait_until(SOON, || {
        found = rows(db, "select pid from pg_stat_activity").into_iter().find(stands_still);
        found.is_some()
    });
    assert!(came, "{}", cluster.log());
    found.and_then(|pid| pid.parse().ok()).expect("a pid")
}

/// Has a process go on that a fault point has stopped.
pub fn go_on(pid: i32) {
    // SAFETY: a process of a cluster of this test's.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}
