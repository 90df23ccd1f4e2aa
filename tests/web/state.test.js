import assert from 'node:assert/strict';
import { test } from 'node:test';

import { answer, isLive, reduceAnswer, textOf } from '../../web/answer.js';
import { DRAFT, resumeFrames } from '../../web/resume.js';
import { INITIAL, MAX_TRANSCRIPTS, liveHere, reduce, running } from '../../web/state.js';

import { randomly } from './random.js';

/** @typedef {import('../../web/types.d.ts').Event} Event */

const TEXT = 'The quick brown fox jumps over the lazy dog. 안녕하세요! Xin chào.';

/** A whole tape; sequence numbers grow and skip, as they count tokens. @param {Partial<Event>} [end] @returns {Event[]} */
function tape(end = {}) {
  const pieces = TEXT.match(/\S+\s*/g) ?? [];
  /** @type {Event[]} */
  const events = [
    { type: 'response.created', response: { id: 'resp_1', status: 'queued', parent: 'msg_0', item_id: 'msg_1' } },
    { type: 'response.queued', response: { id: 'resp_1', status: 'queued' } },
    { type: 'response.in_progress', response: { id: 'resp_1', status: 'in_progress' } },
    { type: 'response.output_item.added', output_index: 0, item: { id: 'msg_1', type: 'message' } },
    { type: 'response.content_part.added', output_index: 0, content_index: 0, part: {} },
    ...pieces.map((delta) => ({ type: 'response.output_text.delta', output_index: 0, content_index: 0, delta })),
    { type: 'response.output_text.done', output_index: 0, content_index: 0, text: TEXT },
    { type: 'response.content_part.done', output_index: 0, content_index: 0 },
    { type: 'response.output_item.done', output_index: 0, item: { id: 'msg_1', type: 'message' } },
    {
      type: 'response.completed',
      response: {
        id: 'resp_1', status: 'completed', usage: { input_tokens: 9, output_tokens: 12 }, timing: { ttft_ms: 5 },
        output: [{ id: 'msg_1', type: 'message', content: [{ type: 'output_text', text: TEXT }] }],
      },
      ...end,
    },
  ];
  let seq = -1;
  return events.map((event, index) => ({ ...event, sequence_number: (seq += 1 + (index % 3)), stream_id: 's' }));
}

/** @param {Event[]} events */
const play = (events) => events.reduce(reduceAnswer, answer({ key: 's' }));

test('a tape gives its text, its figures and its ids', () => {
  const it = play(tape());
  assert.equal(textOf(it), TEXT);
  assert.equal(it.phase, 'completed');
  assert.equal(it.responseId, 'resp_1');
  assert.equal(it.id, 'msg_1');
  assert.deepEqual(it.usage, { input_tokens: 9, output_tokens: 12 });
});

test('phases follow the tape', () => {
  const seen = tape().map((_, index, events) => play(events.slice(0, index + 1)).phase);
  assert.deepEqual([...new Set(seen)], ['queued', 'reading', 'answering', 'completed']);
});

test('a place in the queue is shown, and takes no number', () => {
  const waiting = [...tape().slice(0, 2), { type: 'response.queue_position', response_id: 'resp_1', position: 3 }];
  assert.equal(play(waiting).place, 3);
  assert.equal(play(waiting).phase, 'queued');
  assert.equal(textOf(play([...waiting, ...tape().slice(2)])), TEXT);
});

test('a replay from any place changes nothing: each event counts once', () => {
  const events = tape();
  for (let cut = 0; cut <= events.length; cut += 1) {
    for (let from = 0; from <= cut; from += 1) {
      const it = play([...events.slice(0, cut), ...events.slice(from)]);
      assert.equal(textOf(it), TEXT);
    }
  }
});

test('duplicates in a row return the same object', () => {
  const events = tape();
  let it = answer({ key: 's' });
  for (const event of events) {
    it = reduceAnswer(it, event);
    assert.equal(reduceAnswer(it, event), it);
  }
});

test('a gap or a late event is healed by the text that ends the item', () => {
  const events = tape();
  const gap = events.filter((_, index) => index !== 7);
  assert.notEqual(textOf(play(gap.slice(0, 12))), TEXT.slice(0, 20));
  assert.equal(textOf(play(gap)), TEXT);
  const late = [...events];
  [late[6], late[8]] = [/** @type {Event} */ (late[8]), /** @type {Event} */ (late[6])];
  assert.equal(textOf(play(late)), TEXT);
  assert.equal(textOf(play(events.filter(({ type }) => !/delta|text.done/.test(type)))), TEXT, 'the end alone');
});

