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
    kind: 'answer', id: null, responseId: null, model: '', phase: 'sending', seq: -1, parts: {}, reasoning: '', place: 0,
    stopAsked: false, failure: null, usage: null, timing: null, ...fields,
  };
}

/** Whether more may come. @param {Answer} it */
export const isLive = (it) => LIVE.has(it.phase);

/** @param {Answer} it @returns {string} */
export const textOf = (it) => Object.values(it.parts).join('\n\n');

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
  'response.created': (it, event) => ({ responseId: event.response.id, phase: waiting(it, event.response) }),
  'response.queued': (it, event) => ({ responseId: event.response?.id ?? it.responseId, phase: 'queued' }),
  'response.in_progress': (it, event) => ({ responseId: event.response?.id ?? it.responseId, phase: started(it) }),
  'response.output_item.added': (it, event) => (event.item.type === 'message' ? { id: event.item.id } : {}),
  'response.output_text.delta': (it, event) => ({
    phase: 'answering',
    parts: { ...it.parts, [partKey(event)]: (it.parts[partKey(event)] ?? '') + event.delta },
  }),
  'response.output_text.done': (it, event) => ({ parts: { ...it.parts, [partKey(event)]: event.text } }),
  'response.reasoning_text.delta': (it, event) => ({ phase: 'answering', reasoning: it.reasoning + event.delta }),
  'response.reasoning_text.done': (_, event) => ({ reasoning: event.text }),
  'response.completed': (it, event) => ended(it, event.response, 'completed'),
  'response.incomplete': (it, event) =>
    ended(it, event.response, event.response.status === 'cancelled' ? 'stopped' : 'incomplete'),
  'response.failed': (it, event) => ({
    ...ended(it, event.response, 'failed'),
    failure: event.response.error ?? { code: 'failed', message: '' },
  }),
};

/** @param {Answer} it @param {{status?: string}} response @returns {Phase} */
const waiting = (it, response) => (response.status === 'queued' ? 'queued' : started(it));

/** @param {Answer} it @returns {Phase} */
const started = (it) => (textOf(it) || it.reasoning ? 'answering' : 'reading');

/** @param {Answer} it @param {any} response @param {Phase} phase @returns {Partial<Answer>} */
function ended(it, response, phase) {
  const message = (response.output ?? []).findLast((/** @type {any} */ item) => item.type === 'message');
  return {
    phase,
    id: message?.id ?? it.id,
    responseId: response.id ?? it.responseId,
    parts: message ? wholeText(response.output) : it.parts,
    usage: response.usage ?? null,
    timing: response.timing ?? null,
  };
}

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
  const failure = { code: String(event.error?.code ?? 'error'), message: String(event.error?.message ?? ''), status: event.status };
  return { ...it, phase: it.responseId !== null && event.status === 404 ? 'lost' : 'failed', failure };
}
