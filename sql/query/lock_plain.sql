-- Locks plain jobs. Skips those that are no longer so, or that another transaction has locked.
--   $1 bigint[]: ids
--   $2 text: the task identifier
--   $3 timestamptz: now
--   $4 text[]: forbidden flags
select job @plain_jobs@
