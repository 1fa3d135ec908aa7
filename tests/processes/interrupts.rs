//! Handlers that do not come back to Postgres by themselves: what ends them, and what is done about those that nothing ends.

use kongtask_tests::{Cluster, IDLE, JOBS, RUNNING, SOON, pg_config, rows, say, text, wait_until};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a handler in Python waits by: the interpreter's own loop, its sleep, and the kernel's.
const ENDLESS: &[(&str, &str)] = &[
    ("py_loop", "while True: pass"),
    ("py_naps", "import time\nwhile True: time.sleep(0.01)"),
    ("py_sleep", "import time\ntime.sleep(1000)"),
    ("py_pipe", "import os\nr, w = os.pipe()\nos.read(r, 1)"),
    ("py_sql", "plpy.execute('select pg_sleep(1000)')"),
    ("py_sql_loop", "while True: plpy.execute('select 1')"),
];

/// A cluster with the handlers above, each without a timeout, with one of a second, and called by another language; `None` where
/// the server that is tested has no PL/Python.
fn python(settings: &[&str]) -> Option<Cluster> {
    let cluster = Cluster::with_extension(settings);
    if !Path::new(&pg_config("--pkglibdir")).join("plpython3.so").exists() {
        let version = cluster.version();
        assert_ne!(version, 15, "PL/Python is not installed: run make setup");
        say(&format!("PL/Python is not tested on PostgreSQL {version}: this server was built without it"));
        return None;
    }
    cluster.sql("create extension plpython3u; create table done (n int)");
    cluster.sql(
        "create function py_note() returns void language plpython3u as $$ plpy.execute('insert into done values (1)') $$;
         select kongtask.register_task('py_note', 'py_note()')",
    );
    for (name, body) in ENDLESS {
        cluster.sql(&format!(
            "create function {name}() returns void language plpython3u as $${body}$$;
             create function {name}_within() returns void language plpgsql as $$ begin perform {name}(); end $$;
             select kongtask.register_task('{name}', '{name}()'), kongtask.register_task('{name}_1s', '{name}()', timeout := '1s'),
               kongtask.register_task('{name}_within', '{name}_within()', timeout := '1s'),
               kongtask.register_task('{name}_batch', '{name}()', max_batch := 10, timeout := '1s')"
        ));
    }
    Some(cluster)
}

/// The first line of what a job failed with, once it has.
fn failure(cluster: &Cluster, task: &str) -> String {
    let said = format!(
        "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs where task_identifier = '{task}' and last_error is not null"
    );
    let mut db = cluster.connect();
    let mut last = String::new();
    let came = wait_until(SOON, || {
        last = text(&mut db, &said);
        !last.is_empty()
    });
    assert!(came, "{task} goes on\n{}", cluster.log());
    last
}

#[test]
fn a_timeout_ends_what_python_does_and_the_worker_lives() {
    let Some(cluster) = python(&["kongtask.workers = 1"]) else { return };
    cluster.wait_for(IDLE, "1");
    let worker = cluster.text("select pid from kongtask.workers");
    for how in ["1s", "within", "batch"] {
        for (name, _) in ENDLESS {
            // What only a call within a call shows to be Python is not known to a fresh process: here it is known by then. And
            // only a handler in Python has the kernel's waiting end.
            if how == "within" && *name == "py_pipe" {
                continue;
            }
            let task = format!("{name}_{how}");
            let more = if how == "batch" { "select graphile_worker.add_job('py_note');" } else { "" };
            cluster.sql(&format!("begin; select graphile_worker.add_job('{task}', max_attempts := 1); {more} commit"));
            assert_eq!(failure(&cluster, &task), "timed out after 1s (SQLSTATE 57014)", "{task}");
            // What interrupted one hits no other.
            cluster.sql("select graphile_worker.add_job('py_note', max_attempts := 1)");
            cluster.wait_for(&format!("{JOBS} where attempts < max_attempts"), "0");
            cluster.sql("delete from graphile_worker.jobs where task_identifier <> 'py_note'");
            assert_eq!(cluster.text(JOBS), "0", "{task}\n{}", cluster.log());
        }
    }
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
    assert_eq!(cluster.log_lines(&["ERROR", "FATAL"]), Vec::<String>::new());
}

