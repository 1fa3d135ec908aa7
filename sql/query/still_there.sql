-- Returns a row if one of these jobs exists and is not claimed.
--   $1 bigint[]: ids
select 1
from @extschema@.jobs
where jobs.id operator(pg_catalog.=) any ($1) and jobs.locked_at is null
limit 1
