-- Where requests are sent that must not be answered.

select 'status_code' as component, 403 as status;

select 'shell' as component, 'kongtask' as title, 'index.sql' as link, 'style.css' as css, 'en' as language, '' as footer;

select 'alert' as component, 'red' as color, 'lock' as icon, told.title, told.description
from (
  values
    (
      'host',
      'This is another name of the dashboard',
      'It answers at ' || coalesce(sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN'), 'its own name') || ' only. A proxy must pass the Host header on.'
    ),
    (
      'rights',
      format('Role %s may not read this', current_user),
      'Grant the dashboard''s role what dashboard/grants.sql grants. Row level security hides the jobs from a role that may not execute get_job.'
    )
) as told (why, title, description)
where told.why = coalesce($why, 'rights');

select 'list' as component, 'What the role may read' as title, true as compact
where coalesce($why, '') <> 'host';
select item.title, item.link, 'eye' as icon
from (
  values
    ('index', 'Overview', 'index.sql'), ('jobs', 'Jobs', 'jobs.sql'), ('tasks', 'Tasks', 'tasks.sql'),
    ('queues', 'Queues', 'queues.sql'), ('schedules', 'Schedules', 'schedules.sql'), ('pauses', 'Pauses', 'pauses.sql'),
    ('limits', 'Limits', 'limits.sql'), ('workers', 'Workers', 'workers.sql'), ('doctor', 'Doctor', 'doctor.sql')
) as item (page, title, link)
where coalesce($why, '') <> 'host' and pg_temp.sees(item.page);
