// What to ask the server so that every running answer of this tab goes on exactly once. Pure.

import { running } from './state.js';
import { questionOf } from './transcript.js';

/** @import { Answer, Remembered, State, Turn } from './types.d.ts' */

/** Prefix of conversations that exist only in this tab so far. */
export const DRAFT = 'draft:';

/** Running answers remembered over a reload. */
export const MAX_REMEMBERED = 16;

/**
 * The frame that asks for an answer. The stream id is also the idempotency key: asked twice, because the
 * connection broke before the server's word arrived, it is still one answer.
 * @param {Turn} turn
 */
export function createFrame({ streamId, conversation, model, text }) {
  return {
    type: 'response.create', stream_id: streamId, idempotency_key: streamId,
    model, conversation, input: text, truncation: 'auto',
  };
}

/**
 * Follow a tape. Without `starting_after` it is replayed from its start.
 * @param {string} streamId @param {string | null} responseId @param {number} seq last sequence number applied, or -1
 */
export function attachFrame(streamId, responseId, seq) {
  const frame = { type: 'response.attach', stream_id: streamId, response_id: responseId };
  return seq < 0 ? frame : { ...frame, starting_after: seq };
}

/** No stream id: a stop must not wait in the lane of the answer it stops. @param {string} responseId */
export const cancelFrame = (responseId) => ({ type: 'response.cancel', response_id: responseId });

/**
 * The frames for a fresh connection: attach to what is known, ask again for the rest; a stop may have been lost, too.
 * @param {State} state @returns {object[]}
 */
export function resumeFrames(state) {
  return running(state).flatMap(({ streamId, conversation, answer }) =>
    (answer.responseId === null ? askAgain(state, conversation, answer) : goOn(streamId, answer.responseId, answer)));
}

/** @param {string} streamId @param {string} responseId @param {Answer} answer @returns {object[]} */
function goOn(streamId, responseId, answer) {
  const attach = attachFrame(streamId, responseId, answer.seq);
  return answer.stopAsked ? [attach, cancelFrame(responseId)] : [attach];
}

/** @param {State} state @param {string} conversation @param {Answer} answer @returns {object[]} */
function askAgain(state, conversation, { key, model }) {
  const transcript = state.transcripts[conversation];
  const question = transcript && questionOf(transcript, key);
  if (!question || conversation.startsWith(DRAFT)) return [];
  return [createFrame({ streamId: key, conversation, model, text: question.text })];
}

/** What a reload needs to find the running answers again. @param {State} state @returns {Remembered[]} */
export function toRemember(state) {
  return running(state).flatMap(({ streamId, conversation, answer }) =>
    answer.responseId === null ? [] : [{ streamId, conversation, responseId: answer.responseId }],
  ).slice(-MAX_REMEMBERED);
}

/** Read what `toRemember` wrote; anything else is as good as nothing. @param {string | null} stored @returns {Remembered[]} */
export function remembered(stored) {
  let list;
  try {
    list = JSON.parse(stored ?? '[]');
  } catch {
    return [];
  }
  const isText = (/** @type {unknown} */ value) => typeof value === 'string' && value !== '';
  return (Array.isArray(list) ? list : []).filter((it) =>
    it && isText(it.streamId) && isText(it.conversation) && isText(it.responseId)).slice(-MAX_REMEMBERED);
}
