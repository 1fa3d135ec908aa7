-- Releases all queues that some workers hold.
--   $1 text[]: the ids of the workers
delete from @extschema@.job_queues
where job_queues.locked_by operator(pg_catalog.=) any ($1)
