// A conversation's branch as a pure value: what the server has stored of it, and what this tab has sent since.
//
//   stored items ── up to where ours begin ──┐
//   local: a question on its way, running and failed answers ──┴──> entries

import { answer, callsOf, isLive, reasoningOf, textOf } from './answer.js';

/** @import { Answer, Entry, Output, Question, Running, Transcript, Turn } from './types.d.ts' */

/** @type {Transcript} */
export const EMPTY = { phase: 'loading', entries: [], more: false, oldest: null, sent: 0, leaf: null, running: [] };

/** Stored items as entries: reasoning and calls go with their answer. @param {any[]} items oldest first @returns {Entry[]} */
export function entriesOf(items) {
  /** @type {Entry[]} */
  const entries = [];
  const names = Object.fromEntries(items.map((item) => [item.name && item.call_id, item.name]));
  for (const item of items) {
    const last = entries.at(-1);
    const joins = last?.kind === 'answer' && last.id === itemId(item.id);
    if (joins) entries[entries.length - 1] = joined(last, item);
    else entries.push(...entryOf(item, names));
  }
  return entries;
}

/** @param {any} item @param {Record<string, string>} names of tools, by call @returns {Entry[]} none for what has no face here */
function entryOf(item, names) {
  const { id: key, parent = null, siblings = [], children = [] } = item;
  // Above it may stand the last part of an answer.
  const place = { key, id: itemId(key), parent: parent && itemId(parent), siblings, children };
  if (item.type === 'compaction') return [{ kind: 'summary', ...place, id: item.id, text: item.summary?.[0]?.text ?? '' }];
  if (item.type === 'message' && item.role === 'user') return [{ kind: 'user', ...place, text: textIn(item) }];
  if (item.type === 'function_call_output') return [{ kind: 'output', ...place, text: item.output, name: names[item.call_id] ?? '' }];
  if (['system', 'developer'].includes(item.role)) return [{ kind: 'output', ...place, text: textIn(item), name: null }];
  if (item.role !== 'assistant' && !['reasoning', 'function_call'].includes(item.type)) return [];
  return [joined(answer({ ...place, responseId: item.response_id ?? null, phase: 'completed' }), item)];
}

/** @param {Answer} it @param {any} item @returns {Answer} */
function joined(it, item) {
  const text = item.type === 'message' ? textIn(item) : '';
  const phase = item.status === 'incomplete' ? 'stopped' : it.phase;
  const parts = text ? { ...it.parts, [`${Object.keys(it.parts).length}.0`]: text } : it.parts;
  return { ...it, phase, parts, calls: { ...it.calls, ...callsOf([item]) }, reasoning: it.reasoning + reasoningOf(item) };
}

/** @param {any} item @returns {string} */
const textIn = (item) => item.content.map((/** @type {any} */ part) => part.text ?? '').join('');

/** The item that a part belongs to: `rs_1_2` is a part of `msg_1`. @param {string} id */
const itemId = (id) => `msg_${id.split('_')[1] ?? id}`;

/**
 * Take the newest page of stored items. Answers that this tab follows stay as they are, so that nothing flickers and no
 * delta is applied twice; what the server does not know yet stays.
 * @param {Transcript} old
 * @param {{items: any[], more: boolean, sent: number, leaf: string | null, live: string[]}} page oldest first; `leaf`: the
 * item that was wanted, `live`: keys of the answers that ran, when it was asked for
 * @returns {Transcript}
 */
export function withItems(old, page) {
  if (page.sent !== old.sent || page.leaf !== old.leaf) return old;
  const chosen = page.leaf !== null;
  const known = new Map(old.entries.flatMap((entry) => namesOf(entry).map((name) => [name, entry])));
  /** @type {Set<Entry>} */
  const placed = new Set();
  const stored = entriesOf(page.items).map((entry) => {
    const mine = namesOf(entry).map((name) => known.get(name)).find(Boolean);
    if (!mine) return entry;
    placed.add(mine);
    return merged(mine, entry);
  });
  // On the branch that was left they are found again by its items.
  const ours = chosen ? [] : unstored(old.entries, placed, page.live, stored.at(-1)?.id);
  const end = ours[0] ? placeUnder(stored, ours[0].parent) : stored.length;
  return {
    ...old, phase: 'ready', more: page.more, oldest: page.items[0]?.id ?? null, leaf: null,
    entries: end < 0 ? stored : [...stored.slice(0, end), ...ours],
  };
}

/** How many entries stand up to that item, -1 if it is not among them. @param {Entry[]} stored @param {string | null | undefined} id */
const placeUnder = (stored, id) => (id === null ? 0 : id === undefined ? stored.length : stored.findLastIndex((it) => it.id === id) + 1 || -1);

/** @param {Entry} entry */
const namesOf = (entry) =>
  [entry.id, entry.kind === 'answer' ? entry.responseId : null].filter((name) => name !== null);

/** @param {Entry} mine @param {Entry} stored @returns {Entry} */
function merged(mine, stored) {
  if (mine.kind !== 'answer' || stored.kind !== 'answer' || mine.phase === 'lost') return { ...stored, key: mine.key };
  const same = mine.parent === stored.parent && String(mine.siblings) === String(stored.siblings);
  return same ? mine : { ...mine, parent: stored.parent, siblings: stored.siblings };
}

/**
 * Entries that the server did not list: questions on their way, answers that ran when it was asked, failed ones, and
 * one that was stopped before its first word, while nothing else follows its question.
 * @param {readonly Entry[]} entries @param {Set<Entry>} placed @param {string[]} live @param {string | null | undefined} last
 */
