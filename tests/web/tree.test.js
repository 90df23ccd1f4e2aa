import assert from 'node:assert/strict';
import { test } from 'node:test';

import { answer, isLive, reduceAnswer, textOf } from '../../web/answer.js';
import { createFrame } from '../../web/resume.js';
import { INITIAL, reduce, running } from '../../web/state.js';
import { EMPTY, contextOf, endOf, entriesOf, familyOf, liveAnswer, withCut, withItems, withRunning, withTurn } from '../../web/transcript.js';

/** @typedef {import('../../web/types.d.ts').Transcript} Transcript */

/** @param {string} id @param {string | null} parent @param {string} text @param {object} [more] */
const user = (id, parent, text, more = {}) =>
  ({ id, parent, type: 'message', role: 'user', status: 'completed', content: [{ type: 'input_text', text }], ...more });
/** @param {string} id @param {string | null} parent @param {string} text @param {object} [more] */
const reply = (id, parent, text, more = {}) => ({
  id, parent, type: 'message', role: 'assistant', status: 'completed', response_id: `resp_${id}`,
  content: [{ type: 'output_text', text }], ...more,
});

const Q = user('msg_q', null, 'Why?');
const A = reply('msg_a', 'msg_q', 'Because.', { siblings: ['msg_a', 'msg_b'] });

/** @param {any[]} items @param {Partial<Parameters<typeof withItems>[1]>} [more] */
const page = (items, more = {}) => ({ items, more: false, sent: 0, leaf: null, live: [], ...more });

/** @param {Transcript} it */
const shown = (it) => it.entries.map((entry) => (entry.kind === 'answer' ? textOf(entry) : entry.text));

/** @param {Partial<import('../../web/types.d.ts').Turn>} turn */
const turn = (turn) => ({ streamId: 's', conversation: 'conv_1', model: 'm', text: null, parent: null, continues: null, ...turn });

const READ = withItems(EMPTY, page([Q, A]));

test('an answer with reasoning is one entry, whatever it is listed as', () => {
  const parts = [
    { id: 'rs_a', type: 'reasoning', parent: 'msg_q', response_id: 'r', siblings: ['msg_a', 'msg_b'], content: [{ type: 'reasoning_text', text: 'Hm' }] },
    reply('msg_a', 'rs_a', 'Because.', { response_id: 'r' }),
  ];
  const [, it] = entriesOf([Q, ...parts]);
  assert.ok(it?.kind === 'answer');
  assert.deepEqual([it.id, it.parent, it.reasoning, textOf(it), it.siblings], ['msg_a', 'msg_q', 'Hm', 'Because.', ['msg_a', 'msg_b']]);
});

test('summaries and instructions are shown, each where it stands', () => {
  const summary = { id: 'cmp_1', type: 'compaction', parent: 'msg_a', summary: [{ type: 'summary_text', text: 'In short' }] };
  const system = { ...Q, id: 'msg_s', role: 'system' };
  const entries = entriesOf([system, Q, A, summary]);
  assert.deepEqual(entries.map(({ kind }) => kind), ['output', 'user', 'answer', 'summary']);
  assert.equal(endOf({ ...EMPTY, entries }), 'msg_a');
});

test('a regenerated answer takes the place of the old one, and counts beside it', () => {
  const it = withTurn(READ, { turn: turn({ parent: 'msg_q' }), after: 'msg_q' });
  assert.deepEqual(shown(it), ['Why?', '']);
  const fresh = it.entries[1];
  assert.ok(fresh);
  assert.deepEqual(familyOf(it, fresh), { ids: ['msg_a', 'msg_b', ''], at: 2 });
  assert.deepEqual(createFrame(turn({ parent: 'msg_q' })).input, []);
  // The page that was asked for before says nothing of it; the one after keeps it where it is.
  assert.equal(withItems(it, page([Q, A])), it);
  assert.deepEqual(shown(withItems(it, page([Q, A], { sent: 1 }))), ['Why?', '']);
});

test('an edited question begins a branch, from the very first one, too', () => {
  const it = withTurn(READ, { turn: turn({ text: 'How?' }), after: '' });
  assert.deepEqual(shown(it), ['How?', '']);
  const question = it.entries[0];
  assert.ok(question);
  assert.deepEqual(familyOf(it, question), { ids: ['msg_q', ''], at: 1 });
});

test('an answer that goes on keeps its text until the tape has it', () => {
  const stopped = withItems(EMPTY, page([Q, { ...A, status: 'incomplete' }]));
  let it = withTurn(stopped, { turn: turn({ continues: 'resp_1', parent: 'msg_q' }), after: 'msg_q' }).entries[1];
  assert.ok(it?.kind === 'answer');
  assert.equal(textOf(it), 'Because.');
  const delta = { type: 'response.output_text.delta', output_index: 0, content_index: 0 };
  it = reduceAnswer(it, { ...delta, delta: 'Be', sequence_number: 1 });
  assert.equal(textOf(it), 'Because.');
  it = reduceAnswer(it, { ...delta, delta: 'cause. And', sequence_number: 2 });
  assert.equal(textOf(it), 'Because. And');
  assert.equal(createFrame(turn({ continues: 'resp_1' })).continue, 'resp_1');
});

test('what this tab asked stays under its parent, wherever the conversation went', () => {
  const asked = withTurn(READ, { turn: turn({ text: 'And?', parent: 'msg_a' }), after: null });
  const theirs = user('msg_x', 'msg_a', 'Somebody else');
  const it = withItems(asked, page([Q, A, theirs, reply('msg_y', 'msg_x', 'Hello')], { sent: 1 }));
  assert.deepEqual(shown(it), ['Why?', 'Because.', 'And?', '']);
});

