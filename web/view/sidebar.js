// The list of conversations: open, rename, delete, search. On a narrow screen it is a drawer.

import { byId, el, iconButton } from '../dom.js';

/**
 * @import { Conversation, List, SidebarListener, State } from '../types.d.ts'
 * @import { Speaker } from '../text.js'
 */

const NARROW = '(max-width: 799px)';

export class Sidebar {
  /** @param {SidebarListener} listener */
  constructor(listener) {
    this.listener = listener;
    this.root = byId('sidebar', HTMLElement);
    this.list = byId('conversations', HTMLElement);
    this.note = byId('list-note', HTMLElement);
    this.more = byId('list-more', HTMLButtonElement);
    this.toggle = byId('show-list', HTMLButtonElement);
    this.shade = byId('shade', HTMLElement);
    this.narrow = matchMedia(NARROW);
    this.drawn = '';
    this.#listen();
    this.setOpen(false);
  }

  /** Show or hide the drawer; beside the transcript the list is always there. @param {boolean} open */
  setOpen(open) {
    const hidden = this.narrow.matches && !open;
    const held = this.root.contains(document.activeElement);
    this.root.inert = hidden;
    this.root.dataset.open = String(!hidden);
    this.shade.hidden = hidden || !this.narrow.matches;
    this.toggle.setAttribute('aria-expanded', String(!hidden));
    if (hidden && held) this.toggle.focus();
    if (this.narrow.matches && open) byId('new', HTMLElement).focus();
  }

  /** Whether the drawer covers the transcript. */
  get covering() {
    return !this.shade.hidden;
  }

  /** @param {State} state @param {Speaker} t */
  render(state, t) {
    const { list } = state;
    const drawn = JSON.stringify([list, state.open, t.language, Object.values(state.live)]);
    // A name that is being typed is left in peace: the list is drawn when it is done.
    if (drawn === this.drawn || this.list.querySelector('input')) return;
    this.drawn = drawn;
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.focus : undefined;
    const found = list.conversations.filter(({ title }) => folded(title).includes(folded(list.query)));
    this.list.replaceChildren(...found.map((it) => this.#row(it, state, t)));
    if (focused) this.#focus(focused);
    this.more.hidden = !list.more;
    const empty = found.length === 0;
    this.note.hidden = !empty;
    this.note.textContent = empty ? t(emptyText(list)) : '';
  }

  /** A button that was drawn anew keeps the focus. @param {string} name */
  #focus(name) {
    this.#named(name)?.focus();
  }

  /** @param {string} name @returns {HTMLElement | null} */
  #named(name) {
    return this.list.querySelector(`[data-focus="${CSS.escape(name)}"]`);
  }

  /** @param {Conversation} it @param {State} state @param {Speaker} t */
  #row(it, state, t) {
    const title = it.title || t('untitled');
    const here = state.open === it.id;
    const link = el('a', { href: `#/c/${it.id}`, dir: 'auto', title, 'data-focus': `open ${it.id}`, ...(here ? { 'aria-current': 'page' } : {}) }, title);
    const busy = Object.values(state.live).includes(it.id);
    const rename = iconButton('pencil', t('rename', { title }), { 'data-focus': `rename ${it.id}` });
    const remove = iconButton('bin', t('remove', { title }), { 'data-focus': `remove ${it.id}` });
    rename.addEventListener('click', () => void this.#rename(it, title, t));
    remove.addEventListener('click', () => this.listener.onRemove(it));
    return el('li', busy ? { 'data-busy': '' } : {}, link, el('span', { class: 'row-actions' }, rename, remove));
  }

  /** @param {Conversation} it @param {string} title @param {Speaker} t */
  async #rename({ id }, title, t) {
    const { nameField } = await import('../later/rename.js');
    const name = `rename ${id}`;
    const field = nameField(title, t, (fresh, focused) => {
      field.remove();
      this.drawn = '';
      if (fresh) this.listener.onRename(id, fresh);
      this.onChange();
      if (focused) this.#focus(name);
    });
    this.#named(name)?.closest('li')?.replaceChildren(field);
    field.select();
  }

  /** Asks the page to draw again; set by it. */
  onChange = () => {};

  #listen() {
    this.toggle.addEventListener('click', () => this.setOpen(this.root.inert));
    this.shade.addEventListener('click', () => this.setOpen(false));
    this.narrow.addEventListener('change', () => this.setOpen(false));
    this.more.addEventListener('click', () => this.listener.onMore());
    this.root.addEventListener('click', (event) => {
      if (event.target instanceof Element && event.target.closest('a')) this.setOpen(false);
    });
    const search = byId('search', HTMLInputElement);
    search.addEventListener('input', () => this.listener.onSearch(search.value.trim()));
  }
}

/** Letters alone: "hanoi" finds "Hà Nội". @param {string} text */
const folded = (text) => text.normalize('NFD').replace(/\p{M}/gu, '').replace(/đ/gi, 'd').toLowerCase();

/** @param {List} list */
function emptyText(list) {
  if (list.phase === 'loading') return 'loading';
  return list.query ? 'nothingFound' : 'noConversations';
}
