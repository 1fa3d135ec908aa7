-- Notes that a schedule is known from here on, as graphile-worker does, so that its row can be locked when it fires.
--   $1 text: the schedule's name
insert into @extschema@.known_crontabs (identifier, known_since)
values ($1, pg_catalog.clock_timestamp())
on conflict (identifier) do nothing
