// The title that a conversation gets from its first message. Pure.

/** The longest one. Characters as readers count them. */
const LONGEST = 60;

/** The first line of a message, cut at a character, never inside a syllable. @param {string} text */
export function titleFrom(text) {
  const line = text.split('\n').find((it) => it.trim() !== '')?.trim() ?? '';
  const letters = [...new Intl.Segmenter().segment(line)].map(({ segment }) => segment);
  return letters.length <= LONGEST ? line : `${letters.slice(0, LONGEST - 1).join('').trimEnd()}…`;
}
