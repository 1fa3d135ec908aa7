//! Handlers: their signatures and options, and what they may do.

use kongtask_tests::fixtures::{with_every_kind, with_note, without_polling};
use kongtask_tests::{SOON, error, rows, text};
use postgres::fallible_iterator::FallibleIterator;

#[test]
fn register_task_says_what_is_wrong_with_its_options() {
    let cluster = without_polling(&[]);
    let mut db = cluster.connect();
    for (handler, max_batch, most) in [
        ("note(json)", "1001", "1000"),
        ("note(json)", "0", "1000"),
        ("note(json)", "-1", "1000"),
        ("note_all(json[])", "10001", "10000"),
    ] {
        let statement = format!("select kongtask.register_task('t', '{handler}', max_batch := {max_batch})");
        assert_eq!(
            error(&mut db, &statement),
            ("22023".into(), format!("max_batch must be between 1 and {most} for this handler"))
        );
    }
    let options = "select max_batch, in_place from kongtask.tasks";
    for (arguments, expected) in [
        ("'note(json)'", "1|t"),
        ("'note_all(json[])'", "1000|t"),
        ("'note_all(json[])', max_batch := 10000, in_place := false", "10000|f"),
        ("'note(json)', max_batch := 60, in_place := null", "60|t"),
        ("'note(json)'", "1|t"),
    ] {
        db.batch_execute(&format!("select kongtask.register_task('t', {arguments})")).expect(arguments);
        assert_eq!(rows(&mut db, options), [expected], "{arguments}");
    }
}

#[test]
fn a_handler_s_notify_is_sent_if_it_succeeds() {
    let cluster = with_every_kind(&[]);
    cluster.sql(
        "create function tell(p json) returns void language plpgsql as $$ begin
           perform pg_notify('heard', p ->> 'say'); if p ->> 'fail' is not null then raise 'as told'; end if; end $$;
         select kongtask.register_task('tell', 'tell(json)')",
    );
    let mut db = cluster.connect();
    db.batch_execute("listen heard").expect("listen");
    cluster.sql(
        "select graphile_worker.add_job('tell', '{\"say\": \"failed\", \"fail\": true}', queue_name := 'q'),
                graphile_worker.add_job('tell', '{\"say\": \"succeeded\"}', queue_name := 'q')",
    );
    let said = db.notifications().timeout_iter(SOON).next().expect("a notification").map(|n| n.payload().to_string());
    assert_eq!(said.as_deref(), Some("succeeded"));
    cluster.wait_for("select count(*) from graphile_worker.jobs where last_error is not null", "1");
}

#[test]
fn every_signature_gets_what_it_asks_for() {
    let cluster = with_note(&[]);
    cluster.sql(
        "create function s_none() returns int language sql as
           $$ insert into done (job, what) values ((kongtask.current_job()).id, 'none') returning 1 $$;
         create function s_json(json) returns void language sql as
           $$ insert into done (job, what) values (0, $1 ->> 'a') $$;
         create function s_jsonb(p jsonb) returns jsonb language plpgsql as
           $$ begin insert into done (job, what) values (0, p::text); return p; end $$;
         create function s_row(j graphile_worker.jobs) returns void language plpgsql as
           $$ begin insert into done (job, what) values (j.id, j.payload ->> 'a' || j.attempts); end $$;
         create function s_both(p json, j graphile_worker.jobs) returns text language plpgsql as
           $$ begin insert into done (job, what) values (j.id, (p ->> 'a') || j.task_identifier); return 'x'; end $$;
         select kongtask.register_task(s, (s || a)::regprocedure) from (values ('s_none', '()'), ('s_json', '(json)'),
           ('s_jsonb', '(jsonb)'), ('s_row', '(graphile_worker.jobs)'), ('s_both', '(json, graphile_worker.jobs)')) v (s, a);
         select graphile_worker.add_job(s, '{\"a\": \"A\"}', queue_name := 'q')
           from unnest(array['s_none', 's_json', 's_jsonb', 's_row', 's_both']) s;",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let mut db = cluster.connect();
    assert_eq!(
        rows(&mut db, "select job, what from done order by at"),
        ["1|none", "0|A", "0|{\"a\": \"A\"}", "4|A1", "5|As_both"]
    );
    assert_eq!(text(&mut db, "select kongtask.current_job() is null"), "t");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}

#[test]
fn a_handler_that_is_gone_or_forbidden_fails_clearly_and_the_worker_lives() {
    let cluster = with_note(&["kongtask.workers = 1"]);
    cluster.sql(
        "create function h() returns void language sql as ''; select kongtask.register_task('h', 'h()');
         select graphile_worker.add_job('h', job_key := 'k')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    let worker = cluster.text("select pid from kongtask.workers");
    cluster.sql("drop function h(); select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for(
        "select last_error like 'function \"public.h()\" does not exist (SQLSTATE 42883)%' from graphile_worker.jobs",
        "t",
    );
    cluster.sql("create function h() returns setof int language sql as 'select 1'; select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for("select last_error like '%cannot be a handler%returns a set%' from graphile_worker.jobs", "t");
    cluster.sql("drop function h(); select graphile_worker.add_job('h', job_key := 'k')");
    cluster.wait_for("select last_error like '%(SQLSTATE 42883)%' from graphile_worker.jobs", "t");
    cluster.sql(
        "create function h() returns void language sql as ''; select graphile_worker.add_job('h', job_key := 'k')",
    );
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.text("select pid from kongtask.workers"), worker);
}

#[test]
fn enqueuing_inside_a_handler_chains() {
    let cluster = with_note(&["kongtask.poll_interval = '1h'"]);
    cluster.sql(
        "create function countdown(p json) returns void language plpgsql as $$ begin
           insert into done (what) values (p #>> '{}');
           if (p #>> '{}')::int > 0 then
             perform graphile_worker.add_job('countdown', to_json((p #>> '{}')::int - 1), job_key := 'same', queue_name := 'q');
           end if;
         end $$;
         select kongtask.register_task('countdown', 'countdown(json)');
         select graphile_worker.add_job('countdown', '20', job_key := 'same', queue_name := 'q')",
    );
    cluster.wait_for("select count(*) from done", "21");
    cluster.wait_for("select count(*) from graphile_worker.jobs", "0");
    assert_eq!(cluster.log_lines(&["ERROR", "WARNING"]), Vec::<String>::new());
}
