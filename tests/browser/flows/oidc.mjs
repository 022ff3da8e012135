// Signing in by an issuer: the button, the issuer's page on another host, and back, as browsers do it that take the
// content security policy at its word.
//
// Environment: BUTTON (words of the button), PERSON (as the page calls whoever has signed in). The issuer asks nothing.

import assert from 'node:assert/strict';

import { axe, setting, shot } from '../lib.mjs';

const SIGN_IN = '/explorer/sign-in';
const button = (page) => page.getByRole('button', { name: setting('BUTTON'), exact: true });
const signOut = (page) => page.locator('header form').getByRole('button', { name: 'Sign out', exact: true });

async function goesThereAndBack(page) {
  const hosts = new Set();
  page.on('request', (request) => hosts.add(new URL(request.url()).host));
  await page.goto(SIGN_IN);
  await button(page).click();
  await page.waitForURL((url) => url.pathname === '/explorer/');
  await page.getByText(setting('PERSON')).waitFor();
  assert.equal(hosts.size, 2, `the registry and the issuer: ${[...hosts]}`);
  const names = (await page.context().cookies()).map((cookie) => cookie.name);
  assert.deepEqual(names, ['__Host-berth-session']);
}

export default async function oidc(t) {
  await t.step('the page to sign in by has nothing to complain of', async () => {
    const page = await t.page();
    await page.goto(SIGN_IN);
    await button(page).waitFor();
    await axe(page);
    await shot(page, 'sign-in');
  });
  for (const script of [true, false]) {
    await t.step(`a person signs in by the issuer ${script ? 'with' : 'without'} script`, async () => {
      // It goes to another host, which a watched page must not.
      const page = await t.page({ script, watched: false });
      await goesThereAndBack(page);
      await signOut(page).click();
      await page.waitForURL((url) => url.pathname === SIGN_IN);
    });
  }
}
