//! Clusters that several test files begin with.

use crate::{Cluster, every_kind};
use postgres::Client;

/// A cluster whose safety net, the poll, is an hour away: what runs was told of. Handlers `note` (json) and `note_all` (json[])
/// write to `done`; no task is registered.
pub fn without_polling(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&[&["kongtask.poll_interval = '1h'"], settings].concat());
    cluster.sql(NOTE_NUMBERS);
    cluster
}

/// Handlers that write the numbers that they were given to `done`.
pub const NOTE_NUMBERS: &str = "create table done (at bigserial, n int, xid xid8 default pg_current_xact_id());
    create function note(p json) returns void language plpgsql as $$ begin
      insert into done (n) values ((p #>> '{}')::int); end $$;
    create function note_all(p json[]) returns void language plpgsql as $$ begin
      insert into done (n) select (x #>> '{}')::int from unnest(p) x; end $$;";

/// A statement that adds jobs 1 to `count` of a task, in one transaction.
pub fn add(task: &str, count: usize) -> String {
    format!("select count(graphile_worker.add_job('{task}', to_json(n))) from generate_series(1, {count}) n")
}

/// A cluster with a task `note`, whose handler writes the job's id and what it was given to `done`.
pub fn with_note(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(
        "create table done (at bigserial, job bigint, what text);
         create function note(payload json) returns void language plpgsql as $$ begin
           insert into done (job, what) values ((kongtask.current_job()).id, payload #>> '{}');
         end $$;
         select kongtask.register_task('note', 'note(json)');",
    );
    cluster
}

/// Tasks `note`, which writes to `done`, and `nap`, which does so and sleeps for as many seconds as its payload says.
pub const NOTE_AND_NAP: &str = "create table done (job bigint, what text);
    create function note(p json) returns void language sql as
      $$ insert into public.done values ((kongtask.current_job()).id, p #>> '{}') $$;
    create function nap(p json) returns void language plpgsql as $$ begin
      insert into public.done values ((kongtask.current_job()).id, 'nap');
      perform pg_sleep((p #>> '{}')::float8);
    end $$;
    select kongtask.register_task('note', 'note(json)'), kongtask.register_task('nap', 'nap(json)');";

/// A cluster with [`NOTE_AND_NAP`].
pub fn with_note_and_nap(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(NOTE_AND_NAP);
    cluster
}

/// A cluster with a role that owns a task for each way in which jobs are run.
pub fn with_every_kind(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    every_kind::prepare(&cluster);
    cluster
}

/// A cluster with fault points that starts over after a crash, and handlers that crash their process.
pub fn with_crashing_handlers(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_faults(&[&["restart_after_crash = on"], settings].concat());
    cluster.sql(
        "create table done (n int);
         create function note(p json) returns void language plpgsql as $$ begin insert into done values ((p #>> '{}')::int); end $$;
         create function crash() returns void language sql as $$ select kongtask_fault('crash') $$;
         create function is_killed() returns void language sql as $$ select kongtask_fault('kill') $$;
         create function crash_if(p json) returns void language plpgsql as $$ begin
           insert into done values ((p #>> '{}')::int);
           if p #>> '{}' = '13' then perform crash(); end if; end $$;
         create function crash_if_any(p json[]) returns void language plpgsql as $$ begin
           perform crash_if(x) from unnest(p) x; end $$;
         select kongtask.register_task('note', 'note(json)'),
                kongtask.register_task('crash', 'crash()'),
                kongtask.register_task('is_killed', 'is_killed()'),
                kongtask.register_task('batch', 'crash_if(json)', max_batch := 50),
                kongtask.register_task('set', 'crash_if_any(json[])')",
    );
    cluster
}

/// A cluster where no worker of ours takes part, and a connection to it.
pub fn quiet() -> (Cluster, Client) {
    let cluster = Cluster::with_extension(&["kongtask.workers = 0"]);
    let db = cluster.connect();
    (cluster, db)
}
