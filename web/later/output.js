// What a tool gave, or instructions: folded, as long as the model sees it. Loaded with the first.

import { el } from '../dom.js';
import { actsView, setText } from '../view/message.js';
import { box } from './box.js';

/** @param {HTMLElement} node @param {import('../text.js').Speaker} t @returns {import('../types.d.ts').MessageView} */
export function view(node, t) {
  const title = el('summary');
  const given = box('', t);
  const acts = actsView(t, ['fork', 'remove']);
  acts.show({ copy: false });
  node.append(el('details', { class: 'folded' }, title, given.node), acts.node);
  return {
    node,
    update(entry) {
      if (entry.kind !== 'output') return;
      const words = entry.name === null ? t('instructions') : entry.name ? t('outputOf', { name: entry.name }) : t('toolOutput');
      node.setAttribute('aria-label', words);
      setText(title, words);
      given.update(entry.text, true);
    },
    place(_, place) {
      acts.place(place);
    },
  };
}
