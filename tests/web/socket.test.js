import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Connection, isTerminal, retryDelay } from '../../web/socket.js';

/** A browser without a browser: sockets that the test plays, and a clock that it moves. */
function surroundings() {
  /** @type {any[]} */
  const sockets = [];
  /** @type {Map<number, {call: () => void, at: number}>} */
  const timers = new Map();
  let now = 0;
  let next = 1;
  const fake = {
    sockets,
    online: true,
    pass(/** @type {number} */ ms) {
      now += ms;
      for (const [id, { call, at }] of [...timers]) {
        if (at > now || !timers.delete(id)) continue;
        call();
      }
    },
    get timers() {
      return timers.size;
    },
    around: {
      connect: () => {
        const socket = { sent: /** @type {any[]} */ ([]), closed: false, send: (/** @type {string} */ it) => socket.sent.push(JSON.parse(it)), close: () => (socket.closed = true) };
        sockets.push(socket);
        return /** @type {any} */ (socket);
      },
      setTimeout: (/** @type {() => void} */ call, /** @type {number} */ ms) => {
        timers.set(next, { call, at: now + ms });
        return next++;
      },
      clearTimeout: (/** @type {number} */ id) => void timers.delete(id),
      online: () => fake.online,
    },
  };
  return fake;
}

/** @param {Partial<import('../../web/types.d.ts').ConnectionListener>} [listener] */
function connection(listener = {}) {
  const fake = surroundings();
  /** @type {string[]} */
  const log = [];
  const it = new Connection('ws://x', {
    onOpen: () => log.push('opened'),
    onFrame: (frame) => log.push(frame.type),
    onPhase: (phase) => log.push(phase),
    onUnauthenticated: () => log.push('unauthenticated'),
    expecting: () => true,
    token: () => null,
    ...listener,
  }, fake.around);
  return { fake, log, it };
}

test('it opens, signs in first, and hands frames on', () => {
  const { fake, log, it } = connection({ token: () => 'secret' });
  assert.equal(it.send({ type: 'early' }), false);
  it.start();
  fake.sockets[0].onopen();
  assert.deepEqual(fake.sockets[0].sent, [{ type: 'auth', token: 'secret' }]);
  fake.sockets[0].onmessage({ data: '{"type":"a"}' });
  for (const data of ['', '{', '[]', 'null', '{"no":1}', new ArrayBuffer(1)]) fake.sockets[0].onmessage({ data });
  assert.deepEqual(log, ['connecting', 'open', 'opened', 'a']);
});

test('it comes back after a passing close, later each time, and at once after success', () => {
  const { fake, log, it } = connection();
  it.start();
  for (let attempt = 0; attempt < 5; attempt += 1) {
    fake.sockets.at(-1).onclose({ code: 1006, reason: '' });
    assert.equal(log.at(-1), 'waiting');
    fake.pass(retryDelay(attempt, () => 0) - 1);
    assert.equal(fake.sockets.length, attempt + 1, 'not before its time');
    fake.pass(retryDelay(attempt, () => 1));
    assert.equal(fake.sockets.length, attempt + 2);
  }
  fake.sockets.at(-1).onopen();
  fake.sockets.at(-1).onmessage({ data: '{"type":"a"}' });
  assert.equal(it.attempt, 0);
});

test('delays double up to a bound, with jitter', () => {
  assert.equal(retryDelay(0, () => 1), 500);
  assert.equal(retryDelay(3, () => 1), 4000);
  assert.equal(retryDelay(50, () => 1), 15_000);
  assert.equal(retryDelay(3, () => 0), 2000);
});

test('a terminal close is not retried', () => {
  for (const code of [3500, 3999, 4500, 4999]) assert.ok(isTerminal(code));
  for (const code of [1000, 1001, 1006, 1011, 1012, 1013, 3000, 3499, 4000, 4499]) assert.ok(!isTerminal(code));
  const { fake, log, it } = connection();
  it.start();
  fake.sockets[0].onclose({ code: 4503, reason: 'origin' });
  fake.pass(60_000);
  assert.equal(fake.sockets.length, 1);
  assert.equal(log.at(-1), 'refused');
});

test('without a valid key it asks for one and stays closed', () => {
  const { fake, log, it } = connection();
  it.start();
  fake.sockets[0].onclose({ code: 4501, reason: '' });
  assert.equal(log.at(-1), 'unauthenticated');
  assert.equal(fake.timers, 0);
});

test('a socket that does not open is given up', () => {
  const { fake, it } = connection();
  it.start();
  fake.pass(10_000);
  assert.ok(fake.sockets[0].closed);
  fake.pass(500);
  assert.equal(fake.sockets.length, 2);
});

test('silence while frames are due is taken for death; silence at rest is not', () => {
  let expecting = true;
  const { fake, it } = connection({ expecting: () => expecting });
  it.start();
  fake.sockets[0].onopen();
  it.send({ type: 'x' });
  fake.pass(60_000);
  assert.ok(fake.sockets[0].closed);
  fake.pass(500);
  fake.sockets[1].onopen();
  expecting = false;
  it.send({ type: 'x' });
  fake.pass(120_000);
  assert.ok(!fake.sockets[1].closed);
});

test('a replaced socket is not heard any more', () => {
  const { fake, log, it } = connection();
  it.start();
  fake.sockets[0].onopen();
  it.restart();
  const before = log.length;
  fake.sockets[0].onmessage({ data: '{"type":"late"}' });
  fake.sockets[0].onclose({ code: 1006, reason: '' });
  assert.equal(log.length, before);
  assert.equal(fake.sockets.length, 2);
});

test('offline it waits for the network', () => {
  const { fake, log, it } = connection();
  fake.online = false;
  it.start();
  assert.deepEqual([fake.sockets.length, log.at(-1)], [0, 'offline']);
  fake.online = true;
  it.restart();
  assert.equal(fake.sockets.length, 1);
});
