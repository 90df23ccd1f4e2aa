// The whole state of a tab, and the one function that changes it. Pure: no clock, no network, no DOM.
//
// Server frames carry `stream_id`, which is the key of the answer they belong to. Everything that the page
// itself does arrives as a `local.…` event; the table at the end names them all.

import { isLive, reduceAnswer } from './answer.js';
import { EMPTY, liveAnswer, withAnswer, withCut, withEarlier, withItems, withRunning, withTurn } from './transcript.js';

/** @import { Answer, Conversation, Event, State, Transcript } from './types.d.ts' */

/** Conversations kept in memory; the ones opened longest ago go first, running ones stay. */
export const MAX_TRANSCRIPTS = 12;

/** @type {State} */
export const INITIAL = {
  connection: { phase: 'connecting', reason: '' },
  server: { ready: true, reason: '' },
  signIn: null,
  models: [],
  model: '',
  list: { phase: 'loading', conversations: [], more: false, query: '' },
  open: null,
  transcripts: {},
  live: {},
  notice: null,
};

/** @param {State} state @param {Event} event @returns {State} */
export function reduce(state, event) {
  const local = LOCAL[event.type];
  if (local) return local(state, event);
  const conversation = event.stream_id === undefined ? undefined : state.live[event.stream_id];
  if (conversation !== undefined) return onAnswer(state, conversation, event.stream_id, (it) => reduceAnswer(it, event));
  return event.type === 'error' ? { ...state, notice: serverNotice(event) } : state;
}

/** Running answers with their conversations. @param {State} state */
export function running(state) {
  return Object.entries(state.live).flatMap(([streamId, conversation]) => {
    const entry = state.transcripts[conversation]?.entries.find((it) => it.key === streamId);
    return entry?.kind === 'answer' ? [{ streamId, conversation, answer: entry }] : [];
  });
}

/** What the open conversation is doing. @param {State} state */
export function liveHere(state) {
  return state.open === null ? null : liveAnswer(state.transcripts[state.open]);
}

/** @param {Event} event */
const serverNotice = (event) => ({ text: 'raw', values: { message: String(event.error?.message ?? '') } });

/**
 * @param {State} state @param {string} conversation @param {string} streamId
 * @param {(it: Answer) => Answer} change
 * @returns {State}
 */
function onAnswer(state, conversation, streamId, change) {
  const before = state.transcripts[conversation];
  if (!before) return state;
  const after = withAnswer(before, streamId, change);
  if (after === before) return state;
  const next = { ...state, transcripts: { ...state.transcripts, [conversation]: after } };
  const it = after.entries.find(({ key }) => key === streamId);
  return it?.kind === 'answer' && isLive(it) ? next : settle(next);
}

/** Forget the streams whose answers have ended, learn those that were found running. @param {State} state @returns {State} */
function settle(state) {
  const live = Object.fromEntries(
    Object.entries(state.transcripts).flatMap(([conversation, transcript]) =>
      transcript.entries.flatMap((it) => (it.kind === 'answer' && isLive(it) ? [[it.key, conversation]] : [])),
    ),
  );
  const same = Object.keys(live).length === Object.keys(state.live).length
    && Object.entries(live).every(([key, conversation]) => state.live[key] === conversation);
  return same ? state : { ...state, live };
}

/** @param {State} state @param {string} conversation @param {Transcript} transcript @returns {State} */
function withTranscript(state, conversation, transcript) {
  return settle({ ...state, transcripts: { ...state.transcripts, [conversation]: transcript } });
}

/** Move the transcript to the end of the order and drop the oldest ones. @param {State} state @param {Event} event @returns {State} */
function opened(state, { conversation, leaf = null }) {
  const { [conversation]: mine = EMPTY, ...others } = state.transcripts;
  const idle = Object.keys(others).filter((id) => !liveAnswer(others[id]));
  const dropped = new Set(idle.slice(0, Math.max(0, Object.keys(others).length + 1 - MAX_TRANSCRIPTS)));
  const kept = Object.entries(others).filter(([id]) => !dropped.has(id));
  const transcripts = { ...Object.fromEntries(kept), [conversation]: { ...mine, leaf } };
  return settle({ ...state, open: conversation, transcripts });
}

/** @param {State} state @param {Event} event @returns {State} */
function sent(state, event) {
  const { conversation } = event.turn;
  const next = withTurn(state.transcripts[conversation] ?? EMPTY, /** @type {any} */ (event));
  return withTranscript({ ...state, open: conversation, notice: null }, conversation, next);
}

