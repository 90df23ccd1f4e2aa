import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

const WEB = new URL('../../web/', import.meta.url);
/** First load of scripts and styles, compressed: what index.html names, and the words of one language. Bytes. */
const BUDGET = 64 * 1024;
const MAX_LINES = 300;

const files = readdirSync(WEB, { recursive: true, withFileTypes: true })
  .filter((it) => it.isFile())
  .map((it) => `${it.parentPath}/${it.name}`.slice(WEB.pathname.length).replace(/^\/+/, ''));
/** Whether a file is no part of the first load: it is loaded when it is needed, or by the pages of the API. @param {string} file */
const isLater = (file) => /^(words|later|docs)\//.test(file);
const read = (/** @type {string} */ file) => readFileSync(new URL(file, WEB), 'utf8');
const ours = files.filter((it) => /\.(js|css|html)$/.test(it) && !it.startsWith('vendor/'));

test('vendored files are what the table says', () => {
  const rows = [...read('vendor/README.md').matchAll(/^\| `(\S+)` \|.*\| `([0-9a-f]{64})` \|$/gm)];
  const listed = rows.map((it) => it[1]);
  assert.deepEqual(files.filter((it) => /^vendor\/.*(?<!\.d)\.(js|css)$/.test(it)).map((it) => it.slice(7)), listed);
  for (const [, file, hash] of rows) {
    assert.equal(createHash('sha256').update(readFileSync(new URL(`vendor/${file}`, WEB))).digest('hex'), hash, file);
  }
});

test('the first load is small', () => {
  const size = (/** @type {string} */ it) => gzipSync(read(it)).length;
  const first = files.filter((it) => /(?<!\.d)\.(js|css)$/.test(it) && !isLater(it)).reduce((sum, it) => sum + size(it), 0);
  const words = Math.max(...files.filter((it) => it.startsWith('words/')).map(size));
  assert.ok(first + words <= BUDGET, `${first + words} bytes`);
});

test('index.html preloads every module, so that none waits for another', () => {
  const html = read('index.html');
  const preloaded = [...html.matchAll(/rel="modulepreload" href="([^"]+)"/g)].map((it) => it[1]);
  const modules = files.filter((it) => /(?<!\.d)\.js$/.test(it) && !['app.js', 'language.js'].includes(it) && !isLater(it)).sort();
  assert.deepEqual(preloaded, modules);
  for (const file of modules) assert.doesNotMatch(read(file), /^import .*(words|later)\//m, file);
});

test('nothing needs a looser content policy', () => {
  for (const file of ours) {
    const text = read(file);
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|setAttribute\('style/, file);
    if (file.endsWith('.html')) assert.doesNotMatch(text, /\sstyle=|\son\w+=|<style|javascript:|<script(?![^>]*src=)/, file);
    if (!file.endsWith('vendor/README.md')) assert.doesNotMatch(text, /https?:\/\/(?!www\.w3\.org\/2000\/svg)/, file);
  }
});

test('files are short', () => {
  for (const file of ours) assert.ok(read(file).split('\n').length <= MAX_LINES + 1, file);
});
