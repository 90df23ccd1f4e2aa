// JSON on several lines. Pure. Only white space is changed: numbers stay as they were written, which parsing would round.

/** Longer texts stay as they are. UTF-16 units. */
const LONGEST = 200_000;
/** Nesting that is still indented: thousands of open brackets would make a text of their square. */
const DEEPEST = 40;

/** Structure, strings, and what else there is, white space left out. */
const TOKENS = /"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s[\]{},:"]+/g;

/** @param {string} text @returns {string} itself, unless it is an object or an array */
export function indented(text) {
  if (text.length > LONGEST || !/^\s*[{[]/.test(text) || !isJson(text)) return text;
  const tokens = text.match(TOKENS) ?? [];
  let depth = 0;
  return tokens.reduce((made, token, at) => {
    const last = tokens[at - 1] ?? '';
    const opens = /^[[{]$/.test(last), closes = /^[\]}]$/.test(token);
    depth += Number(opens) - Number(closes);
    if (last === ':') return `${made} ${token}`;
    return (opens && !closes) || (closes && !opens) || last === ',' ? `${made}\n${'  '.repeat(Math.min(depth, DEEPEST))}${token}` : made + token;
  }, '');
}

/** @param {string} text */
function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
