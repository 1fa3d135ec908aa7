//! Schedules: what falls due is fired once, whatever happens meanwhile.

mod beside_graphile_worker;
mod clock_changes;
mod cost;
mod databases;
mod faults;
mod firing;
mod missed;

use kongtask_tests::Cluster;

/// A task that notes when it runs and for which instant.
const PREPARE: &str =
    "create table done (name text, ts timestamptz, backfilled boolean, at timestamptz default clock_timestamp());
    create function note(p json) returns void language sql as $$
      insert into public.done (name, ts, backfilled)
      select p ->> 'name', (p -> '_cron' ->> 'ts')::timestamptz, (p -> '_cron' ->> 'backfilled')::boolean $$;
    create function nap(p json) returns void language sql as $$ select pg_sleep((p ->> 'seconds')::float8) $$;
    select kongtask.register_task('note', 'note(json)');
    select kongtask.register_task('nap', 'nap(json)');";

fn cluster(settings: &[&str]) -> Cluster {
    let cluster =
        Cluster::with_extension(&[&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"], settings].concat());
    cluster.sql(PREPARE);
    cluster
}

fn schedule(cluster: &Cluster, name: &str, cron: &str, more: &str) {
    cluster.sql(&format!(
        "select kongtask.schedule('{name}', '{cron}', 'note', json_build_object('name', '{name}') {more})"
    ));
}

/// The runs of a schedule that each second is due for are those of consecutive seconds, once each.
const CONSECUTIVE: &str =
    "select count(*) = count(distinct ts) and count(*) = extract(epoch from max(ts) - min(ts)) + 1 from done";
