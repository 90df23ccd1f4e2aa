// The figures of stored answers, fetched as they come into view.

import { figuresOf } from './answer.js';
import { Queue } from './background.js';

/** Answers asked about at the same time. */
const WIDTH = 4;
/** Answers that wait to be asked about; older wishes are forgotten. */
const WAITING = 200;

/** A queue of entry keys of the open conversation. @param {import('./chat.js').Chat} chat */
export function figures(chat) {
  return new Queue(async (key) => {
    const conversation = chat.state.open;
    const answer = chat.answer(conversation, key);
    if (!answer?.responseId || answer.usage) return;
    // Without its figures an answer is still an answer: no notice.
    const response = await chat.api.response(answer.responseId).catch(() => null);
    if (!response?.usage) return;
    const cut = response.status === 'incomplete' ? { phase: 'incomplete' } : {};
    chat.dispatch({ type: 'local.figures', conversation, key, figures: { ...figuresOf(response), ...cut } });
  }, WIDTH, WAITING);
}
