// The explorer for somebody who may do everything: where an image comes from, what is inside, what it costs, and how it
// goes and comes back.
//
// Environment: TOKEN (may pull, push and delete REPOSITORY), REPOSITORY (with the tags v1 and v2, indexes with provenance
// and a bill of materials that differ, whose images have a layer with etc/motd), BUILD (the id of v1's build), REVOKE (the
// address of the token in the admin API) and ADMIN (its key).
// What must hold on every page: as in explorer.mjs.

import assert from 'node:assert/strict';

import { axe, fits, setting, shot } from '../lib.mjs';

const token = setting('TOKEN');
const repository = setting('REPOSITORY');
const build = setting('BUILD');
const at = `/explorer/r/${repository}`;
const part = (text) => `${at}/-/${text}`;

const heading = (page, text) => page.getByRole('heading', { level: 1, name: text }).waitFor();
const pathOf = (page) => new URL(page.url()).pathname;

async function signsIn(page) {
  await page.goto('/explorer/sign-in');
  await page.locator('input[name=token]').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: 'Sign out' }).waitFor();
}

async function readsWhereItComesFrom(page) {
  await page.goto(part('tags/v1'));
  const provenance = page.locator('section', { has: page.getByRole('heading', { name: 'Provenance', exact: true }) });
  await provenance.getByRole('link', { name: 'https://git.test/a/b.git' }).waitFor();
  assert.match(await provenance.innerText(), /c0ffee42/);
  await page.getByRole('link', { name: 'What it is made of' }).click();
  await heading(page, /Packages/);
  await page.locator('input[name=q]').fill('zlib');
  await page.keyboard.press('Enter');
  await page.getByText('1 packages').waitFor();
}

async function looksIntoALayer(page) {
  await page.goto(part('tags/v1'));
  await page.getByRole('link', { name: /^sha256:/ }).first().click();
  await heading(page, `${repository}@`);
  await page.locator('section:has(#layers) table a').first().click();
  await heading(page, 'Files of a layer');
  await page.getByRole('link', { name: 'etc/' }).click();
  await page.getByText('motd').waitFor();
}

async function compares(page) {
  await page.goto(part('tags/v1'));
  await page.getByRole('link', { name: 'Compare' }).click();
  await page.locator('input[name=to]').fill('v2');
  await page.getByRole('button', { name: 'Compare' }).click();
  await page.getByRole('heading', { name: 'Packages', exact: true }).waitFor();
  assert.match(await page.locator('main').innerText(), /zlib/);
}

async function findsTheBuild(page) {
  await page.goto('/explorer/');
  await page.getByRole('link', { name: 'Find by build' }).click();
  await page.locator('input[name=q]').fill(build);
  await page.getByRole('button', { name: 'Find' }).click();
  await page.getByRole('link', { name: 'v1', exact: true }).waitFor();
}

async function tagsDeletesAndRestores(page) {
  // 1. A further tag.
  await page.goto(part('tags/v2'));
  await page.getByText('Add a tag').click();
  await page.locator('input[name=tag]').fill('stable');
  await page.getByRole('button', { name: 'Add' }).click();
  await heading(page, `${repository}:stable`);
  // 2. It goes, after a look at what goes with it.
  await page.getByRole('link', { name: 'Delete the tag' }).click();
  await heading(page, `Delete ${repository}:stable?`);
  assert.match(await page.locator('main').innerText(), /the manifest stays/);
  await page.getByRole('button', { name: 'Delete' }).click();
  await heading(page, `History of ${repository}:stable`);
  assert.match(await page.locator('table').innerText(), /deleted/);
  // 3. It comes back.
  await page.getByRole('link', { name: 'Deleted tags' }).click();
  await page.getByRole('button', { name: 'Restore stable' }).click();
  await heading(page, `${repository}:stable`);
  await page.goto(part('delete/tags/stable'));
  await page.getByRole('button', { name: 'Delete' }).click();
  await heading(page, `History of ${repository}:stable`);
}

// Every page with its name, in an order in which it exists.
async function everyPage(page, look) {
  const layer = async () => {
    await page.goto(part('tags/v1'));
    await page.getByRole('link', { name: /^sha256:/ }).first().click();
    return page.locator('section:has(#layers) table a').first().getAttribute('href');
  };
  const packages = async () => {
    await page.goto(part('tags/v1'));
    return page.getByRole('link', { name: 'What it is made of' }).getAttribute('href');
  };
  const pages = {
    'by-size': '/explorer/?sort=size',
    repository: at,
    image: part('tags/v1'),
    files: `${await layer()}?path=etc`,
    packages: await packages(),
    difference: part('difference?from=v1&to=v2'),
    choose: part('difference'),
    history: part('history/v1'),
    retention: part('retention/v1'),
    deleted: part('deleted'),
    delete: part('delete/tags/v1'),
    builds: `/explorer/builds?q=${build}`,
    usage: '/explorer/usage',
  };
  for (const [name, path] of Object.entries(pages)) {
    const answer = await page.goto(path);
    assert.equal(answer.status(), 200, path);
    await page.locator('h1').waitFor();
    await look(name);
  }
}

export default async function manage(t) {
  const person = await t.page();
  await t.step('a token signs in', () => signsIn(person));
  const cookies = await person.context().cookies();
  await t.step('provenance and packages are read', () => readsWhereItComesFrom(person));
  await t.step('the files of a layer are seen', () => looksIntoALayer(person));
  await t.step('two tags are compared', () => compares(person));
  await t.step('an image is found by its build', () => findsTheBuild(person));
  await t.step('a tag is added, deleted and restored', () => tagsDeletesAndRestores(person));

  for (const size of ['desktop', 'phone']) {
    await t.step(`every page is good to see, in light and dark: ${size}`, async () => {
      const page = await t.page({ size, cookies });
      await everyPage(page, async (name) => {
        for (const scheme of ['light', 'dark']) {
          await page.emulateMedia({ colorScheme: scheme });
          await shot(page, `${name}-${size}-${scheme}`);
          await axe(page);
        }
        await fits(page);
      });
    });
  }

  const plain = await t.page({ script: false });
  await t.step('without script: a token signs in', () => signsIn(plain));
  await t.step('without script: provenance and packages are read', () => readsWhereItComesFrom(plain));
  await t.step('without script: two tags are compared', () => compares(plain));
  await t.step('without script: a tag is added, deleted and restored', () => tagsDeletesAndRestores(plain));

  await t.step('a session whose token has ended is over', async () => {
    const ended = await fetch(setting('REVOKE'), { method: 'DELETE', headers: { authorization: `Bearer ${setting('ADMIN')}` } });
    assert.ok(ended.ok, `${ended.status}`);
    await person.waitForFunction(
      async (path) => new URL((await fetch(path)).url).pathname === '/explorer/sign-in', at, { polling: 200 },
    );
    await person.goto(at);
    assert.equal(pathOf(person), '/explorer/sign-in');
  });
}
