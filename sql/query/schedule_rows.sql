-- $1: names, in the order to return the schedules in.
select schedules.*
from pg_catalog.unnest($1) with ordinality as wanted (name, number)
inner join kongtask.schedules on wanted.name operator(pg_catalog.=) schedules.name
order by wanted.number
