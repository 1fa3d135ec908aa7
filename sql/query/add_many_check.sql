-- Returns the greatest lengths in characters and the lowest max_attempts among jobs, and their keys.
--   $1 record[]: the jobs, a job_spec[]
select
  pg_catalog.max(pg_catalog.length(spec.identifier)),
  pg_catalog.max(pg_catalog.length(spec.queue_name)),
  pg_catalog.max(pg_catalog.length(spec.job_key)),
  pg_catalog.min(spec.max_attempts)::pg_catalog.int4,
  pg_catalog.array_agg(spec.job_key) filter (where spec.job_key is not null)
from @specs@
