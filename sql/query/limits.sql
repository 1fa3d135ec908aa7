-- Returns all limits, in the order of their names: the name, the tasks, by, concurrency, rate, the seconds that it is for, and
-- burst.
select
  settings.name,
  settings.tasks,
  settings.by,
  settings.concurrency,
  settings.rate,
  pg_catalog.date_part('epoch', settings.per),
  settings.burst
from kongtask.limit_settings as settings
order by settings.name
