// What is said of an answer beside its text. Pure.

import { isLive } from '../answer.js';

/**
 * @import { Answer } from '../types.d.ts'
 * @import { Speaker } from '../text.js'
 */

/** What the answer is doing. @param {Answer} entry @param {Speaker} t @returns {string} */
export function stateOf(entry, t) {
  if (!isLive(entry)) return { stopped: t('stopped'), incomplete: t('cutShort') }[/** @type {string} */ (entry.phase)] ?? '';
  if (entry.stopAsked) return t('stopping');
  if (entry.recovery) return t(entry.recovery === 'interrupted' ? 'interrupted' : 'resumed');
  if (entry.phase === 'queued' && entry.place > 0) return t('queuedAt', { place: String(entry.place) });
  return entry.phase === 'answering' ? '' : t(entry.phase);
}

/** Failures that the reader can do something about, and what. */
const ADVICE = /** @type {Record<string, string>} */ ({
  context_length_exceeded: 'contextFull', insufficient_quota: 'quota', queue_full: 'overloaded', unavailable: 'overloaded',
  model_loading: 'overloaded', concurrent_limit_exceeded: 'tooMany', rate_limit_exceeded: 'tooMany', model_not_found: 'modelGone',
});

/** Why it failed, and what to do. @param {Answer} entry @param {Speaker} t @returns {string} */
export function failureOf({ failure, responseId }, t) {
  const advice = ADVICE[failure?.reason ?? ''] ?? ADVICE[failure?.code ?? ''];
  const opening = t(responseId === null ? 'unsent' : 'failed');
  if (advice) return `${opening} ${t(advice)}${failure?.wait ? ` ${t('waitFor', { s: t.number(failure.wait) })}` : ''}`;
  return failure?.message ? `${opening} ${failure.message}` : opening;
}

/** @param {Answer} entry @param {Speaker} t */
export function reasoningTitle(entry, t) {
  const { usage, timing } = entry;
  if (isLive(entry) && Object.keys(entry.parts).length === 0) return t('thinking');
  const told = timing?.reasoning_ms || entry.thoughtMs;
  const counted = ((usage?.output_tokens_details?.reasoning_tokens ?? 0) / (timing?.tokens_per_second || Infinity)) * 1000;
  const ms = told || counted;
  return ms ? t('thoughtFor', { s: t.number(Math.max(1, Math.round(ms / 1000))) }) : t('thought');
}

/** @param {Answer} entry @param {Speaker} t @returns {{name: string, words: string}[]} */
export function figuresOf({ usage, timing }, t) {
  const figures = [];
  if (timing?.ttft_ms) figures.push({ name: 'ttft', words: t('ttft', { ms: t.duration(timing.ttft_ms) }) });
  if (timing?.tokens_per_second) figures.push({ name: 'speed', words: t('speed', { n: t.number(timing.tokens_per_second) }) });
  if (!usage) return figures;
  const cached = usage.input_tokens_details?.cached_tokens ?? 0;
  const share = usage.input_tokens > 0 ? cached / usage.input_tokens : 0;
  figures.push({ name: 'prompt', words: t('promptTokens', { n: t.number(usage.input_tokens) }) });
  figures.push({ name: 'cached', words: t('cachedTokens', { n: t.number(cached), share: t.percent(share) }) });
  figures.push({ name: 'output', words: t('outputTokens', { n: t.number(usage.output_tokens) }) });
  return figures;
}
