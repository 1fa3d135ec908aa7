//! Roles: who may do what, as whom handlers run, and roles that are missing, renamed, dropped or kept out.

use kongtask_tests::fixtures::with_every_kind;
use kongtask_tests::{Cluster, JOBS, RUNNING, describe, error, rows, text};
use std::time::{Duration, Instant};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(settings);
    cluster.sql(
        "create role alice login; create role bob login; create role web login; create role stranger login;
         create schema app; grant usage, create on schema app to alice, bob;
         grant usage on schema graphile_worker to web;
         grant execute on function graphile_worker.add_job to web;
         grant usage on schema kongtask, graphile_worker to alice, bob;
         grant execute on function kongtask.register_task, kongtask.unregister_task, kongtask.current_job to alice, bob;",
    );
    cluster
}

/// A handler of a role's that writes down who it is.
fn who(role: &str) -> String {
    format!(
        "create table app.{role}_was (session name, who name, may_reset name);
         create function app.{role}_who() returns void language plpgsql as $$ declare v name; begin
           reset role; v := current_user;
           insert into app.{role}_was values (session_user, current_user, v);
         end $$;
         select kongtask.register_task('{role}_who', 'app.{role}_who()');"
    )
}

/// Has both roles register theirs.
fn register_who(cluster: &Cluster) {
    for role in ["alice", "bob"] {
        cluster.connect_as(role, "postgres").batch_execute(&who(role)).unwrap_or_else(|e| panic!("{}", describe(&e)));
    }
}

#[test]
fn handlers_run_as_the_role_that_registered_them() {
    let cluster = cluster(&[]);
    register_who(&cluster);
    let mut web = cluster.connect_as("web", "postgres");
    web.batch_execute("select graphile_worker.add_job('alice_who'), graphile_worker.add_job('bob_who')")
        .expect("add_job");
    for role in ["alice", "bob"] {
        cluster.wait_for(
            &format!("select session || ' ' || who || ' ' || may_reset from app.{role}_was"),
            &format!("{role} {role} {role}"),
        );
    }
    let mut db = cluster.connect();
    assert_eq!(rows(&mut db, "select distinct role from kongtask.workers order by role"), ["alice", "bob"]);
    assert_eq!(
        rows(
            &mut db,
            "select distinct usename, application_name from pg_stat_activity where backend_type = 'kongtask worker' order by 1"
        ),
        ["alice|kongtask worker (postgres, alice)", "bob|kongtask worker (postgres, bob)"]
    );
}

#[test]
fn more_roles_than_workers_take_turns() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    register_who(&cluster);
    for round in 1..=3 {
        for role in ["alice", "bob"] {
            cluster.sql(&format!("select graphile_worker.add_job('{role}_who')"));
            cluster.wait_for(&format!("select count(*) from app.{role}_was"), &round.to_string());
        }
    }
    assert_eq!(cluster.text("select count(*) from kongtask.workers"), "1");
    // Both at once, and a busy one gives way to a role that has none.
    cluster.sql(
        "select graphile_worker.add_job('alice_who'), graphile_worker.add_job('bob_who') from generate_series(1, 20)",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING", "FATAL"]), Vec::<String>::new());
}

#[test]
fn a_busy_role_borrows_the_idle_workers_of_another() {
    let cluster = cluster(&["kongtask.workers = 4", "kongtask.poll_interval = '1h'"]);
    register_who(&cluster);
    cluster
        .connect_as("alice", "postgres")
        .batch_execute("create function app.nap() returns void language sql as 'select pg_sleep(1)'; select kongtask.register_task('nap', 'app.nap()')")
        .expect("register");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'idle'", "4");
    cluster.sql("select graphile_worker.add_job('nap') from generate_series(1, 4)");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running' and role = 'alice'", "4");
    cluster.sql("select graphile_worker.add_job('bob_who')");
    cluster.wait_for("select count(*) from app.bob_was", "1");
}

