-- Returns what keeps an extension from being dropped without CASCADE, in the words of Postgres: up to 100 objects that depend on
-- parts of it, and are certain not to go with it. Such an object depends on whatever it depends on in the normal way only; of a
-- view, it is the rule that depends. Returns nothing where that may change before the drop comes to it: another session is
-- dropping or altering the object, or an event trigger runs first.
--   $1 oid: the extension
--   $2 oid[]: roles whose objects are dropped with it
with recursive dropped (classid, objid) as (
  select extension.tableoid, extension.oid
  from pg_catalog.pg_extension as extension
  where extension.oid operator(pg_catalog.=) $1
  union
  select part.classid, part.objid
  from dropped
  inner join pg_catalog.pg_depend as part
    on part.refclassid operator(pg_catalog.=) dropped.classid and part.refobjid operator(pg_catalog.=) dropped.objid
  where part.deptype operator(pg_catalog.<>) 'n'
),

dependent (classid, objid, objsubid, refclassid, refobjid) as (
  select
    coalesce(whole.refclassid, normal.classid),
    coalesce(whole.refobjid, normal.objid),
    coalesce(whole.refobjsubid, normal.objsubid),
    normal.refclassid,
    normal.refobjid
  from dropped
  inner join pg_catalog.pg_depend as normal
    on normal.refclassid operator(pg_catalog.=) dropped.classid and normal.refobjid operator(pg_catalog.=) dropped.objid
  left join pg_catalog.pg_depend as whole
    on
      whole.classid operator(pg_catalog.=) normal.classid
      and whole.objid operator(pg_catalog.=) normal.objid
      and whole.deptype operator(pg_catalog.=) 'i'
  where normal.deptype operator(pg_catalog.=) 'n'
)

select
  pg_catalog.pg_describe_object(refused.classid, refused.objid, refused.objsubid)
  operator(pg_catalog.||) ' depends on '
  operator(pg_catalog.||) pg_catalog.pg_describe_object(refused.refclassid, refused.refobjid, 0)
from (
  select distinct on (dependent.classid, dependent.objid, dependent.objsubid)
    dependent.classid,
    dependent.objid,
    dependent.objsubid,
    dependent.refclassid,
    dependent.refobjid
  from dependent
  where
    not exists (
      select 1
      from dropped
      where
        dropped.classid operator(pg_catalog.=) dependent.classid
        and dropped.objid operator(pg_catalog.=) dependent.objid
    )
    and not exists (
      select 1
      from pg_catalog.pg_depend as other
      where
        other.classid operator(pg_catalog.=) dependent.classid
        and other.objid operator(pg_catalog.=) dependent.objid
        and other.deptype operator(pg_catalog.<>) 'n'
    )
    and not exists (
      select 1
      from pg_catalog.pg_shdepend as owned
      inner join pg_catalog.pg_database as database on owned.dbid operator(pg_catalog.=) database.oid
      where
        database.datname operator(pg_catalog.=) pg_catalog.current_database()
        and owned.classid operator(pg_catalog.=) dependent.classid
        and owned.objid operator(pg_catalog.=) dependent.objid
        and owned.refobjid operator(pg_catalog.=) any ($2)
    )
    and not exists (
      select 1
      from pg_catalog.pg_locks as held
      where
        held.mode operator(pg_catalog.=) 'AccessExclusiveLock'
        and held.pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()
        and (
          held.relation operator(pg_catalog.=) dependent.objid
          or held.classid operator(pg_catalog.=) dependent.classid and held.objid operator(pg_catalog.=) dependent.objid
        )
    )
    and not exists (
      select 1
      from pg_catalog.pg_event_trigger as event
      where
        event.evtevent operator(pg_catalog.=) 'ddl_command_start'
        and event.evtenabled operator(pg_catalog.<>) 'D'
    )
  order by dependent.classid, dependent.objid, dependent.objsubid, dependent.refobjid desc
) as refused
order by refused.objid, refused.objsubid
limit 100
