-- Deletes plain jobs. Skips those that are no longer so, or that another transaction has locked.
--   $1 bigint[]: ids
--   $2 text: the task identifier
--   $3 timestamptz: now
--   $4 text[]: forbidden flags
delete from @extschema@.jobs
where jobs.ctid operator(pg_catalog.=) any (array(select job.ctid @plain_jobs@))
returning jobs
