-- Returns up to when graphile-worker has run a line of a crontab.
--   $1 text: its identifier
select coalesce(known.last_execution, known.known_since)
from @extschema@.known_crontabs as known
where known.identifier operator(pg_catalog.=) $1
