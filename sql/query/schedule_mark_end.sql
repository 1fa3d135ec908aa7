  )
on conflict (identifier) do update set last_execution = excluded.last_execution
where known.last_execution is null or known.last_execution operator(pg_catalog.<) excluded.last_execution
