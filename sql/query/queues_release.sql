-- Releases all queues that these workers hold: $1.
delete from @extschema@.job_queues
where job_queues.locked_by operator(pg_catalog.=) any ($1)
