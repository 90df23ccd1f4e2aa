// An answer's account in full: what it took and what the model saw. Loaded when somebody unfolds one.

import { el } from '../dom.js';

/** @param {import('../types.d.ts').Answer} entry @param {import('../text.js').Speaker} t */
export function detailsList({ usage, timing, context, model }, t) {
  const rows = [[t('model'), model]];
  if (timing?.queued_ms) rows.push([t('waited'), t.duration(timing.queued_ms)]);
  if (timing?.prefill_ms) rows.push([t('readIn'), t.duration(timing.prefill_ms)]);
  const reasoning = usage?.output_tokens_details?.reasoning_tokens;
  if (reasoning) rows.push([t('thought'), t('tokens', { n: t.number(reasoning) })]);
  const list = el('dl', {}, ...rows.map(([name, value]) => row(name ?? '', value ?? '')));
  if (!context?.window) return list;
  const used = context.sent + (usage?.output_tokens ?? 0);
  const share = t.percent(used / context.window);
  list.append(row(t('window'), t('ofWindow', { n: t.number(used), window: t.number(context.window), share }),
    el('meter', { min: '0', max: String(context.window), high: String(context.window * 0.9), value: String(used), 'aria-label': t('window') })));
  if (context.dropped?.length) list.append(row(t('notSent'), t('messages', { n: t.number(context.dropped.length) })));
  if (context.summary) list.append(row(t('summary'), t('tokens', { n: t.number(context.summary.tokens) })));
  return list;
}

/** @param {string} name @param {string} value @param {...Node} more */
const row = (name, value, ...more) => el('div', {}, el('dt', {}, name), el('dd', {}, value, ...more));