#[test]
fn a_queue_keeps_its_order_across_roles() {
    let cluster = cluster(&["kongtask.workers = 2", "kongtask.poll_interval = '1h'"]);
    cluster.sql("create table app.seen (at bigserial, job bigint); grant insert on app.seen to alice, bob; grant usage on sequence app.seen_at_seq to alice, bob");
    for role in ["alice", "bob"] {
        cluster
            .connect_as(role, "postgres")
            .batch_execute(&format!(
                "create function app.{role}_see(j graphile_worker.jobs) returns void language sql as
                   $$ insert into app.seen (job) values (j.id); select pg_sleep(0.005) $$;
                 select kongtask.register_task('{role}', 'app.{role}_see(graphile_worker.jobs)')"
            ))
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
    }
    cluster.wait_for("select count(distinct role) from kongtask.workers where state = 'idle'", "2");
    cluster.sql(
        "select graphile_worker.add_job(case when n % 3 = 0 then 'alice' else 'bob' end, queue_name := 'q')
         from generate_series(1, 40) n",
    );
    cluster.wait_for("select count(*) from app.seen", "40");
    assert_eq!(cluster.text("select string_agg(job::text, ' ' order by at) = (select string_agg(n::text, ' ' order by n) from generate_series(1, 40) n) from app.seen"), "t");
}

#[test]
fn idle_workers_are_lent_when_they_become_idle() {
    let cluster = cluster(&["kongtask.workers = 4", "kongtask.poll_interval = '1h'"]);
    for (role, seconds) in [("alice", 1), ("bob", 3)] {
        cluster
            .connect_as(role, "postgres")
            .batch_execute(&format!(
                "create function app.{role}_nap() returns void language sql as 'select pg_sleep({seconds})';
                 select kongtask.register_task('{role}', 'app.{role}_nap()')"
            ))
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
    }
    cluster
        .wait_for("select count(*) || ' ' || count(distinct role) from kongtask.workers where state = 'idle'", "4 2");
    // As many as alice has workers.
    cluster.sql("select graphile_worker.add_job('alice') from kongtask.workers where role = 'alice'");
    cluster.sql("select graphile_worker.add_job('bob') from generate_series(1, 4)");
    cluster.wait_for("select count(*) from kongtask.workers where state = 'running' and role = 'bob'", "4");
}

#[test]
fn a_stranger_may_nothing_and_an_enqueuer_may_add() {
    let cluster = cluster(&["kongtask.workers = 0"]);
    let mut stranger = cluster.connect_as("stranger", "postgres");
    let mut web = cluster.connect_as("web", "postgres");
    web.batch_execute("select graphile_worker.add_job('a', '{\"secret\": 1}', queue_name := 'q', job_key := 'k')")
        .expect("add_job");
    web.batch_execute("select graphile_worker.add_job('a', '{\"secret\": 2}', queue_name := 'q', job_key := 'k')")
        .expect("add_job");
    for statement in [
        "select * from graphile_worker.jobs",
        "select * from graphile_worker.job_queues",
        "insert into graphile_worker.jobs (task_identifier) values ('a')",
        "update graphile_worker.jobs set payload = '{}'",
        "delete from graphile_worker.jobs",
        "select graphile_worker.get_job('a-stranger-s-worker')",
        "select graphile_worker.complete_job('a', 1)",
        "select graphile_worker.fail_job('a', 1, 'e')",
        "select graphile_worker.complete_jobs('{1}')",
        "select graphile_worker.permanently_fail_jobs('{1}')",
        "select graphile_worker.reschedule_jobs('{1}')",
        "select graphile_worker.remove_job('k')",
        "select kongtask.register_task('a', 'pg_catalog.pg_sleep(double precision)')",
        "select kongtask.unregister_task('a')",
        "select kongtask.current_job()",
        "select * from kongtask.tasks",
        "select * from kongtask.workers",
        "select nextval('graphile_worker.jobs_id_seq')",
    ] {
        for db in [&mut stranger, &mut web] {
            assert_eq!(error(db, statement).0, "42501", "{statement}");
        }
    }
    assert_eq!(error(&mut stranger, "select graphile_worker.add_job('a')").0, "42501");
}

