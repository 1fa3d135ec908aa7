select queue.queue_name
from @extschema@.job_queues as queue
where
  queue.queue_name operator(pg_catalog.=) (select job.queue_name from @extschema@.jobs as job where job.id operator(pg_catalog.=) $1)
  and (queue.locked_at is null or queue.locked_at operator(pg_catalog.<) $2)
for update
skip locked
