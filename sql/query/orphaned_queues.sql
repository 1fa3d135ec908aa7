-- Returns queues that are locked for a job that is gone, or that their worker does not hold: it was deleted or unlocked in a
-- way that fires no trigger. Also returns queues that have kept their row, and are not locked.
--   $1 text[]: the ids of the workers that live; they release their queues themselves
select queue.queue_name, queue.locked_by
from @extschema@.job_queues as queue
where
  queue.locked_at is null
  or queue.locked_by operator(pg_catalog.<>) all ($1)
  and case
    when queue.job_id is not null
      then not exists (
        select 1
        from @extschema@.jobs as job
        where job.id operator(pg_catalog.=) queue.job_id and job.locked_by operator(pg_catalog.=) queue.locked_by
      )
    else not exists (
      select 1
      from @extschema@.jobs as job
      where job.queue_name operator(pg_catalog.=) queue.queue_name and job.locked_by operator(pg_catalog.=) queue.locked_by
    )
  end
