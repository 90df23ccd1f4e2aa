// A conversation's entries as a pure value: what the server has stored, and what this tab has sent since.

import { answer, isLive, textOf } from './answer.js';

/** @import { Answer, Entry, Question, Transcript } from './types.d.ts' */

/** @type {Transcript} */
export const EMPTY = { phase: 'loading', entries: [], more: false, oldest: null, sent: 0 };

/** @param {any} item a conversation item of type `message` @returns {Entry} */
export function entryOf(item) {
  const text = item.content.map((/** @type {any} */ part) => part.text ?? '').join('');
  if (item.role !== 'assistant') return { kind: 'user', key: item.id, id: item.id, text };
  return answer({
    key: item.id, id: item.id, responseId: item.response_id ?? null, ...storedText(item, text),
  });
}

/**
 * An item that is still being written is followed on its tape, from the start.
 * @param {any} item @param {string} text @returns {Partial<Answer>}
 */
function storedText(item, text) {
  if (item.status === 'in_progress' && item.response_id) return { phase: 'resuming' };
  return { phase: item.status === 'incomplete' ? 'stopped' : 'completed', parts: { '0.0': text } };
}

/**
 * Take the newest page of stored items. Answers that this tab follows stay as they are, with their keys, so that
 * nothing flickers and no delta is applied twice; what the server does not know yet stays at the end.
 * @param {Transcript} old @param {{items: any[], more: boolean, sent: number}} page oldest first
 * @returns {Transcript}
 */
export function withItems(old, page) {
  if (page.sent !== old.sent) return old;
  const stored = page.items.filter((item) => item.type === 'message' && item.role !== 'system').map(entryOf);
  const known = new Map(old.entries.flatMap((entry) => namesOf(entry).map((name) => [name, entry])));
  /** @type {Set<Entry>} */
  const placed = new Set();
  const entries = stored.map((entry) => {
    const mine = namesOf(entry).map((name) => known.get(name)).find(Boolean);
    if (!mine) return entry;
    placed.add(mine);
    return merged(mine, entry);
  });
  return {
    ...old, phase: 'ready', more: page.more, oldest: page.items[0]?.id ?? null,
    entries: [...entries, ...unstored(old.entries, placed)],
  };
}

/** @param {Entry} entry */
const namesOf = (entry) =>
  [entry.id, entry.kind === 'answer' ? entry.responseId : null].filter((name) => name !== null);

/** @param {Entry} mine @param {Entry} stored @returns {Entry} */
function merged(mine, stored) {
  if (mine.kind === 'user' || stored.kind === 'user') return { ...stored, key: mine.key };
  return mine.phase === 'lost' ? { ...stored, key: mine.key } : mine;
}

/**
 * Entries that the server did not list: questions on their way, running and failed answers.
 * @param {readonly Entry[]} entries @param {Set<Entry>} placed
 */
function unstored(entries, placed) {
  return entries.filter((entry, index) => {
    if (placed.has(entry)) return false;
    if (entry.kind === 'answer') return isLive(entry) || entry.phase === 'failed';
    const next = entries[index + 1];
    return next?.kind === 'answer' && isTakenBack(next);
  });
}

/**
 * Whether the server does not have the question of this answer: it has not said yes to it yet, or it refused it,
 * which takes the question back.
 * @param {Answer} it
 */
export const isTakenBack = (it) => (isLive(it) ? it.responseId === null : it.phase === 'failed' && textOf(it) === '');

/** Put an older page in front. @param {Transcript} old @param {{items: any[], more: boolean}} page @returns {Transcript} */
export function withEarlier(old, page) {
  const have = new Set(old.entries.map((entry) => entry.id));
  const older = page.items.filter((item) => item.type === 'message' && item.role !== 'system' && !have.has(item.id));
  return {
    ...old, more: page.more, oldest: page.items[0]?.id ?? old.oldest,
    entries: [...older.map(entryOf), ...old.entries],
  };
}

/** @param {Transcript} old @param {string} key @param {(it: Answer) => Answer} change @returns {Transcript} */
export function withAnswer(old, key, change) {
  const index = old.entries.findIndex((entry) => entry.key === key);
  const entry = old.entries[index];
  if (entry?.kind !== 'answer') return old;
  const next = change(entry);
  return next === entry ? old : { ...old, entries: old.entries.with(index, next) };
}

/** The running answer, if there is one. @param {Transcript | undefined} transcript @returns {Answer | null} */
export function liveAnswer(transcript) {
  const entry = transcript?.entries.findLast((it) => it.kind === 'answer' && isLive(it));
  return entry?.kind === 'answer' ? entry : null;
}

/** The question that an answer answers. @param {Transcript} transcript @param {string} key @returns {Question | null} */
export function questionOf(transcript, key) {
  const index = transcript.entries.findIndex((entry) => entry.key === key);
  const entry = transcript.entries[index - 1];
  return entry?.kind === 'user' ? entry : null;
}
