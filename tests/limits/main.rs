//! Limits: how many jobs run at once, how many begin in a time, and by what they are told apart. Handlers keep the account
//! themselves. The poll is an hour away: room that is given back is told of.

mod concurrency;
mod keys;
mod rates;
mod settings;

use kongtask_tests::Cluster;

/// A cluster whose handlers note when they began and ended: `work`, which sleeps for as many seconds as the member `s` of its
/// payload says, and then waits as long as the table `gate` has a row with its member `n`.
fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&[&["kongtask.poll_interval = '1h'"], settings].concat());
    prepare(&cluster);
    cluster
}

fn prepare(cluster: &Cluster) {
    cluster.sql(
        "create table account (n int, key text, jobs int, began timestamptz, ended timestamptz);
         create table gate (n int);
         create function work(p json) returns void language plpgsql as $$
           declare began timestamptz = clock_timestamp(); begin
             perform pg_sleep(coalesce((p ->> 's')::float8, 0));
             while exists (select from public.gate where n = (p ->> 'n')::int) loop perform pg_sleep(0.005); end loop;
             insert into public.account values ((p ->> 'n')::int, p ->> 'key', 1, began, clock_timestamp());
           end $$;
         create function work_all(p json[]) returns void language plpgsql as $$
           declare began timestamptz = clock_timestamp(); begin
             perform pg_sleep((p[1] ->> 's')::float8);
             insert into public.account values (0, p[1] ->> 'key', cardinality(p), began, clock_timestamp());
           end $$;
         select kongtask.register_task('work', 'work(json)')",
    );
}

/// The greatest number of jobs that ran at once, by their own account; of each key apart, if `by_key`.
fn at_once(by_key: bool) -> String {
    let key = if by_key { "partition by key" } else { "" };
    format!(
        "select coalesce(max(n), 0) from (
           select sum(change) over ({key} order by at, change) as n
           from (select key, began as at, jobs as change from account
                 union all select key, ended, -jobs from account) as changed) as counted"
    )
}

/// A statement that adds jobs `from` to `to` of a task.
fn add(task: &str, from: usize, to: usize, more: &str) -> String {
    format!(
        "select count(graphile_worker.add_job('{task}', json_build_object('n', n, {more})))
         from generate_series({from}, {to}) n"
    )
}

/// Adds jobs of `work` that wait for their gate.
fn add_gated(cluster: &Cluster, from: usize, to: usize, more: &str) {
    cluster.sql(&format!("insert into gate select generate_series({from}, {to})"));
    cluster.sql(&add("work", from, to, more));
}

/// Adds a job of a task that is not limited, behind all others, and waits until it has run.
fn wait_for_mark(cluster: &Cluster) {
    cluster.sql("select kongtask.register_task('mark', 'work(json)')");
    let job = cluster.text("select id from graphile_worker.add_job('mark', '{\"n\": -1}', priority := 1000)");
    cluster.wait_for(&format!("select count(*) from graphile_worker.jobs where id = {job}"), "0");
    cluster.sql("delete from account where n = -1");
}
