// What outlives a reload: the running answers, per tab, and the API key, per tab or in the browser.

import { remembered, toRemember } from './resume.js';

const RUNNING = 'chatserver.running';
const KEY = 'chatserver.key';
const LANGUAGE = 'chatserver.language';

export const memory = {
  get key() {
    return localStorage.getItem(KEY) ?? sessionStorage.getItem(KEY);
  },

  /** @param {string} key @param {boolean} long in the browser, not only in this tab */
  keepKey(key, long) {
    (long ? localStorage : sessionStorage).setItem(KEY, key);
  },

  forgetKey() {
    localStorage.removeItem(KEY);
    sessionStorage.removeItem(KEY);
  },

  get running() {
    return remembered(sessionStorage.getItem(RUNNING));
  },

  /** @param {import('./types.d.ts').State} state */
  keepRunning(state) {
    sessionStorage.setItem(RUNNING, JSON.stringify(toRemember(state)));
  },

  get language() {
    return localStorage.getItem(LANGUAGE);
  },

  set language(code) {
    if (code !== null) localStorage.setItem(LANGUAGE, code);
  },
};
