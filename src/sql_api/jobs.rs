//! The functions of graphile-worker.

use crate::error::Error;
use crate::jobs::new_job::{self, KeyMode, NewJob};
use crate::jobs::{add, add_many, admin, complete, fail, get_job, recover};
use crate::pg::function::Call;
use crate::pg::spi::Value;
use crate::pg::{fault, procedure};
use crate::signals::commit_notes;
use crate::tasks::registry::Retry;

/// Adds a job. Errors: GWBID, GWBQN, GWBJK, GWBMA, GWBKM, checked in this order; and those of the table, such as 23502
/// for a NULL identifier.
pub fn add_job(call: &mut Call) -> Result<Value, Error> {
    add_with(call, call.value(1))
}

/// Adds a job as [`add_job`] does, with a payload that is `jsonb`.
pub fn add_job_jsonb(call: &mut Call) -> Result<Value, Error> {
    let payload = call.value(1).map(procedure::json).transpose()?;
    add_with(call, payload)
}

fn add_with(call: &Call, payload: Value) -> Result<Value, Error> {
    let length = |n| call.text(n).map_or(0, |text| text.characters());
    new_job::check(length(0), length(2), length(5), call.int4(4).unwrap_or(1))?;
    let job = NewJob {
        identifier: call.value(0),
        payload,
        queue_name: call.value(2),
        run_at: call.value(3),
        max_attempts: call.value(4),
        job_key: call.value(5),
        priority: call.value(6),
        flags: call.value(7),
    };
    let mode = match job.job_key {
        Some(_) => KeyMode::parse(call.text(8))?,
        None => KeyMode::Replace,
    };
    let row = add::add(&job, mode)?;
    fault::point("added")?;
    Ok(row)
}

/// Adds many jobs. Errors: as [`add_job`], and 21000 if two jobs have the same key.
pub fn add_jobs(call: &mut Call) -> Result<Value, Error> {
    let (specs, preserve_run_at) = (call.value(0), call.bool(1).unwrap_or(false));
    add_many::add_many(call, specs, preserve_run_at).map(|()| None)
}

pub fn force_unlock_workers(call: &mut Call) -> Result<Value, Error> {
    recover::unlock(call.value(0)).map(|()| None)
}

/// Claims a job for an external worker. Errors: P0001 for a worker id of fewer than ten characters.
pub fn get_job(call: &mut Call) -> Result<Value, Error> {
    if call.text(0).is_none_or(|worker_id| worker_id.characters() < 10) {
        return Err(Error::InvalidWorkerId);
    }
    get_job::get_job(&get_job::Request {
        worker_id: call.value(0),
        task_identifiers: call.value(1),
        job_expiry: call.value(2),
        forbidden_flags: call.value(3),
        now: call.value(4),
    })
}

pub fn complete_job(call: &mut Call) -> Result<Value, Error> {
    call.int8(1).into_iter().for_each(commit_notes::note_removed);
    complete::complete(call.value(0), call.value(1))
}

/// Records a failed attempt as graphile-worker does, also of a task that is registered: what its options say is for the
/// workers here.
pub fn fail_job(call: &mut Call) -> Result<Value, Error> {
    call.int8(1).into_iter().for_each(commit_notes::note_removed);
    fail::fail(call.value(0), call.value(1), call.value(2), &Retry::default())
}

pub fn complete_jobs(call: &mut Call) -> Result<Value, Error> {
    let ids = call.value(0);
    commit_notes::note_many_removed();
    admin::complete_many(call, ids).map(|()| None)
}

pub fn permanently_fail_jobs(call: &mut Call) -> Result<Value, Error> {
    let (ids, message) = (call.value(0), call.value(1));
    commit_notes::note_many_removed();
    admin::fail_many(call, ids, message).map(|()| None)
}

pub fn reschedule_jobs(call: &mut Call) -> Result<Value, Error> {
    let (ids, changes) = (call.value(0), [1, 2, 3, 4].map(|n| call.value(n)));
    admin::reschedule_many(call, ids, changes).map(|()| None)
}

pub fn remove_job(call: &mut Call) -> Result<Value, Error> {
    commit_notes::note_many_removed();
    admin::remove(call.value(0))
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    fn text(query: &str) -> Option<String> {
        Spi::get_one(query).expect(query)
    }

    #[pg_test]
    fn add_job_is_kept_by_the_transaction_that_calls_it() {
        assert_eq!(
            text("select payload::text from graphile_worker.add_job('a', '{\"b\":  1}')"),
            Some("{\"b\":  1}".into())
        );
        assert_eq!(text("select (run_at = now())::text from graphile_worker.jobs"), Some("true".into()));
    }

    #[pg_test]
    fn a_plan_serves_every_search_path() {
        for path in ["pg_catalog", "public", "graphile_worker, kongtask", "''"] {
            Spi::run(&format!("set local search_path = {path}")).expect("set");
            Spi::run("select graphile_worker.add_job('a', job_key := 'k')").expect("add_job");
        }
        assert_eq!(text("select revision::text from graphile_worker.jobs"), Some("3".into()));
    }

    #[pg_test]
    fn an_error_in_a_subtransaction_leaves_the_rest_usable() {
        Spi::run(
            "do $$ begin
               for i in 1..3 loop
                 begin
                   perform graphile_worker.add_job('a', job_key := '');
                 exception when check_violation then
                   perform graphile_worker.add_job('a');
                 end;
               end loop;
               begin
                 perform graphile_worker.add_job(repeat('a', 129));
               exception when sqlstate 'GWBID' then
                 perform graphile_worker.add_job('b');
               end;
             end $$",
        )
        .expect("the exceptions are handled");
        assert_eq!(
            text("select string_agg(task_identifier, '' order by id) from graphile_worker.jobs"),
            Some("aaab".into())
        );
    }

    #[pg_test]
    fn rows_are_of_the_type_of_the_table() {
        Spi::run("create table kept (job graphile_worker.jobs)").expect("create table");
        Spi::run("insert into kept select graphile_worker.add_job('a')").expect("insert");
        Spi::run("insert into kept select graphile_worker.add_job('a', to_json(repeat('x', 5000)))").expect("insert");
        assert_eq!(text("select string_agg(length((job).payload::text)::text, ' ') from kept"), Some("2 5002".into()));
    }

    #[pg_test(error = "this function can only be called as a trigger")]
    fn a_trigger_function_is_only_for_triggers() {
        Spi::run("create function pg_temp.f() returns trigger language c as '$libdir/kongtask', 'kongtask_note_job'")
            .expect("create function");
        Spi::run("create function pg_temp.g() returns int language c as '$libdir/kongtask', 'kongtask_note_job'")
            .expect("create function");
        Spi::run("select pg_temp.g()").expect("refused");
    }
}
