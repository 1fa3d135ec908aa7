-- Removes the pauses that have ended.
delete from kongtask.pauses
where pauses.until operator(pg_catalog.<=) pg_catalog.clock_timestamp()
