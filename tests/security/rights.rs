//! Who may do what: each function and each table of the extension's, tried by each kind of role.

use crate::{outcome, outcome_of_trial};
use kongtask_tests::{Cluster, rows};
use postgres::Client;

/// The roles of the table, in the order of its columns. The owner made the extension while it was a superuser, as CREATE
/// EXTENSION wants one, and is none any more: everything in both schemas is its own. The registrar and the enqueuer have the
/// grants that docs/how-to/roles.md gives them, the worker that of kongtask.grant_worker, the stranger has none.
const ROLES: [&str; 6] = ["postgres", "owner", "registrar", "enqueuer", "worker", "stranger"];

/// A function; a call, or for a trigger function nothing; and who may: a letter for each of [`ROLES`].
#[rustfmt::skip]
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("graphile_worker.add_job",                        "graphile_worker.add_job('t')",                                  "yy-yy-"),
    ("graphile_worker.add_jobs",                       "graphile_worker.add_jobs('{}')",                                "yy--y-"),
    ("graphile_worker.complete_job",                   "graphile_worker.complete_job('an-external-worker', 2)",         "yy--y-"),
    ("graphile_worker.complete_jobs",                  "graphile_worker.complete_jobs('{1}')",                          "yy--y-"),
    ("graphile_worker.fail_job",                       "graphile_worker.fail_job('an-external-worker', 2, 'e')",        "yy--y-"),
    ("graphile_worker.force_unlock_workers",           "graphile_worker.force_unlock_workers('{an-external-worker}')",  "yy--y-"),
    ("graphile_worker.get_job",                        "graphile_worker.get_job('another-worker')",                     "yy--y-"),
    ("graphile_worker.permanently_fail_jobs",          "graphile_worker.permanently_fail_jobs('{1}')",                  "yy--y-"),
    ("graphile_worker.remove_job",                     "graphile_worker.remove_job('k')",                               "yy--y-"),
    ("graphile_worker.reschedule_jobs",                "graphile_worker.reschedule_jobs('{1}', now())",                 "yy--y-"),
    ("graphile_worker.tg__update_timestamp",           "",                                                              "yy----"),
    ("graphile_worker.tg_jobs__release_queue",         "",                                                              "yy----"),
    ("graphile_worker.tg_job_queues__released",        "",                                                              "yy----"),
    ("graphile_worker.tg_jobs__notify_new_jobs",       "",                                                              "yy----"),
    ("graphile_worker.tg_jobs__unlock_arriving",       "",                                                              "yy----"),
    ("graphile_worker.tg_migrations__refuse",          "",                                                              "yy----"),
    ("kongtask.add_job_jsonb",                               "kongtask.add_job_jsonb('t')",                                         "yy----"),
    ("kongtask.cancel",                                "kongtask.cancel(1)",                                            "yy----"),
    ("kongtask.give_up",                               "case when random() < 0 then kongtask.give_up('x') end",         "yy----"),
    ("kongtask.progress",                              "case when random() < 0 then kongtask.progress(1) end",          "yy----"),
    ("kongtask.retry_in",                              "case when random() < 0 then kongtask.retry_in('1 s') end",      "yy----"),
    ("kongtask.snooze",                                "case when random() < 0 then kongtask.snooze('1 s') end",        "yy----"),
    ("kongtask.current_job",                           "kongtask.current_job()",                                        "yyy---"),
    ("kongtask.grant_worker",                          "kongtask.grant_worker('other')",                                "yy----"),
    ("kongtask.live_holds",                            "kongtask.live_holds()",                                         "yy----"),
    ("kongtask.live_workers",                          "kongtask.live_workers()",                                       "yy----"),
    ("kongtask.release_holds",                         "kongtask.release_holds()",                                      "yy----"),
    ("kongtask.role_named",                            "kongtask.role_named('alice')",                                     "yy----"),
    ("kongtask.register_task",                         "kongtask.register_task('new', 'public.handler()')",             "yyy---"),
    ("kongtask.alter_task",                            "kongtask.alter_task('v', max_attempts := 3)",                 "yyy---"),
    ("kongtask.pause",                                 "kongtask.pause('v')",                                           "yy----"),
    ("kongtask.redrive",                               "kongtask.redrive('v')",                                         "yy----"),
    ("kongtask.drop_limit",                            "kongtask.drop_limit('none')",                                   "yy----"),
    ("kongtask.limit_key",                             "kongtask.limit_key('{}', 'q', 'm')",                            "yy----"),
    ("kongtask.live_limits",                           "kongtask.live_limits('{l}', '{null}')",                         "yy----"),
    ("kongtask.set_limit",                             "kongtask.set_limit('l', '{v}', concurrency := 1)",              "yy----"),
    ("kongtask.throttle",                              "kongtask.throttle('l', '1 ms')",                                "yy----"),
    ("kongtask.tg_limit_settings__changed",            "",                                                              "yy----"),
    ("kongtask.resume",                                "kongtask.resume('v')",                                          "yy----"),
    ("kongtask.tg_pauses__changed",                    "",                                                              "yy----"),
    ("kongtask.tg_tasks__changed",                     "",                                                              "yy----"),
    ("kongtask.unregister_task",                       "kongtask.unregister_task('unknown')",                           "yyy---"),
    ("kongtask.alter_schedule",                         "kongtask.alter_schedule('s', priority := 1)",                   "yy----"),
    ("kongtask.describe_cron",                          "kongtask.describe_cron('@daily')",                              "yy----"),
    ("kongtask.sql",                                    "call kongtask.sql('{}')",                                       "yy----"),
    ("kongtask.import_pg_cron",                         "kongtask.import_pg_cron()",                                     "yy----"),
    ("kongtask.import_crontab",                         "kongtask.import_crontab('0 0 1 1 * t')",                        "yy----"),
    ("kongtask.next_runs",                              "kongtask.next_runs('@daily')",                                  "yy----"),
    ("kongtask.run_schedule",                           "kongtask.run_schedule('s')",                                    "yy----"),
    ("kongtask.schedule",                               "kongtask.schedule('new', '@daily', 't')",                       "yy----"),
    ("kongtask.schedule_status",                        "kongtask.schedule_status('@daily', 'UTC', 't', 'postgres', 'postgres', true, now(), null, null, null)", "yy----"),
    ("kongtask.tg_crontab__changed",                    "",                                                              "yy----"),
    ("kongtask.doctor",                                 "kongtask.doctor()",                                             "yy----"),
    ("kongtask.handler_problem",                        "kongtask.handler_problem('public.handler()', 'postgres'::regrole)", "yy----"),
    ("kongtask.job_state",                              "kongtask.job_state(null, '0')",                                 "yy----"),
    ("kongtask.live_overview",                          "kongtask.live_overview()",                                      "yy----"),
    ("kongtask.live_stats",                             "kongtask.live_stats()",                                         "yy----"),
    ("kongtask.server_state",                           "kongtask.server_state()",                                       "yy----"),
    ("kongtask.stat_histogram",                         "kongtask.stat_histogram()",                                     "yy----"),
    ("kongtask.stat_reset",                             "kongtask.stat_reset()",                                         "yy----"),
    ("kongtask.empty_run_table",                        "kongtask.empty_run_table(3)",                                   "yy----"),
    ("kongtask.wait_for",                               "kongtask.wait_for(1, '0')",                                     "yy----"),
    ("kongtask.unschedule",                             "kongtask.unschedule('s')",                                      "yy----"),
];

