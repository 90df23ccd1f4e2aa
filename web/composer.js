// The message field: Enter sends, Shift + Enter breaks the line.

import { byId, icon } from './dom.js';
import { sendOnEnter } from './enter.js';

/** The longest message that the page sends. UTF-16 units. */
export const MAX_MESSAGE = 200_000;

/** The field grows to this height, then scrolls. CSS pixels. */
const TALLEST = 240;

export class Composer {
  /** @param {{onSend: (text: string) => boolean, onStop: () => void, onTyping: () => void}} listener onSend: whether it was taken */
  constructor(listener) {
    this.listener = listener;
    this.field = byId('message', HTMLTextAreaElement);
    this.button = byId('act', HTMLButtonElement);
    this.warning = byId('too-long', HTMLElement);
    this.rule = sendOnEnter(this.field, () => this.#send());
    this.running = false;
    this.able = false;
    /** @type {import('./text.js').Speaker | null} */
    this.t = null;
    this.#listen();
  }

  /** @param {{running: boolean, stopping: boolean, able: boolean}} now @param {import('./text.js').Speaker} t */
  render({ running, stopping, able }, t) {
    this.running = running;
    this.able = able;
    this.t = t;
    const act = running ? 'stop' : 'send';
    if (this.button.dataset.act !== act || !this.button.firstChild) {
      this.button.dataset.act = act;
      this.button.replaceChildren(icon(act));
    }
    this.button.setAttribute('aria-label', t(act));
    this.button.title = t(act);
    this.stopping = stopping;
    this.#refresh();
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }

  /** Whether an input method is in the middle of a word: Esc then belongs to it. */
  get composing() {
    return this.rule.composing;
  }

  #listen() {
    this.field.addEventListener('input', () => {
      this.#refresh();
      this.listener.onTyping();
    });
    // A press of the button leaves the focus where it is.
    this.button.addEventListener('pointerdown', (event) => event.preventDefault());
    byId('composer', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.running) this.listener.onStop();
      else this.#send();
    });
  }

  #send() {
    const text = this.field.value.trim();
    if (!this.#sendable(text) || !this.listener.onSend(text)) return;
    this.field.value = '';
    this.#refresh();
  }

  /** @param {string} text */
  #sendable(text) {
    return text !== '' && text.length <= MAX_MESSAGE && this.able && !this.running;
  }

  #refresh() {
    const text = this.field.value.trim();
    this.button.disabled = this.running ? Boolean(this.stopping) : !this.#sendable(text);
    const long = text.length > MAX_MESSAGE;
    this.warning.hidden = !long;
    if (long && this.t) {
      this.warning.textContent = this.t('tooLong', { count: this.t.number(text.length), limit: this.t.number(MAX_MESSAGE) });
    }
    this.#grow();
  }

  #grow() {
    if (CSS.supports('field-sizing', 'content')) return;
    this.field.style.height = 'auto';
    this.field.style.height = `${Math.min(TALLEST, this.field.scrollHeight)}px`;
  }
}
