-- A schedule is known from here on, as graphile-worker notes it: so that its row is there to be locked when it fires.
insert into @extschema@.known_crontabs (identifier, known_since)
values ($1, pg_catalog.clock_timestamp())
on conflict (identifier) do nothing
