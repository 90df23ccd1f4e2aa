import assert from 'node:assert/strict';
import { test } from 'node:test';

import { installDocument } from './fake_dom.js';
import { randomly } from './random.js';

installDocument();
const { MarkdownView } = await import('../../web/markdown.js');
const { isSafe, unescapeText } = await import('../../web/blocks.js');

const WORDS = { copyCode: 'Copy', table: 'Table' };

const PIECES = [
  '# Title\n', '## Sub *title*\n\n', 'plain words ', '**bold** ', '*soft* and `code` ', '\n', '\n\n', '- item\n', '- [x] done\n',
  '  - nested\n', '1. first\n', '2. second\n', '10) odd\n', '> quoted\n', '> - in quote\n', '```js\nlet a = 1;\n', '```\n', '~~~\nx\n~~~\n',
  '    indented\n', '| a | b |\n|:--|--:|\n| 1 | 2 |\n', '| 3 | 4 |\n', '---\n', '===\n', '***\n', '#', '#hash ', '1', '-', '- ', '+ plus\n',
  '[link](https://example.org) ', '![pic](https://example.org/p.png) ', '[bad](javascript:x) ', '[ref]: https://example.org\n', '[ref] ',
  '<div>\n', '<b>raw</b> ', '&amp; &lt; &#x41; ', '\\* ', '10~20 30~40 ', '~~gone~~ ', '**강조(強調)**는 ', '안녕하세요 ', 'Tiếng Việt ',
  '  \n', '\t', '  continued\n', '\n    deep\n', '`', '**', '_', '|', '日本語。', 'https://example.org ', 'a@example.org\n', '\r\n', '\u00a0',
];

/** @param {(bound: number) => number} below */
function anyText(below) {
  const count = 1 + below(24);
  return Array.from({ length: count }, () => PIECES[below(PIECES.length)]).join('');
}

/** @param {string} text */
function shownAtOnce(text) {
  const root = /** @type {any} */ (document.createElement('div'));
  new MarkdownView(root, WORDS).update(text);
  return root.outline;
}

/** Show a text in chunks; check that what was frozen stays. @param {string} text @param {(bound: number) => number} below */
function shownInChunks(text, below) {
  const root = /** @type {any} */ (document.createElement('div'));
  const view = new MarkdownView(root, WORDS);
  /** @type {{node: any, outline: string}[]} */
  let frozen = [];
  for (let end = 0; end < text.length;) {
    end = Math.min(text.length, end + 1 + below(12));
    view.update(text.slice(0, end));
    frozen.forEach(({ node, outline }, index) => {
      assert.equal(root.childNodes[index], node, 'a frozen node was replaced');
      assert.equal(node.outline, outline, 'a frozen node was changed');
    });
    const count = root.childNodes.length - view.blocks.tail.length;
    frozen = root.childNodes.slice(0, count).map((/** @type {any} */ node) => ({ node, outline: node.outline }));
  }
  return root.outline;
}

test('any chunking gives the nodes of showing it at once, and frozen nodes stay', () => {
  for (let seed = 1; seed <= 3000; seed += 1) {
    const below = randomly(seed);
    const text = anyText(below);
    assert.equal(shownInChunks(text, below), shownAtOnce(text), `seed ${seed}: ${JSON.stringify(text)}`);
  }
});

test('freezing changes nothing: line by line gives the nodes of one lexing', () => {
  for (let seed = 5001; seed <= 6000; seed += 1) {
    const text = anyText(randomly(seed));
    const root = /** @type {any} */ (document.createElement('div'));
    const view = new MarkdownView(root, WORDS);
    for (const line of text.split(/(?<=\n)/)) view.update(view.source + line);
    assert.equal(root.outline, withoutFreezing(text), `seed ${seed}: ${JSON.stringify(text)}`);
  }
});

/** @param {string} text */
function withoutFreezing(text) {
  const root = /** @type {any} */ (document.createElement('div'));
  const view = new MarkdownView(root, WORDS);
  view.seen = Infinity;
  view.update(text);
  return root.outline;
}

