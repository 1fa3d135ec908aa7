-- Returns whether a table of no extension has an index or a trigger, or there is no such table.
select coalesce(pg_catalog.bool_or(class.relhasindex or class.relhastriggers), true)
from pg_catalog.pg_class as class
inner join pg_catalog.pg_namespace as namespace on class.relnamespace operator(pg_catalog.=) namespace.oid
where
  class.relkind operator(pg_catalog.=) any ('{r,p,m}')
  and class.relpersistence operator(pg_catalog.<>) 't'
  and not pg_catalog.starts_with(namespace.nspname::pg_catalog.text, 'pg_')
  and namespace.nspname operator(pg_catalog.<>) 'information_schema'
  and not exists (
    select from pg_catalog.pg_depend as member
    where
      member.classid operator(pg_catalog.=) class.tableoid
      and member.objid operator(pg_catalog.=) class.oid
      and member.deptype operator(pg_catalog.=) 'e'
  )
