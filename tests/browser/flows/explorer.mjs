// The explorer as a person meets it: looking around, signing in, finding an image, leaving again.
//
// Environment: TOKEN (a token that may read REPOSITORY), REPOSITORY (`team/app`; not readable without a token),
// TAG (a tag of it), SECTIONS (optional, `Layers,History`: the sections that the tag's page has, in any order).
// What must hold on every page: it works with and without script, with a keyboard, in light and dark, on a phone;
// axe-core finds nothing; nothing is loaded from elsewhere and nothing is on the console, which the runner sees to.

import assert from 'node:assert/strict';

import { axe, fits, setting, shot, showsFocus, tabTo, weigh } from '../lib.mjs';

const LIST = '/explorer/';
const SIGN_IN = '/explorer/sign-in';
const NOWHERE = 'no-repository-is-called-so';
const SECTIONS = 'Commands Platforms Layers Configuration History Annotations Referrers Manifest'.split(' ');
const FIRST_PAGE_LIMIT = 100 * 1024;

const token = setting('TOKEN');
const repository = setting('REPOSITORY');
const tag = setting('TAG');
const repositoryPath = `/explorer/r/${repository}`;
const tagPath = `${repositoryPath}/-/tags/${tag}`;

// A word about it may follow the name.
const named = (name) => new RegExp(`^${name.replace(/[^\w]/g, '\\$&')}( |$)`);
const heading = (page, name) => page.getByRole('heading', { level: 1, name: named(name) }).waitFor();
const search = (page) => page.locator('input[name=q]');
const row = (page) => page.locator(`table a[href="${repositoryPath}"]`);
const tagRow = (page) => page.locator(`table a[href="${tagPath}"]`);
const signIn = (page) => page.locator('header').getByRole('link', { name: 'Sign in', exact: true });
const signOut = (page) => page.locator('header form').getByRole('button', { name: 'Sign out', exact: true });
const pathOf = (page) => new URL(page.url()).pathname;

async function rootLeadsToTheList(page) {
  const answer = await page.goto('/');
  const hops = [];
  for (let hop = answer.request(); hop; hop = hop.redirectedFrom()) hops.unshift(new URL(hop.url()).pathname);
  // Where nothing is public, the list leads on to the form.
  assert.deepEqual(hops.slice(0, 2), ['/', LIST]);
  assert.equal(answer.status(), 200);
}

async function isSignedOut(page) {
  const answer = await page.goto(LIST);
  assert.equal(answer.status(), 200);
  assert.ok([LIST, SIGN_IN].includes(pathOf(page)), `the list leads to ${page.url()}`);
  await signIn(page).waitFor();
  assert.equal(await signOut(page).count(), 0, 'nobody is signed in, and there is "Sign out"');
  assert.equal(await row(page).count(), 0, `${repository} is in the list`);
}

async function seesNothingPrivate(page) {
  await isSignedOut(page);
  await page.goto(`${LIST}?q=${encodeURIComponent(repository)}`);
  assert.equal(await row(page).count(), 0, `${repository} is found`);
  for (const path of [repositoryPath, tagPath]) {
    await page.goto(path);
    assert.equal(await page.locator('h1', { hasText: repository }).count(), 0, `${path} is shown`);
    assert.equal(await tagRow(page).count(), 0, `${path} shows the tag`);
  }
}

async function give(page, value) {
  await page.locator('input[name=token]').fill(value);
  await page.locator('form:has(input[name=token]) :is(button:not([type=button]), input[type=submit])').click();
}

async function aWrongTokenIsRefused(page) {
  await page.goto(LIST);
  await heading(page, pathOf(page) === LIST ? 'Repositories' : 'Sign in');
  await signIn(page).click();
  await page.waitForURL((url) => url.pathname === SIGN_IN);
  await give(page, `${token}x`);
  const alert = page.getByRole('alert');
  await alert.waitFor();
  assert.notEqual((await alert.innerText()).trim(), '', 'the alert says something');
  assert.ok(!(await page.content()).includes(token), 'the page repeats the token');
  await isSignedOut(page);
}

