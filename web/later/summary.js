// What the model wrote of messages that it is no longer sent. Loaded when a conversation has such a summary.

import { el } from '../dom.js';
import { setText } from '../view/message.js';

/** @param {HTMLElement} node @param {import('../text.js').Speaker} t @returns {import('../types.d.ts').MessageView} */
export function view(node, t) {
  const text = el('div', { class: 'thoughts', dir: 'auto' });
  node.setAttribute('aria-label', t('summary'));
  node.append(el('details', { class: 'folded' }, el('summary', {}, t('summary')), text));
  return {
    node,
    update(entry) {
      if (entry.kind === 'summary') setText(text, entry.text);
    },
    place() {},
  };
}
