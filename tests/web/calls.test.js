import assert from 'node:assert/strict';
import { test } from 'node:test';

import { answer, reduceAnswer, textOf } from '../../web/answer.js';
import { SHOWN, cutAt } from '../../web/later/box.js';
import { indented } from '../../web/later/json.js';
import { EMPTY, endOf, entriesOf, questionOf, withItems, withRunning } from '../../web/transcript.js';

/** @typedef {import('../../web/types.d.ts').Event} Event */

const Q = { id: 'msg_q', parent: null, type: 'message', role: 'user', content: [{ type: 'input_text', text: 'The weather?' }] };
const SAID = {
  id: 'msg_a', parent: 'msg_q', type: 'message', role: 'assistant', response_id: 'resp_a', content: [{ type: 'output_text', text: 'I look.' }],
};
const CALL = {
  id: 'fc_a_1', parent: 'msg_a', type: 'function_call', status: 'completed', response_id: 'resp_a', call_id: 'call_1', name: 'weather',
  arguments: '{"city":"Huế"}',
};
const OTHER = { ...CALL, id: 'fc_a_2', parent: 'fc_a_1', call_id: 'call_2', name: 'time' };
const GAVE = { id: 'msg_o', parent: 'fc_a_2', type: 'function_call_output', call_id: 'call_1', output: 'sunny' };

/** @param {any[]} items */
const page = (items) => ({ items, more: false, sent: 0, leaf: null, live: [] });

test('calls are part of their answer, what they gave stands under it by the name of the tool', () => {
  const [, it, gave, ...rest] = entriesOf([Q, SAID, CALL, OTHER, GAVE]);
  assert.deepEqual(rest, []);
  assert.ok(it?.kind === 'answer' && gave?.kind === 'output');
  assert.deepEqual([it.id, textOf(it), Object.values(it.calls)], ['msg_a', 'I look.', [CALL, OTHER]]);
  assert.deepEqual([gave.id, gave.name, gave.text, gave.parent], ['msg_o', 'weather', 'sunny', 'msg_a']);
});

test('an answer of calls alone that no response made is one entry, too', () => {
  const [it, ...rest] = entriesOf([{ ...CALL, response_id: null }, { ...OTHER, response_id: null }]);
  assert.ok(it?.kind === 'answer' && rest.length === 0);
  assert.deepEqual([it.id, Object.keys(it.calls)], ['msg_a', ['fc_a_1', 'fc_a_2']]);
  assert.equal(entriesOf([GAVE]).map((gave) => gave.kind === 'output' && gave.name).join(), '');
});

/** @type {Event[]} */
const TAPE = [
  { type: 'response.created', response: { id: 'resp_a', status: 'queued', item_id: 'msg_a', parent: 'msg_q' } },
  { type: 'response.output_item.added', output_index: 0, item: { ...CALL, status: 'in_progress', arguments: '' } },
  ...['{"ci', 'ty":"', 'Huế"}'].map((delta) => ({ type: 'response.function_call_arguments.delta', item_id: CALL.id, output_index: 0, delta })),
  { type: 'response.output_item.done', output_index: 0, item: CALL },
  { type: 'response.completed', response: { id: 'resp_a', status: 'completed', item_id: 'msg_a', output: [CALL] } },
].map((event, sequence_number) => ({ ...event, sequence_number }));

test('a call grows as its arguments come, each once, and is whole in the end', () => {
  const seen = [];
  let it = answer({ key: 's' });
  for (const event of [...TAPE.slice(0, 4), ...TAPE.slice(2)]) {
    it = reduceAnswer(it, event);
    seen.push(Object.values(it.calls).map((call) => `${call.status} ${call.arguments}`).join());
  }
  assert.deepEqual(seen, [
    '', 'in_progress ', 'in_progress {"ci', 'in_progress {"city":"', 'in_progress {"city":"', 'in_progress {"city":"',
    'in_progress {"city":"Huế"}', 'completed {"city":"Huế"}', 'completed {"city":"Huế"}',
  ]);
  assert.deepEqual([it.phase, it.id, textOf(it)], ['completed', 'msg_a', '']);
});

test('what was missed of a call is healed by the end', () => {
  const it = TAPE.filter((_, at) => at === 0 || at === TAPE.length - 1).reduce(reduceAnswer, answer({ key: 's' }));
  assert.deepEqual(it.calls, { [CALL.id]: CALL });
});

test('an answer to what a tool gave is followed, kept while it runs, and can be had anew', () => {
  const read = withItems(EMPTY, page([Q, SAID, CALL, GAVE]));
  assert.equal(endOf(read), 'msg_o');
  const running = { response_id: 'resp_b', item_id: 'msg_b', parent: 'msg_o' };
  const it = withItems(withRunning(read, { streamId: 's', running }), page([Q, SAID, CALL, GAVE]));
  assert.deepEqual(it.entries.map(({ id }) => id), ['msg_q', 'msg_a', 'msg_o', 'msg_b']);
  assert.equal(questionOf(it, 's')?.id, 'msg_o');
});

test('an answer to instructions at the end of a conversation is followed', () => {
  const told = { id: 'msg_s', parent: 'msg_a', type: 'message', role: 'developer', content: [{ type: 'input_text', text: 'Be brief' }] };
  const read = withItems(EMPTY, page([Q, SAID, told]));
  assert.equal(endOf(read), 'msg_s');
  assert.deepEqual(read.entries.map((it) => (it.kind === 'output' ? [it.name, it.text] : it.kind)), ['user', 'answer', [null, 'Be brief']]);
});

test('JSON is put on lines without a change to what it says; all else stays as it is', () => {
  const values = [{}, [], [[], [{}]], { a: 1, b: [1, { c: 'x,{}[]: "\\' }], 'd e': null, f: true, g: -1.5e3 }, [' \n', '한국어']];
  for (const value of values) {
    assert.equal(indented(JSON.stringify(value)), JSON.stringify(value, null, 2));
    assert.equal(indented(JSON.stringify(value, null, 7)), JSON.stringify(value, null, 2));
  }
  assert.equal(indented('{"n":12345678901234567890}'), '{\n  "n": 12345678901234567890\n}');
  for (const text of ['', 'sunny', '12', '"a"', '{"a":', '{a: 1}', '[1,]', ' '.repeat(9)]) assert.equal(indented(text), text);
  const deep = '['.repeat(50_000) + ']'.repeat(50_000);
  assert.ok(indented(deep).length < 100 * deep.length);
});

test('a long text is cut where no letter is', () => {
  assert.equal(cutAt('x'.repeat(SHOWN)), SHOWN);
  assert.equal(cutAt('x'.repeat(SHOWN + 1)), SHOWN);
  assert.equal(cutAt(`${'x'.repeat(SHOWN - 1)}😀`), SHOWN - 1);
});
