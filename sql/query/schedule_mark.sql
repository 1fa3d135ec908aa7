-- $1: a schedule; $2: an instant; $3: whether an unfinished job of the schedule keeps it from firing. graphile-worker's protocol: who
-- moves last_execution on to an instant adds its job in the same transaction.
insert into @extschema@.known_crontabs as known (identifier, known_since, last_execution)
select $1, $2, $2
where
  not $3 or not exists (
