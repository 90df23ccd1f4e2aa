import assert from 'node:assert/strict';
import { test } from 'node:test';

import { api } from '../../web/api.js';

const part = (/** @type {string} */ id, /** @type {string | null} */ response_id = null) => ({ id, response_id });
const BRANCH = [part('q1'), part('rs_1', 'r1'), part('msg_1', 'r1'), part('q2'), part('rs_2', 'r2'), part('msg_2', 'r2')];

test('no page of items begins within an answer, and none is lost', async (context) => {
  for (let limit = 2; limit < 8; limit++) {
    context.mock.method(globalThis, 'fetch', async (/** @type {string} */ url) => {
      const after = new URL(url, 'http://x').searchParams.get('after');
      const end = after ? BRANCH.findIndex((it) => it.id === after) : BRANCH.length;
      const data = BRANCH.slice(Math.max(0, end - limit), end).reverse();
      return new Response(JSON.stringify({ data, has_more: end > limit }));
    });
    let found = /** @type {any[]} */ ([]), more = true;
    while (more) {
      const page = await api(() => null).items('conv_1', { after: found[0]?.id ?? null });
      assert.ok(page.items.length && !page.items[0].id.startsWith('msg_') || limit < 3, `${limit}`);
      found = [...page.items, ...found];
      more = page.more;
    }
    assert.deepEqual(found, BRANCH);
  }
});