async function signsIn(page) {
  await page.goto(SIGN_IN);
  await give(page, token);
  await signOut(page).waitFor();
  assert.ok(!page.url().includes(token), 'the token is in the address');
  await page.goto(LIST);
  await heading(page, 'Repositories');
  await row(page).waitFor();
  assert.equal(await signIn(page).count(), 0, 'somebody is signed in, and there is "Sign in"');
  assert.ok(!(await page.content()).includes(token), 'the page repeats the token');
  for (const cookie of await page.context().cookies()) {
    assert.ok(cookie.httpOnly, `scripts may read the cookie ${cookie.name}`);
    assert.notEqual(cookie.sameSite, 'None', `the cookie ${cookie.name} goes with requests from other sites`);
  }
}

// Sends the form. A script may have shown what is found before: what counts is the page that comes.
async function sends(page, text) {
  const arrival = page.waitForEvent('domcontentloaded');
  await page.keyboard.press('Enter');
  await arrival;
  assert.equal(new URL(page.url()).searchParams.get('q'), text);
}

async function searches(page) {
  await page.goto(LIST);
  await row(page).waitFor();
  await search(page).fill(NOWHERE);
  await sends(page, NOWHERE);
  assert.equal(await row(page).count(), 0, `${repository} is found by ${NOWHERE}`);
  await search(page).fill(repository);
  await sends(page, repository);
  await row(page).waitFor();
}

async function searchesWhileOneTypes(page) {
  await page.goto(LIST);
  await row(page).waitFor();
  await search(page).pressSequentially(NOWHERE);
  await row(page).waitFor({ state: 'detached' });
  await search(page).fill('');
  await search(page).pressSequentially(repository);
  await row(page).waitFor();
}

async function opensTheRepository(page) {
  await page.goto(LIST);
  await row(page).click();
  await heading(page, repository);
  assert.equal(pathOf(page), repositoryPath);
}

async function opensTheTag(page) {
  await page.goto(repositoryPath);
  await tagRow(page).click();
  await heading(page, `${repository}:${tag}`);
  assert.equal(pathOf(page), tagPath);
  const sections = (await page.locator('section h2').allInnerTexts()).map((one) => one.trim());
  const unknown = sections.filter((one) => !SECTIONS.includes(one));
  assert.deepEqual(unknown, [], 'sections that nobody knows');
  assert.ok(sections.length > 0, 'the tag has no sections');
  const { SECTIONS: expected } = process.env;
  if (expected) assert.deepEqual(sections.toSorted(), expected.split(',').toSorted());
}

async function signsOut(page) {
  await page.goto(tagPath);
  await signOut(page).click();
  await signIn(page).waitFor();
  await seesNothingPrivate(page);
}

// Goes to every page that there is, and calls `look` on each with its name.
async function everyPage(stranger, person, look) {
  const visit = async (page, name, path) => {
    await page.goto(path);
    await page.locator('h1').waitFor();
    await look(page, name);
  };
  await visit(stranger, 'signed-out', LIST);
  await visit(stranger, 'not-shown', repositoryPath);
  await visit(stranger, 'sign-in', SIGN_IN);
  await give(stranger, `${token}x`);
  await stranger.getByRole('alert').waitFor();
  await look(stranger, 'wrong-token');
  await visit(person, 'list', LIST);
  await visit(person, 'nothing-found', `${LIST}?q=${NOWHERE}`);
  await visit(person, 'repository', repositoryPath);
  await visit(person, 'tag', tagPath);
}

// Another character in the same place, of those that every encoding of cookies knows.
function altered(value, at) {
  return value.slice(0, at) + (value[at] === 'A' ? 'B' : 'A') + value.slice(at + 1);
}

