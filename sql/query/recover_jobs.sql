-- Releases the jobs of workers that do not live, and does not count the attempts.
--   $1 text: what the ids of these workers begin with
--   $2 text[]: the ids of the workers that live
update @extschema@.jobs
set
  attempts = greatest(jobs.attempts operator(pg_catalog.-) 1, 0),
  locked_by = null,
  locked_at = null
where
  pg_catalog.starts_with(jobs.locked_by, $1)
  and not (jobs.locked_by operator(pg_catalog.=) any ($2))