/// A table, view or sequence, a column of it, and what each of [`ROLES`] may do with it: letters of [`ACTIONS`].
#[rustfmt::skip]
const RELATIONS: &[(&str, &str, [&str; 6])] = &[
    ("graphile_worker.jobs",           "id",         ["siudtlfgpra", "siudtlfgpra", "", "", "siudtl", ""]),
    ("graphile_worker.job_queues",     "queue_name", ["siudtlfgpra", "siudtlfgpra", "", "", "siudtl", ""]),
    ("graphile_worker.known_crontabs", "identifier", ["siudtlfgpra", "siudtlfgpra", "", "", "siudtl", ""]),
    ("graphile_worker.migrations",     "id",         ["siudtlfgpra", "siudtlfgpra", "", "", "s",      ""]),
    ("graphile_worker.jobs_id_seq",    "",           ["SNV",         "SNV",         "", "", "SNV",    ""]),
    ("kongtask.tasks",                 "identifier", ["siudtlfgpra", "siudtlfgpra", "", "", "",       ""]),
    ("kongtask.limit_settings",        "name",       ["siudtlfgpra", "siudtlfgpra", "", "", "",       ""]),
    ("kongtask.limits",                "name",       ["s",           "s",           "", "", "",       ""]),
    ("kongtask.pauses",                "until",      ["siudtlgpra",  "siudtlgpra",  "", "", "",       ""]),
    ("kongtask.failed",                "id",         ["s",           "s",           "", "", "",       ""]),
    ("kongtask.runs",                  "job_id",     ["s",           "s",           "", "", "",       ""]),
    ("kongtask.runs_0",                "job_id",     ["siudtlgpra",  "siudtlgpra",  "", "", "",       ""]),
    ("kongtask.runs_1",                "job_id",     ["siudtlgpra",  "siudtlgpra",  "", "", "",       ""]),
    ("kongtask.runs_2",                "job_id",     ["siudtlgpra",  "siudtlgpra",  "", "", "",       ""]),
    ("kongtask.runs_3",                "job_id",     ["siudtlgpra",  "siudtlgpra",  "", "", "",       ""]),
    ("kongtask.run_tables",            "number",     ["siudtlfgpra", "siudtlfgpra", "", "", "",       ""]),
    ("kongtask.crontab",               "name",       ["siudtlfgpra", "siudtlfgpra", "", "", "",       ""]),
    ("kongtask.schedule_state",        "name",       ["siudtlfgpra", "siudtlfgpra", "", "", "",       ""]),
    ("kongtask.schedule_runs",         "name",       ["siudtlgpra",  "siudtlgpra",  "", "", "",       ""]),
    ("kongtask.schedules",             "name",       ["s",           "s",           "", "", "",       ""]),
    ("kongtask.holds",                 "pid",        ["s",           "s",           "", "", "",       ""]),
    ("kongtask.job_states",            "id",         ["s",           "s",           "", "", "",       ""]),
    ("kongtask.overview",              "ready",      ["s",           "s",           "", "", "",       ""]),
    ("kongtask.queues",                "queue_name", ["s",           "s",           "", "", "",       ""]),
    ("kongtask.stat_tasks",            "task",       ["s",           "s",           "", "", "",       ""]),
    ("kongtask.workers",               "pid",        ["s",           "s",           "", "", "",       ""]),
];