export default async function explorer(t) {
  const person = await t.page();

  await t.step('the root leads to the list of repositories', () => rootLeadsToTheList(person));
  await t.step('who is signed out does not see a private repository', () => seesNothingPrivate(person));
  await t.step('a wrong token is refused with an alert', () => aWrongTokenIsRefused(person));
  await t.step('a token signs in', () => signsIn(person));
  const cookies = await person.context().cookies();
  await t.step('the search finds a repository', () => searches(person));
  await t.step('the list follows what one types', () => searchesWhileOneTypes(person));
  await t.step('the list opens the repository', () => opensTheRepository(person));
  await t.step('the repository opens the tag', () => opensTheTag(person));

  await t.step('a keyboard is enough', async () => {
    await person.goto(LIST);
    await tabTo(person, search(person));
    await showsFocus(person, search(person));
    await person.keyboard.type(repository);
    await sends(person, repository);
    await row(person).waitFor();
    await person.goto(LIST);
    const first = person.locator('table a[href^="/explorer/r/"]').first();
    await tabTo(person, first);
    await showsFocus(person, first);
    await tabTo(person, row(person));
    await person.keyboard.press('Enter');
    await heading(person, repository);
    await tabTo(person, tagRow(person));
    await showsFocus(person, tagRow(person));
    await person.keyboard.press('Enter');
    await heading(person, `${repository}:${tag}`);
  });

  for (const size of ['desktop', 'phone']) {
    await t.step(`every page is good to see, in light and dark: ${size}`, async () => {
      const stranger = await t.page({ size });
      const reader = await t.page({ size, cookies });
      await everyPage(stranger, reader, async (page, name) => {
        for (const scheme of ['light', 'dark']) {
          await page.emulateMedia({ colorScheme: scheme });
          // The picture first: it brings colours that change slowly to their end.
          await shot(page, `${name}-${size}-${scheme}`);
          await axe(page);
        }
        await fits(page);
      });
    });
  }

  await t.step('the first page is small', async () => {
    for (const [who, look] of Object.entries({ 'signed out': {}, 'signed in': { cookies } })) {
      const { total, parts } = await weigh(await t.page(look), '/');
      t.note(`bytes of the first page, ${who}`, total);
      const list = parts.map(({ url, bytes }) => `${bytes} ${url}`).join('\n  ');
      assert.ok(total > 0 && total <= FIRST_PAGE_LIMIT, `${total} bytes:\n  ${list}`);
    }
  });

  await t.step('a session that was altered is none', async () => {
    const sessions = [];
    for (const cookie of cookies) {
      // A session is what nobody is signed in without; a form may have left other cookies.
      const others = cookies.filter((one) => one !== cookie);
      const page = await t.page({ cookies: others });
      await page.goto(LIST);
      if ((await signOut(page).count()) > 0) continue;
      sessions.push(cookie.name);
      // Not the last character: it may hold bits that mean nothing.
      for (const at of [0, Math.floor(cookie.value.length / 2), cookie.value.length - 2]) {
        const forged = await t.page({ cookies: [...others, { ...cookie, value: altered(cookie.value, at) }] });
        await isSignedOut(forged);
      }
    }
    assert.ok(sessions.length > 0, 'no cookie is the session');
  });

  await t.step('signing out ends it', () => signsOut(person));

  const plain = await t.page({ script: false });
  await t.step('without script: the root leads to the list of repositories', () => rootLeadsToTheList(plain));
  await t.step('without script: who is signed out sees nothing private', () => seesNothingPrivate(plain));
  await t.step('without script: a wrong token is refused with an alert', () => aWrongTokenIsRefused(plain));
  await t.step('without script: a token signs in', () => signsIn(plain));
  await t.step('without script: the search finds a repository', () => searches(plain));
  await t.step('without script: the list opens the repository', () => opensTheRepository(plain));
  await t.step('without script: the repository opens the tag', () => opensTheTag(plain));
  await t.step('without script: every page is shown', async () => {
    const stranger = await t.page({ script: false });
    await everyPage(stranger, plain, (page, name) => shot(page, `${name}-without-script`));
  });
  await t.step('without script: signing out ends it', () => signsOut(plain));
}