#[test]
fn python_can_be_cancelled_and_terminated() {
    let Some(cluster) = python(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]) else { return };
    cluster.wait_for(IDLE, "1");
    for (name, _) in ENDLESS {
        // Has the pool forget how many workers have just ended one after another.
        cluster.sql("select kongtask.register_task('py_note', 'py_note()')");
        let worker = cluster.text("select pid from kongtask.workers");
        cluster.sql(&format!("select graphile_worker.add_job('{name}', max_attempts := 1)"));
        cluster.wait_for(RUNNING, "1");
        // The handler has begun by then, or is about to: a cancel that comes too early is nobody's.
        let said = || text(&mut cluster.connect(), "select last_error is not null from graphile_worker.jobs") == "t";
        assert!(wait_until(SOON, || {
            cluster.sql("select pg_cancel_backend(pid) from kongtask.workers where state = 'running'");
            sleep(Duration::from_millis(100));
            said()
        }));
        assert_eq!(failure(&cluster, name), "canceling statement due to user request (SQLSTATE 57014)", "{name}");
        cluster.sql("delete from graphile_worker.jobs; truncate done; select graphile_worker.add_job('py_note')");
        cluster.wait_for("select count(*) from done", "1");
        assert_eq!(cluster.text("select pid from kongtask.workers"), worker, "{name}");
        cluster.sql(&format!("select graphile_worker.add_job('{name}', job_key := 'k')"));
        cluster.wait_for(RUNNING, "1");
        // Into the handler.
        sleep(Duration::from_millis(100));
        cluster.sql("select pg_terminate_backend(pid) from kongtask.workers");
        let another = format!("select count(*) from kongtask.workers where pid <> {worker} and state =");
        cluster.wait_for(&format!("{another} 'running'"), "1");
        // Not before it has claimed the job.
        cluster.wait_for("select attempts from graphile_worker.jobs", "1");
        cluster.sql("truncate graphile_worker.jobs, graphile_worker.job_queues; select pg_terminate_backend(pid) from kongtask.workers");
        cluster.wait_for(&format!("{another} 'idle'"), "1");
    }
    assert_eq!(cluster.log_lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn a_database_where_python_runs_for_ever_can_be_dropped() {
    let Some(cluster) = python(&["kongtask.shutdown_timeout = '500ms'"]) else { return };
    for (name, _) in ENDLESS {
        cluster.sql("create database app template postgres");
        {
            let mut db = cluster.connect_as("postgres", "app");
            db.batch_execute(&format!("select graphile_worker.add_job('{name}')")).expect("add_job");
            let running = "select count(*) from kongtask.workers where database = 'app' and state = 'running'";
            assert!(wait_until(SOON, || text(&mut db, running) == "1"), "{name}\n{}", cluster.log());
        }
        let begun = Instant::now();
        cluster.sql("drop database app with (force)");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
    }
}

/// Nothing but kill -9 ends it; the role's other jobs have other workers, as many again at most.
#[test]
fn what_nothing_can_interrupt_is_said_shown_and_replaced() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create table done (n int);
         create function note() returns void language sql as 'insert into done values (1)';
         create function spin(what json) returns void language c as '$libdir/kongtask', 'kongtask_fault';
         select kongtask.register_task('note', 'note()'), kongtask.register_task('spin', 'spin(json)', timeout := '1s')",
    );
    cluster.wait_for(IDLE, "1");
    const SPINS: &str = "select graphile_worker.add_job('spin', '\"spin\"', max_attempts := 1)";
    let unresponsive = "select count(*) from kongtask.workers where state = 'unresponsive'";
    cluster.sql(SPINS);
    cluster.wait_for(unresponsive, "1");
    let first = cluster.text("select pid from kongtask.workers where state = 'unresponsive'");
    cluster.wait_for_log_times(&format!("kongtask worker {first} does not end its call"), 1);
    cluster.sql("select graphile_worker.add_job('note')");
    cluster.wait_for("select count(*) from done", "1");
    // The second takes the last place that there is for it.
    cluster.sql(SPINS);
    cluster.wait_for(unresponsive, "2");
    assert_eq!(cluster.text("select count(*) from kongtask.workers"), "2");
    cluster.sql("select graphile_worker.add_job('note')");
    // Once one of them comes back after all, everything is as it was.
    cluster.arm("spun", "error");
    cluster.wait_for("select count(*) from done", "2");
    cluster.wait_for(unresponsive, "1");
    cluster.arm("spun", "error");
    cluster.wait_for(unresponsive, "0");
    cluster.wait_for("select count(*) from kongtask.workers", "1");
    cluster.wait_for(IDLE, "1");
    let said = "select distinct split_part(last_error, E'\\n', 1) from graphile_worker.jobs";
    assert_eq!(rows(&mut cluster.connect(), said), ["timed out after 1s (SQLSTATE 57014)"]);
    cluster.wait_for_log_times("does not end its call", 2);
}

#[test]
fn a_server_whose_worker_does_not_respond_still_stops_at_once_if_told_to() {
    let cluster = Cluster::with_faults(&["kongtask.workers = 1", "kongtask.shutdown_timeout = '0'"]);
    cluster.sql(
        "create function spin(what json) returns void language c as '$libdir/kongtask', 'kongtask_fault';
         select kongtask.register_task('spin', 'spin(json)', timeout := '100ms');
         select graphile_worker.add_job('spin', '\"spin\"', max_attempts := 1)",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'unresponsive'", "1");
    cluster.stop("immediate");
}
