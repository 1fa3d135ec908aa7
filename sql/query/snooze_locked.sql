-- Makes a job that the transaction has locked due again after a delay.
--   $1 bigint: the job
--   $2 interval: the delay
update @extschema@.jobs
set run_at = pg_catalog.clock_timestamp() operator(pg_catalog.+) $2
where jobs.id operator(pg_catalog.=) $1
