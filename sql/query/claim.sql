-- Marks a job as taken. $1: the job, which the transaction has locked; $2: the worker's id; $3: when.
update @extschema@.jobs
set
  attempts = jobs.attempts operator(pg_catalog.+) 1,
  locked_by = $2,
  locked_at = $3
where jobs.id operator(pg_catalog.=) $1
returning jobs
