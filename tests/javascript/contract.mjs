// The official SDK for JavaScript against a running server: `node contract.mjs BASE_URL`. Fails by an assertion.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const model = 'deepseek-chat'; // an alias, as a team would have it that changes only the base URL
const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: 'unused', maxRetries: 0, timeout: 30_000 });
const messages = [{ role: 'user', content: 'Hello there' }];

async function chat() {
  const whole = await client.chat.completions.create({ model, messages, max_tokens: 30, temperature: 0 });
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  const { prompt_cache_hit_tokens: hit, prompt_cache_miss_tokens: miss } = whole.usage;
  assert.equal(hit + miss, whole.usage.prompt_tokens);
  const options = { stream: true, stream_options: { include_usage: true } };
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 30, temperature: 0, ...options });
  let text = '', last;
  const ids = new Set();
  for await (const chunk of stream) {
    ids.add(chunk.id);
    text += chunk.choices[0]?.delta.content ?? '';
    last = chunk;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(ids.size, 1);
  assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
  const runner = client.chat.completions.stream({ model, messages, max_tokens: 30, temperature: 0 });
  assert.equal((await runner.finalChatCompletion()).choices[0].message.content, text);
}

async function responses() {
  const conversation = await client.conversations.create();
  const stream = await client.responses.create({ model, input: 'Hello there', conversation: conversation.id, stream: true, max_output_tokens: 40 });
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === 'response.output_text.delta' && seen.length > 10) break; // the tab is closed
  }
  const id = seen[0].response.id;
  const after = seen.at(-1).sequence_number;
  const rest = await client.responses.retrieve(id, { stream: true, starting_after: after });
  for await (const event of rest) seen.push(event);
  const text = seen.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join('');
  const stored = await client.responses.retrieve(id);
  assert.equal(stored.output_text ?? stored.output[0].content[0].text, text);
  assert.equal(stored.status, 'incomplete');
  const numbers = seen.map((e) => e.sequence_number);
  assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b));
  const items = [];
  for await (const item of client.conversations.items.list(conversation.id, { limit: 1, order: 'asc' })) items.push(item);
  assert.deepEqual(items.map((item) => item.role), ['user', 'assistant']);
  const next = await client.responses.create({ model, input: 'And?', previous_response_id: id, max_output_tokens: 5 });
  assert.ok(next.usage.input_tokens_details.cached_tokens > 0);
  const running = await client.responses.create({ model, input: 'Hi', background: true, max_output_tokens: 2000 });
  for (let i = 0; i < 2; i += 1) await client.responses.cancel(running.id);
  let now;
  do { now = await client.responses.retrieve(running.id); } while (now.status === 'in_progress');
  assert.equal(now.status, 'cancelled');
  const counted = await client.responses.inputTokens.count({ model, input: 'Hello there' });
  assert.ok(counted.input_tokens > 0);
  await client.responses.delete(id);
  await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
  await client.conversations.delete(conversation.id);
}

async function socket() {
  const ws = new ResponsesWS(client);
  const events = [];
  await new Promise((resolve, reject) => {
    ws.on('error', reject);
    ws.on('event', (event) => {
      events.push(event);
      if (event.type === 'response.completed' || event.type === 'response.incomplete') resolve();
    });
    ws.send({ type: 'response.create', model, input: 'Hello there', max_output_tokens: 20 });
  });
  ws.close();
  assert.equal(events[0].type, 'response.created');
  assert.ok(events.filter((e) => e.type === 'response.output_text.delta').length > 0);
}

async function errors() {
  await assert.rejects(client.chat.completions.create({ model: 'gpt-9', messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(client.chat.completions.create({ model, messages: 5 }), OpenAI.BadRequestError);
  const stopped = new AbortController();
  const stream = await client.responses.create({ model, input: 'Hi', stream: true }, { signal: stopped.signal });
  for await (const event of stream) {
    if (event.type === 'response.output_text.delta') stopped.abort();
  }
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.ok(names.length > 0);
}

for (const part of [chat, responses, socket, errors]) {
  await part();
  console.log(`${part.name}: ok`);
}
