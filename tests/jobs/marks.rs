//! What a handler asks for: its job again later, at another time than the back-off's, or never.

use kongtask_tests::fixtures::without_polling;
use kongtask_tests::{Cluster, JOBS, error, rows, text};

/// Handlers that do what their payload says, a statement for each job: alone, in batches, in sets; in place or claimed.
fn with_doers() -> Cluster {
    let cluster = without_polling(&["kongtask.workers = 1"]);
    cluster.sql(
        "create table did (what text);
         create function does(p json) returns void language plpgsql as $$ begin
           insert into did values (p ->> 'name'); execute p ->> 'do'; end $$;
         create function does_all(p json[]) returns void language plpgsql as $$ begin
           insert into did select x ->> 'name' from unnest(p) x; execute p[1] ->> 'do'; end $$;
         create function again(in_seconds int, p json) returns void language plpgsql as $$ begin
           if not exists (select from did where what = 'again') then
             insert into did values ('again'); perform kongtask.snooze(make_interval(secs => in_seconds)); end if; end $$;
         select kongtask.register_task('alone', 'does(json)'), kongtask.register_task('claimed', 'does(json)', in_place := false),
                kongtask.register_task('batch', 'does(json)', max_batch := 50),
                kongtask.register_task('claimed_batch', 'does(json)', max_batch := 50, in_place := false),
                kongtask.register_task('set', 'does_all(json[])'),
                kongtask.register_task('claimed_set', 'does_all(json[])', in_place := false)",
    );
    cluster
}

const TASKS: [&str; 6] = ["alone", "claimed", "batch", "claimed_batch", "set", "claimed_set"];

/// Statements that a handler executes, as one line of SQL for a literal.
fn add(task: &str, name: &str, statement: &str) -> String {
    let statement = statement.replace('\'', "''");
    format!(
        "select graphile_worker.add_job('{task}', json_build_object('name', '{name}', 'do', '{statement}'), max_attempts := 3)"
    )
}

/// The jobs in the table: task, attempts, in how many minutes each is due, what it says, whether it is locked.
const STATE: &str = "select format('%s %s %s %s %s', task_identifier, attempts,
    round(extract(epoch from run_at - now()) / 60), split_part(last_error, E'\\n', 1), locked_by)
  from graphile_worker.jobs order by id";

