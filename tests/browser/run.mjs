// Runs one flow in a browser: node run.mjs FLOW.mjs
//
// A flow is a module whose default function takes `t`:
//   t.step(name, work)   one step, a sentence; the flow ends with the first that fails
//   t.page(look)         a watched page (lib.mjs, `open`); closed after the step that opened it, or with the flow if it
//                        was opened between steps; `watched: false` for a page that may complain
//   t.note(name, value)  a figure to be kept
// What must hold: a step fails, too, if a watched page complained during it (lib.mjs, `watch`); whatever happens, the
// browser is gone and result.json written before the runner ends, with 0 if every step passed and 1 otherwise.
//
// Environment: BASE_URL (the pages under test), BROWSER_OUTPUT (folder for pictures and result.json), CHROMIUM (default
// `chromium` on PATH), whatever the flow asks for. PATH has the folder that `tests/tools/install browser` prints.
// A failed step leaves failed-<step>.png and failed-<step>.html.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

import { launch, open, output, setting, watch } from './lib.mjs';

// Milliseconds for the whole flow, and for what remains to be done after it.
const LIMIT = 360_000;
const FAREWELL = 10_000;

const [file] = process.argv.slice(2);
assert.ok(file, 'usage: node run.mjs FLOW.mjs');
setting('BASE_URL');
setting('BROWSER_OUTPUT');

const started = performance.now();
const result = { flow: basename(file, '.mjs'), passed: false, browser: null, milliseconds: 0, steps: [], notes: {} };
const since = (start) => Math.round(performance.now() - start);
const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2).padStart(7)} s`;

let browser;
let step = null;
let begun = started;
let pages = [];

// What ends the flow from outside. Nobody waits for a promise that a flow forgot to await, so it ends it as well.
const cut = new Promise((_, reject) => {
  setTimeout(() => reject(new Error(`the flow is not done within ${LIMIT / 1000} s`)), LIMIT);
  process.on('unhandledRejection', reject);
});
cut.catch(() => {});

// The outcome of `work`, or undefined if it fails or takes too long: what is done on the way out must not hinder it.
function attempt(work) {
  const late = new Promise((done) => setTimeout(done, FAREWELL));
  return Promise.race([Promise.resolve().then(work).catch(() => undefined), late]);
}

async function quiet() {
  for (const { page, complaints } of pages) {
    // By its answer everything that the page had to say before has arrived.
    await page.evaluate(() => 0).catch(() => {});
    const heard = complaints();
    assert.ok(heard.length === 0, `pages complained:\n  ${heard.join('\n  ')}`);
  }
}

async function close(gone) {
  pages = pages.filter((one) => !gone.includes(one));
  await Promise.all(gone.map(({ page }) => page.context().close()));
}

const t = {
  async page({ watched = true, ...look } = {}) {
    const page = await open(browser, look);
    const opened = { page, complaints: watched ? await watch(page) : () => [], step, moved: 0 };
    page.on('framenavigated', () => { opened.moved = performance.now(); });
    pages.push(opened);
    return page;
  },

  async step(name, work) {
    assert.equal(step, null, `steps follow one another: ${name}`);
    begun = performance.now();
    step = { name, passed: false, milliseconds: 0 };
    result.steps.push(step);
    await work();
    await quiet();
    step.passed = true;
    step.milliseconds = since(begun);
    console.log(`ok     ${seconds(step.milliseconds)}  ${name}`);
    await close(pages.filter((one) => one.step === step));
    step = null;
  },

  note(name, value) {
    result.notes[name] = value;
    console.log(`                  ${name}: ${JSON.stringify(value)}`);
  },
};

// Keeps what the failed step had before it: the page that went somewhere last.
async function keep(name) {
  if (pages.length === 0) return;
  const { page } = pages.reduce((latest, one) => (one.moved > latest.moved ? one : latest));
  const kept = output(`failed-${name.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 80)}`);
  console.log(`the page was ${page.url()}, see ${kept}.png and .html`);
  await attempt(async () => writeFileSync(`${kept}.html`, await page.content()));
  await attempt(() => page.screenshot({ path: `${kept}.png`, fullPage: true, animations: 'disabled' }));
}

async function flow() {
  browser = await launch();
  result.browser = browser.version();
  const { default: work } = await import(pathToFileURL(resolve(file)));
  await work(t);
  await quiet();
  assert.ok(result.steps.length > 0, 'the flow has no step');
}

try {
  await Promise.race([flow(), cut]);
  result.passed = true;
} catch (error) {
  const name = step?.name ?? 'outside any step';
  if (step) step.milliseconds = since(begun);
  result.error = `${name}: ${error.message}`;
  console.log(`FAILED ${seconds(step?.milliseconds ?? 0)}  ${name}\n${error.stack}`);
  await keep(name);
}
await attempt(() => browser?.close());
result.milliseconds = since(started);
writeFileSync(output('result.json'), `${JSON.stringify(result, null, 2)}\n`);
const passed = result.steps.filter((one) => one.passed).length;
console.log(`${result.flow}: ${passed} of ${result.steps.length} steps passed in${seconds(result.milliseconds)}`);
process.exit(result.passed ? 0 : 1);