test('an open fence grows by appending', () => {
  const root = /** @type {any} */ (document.createElement('div'));
  const view = new MarkdownView(root, WORDS);
  view.update('```py\na = 1\n');
  const figure = root.childNodes[0];
  view.update('```py\na = 1\nb = 2\n');
  view.update('```py\na = 1\nb = 2\n```\n');
  assert.equal(root.childNodes[0], figure);
  assert.match(figure.outline, /<code>a = 1\nb = 2<\/code>/);
});

test('finished list items and table rows keep their nodes', () => {
  for (const [start, more] of [['- one\n- two\n', '- three\n'], ['|a|\n|-|\n|1|\n', '|2|\n']]) {
    const root = /** @type {any} */ (document.createElement('div'));
    const view = new MarkdownView(root, WORDS);
    view.update(/** @type {string} */ (start));
    const first = firstLeaf(root);
    view.update(/** @type {string} */ (start) + more);
    assert.equal(firstLeaf(root), first);
  }
});

/** @param {any} node @returns {any} */
const firstLeaf = (node) => (node.childNodes?.length ? firstLeaf(node.childNodes[0]) : node);

test('a text that was healed is shown anew', () => {
  const root = /** @type {any} */ (document.createElement('div'));
  const view = new MarkdownView(root, WORDS);
  view.update('one\n\ntwo\n\nthree');
  view.update('one\n\nTWO\n\nthree\n');
  assert.equal(root.outline, shownAtOnce('one\n\nTWO\n\nthree\n'));
});

test('Korean emphasis, ranges, raw HTML and unsafe links read as meant', () => {
  assert.match(shownAtOnce('**강조(強調)**는'), /<strong>강조\(強調\)<\/strong>는/);
  assert.match(shownAtOnce('**강조**는'), /<strong>강조<\/strong>는/);
  assert.doesNotMatch(shownAtOnce('10~20, 30~40'), /<del>/);
  assert.match(shownAtOnce('~~x~~'), /<del>x<\/del>/);
  assert.match(shownAtOnce('<b>x</b>'), /<p><b>x<\/b><\/p>/);
  assert.doesNotMatch(shownAtOnce('[x](javascript:alert) [y](/v1/models) ![z](data:image/png,x)'), /<a /);
  assert.doesNotMatch(shownAtOnce('![z](https://example.org/z.png)'), /<img/);
});

test('only absolute web and mail addresses are links', () => {
  for (const href of ['https://example.org', 'http://example.org/x?y#z', 'mailto:a@example.org']) assert.ok(isSafe(href), href);
  for (const href of ['javascript:alert(1)', ' JaVaScRiPt:alert(1)', 'data:text/html,x', '//example.org', '/path', '#x', 'vbscript:x', 'blob:x', '']) {
    assert.ok(!isSafe(href), href);
  }
});

test('character references are read', () => {
  assert.equal(unescapeText('&amp;lt; &#65;&#x42; &copy; &nope; &#0; &#xd800; &'), '&lt; AB © &nope; \ufffd \ufffd &');
});

test('hostile nesting ends', () => {
  for (const text of ['> '.repeat(3000), '- '.repeat(3000), '*'.repeat(5000), '['.repeat(5000), '`'.repeat(5000) + 'x', '**a '.repeat(2000), '[a]('.repeat(2000)]) {
    const started = performance.now();
    shownAtOnce(text);
    assert.ok(performance.now() - started < 30_000, `${text.slice(0, 6)}… took ${performance.now() - started} ms`);
  }
});

test('a long answer costs little a frame', () => {
  const root = /** @type {any} */ (document.createElement('div'));
  const view = new MarkdownView(root, WORDS);
  let text = '';
  const costs = [];
  for (let index = 0; text.length < 32_000; index += 1) {
    text += index % 40 === 0 ? '\n\n## A heading\n\n' : index % 9 === 0 ? '\n- an item with `code` and **weight** ' : 'some more words of it ';
    const started = performance.now();
    view.update(text);
    costs.push(performance.now() - started);
  }
  const whole = Math.min(...[1, 2, 3].map(() => {
    const started = performance.now();
    new MarkdownView(/** @type {any} */ (document.createElement('div')), WORDS).update(text);
    return performance.now() - started;
  }));
  const usual = costs.sort((a, b) => a - b)[Math.floor(costs.length * 0.9)] ?? 0;
  assert.ok(usual < whole / 4, `nine of ten within ${usual} ms, all of it anew ${whole} ms`);
});
