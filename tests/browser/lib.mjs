// A real browser for one flow: how it is started, how a page is opened, and what can be asked of a page.
//
// What it is: Debian's Chromium without a window, driven by playwright-core; axe-core judges whether a page can be used
// by everyone. What must hold: nothing is asked of any machine but this one; every page has a context of its own, so no
// cookie or cache goes from one to another unless a flow says so; nothing waits for a fixed time.
//
// The two packages are not in the checkout. `tests/tools/install browser` puts them into its cache and links the
// program `playwright-core` into the folder that it prints; with that folder on PATH, as for every other tool, the
// packages are found beside the program. (NODE_PATH is not an answer: `import` does not look at it.)

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';

// Milliseconds that a single question or navigation may take.
const PATIENCE = 15_000;
const SIZES = {
  desktop: { viewport: { width: 1280, height: 900 } },
  // As a phone does it: a page that says no viewport is laid out for a desktop and shrunk.
  phone: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
};

/** The value of an environment variable; without it the flow does not start. */
export function setting(name) {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

function program(name) {
  const found = setting('PATH').split(delimiter).map((folder) => join(folder, name)).find(existsSync);
  assert.ok(found, `\`${name}\` is not on PATH: put the folder there that \`tests/tools/install browser\` prints`);
  return realpathSync(found);
}

/** Where the pages under test are. */
export function base() {
  return new URL(setting('BASE_URL'));
}

/** The path of a file in the output folder, which is made if need be. */
export function output(file) {
  const folder = setting('BROWSER_OUTPUT');
  mkdirSync(folder, { recursive: true });
  return join(folder, file);
}

const packages = createRequire(program('playwright-core'));

/** Starts the browser. */
export function launch() {
  const { chromium } = packages('playwright-core');
  return chromium.launch({
    executablePath: process.env.CHROMIUM || program('chromium'),
    // The sandbox does not start as root. What is loaded is our own pages, from this machine.
    chromiumSandbox: false,
    args: [
      '--no-proxy-server',
      // Tenants have hosts of their own, which no name server knows. Everything else is not to be found, so that a page
      // that asks for it gets nothing, on a machine with a network as on one without. Over plain HTTP the browser keeps
      // a `Secure` cookie of 127.0.0.1 and *.localhost, and of no other host.
      `--host-resolver-rules=${[
        'MAP *.registry.test 127.0.0.1',
        'MAP *.localhost 127.0.0.1',
        'MAP * ~NOTFOUND',
        'EXCLUDE localhost',
        'EXCLUDE 127.0.0.1',
        'EXCLUDE ::1',
      ].join(', ')}`,
    ],
  });
}

/**
 * Opens an empty page in a new context.
 *
 * `size`: `desktop` (1280x900) or `phone` (390x844). `scheme`: `light` or `dark`. `script`: whether pages may run
 * scripts. `cookies`: what the context starts with, as `cookies` of another context gives them.
 */
export async function open(browser, { size = 'desktop', scheme = 'light', script = true, cookies = [] } = {}) {
  const context = await browser.newContext({
    ...SIZES[size],
    baseURL: base().href,
    colorScheme: scheme,
    javaScriptEnabled: script,
    reducedMotion: 'reduce',
    // Who signed a certificate is for other tests.
    ignoreHTTPSErrors: true,
  });
  context.setDefaultTimeout(PATIENCE);
  if (cookies.length > 0) await context.addCookies(cookies);
  return context.newPage();
}

/** Leaves a picture of the whole page in the output folder. */
export async function shot(page, name) {
  await page.screenshot({ path: output(`${name}.png`), fullPage: true, animations: 'disabled' });
}

/**
 * Listens to a page from now on. Call the answer for the list of what was wrong, each a line of text: errors on the
 * console, exceptions, violations of the content security policy, requests that failed, requests to any other host.
 */
export async function watch(page) {
  const heard = [];
  const documents = new Set();
  const hear = (what, document) => heard.push({ what: `${what} (on ${page.url()})`, document });
  const host = base().host;
  const foreign = (url) => {
    const { protocol, host: asked } = new URL(url);
    if (/^(https?|wss?):$/.test(protocol) && asked !== host) hear(`a request to another host: ${url}`);
  };

  page.on('console', (message) => {
    if (message.type() !== 'error') return;
    const { url } = message.location();
    // The status of a document is not the console's to judge: a wrong token has to be answered by some 4xx.
    const document = message.text().startsWith('Failed to load resource') ? url : undefined;
    hear(`the console: ${message.text()} ${url}`, document);
  });
  page.on('pageerror', (error) => hear(`an exception: ${error.message}`));
  page.on('request', (request) => {
    foreign(request.url());
    if (request.isNavigationRequest()) documents.add(request.url().replace(/#.*/, ''));
  });
  page.on('websocket', (socket) => foreign(socket.url()));
  page.on('requestfailed', (request) => {
    // Aborted is what a page loses that is left before all of it has arrived.
    const why = request.failure()?.errorText;
    if (why !== 'net::ERR_ABORTED') hear(`a request that failed: ${request.url()}: ${why}`);
  });
  // From the browser and not from an event in the page: it tells of pages without script, too.
  const devtools = await page.context().newCDPSession(page);
  devtools.on('Audits.issueAdded', ({ issue }) => {
    const violation = issue.details.contentSecurityPolicyIssueDetails;
    if (!violation) return;
    const place = violation.blockedURL ?? `line ${(violation.sourceCodeLocation?.lineNumber ?? -1) + 1}`;
    hear(`the content security policy: ${violation.violatedDirective}, ${place}`);
  });
  await devtools.send('Audits.enable');

  return () => heard.filter(({ document }) => !documents.has(document)).map(({ what }) => what);
}

/**
 * Goes to `path` with an empty cache and says what that transfers, in bytes with the headers: `total` and `parts`, the
 * document, the redirects before it and everything that it loads until the network is quiet.
 */
export async function weigh(page, path) {
  const parts = [];
  const urls = new Map();
  const devtools = await page.context().newCDPSession(page);
  devtools.on('Network.requestWillBeSent', ({ requestId, request, redirectResponse }) => {
    if (redirectResponse) parts.push({ url: redirectResponse.url, bytes: redirectResponse.encodedDataLength });
    urls.set(requestId, request.url);
  });
  devtools.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    const url = urls.get(requestId);
    // What is written in the page itself was counted with it.
    if (url && !url.startsWith('data:')) parts.push({ url, bytes: encodedDataLength });
  });
  await devtools.send('Network.enable');
  await devtools.send('Network.setCacheDisabled', { cacheDisabled: true });
  await page.goto(path, { waitUntil: 'networkidle' });
  await devtools.detach();
  return { total: parts.reduce((sum, { bytes }) => sum + bytes, 0), parts };
}

/** What axe-core finds wrong with the page as it stands: the rules of WCAG 2.2 A and AA, and good practice. */
export async function violations(page) {
  // A strict content security policy blocks a <script> element that we would add, as it should. What the browser's
  // debugger evaluates is no script of the page, so the policy says nothing about it: the page is judged as it was
  // delivered, its policy in force (a context with `bypassCSP` would be another page, and lose what a form answered).
  // axe-core waits with timers, which stand still in a page without script: open the page with script for it.
  if (!(await page.evaluate(() => 'axe' in globalThis))) {
    await page.evaluate(readFileSync(packages.resolve('axe-core/axe.min.js'), 'utf8'));
  }
  const found = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
      resultTypes: ['violations'],
    }),
  );
  return found.violations;
}

