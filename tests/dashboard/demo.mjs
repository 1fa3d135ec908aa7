// The demo's shop in the dashboard; with TO_DOCS, the pictures of the documentation.
import { check, env, open, picture, run, sql, visit } from './kit.mjs';
import { copyFileSync, statSync, mkdirSync } from 'node:fs';
import path from 'node:path';

const keep = (name) => {
  const made = path.join(env.PICTURES, `${name}.png`);
  check(statSync(made).size < 102400, `${name}.png has ${statSync(made).size} bytes`);
  if (!env.TO_DOCS) return;
  mkdirSync(env.TO_DOCS, { recursive: true });
  copyFileSync(made, path.join(env.TO_DOCS, `${name}.png`));
};

await run({
  'orders flow': async () => {
    const page = await open(env.DASHBOARD, { viewport: { width: 1100, height: 760 } });
    const number = () => page.locator('tr', { hasText: 'reserve_stock' }).locator('td').nth(2).innerText();
    await visit(page, 'index.sql?every=2');
    const before = Number((await number()).replaceAll(',', ''));
    // As long as a picture needs to show something.
    for (let times = 0; times < (env.TO_DOCS ? 45 : 4); times += 1) await page.waitForEvent('load', { timeout: 15000 });
    const after = Number((await number()).replaceAll(',', ''));
    check(after > before, `${before} orders, then ${after}`);
    check(Number(sql("select count(*) from shop.orders where status = 'confirmed'")) > 0, 'no order was confirmed');
    await page.locator('#kt-throughput .apexcharts-area-series path').first().waitFor({ state: 'attached' });
    await picture(page, 'dashboard-overview', {});
    keep('dashboard-overview');
    await page.context().close();
  },
  'the role of the dashboard controls the shop': async () => {
    const page = await open(env.DASHBOARD, { viewport: { width: 1100, height: 760 }, colorScheme: 'dark' });
    await visit(page, 'tasks.sql');
    await visit(page, 'task.sql?task=charge_card');
    await picture(page, 'dashboard-task', {});
    keep('dashboard-task');
    const retried = () => sql("select max(id) from kongtask.job_states where state = 'retrying'");
    let id = retried();
    for (let times = 0; !id && times < 100; times += 1) {
      await page.waitForTimeout(100);
      id = retried();
    }
    await visit(page, `job.sql?id=${id}`);
    check(await page.getByRole('button', { name: 'Cancel' }).isVisible(), 'the job cannot be cancelled');
    await picture(page, 'dashboard-job', {});
    keep('dashboard-job');
    await page.context().close();
  },
  'on a phone': async () => {
    const page = await open(env.DASHBOARD, { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: 'light' });
    await visit(page, 'index.sql?every=0');
    await picture(page, 'dashboard-phone', {});
    keep('dashboard-phone');
    await page.context().close();
  },
});
