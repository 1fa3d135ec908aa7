-- Two schemas, one extension. This file is the one place in SQL that knows the name of the compatible schema: what
-- follows creates its objects unqualified, under a search_path that holds nothing but the schema made here.

do $$
declare
  v_taken text;
begin
  select nspname into v_taken
    from pg_catalog.pg_namespace
    where nspname operator(pg_catalog.=) any (array['graphile_worker', 'kongtask']::pg_catalog.name[])
    limit 1;
  if v_taken is not null then
    raise exception using
      errcode = 'duplicate_schema',
      message = pg_catalog.format('schema %I already exists', v_taken),
      detail = 'kongtask creates the schemas graphile_worker and kongtask itself, and owns everything in them.',
      hint = pg_catalog.format(
        'If its contents are not needed: DROP SCHEMA %1$I CASCADE. To keep them: ALTER SCHEMA %1$I RENAME TO %2$I, '
        'then CREATE EXTENSION kongtask, and enqueue what is left there again with graphile_worker.add_job.',
        v_taken, v_taken operator(pg_catalog.||) '_old');
  end if;
end
$$;

-- A script of an extension is run with client_min_messages at warning.
set local client_min_messages = notice;
do $$
begin
  if pg_catalog.current_setting('shared_preload_libraries') operator(pg_catalog.!~) '(^|[,/\s])kongtask(\.so)?(\s|,|$)' then
    raise notice using
      message = 'kongtask is not in shared_preload_libraries: jobs can be added, but no worker will run them',
      hint = 'Add shared_preload_libraries = ''kongtask'' to postgresql.conf and restart the server.';
  end if;
end
$$;
set local client_min_messages = warning;

create schema graphile_worker;
comment on schema graphile_worker is
  'The job queue: tables and functions as graphile-worker and KongTask know them, implemented by the kongtask extension';

create schema kongtask;
comment on schema kongtask is
  'What the kongtask extension adds to the job queue: tasks handled inside the server, and views of their workers';

-- pg_temp is named, and last: unnamed it would come first, and a temporary table called jobs before ours.
set local search_path = graphile_worker, pg_temp;
