-- Returns the tables of kongtask.runs in their order: when each was opened and closed, and whether it has rows.
select
  known.opened_at,
  known.closed_at,
  pg_catalog.pg_relation_size(listed.oid) operator(pg_catalog.>) 0
from (
  values
    (0, 'kongtask.runs_0'::pg_catalog.regclass),
    (1, 'kongtask.runs_1'::pg_catalog.regclass),
    (2, 'kongtask.runs_2'::pg_catalog.regclass),
    (3, 'kongtask.runs_3'::pg_catalog.regclass)
) as listed (number, oid)
left join kongtask.run_tables as known on listed.number operator(pg_catalog.=) known.number
order by listed.number
