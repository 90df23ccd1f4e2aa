// The dialogs: sign-in, "delete?", keyboard shortcuts. `<dialog>` brings focus, Esc and inertness by itself. Loaded once the
// page stands, or when one is asked for before.

import { byId } from '../dom.js';

export class Dialogs {
  /** @param {{onKey: (key: string, remember: boolean) => void}} listener */
  constructor(listener) {
    this.signIn = byId('sign-in', HTMLDialogElement);
    this.ask = byId('ask', HTMLDialogElement);
    this.keys = byId('keys', HTMLDialogElement);
    /** @type {() => void} */
    this.onYes = () => {};
    this.#listen(listener);
  }

  /** @param {import('../types.d.ts').State['signIn']} signIn @param {import('../text.js').Speaker} t */
  render(signIn, t) {
    byId('sign-in-why', HTMLElement).textContent = t(signIn === 'refused' ? 'badKey' : 'signInWhy');
    if (signIn !== null && !this.signIn.open) this.signIn.showModal();
    if (signIn === null && this.signIn.open) this.signIn.close();
  }

  /** @param {string} what @param {string} why @param {() => void} onYes */
  askFirst(what, why, onYes) {
    byId('ask-title', HTMLElement).textContent = what;
    byId('ask-why', HTMLElement).textContent = why;
    this.onYes = onYes;
    if (!this.ask.open) this.ask.showModal();
  }

  showKeys() {
    if (!this.keys.open) this.keys.showModal();
  }

  /** @param {{onKey: (key: string, remember: boolean) => void}} listener */
  #listen(listener) {
    for (const button of document.querySelectorAll('dialog [data-close]')) {
      button.addEventListener('click', () => button.closest('dialog')?.close());
    }
    // There is nothing to go back to without a key.
    this.signIn.addEventListener('cancel', (event) => event.preventDefault());
    this.signIn.addEventListener('submit', (event) => {
      event.preventDefault();
      const key = byId('key', HTMLInputElement);
      const value = key.value.trim();
      key.value = '';
      if (value) listener.onKey(value, byId('remember', HTMLInputElement).checked);
    });
    this.ask.addEventListener('submit', (event) => {
      event.preventDefault();
      this.ask.close();
      this.onYes();
    });
  }
}
