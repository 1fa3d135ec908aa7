//! The same schema, and the jobs still there, however they came: upgraded, restored, replicated, copied.

mod backups;
mod dump_restore;
mod logical_replication;
mod versions;

use kongtask_tests::{Cluster, SOON, rows, text, wait_until};

/// A task that notes its jobs, and jobs in every state: one is held by a worker of ours that is no more.
pub const LIVE: &str = "create table done (job bigint, at timestamptz default clock_timestamp());
    create index on done (job);
    create role worker;
    create function note(j graphile_worker.jobs) returns void language sql as
      $$ insert into public.done (job) values (j.id) $$;
    select kongtask.register_task('note', 'note(graphile_worker.jobs)');
    select graphile_worker.add_job('note', '{\"a\":  1}', 'q') from generate_series(1, 3);
    select graphile_worker.add_job('note', job_key := 'k', run_at := now() + interval '1 day', flags := '{f}');
    select graphile_worker.add_job('note');
    select graphile_worker.add_job('elsewhere', max_attempts := 1, queue_name := 'q');
    select graphile_worker.get_job('external-worker', '{elsewhere}');
    select graphile_worker.fail_job('external-worker', 6, 'failed');
    update graphile_worker.jobs set attempts = 25, locked_at = now(), locked_by = 'kongtask:0123456789abcdef' where id = 1;
    delete from graphile_worker.job_queues;
    insert into graphile_worker.job_queues (queue_name, job_count, locked_at, locked_by) values ('q', 4, now(), 'kongtask:0123456789abcdef');
    insert into graphile_worker.known_crontabs values ('c', '2020-01-01', '2021-01-01');";

/// What is asked of the rights that a dump takes along.
pub const GRANT: &str = "grant execute on function graphile_worker.add_job to worker";

/// Its rows, as they must be on the other side, but for what that worker held.
pub const ROWS: [&str; 5] = [
    "select * from graphile_worker.jobs where id > 1 order by id",
    "select id, queue_name, task_identifier, payload, run_at, created_at, revision from graphile_worker.jobs where id = 1",
    "select * from graphile_worker.known_crontabs",
    "select identifier, handler, role, registered_at from kongtask.tasks",
    "select last_value, is_called from graphile_worker.jobs_id_seq",
];

/// A cluster whose jobs nobody runs, with all of that in its database postgres.
pub fn asleep(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&[&["kongtask.databases = ''"], settings].concat());
    cluster.sql(LIVE);
    cluster
}

/// What is to run here runs at once, the job of the dead worker too, and first: it heads its queue.
pub fn assert_runs(cluster: &Cluster, database: &str) {
    let mut db = cluster.connect_as("postgres", database);
    let done = wait_until(SOON, || text(&mut db, "select count(*) from done") == "4");
    assert!(done, "{:?}\n{}", rows(&mut db, "select * from graphile_worker.jobs"), cluster.log());
    assert_eq!(text(&mut db, "select string_agg(job::text, ' ' order by at) from done where job < 4"), "1 2 3");
    assert!(wait_until(SOON, || text(&mut db, "select count(*) from graphile_worker.jobs") == "2"));
    assert_eq!(
        rows(&mut db, "select id, attempts, last_error, locked_by from graphile_worker.jobs order by id"),
        ["4|0||", "6|1|failed|"]
    );
    assert_eq!(rows(&mut db, "select * from graphile_worker.job_queues"), Vec::<String>::new());
}

/// A dump's source: jobs that note whether all of their table was there when they ran. Nobody runs them here.
pub fn with_a_watchful_task() -> Cluster {
    let cluster =
        Cluster::with_extension(&["kongtask.databases = ''", "kongtask.workers = 2", "max_worker_processes = 40"]);
    cluster.sql(
        "create table done (job text primary key, was_whole boolean);
         create function note(payload json) returns void language sql as
           $$ insert into public.done select payload #>> '{}', exists (select from pg_index where indexrelid = to_regclass('public.done_pkey')) $$;
         select kongtask.register_task('note', 'note(json)');
         select graphile_worker.add_job('note', to_json(n)) from generate_series(1, 5) n",
    );
    cluster
}

pub const DONE: &str = "select count(*) || ' ' || bool_and(was_whole) from done";
pub const HOLDS: &str = "select reason from kongtask.holds where database = current_database()";

/// Waits until a query in a database answers this.
pub fn wait_for(cluster: &Cluster, database: &str, query: &str, expected: &str) {
    let mut db = cluster.connect_as("postgres", database);
    let mut last = String::new();
    let came = wait_until(SOON, || {
        last = text(&mut db, query);
        last == expected
    });
    assert!(came, "{query}: {last:?}, not {expected:?}\n{}", cluster.log());
}
