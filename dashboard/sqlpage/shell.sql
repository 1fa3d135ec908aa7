-- What each page begins with: headers, the menu, and what a button has just done.
--   $page: the page's name
--   $refresh: seconds after which the browser loads the page again; NULL: it does not

select
  'http_header' as component,
  'no-store' as "Cache-Control",
  'nosniff' as "X-Content-Type-Options",
  'same-origin' as "Referrer-Policy",
  -- Has the browser say from its next request on which theme its user prefers. Chromium does; elsewhere the switch in the menu
  -- is for that.
  'Sec-CH-Prefers-Color-Scheme' as "Accept-CH",
  'Sec-CH-Prefers-Color-Scheme, Cookie' as "Vary";

set theme = (
  select case
    when sqlpage.cookie('kongtask_theme') in ('light', 'dark') then sqlpage.cookie('kongtask_theme')
    when sqlpage.header('sec-ch-prefers-color-scheme') = 'dark' then 'dark'
    else 'light'
  end
);

select
  'shell' as component,
  'kongtask' as title,
  'stack-2' as icon,
  'index.sql' as link,
  true as sidebar,
  'en' as language,
  15 as font_size,
  true as norobot,
  $theme as theme,
  $refresh as refresh,
  'style.css' as css,
  (
    select json_agg(
      json_build_object('title', item.title, 'link', item.link, 'icon', item.icon, 'active', item.page = $page)
      order by item.place
    )
    from (
      values
        (1, 'index', 'Overview', 'index.sql', 'activity'),
        (2, 'jobs', 'Jobs', 'jobs.sql', 'list-details'),
        (3, 'tasks', 'Tasks', 'tasks.sql', 'function'),
        (4, 'queues', 'Queues', 'queues.sql', 'arrows-right'),
        (5, 'schedules', 'Schedules', 'schedules.sql', 'calendar-time'),
        (6, 'pauses', 'Pauses', 'pauses.sql', 'player-pause'),
        (7, 'limits', 'Limits', 'limits.sql', 'gauge'),
        (8, 'workers', 'Workers', 'workers.sql', 'cpu'),
        (9, 'doctor', 'Doctor', 'doctor.sql', 'stethoscope'),
        (10, 'theme', case $theme when 'dark' then 'Light' else 'Dark' end,
          'theme.sql?to=' || case $theme when 'dark' then 'light' else 'dark' end,
          case $theme when 'dark' then 'sun' else 'moon' end)
    ) as item (place, page, title, link, icon)
    where item.page = 'theme' or pg_temp.sees(item.page)
  ) as menu_item,
  (
    select format(
      'Database **%s** as role **%s**, kongtask %s%s',
      pg_temp.md(current_database()),
      pg_temp.md(current_user),
      extversion,
      case when sqlpage.environment_variable('KONGTASK_DASHBOARD_ORIGIN') is null then ', read only' else '' end
    )
    from pg_extension where extname = 'kongtask'
  ) as footer;

select 'alert' as component, told.title, told.description, told.color, 'check' as icon
from pg_temp.told($done, $count) as told;