/// What can be done with a relation `@`, whose column is `#`: first a table, then a sequence.
const ACTIONS: [(char, &str); 14] = [
    ('s', "select * from @"),
    ('i', "insert into @ (#) select null where false"),
    ('u', "update @ set # = default where false"),
    ('d', "delete from @"),
    ('t', "truncate @"),
    ('l', "lock table @ in access exclusive mode"),
    ('f', "create table sandbox.theirs (mine sandbox.#_type references @)"),
    ('g', "create trigger theirs after insert on @ for each row execute function public.theirs()"),
    ('p', "create policy theirs on @ using (true)"),
    ('r', "create rule theirs as on delete to @ do also select 1"),
    ('a', "alter table @ disable trigger all, add column theirs int"),
    ('S', "select last_value from @"),
    ('N', "select nextval('@')"),
    ('V', "select setval('@', 100)"),
];

/// Other statements, and who may.
#[rustfmt::skip]
const OTHERS: &[(&str, &str)] = &[
    ("create function graphile_worker.add_job(text, text) returns int language sql as 'select 1'",                    "yy----"),
    ("create function kongtask.register_task(text, text) returns int language sql as 'select 1'",                     "yy----"),
    ("create table graphile_worker.theirs ()",                                                                        "yy----"),
    ("create table kongtask.theirs ()",                                                                               "yy----"),
    ("alter function kongtask.register_task security definer",                                                        "yy----"),
    ("alter schema graphile_worker rename to theirs",                                                                 "yy----"),
    ("alter schema kongtask rename to theirs",                                                                        "yy----"),
    ("drop extension kongtask",                                                                                       "yy----"),
    ("create function sandbox.c() returns trigger language c as '$libdir/kongtask', 'kongtask_note_job'",             "y-----"),
    ("create event trigger theirs on ddl_command_end execute function public.theirs_on_event()",                      "y-----"),
    ("set local session_replication_role = replica",                                                                  "y-----"),
];

