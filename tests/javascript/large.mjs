// An answer whose closing event is over 1 MiB, by both doors of the official SDK: `node large.mjs BASE_URL LENGTH`.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const [, , url, length] = process.argv;
const ask = { model: 'tiny', input: 'Hello' };
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'unused', maxRetries: 0, timeout: 30_000 });

/** Take events up to the last; the deltas and each closing event must have the same text, all of it. */
class Reading {
  deltas = '';

  /** Take one; return whether it was the last. */
  take(event) {
    if (event.type === 'response.output_text.delta') this.deltas += event.delta;
    if (event.type === 'response.output_text.done') this.whole(event.text);
    if (event.type !== 'response.completed') return false;
    this.whole(event.response.output[0].content[0].text);
    assert.ok(JSON.stringify(event).length > 2 ** 20);
    return true;
  }

  whole(text) {
    assert.equal(text.length, Number(length));
    assert.ok(text === this.deltas);
  }
}

async function sse() {
  const reading = new Reading();
  let ended = false;
  for await (const event of await client.responses.create({ ...ask, stream: true })) ended = reading.take(event);
  assert.ok(ended);
}

async function socket() {
  const ws = new ResponsesWS(client), reading = new Reading();
  await new Promise((resolve, reject) => {
    ws.on('error', reject);
    ws.on('close', () => reject(new Error('closed before the end')));
    ws.on('event', (event) => {
      try {
        if (reading.take(event)) resolve();
      } catch (error) {
        reject(error);
      }
    });
    ws.send({ type: 'response.create', ...ask });
  });
  ws.close();
}

for (const part of [sse, socket]) {
  await part();
  console.log(`${part.name}: ok`);
}
