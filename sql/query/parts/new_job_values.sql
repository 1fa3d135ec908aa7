-- The values of a new job, in the order of the columns that statements list. $1 to $8: the arguments of add_job.
$1,
coalesce($2, '{}'::pg_catalog.json),
$3,
coalesce($4, pg_catalog.now()),
coalesce($5, 25),
$6,
coalesce($7, 0),
case
  when $8 is not null
    then (
      select pg_catalog.jsonb_object_agg(item.flag, true)
      from pg_catalog.unnest($8) as item (flag)
    )
end
