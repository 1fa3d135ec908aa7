// Every page and button of the dashboard, as `browser.rs` sets it up.
import { check, env, open, picture, run, sql, visit, waitFor } from './kit.mjs';

const { DASHBOARD, GUEST, ODD } = env;
const enc = encodeURIComponent;
const pages = {
  overview: 'index.sql?every=0',
  jobs: 'jobs.sql',
  'jobs-failed': 'jobs.sql?state=failed',
  'job-large': `job.sql?id=${env.LARGE}`,
  'job-running': `job.sql?id=${env.RUNNING}`,
  'job-paused': `job.sql?id=${env.PAUSED}`,
  'job-failed': `job.sql?id=${env.FAILED}`,
  'job-odd': `job.sql?id=${env.ODD_JOB}`,
  tasks: 'tasks.sql',
  task: 'task.sql?task=ship',
  'task-odd': `task.sql?task=${enc(ODD)}`,
  queues: 'queues.sql',
  queue: `queue.sql?queue=${enc(ODD)}`,
  schedules: 'schedules.sql',
  schedule: 'schedule.sql?name=nightly',
  pauses: 'pauses.sql',
  workers: 'workers.sql',
  doctor: 'doctor.sql',
};
if (sql("select to_regclass('kongtask.limits')")) pages.limits = 'limits.sql';

const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
// The overview loads itself again, maybe before it has been loaded.
const committed = { waitUntil: 'commit' };
const state = (id) => `select state from kongtask.job_states where id = ${id}`;
/** Submits a form of a page by its button, and waits for what the next page says. */
async function press(page, title, says) {
  await page.getByRole('button', { name: title, exact: true }).click();
  await page.locator('.alert', { hasText: says }).first().waitFor({ timeout: 10000 });
  check(!page.complaints.length, `${title}: ${page.complaints}`);
}

/** Visits and pictures each page. */
async function see(name, options) {
  const page = await open(DASHBOARD, options);
  for (const [title, to] of Object.entries(pages)) {
    const { text } = await visit(page, to);
    check(!text.includes('No such'), to);
    await picture(page, `${title}-${name}`);
    const theme = await page.locator('body').getAttribute('data-bs-theme');
    // The browser says what it prefers once it knows that it is asked.
    if (title !== 'overview') check(theme === (options.colorScheme ?? 'light'), `${to} is ${theme}`);
  }
  await page.context().close();
}

