// The calls of an answer: folded, each with its name and its arguments as far as they are written. Loaded with the first.

import { el } from '../dom.js';
import { isLive } from '../answer.js';
import { setText } from '../view/message.js';
import { box } from './box.js';

/** @import { Call, MessageView } from '../types.d.ts' */

/** @param {HTMLElement} node @param {import('../text.js').Speaker} t @returns {MessageView} */
export function view(node, t) {
  /** @type {Map<string, {node: HTMLElement, update: (call: Call, live: boolean) => void}>} */
  const shown = new Map();
  return {
    node,
    update(entry) {
      if (entry.kind !== 'answer') return;
      for (const id of shown.keys()) if (!(id in entry.calls)) shown.get(id)?.node.remove();
      for (const [id, call] of Object.entries(entry.calls)) {
        const mine = shown.get(id) ?? callView(t);
        shown.set(id, mine);
        if (!mine.node.isConnected) node.append(mine.node);
        mine.update(call, isLive(entry) && call.status === 'in_progress');
      }
    },
    place() {},
  };
}

/** @param {import('../text.js').Speaker} t */
function callView(t) {
  const title = el('summary');
  const written = box(t('callArguments'), t);
  const node = el('details', { class: 'folded', 'data-call': '' }, title, written.node);
  return {
    node,
    /** @param {Call} call @param {boolean} live */
    update(call, live) {
      setText(title, t(live ? 'calling' : 'called', { name: call.name }));
      written.update(call.arguments, !live);
    },
  };
}
