//! Who sees what became of whose jobs.

use crate::with_ways;
use kongtask_tests::{error, text};

#[test]
fn a_role_sees_and_waits_for_what_ran_as_it_and_no_more() {
    let cluster = with_ways(&["kongtask.workers = 2"]);
    cluster.sql(
        "create role alice login; create role bob login; create role member login in role alice;
         create role outside login noinherit in role alice;
         grant create on schema public to alice, bob; grant usage on schema kongtask, graphile_worker to public;
         grant execute on function kongtask.register_task, kongtask.unregister_task, kongtask.wait_for, graphile_worker.add_job to public;
         grant select on kongtask.runs to public",
    );
    let mut jobs = Vec::new();
    for role in ["alice", "bob"] {
        let mut db = cluster.connect_as(role, "postgres");
        db.batch_execute(&format!(
            "create function of_{role}() returns text language sql as $$ select '{role}''s' $$;
             select kongtask.register_task('of_{role}', 'of_{role}()', keep := 'all')"
        ))
        .expect("a task");
        let job = text(&mut db, &format!("select id from graphile_worker.add_job('of_{role}')"));
        assert_eq!(
            text(&mut db, &format!("select result from kongtask.wait_for({job}, '20 s')")),
            format!("\"{role}'s\"")
        );
        jobs.push(job);
    }
    let seen = "select string_agg(task, ' ' order by task) from kongtask.runs";
    for (role, sees) in [
        ("alice", "of_alice"),
        ("bob", "of_bob"),
        ("member", "of_alice"),
        ("outside", ""),
        ("postgres", "of_alice of_bob"),
    ] {
        let mut db = cluster.connect_as(role, "postgres");
        assert_eq!(text(&mut db, seen), sees, "{role}");
        let call = format!("select (kongtask.wait_for({}, '20 s')).state", jobs[0]);
        let denied = format!("permission denied to wait for job {}", jobs[0]);
        match sees.contains("alice") {
            true => assert_eq!(text(&mut db, &call), "succeeded", "{role}"),
            false => assert_eq!(error(&mut db, &call), ("42501".into(), denied), "{role}"),
        }
    }
    // A function of a user's is not shown rows that the role may not see.
    let mut bob = cluster.connect_as("bob", "postgres");
    bob.batch_execute(
        "create function leaks(result jsonb) returns bool language plpgsql cost 0.0000001 as
           $$ begin raise notice '%', result; return result::text !~ 'alice'; end $$",
    )
    .expect("a function");
    assert_eq!(text(&mut bob, "select count(*) from kongtask.runs where leaks(result)"), "1");
    let mut alice = cluster.connect_as("alice", "postgres");
    alice.batch_execute("select kongtask.unregister_task('of_alice')").expect("unregistered");
    // Who takes over a task's name does not see what it did before.
    bob.batch_execute("select kongtask.register_task('of_alice', 'of_bob()', keep := 'all')").expect("registered");
    assert_eq!(text(&mut bob, seen), "of_bob");
    assert_eq!(text(&mut alice, seen), "of_alice");
    // Jobs that have not ended are the task's.
    cluster.sql("select graphile_worker.add_job('of_bob', run_at := now() + interval '1 h')");
    let later = cluster.text("select max(id) from graphile_worker.jobs");
    let call = format!("select kongtask.wait_for({later}, '0')");
    assert_eq!(error(&mut alice, &call).0, "42501");
    assert_eq!(text(&mut bob, &call), "");
    for table in ["runs_0", "run_tables"] {
        assert_eq!(error(&mut bob, &format!("select * from kongtask.{table}")).0, "42501");
    }
}
