insert into @extschema@.jobs (
  task_identifier, payload, queue_name, run_at, max_attempts, key, priority, flags
)
select
  spec.identifier,
  coalesce(spec.payload, '{}'::pg_catalog.json),
  spec.queue_name,
  coalesce(spec.run_at, pg_catalog.now()),
  coalesce(spec.max_attempts, 25),
  spec.job_key,
  coalesce(spec.priority, 0),
  (
    select pg_catalog.jsonb_object_agg(item.flag, true)
    from pg_catalog.unnest(spec.flags) as item (flag)
  )
