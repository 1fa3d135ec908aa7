-- Returns the sequence of jobs, its indexes in the order of their names, and whether an UPDATE fires what the extension
-- installs. Returns no row if anything about the table that matters to an INSERT or a DELETE of a job differs from that.
--   $1 oid: the table
select
  pg_catalog.pg_get_serial_sequence(jobs.oid::pg_catalog.regclass::pg_catalog.text, 'id')::pg_catalog.regclass::pg_catalog.oid,
  array(
    select index.indexrelid
    from pg_catalog.pg_index as index
    inner join pg_catalog.pg_class as class on index.indexrelid operator(pg_catalog.=) class.oid
    where index.indrelid operator(pg_catalog.=) jobs.oid
    order by class.relname
  ),
  pg_catalog.has_table_privilege(jobs.relowner, jobs.oid, 'update')
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(
          ' ', fired.tgname, function.proname, function.pronamespace operator(pg_catalog.=) jobs.relnamespace, fired.tgenabled
        )
        order by fired.tgname
      )
    from pg_catalog.pg_trigger as fired
    inner join pg_catalog.pg_proc as function on fired.tgfoid operator(pg_catalog.=) function.oid
    where
      fired.tgrelid operator(pg_catalog.=) jobs.oid
      -- UPDATE.
      and (fired.tgtype operator(pg_catalog.&) 16::pg_catalog.int2) operator(pg_catalog.<>) 0
  ) operator(pg_catalog.=) array[
    '_100_timestamps tg__update_timestamp t O',
    '_500_release_queue_update tg_jobs__release_queue t O',
    '_900_notify_worker_update tg_jobs__notify_new_jobs t O'
  ]
from pg_catalog.pg_class as jobs
where
  jobs.oid operator(pg_catalog.=) $1
  and jobs.relkind operator(pg_catalog.=) 'r'
  and jobs.relam operator(pg_catalog.=) (select am.oid from pg_catalog.pg_am as am where am.amname operator(pg_catalog.=) 'heap')
  and not jobs.relforcerowsecurity
  and not jobs.relhasrules
  and pg_catalog.has_table_privilege(jobs.relowner, jobs.oid, 'insert')
  and pg_catalog.has_table_privilege(jobs.relowner, jobs.oid, 'delete')
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(' ', attribute.attname, pg_catalog.format_type(attribute.atttypid, attribute.atttypmod))
        order by attribute.attnum
      )
    from pg_catalog.pg_attribute as attribute
    where attribute.attrelid operator(pg_catalog.=) jobs.oid and attribute.attnum operator(pg_catalog.>) 0
  ) operator(pg_catalog.=) array[
    'id bigint', 'queue_name text', 'task_identifier text', 'payload json', 'priority integer',
    'run_at timestamp with time zone', 'attempts integer', 'max_attempts integer', 'last_error text',
    'created_at timestamp with time zone', 'updated_at timestamp with time zone', 'key text',
    'locked_at timestamp with time zone', 'locked_by text', 'revision integer', 'flags jsonb'
  ]
  and not exists (
    select 1
    from pg_catalog.pg_attribute as attribute
    where
      attribute.attrelid operator(pg_catalog.=) jobs.oid
      and (attribute.attgenerated operator(pg_catalog.<>) '' or attribute.attidentity operator(pg_catalog.<>) '')
  )
  -- add_job gives the other columns that have a default.
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(' ', preset.adnum, pg_catalog.pg_get_expr(preset.adbin, preset.adrelid)) order by preset.adnum
      )
    from pg_catalog.pg_attrdef as preset
    where
      preset.adrelid operator(pg_catalog.=) jobs.oid
      and preset.adnum operator(pg_catalog.<>) all (array[4, 5, 6, 8]::pg_catalog.int2[])
  ) operator(pg_catalog.=) array[
    pg_catalog.format(
      '1 nextval(%L::regclass)',
      pg_catalog.pg_get_serial_sequence(jobs.oid::pg_catalog.regclass::pg_catalog.text, 'id')::pg_catalog.regclass
    ),
    '7 0', '10 now()', '11 now()', '15 0'
  ]
  and (
    select pg_catalog.array_agg(checked.conname::pg_catalog.text)
    from pg_catalog.pg_constraint as checked
    where checked.conrelid operator(pg_catalog.=) jobs.oid and checked.contype operator(pg_catalog.=) 'c'
  ) operator(pg_catalog.=) array['jobs_key_check']
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(
          ' ', fired.tgname, function.proname, function.pronamespace operator(pg_catalog.=) jobs.relnamespace, fired.tgenabled
        )
        order by fired.tgname
      )
    from pg_catalog.pg_trigger as fired
    inner join pg_catalog.pg_proc as function on fired.tgfoid operator(pg_catalog.=) function.oid
    where
      fired.tgrelid operator(pg_catalog.=) jobs.oid
      -- INSERT and DELETE.
      and (fired.tgtype operator(pg_catalog.&) 12::pg_catalog.int2) operator(pg_catalog.<>) 0
  ) operator(pg_catalog.=) array[
    '_100_unlock_arriving tg_jobs__unlock_arriving t O',
    '_500_release_queue tg_jobs__release_queue t O',
    '_900_notify_worker tg_jobs__notify_new_jobs t O'
  ]
  and (
    select
      pg_catalog.array_agg(
        pg_catalog.concat_ws(
          ' ',
          class.relname,
          class.relam,
          index.indkey,
          index.indisready and index.indislive and index.indimmediate,
          index.indisunique,
          pg_catalog.pg_get_expr(index.indpred, index.indrelid)
        )
        order by class.relname
      )
    from pg_catalog.pg_index as index
    inner join pg_catalog.pg_class as class on index.indexrelid operator(pg_catalog.=) class.oid
    where index.indrelid operator(pg_catalog.=) jobs.oid
  ) operator(pg_catalog.=) array[
    'jobs_key_key 403 12 t t',
    'jobs_pkey 403 1 t t',
    'jobs_priority_run_at_id_locked_at_without_failures_idx 403 5 6 1 13 t f (attempts < max_attempts)',
    'jobs_queue_name_priority_run_at_id_idx 403 2 5 6 1 t f ((queue_name IS NOT NULL) AND (attempts < max_attempts))',
    'jobs_run_at_idx 403 6 t f ((run_at > created_at) AND (attempts < max_attempts))'
  ]
