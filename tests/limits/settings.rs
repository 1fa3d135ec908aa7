//! Setting limits: arguments, rights, what is shown, and what a dump has.

use crate::{add, add_gated, cluster, prepare, wait_for_mark};
use kongtask_tests::fault::{go_on, stopped};
use kongtask_tests::{Cluster, IDLE, JOBS, RUNNING, error, rows};

#[test]
fn bad_arguments_are_refused() {
    let cluster = cluster(&["kongtask.workers = 0"]);
    let mut db = cluster.connect();
    for (arguments, state, message) in [
        ("null, concurrency := 1", "22004", "name must not be null"),
        ("'', concurrency := 1", "22023", "the name of a limit must have 1 to 128 characters"),
        ("'task:work', concurrency := 1", "22023", "the name of a limit must have 1 to 128 characters"),
        ("'a'", "22023", "a limit must have a concurrency or a rate"),
        ("'a', concurrency := 0", "22023", "concurrency must be at least 1"),
        ("'a', '{}', concurrency := 1", "22023", "tasks must have an element, or be NULL for all tasks"),
        ("'a', '{null}', concurrency := 1", "22023", "tasks must have an element, or be NULL for all tasks"),
        ("'a', by := '', concurrency := 1", "22023", "by must have 1 to 128 characters"),
        ("'a', rate := 0, per := '1 s'", "22023", "rate must be at least 1"),
        ("'a', rate := 1", "22023", "rate needs per, the time that it is for"),
        ("'a', concurrency := 1, per := '1 s'", "22023", "per is the time of a rate, which is missing"),
        ("'a', rate := 1, per := '0'", "22023", "per must be between 1 millisecond and 10 years"),
        ("'a', rate := 1, per := '1 s', burst := 0", "22023", "burst must be at least 1"),
    ] {
        let found = error(&mut db, &format!("select kongtask.set_limit({arguments})"));
        assert_eq!((found.0.as_str(), found.1.lines().next().unwrap_or_default()), (state, message), "{arguments}");
    }
    for call in ["register_task('work', 'work(json)', concurrency := 0)", "alter_task('work', concurrency := -1)"] {
        assert_eq!(error(&mut db, &format!("select kongtask.{call}")).0, "22023", "{call}");
    }
    assert_eq!(cluster.text("select kongtask.drop_limit('a')"), "f");
}

#[test]
fn a_role_limits_its_own_tasks_and_no_others() {
    let cluster = cluster(&["kongtask.workers = 0"]);
    cluster.sql(
        "create role app login;
         grant usage on schema kongtask, public to app;
         grant create on schema public to app;
         grant execute on function kongtask.register_task, kongtask.set_limit, kongtask.drop_limit to app",
    );
    let mut app = cluster.connect_as("app", "postgres");
    app.batch_execute(
        "create function mine() returns void language sql as ''; select kongtask.register_task('mine', 'mine()');
         select kongtask.set_limit('of mine', '{mine}', concurrency := 1)",
    )
    .expect("its own task");
    for refused in ["'{mine,work}'", "'{work}'", "'{unregistered}'", "null"] {
        let statement = format!("select kongtask.set_limit('other', {refused}, concurrency := 1)");
        assert_eq!(error(&mut app, &statement).0, "42501", "{refused}");
    }
    cluster.sql("select kongtask.set_limit('of work', '{work}', concurrency := 1)");
    assert_eq!(error(&mut app, "select kongtask.set_limit('of work', '{mine}', concurrency := 1)").0, "42501");
    assert_eq!(error(&mut app, "select kongtask.drop_limit('of work')").0, "42501");
    app.batch_execute("select kongtask.drop_limit('of mine')").expect("its own limit");
    assert_eq!(
        cluster.text("select string_agg(name || ' ' || role, ',') from kongtask.limit_settings"),
        "of work postgres"
    );
}

#[test]
fn the_view_shows_what_runs_and_what_waits() {
    let cluster = cluster(&["kongtask.workers = 4"]);
    cluster.sql(
        "select kongtask.alter_task('work', concurrency := 3), kongtask.set_limit('tenants', by := 'key', concurrency := 1),
                kongtask.set_limit('idle', '{none}', rate := 1, per := '1 s')",
    );
    add_gated(&cluster, 1, 2, "'key', 'a'");
    add_gated(&cluster, 3, 3, "'key', 'b'");
    cluster.wait_for(RUNNING, "2");
    wait_for_mark(&cluster);
    let shown = rows(
        &mut cluster.connect(),
        "select concat_ws(' ', name, coalesce(key, '-'), running, concurrency, waiting, next_start_at)
         from kongtask.limits order by 1",
    );
    assert_eq!(shown, ["idle - 0 0", "task:work - 2 3 1", "tenants a 1 1 1", "tenants b 1 1 0"]);
    assert_eq!(
        cluster.text("select string_agg(concat_ws(' ', state, why), ', ' order by state) from kongtask.job_states"),
        "running, running, waiting limit tenants is reached"
    );
    // Only for a moment: that is what limits are for.
    let lacks_room = "select count(*) from kongtask.doctor() where detail like '%no room%'";
    assert_eq!(cluster.text(lacks_room), "0");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
}

