-- Adds a row to a table of kongtask.runs that a user has given an index or a trigger.
--   $1 bigint: job_id
--   $2 timestamptz: due_at
--   $3 timestamptz: started_at
--   $4 timestamptz: ended_at
--   $5 integer: attempt
--   $6 text: state
--   $7 text: task
--   $8 text: role
--   $9 text: queue
--   $10 text: key
--   $11 text: error
--   $12 jsonb: result
--   $13 json: payload
--   $14 integer: the number of the table
with run as (
  select $1, $2, $3, $4, $5, $6::pg_catalog."char", $7, $8, $9, $10, $11, $12, $13
),
added_0 as (
  insert into kongtask.runs_0 (job_id, due_at, started_at, ended_at, attempt, state, task, role, queue, key, error, result, payload)
  select * from run where $14 operator(pg_catalog.=) 0
),
added_1 as (
  insert into kongtask.runs_1 (job_id, due_at, started_at, ended_at, attempt, state, task, role, queue, key, error, result, payload)
  select * from run where $14 operator(pg_catalog.=) 1
),
added_2 as (
  insert into kongtask.runs_2 (job_id, due_at, started_at, ended_at, attempt, state, task, role, queue, key, error, result, payload)
  select * from run where $14 operator(pg_catalog.=) 2
)
insert into kongtask.runs_3 (job_id, due_at, started_at, ended_at, attempt, state, task, role, queue, key, error, result, payload)
select * from run where $14 operator(pg_catalog.=) 3
