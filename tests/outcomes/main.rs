//! What became of jobs: what kongtask.runs keeps of them, for how long and for whom, and waiting for a job to end.

mod copies;
mod faults;
mod kept;
mod results;
mod rights;
mod turns;
mod waiting;

use kongtask_tests::Cluster;
use kongtask_tests::fixtures::without_polling;

/// A task for each way in which jobs run, all with the same handler, or one that does the same. They note their payload in
/// `did`, fail if it is less than zero, and return twice of it.
const WAYS: &str = "
    create table did (n int);
    create function does(p json) returns int language plpgsql as $$ begin
      insert into public.did values ((p #>> '{}')::int);
      if (p #>> '{}')::int < 0 then raise 'negative'; end if;
      return 2 * (p #>> '{}')::int; end $$;
    create function does_all(p json[]) returns int[] language sql as
      $$ select array_agg(public.does(x) order by place) from unnest(p) with ordinality as given (x, place) $$;
    create procedure does_in_steps(p json) language plpgsql as $$ begin commit; perform public.does(p); end $$;
    select kongtask.register_task('alone', 'does(json)', keep := 'all'),
           kongtask.register_task('claimed', 'does(json)', in_place := false, keep := 'all'),
           kongtask.register_task('batch', 'does(json)', max_batch := 50, keep := 'all'),
           kongtask.register_task('claimed_batch', 'does(json)', max_batch := 50, in_place := false, keep := 'all'),
           kongtask.register_task('set', 'does_all(json[])', keep := 'all'),
           kongtask.register_task('claimed_set', 'does_all(json[])', in_place := false, keep := 'all'),
           kongtask.register_task('steps', 'does_in_steps(json)', keep := 'all')";

const TASKS: [&str; 7] = ["alone", "claimed", "batch", "claimed_batch", "set", "claimed_set", "steps"];

fn with_ways(settings: &[&str]) -> Cluster {
    let cluster = without_polling(settings);
    cluster.sql(WAYS);
    cluster
}

/// Runs statements as one transaction would, and waits until no job is left that can run.
fn run(cluster: &Cluster, statements: &str) {
    cluster.sql(statements);
    cluster.wait_for(
        "select count(*) from graphile_worker.jobs where attempts < max_attempts and run_at <= now() and locked_at is null",
        "0",
    );
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running'", "0");
}
