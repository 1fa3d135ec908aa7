-- The handler of the tasks that run commands of schedules, each as the role that scheduled it.
create procedure kongtask.sql(payload json)
  language c
  as 'MODULE_PATHNAME', 'kongtask_sql';
comment on procedure kongtask.sql is
'Stands for the commands of schedules, which workers run.

kongtask.schedule(name, cron, ''kongtask.sql'', ''{"command": "..."}'')
schedules a command. It runs as the role that scheduled it, as a client
would send it: several statements are one transaction, and VACUUM, CREATE
INDEX CONCURRENTLY and a CALL that commits work alone.

The first such schedule of a role registers a task kongtask.sql:ROLE, with
this handler. A job of it runs only if its command is that of a schedule of
the role; any other has failed for good.

Arguments:
- payload: payload of the job.

Errors:
- 0A000: it was called.

Rights: the role that schedules a command needs EXECUTE on it, then and at
each run.';

create function kongtask.import_pg_cron() returns setof kongtask.schedules
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_import_pg_cron';
comment on function kongtask.import_pg_cron is
'Makes a schedule of each job of pg_cron in this database, and returns those
that it has made.

Each runs its command by kongtask.sql, as the role of the job, by the clocks
of cron.timezone. It has one attempt. It is named as the job is, or pg_cron
and the job''s number. A WARNING names each job that cannot be taken; a
schedule of the same name is left alone. pg_cron goes on to run its jobs
until they are unscheduled there.

Errors:
- 55000: pg_cron is not installed in this database.

Rights: jobs are taken that cron.job shows to the current role, and whose
role it is or can become.';
