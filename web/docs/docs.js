// What the documents gain from a script: a search over what can be opened, code that the keyboard can scroll,
// and links to what is closed. Without it everything is there, and the browser's own search finds it.

const field = /** @type {HTMLInputElement | null} */ (document.querySelector('#find'));
const found = document.querySelector('#found');
const entries = [...document.querySelectorAll('details[data-find]')].map((node) => ({
  node: /** @type {HTMLDetailsElement} */ (node),
  text: (node.textContent ?? '').toLowerCase(),
}));

if (field && found) {
  field.closest('label')?.removeAttribute('hidden');
  field.addEventListener('input', () => show(field.value));
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.target === field || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    field.focus();
  });
}
for (const node of document.querySelectorAll('pre, .wide')) node.setAttribute('tabindex', '0');
addEventListener('hashchange', open);
open();

/** Show what holds all words. @param {string} asked */
function show(asked) {
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { node, text } of entries) {
    const fits = words.every((word) => text.includes(word));
    node.hidden = !fits;
    count += Number(fits);
  }
  for (const section of document.querySelectorAll('main section')) {
    const all = section.querySelectorAll('details[data-find]');
    /** @type {HTMLElement} */ (section).hidden = all.length > 0 && [...all].every((node) => /** @type {HTMLElement} */ (node).hidden);
  }
  if (found) found.textContent = words.length ? `${count} of ${entries.length}` : '';
}

/** Open what the address names. */
function open() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!(target instanceof HTMLDetailsElement)) return;
  target.open = true;
  target.scrollIntoView();
}
export {};
