-- $1: an identifier. Up to when graphile-worker has run it, if it has.
select coalesce(known.last_execution, known.known_since)
from @extschema@.known_crontabs as known
where known.identifier operator(pg_catalog.=) $1
