-- When a job is due again after a failed attempt. $3: the back-offs of its task, of which the last one repeats; NULL for
-- graphile-worker's.
greatest(pg_catalog.now(), jobs.run_at) operator(pg_catalog.+) case
  when $3 is null
    then
      pg_catalog.exp(least(@this_attempt@, 10)) operator(pg_catalog.*) '1 second'::pg_catalog.interval
  else $3[least(@this_attempt@, pg_catalog.cardinality($3))]
end