#[test]
fn a_snoozed_job_keeps_its_effects_and_is_due_again_without_an_attempt() {
    let cluster = with_doers();
    let mut db = cluster.connect();
    for task in TASKS {
        cluster.sql(
            "delete from graphile_worker.jobs; truncate did; drop table if exists before; create table before (job graphile_worker.jobs)",
        );
        cluster.sql(&format!("insert into before {}", add(task, "a", "select kongtask.snooze('1 hour')")));
        cluster.wait_for(STATE, &format!("{task} 0 60  "));
        assert_eq!(rows(&mut db, "select what from did"), ["a"], "{task}");
        // Nothing else of the row has changed.
        let rest = "to_jsonb(job) - array['run_at', 'updated_at']";
        let same = format!("select (select {rest} from before) = (select {rest} from graphile_worker.jobs job)");
        assert_eq!(text(&mut db, &same), "t", "{task}");
        // It runs once it is due: of its own accord if that is soon.
        cluster
            .sql("select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), run_at := now())");
        cluster.wait_for("select count(*) from did", "2");
        cluster.wait_for(STATE, &format!("{task} 0 60  "));
        cluster.sql("delete from graphile_worker.jobs; truncate did");
        cluster.sql(&add(task, "b", "select again(0, null)"));
        cluster.wait_for(JOBS, "0");
        assert_eq!(rows(&mut db, "select what from did"), ["b", "again", "b"], "{task}");
    }
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn each_job_of_a_batch_has_its_own_marks_and_a_set_has_them_all() {
    let cluster = with_doers();
    let mut db = cluster.connect();
    for (task, of_all) in [("batch", false), ("claimed_batch", false), ("set", true), ("claimed_set", true)] {
        for failing in [false, true] {
            cluster.sql("delete from graphile_worker.jobs; truncate did");
            let mut jobs = vec![
                add(task, "snoozed", "select kongtask.snooze('1 hour')"),
                add(task, "plain", "select 1"),
                add(task, "snoozed too", "select kongtask.snooze('2 hours')"),
            ];
            if failing && !of_all {
                jobs.push(add(task, "never", "select kongtask.give_up('no use')"));
                jobs.push(add(
                    task,
                    "soon",
                    "do $$ begin perform kongtask.retry_in('30 min'); raise 'not now'; end $$",
                ));
                jobs.push(add(task, "last", "select 1"));
            }
            cluster.sql(&jobs.join(";"));
            let expected = match (of_all, failing) {
                (true, _) => vec![format!("{task} 0 60  "); 3],
                (false, false) => vec![format!("{task} 0 60  "), format!("{task} 0 120  ")],
                (false, true) => vec![
                    format!("{task} 0 60  "),
                    format!("{task} 0 120  "),
                    format!("{task} 3 0 no use "),
                    format!("{task} 1 30 not now (SQLSTATE P0001) "),
                ],
            };
            let all = format!("select string_agg(s, '|') from ({}) s (s)", STATE);
            // Times of jobs that are not run again do not matter.
            cluster.wait_for(&format!("select regexp_replace(({all}), ' 3 -?\\d+ ', ' 3 0 ')"), &expected.join("|"));
            let done = rows(&mut db, "select what from did order by what");
            let expected: &[&str] = if failing && !of_all {
                &["last", "plain", "snoozed", "snoozed too"]
            } else {
                &["plain", "snoozed", "snoozed too"]
            };
            assert_eq!(done, expected, "{task}");
        }
    }
    // What a set asks for when it fails is asked for all of its jobs: it is not halved.
    for task in ["set", "claimed_set"] {
        for (statement, expected) in [
            ("select kongtask.give_up('none of them')", "3 none of them"),
            ("do $$ begin perform kongtask.retry_in('1 hour'); raise 'busy'; end $$", "1 busy (SQLSTATE P0001)"),
        ] {
            cluster.sql("delete from graphile_worker.jobs; truncate did");
            cluster.sql(&["a", "b", "c"].map(|name| add(task, name, statement)).join(";"));
            let state = "select string_agg(attempts || ' ' || split_part(last_error, E'\\n', 1), '|') from graphile_worker.jobs";
            cluster.wait_for(state, &[expected; 3].join("|"));
            assert_eq!(text(&mut db, "select count(*) from did"), "0");
        }
    }
}

#[test]
fn give_up_and_retry_in_concern_a_call_that_raises() {
    let cluster = with_doers();
    let mut db = cluster.connect();
    let caught = |first: &str, then: &str| {
        format!("do $$ begin begin perform {first}; exception when others then null; end; {then} end $$")
    };
    let cases = [
        ("select kongtask.give_up('no such customer')", "3 no such customer"),
        ("select kongtask.give_up(null)", "3 the handler gave up"),
        // Through blocks that catch something else, and raised again by one that does not want it.
        ("do $$ begin perform kongtask.give_up('x'); exception when unique_violation then null; end $$", "3 x"),
        ("do $$ begin perform kongtask.give_up('y'); exception when others then raise; end $$", "3 y"),
        // Caught, and then something else fails.
        (&caught("kongtask.give_up('z')", "raise 'another';"), "1 another (SQLSTATE P0001)"),
        // Not by what anybody can raise.
        ("do $$ begin raise 'forged' using errcode = 'KT001'; end $$", "1 forged (SQLSTATE KT001)"),
        ("do $$ begin perform kongtask.retry_in('10 min'); raise 'a'; end $$", "1 a (SQLSTATE P0001) in 10"),
        // The usual place: what fails is caught, looked at, and raised again.
        (
            "do $$ begin raise 'b'; exception when others then perform kongtask.retry_in('20 min'); raise; end $$",
            "1 b (SQLSTATE P0001) in 20",
        ),
        // A failure undoes all blocks, so it does not matter in which the mark was made.
        (
            "do $$ begin perform kongtask.retry_in('30 min'); raise 'c'; exception when unique_violation then null; end $$",
            "1 c (SQLSTATE P0001) in 30",
        ),
        // A snooze is an effect of a call that returns.
        ("do $$ begin perform kongtask.snooze('1 hour'); raise 'd'; end $$", "1 d (SQLSTATE P0001)"),
        (
            "do $$ begin perform kongtask.retry_in('1 hour'); perform kongtask.snooze('2 hours'); perform kongtask.give_up('e'); end $$",
            "3 e",
        ),
        (
            "do $$ begin perform kongtask.snooze('1 hour'); begin perform kongtask.snooze('2 hours'); raise 'f';
               exception when others then null; end; end $$",
            "0  in 60",
        ),
        // Released, and then rolled back with the block around it.
        (
            "do $$ begin perform kongtask.snooze('1 hour');
               begin begin perform kongtask.snooze('2 hours'); exception when others then null; end; raise 'g';
               exception when others then null; end; end $$",
            "0  in 60",
        ),
        ("do $$ begin perform kongtask.snooze('1 hour'); perform kongtask.snooze('2 hours'); end $$", "0  in 120"),
        (
            "do $$ begin perform kongtask.snooze('-1 s'); end $$",
            "1 delay must be zero or more, and finite (SQLSTATE 22023)",
        ),
        ("do $$ begin perform kongtask.snooze(null); end $$", "1 delay must not be null (SQLSTATE 22004)"),
        ("do $$ begin perform kongtask.retry_in('300000 years'); end $$", "1 timestamp out of range (SQLSTATE 22008)"),
    ];
    for task in ["alone", "claimed"] {
        for (statement, expected) in &cases {
            cluster.sql("delete from graphile_worker.jobs; truncate did");
            cluster.sql(&add(task, "a", statement));
            let minutes = "round(extract(epoch from run_at - now()) / 60)";
            let state = format!(
                "select format('%s %s%s', attempts, split_part(last_error, E'\\n', 1), case when {minutes} > 2 then ' in ' || {minutes} end)
                 from graphile_worker.jobs where attempts > 0 or run_at > now() + interval '2 minutes'"
            );
            cluster.wait_for(&state, expected);
            let is_snoozed = expected.starts_with('0');
            assert_eq!(text(&mut db, "select count(*) from did"), if is_snoozed { "1" } else { "0" }, "{statement}");
        }
        // What has no effect: the job is done.
        for statement in [
            &caught("kongtask.give_up('x')", "null;"),
            "select kongtask.retry_in('1 hour')",
            &caught("kongtask.snooze('1 hour'); raise 'x'", "null;"),
        ] {
            cluster.sql("delete from graphile_worker.jobs; truncate did");
            cluster.sql(&add(task, "a", statement));
            cluster.wait_for("select count(*) from did", "1");
            cluster.wait_for(JOBS, "0");
        }
    }
}

#[test]
fn marks_do_not_outlive_their_call_and_are_made_nowhere_else() {
    let cluster = with_doers();
    let mut db = cluster.connect();
    for call in ["snooze('1 s')", "retry_in('1 s')", "give_up('x')"] {
        let function = call.split('(').next().expect("a name");
        assert_eq!(
            error(&mut db, &format!("select kongtask.{call}")),
            ("55000".into(), format!("kongtask.{function} can only be called by a handler"))
        );
    }
    // A trigger that fires as the call's transaction is committed is not the handler.
    cluster.sql(
        "create function late() returns trigger language plpgsql as $$ begin perform kongtask.snooze('1 s'); return new; end $$;
         create table dues (n int);
         create constraint trigger late after insert on dues deferrable initially deferred for each row execute function late()",
    );
    cluster.sql(&add("alone", "a", "insert into dues values (1)"));
    let said = "select split_part(last_error, E'\\n', 1) from graphile_worker.jobs";
    cluster.wait_for(said, "kongtask.snooze can only be called by a handler (SQLSTATE 55000)");
    // Marks that had no effect, of jobs that the same worker ran before.
    for task in ["alone", "claimed", "batch", "claimed_batch"] {
        cluster.sql("delete from graphile_worker.jobs; truncate did");
        cluster.sql(&add(task, "a", "select kongtask.retry_in('1 hour')"));
        cluster.sql(&add(
            task,
            "b",
            "do $$ begin perform kongtask.give_up('x'); exception when others then null; end $$",
        ));
        cluster.wait_for("select count(*) from did", "2");
        cluster.sql(&add(task, "c", "select 1 / 0"));
        cluster.wait_for(
            "select attempts || ' ' || (run_at < now() + interval '1 minute') from graphile_worker.jobs",
            "1 true",
        );
    }
}

#[test]
fn a_snoozed_job_lets_the_next_of_its_queue_go_and_makes_room_for_what_replaces_it() {
    let cluster = with_doers();
    cluster.sql(
        "select graphile_worker.add_job('alone', '{\"name\": \"first\", \"do\": \"select kongtask.snooze(''1 hour'')\"}', queue_name := 'q'),
                graphile_worker.add_job('alone', '{\"name\": \"second\", \"do\": \"select 1\"}', queue_name := 'q')",
    );
    cluster.wait_for("select string_agg(what, ' ') from did", "first second");
    cluster.wait_for("select count(*) from graphile_worker.job_queues", "0");
    cluster.wait_for(STATE, "alone 0 60  ");
    // A job with the same key, added while this one runs, takes its place: it is not run again.
    cluster.sql("delete from graphile_worker.jobs; truncate did");
    let waits =
        "do $$ begin perform pg_advisory_xact_lock(7); perform kongtask.snooze('1 hour'); end $$".replace('\'', "''");
    let mut blocker = cluster.connect();
    blocker.batch_execute("select pg_advisory_lock(7)").expect("a lock");
    let add = |name: &str, what: &str| {
        cluster.sql(&format!(
            "select graphile_worker.add_job('alone', json_build_object('name', '{name}', 'do', '{what}'), job_key := 'k')"
        ));
    };
    add("old", &waits);
    cluster.wait_for("select count(*) from pg_locks where locktype = 'advisory' and not granted", "1");
    add("new", "select kongtask.snooze(''2 hours'')");
    blocker.batch_execute("select pg_advisory_unlock(7)").expect("an unlock");
    cluster.wait_for("select string_agg(what, ' ') from did", "old new");
    cluster.wait_for(STATE, "alone 0 120  ");
    assert_eq!(cluster.text("select key from graphile_worker.jobs"), "k");
}
