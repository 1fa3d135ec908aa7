-- The options by way of jsonb: before ALTER EXTENSION UPDATE, an older version's table has not all of them.
select
  tasks.identifier,
  tasks.handler,
  tasks.role::pg_catalog.oid,
  (pg_catalog.to_jsonb(tasks) operator(pg_catalog.->>) 'max_batch')::pg_catalog.int4,
  (pg_catalog.to_jsonb(tasks) operator(pg_catalog.->>) 'in_place')::pg_catalog.bool,
  extract(epoch from (pg_catalog.to_jsonb(tasks) operator(pg_catalog.->>) 'timeout')::pg_catalog.interval)::pg_catalog.float8
from kongtask.tasks