await run({
  'every page, light': () => see('light', {}),
  'every page, dark': () => see('dark', { colorScheme: 'dark' }),
  'every page, on a phone': () => see('phone', phone),

  'the menu leads everywhere, on a phone too': async () => {
    const page = await open(DASHBOARD, phone);
    for (const title of ['Jobs', 'Tasks', 'Queues', 'Schedules', 'Pauses', 'Workers', 'Doctor', 'Overview']) {
      await page.goto('index.sql?every=0');
      await page.locator('.navbar-toggler').tap();
      // While it opens, its items move.
      await page.locator('#sidebar-menu.collapse.show').waitFor();
      await page.locator('.navbar-nav').getByText(title, { exact: true }).tap();
      await page.waitForURL(title === 'Overview' ? /index\.sql$/ : new RegExp(`/${title.toLowerCase()}\\.sql$`), committed);
    }
    await page.context().close();
  },

  'the theme is switched, and stays': async () => {
    const page = await open(DASHBOARD);
    await page.goto('index.sql?every=0');
    await page.getByText('Dark', { exact: true }).click();
    await page.waitForURL(/index\.sql$/, committed);
    await visit(page, 'tasks.sql');
    check((await page.locator('body').getAttribute('data-bs-theme')) === 'dark', 'it is light');
    await page.getByText('Light', { exact: true }).click();
    await page.waitForURL(/index\.sql$/, committed);
    await visit(page, 'tasks.sql');
    check((await page.locator('body').getAttribute('data-bs-theme')) === 'light', 'it is dark');
    await page.context().close();
  },

  'the overview loads itself again, and draws what it has seen': async () => {
    const page = await open(DASHBOARD);
    await visit(page, 'index.sql?every=2');
    for (let times = 0; times < 3; times += 1) await page.waitForEvent('load', { timeout: 15000 });
    await page.locator('#kt-throughput .apexcharts-area-series path').first().waitFor({ state: 'attached' });
    await page.context().close();
  },

  'jobs are filtered by the form, and paged through': async () => {
    const page = await open(DASHBOARD);
    await visit(page, 'jobs.sql');
    await page.locator('select[name=state]').selectOption('failed');
    await page.locator('input[name=task]').fill('ship');
    await page.getByRole('button', { name: 'Show' }).click();
    await page.waitForURL(/state=failed/);
    const states = await page.locator('td._col_state').allInnerTexts();
    check(states.length === 3 && states.every((text) => text === 'failed'), `${states}`);
    await visit(page, 'jobs.sql?task=letters');
    let last = Infinity;
    for (let number = 0; number < 5; number += 1) {
      const ids = (await page.locator('td._col_id').allInnerTexts()).map(Number);
      check(ids.length === 50 && ids[0] < last && ids.every((id, at) => !at || id < ids[at - 1]), `${ids}`);
      last = ids[49];
      await Promise.all([page.waitForURL(new RegExp(`before=${last}`)), page.getByText('Older').click()]);
    }
    await page.getByText('Newest').click();
    await page.waitForURL((url) => !url.search.includes('before'));
    await page.context().close();
  },

  'no page is slow, however many jobs there are': async () => {
    const page = await open(DASHBOARD);
    const middle = sql('select (min(id) + max(id)) / 2 from graphile_worker.jobs');
    const slow = [];
    const times = {};
    for (const to of [
      pages.overview, pages.tasks, pages.queues, pages.doctor, pages['job-large'], 'jobs.sql', `jobs.sql?before=${middle}`,
      'jobs.sql?task=none', `jobs.sql?queue=${enc(ODD)}`, 'jobs.sql?text=nothing+has+this',
      ...['ready', 'waiting', 'scheduled', 'running', 'retrying', 'failed'].map((name) => `jobs.sql?state=${name}`),
    ]) {
      const { took } = await visit(page, to);
      times[to] = took;
      if (took > 5000) slow.push(`${to}: ${took} ms`);
    }
    console.log(`        ${env.JOBS} jobs: ${Object.entries(times).map(([to, took]) => `${to.slice(0, 40)} ${took} ms`).join(', ')}`);
    check(!slow.length, slow.join('\n'));
    await page.context().close();
  },

  'what names and payloads say is shown, not done': async () => {
    const page = await open(DASHBOARD);
    const answer = await page.goto(`job.sql?id=${env.LARGE}`);
    const size = (await answer.body()).length;
    check(size < 100000, `${size} bytes`);
    check((await page.locator('code').last().innerText()).includes('<script>document.title='), 'the payload is not shown as it is');
    await visit(page, `job.sql?id=${env.FAILED}`);
    check((await page.locator('code').first().innerText()).includes('<b>out of stock</b>'), 'the error is not shown as it is');
    check((await page.locator('main b').count()) === 0, 'a tag of an error was taken for one');
    await visit(page, 'tasks.sql');
    await page.getByText(ODD, { exact: true }).click();
    await page.waitForURL(/task\.sql\?task=/);
    check((await page.locator('h2').first().innerText()) === `Task ${ODD}`, 'another task is shown');
    check(!page.complaints.length, `${page.complaints}`);
    await page.context().close();
  },

  'a task is paused and resumed': async () => {
    const page = await open(DASHBOARD);
    await visit(page, 'task.sql?task=ship');
    await page.locator('#pause input[name=until]').fill('30 minutes');
    await page.locator('#pause input[name=reason]').fill(ODD);
    await press(page, 'Pause', 'No further job');
    check(sql("select reason from kongtask.pauses where task = 'ship'") === ODD, 'there is no such pause');
    await picture(page, 'task-after-pause');
    await press(page, 'Resume', 'Waiting jobs begin');
    check(sql("select count(*) from kongtask.pauses where task = 'ship'") === '0', 'it is paused');
    await visit(page, 'pauses.sql');
    await page.locator('#pause select[name=task]').selectOption('slow');
    await page.locator('#pause input[name=queue]').fill('a queue');
    await press(page, 'Pause', 'No further job');
    check(sql("select queue_name from kongtask.pauses where task = 'slow'") === 'a queue', 'there is no such pause');
    await page.locator('#resume select[name=task]').selectOption('slow');
    await page.locator('#resume select[name=queue]').selectOption('a queue');
    await press(page, 'Resume', 'Waiting jobs begin');
    check(sql("select count(*) from kongtask.pauses where task = 'slow'") === '0', 'it is paused');
    await page.context().close();
  },

  'a schedule runs now, and is switched off and on': async () => {
    const page = await open(DASHBOARD);
    await visit(page, 'schedule.sql?name=nightly');
    await press(page, 'Run now', 'The schedule has added this job');
    check(/job\.sql\?id=\d+/.test(page.url()), page.url());
    await visit(page, 'schedule.sql?name=nightly');
    await press(page, 'Deactivate', 'does not fire');
    check(sql("select active from kongtask.schedules where name = 'nightly'") === 'f', 'it is active');
    await press(page, 'Activate', 'fires from now on');
    check(sql("select active from kongtask.schedules where name = 'nightly'") === 't', 'it is not');
    await page.context().close();
  },

  'jobs are retried, redriven and cancelled': async () => {
    const page = await open(DASHBOARD);
    await visit(page, `job.sql?id=${env.RETRIED}`);
    await press(page, 'Retry now', 'A free worker takes the job');
    await waitFor(state(env.RETRIED), 'ready');
    await press(page, 'Cancel', 'It has failed for good');
    await waitFor(state(env.RETRIED), 'failed');
    await press(page, 'Retry', 'further attempts: 1.');
    await waitFor(state(env.RETRIED), 'ready');
    await visit(page, 'task.sql?task=ship');
    await press(page, 'Redrive failed jobs', 'further attempts: 3.');
    await press(page, 'Redrive failed jobs', 'Nothing done');
    await visit(page, `job.sql?id=${env.RUNNING}`);
    await press(page, 'Cancel', 'handler is being interrupted');
    await waitFor(state(env.RUNNING), 'failed');
    await page.context().close();
  },

  'who may not gets no button, and the database refuses': async () => {
    const page = await open(GUEST);
    for (const to of [`job.sql?id=${env.FAILED}`, 'task.sql?task=ship', 'schedule.sql?name=nightly', 'pauses.sql']) {
      await visit(page, to);
      const buttons = await page.locator('main button[type=submit]').allInnerTexts();
      check(buttons.every((title) => title === 'Retry now'), `${to}: ${buttons}`);
    }
    // As one who edits the page would.
    await visit(page, 'task.sql?task=ship');
    await page.evaluate(() => {
      const form = document.querySelector('form#redrive');
      form.querySelector('[name=action]').value = 'pause';
      form.submit();
    });
    await page.locator('.alert', { hasText: 'SQLSTATE 42501' }).waitFor();
    await picture(page, 'refused');
    check(sql("select count(*) from kongtask.pauses where task = 'ship'") === '0', 'it is paused');
    await page.context().close();
  },

  'a form of another site changes nothing, nor does a link': async () => {
    const page = await open(DASHBOARD);
    // Of another origin, on the same machine: as close as another site can come.
    await page.route('http://localhost:9/evil', (route) => route.fulfill({
      contentType: 'text/html',
      body: `<form method=post action="${DASHBOARD}/do.sql"><input name=action value=pause><input name=task value=ship><button>go</button></form>`,
    }));
    await page.goto('http://localhost:9/evil');
    const [answer] = await Promise.all([page.waitForResponse(/do\.sql/), page.getByText('go').click()]);
    check(answer.status() === 403, `status ${answer.status()}`);
    await page.getByText('This form does not come from the dashboard itself').waitFor();
    const got = await page.goto(`${DASHBOARD}/do.sql?action=pause&task=ship`);
    check(got.status() === 405, `status ${got.status()}`);
    check(sql("select count(*) from kongtask.pauses where task = 'ship'") === '0', 'it is paused');
    // By another name it shows nothing.
    const other = await page.goto(DASHBOARD.replace('127.0.0.1', 'localhost') + '/jobs.sql');
    check(other.status() === 403 && (await page.locator('table').count()) === 0, 'it shows jobs by another name');
    // And no site can put it into a frame.
    await page.route('http://localhost:9/frame', (route) => route.fulfill({ contentType: 'text/html', body: `<iframe src="${DASHBOARD}/jobs.sql"></iframe>` }));
    await page.goto('http://localhost:9/frame');
    check(!(await page.frames()[1]?.locator('table').count().catch(() => 0)), 'it is shown in a frame');
    await page.context().close();
  },
});
