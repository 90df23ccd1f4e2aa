// What to ask the server so that every running answer of this tab goes on exactly once. Pure.

import { running } from './state.js';

/** @import { Answer, State, Turn } from './types.d.ts' */

/** Prefix of conversations that exist only in this tab so far. */
export const DRAFT = 'draft:';

/**
 * The frame that asks for an answer. The stream id is also the idempotency key: asked twice, because the
 * connection broke before the server's word arrived, it is still one answer.
 * @param {Turn} turn
 */
export function createFrame({ streamId, conversation, model, text, parent, continues }) {
  const frame = { type: 'response.create', stream_id: streamId, idempotency_key: streamId };
  if (continues !== null) return { ...frame, continue: continues };
  // Under the item that was shown last, wherever the conversation has gone meanwhile: a stale tab makes a branch.
  return { ...frame, model, conversation: { id: conversation, parent }, input: text ?? [], truncation: 'auto' };
}

/**
 * Follow a tape. Without `starting_after` it is replayed from its start.
 * @param {string} streamId @param {string | null} responseId @param {number} seq last sequence number applied, or -1
 */
export function attachFrame(streamId, responseId, seq) {
  const frame = { type: 'response.attach', stream_id: streamId, response_id: responseId };
  return seq < 0 ? frame : { ...frame, starting_after: seq };
}

/** The stream id of what is told of the open conversation. */
export const FEED = 'feed';

/** @param {string} conversation @param {boolean} on */
export const feedFrame = (conversation, on) =>
  ({ type: on ? 'conversation.subscribe' : 'conversation.unsubscribe', stream_id: FEED, conversation_id: conversation });

/** @param {string} conversation */
export const typingFrame = (conversation) => ({ type: 'input.typing', conversation_id: conversation });

/** No stream id: a stop must not wait in the lane of the answer it stops. @param {string} responseId */
export const cancelFrame = (responseId) => ({ type: 'response.cancel', response_id: responseId });

/**
 * The frames for a fresh connection: attach to what is known, ask again for the rest; a stop may have been lost, too.
 * @param {State} state @returns {object[]}
 */
export function resumeFrames(state) {
  return running(state).flatMap(({ streamId, conversation, answer }) =>
    (answer.responseId === null ? askAgain(conversation, answer) : goOn(streamId, answer.responseId, answer)));
}

/** @param {string} streamId @param {string} responseId @param {Answer} answer @returns {object[]} */
function goOn(streamId, responseId, answer) {
  const attach = attachFrame(streamId, responseId, answer.seq);
  return answer.stopAsked ? [attach, cancelFrame(responseId)] : [attach];
}

/** @param {string} conversation @param {Answer} answer @returns {object[]} */
const askAgain = (conversation, { asked }) =>
  (asked && !conversation.startsWith(DRAFT) ? [createFrame({ ...asked, conversation })] : []);
