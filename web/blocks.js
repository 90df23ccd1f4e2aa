// Markdown tokens → nodes. A list of blocks is patched in place: equal source keeps its node, a code block
// grows by appending to its text, lists, quotes and tables keep their finished parts.

import { el } from './dom.js';

/**
 * @import { Token } from './vendor/marked.js'
 * @import { MarkdownWords as Words } from './types.d.ts'
 *
 * @typedef {{type: string, node: Node, update?: (token: Token) => boolean}} Block
 *   `update` returns false if the node cannot follow the token
 */

/** Deeper nesting than this is shown as plain text: the source decides the depth, the stack pays. */
const DEEPEST = 24;

const SAFE_PROTOCOLS = new Set(['http:', 'https:', 'mailto:']);

export class BlockList {
  /** @param {HTMLElement} root @param {Words} words @param {number} [depth] */
  constructor(root, words, depth = 0) {
    this.root = root;
    this.words = words;
    this.depth = depth;
    /** @type {(Block & {raw: string})[]} */
    this.tail = [];
  }

  /** Show `tokens` and never touch them again. @param {Token[]} tokens */
  freeze(tokens) {
    const shown = visible(tokens);
    this.#patch(shown, shown.length);
    this.tail.splice(0, shown.length);
  }

  /** Show `tokens` after the frozen ones. @param {Token[]} tokens */
  patch(tokens) {
    const shown = visible(tokens);
    this.#patch(shown, Math.max(shown.length, this.tail.length));
  }

  /** @param {Token[]} tokens @param {number} count places to look at; those without a token are removed */
  #patch(tokens, count) {
    for (let index = count - 1; index >= tokens.length; index -= 1) remove(this.tail.pop());
    tokens.forEach((token, index) => this.#place(token, index));
  }

  /** @param {Token} token @param {number} index */
  #place(token, index) {
    const old = this.tail[index];
    if (old && old.type === token.type && (old.raw === token.raw || old.update?.(token))) {
      old.raw = token.raw;
      return;
    }
    const block = { ...makeBlock(token, this.words, this.depth), raw: token.raw };
    if (old) this.root.replaceChild(block.node, old.node);
    else this.root.appendChild(block.node);
    this.tail[index] = block;
  }
}

/** Whether a token is only space; marked makes some of them paragraphs. @param {Token} token */
export const isBlank = (token) => token.raw.trim() === '';

/** @param {Token[]} tokens */
const visible = (tokens) => tokens.filter((token) => !isBlank(token));

/** @param {Block | undefined} block */
const remove = (block) => block?.node.parentNode?.removeChild(block.node);

/** @param {Token} token @param {Words} words @param {number} depth @returns {Block} */
function makeBlock(token, words, depth) {
  const make = depth < DEEPEST ? BLOCKS[token.type] : undefined;
  const made = make ? make(token, words, depth) : { node: el('p', {}, token.raw) };
  return { type: token.type, ...made };
}

/** @type {Record<string, (token: Token, words: Words, depth: number) => {node: Node, update?: (token: Token) => boolean}>} */
const BLOCKS = {
  paragraph: (token) => ({ node: el('p', {}, ...line(token)) }),
  text: (token) => ({ node: el('span', {}, ...line(token)) }),
  heading: (token) => ({ node: el(HEADINGS[token.depth - 1] ?? 'h6', {}, ...inline(token.tokens)) }),
  hr: () => ({ node: el('hr') }),
  checkbox: (token) => ({ node: checkbox(token) }),
  code,
  blockquote,
  list,
  table,
};

/** The page has its own h1 and h2: headings of an answer are below them. */
const HEADINGS = /** @type {const} */ (['h3', 'h4', 'h5', 'h6', 'h6', 'h6']);

