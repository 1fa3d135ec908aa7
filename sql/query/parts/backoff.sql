-- When a job is due again after a failed attempt. The attempt of a job that is not claimed is not counted in its row yet.
greatest(pg_catalog.now(), jobs.run_at) operator(pg_catalog.+) (
  pg_catalog.exp(
    least(jobs.attempts operator(pg_catalog.+) case when jobs.locked_at is null then 1 else 0 end, 10)
  ) operator(pg_catalog.*) '1 second'::pg_catalog.interval
)
