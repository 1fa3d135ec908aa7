select job.priority
from @extschema@.jobs as job
where job.attempts operator(pg_catalog.<) job.max_attempts and job.priority operator(pg_catalog.>) $1
order by job.priority
limit 1
