// The name of a conversation that is being changed, in its place. Loaded when somebody renames one.

import { el } from '../dom.js';

/** The longest title. UTF-16 units. */
const MAX_TITLE = 200;

/**
 * @param {string} title @param {import('../text.js').Speaker} t
 * @param {(name: string | null, focused: boolean) => void} onDone called once; null: nothing is to change; `focused`: it ended
 * with a key, so the focus is still here
 */
export function nameField(title, t, onDone) {
  const field = el('input', { type: 'text', value: title, maxlength: String(MAX_TITLE), 'aria-label': t('newName'), dir: 'auto' });
  let over = false;
  const done = (/** @type {boolean} */ keep, /** @type {boolean} */ focused) => {
    if (over) return;
    over = true;
    const name = field.value.trim();
    onDone(keep && name !== title ? name || null : null, focused);
  };
  field.addEventListener('keydown', (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key !== 'Enter' && event.key !== 'Escape') return;
    event.stopPropagation();
    event.preventDefault(); // the button that gets the focus would take the Enter, too
    done(event.key === 'Enter', true);
  });
  field.addEventListener('blur', () => done(true, false));
  return field;
}
