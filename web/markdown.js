// Streaming Markdown. marked only lexes; the nodes are made here, without HTML, so nothing needs sanitising.
//
//   text   ├── finished blocks, frozen: their nodes are never touched again ──┤── unstable tail, lexed anew ──┤
//
// Blocks are decided by whole lines, so a block is finished once a later one has begun on an earlier *whole*
// line. Left out on purpose: raw HTML (literal text), reference definitions (a late one would change frozen
// blocks), images (loading them would tell others what the model wrote), `~one tilde~` (10~20 is a range).

import { Lexer, Tokenizer, getDefaults } from './vendor/marked.js';
import { BlockList, isBlank } from './blocks.js';

/**
 * CommonMark closes `**강조(強調)**는` nowhere, because a letter follows the punctuation before the asterisks.
 * Korean particles always follow directly, so a pair around such text counts as strong.
 * @this {{lexer: {inlineTokens(text: string): import('./vendor/marked.js').Token[]}}} @param {string} source
 */
function koreanStrong(source) {
  const match = /^\*\*(?![\s*])([^*\n]*[\p{P}\p{S}])\*\*(?=[\p{L}\p{N}])/u.exec(source);
  const text = match?.[1];
  return text === undefined ? undefined : { type: 'strong', raw: match?.[0], text, tokens: this.lexer.inlineTokens(text) };
}

/** Where that may begin. @param {string} source */
function strongStart(source) {
  const at = source.indexOf('**');
  return at < 0 ? undefined : at;
}

/** Emphasis in a paragraph longer than this stays literal: marked's search for it is quadratic. UTF-16 units. */
const LONGEST_EMPHASISED = 3_000;

class Ours extends Tokenizer {
  html() {}
  tag() {}
  def() {}
  /** @param {string} source @param {string} paragraph @param {string} before */
  emStrong(source, paragraph, before) {
    return paragraph.length > LONGEST_EMPHASISED ? undefined : super.emStrong(source, paragraph, before);
  }

  /** @param {string} source @param {string} paragraph @param {string} before */
  del(source, paragraph, before) {
    return source.startsWith('~~') ? super.del(source, paragraph, before) : undefined;
  }
}

const OPTIONS = {
  ...getDefaults(), breaks: true, tokenizer: new Ours(), extensions: { inline: [koreanStrong], startInline: [strongStart] },
};

/**
 * Block tokens whose `raw` add up to the source.
 * @param {string} source @returns {import('./vendor/marked.js').Token[]}
 */
export function lex(source) {
  try {
    return new Lexer(OPTIONS).lex(source);
  } catch (error) {
    // Thousands of nested quotes exhaust the stack of marked: such a text is shown as it is.
    if (error instanceof RangeError) return [{ type: 'plain', raw: source }];
    throw error;
  }
}

export class MarkdownView {
  /** @param {HTMLElement} root where the blocks go; it must stay ours alone @param {import('./types.d.ts').MarkdownWords} words */
  constructor(root, words) {
    this.root = root;
    this.words = words;
    this.source = '';
    this.frozen = 0;
    this.seen = 0;
    this.blocks = new BlockList(root, words);
  }

  /** Show `source`; cheap if it continues what was shown before. @param {string} source */
  update(source) {
    // As marked does, so that the lengths of its tokens are those of our text.
    const text = source.replace(/\r\n?/g, '\n');
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

/** All tokens before the last block; a blank line ends nothing, a list may go on after it. @param {import('./vendor/marked.js').Token[]} tokens */
function finishedBlocks(tokens) {
  const last = tokens.findLastIndex((token) => !isBlank(token));
  return tokens.slice(0, Math.max(0, last));
}
