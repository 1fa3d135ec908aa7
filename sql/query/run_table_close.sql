-- Notes that no more rows of kongtask.runs are written to a table.
--   $1 integer: the number of the table
--   $2 timestamptz: since when
insert into kongtask.run_tables (number, opened_at, closed_at)
values ($1, $2, $2)
on conflict (number) do update set closed_at = excluded.closed_at
