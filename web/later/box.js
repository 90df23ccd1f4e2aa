// A box of plain text that may be long: its beginning is shown, the rest on demand; copying takes all of it.

import { el } from '../dom.js';
import { grow } from '../view/message.js';
import { indented } from './json.js';

/** What is shown at first. UTF-16 units. */
export const SHOWN = 4_000;

/** @param {string} name what it holds @param {import('../text.js').Speaker} t */
export function box(name, t) {
  const beginning = el('span');
  const rest = el('span', { hidden: '' });
  const more = el('button', { type: 'button', class: 'quiet' });
  const node = el('figure', { class: 'code' },
    el('figcaption', {}, el('span', {}, name), el('button', { type: 'button', class: 'quiet', 'data-copy': 'code' }, t('copyAll'))),
    el('pre', { tabindex: '0', translate: 'no', dir: 'auto' }, el('code', {}, beginning, rest)), more);
  more.addEventListener('click', () => {
    rest.hidden = false;
    more.hidden = true;
    node.querySelector('pre')?.focus({ preventScroll: true });
  });
  return {
    node,
    /** @param {string} text @param {boolean} whole nothing will be added */
    update(text, whole) {
      const told = whole ? indented(text) : text;
      const at = cutAt(told);
      grow(beginning, told.slice(0, at));
      grow(rest, told.slice(at));
      more.hidden = at === told.length || !rest.hidden;
      if (!more.hidden) more.textContent = t('showAll', { n: t.number(told.length) });
    },
  };
}

/** Where the beginning ends: not within a pair of surrogates. @param {string} text */
export function cutAt(text) {
  if (text.length <= SHOWN) return text.length;
  return /[\uD800-\uDBFF]/.test(text[SHOWN - 1] ?? '') ? SHOWN - 1 : SHOWN;
}
