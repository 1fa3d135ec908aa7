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

-- What keeps a database still.
create function kongtask.live_holds(
  out database name,
  out reason text,
  out pid int,
  out since timestamptz
) returns setof record
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_live_holds';
comment on function kongtask.live_holds is 'What kongtask.holds shows';

create view kongtask.holds as
  select
    h.database,
    h.reason,
    h.pid,
    h.since
  from kongtask.live_holds() as h;
comment on view kongtask.holds is
  'Why no job runs in a database of this server, although it is served. pid: the session that keeps it so, if it is one; since: '
  'when that began';

create function kongtask.release_holds() returns boolean
  language c volatile
  as 'MODULE_PATHNAME', 'kongtask_release_holds';
comment on function kongtask.release_holds is
  'Has jobs run in this database although a dump is being restored there, or was by a session that has not ended. False if none was';

-- Whatever rights to what is new here come from elsewhere (PUBLIC, ALTER DEFAULT PRIVILEGES) are undone.
do $$
declare
  v_statement text;
begin
  for v_statement in
    select distinct pg_catalog.format(
        'revoke all on %s %s from %s cascade',
        made.kind,
        made.object,
        case when acl.grantee operator(pg_catalog.=) 0 then 'public' else acl.grantee::pg_catalog.regrole::text end
      )
    from (
      select 'function' as kind, proc.oid::pg_catalog.regprocedure::text as object,
        coalesce(proc.proacl, pg_catalog.acldefault('f', proc.proowner)) as acl, proc.proowner as owner
      from pg_catalog.pg_proc as proc
      where proc.oid operator(pg_catalog.=) any (
        array[
          'kongtask.role_named'::pg_catalog.regproc, 'kongtask.live_holds'::pg_catalog.regproc,
          'kongtask.release_holds'::pg_catalog.regproc
        ]
      )
      union all
      select 'table', class.oid::pg_catalog.regclass::text, class.relacl, class.relowner
      from pg_catalog.pg_class as class
      where class.oid operator(pg_catalog.=) 'kongtask.holds'::pg_catalog.regclass
    ) as made
    cross join lateral pg_catalog.aclexplode(made.acl) as acl
    where acl.grantee operator(pg_catalog.<>) made.owner
  loop
    execute v_statement;
  end loop;
end
$$;
