// A question that is being edited, in its place. Loaded when somebody edits.

import { el } from '../dom.js';
import { sendOnEnter } from '../enter.js';

/** @param {string} text @param {import('../text.js').Speaker} t @param {(text: string | null) => void} onDone null: nothing is to change */
export function editForm(text, t, onDone) {
  const field = el('textarea', { rows: '1', dir: 'auto', maxlength: '200000', 'aria-label': t('edit') });
  field.value = text;
  const send = () => {
    const changed = field.value.trim();
    onDone(changed === '' || changed === text ? null : changed);
  };
  const cancel = el('button', { type: 'button', class: 'button' }, t('cancel'));
  const form = el('form', { class: 'edit' }, field, el('p', { class: 'note' }, t('editNote')),
    el('div', { class: 'actions' }, cancel, el('button', { type: 'submit', class: 'button primary' }, t('send'))));
  cancel.addEventListener('click', () => onDone(null));
  sendOnEnter(field, send);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    send();
  });
  form.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || event.isComposing) return;
    event.stopPropagation();
    onDone(null);
  });
  return { form, field };
}
