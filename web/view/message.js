// One entry of the transcript as an element that follows its value.

import { isLive, textOf } from '../answer.js';
import { el, iconButton, needed } from '../dom.js';
import { MarkdownView } from '../markdown.js';
import { canGoOn } from '../talk.js';
import { isTakenBack } from '../transcript.js';
import { failureOf, figuresOf, reasoningTitle, stateOf } from './tell.js';

/**
 * @import { Answer, Entry, MessageView, Place } from '../types.d.ts'
 * @import { Speaker } from '../text.js'
 */

/** @param {Entry} entry @param {Speaker} t @returns {MessageView} */
export function messageView(entry, t) {
  const { kind } = entry;
  const view = kind === 'user' ? questionView(t) : kind === 'answer' ? answerView(t) : rareView(kind, t);
  view.node.dataset.key = entry.key;
  view.update(entry);
  return view;
}

/** @param {Speaker} t @returns {MessageView} */
function questionView(t) {
  const bubble = el('div', { class: 'bubble', dir: 'auto' });
  const acts = actsView(t, ['edit', 'fork', 'remove']);
  const node = el('article', { class: 'message question', 'aria-label': t('you') }, bubble, acts.node);
  return {
    node,
    update(entry) {
      if (entry.kind === 'user' && bubble.textContent !== entry.text) bubble.textContent = entry.text;
    },
    place(entry, place) {
      acts.place(place);
      acts.node.hidden = entry.id === null;
    },
  };
}

/** @param {Speaker} t @returns {MessageView} */
function answerView(t) {
  const thoughts = el('div', { class: 'thoughts', dir: 'auto' });
  const title = el('summary');
  const reasoning = el('details', { class: 'folded' }, title, thoughts);
  const body = el('div', { class: 'markdown', dir: 'auto' });
  const calls = el('div');
  const state = el('p', { class: 'state' });
  const acts = actsView(t, ['redo', 'goOn', 'fork', 'remove']);
  const figures = el('summary', { class: 'figures' });
  const details = el('details', { class: 'details' }, figures);
  const node = el('article', { class: 'message answer', 'aria-label': t('assistant') }, reasoning, body, calls, state, details, acts.node);
  const markdown = new MarkdownView(body, { copyCode: t('copyCode'), table: t('table') });
  /** @type {unknown[]} */
  let shown = [];
  /** @type {MessageView | undefined} */
  let called;

  return {
    node,
    update(entry) {
      if (entry.kind !== 'answer') return;
      const live = isLive(entry);
      const text = textOf(entry);
      markdown.update(text);
      reasoning.hidden = entry.reasoning === '';
      setText(title, reasoningTitle(entry, t));
      grow(thoughts, entry.reasoning);
      if (Object.keys(entry.calls).length) (called ??= rareView('calls', t, calls)).update(entry);
      showState(state, entry, t);
      node.dataset.phase = entry.phase;
      node.setAttribute('aria-busy', String(live));
      acts.show({ copy: text !== '', redo: !live, goOn: canGoOn(entry), fork: entry.id !== null && !live, remove: entry.id !== null && !live });
      details.hidden = live || entry.usage === null;
      if (shown[0] === entry.usage && shown[1] === entry.context) return;
      shown = [entry.usage, entry.context];
      figures.replaceChildren(...figuresOf(entry, t).map(({ name, words }) => el('span', { 'data-figure': name }, words)));
      details.open = false;
      details.querySelector('dl')?.remove();
    },
    place(_, place) {
      acts.place(place);
    },
  };
}

/**
 * What few conversations have: what draws it is loaded then.
 * @param {'calls' | 'output' | 'summary'} what @param {Speaker} t @param {HTMLElement} [node] @returns {MessageView}
 */
function rareView(what, t, node = el('article', { class: 'message' })) {
  const view = needed(() => import(`../later/${what}.js`).then((it) => it.view(node, t)));
  return {
    node,
    update: (entry) => view((it) => it.update(entry)),
    place: (entry, place) => view((it) => it.place(entry, place)),
  };
}

const ICONS = /** @type {const} */ ({ edit: 'pencil', redo: 'redo', goOn: 'goOn', fork: 'fork', remove: 'bin' });

/** What can be done with an entry, and the way to those beside it. @param {Speaker} t @param {(keyof typeof ICONS)[]} names */
export function actsView(t, names) {
  const count = el('span', { class: 'count' });
  const before = iconButton('left', t('earlierVersion'), { 'data-act': 'before' });
  const after = iconButton('right', t('laterVersion'), { 'data-act': 'after' });
  const family = el('span', { class: 'family', role: 'group', 'aria-label': t('versions') }, before, count, after);
  const buttons = names.map((name) => iconButton(ICONS[name], t(name === 'remove' ? 'deleteItem' : name), { 'data-act': name }));
  const copy = iconButton('copy', t('copyMessage'), { 'data-act': 'copy', 'data-copy': 'message' });
  const node = el('div', { class: 'acts' }, family, copy, ...buttons);
  return {
    node,
    /** @param {Record<string, boolean>} which */
    show(which) {
      for (const it of [copy, ...buttons]) it.hidden = which[it.dataset.act ?? ''] === false;
    },
    /** @param {Place} place */
    place({ ids, at, busy }) {
      family.hidden = ids.length < 2;
      count.textContent = `${at + 1} / ${ids.length}`;
      before.disabled = at === 0;
      after.disabled = at === ids.length - 1;
      for (const it of buttons) it.disabled = busy && it.dataset.act !== 'fork';
    },
  };
}

/** @param {HTMLElement} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Add what is new, so that a selection in the rest stays. @param {HTMLElement} node @param {string} text */
export function grow(node, text) {
  const shown = node.textContent ?? '';
  if (text.startsWith(shown)) node.append(text.slice(shown.length));
  else node.textContent = text;
}

/** @param {HTMLElement} line @param {Answer} entry @param {Speaker} t */
function showState(line, entry, t) {
  const words = entry.phase === 'failed' ? failureOf(entry, t) : stateOf(entry, t);
  line.hidden = words === '';
  line.dataset.kind = isLive(entry) ? 'wait' : entry.phase;
  const again = !isLive(entry) && isTakenBack(entry) && entry.asked !== null;
  if (line.firstChild?.textContent === words && again === line.childNodes.length > 1) return;
  line.replaceChildren(el('span', {}, words));
  if (again) line.append(el('button', { type: 'button', class: 'quiet', 'data-act': 'again' }, t('sendAgain')));
}
