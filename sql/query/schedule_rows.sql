-- Returns schedules as the view shows them.
--   $1 text[]: their names, in the order to return them in
select schedules.*
from pg_catalog.unnest($1) with ordinality as wanted (name, number)
inner join kongtask.schedules on wanted.name operator(pg_catalog.=) schedules.name
order by wanted.number
