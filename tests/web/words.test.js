import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

import { LANGUAGES, TABLE, preferredLanguage, speaker } from '../../web/text.js';
import { titleFrom } from '../../web/title.js';

const WEB = new URL('../../web/', import.meta.url);
const sources = readdirSync(WEB, { recursive: true, withFileTypes: true })
  .filter((it) => /\.(js|html)$/.test(it.name) && !it.parentPath.includes('vendor'))
  .map((it) => readFileSync(`${it.parentPath}/${it.name}`, 'utf8'));

/** @param {string} text */
const holes = (text) => [...text.matchAll(/\{\w+\}/g)].map(String).sort().join();

test('every text exists in every language, with the same holes', () => {
  for (const [key, row] of Object.entries(TABLE)) {
    assert.equal(row.length, LANGUAGES.length, key);
    for (const text of row) {
      assert.ok(text.trim(), key);
      assert.equal(holes(text), holes(row[0]), key);
    }
  }
});

test('every text that the page asks for exists, and every text is asked for', () => {
  const all = sources.join('\n');
  const asked = [...all.matchAll(/\bt\('(\w+)'|data-t(?:-label|-placeholder)?="(\w+)"/g)].map((it) => it[1] ?? it[2] ?? '');
  for (const key of asked) assert.ok(key in TABLE, key);
  const used = new Set(all.replace(sources.find((it) => it.includes('export const TABLE')) ?? '', '').match(/\w+/g));
  assert.deepEqual(Object.keys(TABLE).filter((key) => !used.has(key)), []);
});

test('the language is the stored one, else the first that we speak', () => {
  assert.equal(preferredLanguage('vi', ['ko-KR']), 'vi');
  assert.equal(preferredLanguage(null, ['fr-FR', 'ko-KR', 'en']), 'ko');
  assert.equal(preferredLanguage('xx', ['fr']), 'en');
});

test('figures are readable', () => {
  const t = speaker('en');
  assert.equal(t.number(41.26), '41.3');
  assert.equal(t.number(12345.6), '12,346');
  assert.equal(t.duration(312.4), '312 ms');
  assert.equal(t.duration(2345), '2.3 s');
  assert.equal(t('cachedTokens', { n: 5, share: t.percent(0.98) }), '5 cached (98 %)');
  assert.throws(() => t('nonsense'));
});

test('a title is the first line, cut between characters', () => {
  assert.equal(titleFrom('\n  Hello \nthere'), 'Hello');
  assert.equal([...new Intl.Segmenter().segment(titleFrom('가'.normalize('NFD').repeat(100)))].length, 60);
  assert.ok(titleFrom('👩‍👩‍👧'.repeat(80)).endsWith('👩‍👩‍👧…'));
});