/// A cluster with these roles, jobs 1 (key `k`) and 2 (locked by an external worker), and no workers.
fn cluster() -> Cluster {
    let cluster = Cluster::with(&["kongtask.workers = 0"]);
    cluster.sql("create role owner superuser login");
    cluster.connect_as("owner", "postgres").batch_execute("create extension kongtask").expect("as a superuser");
    cluster.sql(
        "alter role owner nosuperuser; grant create on database postgres to owner;
         create role registrar login; create role enqueuer login; create role worker login; create role stranger login;
         create role other;
         create schema sandbox; grant all on schema sandbox to public;
         create domain sandbox.id_type as bigint; create domain sandbox.pid_type as int; create domain sandbox.number_type as int;
         create domain sandbox.queue_name_type as text; create domain sandbox.identifier_type as text;
         create domain sandbox.name_type as text;
         create function public.handler() returns void language sql as '';
         create function public.theirs() returns trigger language plpgsql as 'begin return null; end';
         create function public.theirs_on_event() returns event_trigger language plpgsql as 'begin end';
         grant usage on schema kongtask, graphile_worker to registrar;
         grant execute on function kongtask.register_task, kongtask.alter_task, kongtask.unregister_task, kongtask.current_job to registrar;
         grant usage on schema graphile_worker to enqueuer;
         grant execute on function graphile_worker.add_job to enqueuer;
         select graphile_worker.add_job('t', '{\"payload\": 1}', job_key := 'k');
         select graphile_worker.add_job('u', queue_name := 'q');
         select graphile_worker.get_job('an-external-worker', '{u}');
         select kongtask.schedule('s', '0 0 1 1 *', 't');
         select kongtask.set_limit('l', '{v}', concurrency := 1);",
    );
    cluster.connect_as("owner", "postgres").batch_execute("select kongtask.grant_worker('worker')").expect("the owner");
    cluster
        .connect_as("registrar", "postgres")
        .batch_execute("select kongtask.register_task('v', 'public.handler()')")
        .expect("the registrar");
    cluster
}

/// What is wrong with what came of a trial, if anything.
fn wrong(role: &str, statement: &str, outcome: &str, may: bool) -> Option<String> {
    let expected = if may { "ok" } else { "42501" };
    (outcome != expected).then(|| format!("{role}: {statement}: {outcome}, not {expected}"))
}

