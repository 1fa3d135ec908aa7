// What the scripts for the browser share: Chromium, and psql to see what came of a click.
import { createRequire } from 'node:module';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

export const env = process.env;

const { chromium } = createRequire(env.MODULES)('playwright-core');
const executablePath = env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

// Chromium's sandbox needs a user other than root.
export const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ['--no-sandbox'] : [] });

/** What the first column of the first row of a query is. */
export const sql = (query) => execFileSync(env.PSQL, ['-X', '-At', '-c', query], { encoding: 'utf8' }).trim();

export const check = (holds, what) => {
  if (!holds) throw new Error(what);
};

/** Waits until a query answers what is expected. */
export async function waitFor(query, expected) {
  let last;
  for (const until = Date.now() + 20000; Date.now() < until; await new Promise((done) => setTimeout(done, 100))) {
    last = sql(query);
    if (last === expected) return;
  }
  throw new Error(`${query}: ${last}, not ${expected}`);
}

/** A page whose every complaint is an error: of scripts, of what the policy forbids, of what is not there. */
export async function open(address, options = {}) {
  const context = await browser.newContext({ baseURL: address, viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(`error: ${error.message}`));
  page.on('console', (message) => message.type() === 'error' && page.complaints.push(`console: ${message.text()}`));
  page.on('dialog', (dialog) => { page.complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  return page;
}

/** Goes to a page, and sees that it is one, fits the screen and complains of nothing. */
export async function visit(page, to) {
  const begun = Date.now();
  const answer = await page.goto(to, { waitUntil: 'load' });
  const took = Date.now() - begun;
  check(answer.status() === 200, `${to}: status ${answer.status()}`);
  await page.waitForFunction(() => !document.querySelector('[data-pre-init=chart]'), undefined, { timeout: 10000 });
  const text = await page.locator('body').innerText();
  check(!/an error occurred/i.test(text), `${to}: ${text}`);
  check(!page.complaints.length, `${to}: ${page.complaints}`);
  check((await page.title()) === 'kongtask', `${to}: a script was executed`);
  const [width, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  check(width <= screen, `${to} is ${width} wide on a screen of ${screen}`);
  return { text, took };
}

export const picture = (page, name, options = { fullPage: true }) =>
  page.screenshot({ path: path.join(env.PICTURES, `${name}.png`), ...options });

/** Runs steps one after another, and says of each how it went. STEP in the environment is part of the name of those to run. */
export async function run(steps) {
  for (const [name, step] of Object.entries(steps).filter(([name]) => name.includes(env.STEP ?? ''))) {
    const begun = Date.now();
    try {
      await step();
      console.log(`  ok    ${name} (${Date.now() - begun} ms)`);
    } catch (error) {
      console.log(`  FAILED ${name}\n${error.stack}`);
      process.exitCode = 1;
    }
  }
  await browser.close();
}