/** A draft has become a stored conversation. @param {State} state @param {Event} event @returns {State} */
function named(state, event) {
  const { [event.from]: transcript = EMPTY, ...others } = state.transcripts;
  const next = event.conversation;
  return settle({
    ...state,
    open: state.open === event.from ? next.id : state.open,
    transcripts: { ...others, [next.id]: transcript },
    list: { ...state.list, conversations: [next, ...state.list.conversations.filter(({ id }) => id !== next.id)] },
  });
}

/** The server told how a conversation stands. @param {State} state @param {Event} event @returns {State} */
function changed(state, { conversation }) {
  const { running = [], ...mine } = conversation;
  const have = state.list.conversations.some(({ id }) => id === mine.id);
  const conversations = have
    ? state.list.conversations.map((it) => (it.id === mine.id ? { ...it, ...mine } : it))
    : [mine, ...state.list.conversations];
  return onTranscript({ ...state, list: { ...state.list, conversations } }, mine.id, (it) => ({ ...it, running }));
}

/** @param {State} state @param {Event} event @returns {State} */
function removed(state, event) {
  const { [event.conversation]: _, ...transcripts } = state.transcripts;
  const conversations = state.list.conversations.filter(({ id }) => id !== event.conversation);
  const open = state.open === event.conversation ? null : state.open;
  return settle({ ...state, open, transcripts, list: { ...state.list, conversations } });
}

/** @param {State} state @param {Event} event @returns {State} */
function listed(state, event) {
  const have = new Set(event.after ? state.list.conversations.map(({ id }) => id) : []);
  const fresh = event.conversations.filter((/** @type {Conversation} */ it) => !have.has(it.id));
  const conversations = event.after ? [...state.list.conversations, ...fresh] : fresh;
  return { ...state, list: { ...state.list, phase: 'ready', conversations, more: event.more } };
}

/** @param {State} state @param {string} conversation @param {(it: Transcript) => Transcript} change */
function onTranscript(state, conversation, change) {
  const before = state.transcripts[conversation];
  return before ? withTranscript(state, conversation, change(before)) : state;
}

/** @type {Record<string, (state: State, event: Event) => State>} */
const LOCAL = {
  'local.connection': (state, { phase, reason = '' }) => ({ ...state, connection: { phase, reason } }),
  'local.server': (state, { ready, reason = '' }) => ({ ...state, server: { ready, reason } }),
  'local.sign_in': (state, { signIn }) => ({ ...state, signIn }),
  'local.models': (state, { models }) => ({
    ...state, models, model: models.includes(state.model) ? state.model : (models[0] ?? ''),
  }),
  'local.model': (state, { model }) => ({ ...state, model }),
  'local.notice': (state, { text = null, values = {}, calm = false }) => ({ ...state, notice: text && { text, values, calm } }),
  'local.query': (state, { query }) => ({ ...state, list: { ...state.list, query } }),
  'local.listed': listed,
  'local.new': (state) => ({ ...state, open: null }),
  'local.opened': opened,
  'local.chosen': (state, { conversation, leaf }) => onTranscript(state, conversation, (it) => ({ ...it, leaf })),
  'local.changed': changed,
  'local.cut': (state, { conversation, key }) => onTranscript(state, conversation, (it) => withCut(it, key)),
  'local.forgotten': (state, { conversation }) => onTranscript(state, conversation, (it) => ({ ...EMPTY, sent: it.sent, running: it.running })),
  'local.items': (state, { conversation, ...page }) =>
    onTranscript(state, conversation, (it) => withItems(it, /** @type {any} */ (page))),
  'local.items_failed': (state, { conversation }) =>
    onTranscript(state, conversation, (it) => (it.entries.length ? it : { ...it, phase: 'failed' })),
  'local.earlier': (state, { conversation, ...page }) =>
    onTranscript(state, conversation, (it) => withEarlier(it, /** @type {any} */ (page))),
  'local.sent': sent,
  'local.named': named,
  'local.resumed': (state, { conversation, ...event }) =>
    onTranscript(state, conversation, (it) => withRunning(it, /** @type {any} */ (event))),
  'local.failed': (state, { conversation, streamId, failure }) =>
    onAnswer(state, conversation, streamId, (it) => ({ ...it, phase: 'failed', failure })),
  'local.stop_asked': (state, { conversation, streamId }) =>
    onAnswer(state, conversation, streamId, (it) => (isLive(it) ? { ...it, stopAsked: true } : it)),
  'local.figures': (state, { conversation, key, figures }) =>
    onAnswer(state, conversation, key, (it) => ({ ...it, ...figures })),
  'local.removed': removed,
};