function unstored(entries, placed, live, last) {
  return entries.filter((entry, index) => {
    if (placed.has(entry)) return false;
    if (entry.kind === 'answer') {
      const wordless = entry.phase === 'stopped' && textOf(entry) === '' && entry.parent === last;
      return isLive(entry) || entry.phase === 'failed' || wordless || live.includes(entry.key);
    }
    const next = entries[index + 1];
    return next?.kind === 'answer' && isTakenBack(next);
  });
}

/** Whether the server does not have the question: it has not said yes yet, or refused it. @param {Answer} it */
export const isTakenBack = (it) => (isLive(it) ? it.responseId === null : it.phase === 'failed' && textOf(it) === '');

/** Put an older page in front. @param {Transcript} old @param {{items: any[], more: boolean}} page @returns {Transcript} */
export function withEarlier(old, page) {
  const have = new Set(old.entries.map((entry) => entry.id));
  const older = entriesOf(page.items).filter((entry) => !have.has(entry.id));
  return { ...old, more: page.more, oldest: page.items[0]?.id ?? old.oldest, entries: [...older, ...old.entries] };
}

/**
 * Begin a turn: it takes the place of what came after `after`, an entry's key; '' is the beginning, null the end.
 * @param {Transcript} old @param {{turn: Turn, after: string | null}} event @returns {Transcript}
 */
export function withTurn(old, { turn, after }) {
  const kept = after === null ? old.entries : old.entries.slice(0, old.entries.findIndex(({ key }) => key === after) + 1);
  const replaced = old.entries[kept.length];
  const place = { parent: turn.parent, siblings: replaced ? familyOf(old, replaced).ids.filter(Boolean) : [], children: [] };
  const carried = turn.continues !== null && replaced?.kind === 'answer' ? textOf(replaced) : '';
  const { streamId, model, text } = turn;
  /** @type {Entry[]} */
  const question = text === null ? [] : [{ kind: 'user', key: `${streamId}:question`, id: null, ...place, text }];
  const asked = answer({ key: streamId, model, asked: turn, carried, ...(text === null ? place : {}) });
  return { ...old, phase: 'ready', sent: old.sent + 1, entries: [...kept, ...question, asked] };
}

/**
 * Follow an answer that this tab did not ask for, at the end of the branch shown.
 * @param {Transcript} old @param {{streamId: string, running: Running}} event @returns {Transcript}
 */
export function withRunning(old, { streamId, running }) {
  if (old.entries.some((it) => it.kind === 'answer' && it.responseId === running.response_id)) return old;
  const place = { id: running.item_id, parent: running.parent, siblings: old.entries.at(-1)?.children ?? [] };
  const it = answer({ key: streamId, responseId: running.response_id, phase: 'resuming', ...place });
  return { ...old, entries: [...old.entries, it] };
}

/** Take an entry away, and what came after it; another one beside it is wanted next. @param {Transcript} old @param {string} key @returns {Transcript} */
export function withCut(old, key) {
  const at = old.entries.findIndex((entry) => entry.key === key);
  const gone = old.entries[at];
  if (!gone) return old;
  const left = gone.siblings.filter((id) => id !== gone.id);
  return { ...old, sent: old.sent + 1, entries: old.entries.slice(0, at), leaf: left.at(-1) ?? gone.parent ?? null };
}

/** @param {Transcript} old @param {string} key @param {(it: Answer) => Answer} change @returns {Transcript} */
export function withAnswer(old, key, change) {
  const index = old.entries.findIndex((entry) => entry.key === key);
  const entry = old.entries[index];
  if (entry?.kind !== 'answer') return old;
  const next = change(entry);
  if (next === entry) return old;
  const entries = old.entries.with(index, next);
  const above = entries[index - 1];
  const accepted = next.responseId !== null && entry.responseId === null;
  // The server's first word names the question's item.
  if (accepted && above?.kind === 'user' && above.id === null) entries[index - 1] = { ...above, id: next.parent ?? null };
  return { ...old, entries };
}

/** The running answer, if there is one. @param {Transcript | undefined} transcript @returns {Answer | null} */
export function liveAnswer(transcript) {
  const entry = transcript?.entries.findLast((it) => it.kind === 'answer' && isLive(it));
  return entry?.kind === 'answer' ? entry : null;
}

/** What an answer answers: a question, or what a tool gave. @param {Transcript} transcript @param {string} key @returns {Question | Output | null} */
export function questionOf(transcript, key) {
  const index = transcript.entries.findIndex((entry) => entry.key === key);
  const entry = transcript.entries[index - 1];
  return entry?.kind === 'user' || entry?.kind === 'output' ? entry : null;
}

/** The item that a new question goes under: the last one that the server has. @param {Transcript | undefined} transcript */
export const endOf = (transcript) => transcript?.entries.findLast((it) => it.kind !== 'summary' && it.id !== null)?.id ?? null;

/**
 * What stands beside an entry: items under the same parent, oldest first, running ones at the end; '' is an entry that
 * has no id yet. `at`: its own place.
 * @param {Transcript} transcript @param {Entry} entry
 */
export function familyOf(transcript, entry) {
  const ids = entry.siblings.length ? [...entry.siblings] : [entry.id ?? ''];
  for (const it of entry.kind === 'answer' ? transcript.running : []) {
    if (it.parent === entry.parent && !ids.includes(it.item_id)) ids.push(it.item_id);
  }
  if (!ids.includes(entry.id ?? '')) ids.push(entry.id ?? '');
  return { ids, at: ids.indexOf(entry.id ?? '') };
}

/** The newest answer's account of what the model was sent. @param {readonly Entry[]} entries */
export function contextOf(entries) {
  const it = entries.findLast((entry) => entry.kind === 'answer' && entry.context);
  return it?.kind === 'answer' ? it.context : null;
}
