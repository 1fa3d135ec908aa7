-- Returns a row if the table cron.job is that of the extension pg_cron, and not one that somebody calls so.
select 1
from pg_catalog.pg_class as class
inner join pg_catalog.pg_namespace as namespace on class.relnamespace operator(pg_catalog.=) namespace.oid
inner join pg_catalog.pg_depend as member
  on
    member.classid operator(pg_catalog.=) class.tableoid
    and member.objid operator(pg_catalog.=) class.oid
    and member.deptype operator(pg_catalog.=) 'e'
inner join pg_catalog.pg_extension as extension
  on
    member.refclassid operator(pg_catalog.=) extension.tableoid
    and member.refobjid operator(pg_catalog.=) extension.oid
where
  extension.extname operator(pg_catalog.=) 'pg_cron'
  and namespace.nspname operator(pg_catalog.=) 'cron'
  and class.relname operator(pg_catalog.=) 'job'
