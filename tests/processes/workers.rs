//! Workers that cannot start or stay, and a scheduler that has to wait: neither costs processor time.

use kongtask_tests::fixtures::with_note_and_nap;
use kongtask_tests::{IDLE, SOON, wait_until};
use std::time::Duration;

#[test]
fn workers_that_cannot_stay_are_not_started_for_ever_and_come_back() {
    let cluster = with_note_and_nap(&["kongtask.workers = 2", "kongtask.poll_interval = '200ms'"]);
    cluster.wait_for(IDLE, "2");
    cluster.sql("alter table graphile_worker.jobs rename column locked_at to taken_at");
    cluster.sql("insert into graphile_worker.jobs (task_identifier, payload) values ('note', '1')");
    let came = wait_until(SOON, || {
        cluster.log_lines(&["WARNING"]).iter().any(|line| {
            line.contains("kongtask workers cannot keep running in") || line.contains("scheduler of database")
        })
    });
    assert!(came, "{}", cluster.log());
    std::thread::sleep(Duration::from_secs(3));
    let errors = cluster.log_lines(&["ERROR"]).len();
    assert!(errors < 60, "{errors} errors: it runs in circles");
    cluster.sql("alter table graphile_worker.jobs rename column taken_at to locked_at");
    cluster.wait_for("select what from done", "1");
}

#[test]
fn a_scheduler_that_waits_for_something_does_not_spin() {
    let cluster =
        with_note_and_nap(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'", "max_worker_processes = 4"]);
    cluster.sql(
        "create role alice login; grant usage on schema kongtask to alice;
         grant execute on function kongtask.register_task to alice",
    );
    cluster.connect_as("alice", "postgres").batch_execute("create schema authorization alice").unwrap_err();
    cluster.sql("create schema authorization alice");
    cluster
        .connect_as("alice", "postgres")
        .batch_execute("create function alice.h() returns void language sql as ''; select kongtask.register_task('h', 'alice.h()')")
        .expect("register");
    cluster.sql("alter role alice nologin; select graphile_worker.add_job('h'), graphile_worker.add_job('note', '1')");
    cluster.wait_for("select what from done", "1");
    std::thread::sleep(Duration::from_secs(2));
    // Processor time of the scheduler, in ticks of 10 ms.
    let pid = cluster.text("select pid from pg_stat_activity where backend_type = 'kongtask scheduler'");
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        stat.split_whitespace().skip(13).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(3));
    assert!(ticks() - before < 30, "{} ticks in 3 s", ticks() - before);
}
