// The transcript: one element an entry, kept by key; copying; the spoken summary of what happens.

import { isLive, textOf } from '../answer.js';
import { byId } from '../dom.js';
import { messageView } from './message.js';

/**
 * @import { Entry, MessageView, State, Transcript, TranscriptListener } from '../types.d.ts'
 * @import { Speaker } from '../text.js'
 */

export class TranscriptView {
  /** @param {TranscriptListener} listener */
  constructor(listener) {
    this.listener = listener;
    this.root = byId('transcript', HTMLElement);
    this.empty = byId('empty', HTMLElement);
    this.note = byId('transcript-note', HTMLElement);
    this.earlier = byId('earlier', HTMLButtonElement);
    this.announcer = byId('announcer', HTMLElement);
    /** @type {Map<string, {entry: Entry, view: MessageView}>} */
    this.shown = new Map();
    /** @type {string | null | undefined} */
    this.open = undefined;
    this.language = '';
    this.watcher = new IntersectionObserver((changes) => this.#seen(changes));
    this.root.addEventListener('click', (event) => this.#clicked(event));
    this.earlier.addEventListener('click', () => listener.onEarlier());
    this.note.addEventListener('click', (event) => event.target instanceof HTMLButtonElement && listener.onRetry());
  }

  /** @param {State} state @param {Speaker} t @returns {boolean} whether another conversation is shown now */
  render(state, t) {
    const transcript = state.open === null ? undefined : state.transcripts[state.open];
    const entries = transcript?.entries ?? [];
    const switched = this.open !== state.open && !entries.some((entry) => this.shown.has(entry.key));
    if (switched || this.language !== t.language) this.#clear();
    this.open = state.open;
    this.language = t.language;
    this.#reconcile(entries, t);
    this.#frame(state.open !== null && transcript ? transcript : null, t);
    return switched;
  }

  /** @param {Transcript | null} transcript @param {Speaker} t */
  #frame(transcript, t) {
    const none = !transcript?.entries.length;
    this.empty.hidden = !none || (transcript !== null && transcript.phase !== 'ready');
    this.earlier.hidden = !transcript?.more;
    this.note.hidden = !none || transcript === null || transcript.phase === 'ready';
    if (this.note.hidden || this.note.dataset.phase === transcript?.phase) return;
    this.note.dataset.phase = transcript?.phase ?? '';
    this.note.textContent = transcript?.phase === 'loading' ? t('loading') : '';
    if (transcript?.phase !== 'failed') return;
    const retry = document.createElement('button');
    retry.className = 'button';
    retry.textContent = t('retry');
    this.note.replaceChildren(retry);
  }

  /** @param {readonly Entry[]} entries @param {Speaker} t */
  #reconcile(entries, t) {
    const keys = new Set(entries.map(({ key }) => key));
    for (const [key, { view }] of this.shown) if (!keys.has(key)) this.#remove(key, view.node);
    /** @type {Element | null} */
    let place = this.root.firstElementChild;
    for (const entry of entries) {
      const node = this.#show(entry, t);
      if (node === place) place = place.nextElementSibling;
      else this.root.insertBefore(node, place);
    }
  }

  /** @param {Entry} entry @param {Speaker} t @returns {HTMLElement} */
  #show(entry, t) {
    const old = this.shown.get(entry.key);
    if (!old || old.entry.kind !== entry.kind) {
      if (old) this.#remove(entry.key, old.view.node);
      const view = messageView(entry, t);
      this.shown.set(entry.key, { entry, view });
      this.watcher.observe(view.node);
      return view.node;
    }
    if (old.entry !== entry) {
      old.view.update(entry);
      this.#announce(old.entry, entry, t);
      old.entry = entry;
    }
    return old.view.node;
  }

  /** @param {Entry} before @param {Entry} after @param {Speaker} t */
  #announce(before, after, t) {
    if (before.kind !== 'answer' || after.kind !== 'answer' || before.phase === after.phase) return;
    const words = { completed: 'answered', answering: 'answering', stopped: 'stopped', failed: 'failed', incomplete: 'cutShort', queued: 'queued' };
    const key = words[/** @type {keyof typeof words} */ (after.phase)];
    if (key) this.announcer.textContent = t(key);
  }

  /** @param {string} key @param {HTMLElement} node */
  #remove(key, node) {
    this.watcher.unobserve(node);
    node.remove();
    this.shown.delete(key);
  }

  #clear() {
    for (const [key, { view }] of this.shown) this.#remove(key, view.node);
    this.announcer.textContent = '';
    delete this.note.dataset.phase;
  }

  /** @param {IntersectionObserverEntry[]} changes */
  #seen(changes) {
    for (const { isIntersecting, target } of changes) {
      const key = target instanceof HTMLElement ? (target.dataset.key ?? '') : '';
      const entry = this.shown.get(key)?.entry;
      if (isIntersecting && entry?.kind === 'answer' && !isLive(entry) && !entry.usage) this.listener.onVisible(key);
    }
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const button = event.target instanceof Element ? event.target.closest('button') : null;
    const message = /** @type {HTMLElement | null | undefined} */ (button?.closest('.message'));
    if (!button || !message) return;
    const entry = this.shown.get(message.dataset.key ?? '')?.entry;
    if (!entry) return;
    if ('again' in button.dataset) this.listener.onAgain(entry.key);
    if (button.dataset.copy === 'message') void this.#copy(button, entry.kind === 'user' ? entry.text : textOf(entry));
    if (button.dataset.copy === 'code') void this.#copy(button, button.closest('figure')?.querySelector('code')?.textContent ?? '');
  }

  /** @param {HTMLButtonElement} button @param {string} text */
  async #copy(button, text) {
    const copied = await copyText(text);
    this.listener.onCopied(copied);
    if (!copied) return;
    button.dataset.copied = '';
    setTimeout(() => delete button.dataset.copied, 1500);
  }
}

/** @param {string} text @returns {Promise<boolean>} whether it is on the clipboard */
async function copyText(text) {
  // Plain http on a local network has no clipboard API.
  if (!navigator.clipboard) return copyBySelection(text);
  return navigator.clipboard.writeText(text).then(() => true, () => false);
}

/** @param {string} text */
function copyBySelection(text) {
  const focused = document.activeElement;
  const field = document.createElement('textarea');
  field.value = text;
  field.className = 'visually-hidden';
  document.body.append(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  return copied;
}
