import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EnterRule, endsInHangul } from '../../web/keys.js';

/** @param {Partial<import('../../web/types.d.ts').Press>} [fields] */
const press = (fields = {}) => ({ key: 'Enter', code: 'Enter', keyCode: 13, isComposing: false, shiftKey: false, ...fields });
const COMPOSING = press({ keyCode: 229, isComposing: true });

test('plain Enter sends, with Shift it does not', () => {
  const rule = new EnterRule();
  assert.equal(rule.keyDown(press(), 0), 'send');
  assert.equal(rule.keyDown(press({ shiftKey: true }), 0), 'pass');
  assert.equal(rule.keyDown(press({ key: 'a', code: 'KeyA', keyCode: 65 }), 0), 'pass');
});

test('Chrome, Hangul: Enter in a syllable sends once', () => {
  const rule = new EnterRule();
  rule.compositionStart();
  assert.equal(rule.keyDown(COMPOSING, 0), 'pass');
  assert.equal(rule.compositionEnd(1), 'decide');
  assert.ok(rule.swallowsLineBreak);
  assert.equal(rule.decide('안녕하세요'), true);
  assert.equal(rule.decide('안녕하세요'), false);
});

test('Chrome, Hangul with a second keydown: whichever comes first sends, the other does not', () => {
  const rule = new EnterRule();
  rule.compositionStart();
  rule.keyDown(COMPOSING, 0);
  rule.compositionEnd(1);
  assert.equal(rule.keyDown(press(), 2), 'send');
  assert.equal(rule.decide(''), false);
});

test('Windows names the key "Process"', () => {
  const rule = new EnterRule();
  rule.compositionStart();
  rule.keyDown(press({ key: 'Process', keyCode: 229, isComposing: true }), 0);
  assert.equal(rule.compositionEnd(1), 'decide');
});

test('Japanese, Chinese, Vietnamese: the Enter that confirms is dropped', () => {
  for (const text of ['日本', 'かな', '你好', 'nihao', 'tiếng Việt', '']) {
    const rule = new EnterRule();
    rule.compositionStart();
    rule.keyDown(COMPOSING, 0);
    rule.compositionEnd(1);
    assert.equal(rule.decide(text), false, text);
    assert.equal(rule.keyDown(press(), 500), 'send', 'the next one sends');
  }
});

test('Safari: compositionend comes before the keydown', () => {
  const rule = new EnterRule();
  rule.compositionStart();
  assert.equal(rule.compositionEnd(100), 'nothing');
  assert.equal(rule.keyDown(press({ keyCode: 229 }), 101), 'decide');
  assert.equal(rule.decide('요'), true);
  rule.compositionStart();
  rule.compositionEnd(200);
  assert.equal(rule.keyDown(press({ keyCode: 229 }), 201), 'decide');
  assert.equal(rule.decide('日本'), false);
});

test('an Enter that chose a candidate is forgotten when the word goes on', () => {
  const rule = new EnterRule();
  rule.compositionStart();
  rule.keyDown(COMPOSING, 0);
  rule.keyDown(press({ key: 'Process', code: 'KeyA', keyCode: 229, isComposing: true }), 5);
  assert.equal(rule.compositionEnd(10), 'nothing');
  assert.equal(rule.decide('한'), false);
});

test('a word that began anew before the decision is not cut', () => {
  const rule = new EnterRule();
  rule.compositionStart();
  rule.keyDown(COMPOSING, 0);
  rule.compositionEnd(1);
  rule.compositionStart();
  assert.equal(rule.decide('한'), false);
});

test('Hangul is syllables and letters', () => {
  for (const text of ['요', 'ㅋㅋ', 'ok 네']) assert.ok(endsInHangul(text), text);
  for (const text of ['', 'ok', '네!', '네 ', '日本']) assert.ok(!endsInHangul(text), text);
});