/** Fails if axe-core finds anything wrong with the page, and says what, where and why. */
export async function axe(page) {
  const found = await violations(page);
  const text = found.map(({ id, impact, help, nodes }) => {
    const places = nodes.map(({ target, html, failureSummary }) => {
      const why = failureSummary.replace(/\n\s*/g, ' ');
      return `    ${target.join(' ')}\n      ${html.slice(0, 200)}\n      ${why}`;
    });
    return `  ${id} (${impact}): ${help}\n${places.join('\n')}`;
  });
  assert.ok(found.length === 0, `axe-core on ${page.url()}:\n${text.join('\n')}`);
}

/** Fails if the page can be scrolled to the side, and names what is too wide. */
export async function fits(page) {
  const wide = await page.evaluate((width) => {
    const root = document.documentElement;
    if (root.clientWidth === width && root.scrollWidth <= width) return null;
    const all = [...document.querySelectorAll('body *')];
    const past = all.filter((one) => one.getBoundingClientRect().right > width + 0.5);
    const names = past.slice(0, 5).map((one) => one.outerHTML.slice(0, 120));
    return `laid out for ${root.clientWidth} and ${root.scrollWidth} pixels wide\n  ${names.join('\n  ')}`;
  }, page.viewportSize().width);
  assert.ok(wide === null, `${page.url()} does not fit ${page.viewportSize().width} pixels: ${wide}`);
}

/** Presses Tab until the element has the focus; fails if it never gets it. */
export async function tabTo(page, element, limit = 50) {
  const passed = [];
  await element.waitFor();
  for (let presses = 0; presses <= limit; presses += 1) {
    if (await element.evaluate((one) => one === document.activeElement)) return;
    await page.keyboard.press('Tab');
    passed.push(await page.evaluate(() => document.activeElement.outerHTML.slice(0, 100)));
  }
  assert.fail(`Tab does not reach ${element} on ${page.url()}; it went over\n  ${passed.join('\n  ')}`);
}

/** Fails if the element that has the focus does not look different for it: another outline or shadow, which is seen. */
export async function showsFocus(page, element) {
  const look = () =>
    element.evaluate((one) => {
      // A style that changes slowly is read as it will be.
      for (const change of one.getAnimations()) change.finish();
      const { outlineStyle, outlineWidth, outlineColor, boxShadow } = getComputedStyle(one);
      const unseen = outlineStyle === 'none' || parseFloat(outlineWidth) === 0 || /, 0\)$/.test(outlineColor);
      return { outline: unseen ? 'none' : `${outlineStyle} ${outlineWidth} ${outlineColor}`, boxShadow };
    });
  const said = JSON.stringify;
  const focused = await look();
  await element.evaluate((one) => one.blur());
  const plain = await look();
  await element.evaluate((one) => one.focus());
  const differs = (of) => focused[of] !== 'none' && focused[of] !== plain[of];
  assert.ok(
    differs('outline') || differs('boxShadow'),
    `${element} on ${page.url()} looks the same with the focus, ${said(focused)}, and without, ${said(plain)}`,
  );
}
