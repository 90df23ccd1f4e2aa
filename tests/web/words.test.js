import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

import { LANGUAGES, preferredLanguage, speaker, speakerOf } from '../../web/text.js';
import { WORDS } from '../../web/words/en.js';

const WEB = new URL('../../web/', import.meta.url);
const sources = readdirSync(WEB, { recursive: true, withFileTypes: true })
  .filter((it) => /\.(js|html)$/.test(it.name) && !/vendor|words/.test(it.parentPath))
  .map((it) => readFileSync(`${it.parentPath}/${it.name}`, 'utf8'));

/** @param {string} text */
const holes = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort().join();

test('every text exists in every language, with the same holes', async () => {
  const files = readdirSync(new URL('words/', WEB)).sort();
  assert.deepEqual(files, LANGUAGES.map(([code]) => `${code}.js`).sort());
  for (const [code] of LANGUAGES) {
    const other = (await import(`../../web/words/${code}.js`)).WORDS;
    assert.deepEqual(Object.keys(other), Object.keys(WORDS), code);
    for (const [key, text] of Object.entries(other)) {
      assert.ok(text.trim(), key);
      assert.equal(holes(text), holes(/** @type {Record<string, string>} */ (WORDS)[key] ?? ''), key);
    }
  }
});

test('every text that the page asks for exists, and every text is asked for', () => {
  const all = sources.join('\n');
  const asked = [...all.matchAll(/\bt\('(\w+)'|data-t(?:-label|-placeholder)?="(\w+)"/g)].map((it) => it[1] ?? it[2] ?? '');
  for (const key of asked) assert.ok(key in WORDS, key);
  const used = new Set(all.match(/\w+/g));
  assert.deepEqual(Object.keys(WORDS).filter((key) => !used.has(key)), []);
});

test('the language is the stored one, else the first that we speak', () => {
  assert.equal(preferredLanguage('vi', ['ko-KR']), 'vi');
  assert.equal(preferredLanguage(null, ['fr-FR', 'ko-KR', 'en']), 'ko');
  assert.equal(preferredLanguage('xx', ['fr']), 'en');
});

test('figures are readable', async () => {
  const t = await speaker('en');
  assert.equal(t.number(41.26), '41.3');
  assert.equal(t.number(12345.6), '12,346');
  assert.equal(t.duration(312.4), '312 ms');
  assert.equal(t.duration(2345), '2.3 s');
  assert.equal(t('cachedTokens', { n: 5, share: t.percent(0.98) }), '5 cached (98 %)');
  assert.throws(() => t('nonsense'));
  assert.throws(() => speakerOf('en', {})('send'));
});
