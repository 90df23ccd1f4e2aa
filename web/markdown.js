// Streaming Markdown. marked only lexes; the nodes are made here, without HTML, so nothing needs sanitising.
//
//   text   ├── finished blocks, frozen: their nodes are never touched again ──┤── unstable tail, lexed anew ──┤
//
// Blocks are decided by whole lines, so a block is finished once a later one has begun on an earlier *whole*
// line. Left out on purpose: raw HTML (literal text), reference definitions (a late one would change frozen
// blocks), images (loading them would tell others what the model wrote), `~one tilde~` (10~20 is a range).

import { Marked } from './vendor/marked.js';
import { BlockList } from './blocks.js';

const NOTHING = () => undefined;

/**
 * CommonMark closes `**강조(强調)**는` nowhere, because a letter follows the punctuation before the asterisks.
 * Korean particles always follow directly, so a pair around such text counts as strong.
 */
const koreanStrong = {
  name: 'strong',
  level: 'inline',
  start: (/** @type {string} */ source) => {
    const at = source.indexOf('**');
    return at < 0 ? undefined : at;
  },
  tokenizer(/** @type {string} */ source) {
    const match = /^\*\*(?![\s*])([^*\n]*[\p{P}\p{S}])\*\*(?=[\p{L}\p{N}])/u.exec(source);
    if (!match) return undefined;
    const text = /** @type {string} */ (match[1]);
    // @ts-expect-error marked binds `this` to its lexer
    return { type: 'strong', raw: match[0], text, tokens: this.lexer.inlineTokens(text) };
  },
};

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [koreanStrong],
  tokenizer: {
    html: NOTHING,
    tag: NOTHING,
    def: NOTHING,
    /** @param {string} source */
    del(source) {
      return source.startsWith('~~') ? false : undefined;
    },
  },
});

/** @param {string} source @returns {import('./vendor/marked.js').Token[]} block tokens whose `raw` add up to the source */
export const lex = (source) => marked.lexer(source);

export class MarkdownView {
  /** @param {HTMLElement} root where the blocks go; it must stay ours alone @param {import('./blocks.js').Words} words */
  constructor(root, words) {
    this.root = root;
    this.words = words;
    this.source = '';
    this.frozen = 0;
    this.seen = 0;
    this.blocks = new BlockList(root, words);
  }

  /** Show `text`; cheap if it continues what was shown before. @param {string} text */
  update(text) {
    if (text === this.source) return;
    if (!text.startsWith(this.source)) this.#restart();
    this.source = text;
    this.#freeze(text.lastIndexOf('\n') + 1);
    this.blocks.patch(lex(text.slice(this.frozen)));
  }

  #restart() {
    this.root.replaceChildren();
    this.frozen = 0;
    this.seen = 0;
    this.blocks = new BlockList(this.root, this.words);
  }

  /** Freeze what is finished in the whole lines, which end at `end`. @param {number} end */
  #freeze(end) {
    if (end <= this.seen) return;
    this.seen = end;
    const finished = finishedBlocks(lex(this.source.slice(this.frozen, end)));
    if (finished.length === 0) return;
    this.blocks.freeze(finished);
    this.frozen += finished.reduce((length, token) => length + token.raw.length, 0);
  }
}

/** All tokens before the last block. @param {import('./vendor/marked.js').Token[]} tokens */
function finishedBlocks(tokens) {
  const last = tokens.findLastIndex((token) => token.type !== 'space');
  return tokens.slice(0, Math.max(0, last));
}
