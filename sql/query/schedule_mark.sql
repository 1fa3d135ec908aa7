-- Moves last_execution of a schedule on to an instant, unless it is there. graphile-worker's protocol: the transaction
-- that does so adds the job.
--   $1 text: the schedule's name
--   $2 timestamptz: the instant
--   $3 boolean: whether an unfinished job keeps the schedule from firing
insert into @extschema@.known_crontabs as known (identifier, known_since, last_execution)
select $1, $2, $2
where
  not $3 or not exists (
@unfinished_jobs@
  )
on conflict (identifier) do update set last_execution = excluded.last_execution
where known.last_execution is null or known.last_execution operator(pg_catalog.<) excluded.last_execution
