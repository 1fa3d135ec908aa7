-- Returns the index of queues' names and its collation. Returns no row if anything about the table that matters to a change of a
-- queue's row differs from what the extension installs.
--   $1 oid: the table
select names.indexrelid, names.indcollation[0]
from pg_catalog.pg_class as queues
inner join pg_catalog.pg_index as names on queues.oid operator(pg_catalog.=) names.indrelid
inner join pg_catalog.pg_class as class on names.indexrelid operator(pg_catalog.=) class.oid
where
  queues.oid operator(pg_catalog.=) $1
  and queues.relkind operator(pg_catalog.=) 'r'
  and queues.relam operator(pg_catalog.=) (select am.oid from pg_catalog.pg_am as am where am.amname operator(pg_catalog.=) 'heap')
  and not queues.relforcerowsecurity
  and not queues.relhasrules
  and pg_catalog.has_table_privilege(queues.relowner, queues.oid, 'select')
  and pg_catalog.has_table_privilege(queues.relowner, queues.oid, 'insert')
  and pg_catalog.has_table_privilege(queues.relowner, queues.oid, 'update')
  and pg_catalog.has_table_privilege(queues.relowner, queues.oid, 'delete')
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(' ', attribute.attname, pg_catalog.format_type(attribute.atttypid, attribute.atttypmod))
        order by attribute.attnum
      )
    from pg_catalog.pg_attribute as attribute
    where attribute.attrelid operator(pg_catalog.=) queues.oid and attribute.attnum operator(pg_catalog.>) 0
  ) operator(pg_catalog.=) array[
    'queue_name text', 'job_count integer', 'locked_at timestamp with time zone', 'locked_by text', 'job_id bigint'
  ]
  and not exists (
    select 1
    from pg_catalog.pg_attribute as attribute
    where attribute.attrelid operator(pg_catalog.=) queues.oid and attribute.attgenerated operator(pg_catalog.<>) ''
  )
  and not exists (
    select 1
    from pg_catalog.pg_constraint as checked
    where checked.conrelid operator(pg_catalog.=) queues.oid and checked.contype operator(pg_catalog.=) 'c'
  )
  -- Those of foreign keys are among them.
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(
          ' ', fired.tgname, function.proname, function.pronamespace operator(pg_catalog.=) queues.relnamespace, fired.tgenabled
        )
        order by fired.tgname
      )
    from pg_catalog.pg_trigger as fired
    inner join pg_catalog.pg_proc as function on fired.tgfoid operator(pg_catalog.=) function.oid
    where fired.tgrelid operator(pg_catalog.=) queues.oid
  ) operator(pg_catalog.=) array[
    '_900_released tg_job_queues__released t O',
    '_900_released_update tg_job_queues__released t O'
  ]
  -- The only index.
  and class.relam operator(pg_catalog.=) (select am.oid from pg_catalog.pg_am as am where am.amname operator(pg_catalog.=) 'btree')
  and names.indkey::pg_catalog.text operator(pg_catalog.=) '1'
  and names.indisunique
  and names.indisvalid
  and names.indisready
  and names.indislive
  and names.indimmediate
  and names.indpred is null
  and not exists (
    select 1
    from pg_catalog.pg_index as other
    where
      other.indrelid operator(pg_catalog.=) queues.oid
      and other.indexrelid operator(pg_catalog.<>) names.indexrelid
  )
