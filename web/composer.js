// The message field: Enter sends, Shift + Enter breaks the line, and input methods are left in peace.

import { byId, icon } from './dom.js';
import { EnterRule } from './keys.js';

/** The longest message that the page sends. UTF-16 units. */
export const MAX_MESSAGE = 200_000;

/** The field grows to this height, then scrolls. CSS pixels. */
const TALLEST = 240;

export class Composer {
  /** @param {{onSend: (text: string) => boolean, onStop: () => void}} listener onSend returns whether it was taken */
  constructor(listener) {
    this.listener = listener;
    this.field = byId('message', HTMLTextAreaElement);
    this.button = byId('act', HTMLButtonElement);
    this.warning = byId('too-long', HTMLElement);
    this.rule = new EnterRule();
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

  /** Put back a text that could not be sent, unless another was begun. @param {string} text */
  restore(text) {
    if (this.field.value === '') this.field.value = text;
    this.#refresh();
    this.focus();
  }

  /** Whether an input method is in the middle of a word: Esc then belongs to it. */
  get composing() {
    return this.rule.composing;
  }

  #listen() {
    const { field, rule } = this;
    field.addEventListener('input', () => this.#refresh());
    field.addEventListener('compositionstart', () => rule.compositionStart());
    field.addEventListener('compositionend', (event) => {
      if (rule.compositionEnd(event.timeStamp) === 'decide') this.#decideLater();
    });
    field.addEventListener('keydown', (event) => this.#keyDown(event));
    field.addEventListener('beforeinput', (event) => {
      const breaks = event.inputType === 'insertLineBreak' || event.inputType === 'insertParagraph';
      if (breaks && rule.swallowsLineBreak) event.preventDefault();
    });
    // A press of the button leaves the focus where it is.
    this.button.addEventListener('pointerdown', (event) => event.preventDefault());
    byId('composer', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.running) this.listener.onStop();
      else this.#send();
    });
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (enterBreaksLines()) return;
    const verdict = this.rule.keyDown(event, event.timeStamp);
    if (verdict === 'pass') return;
    event.preventDefault();
    if (verdict === 'decide') this.#decideLater();
    else this.#send();
  }

  #decideLater() {
    setTimeout(() => {
      const upToCaret = this.field.value.slice(0, this.field.selectionEnd).replace(/\n$/, '');
      if (this.rule.decide(upToCaret)) this.#send();
    }, 0);
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

/** On a touch keyboard Enter is the only way to a new line. */
const enterBreaksLines = () => matchMedia('(hover: none) and (pointer: coarse)').matches;
