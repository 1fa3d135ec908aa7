-- What a handler can ask for, about the job that it runs.

create function kongtask.snooze(delay interval) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_snooze';
comment on function kongtask.snooze is
'In a handler: has the job run again later, once the handler returns.

What the handler did is committed. The attempt is not counted. The last call
counts, but not one in a block whose effects were rolled back. If the
handler raises, it has no effect. In a handler that gets many jobs, it
concerns all of them.

Arguments:
- delay: time from the end of the attempt to the next, zero or more.

Errors:
- 55000: no handler runs in this session.
- 22004: delay is NULL.
- 22023: delay is negative or infinite.
- 22008: the time is out of range.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

create function kongtask.retry_in(delay interval) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_retry_in';
comment on function kongtask.retry_in is
'In a handler: sets when the job is retried if this attempt fails.

It stands for the back-off, this once. A failed attempt is counted as ever.
The last call counts, even one in a block that was rolled back. If the
handler returns, it has no effect. In a handler that gets many jobs, all of
them have failed then, and none is tried alone.

Arguments:
- delay: time from the failure to the next attempt, zero or more.

Errors:
- 55000: no handler runs in this session.
- 22004: delay is NULL.
- 22023: delay is negative or infinite.
- 22008: the time is out of range.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

create function kongtask.give_up(message text) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_give_up';
comment on function kongtask.give_up is
'In a handler: fails the job for good, by raising an error.

What the handler did is rolled back, and the message is the job''s
last_error. If the handler catches the error and returns, the job is
completed; if it raises another one, the attempt has failed as any other. In
a handler that gets many jobs, all of them fail for good.

Arguments:
- message: the reason.

Errors:
- KT001: always, in a handler.
- 55000: no handler runs in this session.

Rights: EXECUTE on the function and USAGE on schema kongtask.';

create function kongtask.progress(done bigint, total bigint = null, message text = null) returns void
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_progress';
comment on function kongtask.progress is
'In a handler: shows in kongtask.workers how far the job has come.

All sessions see it at once, before the handler''s transaction is committed.
Nothing is written to disk. It is shown until the job ends, or tells of
further progress.

Arguments:
- done: amount that is done, in a unit of your choice.
- total: amount in all. NULL: unknown.
- message: text to show, of which the first 256 bytes are kept. NULL: none.

Errors:
- 55000: no handler runs in this session.
- 22004: done is NULL.

Rights: EXECUTE on the function and USAGE on schema kongtask.';
