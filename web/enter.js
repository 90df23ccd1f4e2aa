// The wiring of `EnterRule` to a field.

import { EnterRule } from './keys.js';

/** On a touch keyboard Enter is the only way to a new line. */
const enterBreaksLines = () => matchMedia('(hover: none) and (pointer: coarse)').matches;

/** @param {HTMLTextAreaElement} field @param {() => void} send @returns {EnterRule} */
export function sendOnEnter(field, send) {
  const rule = new EnterRule();
  const decideLater = () => setTimeout(() => {
    const upToCaret = field.value.slice(0, field.selectionEnd).replace(/\n$/, '');
    if (rule.decide(upToCaret)) send();
  }, 0);
  field.addEventListener('compositionstart', () => rule.compositionStart());
  field.addEventListener('compositionend', (event) => {
    if (rule.compositionEnd(event.timeStamp) === 'decide') decideLater();
  });
  field.addEventListener('beforeinput', (event) => {
    const breaks = event.inputType === 'insertLineBreak' || event.inputType === 'insertParagraph';
    if (breaks && rule.swallowsLineBreak) event.preventDefault();
  });
  field.addEventListener('keydown', (event) => {
    if (enterBreaksLines()) return;
    const verdict = rule.keyDown(event, event.timeStamp);
    if (verdict === 'pass') return;
    event.preventDefault();
    if (verdict === 'decide') decideLater();
    else send();
  });
  return rule;
}