#[test]
fn registering_checks_handler_and_role() {
    let cluster = cluster(&[]);
    let mut alice = cluster.connect_as("alice", "postgres");
    alice
        .batch_execute(
            "create function app.h(json) returns void language sql as ''; create function app.set(json) returns setof int language sql as 'select 1';
             create procedure app.p(json[]) language sql as ''; create function app.wrong(int) returns void language sql as '';
             create function app.locked(json) returns void language sql as '';
             revoke execute on function app.locked from public, alice;",
        )
        .expect("handlers");
    for (arguments, code) in [
        ("'t', 'app.none(json)'", "42883"),
        ("'t', 0", "42883"),
        ("'t', 'app.set(json)'", "42809"),
        ("'t', 'app.p(json[])'", "42809"),
        ("'t', 'app.wrong(int)'", "42P13"),
        ("'t', 'app.locked(json)'", "42501"),
        ("'', 'app.h(json)'", "22023"),
        ("repeat('t', 129), 'app.h(json)'", "22023"),
        ("null, 'app.h(json)'", "22004"),
        ("'t', null", "22004"),
    ] {
        assert_eq!(error(&mut alice, &format!("select kongtask.register_task({arguments})")).0, code, "{arguments}");
    }
    alice
        .batch_execute("select kongtask.register_task(identifier := 't', handler := 'app.h(json)')")
        .expect("register");
    alice.batch_execute("select kongtask.register_task('t', 'app.h(json)')").expect("register again");
    let mut db = cluster.connect();
    assert_eq!(rows(&mut db, "select identifier, handler, role from kongtask.tasks"), ["t|app.h(json)|alice"]);
    // Only by the same role, or a superuser.
    let mut bob = cluster.connect_as("bob", "postgres");
    bob.batch_execute("create function app.b() returns void language sql as ''").expect("a handler");
    let (code, message) = error(&mut bob, "select kongtask.register_task('t', 'app.b()')");
    assert_eq!((code.as_str(), message.as_str()), ("42501", "permission denied for task \"t\""));
    assert_eq!(error(&mut bob, "select kongtask.unregister_task('t')").0, "42501");
    assert_eq!(text(&mut bob, "select kongtask.unregister_task('unknown')"), "f");
    db.batch_execute("select kongtask.register_task('t', 'app.h(json)')").expect("a superuser");
    assert_eq!(rows(&mut db, "select role from kongtask.tasks"), ["postgres"]);
    assert_eq!(text(&mut db, "select kongtask.unregister_task('t')"), "t");
    assert_eq!(text(&mut db, "select kongtask.unregister_task('t')"), "f");
    // Before 17, a role that cannot log in cannot have workers.
    if text(&mut db, "select current_setting('server_version_num')::int < 170000") == "t" {
        db.batch_execute("create role batch; grant usage on schema app to batch; grant batch to postgres")
            .expect("a role");
        db.batch_execute("set role batch").expect("set role");
        // Its rights to call us come first.
        assert_eq!(error(&mut db, "select kongtask.register_task('t', 'app.h(json)')").0, "42501");
        db.batch_execute("reset role; grant usage on schema kongtask to batch; grant execute on function kongtask.register_task to batch; set role batch").expect("grant");
        let (code, message) = error(&mut db, "select kongtask.register_task('t', 'app.h(json)')");
        assert_eq!((code.as_str(), message.as_str()), ("28000", "role \"batch\" is not permitted to log in"));
    }
}

/// Statements that keep a role out, and let it in again. Since 17, a worker needs no LOGIN.
fn keeping_alice_out(cluster: &Cluster) -> (&'static str, &'static str) {
    if cluster.version() < 17 {
        ("alter role alice nologin", "alter role alice login")
    } else {
        (
            "revoke connect on database postgres from public; grant connect on database postgres to bob",
            "grant connect on database postgres to alice",
        )
    }
}

#[test]
fn a_role_that_can_no_longer_log_in_stops_nobody_else() {
    let cluster = cluster(&["kongtask.poll_interval = '200ms'"]);
    register_who(&cluster);
    let (out, back) = keeping_alice_out(&cluster);
    cluster.sql(out);
    // In a transaction of its own: nobody logs in again before that is committed.
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers");
    cluster.sql("select graphile_worker.add_job('alice_who'), graphile_worker.add_job('bob_who')");
    cluster.wait_for("select count(*) from app.bob_was", "1");
    cluster.wait_for_log("WARNING:  kongtask workers cannot log in to database \"postgres\" as role alice");
    cluster.sql(back);
    cluster.wait_for("select count(*) from app.alice_was", "1");
}

/// With one place for all: it is tried as often as the pauses say, and the place is bob's meanwhile.
#[test]
fn a_role_that_cannot_log_in_takes_no_place() {
    let cluster = cluster(&["kongtask.workers = 1", "kongtask.poll_interval = '1h'"]);
    register_who(&cluster);
    let (out, back) = keeping_alice_out(&cluster);
    cluster.sql(out);
    cluster.sql("select pg_terminate_backend(pid) from kongtask.workers");
    cluster.sql("select graphile_worker.add_job('alice_who')");
    cluster.wait_for_log("WARNING:  kongtask workers cannot log in to database \"postgres\" as role alice");
    let begun = Instant::now();
    let mut jobs = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        jobs += 1;
        cluster.sql("select graphile_worker.add_job('bob_who')");
        cluster.wait_for("select count(*) from app.bob_was", &jobs.to_string());
    }
    // Pauses of one, two and four seconds; each try at most twice, as the role may be short when another try ends.
    let tries = cluster.log_lines(&["FATAL"]).iter().filter(|line| line.contains("kongtask worker")).count();
    assert!(tries <= 8, "{tries} tries\n{}", cluster.log());
    cluster.sql(back);
    cluster.wait_for("select count(*) from app.alice_was", "1");
}

