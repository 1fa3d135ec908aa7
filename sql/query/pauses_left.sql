-- Returns how many pauses last.
select pg_catalog.count(*)
from kongtask.pauses
where pauses.until is null or pauses.until operator(pg_catalog.>) pg_catalog.clock_timestamp()
