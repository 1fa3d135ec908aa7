//! Options of a task that say how its failed jobs are retried, and changing options.

use kongtask_tests::fixtures::{quiet, with_note, without_polling};
use kongtask_tests::{error, rows, text};

/// A handler of each kind that fails, and a statement that adds a job for each path that records a failure.
const FAILING: &str = "
    create function bad() returns void language plpgsql as $$ begin raise 'no'; end $$;
    create function bad_set(p json[]) returns void language plpgsql as $$ begin raise 'no'; end $$;
    create function cancelled() returns void language plpgsql as
      $$ begin perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(60); end $$;";

const TASKS: [(&str, &str); 5] = [
    ("plain", "bad()"),
    ("claimed", "bad()"),
    ("batch", "bad()"),
    ("set", "bad_set(json[])"),
    ("cancelled", "cancelled()"),
];

/// How long the jobs of each task wait for their next attempt, and their max_attempts.
const WAITING: &str = "select task_identifier, run_at - updated_at, attempts, max_attempts from graphile_worker.jobs
    order by task_identifier, id";

fn register(options: &str) -> String {
    let each = TASKS.map(|(task, handler)| {
        let more = match task {
            "batch" => ", max_batch := 60",
            "claimed" => ", in_place := false",
            _ => "",
        };
        format!("kongtask.register_task('{task}', '{handler}', {options}{more})")
    });
    format!("select {}", each.join(", "))
}

/// Waits until every job has had so many attempts.
fn wait_for_attempts(cluster: &kongtask_tests::Cluster, attempts: i32) {
    cluster.wait_for(
        &format!(
            "select count(*) from graphile_worker.jobs where attempts <> {attempts} or locked_at is not null or last_error is null"
        ),
        "0",
    );
}

#[test]
fn a_task_s_own_back_off_holds_however_its_jobs_fail_and_the_last_repeats() {
    let cluster = without_polling(&[]);
    // run_at is the time of the failing transaction plus the back-off, and updated_at that time or a millisecond later.
    cluster.sql(FAILING);
    cluster.sql(&register("backoff := '{1 hour, 1 mon 2 days}'"));
    cluster.sql(
        "select graphile_worker.add_job(task) from unnest(array['plain', 'claimed', 'set', 'cancelled']) task;
         select graphile_worker.add_job('batch'), graphile_worker.add_job('batch');
         select graphile_worker.add_job('plain', queue_name := 'q', job_key := 'k')",
    );
    let tasks = ["batch", "batch", "cancelled", "claimed", "plain", "plain", "set"];
    let mut db = cluster.connect();
    db.batch_execute("set intervalstyle = 'iso_8601'").expect("a style");
    for (attempt, expected) in [(1, "PT1H"), (2, "P1M2D"), (3, "P1M2D")] {
        wait_for_attempts(&cluster, attempt);
        let pause = "select task_identifier || ' ' || case
              when updated_at between run_at - interval '1 hour' and run_at - interval '59 min 59 s' then 'PT1H'
              when run_at between updated_at + interval '1 mon 2 days' - interval '1 s' and updated_at + interval '1 mon 2 days'
                then 'P1M2D'
              else (run_at - updated_at)::text end
            from graphile_worker.jobs order by task_identifier, id";
        assert_eq!(rows(&mut db, pause), tasks.map(|task| format!("{task} {expected}")), "after attempt {attempt}");
        db.batch_execute(
            "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())",
        )
        .expect("the next attempt");
    }
    // Registered again without the option: graphile-worker's formula.
    wait_for_attempts(&cluster, 4);
    db.batch_execute("select kongtask.register_task('plain', 'bad()'), graphile_worker.add_job('plain', '1')")
        .expect("a job");
    let pause = "select run_at - updated_at between '2.7 s' and '2.72 s' from graphile_worker.jobs
        where payload::text = '1' and last_error is not null";
    cluster.wait_for(pause, "t");
}

