// One entry of the transcript as an element that follows its value.

import { isLive, textOf } from '../answer.js';
import { el, iconButton } from '../dom.js';
import { MarkdownView } from '../markdown.js';
import { isTakenBack } from '../transcript.js';

/**
 * @import { Answer, Entry, MessageView } from '../types.d.ts'
 * @import { Speaker } from '../text.js'
 */

/** @param {Entry} entry @param {Speaker} t @returns {MessageView} */
export function messageView(entry, t) {
  const view = entry.kind === 'user' ? questionView(t) : answerView(t);
  view.node.dataset.key = entry.key;
  view.update(entry);
  return view;
}

/** @param {Speaker} t @returns {MessageView} */
function questionView(t) {
  const bubble = el('div', { class: 'bubble', dir: 'auto' });
  const node = el('article', { class: 'message question', 'aria-label': t('you') }, bubble,
    el('div', { class: 'under' }, copyButton(t)));
  return {
    node,
    update(entry) {
      if (entry.kind === 'user' && bubble.textContent !== entry.text) bubble.textContent = entry.text;
    },
  };
}

/** @param {Speaker} t @returns {MessageView} */
function answerView(t) {
  const thoughts = el('div', { class: 'thoughts', dir: 'auto' });
  const reasoning = el('details', { class: 'reasoning' }, el('summary', {}, t('reasoning')), thoughts);
  const body = el('div', { class: 'markdown', dir: 'auto' });
  const state = el('p', { class: 'state' });
  const figures = el('ul', { class: 'figures', 'aria-label': t('figures') });
  const copy = copyButton(t);
  const under = el('div', { class: 'under' }, figures, copy);
  const node = el('article', { class: 'message answer', 'aria-label': t('assistant') }, reasoning, body, state, under);
  const markdown = new MarkdownView(body, { copyCode: t('copyCode'), table: t('table') });
  /** @type {unknown} */
  let shownUsage;

  return {
    node,
    update(entry) {
      if (entry.kind !== 'answer') return;
      const text = textOf(entry);
      markdown.update(text);
      reasoning.hidden = entry.reasoning === '';
      if (thoughts.textContent !== entry.reasoning) thoughts.textContent = entry.reasoning;
      showState(state, entry, t);
      node.dataset.phase = entry.phase;
      node.setAttribute('aria-busy', String(isLive(entry)));
      under.hidden = isLive(entry);
      copy.hidden = text === '';
      if (shownUsage === entry.usage) return;
      shownUsage = entry.usage;
      figures.replaceChildren(...figuresOf(entry, t).map(({ name, words }) => el('li', { 'data-figure': name }, words)));
    },
  };
}

/** @param {Speaker} t */
const copyButton = (t) => iconButton('copy', t('copyMessage'), { 'data-copy': 'message' });

/** @param {HTMLElement} line @param {Answer} entry @param {Speaker} t */
function showState(line, entry, t) {
  const words = stateOf(entry, t);
  line.hidden = words === '';
  line.dataset.kind = isLive(entry) ? 'wait' : entry.phase;
  const again = !isLive(entry) && isTakenBack(entry);
  if (line.firstChild?.textContent === words && again === line.childNodes.length > 1) return;
  line.replaceChildren(el('span', {}, words));
  if (again) line.append(el('button', { type: 'button', class: 'quiet', 'data-again': '' }, t('sendAgain')));
}

/** What to say beside the text itself. @param {Answer} entry @param {Speaker} t @returns {string} */
export function stateOf(entry, t) {
  if (isLive(entry) && entry.stopAsked) return t('stopping');
  switch (entry.phase) {
    case 'queued': return entry.place > 0 ? t('queuedAt', { place: String(entry.place) }) : t('queued');
    case 'sending': case 'reading': case 'resuming': return t(entry.phase);
    case 'stopped': return t('stopped');
    case 'incomplete': return t('cutShort');
    case 'failed': return failureOf(entry, t);
    default: return '';
  }
}

/** @param {Answer} entry @param {Speaker} t */
function failureOf(entry, t) {
  if (entry.failure?.code === 'context_length_exceeded') return t('contextFull');
  const opening = t(entry.responseId === null ? 'unsent' : 'failed');
  return entry.failure?.message ? `${opening} ${entry.failure.message}` : opening;
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
