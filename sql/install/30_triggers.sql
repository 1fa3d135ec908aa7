create function tg__update_timestamp() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_update_timestamp';

create function tg_jobs__release_queue() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_release_queue';

create function tg_jobs__notify_new_jobs() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_note_job';

create function tg_job_queues__released() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_note_queue';

create function tg_migrations__refuse() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_refuse_migration';

create function tg_jobs__unlock_arriving() returns trigger
  language c as 'MODULE_PATHNAME', 'kongtask_unlock_arriving';

create trigger _100_refuse
  before insert or update on migrations for each row when (new.id > 9)
  execute function tg_migrations__refuse();
create trigger _100_unlock_arriving
  before insert on jobs for each row when (pg_catalog.starts_with(new.locked_by, 'kongtask:'))
  execute function tg_jobs__unlock_arriving();
create trigger _100_timestamps
  before update on jobs for each row
  execute function tg__update_timestamp();
create trigger _500_release_queue
  after delete on jobs for each row when (old.queue_name is not null and old.locked_by is not null)
  execute function tg_jobs__release_queue();
create trigger _500_release_queue_update
  after update on jobs for each row
  when (
    old.queue_name is not null
    and old.locked_by is not null
    and (new.locked_by is distinct from old.locked_by or new.queue_name is distinct from old.queue_name)
  )
  execute function tg_jobs__release_queue();
create trigger _900_notify_worker
  after insert on jobs for each row
  execute function tg_jobs__notify_new_jobs();
create trigger _900_notify_worker_update
  after update on jobs for each row when (new.locked_at is null)
  execute function tg_jobs__notify_new_jobs();
create trigger _900_released
  after delete on job_queues for each row when (old.locked_at is not null)
  execute function tg_job_queues__released();
create trigger _900_released_update
  after update on job_queues for each row when (old.locked_at is not null and new.locked_at is null)
  execute function tg_job_queues__released();
