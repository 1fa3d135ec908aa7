-- Returns those of some jobs that exist and are not claimed.
--   $1 bigint[]: ids
select jobs.id
from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any ($1) and jobs.locked_at is null