/// What the role may no longer do while its jobs wait, and what gives it back.
#[test]
fn jobs_of_a_role_that_may_not_log_in_wait_until_it_may() {
    let cluster = with_every_kind(&["kongtask.workers = 2"]);
    cluster.sql("select kongtask.register_task('ours', 'note(json)')");
    let mut db = cluster.connect();
    for (n, (take, give)) in [
        ("alter role alice nologin", "alter role alice login"),
        ("revoke connect on database postgres from public", "grant connect on database postgres to public"),
        ("alter role alice valid until '2000-01-01' nologin", "alter role alice login"),
    ]
    .iter()
    // Since 17, a worker needs no LOGIN.
    .filter(|(take, _)| cluster.version() < 17 || !take.contains("nologin"))
    .enumerate()
    {
        let (n, theirs) = (n + 1, format!("select count(*) from done where n = {}", n + 1));
        db.batch_execute(take).expect(take);
        // Those that are there may stay; new ones are what is refused.
        db.batch_execute("select pg_terminate_backend(pid) from kongtask.workers where role = 'alice'")
            .expect("terminate");
        cluster.wait_for(
            "select count(*) from kongtask.workers where role = 'alice' and state in ('idle', 'running')",
            "0",
        );
        db.batch_execute(&format!(
            "select graphile_worker.add_job('note', '{n}'), graphile_worker.add_job('ours', '{}')",
            n + 100
        ))
        .expect("add_job");
        cluster.wait_for(&format!("select count(*) from done where n = {}", n + 100), "1");
        assert_eq!(text(&mut db, &theirs), "0", "{take}");
        db.batch_execute(give).expect(give);
        cluster.wait_for(&theirs, "1");
        assert_eq!(text(&mut db, "select max(attempts) from graphile_worker.jobs"), "", "{take}");
    }
}

#[test]
fn a_role_can_be_dropped_and_its_tasks_taken_over() {
    let cluster = with_every_kind(&["kongtask.workers = 2", "kongtask.shutdown_timeout = '1s'"]);
    cluster.sql("select kongtask.register_task('ours', 'note(json)')");
    cluster.wait_for("select count(*) > 0 from kongtask.workers where role = 'alice' and state = 'idle'", "t");
    cluster.sql("update naps set seconds = 60; select graphile_worker.add_job('rest', '1')");
    cluster.wait_for(RUNNING, "1");
    cluster.sql("reassign owned by alice to postgres; drop owned by alice; drop role alice");
    // As any session of a role that was dropped, it goes on until it ends. None comes after it, and others do not suffer.
    cluster.sql(
        "update naps set seconds = 0; select pg_terminate_backend(pid) from kongtask.workers where state = 'running'",
    );
    cluster.wait_for(RUNNING, "0");
    cluster.sql("select graphile_worker.add_job('ours', '2'), graphile_worker.add_job('note', '3')");
    cluster.wait_for("select count(*) from done where n = 2", "1");
    assert_eq!(cluster.text("select count(*) from done"), "1");
    cluster.stop("fast");
    cluster.start();
    cluster.sql("select graphile_worker.add_job('ours', '4')");
    cluster.wait_for("select count(*) from done where n = 4", "1");
    // It is said, and no worker is started as that role.
    cluster.wait_for_log("tasks wait because the roles of these tasks do not exist");
    assert!(!cluster.log().contains("could log in"), "{}", cluster.log());
    // A role of the same name is another; whoever registers them has them.
    cluster.sql(
        "create role alice login; grant usage on schema kongtask, graphile_worker to alice;
        grant execute on function kongtask.register_task to alice; grant insert on done to alice;
        grant usage on sequence done_at_seq to alice; grant select on naps to alice;",
    );
    cluster.sql("select kongtask.unregister_task(identifier) from kongtask.tasks where identifier in ('note', 'rest')");
    cluster
        .connect_as("alice", "postgres")
        .batch_execute(
            "select kongtask.register_task('note', 'note(json)'), kongtask.register_task('rest', 'rest(json)')",
        )
        .unwrap_or_else(|e| panic!("{}", describe(&e)));
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select string_agg(n::text, ',' order by n) from done"), "1,2,3,4");
}

