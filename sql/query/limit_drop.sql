-- Removes a limit.
--   $1 text: its name
delete from kongtask.limit_settings
where limit_settings.name operator(pg_catalog.=) $1