#[test]
fn a_task_s_max_attempts_fails_jobs_for_good_that_have_reached_it() {
    let cluster = without_polling(&[]);
    cluster.sql(FAILING);
    cluster.sql(&register("backoff := '{1 ms}', max_attempts := 3"));
    cluster.sql(
        "select graphile_worker.add_job(task) from unnest(array['plain', 'claimed', 'batch', 'set', 'cancelled']) task;
         select graphile_worker.add_job('plain', max_attempts := 2)",
    );
    cluster
        .wait_for("select count(*) from graphile_worker.jobs where attempts = max_attempts and locked_at is null", "6");
    let mut db = cluster.connect();
    let of = |attempts: i32| format!("{attempts}|{attempts}");
    let expected = ["batch", "cancelled", "claimed", "plain", "plain", "set"].map(|task| format!("{task}|{}", of(3)));
    let mut expected = expected.to_vec();
    expected[4] = format!("plain|{}", of(2));
    assert_eq!(
        rows(
            &mut db,
            "select task_identifier, attempts, max_attempts from graphile_worker.jobs order by task_identifier, id"
        ),
        expected,
        "{:?}",
        rows(&mut db, WAITING)
    );
    cluster.wait_for_log("job 1 (plain) failed on attempt 2 of 3: no");
    cluster.wait_for_log("job 1 (plain) failed for good on attempt 3 of 3: no");
    // Until it has reached it, the job keeps its own number: a greater one of the task concerns it too.
    db.batch_execute("select kongtask.alter_task('plain', backoff := '{1 h}'), graphile_worker.add_job('plain', '1')")
        .expect("a job");
    let failed = |attempts: i32| {
        format!(
            "select attempts || ' ' || max_attempts from graphile_worker.jobs where payload::text = '1' and attempts = {attempts} and locked_at is null"
        )
    };
    cluster.wait_for(&failed(1), "1 25");
    let again = "select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs where payload::text = '1'), run_at := now())";
    db.batch_execute(&format!("select kongtask.alter_task('plain', max_attempts := 4); {again}")).expect("an attempt");
    cluster.wait_for(&failed(2), "2 25");
    // One that has had more attempts than the task has now has failed for good with its next.
    db.batch_execute(&format!("select kongtask.alter_task('plain', max_attempts := 1); {again}")).expect("an attempt");
    cluster.wait_for(&failed(3), "3 3");
    cluster.wait_for_log("(plain) failed for good on attempt 3 of 3: no");
}

#[test]
fn fail_job_keeps_graphile_worker_s_back_off_for_external_workers() {
    let (cluster, mut db) = quiet();
    cluster.sql(FAILING);
    db.batch_execute(
        "select kongtask.register_task('plain', 'bad()', backoff := '{1 h}', max_attempts := 1);
         select graphile_worker.add_job('plain');
         select graphile_worker.get_job('an-external-worker', '{plain}');
         select graphile_worker.fail_job('an-external-worker', 1, 'no')",
    )
    .expect("a failed attempt");
    assert_eq!(
        rows(
            &mut db,
            "select run_at - updated_at between '2.7 s' and '2.72 s', max_attempts from graphile_worker.jobs"
        ),
        ["t|25"]
    );
}

#[test]
fn alter_task_changes_what_it_is_given_and_takes_away_what_is_said_to_be_nothing() {
    let (cluster, mut db) = quiet();
    cluster.sql(FAILING);
    db.batch_execute(
        "select kongtask.register_task('t', 'bad()', max_batch := 7, in_place := false, timeout := '1 min',
           backoff := '[3:4]={1 s,2 s}', max_attempts := 9)",
    )
    .expect("a task");
    let options = "select max_batch, in_place, timeout, backoff, max_attempts from kongtask.tasks";
    assert_eq!(rows(&mut db, options), ["7|f|00:01:00|{00:00:01,00:00:02}|9"]);
    for (change, expected) in [
        ("max_batch := 8", "8|f|00:01:00|{00:00:01,00:00:02}|9"),
        ("in_place := true", "8|t|00:01:00|{00:00:01,00:00:02}|9"),
        ("timeout := '2 min'", "8|t|00:02:00|{00:00:01,00:00:02}|9"),
        ("backoff := '{3 s}'", "8|t|00:02:00|{00:00:03}|9"),
        ("max_attempts := 10", "8|t|00:02:00|{00:00:03}|10"),
        ("timeout := '0'", "8|t||{00:00:03}|10"),
        ("backoff := '{}'", "8|t|||10"),
        ("max_attempts := 0", "8|t|||"),
        ("max_attempts := null", "8|t|||"),
    ] {
        let row =
            text(&mut db, &format!("select to_json(t) ->> 'identifier' from kongtask.alter_task('t', {change}) t"));
        assert_eq!(row, "t", "{change}");
        assert_eq!(rows(&mut db, options), [expected], "{change}");
    }
    db.batch_execute("select kongtask.register_task('t', 'bad()')").expect("a task");
    assert_eq!(rows(&mut db, options), ["1|t|||"]);
}