fn try_all(cluster: &Cluster, trials: impl Fn(&mut Client, usize) -> Vec<(String, String, bool)>) {
    let mut found = Vec::new();
    for (number, role) in ROLES.iter().enumerate() {
        let mut db = cluster.connect_as(role, "postgres");
        for (statement, outcome, may) in trials(&mut db, number) {
            found.extend(wrong(role, &statement, &outcome, may));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn letter(letters: &str, number: usize) -> bool {
    letters.as_bytes()[number] == b'y'
}

#[test]
fn functions_are_called_by_those_they_are_granted_to() {
    let cluster = cluster();
    let names = rows(
        &mut cluster.connect(),
        "select pronamespace::regnamespace || '.' || proname from pg_proc
         where pronamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace) order by 1",
    );
    let mut listed: Vec<_> = FUNCTIONS.iter().map(|(name, ..)| (*name).to_string()).collect();
    listed.sort();
    assert_eq!(names, listed, "each function has a row in the table");
    try_all(&cluster, |db, number| {
        let trial = |&(name, call, who): &(&str, &str, &str)| {
            let statement = if call.is_empty() {
                format!(
                    "create temporary table theirs (id int);
                     create trigger theirs after insert on theirs for each row execute function {name}()"
                )
            } else if call.starts_with("call ") {
                call.to_string()
            } else {
                format!("select {call}")
            };
            let outcome = match outcome_of_trial(db, &statement) {
                // Who may call them is told that commands are for workers, and that there is no pg_cron.
                refused if ["0A000", "55000"].contains(&refused.as_str()) => "ok".into(),
                outcome => outcome,
            };
            (statement, outcome, letter(who, number))
        };
        FUNCTIONS.iter().map(trial).collect()
    });
}

#[test]
fn tables_are_read_and_changed_by_those_they_are_granted_to() {
    let cluster = cluster();
    let names = rows(
        &mut cluster.connect(),
        "select relnamespace::regnamespace || '.' || relname from pg_class
         where relnamespace in ('graphile_worker'::regnamespace, 'kongtask'::regnamespace) and relkind not in ('i', 't', 'c')
         order by 1",
    );
    let mut listed: Vec<_> = RELATIONS.iter().map(|(name, ..)| (*name).to_string()).collect();
    listed.sort();
    assert_eq!(names, listed, "each table, view and sequence has a row in the table");
    try_all(&cluster, |db, number| {
        let mut trials = Vec::new();
        for (relation, column, may) in RELATIONS {
            // What a superuser can do with it is what there is to try.
            for (_, action) in ACTIONS.iter().filter(|(action, _)| may[0].contains(*action)) {
                let statement = action.replace('@', relation).replace('#', column);
                let outcome = outcome_of_trial(db, &statement);
                let action = ACTIONS.iter().find(|(_, text)| text == action).map(|(letter, _)| *letter);
                trials.push((statement, outcome, action.is_some_and(|letter| may[number].contains(letter))));
            }
        }
        trials
    });
}

#[test]
fn what_the_extension_consists_of_is_changed_by_its_owner_only() {
    let cluster = cluster();
    try_all(&cluster, |db, number| {
        let trial = |&(statement, who): &(&str, &str)| {
            (statement.to_string(), outcome_of_trial(db, statement), letter(who, number))
        };
        OTHERS.iter().map(trial).collect()
    });
    // Nobody makes an extension that wants a superuser, not even who owns the database.
    cluster.sql("create database theirs owner stranger");
    assert_eq!(outcome(&mut cluster.connect_as("stranger", "theirs"), "create extension kongtask"), "42501");
}

#[test]
fn our_processes_are_signalled_by_superusers_only() {
    let cluster = cluster();
    cluster.sql("create role signaller login; grant pg_signal_backend to signaller");
    let mut db = cluster.connect();
    let pids = rows(
        &mut db,
        "select pid from pg_stat_activity where backend_type in ('kongtask launcher', 'kongtask scheduler')",
    );
    assert_eq!(pids.len(), 2);
    for role in ROLES.iter().skip(1).chain(&["signaller"]) {
        for pid in &pids {
            for signal in ["cancel", "terminate"] {
                let statement = format!("select pg_{signal}_backend({pid})");
                assert_eq!(
                    outcome(&mut cluster.connect_as(role, "postgres"), &statement),
                    "42501",
                    "{role}: {statement}"
                );
            }
        }
    }
}
