//! No connections, no room on the disk, no memory.

use kongtask_tests::every_kind::ONCE;
use kongtask_tests::fixtures::with_every_kind;
use kongtask_tests::{IDLE, JOBS, SOON, describe, rows, say, text, wait_until};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_server_full_of_connections_still_runs_jobs_and_replaces_workers() {
    let cluster = with_every_kind(&["max_connections = 12", "superuser_reserved_connections = 3"]);
    cluster.wait_for(IDLE, "4");
    let mut db = cluster.connect();
    let mut others = Vec::new();
    let refused = loop {
        match cluster.try_connect_as("postgres", "postgres") {
            Ok(other) => others.push(other),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code().map(|code| code.code()), Some("53300"));
    db.batch_execute("select pg_terminate_backend(pid) from pg_stat_activity where backend_type like 'kongtask%'")
        .expect("terminate");
    db.batch_execute("select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 100) n")
        .expect("add_job");
    assert!(wait_until(SOON, || text(&mut db, JOBS) == "0"), "{}", cluster.log());
    assert_eq!(text(&mut db, ONCE), "100 100");
    assert!(wait_until(SOON, || text(&mut db, IDLE) == "4"), "{}", cluster.log());
}

/// A file system of a few megabytes, for a tablespace.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where we may not make one.
    fn mount(at: &Path, owner: u32) -> Option<SmallDisk> {
        std::fs::create_dir(at).ok()?;
        let options = format!("size=4m,mode=700,uid={owner}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output().ok()?;
        done.status.success().then(|| SmallDisk(at.to_path_buf()))
    }

    fn grow(&self) {
        let done = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(done.expect("mount").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_failed_attempt_until_there_is_room() {
    let cluster = with_every_kind(&["kongtask.workers = 2"]);
    let owner = std::fs::metadata(cluster.data()).expect("the data directory").uid();
    let Some(disk) = SmallDisk::mount(&PathBuf::from(cluster.host()).join("small"), owner) else {
        return say("skipped a_full_disk_is_a_failed_attempt_until_there_is_room: a tmpfs can be mounted by root only");
    };
    cluster.sql(&format!("create tablespace small location '{}'", disk.0.display()));
    cluster.sql(
        "create table big (n bigint, filler text) tablespace small; alter table big alter filler set storage external;
         grant insert on big to alice;
         create function fill(p json) returns void language sql as
           $$ insert into public.big values ((p #>> '{}')::bigint, repeat('x', 700000)) $$;",
    );
    cluster
        .connect_as("alice", "postgres")
        .batch_execute("select kongtask.register_task('fill', 'fill(json)')")
        .expect("register");
    cluster.wait_for(IDLE, "2");
    let workers = rows(&mut cluster.connect(), "select pid from kongtask.workers order by 1");
    cluster.sql("select graphile_worker.add_job('fill', to_json(n)) from generate_series(1, 8) n");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "0");
    cluster.wait_for("select count(*) from graphile_worker.jobs where attempts = 0", "0");
    let says = cluster.text("select last_error from graphile_worker.jobs limit 1");
    assert!(says.contains("No space left on device") && says.contains("(SQLSTATE 53100)"), "{says}");
    // Everything else goes on.
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done", "1");
    let mut db = cluster.connect();
    disk.grow();
    db.batch_execute(
        "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())",
    )
    .expect("reschedule");
    cluster.wait_for(JOBS, "0");
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from big"), "8 8");
    assert_eq!(rows(&mut db, "select pid from kongtask.workers order by 1"), workers);
}

/// As if the machine had no more than that.
fn limit_memory(process: i32, bytes: u64) {
    let owner = std::fs::metadata(format!("/proc/{process}")).expect("a process");
    let mut prlimit = Command::new("prlimit");
    prlimit.args([format!("--pid={process}"), format!("--as={bytes}")]).uid(owner.uid()).gid(owner.gid());
    assert!(prlimit.status().expect("prlimit").success());
}

#[test]
fn running_out_of_memory_is_a_failed_attempt() {
    let cluster = with_every_kind(&["kongtask.workers = 1"]);
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(
            // similar_to_escape() asks for thrice the length of its text, which is more than an allocation may have.
            "create function too_long() returns void language sql as
               $$ select length(similar_to_escape(repeat(repeat('x', 10000), 36000))) $$;
             create function too_much() returns void language sql as $$ select length(repeat(repeat('x', 10000), 100000)) $$;
             select kongtask.register_task('too_long', 'too_long()'), kongtask.register_task('too_much', 'too_much()')",
        )
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
    cluster.wait_for(IDLE, "1");
    let worker: i32 = cluster.text("select pid from kongtask.workers").parse().expect("a pid");
    for (task, sqlstate) in [("too_long", "XX000"), ("too_much", "53200")] {
        if task == "too_much" {
            limit_memory(worker, 512 << 20);
        }
        cluster.sql(&format!("select graphile_worker.add_job('{task}', job_key := '{task}')"));
        let says =
            format!("select last_error like '%(SQLSTATE {sqlstate})%' from graphile_worker.jobs where key = '{task}'");
        cluster.wait_for(&says, "t");
        cluster.sql(&format!("select graphile_worker.remove_job('{task}')"));
    }
    cluster.sql("select graphile_worker.add_job('note', '1')");
    cluster.wait_for("select count(*) from done", "1");
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker.to_string());
}
