-- Releases the queues of workers that do not live.
--   $1 text: what the ids of these workers begin with
--   $2 text[]: the ids of the workers that live
delete from @extschema@.job_queues
where
  pg_catalog.starts_with(job_queues.locked_by, $1)
  and job_queues.locked_by operator(pg_catalog.<>) all ($2)