test('a stop, a length limit and a failure are told apart', () => {
  const stopped = play(tape({ type: 'response.incomplete', response: { id: 'resp_1', status: 'cancelled', output: [] } }));
  assert.equal(stopped.phase, 'stopped');
  assert.equal(textOf(stopped), TEXT);
  const cut = play(tape({ type: 'response.incomplete', response: { id: 'resp_1', status: 'incomplete' } }));
  assert.equal(cut.phase, 'incomplete');
  const failed = play(tape({ type: 'response.failed', response: { id: 'resp_1', error: { code: 'engine_failed', message: 'gone' } } }));
  assert.deepEqual([failed.phase, failed.failure?.message], ['failed', 'gone']);
});

test('nothing is heard after the end', () => {
  const it = play(tape());
  assert.equal(reduceAnswer(it, { type: 'response.output_text.delta', delta: '!', sequence_number: 9999 }), it);
  assert.equal(reduceAnswer(it, { type: 'error', status: 404, error: { code: 'not_found', message: '' } }), it);
});

test('a refusal before the first event fails, later it may only mean that the tape is gone', () => {
  const error = (/** @type {number} */ status) => ({ type: 'error', status, error: { code: 'x', message: 'no' } });
  const known = play(tape().slice(0, 8));
  assert.equal(reduceAnswer(answer({ key: 's' }), error(429)).phase, 'failed');
  assert.equal(reduceAnswer(known, error(404)).phase, 'lost');
  assert.equal(reduceAnswer(known, error(503)), known, 'a passing trouble');
});

test('reasoning is kept apart', () => {
  const it = [
    { type: 'response.reasoning_text.delta', delta: 'Let me ', sequence_number: 1 },
    { type: 'response.reasoning_text.delta', delta: 'see', sequence_number: 2 },
    { type: 'response.output_text.delta', output_index: 1, content_index: 0, delta: 'Yes', sequence_number: 3 },
  ].reduce(reduceAnswer, answer({ key: 's' }));
  assert.deepEqual([it.reasoning, textOf(it)], ['Let me see', 'Yes']);
});

/** A state in which question `s` was asked. @param {string} [conversation] */
function asked(conversation = 'conv_1') {
  const turn = { streamId: 's', conversation, model: 'm', text: 'Hello', parent: null, continues: null };
  return reduce(INITIAL, { type: 'local.sent', turn, after: null });
}

/** @param {import('../../web/types.d.ts').State} state @param {Event[]} events */
const feed = (state, events) => events.reduce(reduce, state);

test('frames find their answer by stream id, in whatever conversation is open', () => {
  let state = reduce(asked(), { type: 'local.opened', conversation: 'conv_2' });
  state = feed(state, tape());
  assert.equal(liveHere(state), null);
  assert.deepEqual(state.live, {});
  assert.equal(state.transcripts.conv_1?.entries.length, 2);
  assert.equal(feed(state, [{ type: 'response.output_text.delta', stream_id: 'unknown', delta: 'x', sequence_number: 1 }]), state);
});

test('a draft becomes a conversation without losing its answer', () => {
  const draft = `${DRAFT}s`;
  const state = reduce(asked(draft), { type: 'local.named', from: draft, conversation: { id: 'conv_9', title: 'Hello', created_at: 1 } });
  assert.equal(state.open, 'conv_9');
  assert.deepEqual(state.live, { s: 'conv_9' });
  assert.equal(state.list.conversations[0]?.id, 'conv_9');
});

test('a fresh connection attaches after what is known and asks again for what is not', () => {
  const create = { type: 'response.create', stream_id: 's', idempotency_key: 's', model: 'm', conversation: { id: 'conv_1', parent: null }, input: 'Hello', truncation: 'auto' };
  assert.deepEqual(resumeFrames(asked()), [create]);
  assert.deepEqual(resumeFrames(asked(`${DRAFT}s`)), [], 'a draft is asked once it has a name');
  const events = tape().slice(0, 9);
  const state = feed(asked(), events);
  const attach = { type: 'response.attach', stream_id: 's', response_id: 'resp_1', starting_after: events.at(-1)?.sequence_number };
  assert.deepEqual(resumeFrames(state), [attach]);
  const stopping = reduce(state, { type: 'local.stop_asked', conversation: 'conv_1', streamId: 's' });
  assert.deepEqual(resumeFrames(stopping), [attach, { type: 'response.cancel', response_id: 'resp_1' }]);
  assert.deepEqual(resumeFrames(feed(state, tape())), []);
});

