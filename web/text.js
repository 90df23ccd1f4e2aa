// The page's words: one file a language, of which only the one spoken is loaded; and how figures are told in it.

export const LANGUAGES = /** @type {const} */ ([
  ['en', 'English'],
  ['ko', '한국어'],
  ['vi', 'Tiếng Việt'],
]);

/** @returns {string} the language to start with: the stored choice, else the browser's first that we speak. */
export function preferredLanguage(/** @type {string | null} */ stored, /** @type {readonly string[]} */ wanted) {
  const known = LANGUAGES.map(([code]) => /** @type {string} */ (code));
  const candidates = [stored ?? '', ...wanted].map((tag) => tag.toLowerCase().split('-')[0] ?? '');
  return candidates.find((code) => known.includes(code)) ?? 'en';
}

/**
 * The speaker of one language: `t(key, values)` for texts, `t.number` and `t.duration` for figures.
 * @param {string} language one of LANGUAGES
 */
export async function speaker(language) {
  const { WORDS } = await import(`./words/${language}.js`);
  return speakerOf(language, WORDS);
}

/** @param {string} language @param {Record<string, string>} words */
export function speakerOf(language, words) {
  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  const tenths = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });

  /** @param {string} key @param {Record<string, string | number>} [values] */
  const t = (key, values = {}) => {
    const text = words[key];
    if (text === undefined) throw new Error(`text: no words for ${key}`);
    return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
  };
  return Object.assign(t, {
    language,
    /** Counts in full, small rates with one decimal. @param {number} value */
    number: (value) => (value < 100 ? tenths : whole).format(value),
    /** @param {number} ms */
    duration: (ms) => (ms < 1000 ? `${whole.format(ms)} ms` : `${tenths.format(ms / 1000)} s`),
    /** @param {number} share between 0 and 1 */
    percent: (share) => `${whole.format(share * 100)} %`,
  });
}

/** @typedef {ReturnType<typeof speakerOf>} Speaker */
