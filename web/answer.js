// One answer as a pure value: what the tape has told about it so far.
//
//   sending ─> queued ─> reading ─> answering ─> completed | stopped | incomplete | failed
//   resuming ┘ (after a reload, or found running)          └ lost: the tape is gone, read the items instead
//
// Events carry the tape's `sequence_number`: it grows and may skip. An event at or below the last one
// applied is a replay and changes nothing; the `…done` events carry the whole text and heal what was missed.

/** @import { Answer, Event, Phase } from './types.d.ts' */

const LIVE = new Set(['sending', 'queued', 'reading', 'answering', 'resuming']);

/** @param {Partial<Answer> & {key: string}} fields @returns {Answer} */
export function answer(fields) {
  return {
    kind: 'answer', id: null, parent: undefined, siblings: [], children: [], responseId: null, asked: null, carried: '', model: '',
    phase: 'sending', seq: -1, parts: {}, calls: {}, reasoning: '', thinkingSince: 0, thoughtMs: 0, recovery: '', place: 0,
    stopAsked: false, failure: null, usage: null, timing: null, context: null, ...fields,
  };
}

/** Whether more may come. @param {Answer} it */
export const isLive = (it) => LIVE.has(it.phase);

/** @param {Answer} it @returns {string} */
export function textOf(it) {
  const text = Object.values(it.parts).join('\n\n');
  return text.length < it.carried.length ? it.carried : text;
}

/**
 * Apply one server event. Returns the same object if it changes nothing.
 * @param {Answer} it @param {Event} event @returns {Answer}
 */
export function reduceAnswer(it, event) {
  if (!isLive(it)) return it;
  if (event.type === 'error') return refuse(it, event);
  if (event.type === 'response.queue_position') return { ...it, place: event.position }; // not on the tape
  const seq = event.sequence_number;
  if (typeof seq !== 'number' || seq <= it.seq) return it;
  const step = STEPS[event.type];
  return step ? { ...it, ...step(it, event), seq } : { ...it, seq };
}

/** @param {Event} event */
const partKey = (event) => `${event.output_index ?? 0}.${event.content_index ?? 0}`;

/** @type {Record<string, (it: Answer, event: Event) => Partial<Answer>>} */
const STEPS = {
  'response.created': (it, { response }) => ({
    responseId: response.id, id: response.item_id ?? it.id, parent: response.parent ?? it.parent, phase: waiting(it, response),
  }),
  'response.queued': (it, event) => ({ responseId: event.response?.id ?? it.responseId, phase: 'queued' }),
  'response.in_progress': (it, event) => ({ responseId: event.response?.id ?? it.responseId, phase: started(it), recovery: event.recovery?.state ?? '' }),
  'response.output_text.delta': (it, event) => ({
    phase: 'answering', recovery: '', thoughtMs: it.thoughtMs || elapsed(it, event),
    parts: { ...it.parts, [partKey(event)]: (it.parts[partKey(event)] ?? '') + event.delta },
  }),
  'response.output_text.done': (it, event) => ({ parts: { ...it.parts, [partKey(event)]: event.text } }),
  'response.reasoning_text.delta': (it, event) => ({
    phase: 'answering', recovery: '', reasoning: it.reasoning + event.delta, thinkingSince: it.thinkingSince || thinking(it, event),
  }),
  'response.reasoning_text.done': (it, event) => ({ reasoning: event.text, thoughtMs: elapsed(it, event) }),
  'response.output_item.added': called,
  'response.function_call_arguments.delta': (it, { item_id: id, delta }) => ({
    phase: 'answering', recovery: '', calls: { ...it.calls, [id]: { ...it.calls[id], arguments: it.calls[id]?.arguments + delta } },
  }),
  'response.output_item.done': called,
  'response.completed': (it, event) => ended(it, event.response, 'completed'),
  'response.incomplete': (it, event) =>
    ended(it, event.response, event.response.status === 'cancelled' ? 'stopped' : 'incomplete'),
  'response.failed': (it, event) => ({
    ...ended(it, event.response, 'failed'),
    failure: event.response.error ?? { code: 'failed', message: '' },
  }),
};

/** Only who saw it happen knows when it began: a replayed tape comes all at once. @param {Answer} it @param {Event} event */
const thinking = (it, event) => (it.asked ? (event.at ?? 0) : 0);

/** @param {Answer} it @param {Event} event */
const elapsed = (it, event) => (it.thinkingSince ? Math.max(1, event.at - it.thinkingSince) : 0);

/** @param {Answer} it @param {{status?: string}} response @returns {Phase} */
const waiting = (it, response) => (response.status === 'queued' ? 'queued' : started(it));

/** @param {Answer} it @returns {Phase} */
const started = (it) => (textOf(it) || it.reasoning ? 'answering' : 'reading');

/** @param {Answer} it @param {any} response @param {Phase} phase @returns {Partial<Answer>} */
function ended(it, response, phase) {
  const output = response.output ?? [];
  return {
    phase,
    recovery: '',
    // Nothing was kept of an answer that ended before its first word.
    id: output.length ? (response.item_id ?? output.at(-1).id) : null,
    responseId: response.id ?? it.responseId,
    carried: '',
    parts: output.length ? wholeText(output) : it.parts,
    calls: { ...it.calls, ...callsOf(output) },
    reasoning: output.map(reasoningOf).join('') || it.reasoning,
    ...figuresOf(response),
  };
}

/** The tool calls among items, by id. @param {any[]} items @returns {Answer['calls']} */
export const callsOf = (items) => Object.fromEntries(items.filter(({ type }) => type === 'function_call').map((item) => [item.id, item]));

/** @param {Answer} it @param {Event} event @returns {Partial<Answer>} */
function called(it, { item }) {
  return { calls: { ...it.calls, ...callsOf([item]) } };
}

/** What a response says of itself beside its answer. @param {any} response */
export const figuresOf = (response) => ({
  usage: response.usage ?? null, timing: response.timing ?? null, context: response.context ?? null, model: response.model ?? '',
});

/** The text of an item of reasoning, '' of any other. @param {any} item @returns {string} */
export const reasoningOf = (item) => (item.type === 'reasoning' ? [...(item.content ?? []), ...(item.summary ?? [])] : [])
  .map((/** @type {any} */ part) => part.text).join('\n\n');

/** The text of a finished response, under the same keys as its deltas. @param {any[]} output */
function wholeText(output) {
  /** @type {Record<string, string>} */
  const parts = {};
  output.forEach((item, outputIndex) => {
    if (item.type !== 'message') return;
    item.content.forEach((/** @type {any} */ part, /** @type {number} */ contentIndex) => {
      if (part.type === 'output_text') parts[`${outputIndex}.${contentIndex}`] = part.text;
    });
  });
  return parts;
}

/** Whether a refusal may end by itself: too many at once, or something behind the server is away. @param {Event} event */
export const isPassing = (event) => event.status >= 429;

/**
 * An error frame: the command was refused. If the answer is already known, only following it was: a passing
 * refusal then changes nothing, and the tape may be gone.
 * @param {Answer} it @param {Event} event @returns {Answer}
 */
function refuse(it, event) {
  if (it.responseId !== null && isPassing(event)) return it;
  const { code = 'error', message = '', headers } = event.error ?? {};
  const failure = { code: String(code), message: String(message), status: event.status, wait: Number(headers?.['retry-after'] ?? 0) };
  return { ...it, phase: it.responseId !== null && event.status === 404 ? 'lost' : 'failed', failure };
}
