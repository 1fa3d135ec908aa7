-- Returns the schema of the queue, its table and row type, the owners of the table, the schema and the extension, the
-- table of queues, if these have a job_id, the index of the primary key, and that of the order in queues, if it is as installed.
select
  pg_catalog.quote_ident(namespace.nspname),
  namespace.nspname::pg_catalog.text,
  jobs.oid,
  jobs.reltype,
  jobs.relowner,
  namespace.nspowner,
  extension.extowner,
  (
    select queues.oid
    from pg_catalog.pg_class as queues
    inner join pg_catalog.pg_attribute as attribute on queues.oid operator(pg_catalog.=) attribute.attrelid
    where
      queues.relnamespace operator(pg_catalog.=) jobs.relnamespace
      and queues.relname operator(pg_catalog.=) 'job_queues'
      and attribute.attname operator(pg_catalog.=) 'job_id'
      and not attribute.attisdropped
  ),
  (
    select index.indexrelid
    from pg_catalog.pg_index as index
    where index.indrelid operator(pg_catalog.=) jobs.oid and index.indisprimary
  ),
  (
    select index.indexrelid
    from pg_catalog.pg_index as index
    inner join pg_catalog.pg_class as class on index.indexrelid operator(pg_catalog.=) class.oid
    where
      index.indrelid operator(pg_catalog.=) jobs.oid
      and index.indisvalid
      and class.relname operator(pg_catalog.=) 'jobs_queue_name_priority_run_at_id_idx'
      and class.relam operator(pg_catalog.=) (select am.oid from pg_catalog.pg_am as am where am.amname operator(pg_catalog.=) 'btree')
      and pg_catalog.pg_get_expr(index.indpred, index.indrelid)
      operator(pg_catalog.=) '((queue_name IS NOT NULL) AND (attempts < max_attempts))'
      and array(
        select column_of.attname
        from pg_catalog.unnest(index.indkey) with ordinality as key (number, place)
        inner join pg_catalog.pg_attribute as column_of
          on column_of.attrelid operator(pg_catalog.=) jobs.oid and key.number operator(pg_catalog.=) column_of.attnum
        order by key.place
      ) operator(pg_catalog.=) array['queue_name', 'priority', 'run_at', 'id']::pg_catalog.name[]
  )
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
inner join pg_catalog.pg_namespace as namespace
  on jobs.relnamespace operator(pg_catalog.=) namespace.oid
where
  extension.extname operator(pg_catalog.=) 'kongtask'
  and jobs.relname operator(pg_catalog.=) 'jobs'
