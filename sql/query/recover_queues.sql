-- Releases all queues whose lock begins with $1 and is of none of the workers $2.
delete from @extschema@.job_queues
where
  pg_catalog.starts_with(job_queues.locked_by, $1)
  and job_queues.locked_by operator(pg_catalog.<>) all ($2)
