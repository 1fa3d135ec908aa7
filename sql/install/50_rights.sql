-- Functions are executable by PUBLIC unless told otherwise; tables, schemas and views are not.
revoke all on all functions in schema graphile_worker from public;
revoke all on all functions in schema kongtask from public;
revoke all on all tables in schema graphile_worker from public;
revoke all on all tables in schema kongtask from public;

-- What pg_dump takes along. job_queues is rebuilt by the triggers while jobs is restored (restoring both would count
-- each job twice, and a lock belongs to a worker of the old server); migrations 1 to 9 come with CREATE EXTENSION.
select pg_catalog.pg_extension_config_dump('jobs', '');
select pg_catalog.pg_extension_config_dump('jobs_id_seq', '');
select pg_catalog.pg_extension_config_dump('job_queues', 'where false');
select pg_catalog.pg_extension_config_dump('migrations', 'where id > 9');
select pg_catalog.pg_extension_config_dump('known_crontabs', '');
select pg_catalog.pg_extension_config_dump('kongtask.tasks', '');
