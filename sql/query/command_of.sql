-- Returns the command of a payload of kongtask.sql; NULL if it has none.
--   $1 json: the payload
select
  case
    when pg_catalog.json_typeof($1) operator(pg_catalog.=) 'object'
      and pg_catalog.json_typeof($1 operator(pg_catalog.->) 'command') operator(pg_catalog.=) 'string'
      then $1 operator(pg_catalog.->>) 'command'
  end
