-- Empties a table of kongtask.runs.
--   $1 integer: the number of the table
select kongtask.empty_run_table($1)