/** @param {Token} token @param {Words} words */
function code(token, words) {
  const language = /^[\w+#.-]{1,30}/.exec(token.lang ?? '')?.[0] ?? '';
  const text = document.createTextNode(token.text ?? '');
  const node = el('figure', { class: 'code' },
    el('figcaption', {}, el('span', { translate: 'no' }, language),
      el('button', { type: 'button', class: 'quiet', 'data-copy': 'code' }, words.copyCode)),
    el('pre', { tabindex: '0', translate: 'no' }, el('code', {}, text)));
  return {
    node,
    /** @param {Token} next */
    update(next) {
      if (next.lang !== token.lang) return false;
      const fresh = next.text ?? '';
      if (fresh.startsWith(text.data)) text.appendData(fresh.slice(text.data.length));
      else text.data = fresh;
      return true;
    },
  };
}

/** @param {Token} token @param {Words} words @param {number} depth */
function blockquote(token, words, depth) {
  const node = el('blockquote');
  const blocks = new BlockList(node, words, depth + 1);
  const update = (/** @type {Token} */ next) => {
    blocks.patch(next.tokens ?? []);
    return true;
  };
  update(token);
  return { node, update };
}

/** @param {Token} token @param {Words} words @param {number} depth */
function list(token, words, depth) {
  const node = token.ordered ? el('ol', { start: String(token.start) }) : el('ul');
  /** @type {{raw: string, item: HTMLElement, blocks: BlockList}[]} */
  const items = [];
  const update = (/** @type {Token} */ next) => {
    if (next.ordered !== token.ordered || next.start !== token.start || next.loose !== token.loose) return false;
    while (items.length > next.items.length) items.pop()?.item.remove();
    next.items.forEach((/** @type {Token} */ it, /** @type {number} */ index) => {
      items[index] ??= newItem(node, words, depth);
      const mine = /** @type {(typeof items)[number]} */ (items[index]);
      // Reading on can change how an earlier line is read only through its own source.
      if (mine.raw !== it.raw) mine.blocks.patch(it.tokens ?? []);
      mine.raw = it.raw;
    });
    return true;
  };
  update(token);
  return { node, update };
}

/** @param {HTMLElement} parent @param {Words} words @param {number} depth */
function newItem(parent, words, depth) {
  const item = el('li');
  parent.appendChild(item);
  return { raw: '', item, blocks: new BlockList(item, words, depth + 1) };
}

/** @param {Token} token @param {Words} words */
function table(token, words) {
  const body = el('tbody');
  const head = el('tr', {}, ...cells(token.header, 'th'));
  const node = el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': words.table },
    el('table', {}, el('thead', {}, head), body));
  const header = JSON.stringify([token.header, token.align]);
  /** @type {{source: string, row: HTMLElement}[]} */
  const rows = [];
  const update = (/** @type {Token} */ next) => {
    if (JSON.stringify([next.header, next.align]) !== header) return false;
    while (rows.length > next.rows.length) rows.pop()?.row.remove();
    next.rows.forEach((/** @type {Token[]} */ columns, /** @type {number} */ index) => {
      const source = JSON.stringify(columns.map((cell) => cell.text));
      if (rows[index]?.source === source) return;
      const row = el('tr', {}, ...cells(columns, 'td'));
      if (rows[index]) rows[index].row.replaceWith(row);
      else body.appendChild(row);
      rows[index] = { source, row };
    });
    return true;
  };
  update(token);
  return { node, update };
}

/** @param {Token[]} columns @param {'th' | 'td'} tag */
const cells = (columns, tag) =>
  columns.map((cell) => el(tag, cell.align ? { 'data-align': cell.align } : {}, ...inline(cell.tokens)));

/** @param {Token} token */
function checkbox(token) {
  return el('input', { type: 'checkbox', disabled: '', ...(token.checked ? { checked: '' } : {}) });
}

/** The content of a paragraph. marked sometimes leaves its line break at the end. @param {Token} token */
function line(token) {
  const content = token.tokens ? inline(token.tokens) : [unescapeText(token.text ?? '')];
  const last = content.at(-1);
  return typeof last === 'string' ? [...content.slice(0, -1), last.trimEnd()] : content;
}

/** @param {Token[] | undefined} tokens @param {number} [depth] @returns {(Node | string)[]} */
function inline(tokens, depth = 0) {
  return (tokens ?? []).map((token) => (depth < DEEPEST ? inlineNode(token, depth + 1) : token.raw));
}

/** @param {Token} token @param {number} depth @returns {Node | string} */
function inlineNode(token, depth) {
  switch (token.type) {
    case 'strong': case 'em': case 'del': return el(token.type, {}, ...inline(token.tokens, depth));
    case 'codespan': return el('code', { translate: 'no' }, token.text ?? '');
    case 'br': return el('br');
    case 'checkbox': return checkbox(token);
    case 'link': return link(token, inline(token.tokens, depth));
    case 'image': return link(token, [token.text || token.href]);
    case 'escape': return token.text ?? '';
    default: return token.tokens ? el('span', {}, ...inline(token.tokens, depth)) : unescapeText(token.text ?? token.raw);
  }
}

/** A link that leads to the web or to mail; anything else is its text. @param {Token} token @param {(Node | string)[]} content */
function link(token, content) {
  const href = unescapeText(token.href ?? '');
  if (!isSafe(href)) return el('span', {}, ...content);
  return el('a', { href, target: '_blank', rel: 'noopener noreferrer nofollow', title: href }, ...content);
}

/** @param {string} href */
export function isSafe(href) {
  // Absolute only: a relative link would lead into this server.
  return URL.canParse(href) && SAFE_PROTOCOLS.has(new URL(href).protocol);
}

/** @type {Record<string, string>} */
const NAMED = {
  amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', copy: '©', reg: '®', trade: '™', hellip: '…',
  ndash: '–', mdash: '—', lsquo: '‘', rsquo: '’', ldquo: '“', rdquo: '”', times: '×', divide: '÷', deg: '°',
  larr: '←', rarr: '→', le: '≤', ge: '≥', ne: '≠', euro: '€', middot: '·', bull: '•',
};

/** Character references, which CommonMark allows in text: the common names and all numbers. @param {string} text */
export function unescapeText(text) {
  return text.replace(/&(?:#x([0-9a-f]{1,6})|#([0-9]{1,7})|(\w{2,8}));/gi, (whole, hex, decimal, name) => {
    if (name) return NAMED[name] ?? whole;
    const point = hex ? parseInt(hex, 16) : parseInt(decimal, 10);
    return point > 0 && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff) ? String.fromCodePoint(point) : '\ufffd';
  });
}
