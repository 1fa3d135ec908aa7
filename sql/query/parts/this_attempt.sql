-- The number of the attempt that has failed. That of a job that is not claimed is not counted in its row yet.
jobs.attempts operator(pg_catalog.+) case when jobs.locked_at is null then 1 else 0 end
