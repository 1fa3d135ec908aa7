on conflict (key) do update set
  revision = jobs.revision operator(pg_catalog.+) 1
returning jobs
