-- From 0.2.0 to 0.3.0: each section makes of a 0.2.0 database what sql/install makes of an empty one. The queue's schema may have
-- any name, and is found through the extension.
do $$
begin
  perform pg_catalog.set_config(
    'search_path',
    pg_catalog.format(
      '%s, pg_temp',
      (
        select extnamespace::pg_catalog.regnamespace
        from pg_catalog.pg_extension
        where extname operator(pg_catalog.=) 'kongtask'
      )
    ),
    true
  );
end
$$;

-- A worker whose handler does not end although it was asked to is shown as such.
comment on view kongtask.workers is
  'The live worker processes of the whole server. state: starting, idle, running, stopping, or unresponsive (it was asked seconds ago to end its call, and has not); since: when it began to do what it does';