test('another branch is shown without what belongs to the one that was left', () => {
  const asked = withTurn(READ, { turn: turn({ parent: 'msg_q' }), after: 'msg_q' });
  const chosen = { ...asked, leaf: 'msg_a' };
  assert.equal(withItems(chosen, page([Q, A], { sent: 1 })), chosen, 'read for the branch that was left');
  const it = withItems(chosen, page([Q, A], { sent: 1, leaf: 'msg_a' }));
  assert.deepEqual(shown(it), ['Why?', 'Because.']);
  assert.equal(it.leaf, null);
  assert.equal(liveAnswer(it), null);
});

test('an answer that ends while the items are read does not vanish', () => {
  const running = { response_id: 'resp_9', item_id: 'msg_n', parent: 'msg_q' };
  let it = withRunning(withItems(EMPTY, page([Q])), { streamId: 's', running });
  const live = it.entries.at(-1);
  assert.ok(live?.kind === 'answer');
  const events = [
    { type: 'response.output_text.delta', delta: 'Done', sequence_number: 5 },
    { type: 'response.completed', sequence_number: 6, response: { id: 'resp_9', item_id: 'msg_n', output: [reply('msg_n', 'msg_q', 'Done')] } },
  ];
  it = { ...it, entries: it.entries.with(-1, events.reduce(reduceAnswer, live)) };
  assert.deepEqual(shown(withItems(it, page([Q], { live: ['s'] }))), ['Why?', 'Done']);
  assert.deepEqual(shown(withItems(it, page([Q]))), ['Why?'], 'it was deleted');
  const stored = withItems(it, page([Q, reply('msg_n', 'msg_q', 'Done')]));
  assert.deepEqual(stored.entries.map(({ key }) => key), ['msg_q', 's']);
});

test('a running answer counts among its siblings, shown or not', () => {
  const running = [{ response_id: 'resp_9', item_id: 'msg_n', parent: 'msg_q' }];
  const it = { ...READ, running };
  const a = it.entries[1];
  assert.ok(a);
  assert.deepEqual(familyOf(it, a), { ids: ['msg_a', 'msg_b', 'msg_n'], at: 0 });
  const above = withItems(EMPTY, page([{ ...Q, children: ['msg_a', 'msg_b'] }]));
  const followed = withRunning({ ...above, running }, { streamId: 's', running: /** @type {any} */ (running[0]) });
  const n = followed.entries[1];
  assert.ok(n);
  assert.deepEqual(familyOf(followed, n), { ids: ['msg_a', 'msg_b', 'msg_n'], at: 2 });
});

test('a deleted entry goes with what is under it; what stood beside it is wanted next', () => {
  const it = withCut(READ, 'msg_a');
  assert.deepEqual([shown(it), it.leaf], [['Why?'], 'msg_b']);
  assert.deepEqual([shown(withCut(READ, 'msg_q')), withCut(READ, 'msg_q').leaf], [[], null]);
  assert.equal(withCut(READ, 'nothing'), READ);
});

test('the server names the question and the answer with its first word', () => {
  const asked = reduce(INITIAL, { type: 'local.sent', turn: turn({ text: 'Hi' }), after: null });
  const created = { id: 'resp_1', status: 'queued', parent: 'msg_1', item_id: 'msg_2' };
  const state = reduce(asked, { type: 'response.created', sequence_number: 0, stream_id: 's', response: created });
  assert.deepEqual(state.transcripts.conv_1?.entries.map(({ id, parent }) => [id, parent]), [['msg_1', null], ['msg_2', 'msg_1']]);
  assert.equal(endOf(state.transcripts.conv_1), 'msg_2');
});

test('how a conversation stands is told to the list and to the transcript', () => {
  let state = reduce(INITIAL, { type: 'local.opened', conversation: 'conv_1' });
  const told = { id: 'conv_1', title: 'Boats', created_at: 1, running: [{ response_id: 'r', item_id: 'i', parent: null }] };
  state = reduce(state, { type: 'local.changed', conversation: told });
  assert.equal(state.list.conversations[0]?.title, 'Boats');
  assert.equal(state.transcripts.conv_1?.running.length, 1);
  state = reduce(state, { type: 'local.changed', conversation: { ...told, title: 'Ships', running: [] } });
  assert.deepEqual([state.list.conversations.map(({ title }) => title), state.transcripts.conv_1?.running], [['Ships'], []]);
  assert.deepEqual(running(state), []);
});

test('the newest account says what the model still sees', () => {
  const context = { window: 9, sent: 5, dropped: ['msg_q'], cut: 'msg_a' };
  assert.equal(contextOf([answer({ key: '1', context }), answer({ key: '2' })]), context);
  assert.equal(contextOf([]), null);
});

test('reasoning is timed by whoever saw it, and a lost engine is told', () => {
  const asked = withTurn(EMPTY, { turn: turn({ text: 'Hi' }), after: null }).entries[1];
  assert.ok(asked?.kind === 'answer');
  const events = [
    { type: 'response.reasoning_text.delta', delta: 'Hm', sequence_number: 1, at: 1000 },
    { type: 'response.reasoning_text.delta', delta: '…', sequence_number: 2, at: 2000 },
    { type: 'response.output_text.delta', delta: 'Yes', sequence_number: 3, at: 4200 },
  ];
  assert.equal(events.reduce(reduceAnswer, asked).thoughtMs, 3200);
  assert.equal(events.reduce(reduceAnswer, answer({ key: 'followed' })).thoughtMs, 0);
  const lost = reduceAnswer(asked, { type: 'response.in_progress', sequence_number: 4, recovery: { state: 'interrupted' } });
  assert.ok(lost.recovery === 'interrupted' && isLive(lost));
  assert.equal(reduceAnswer(lost, { ...events[2], type: 'response.output_text.delta', sequence_number: 5 }).recovery, '');
});