#[test]
fn a_dump_has_the_limits() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "select kongtask.alter_task('work', concurrency := 1),
                kongtask.set_limit('api', '{work}', 'key', 2, 30, '1 minute', 5)",
    );
    cluster.sql("create database copy");
    let dump = cluster.client_program("pg_dump", &["-Fc", "postgres"]).stdout;
    cluster.restore(&dump, "copy", &[]);
    let settings =
        "select concat_ws(' ', name, tasks, by, concurrency, rate, per, burst, role) from kongtask.limit_settings";
    let mut copy = cluster.connect_as("postgres", "copy");
    assert_eq!(rows(&mut copy, settings), rows(&mut cluster.connect(), settings));
    assert_eq!(rows(&mut copy, "select concurrency::text from kongtask.tasks where identifier = 'work'"), ["1"]);
    copy.batch_execute("delete from gate; insert into gate values (1), (2); select graphile_worker.add_job('work', '{\"n\": 1}'), graphile_worker.add_job('work', '{\"n\": 2}')")
        .expect("jobs");
    cluster.wait_for("select count(*) from kongtask.workers where database = 'copy' and state = 'running'", "1");
    assert_eq!(rows(&mut copy, "select running::text from kongtask.limits where name = 'task:work'"), ["1"]);
}

#[test]
fn databases_are_limited_apart() {
    let cluster = Cluster::with_extension(&["kongtask.poll_interval = '1h'", "kongtask.workers = 4"]);
    prepare(&cluster);
    cluster.sql("create database other template template0");
    let mut other = cluster.connect_as("postgres", "other");
    other.batch_execute("create extension kongtask").expect("an extension");
    let tables = "create table gate (n int); insert into gate values (1);
        create function work(p json) returns void language plpgsql as $$ begin
          while exists (select from public.gate) loop perform pg_sleep(0.005); end loop; end $$;
        select kongtask.register_task('work', 'work(json)', concurrency := 1);
        select graphile_worker.add_job('work', '{\"n\": 1}'), graphile_worker.add_job('work', '{\"n\": 1}')";
    other.batch_execute(tables).expect("jobs");
    cluster.sql("select kongtask.alter_task('work', concurrency := 1)");
    add_gated(&cluster, 1, 2, "'s', 0");
    cluster.wait_for(
        "select string_agg(n::text, ' ') from (select count(*) n from kongtask.workers where state = 'running' group by database) of",
        "1 1",
    );
    other.batch_execute("delete from gate").expect("truncate");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
}

/// It reads the limits in the middle of a job, as that adds others, and takes those by what it knew before.
#[test]
fn a_worker_that_has_read_a_limit_while_it_ran_a_job_knows_it_for_the_next_one() {
    let cluster = cluster(&["kongtask.workers = 2"]);
    cluster.sql(
        "create function add_some(p json) returns void language plpgsql as $$ begin
           while exists (select from public.gate where n = 0) loop perform pg_sleep(0.005); end loop;
           perform graphile_worker.add_job('work', json_build_object('n', n, 'key', n % 2, 's', 0.01)) from generate_series(1, 30) n;
         end $$;
         select kongtask.register_task('add_some', 'add_some(json)');
         insert into gate values (0);
         select graphile_worker.add_job('add_some')",
    );
    cluster.wait_for(RUNNING, "1");
    cluster.wait_for(IDLE, "1");
    cluster.sql("select kongtask.set_limit('tenants', by := 'key', concurrency := 2)");
    // The other worker has had all searched that the change may concern.
    wait_for_mark(&cluster);
    cluster.wait_for(IDLE, "1");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
    assert_eq!(cluster.text("select count(*) || ' ' || count(distinct n) from account"), "30 30");
}

#[test]
fn a_job_that_is_taken_by_what_was_known_before_a_limit_was_set_is_not_lost() {
    let cluster = Cluster::with_faults(&["kongtask.poll_interval = '1h'", "kongtask.workers = 2"]);
    prepare(&cluster);
    cluster.sql("select kongtask.register_task('mark', 'work(json)')");
    cluster.wait_for(IDLE, "2");
    let mut db = cluster.connect();
    cluster.arm("taking", "stop");
    add_gated(&cluster, 1, 1, "'key', 'a'");
    let worker = stopped(&cluster, &mut db);
    cluster.sql("select kongtask.set_limit('tenants', by := 'key', concurrency := 2)");
    // The other worker searches the whole table, and is kept by what it finds.
    cluster.wait_for(RUNNING, "1");
    cluster.sql(&add("work", 2, 2, "'key', 'b'"));
    go_on(worker);
    cluster.wait_for("select string_agg(n::text, ',') from account", "2");
    cluster.sql("delete from gate");
    cluster.wait_for(JOBS, "0");
}
