-- Returns the table jobs of the extension, whatever schema it is in.
select jobs.oid
from pg_catalog.pg_extension as extension
inner join pg_catalog.pg_depend as member
  on
    member.refclassid operator(pg_catalog.=) extension.tableoid
    and member.refobjid operator(pg_catalog.=) extension.oid
    and member.deptype operator(pg_catalog.=) 'e'
inner join pg_catalog.pg_class as jobs
  on
    member.classid operator(pg_catalog.=) jobs.tableoid
    and member.objid operator(pg_catalog.=) jobs.oid
where
  extension.extname operator(pg_catalog.=) 'kongtask'
  and jobs.relname operator(pg_catalog.=) 'jobs'
