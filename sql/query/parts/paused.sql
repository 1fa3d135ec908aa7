-- Whether the queue of a job is paused. $5: the queues that are; $6 and $7: queues in which tasks are paused, and these tasks. All
-- three are NULL if there is none.
$5 is not null
and job.queue_name is not null
and (
  job.queue_name operator(pg_catalog.=) any ($5)
  or exists (
    select 1
    from rows from (pg_catalog.unnest($6), pg_catalog.unnest($7)) as paused (queue_name, task)
    where
      paused.queue_name operator(pg_catalog.=) job.queue_name
      and paused.task operator(pg_catalog.=) job.task_identifier
  )
)
