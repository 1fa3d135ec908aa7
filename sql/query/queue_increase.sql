insert into @extschema@.job_queues (queue_name, job_count)
values ($1, 1)
on conflict (queue_name) do update set
  job_count = job_queues.job_count operator(pg_catalog.+) 1
