// The transcript: one element an entry, kept by key; what is done to them; the spoken summary of what happens.

import { isLive, textOf } from '../answer.js';
import { copyText } from './copy.js';
import { byId, el } from '../dom.js';
import { contextOf, familyOf, liveAnswer } from '../transcript.js';
import { messageView } from './message.js';

/**
 * @import { Entry, MessageView, Place, State, Transcript, TranscriptListener } from '../types.d.ts'
 * @import { Speaker } from '../text.js'
 */

export class TranscriptView {
  /** @param {TranscriptListener} listener */
  constructor(listener) {
    this.listener = listener;
    this.root = byId('transcript', HTMLElement);
    this.empty = byId('empty', HTMLElement);
    this.note = byId('transcript-note', HTMLElement);
    this.earlier = byId('earlier', HTMLButtonElement);
    this.announcer = byId('announcer', HTMLElement);
    this.cut = el('p', { class: 'cut', role: 'separator' });
    /** @type {{key: string, parent: string | null | undefined, top: number, act: string} | null} where a message stands whose sibling was asked for */
    this.turning = null;
    /** @type {Speaker} */
    this.t = /** @type {any} */ (null);
    /** @type {Map<string, {entry: Entry, view: MessageView, place: Place | null, drawn: string}>} */
    this.shown = new Map();
    /** @type {string | null | undefined} */
    this.open = undefined;
    this.language = '';
    this.watcher = new IntersectionObserver((changes) => this.#seen(changes));
    this.root.addEventListener('click', (event) => this.#clicked(event));
    this.earlier.addEventListener('click', () => listener.onEarlier());
    this.note.addEventListener('click', (event) => event.target instanceof HTMLButtonElement && listener.onRetry());
  }

  /** @param {State} state @param {Speaker} t @returns {boolean} whether another conversation is shown now */
  render(state, t) {
    const transcript = state.open === null ? undefined : state.transcripts[state.open];
    const entries = transcript?.entries ?? [];
    this.t = t;
    const switched = this.open !== state.open && !entries.some((entry) => this.shown.has(entry.key));
    if (switched || this.language !== t.language) this.#clear();
    this.open = state.open;
    this.language = t.language;
    this.#reconcile(entries, t);
    if (transcript) this.#arrange(transcript);
    this.#turned(entries);
    this.#frame(state.open !== null && transcript ? transcript : null, t);
    return switched;
  }

  /** @param {Transcript | null} transcript @param {Speaker} t */
  #frame(transcript, t) {
    const none = !transcript?.entries.length;
    this.empty.hidden = !none || (transcript !== null && transcript.phase !== 'ready');
    this.earlier.hidden = !transcript?.more;
    this.note.hidden = !none || transcript === null || transcript.phase === 'ready';
    if (this.note.hidden || this.note.dataset.phase === transcript?.phase) return;
    this.note.dataset.phase = transcript?.phase ?? '';
    this.note.textContent = transcript?.phase === 'loading' ? t('loading') : '';
    if (transcript?.phase !== 'failed') return;
    const retry = document.createElement('button');
    retry.className = 'button';
    retry.textContent = t('retry');
    this.note.replaceChildren(retry);
  }

  /** @param {readonly Entry[]} entries @param {Speaker} t */
  #reconcile(entries, t) {
    const keys = new Set(entries.map(({ key }) => key));
    for (const [key, { view }] of this.shown) if (!keys.has(key)) this.#remove(key, view.node);
    const nodes = entries.map((entry) => this.#show(entry, t));
    const context = contextOf(entries);
    const at = context?.cut ? entries.findIndex(({ id }) => id === context.cut) : -1;
    if (context && at >= 0) {
      const words = t('cut', { n: t.number(context.dropped.length) });
      if (this.cut.textContent !== words) this.cut.textContent = words;
      nodes.splice(at, 0, this.cut);
    } else this.cut.remove();
    /** @type {Element | null} */
    let place = this.root.firstElementChild;
    for (const node of nodes) {
      if (node === place) place = place.nextElementSibling;
      else this.root.insertBefore(node, place);
    }
  }

  /** Tell each message its place among its siblings, and whether the model still sees it. @param {Transcript} transcript */
  #arrange(transcript) {
    const busy = liveAnswer(transcript) !== null;
    const dropped = new Set(contextOf(transcript.entries)?.dropped);
    for (const entry of transcript.entries) {
      const mine = this.shown.get(entry.key);
      const place = { ...familyOf(transcript, entry), busy, dropped: dropped.has(entry.id ?? '') };
      const drawn = JSON.stringify([place, entry.id]);
      if (!mine || mine.drawn === drawn) continue;
      mine.drawn = drawn;
      mine.place = place;
      mine.view.place(entry, place);
      mine.view.node.classList.toggle('dropped', place.dropped);
    }
  }

