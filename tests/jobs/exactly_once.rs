//! Thousands of jobs, added by many and run by many: each has its effect once.

use kongtask_tests::fixtures::with_note;
use kongtask_tests::{text, wait_until};
use std::time::Duration;

/// Eight connections add ten thousand jobs, four workers run them.
fn exactly_once(fails_first: bool) {
    const JOBS: usize = 10_000;
    let cluster = with_note(&["kongtask.workers = 4"]);
    cluster.sql("create table effect (n int)");
    cluster.sql(
        "create function effect(p json) returns void language plpgsql as $$ declare j graphile_worker.jobs := kongtask.current_job(); begin
           insert into effect values ((p ->> 'n')::int);
           if (p ->> 'fails')::boolean and j.attempts = 1 then raise exception 'first attempt'; end if;
         end $$;
         select kongtask.register_task('effect', 'effect(json)');",
    );
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let mut db = cluster.connect();
            std::thread::spawn(move || {
                for n in (thread..JOBS).step_by(8) {
                    let fails = fails_first && n % 10 == 0;
                    db.batch_execute(&format!(
                        "select graphile_worker.add_job('effect', '{{\"n\": {n}, \"fails\": {fails}}}')"
                    ))
                    .expect("add_job");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("an enqueuer");
    }
    let mut db = cluster.connect();
    let emptied = wait_until(Duration::from_secs(120), || {
        if fails_first {
            // Shortens the back-off.
            text(
                &mut db,
                "select count(*) from graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where last_error is not null), run_at := now())",
            );
        }
        text(&mut db, "select count(*) from graphile_worker.jobs") == "0"
    });
    assert!(emptied, "{} left", text(&mut db, "select count(*) from graphile_worker.jobs"));
    assert_eq!(text(&mut db, "select count(*) || ' ' || count(distinct n) from effect"), format!("{JOBS} {JOBS}"));
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL", "PANIC", "WARNING"]), Vec::<String>::new());
    cluster.wait_for_log_times("failed on attempt 1", if fails_first { JOBS / 10 } else { 0 });
}

#[test]
fn ten_thousand_jobs_exactly_once() {
    exactly_once(false);
}

#[test]
fn ten_thousand_jobs_exactly_once_where_a_tenth_fails_first() {
    exactly_once(true);
}
