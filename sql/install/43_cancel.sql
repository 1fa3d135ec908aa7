-- Cancelling jobs, whether they wait or run.

create function kongtask.cancel(job_id bigint, reason text = null) returns text
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_cancel';
comment on function kongtask.cancel is
'Cancels a job once the transaction commits, and returns what it found.

A cancelled job has failed for good, and its last_error says: cancelled by
ROLE: reason. Nothing remains of an attempt that was stopped. The function
never waits.

It returns cancelled if the job did not run: it has failed for good.

It returns stopping if the job runs, or another session has locked its row.
At commit, the call of its handler is interrupted. If the job ends before,
that stands. An external worker is not interrupted, but its job has no
further attempts.

It returns gone if there is no such job, or it has failed for good before.

Jobs that share a transaction or a call with a cancelled one run again, and
that attempt is not counted.

Arguments:
- job_id: number of the job.
- reason: text for last_error. NULL: none. With the role it has at most 512
  bytes; what goes beyond is cut off.

Errors:
- 22004: job_id is NULL.
- 42501: the job is one of another role''s task.
- 55P03: another transaction has locked the job, and no kongtask scheduler
  serves the database.
- 53400: 256 running jobs are being cancelled already.

Rights: EXECUTE on the function and USAGE on schema kongtask. The role that
the task runs as, its members, the owner of the extension and superusers
may.';