/// Roles, each with a task that notes its jobs, and a job of each.
fn with_tasks_of(roles: &[&str]) -> Cluster {
    let cluster = Cluster::with_extension(&["kongtask.databases = ''"]);
    cluster.sql(
        "create table done (who text, job text primary key); grant insert on done to public;
         create function note(payload json) returns void language sql as
           $$ insert into public.done values (current_user, payload #>> '{}') $$;
         grant usage on schema kongtask to public; grant execute on function kongtask.register_task to public",
    );
    for role in roles {
        cluster.sql(&format!("create role {role} login"));
        let task = role.trim_matches('"');
        cluster
            .connect_as(task, "postgres")
            .batch_execute(&format!("select kongtask.register_task('of {task}', 'note(json)')"))
            .unwrap_or_else(|e| panic!("{}", describe(&e)));
        cluster.sql(&format!("select graphile_worker.add_job('of {task}', '\"{task}\"')"));
    }
    cluster
}

#[test]
fn tasks_of_a_role_that_is_missing_wait_for_it_and_others_run() {
    let source = with_tasks_of(&["alice", "\"Bob\""]);
    let dump = source.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    let target = Cluster::with(&[]);
    target.sql("create role \"Bob\" login");
    // What it says of grants to a role that is not there is for whoever reads it.
    target.restore(&dump, "postgres", &["--no-privileges"]);
    target.sql("grant insert on done to public");
    target.wait_for("select who from done", "Bob");
    assert_eq!(
        rows(&mut target.connect(), "select identifier, role, runs_as from kongtask.tasks order by 1"),
        ["of Bob|\"Bob\"|\"Bob\"", "of alice|alice|"]
    );
    target.wait_for_log("jobs of 1 tasks wait because the roles of these tasks do not exist");
    target.wait_for_log("DETAIL:  Tasks: \"of alice\" (role alice).");
    // It is registered here all the same.
    assert_eq!(text(&mut target.connect(), JOBS), "1");
    target.sql("create role alice login");
    target.wait_for("select string_agg(who, ',' order by who) from done", "Bob,alice");
    target.wait_for(JOBS, "0");
    assert_eq!(target.log().matches("jobs of 1 tasks wait").count(), 1);
    assert_eq!(target.log_lines(&["ERROR"]), Vec::<String>::new());
}

#[test]
fn a_renamed_role_keeps_its_tasks_and_another_of_its_former_name_has_none() {
    let cluster = with_tasks_of(&["alice"]);
    cluster.reload(&["kongtask.databases = '*'"]);
    cluster.wait_for("select who from done", "alice");
    cluster.sql("alter role alice rename to \"Alice\"; create role alice login; truncate done");
    cluster.sql("select graphile_worker.add_job('of alice', '1')");
    cluster.wait_for("select who from done", "Alice");
    // As a dump is to have it.
    cluster.wait_for("select role || ' ' || runs_as from kongtask.tasks", "\"Alice\" \"Alice\"");
    let register = "select kongtask.register_task('of alice', 'note(json)')";
    let refused = cluster.connect_as("alice", "postgres").batch_execute(register).expect_err("another's");
    assert!(describe(&refused).starts_with("42501"), "{}", describe(&refused));
    // A role that is dropped and made again has nothing of the former one's.
    cluster.sql("drop role \"Alice\"; create role \"Alice\" login; truncate done");
    cluster.wait_for_log("jobs of 1 tasks wait because the roles of these tasks do not exist");
    cluster.wait_for("select role ~ '^[0-9]+$' and runs_as is null from kongtask.tasks", "t");
    cluster.sql("select graphile_worker.add_job('of alice', '2')");
    let mut alice = cluster.connect_as("Alice", "postgres");
    let refused = alice.batch_execute(register).expect_err("another's");
    assert!(describe(&refused).starts_with("42501"), "{}", describe(&refused));
    assert_eq!(text(&mut cluster.connect(), "select count(*) from done"), "0");
    // A superuser's word gives it away.
    cluster.sql("select kongtask.unregister_task('of alice')");
    alice.batch_execute(register).expect("nobody's");
    cluster.wait_for("select who from done", "Alice");
    assert_eq!(cluster.log_lines(&["FATAL"]), Vec::<String>::new());
}
