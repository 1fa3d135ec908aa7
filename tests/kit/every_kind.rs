//! Jobs of every kind: plain, batched, in sets, of procedures, failing at first, in queues, with keys, due later. Each has one
//! effect, a row of `done`.

use crate::{Cluster, SOON, describe, rows, text, wait_until};
use postgres::Client;

/// How many rows `done` has, and how many different ones.
pub const ONCE: &str = "select count(*) || ' ' || count(distinct n) from done";

/// Makes `done`, the role alice and her tasks. `rest` sleeps for as long as `naps` says when it begins.
pub fn prepare(cluster: &Cluster) {
    prepare_in(&mut cluster.connect());
}

/// The same in a superuser's session.
pub fn prepare_in(db: &mut Client) {
    let mut run = |statements: &str| db.batch_execute(statements).unwrap_or_else(|e| panic!("{}", describe(&e)));
    run("create role alice login; grant create on schema public to alice;
         grant usage on schema kongtask, graphile_worker to alice;
         grant execute on function kongtask.register_task, kongtask.unregister_task, kongtask.current_job to alice;
         create table done (at bigserial, n bigint); grant insert on done to alice;
         grant usage on sequence done_at_seq to alice;
         create table naps (seconds float8); grant select on naps to alice; insert into naps values (0);");
    run(&format!("set role alice; {TASKS}; reset role"));
}

const TASKS: &str = "
    create function note(p json) returns void language sql as $$ insert into public.done (n) values ((p #>> '{}')::bigint) $$;
    create function note_all(p json[]) returns void language sql as
      $$ insert into public.done (n) select (x #>> '{}')::bigint from unnest(p) x $$;
    create function again(p json, j graphile_worker.jobs) returns void language plpgsql as $$ begin
      insert into public.done (n) values ((p #>> '{}')::bigint);
      if j.attempts = 1 then raise 'the first attempt'; end if; end $$;
    -- What it does after its last commit is as exact as what a function does.
    create procedure steps(p json) language plpgsql as $$ begin
      perform 1; commit; insert into public.done (n) values ((p #>> '{}')::bigint); end $$;
    create function rest(p json) returns void language plpgsql as $$ begin
      insert into public.done (n) values ((p #>> '{}')::bigint);
      perform pg_sleep(seconds) from public.naps; end $$;
    create function rest_all(p json[]) returns void language plpgsql as $$ begin
      insert into public.done (n) select (x #>> '{}')::bigint from unnest(p) x;
      perform pg_sleep(seconds) from public.naps; end $$;
    select kongtask.register_task('note', 'note(json)'), kongtask.register_task('rest', 'rest(json)'),
      kongtask.register_task('batch', 'note(json)', max_batch := 50),
      kongtask.register_task('set', 'note_all(json[])'), kongtask.register_task('again', 'again(json, graphile_worker.jobs)'),
      kongtask.register_task('steps', 'steps(json)'),
      kongtask.register_task('rest_batch', 'rest(json)', max_batch := 50),
      kongtask.register_task('rest_set', 'rest_all(json[])')";

/// Adds jobs of every kind; how many.
pub fn add(db: &mut Client, first: usize) -> Result<usize, postgres::Error> {
    db.batch_execute(&format!(
        "select graphile_worker.add_job((array['note', 'batch', 'set', 'again', 'steps'])[1 + n / 2 % 5], to_json(n),
           queue_name := case when n % 7 = 0 then 'q' end, job_key := case when n % 11 = 0 then 'k' || n end,
           run_at := now() + (n % 5) * interval '20 ms')
         from generate_series({first}, {first} + 19) n"
    ))?;
    Ok(20)
}

/// Lets retries run at once until nothing is left; that each job of `count` had its effect once.
pub fn drains_once(cluster: &Cluster, count: usize) {
    let mut db = cluster.connect();
    let empty = wait_until(SOON * 2, || {
        db.batch_execute(
            "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where run_at > now()), run_at := now())",
        )
        .expect("reschedule");
        text(&mut db, "select count(*) from graphile_worker.jobs") == "0"
    });
    assert!(empty, "{:?}\n{}", rows(&mut db, "select * from graphile_worker.jobs limit 5"), cluster.log());
    assert_eq!(text(&mut db, ONCE), format!("{count} {count}"));
    assert_eq!(text(&mut db, "select count(*) from graphile_worker.job_queues"), "0");
}
