-- The queues that are locked for a job that is not there any more, or not of that worker: whoever deleted or unlocked it did so by a
-- way on which no trigger fires. Not those of the workers $1: they let go themselves, when what they run has ended.
select queue.queue_name, queue.locked_by
from @extschema@.job_queues as queue
where
  queue.locked_by operator(pg_catalog.<>) all ($1)
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
