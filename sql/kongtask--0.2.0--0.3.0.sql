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

-- A role of kongtask.tasks that is missing where a dump is restored holds up its own tasks only: the column is a name now.
create function kongtask.role_named(role text) returns regrole
  language c immutable strict
  as 'MODULE_PATHNAME', 'kongtask_role_named';
comment on function kongtask.role_named is
  'The role of this name, quoted where SQL needs that, or NULL. For kongtask.tasks.runs_as, which keeps what it was when the row '
  'was written: that is why it may be declared immutable';

alter table kongtask.tasks alter column role type text using tasks.role::pg_catalog.text;
alter table kongtask.tasks
  add column runs_as regrole generated always as (kongtask.role_named(role)) stored;
comment on column kongtask.tasks.role is
  'The name of the role the handler runs as: the one that registered it. Where there is no such role, the task waits for one';
comment on column kongtask.tasks.runs_as is
  'That role itself, whatever it is called by now; NULL if there was none of that name when the row was written';

-- Whatever rights to what is new in schema kongtask come from elsewhere (PUBLIC, ALTER DEFAULT PRIVILEGES) are undone.
do $$
declare
  v_statement text;
begin
  for v_statement in
    select pg_catalog.format(
        'revoke all on function %s from %s cascade',
        proc.oid::pg_catalog.regprocedure,
        case when acl.grantee operator(pg_catalog.=) 0 then 'public' else acl.grantee::pg_catalog.regrole::text end
      )
    from pg_catalog.pg_proc as proc
    cross join lateral pg_catalog.aclexplode(coalesce(proc.proacl, pg_catalog.acldefault('f', proc.proowner))) as acl
    where
      proc.oid operator(pg_catalog.=) any (array['kongtask.role_named'::pg_catalog.regproc])
      and acl.grantee operator(pg_catalog.<>) proc.proowner
  loop
    execute v_statement;
  end loop;
end
$$;