/** @param {string} id @param {string} text */
const user = (id, text) => ({ id, type: 'message', role: 'user', status: 'completed', content: [{ type: 'input_text', text }] });
/** @param {string} id @param {string} text @param {object} [fields] */
const reply = (id, text, fields = {}) =>
  ({ id, type: 'message', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text }], response_id: 'resp_1', ...fields });

/** @param {any[]} items @param {number} sent */
const items = (items, sent) => ({ type: 'local.items', conversation: 'conv_1', sent, leaf: null, live: [], items, more: false });

test('reading the items keeps the elements of what was streamed', () => {
  const before = feed(asked(), tape());
  const state = reduce(before, items([user('msg_0', 'Hello'), reply('msg_1', TEXT)], 1));
  const entries = state.transcripts.conv_1?.entries ?? [];
  assert.deepEqual(entries.map(({ key }) => key), ['s:question', 's']);
});

test('items that were read before the last question are stale', () => {
  const state = asked();
  assert.equal(reduce(state, items([], 0)).transcripts.conv_1, state.transcripts.conv_1);
});

test('a running answer is not shown twice, whoever lists it', () => {
  const state = feed(asked(), tape().slice(0, 9));
  const next = reduce(state, items([user('msg_0', 'Hello'), reply('msg_1', 'The', { status: 'in_progress' })], 1));
  assert.equal(next.transcripts.conv_1?.entries.length, 2);
  const again = { response_id: 'resp_1', item_id: 'msg_1', parent: 'msg_0' };
  const resumed = reduce(next, { type: 'local.resumed', conversation: 'conv_1', streamId: 'other', running: again });
  assert.equal(resumed.transcripts.conv_1, next.transcripts.conv_1);
});

test('a refused question stays, with its reason, until it is sent again', () => {
  const failed = reduce(asked(), { type: 'error', status: 429, error: { code: 'queue_full', message: 'busy' }, stream_id: 's' });
  const read = reduce(failed, items([], 1));
  assert.equal(read.transcripts.conv_1?.entries.length, 2);
  const again = reduce(read, { type: 'local.sent', turn: { ...turnOf(read), streamId: 't' }, after: '' });
  assert.deepEqual(again.transcripts.conv_1?.entries.map(({ key }) => key), ['t:question', 't']);
});

/** How the first answer was asked for. @param {import('../../web/types.d.ts').State} state */
const turnOf = (state) => {
  const it = state.transcripts.conv_1?.entries.find(({ kind }) => kind === 'answer');
  assert.ok(it?.kind === 'answer' && it.asked);
  return it.asked;
};

test('older pages go in front, each item once', () => {
  let state = reduce(INITIAL, { type: 'local.opened', conversation: 'conv_1' });
  state = reduce(state, { ...items([user('msg_c', '3')], 0), more: true });
  state = reduce(state, { type: 'local.earlier', conversation: 'conv_1', items: [user('msg_a', '1'), user('msg_b', '2'), user('msg_c', '3')], more: false });
  assert.deepEqual(state.transcripts.conv_1?.entries.map(({ id }) => id), ['msg_a', 'msg_b', 'msg_c']);
});

test('memory is bounded: idle conversations go, running ones stay', () => {
  let state = asked('conv_run');
  for (let index = 0; index < 3 * MAX_TRANSCRIPTS; index += 1) state = reduce(state, { type: 'local.opened', conversation: `c${index}` });
  assert.ok(Object.keys(state.transcripts).length <= MAX_TRANSCRIPTS);
  assert.equal(running(state).length, 1);
});

test('any interleaving of replays, cuts and readings shows every word once', () => {
  const events = tape();
  for (let seed = 1; seed <= 500; seed += 1) {
    const below = randomly(seed);
    let state = asked();
    let place = 0;
    while (place < events.length) {
      const action = below(4);
      if (action === 0) state = reduce(state, items([user('msg_0', 'Hello')], 1));
      else if (action === 1) place = Math.max(0, place - below(6));
      else {
        state = reduce(state, /** @type {Event} */ (events[place]));
        place += 1;
      }
    }
    const entries = state.transcripts.conv_1?.entries ?? [];
    assert.equal(entries.filter(({ kind }) => kind === 'answer').length, 1);
    const last = entries.at(-1);
    assert.ok(last?.kind === 'answer' && !isLive(last) && textOf(last) === TEXT, `seed ${seed}`);
  }
});
