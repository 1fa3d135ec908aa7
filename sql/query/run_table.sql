-- Returns the number of the table that rows of kongtask.runs are written to; no row: 0.
select run_tables.number
from kongtask.run_tables
where run_tables.closed_at is null
order by run_tables.opened_at desc
limit 1
