// The one line above the message field that says why things are not as usual; nothing while they are.

import { byId, el } from '../dom.js';

/**
 * @param {import('../types.d.ts').State} state @param {import('../text.js').Speaker} t
 * @returns {{kind: 'wait' | 'trouble', text: string, action?: string} | null}
 */
export function statusOf(state, t) {
  const { phase, reason } = state.connection;
  if (phase === 'refused') return { kind: 'trouble', text: t('refused', { reason }), action: t('reconnect') };
  if (phase === 'offline') return { kind: 'trouble', text: t('offline') };
  if (phase === 'waiting') return { kind: 'trouble', text: t('reconnecting'), action: t('reconnect') };
  if (phase === 'connecting') return { kind: 'wait', text: t('connecting') };
  return state.server.ready ? null : { kind: 'wait', text: t('modelLoading', { reason: state.server.reason }) };
}

export class StatusView {
  /** @param {() => void} onReconnect */
  constructor(onReconnect) {
    this.line = byId('status', HTMLElement);
    this.notice = byId('notice', HTMLElement);
    this.onReconnect = onReconnect;
    this.shown = '';
  }

  /** @param {import('../types.d.ts').State} state @param {import('../text.js').Speaker} t */
  render(state, t) {
    const { notice } = state;
    const words = notice && (notice.text === 'raw' ? (notice.values.message ?? '') : t(notice.text, notice.values));
    this.notice.hidden = !words;
    this.notice.toggleAttribute('data-calm', notice?.calm ?? false);
    if (this.notice.textContent !== (words ?? '')) this.notice.textContent = words ?? '';

    const status = statusOf(state, t);
    const shown = JSON.stringify(status);
    if (shown === this.shown) return;
    this.shown = shown;
    this.line.hidden = status === null;
    if (status === null) return;
    this.line.dataset.kind = status.kind;
    this.line.replaceChildren(el('span', { class: 'spinner', 'aria-hidden': 'true' }), el('span', {}, status.text));
    if (status.action) {
      const button = el('button', { type: 'button', class: 'quiet' }, status.action);
      button.addEventListener('click', this.onReconnect);
      this.line.append(button);
    }
  }
}
