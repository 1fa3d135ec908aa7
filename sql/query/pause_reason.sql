-- Returns why a job is paused: the reason of the pause that ends last, of those under which it falls.
--   $1 text: its task
--   $2 text: its queue, or NULL
select pauses.reason
from kongtask.pauses
where
  (pauses.task is null or pauses.task operator(pg_catalog.=) $1)
  and (pauses.queue_name is null or pauses.queue_name operator(pg_catalog.=) $2)
  and (pauses.until is null or pauses.until operator(pg_catalog.>) pg_catalog.clock_timestamp())
order by pauses.until desc nulls first
limit 1