  /** A sibling takes the place of another: it stands where that one stood, and the same button has the focus. @param {readonly Entry[]} entries */
  #turned(entries) {
    const { turning } = this;
    const entry = turning && entries.find((it) => it.parent === turning.parent && it.kind !== 'summary');
    const mine = entry && this.shown.get(entry.key);
    if (!turning || !mine || mine.view.node.dataset.key === turning.key) return;
    this.turning = null;
    byId('scroller', HTMLElement).scrollTop += mine.view.node.getBoundingClientRect().top - turning.top;
    const [first, second] = turning.act === 'before' ? ['before', 'after'] : ['after', 'before'];
    const button = [first, second]
      .map((act) => mine.view.node.querySelector(`[data-act=${act}]:not(:disabled)`)).find(Boolean);
    if (button instanceof HTMLElement) button.focus({ preventScroll: true });
    this.announcer.textContent = mine.view.node.querySelector('.count')?.textContent ?? '';
  }

  /** @param {Entry} entry @param {Speaker} t @returns {HTMLElement} */
  #show(entry, t) {
    const old = this.shown.get(entry.key);
    if (!old || old.entry.kind !== entry.kind) {
      if (old) this.#remove(entry.key, old.view.node);
      const view = messageView(entry, t);
      this.shown.set(entry.key, { entry, view, place: null, drawn: '' });
      this.watcher.observe(view.node);
      return view.node;
    }
    if (old.entry !== entry) {
      old.view.update(entry);
      this.#announce(old.entry, entry, t);
      old.entry = entry;
    }
    return old.view.node;
  }

  /** @param {Entry} before @param {Entry} after @param {Speaker} t */
  #announce(before, after, t) {
    if (before.kind !== 'answer' || after.kind !== 'answer' || before.phase === after.phase) return;
    const words = { completed: 'answered', answering: 'answering', stopped: 'stopped', failed: 'failed', incomplete: 'cutShort', queued: 'queued' };
    const key = words[/** @type {keyof typeof words} */ (after.phase)];
    if (key) this.announcer.textContent = t(key);
  }

  /** @param {string} key @param {HTMLElement} node */
  #remove(key, node) {
    this.watcher.unobserve(node);
    node.remove();
    this.shown.delete(key);
  }

  #clear() {
    for (const [key, { view }] of this.shown) this.#remove(key, view.node);
    this.announcer.textContent = '';
    delete this.note.dataset.phase;
  }

  /** @param {IntersectionObserverEntry[]} changes */
  #seen(changes) {
    for (const { isIntersecting, target } of changes) {
      const key = target instanceof HTMLElement ? (target.dataset.key ?? '') : '';
      const entry = this.shown.get(key)?.entry;
      if (isIntersecting && entry?.kind === 'answer' && !isLive(entry) && !entry.usage) this.listener.onVisible(key);
    }
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const target = event.target instanceof Element ? event.target : null;
    const message = /** @type {HTMLElement | null | undefined} */ (target?.closest('.message'));
    const entry = this.shown.get(message?.dataset.key ?? '')?.entry;
    if (!message || !entry) return;
    const details = target?.closest('summary')?.parentElement;
    if (details?.classList.contains('details')) return void this.#unfold(details, entry);
    const button = target?.closest('button');
    if (button?.dataset.copy === 'code') void this.#copy(button, button.closest('figure')?.querySelector('code')?.textContent ?? '');
    else if (button?.dataset.act) this.#act(button.dataset.act, entry, message, button);
  }

  /** @param {string} act @param {Entry} entry @param {HTMLElement} message @param {HTMLButtonElement} button */
  #act(act, entry, message, button) {
    const { listener } = this;
    if (act === 'copy') return void this.#copy(button, entry.kind === 'answer' ? textOf(entry) : entry.text);
    if (act === 'edit') return void this.#edit(entry, message, button);
    if (act === 'before' || act === 'after') return this.#turn(act, entry, message);
    /** @type {Record<string, (key: string) => void>} */
    const asks = { again: listener.onAgain, redo: listener.onRegenerate, goOn: listener.onContinue, fork: listener.onFork, remove: listener.onDelete };
    asks[act]?.(entry.key);
  }

  /** @param {'before' | 'after'} act @param {Entry} entry @param {HTMLElement} message */
  #turn(act, entry, message) {
    const place = this.shown.get(entry.key)?.place;
    const id = place?.ids[place.at + (act === 'before' ? -1 : 1)];
    if (!id) return;
    this.turning = { key: entry.key, parent: entry.parent, top: message.getBoundingClientRect().top, act };
    this.listener.onSibling(id);
  }

  /** @param {HTMLElement} details @param {Entry} entry */
  async #unfold(details, entry) {
    if (entry.kind !== 'answer' || details.querySelector('dl')) return;
    const { detailsList } = await import('../later/details.js');
    if (!details.querySelector('dl')) details.append(detailsList(entry, this.t));
  }

  /** @param {Entry} entry @param {HTMLElement} message @param {HTMLButtonElement} button */
  async #edit(entry, message, button) {
    if (entry.kind !== 'user' || message.querySelector('form')) return;
    const { editForm } = await import('../later/edit.js');
    const { form, field } = editForm(entry.text, this.t, (text) => {
      form.remove();
      delete message.dataset.editing;
      if (text === null) button.focus({ preventScroll: true });
      else this.listener.onEdit(entry.key, text);
    });
    message.dataset.editing = '';
    message.prepend(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  /** @param {HTMLButtonElement} button @param {string} text */
  async #copy(button, text) {
    const copied = await copyText(text);
    this.listener.onCopied(copied);
    if (!copied) return;
    button.dataset.copied = '';
    setTimeout(() => delete button.dataset.copied, 1500);
  }
}