#[test]
fn what_is_wrong_with_an_option_is_said_and_changes_nothing() {
    let (cluster, mut db) = quiet();
    cluster.sql(FAILING);
    db.batch_execute("select kongtask.register_task('t', 'bad()', backoff := '{1 s}')").expect("a task");
    let backoff = "backoff must have 1 to 100 intervals, each from 1 millisecond to 10 years";
    for (option, sqlstate, message) in [
        ("backoff := '{0 s}'", "22023", backoff),
        ("backoff := '{1 s, -1 s}'", "22023", backoff),
        ("backoff := '{1 day -24 hours}'", "22023", backoff),
        ("backoff := '{1 s, null}'", "22023", backoff),
        ("backoff := '{11 years}'", "22023", backoff),
        ("backoff := array_fill('1 s'::interval, array[101])", "22023", backoff),
        ("max_attempts := -1", "GWBMA", "Job maximum attempts must be at least 1."),
        ("timeout := '-1 s'", "22023", "timeout must be between 1 millisecond and 24 days"),
        ("max_batch := 1001", "22023", "max_batch must be between 1 and 1000 for this handler"),
    ] {
        let expected = (sqlstate.to_string(), message.to_string());
        for call in ["register_task('t', 'bad()'", "alter_task('t'"] {
            assert_eq!(error(&mut db, &format!("select kongtask.{call}, {option})")), expected, "{call}, {option}");
        }
    }
    for option in ["backoff := '{}'", "max_attempts := 0", "timeout := '0'"] {
        let (sqlstate, _) = error(&mut db, &format!("select kongtask.register_task('t', 'bad()', {option})"));
        assert!(["22023", "GWBMA"].contains(&&*sqlstate), "{option}: {sqlstate}");
    }
    assert_eq!(
        error(&mut db, "select kongtask.alter_task('u')"),
        ("42704".into(), "task \"u\" is not registered".into())
    );
    assert_eq!(error(&mut db, "select kongtask.alter_task(null)").0, "22004");
    assert_eq!(text(&mut db, "select backoff from kongtask.tasks"), "{00:00:01}");
}

#[test]
fn a_task_is_altered_by_its_role_that_role_s_members_and_the_owner() {
    let cluster = with_note(&["kongtask.workers = 0"]);
    cluster.sql(
        "create role team; create role member login in role team; create role other login;
         grant usage on schema kongtask to public; grant execute on function kongtask.alter_task to public;
         grant execute on function kongtask.register_task to team; create function theirs() returns void language sql as '';
         alter role team login; set role team; select kongtask.register_task('theirs', 'theirs()')",
    );
    for (role, outcome) in [("team", None), ("member", None), ("postgres", None), ("other", Some("42501"))] {
        let mut db = cluster.connect_as(role, "postgres");
        let result = db.batch_execute("select kongtask.alter_task('theirs', max_attempts := 3)");
        let code = result.err().and_then(|error| error.code().map(|code| code.code().to_string()));
        assert_eq!(code.as_deref(), outcome, "{role}");
    }
    let mut db = cluster.connect_as("member", "postgres");
    assert_eq!(
        error(&mut db, "select kongtask.alter_task('note', max_attempts := 3)"),
        ("42501".into(), "permission denied for task \"note\"".into())
    );
}
