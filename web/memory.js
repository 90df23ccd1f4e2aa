// What outlives a reload: the API key, per tab or in the browser, and the choice of a language.
// What is shown is in the address, and what runs the server knows.

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

  get language() {
    return localStorage.getItem(LANGUAGE);
  },

  set language(code) {
    if (code !== null) localStorage.setItem(LANGUAGE, code);
  },
};
