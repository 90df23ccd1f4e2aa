// The page: wires the views to the chat. Drawn at most once a frame, from the state alone.

import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { byId, el, icon, needed } from './dom.js';
import { spoken } from './language.js';
import { memory } from './memory.js';
import { LANGUAGES, speaker } from './text.js';
import { DRAFT } from './resume.js';
import { liveHere } from './state.js';
import { endOf } from './transcript.js';
import { Follow } from './view/scroll.js';
import { Sidebar } from './view/sidebar.js';
import { StatusView } from './view/status.js';
import { TranscriptView } from './view/transcript.js';

/** How long a notice stays. Milliseconds. */
const NOTICE_MS = 8_000;
/** What only some need is fetched this long after the page stands, so that it is there when the server is not. Milliseconds. */
const REST_MS = 1_000;

let t = await spoken;
let drawing = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let noticeTimer;
/** @type {import('./types.d.ts').State['notice']} */
let notice = null;
/** The address that the page shows. Another one is a link just followed, whose `hashchange` is on its way. */
let address = location.hash;

const chat = new Chat({ onChange: drawSoon });
const composer = new Composer({ onSend: send, onStop: () => chat.stop(), onTyping: () => chat.typing() });
const follow = new Follow();
const status = new StatusView(() => chat.reconnect());
const sidebar = new Sidebar({
  onRename: (id, title) => void chat.rename(id, title),
  onRemove: (it) => askFirst(t('removeAsk'), t('removeWarn', { title: it.title || t('untitled') }), () => void chat.remove(it.id)),
  onSearch: (query) => chat.dispatch({ type: 'local.query', query }),
  onMore: () => chat.more(),
});
const transcript = new TranscriptView({
  onVisible: (key) => chat.figures.add(key),
  onAgain: (key) => asking(() => chat.talk.again(key)),
  onRegenerate: (key) => asking(() => chat.talk.regenerate(key)),
  onContinue: (key) => asking(() => chat.talk.goOn(key)),
  onEdit: (key, text) => asking(() => chat.talk.edit(key, text)),
  onFork: (key) => void chat.talk.fork(key),
  onDelete: (key) => askFirst(t('cutAsk'), t('cutWarn'), () => void chat.talk.remove(key)),
  onSibling: (id) => {
    follow.letGo();
    chat.choose(id);
  },
  onEarlier: () => void chat.earlier(),
  onRetry: () => chat.reload(),
  onCopied: (copied) => {
    if (!copied) chat.dispatch({ type: 'local.notice', text: 'copyFailed' });
    byId('announcer', HTMLElement).textContent = copied ? t('copied') : '';
  },
});

const withDialogs = needed(() =>
  import('./later/dialogs.js').then((it) => new it.Dialogs({ onKey: (key, remember) => chat.signIn(key, remember) })));

/** @param {string} what @param {string} why @param {() => void} onYes */
const askFirst = (what, why, onYes) => withDialogs((it) => it.askFirst(what, why, onYes));
const showKeys = () => withDialogs((it) => it.showKeys());

/** @param {string} text */
function send(text) {
  const taken = chat.talk.send(text);
  if (taken) follow.jump();
  return taken;
}

/** What asks takes away the button that had the focus: it goes where the next message is written. @param {() => void} ask */
function asking(ask) {
  ask();
  follow.jump();
  composer.focus();
}

function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const { state } = chat;
  const live = liveHere(state);
  if (transcript.render(state, t)) follow.jump();
  sidebar.render(state, t);
  status.render(state, t);
  if (state.signIn !== null || document.querySelector('dialog[open]')) withDialogs((it) => it.render(chat.state.signIn, t));
  composer.render({ running: live !== null, stopping: live?.stopAsked ?? false, able: state.model !== '' }, t);
  drawHeader(state);
  follow.settle();
  showRoute(state);
  clearNoticeLater(state);
}

/** @param {import('./types.d.ts').State} state */
function drawHeader(state) {
  const title = state.list.conversations.find(({ id }) => id === state.open)?.title || (state.open ? '' : t('newChat'));
  byId('title', HTMLElement).textContent = title;
  document.title = title && state.open ? `${title} · ${t('appName')}` : t('appName');
  const select = byId('model', HTMLSelectElement);
  const name = byId('model-name', HTMLElement);
  select.hidden = state.models.length < 2;
  name.hidden = !select.hidden;
  name.textContent = state.model;
  if (select.options.length !== state.models.length) {
    select.replaceChildren(...state.models.map((model) => el('option', { value: model }, model)));
  }
  select.value = state.model;
}

/** @param {import('./types.d.ts').State} state */
function clearNoticeLater(state) {
  if (state.notice === notice) return;
  notice = state.notice;
  clearTimeout(noticeTimer);
  if (notice) noticeTimer = setTimeout(() => chat.dispatch({ type: 'local.notice' }), NOTICE_MS);
}

/** Fill the words of index.html and its icons. */
function applyLanguage() {
  document.documentElement.lang = t.language;
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-t], [data-t-label], [data-t-placeholder]'))) {
    const { t: text, tLabel, tPlaceholder } = node.dataset;
    if (text) node.textContent = t(text);
    if (tLabel) node.setAttribute('aria-label', t(tLabel));
    if (tLabel && node instanceof HTMLButtonElement) node.title = t(tLabel);
    if (tPlaceholder) node.setAttribute('placeholder', t(tPlaceholder));
  }
}

/** The conversation that the address names, and an item on the branch shown. */
function routed() {
  const match = /^#\/c\/([\w-]{1,100})(?:\/([\w-]{1,100}))?$/.exec(location.hash);
  return { conversation: match?.[1] ?? null, leaf: match?.[2] ?? null };
}

/** Name what is shown in the address; a reload or a bookmark opens it. @param {import('./types.d.ts').State} state */
function showRoute({ open, transcripts }) {
  if (open?.startsWith(DRAFT) || location.hash !== address) return;
  const transcript = open === null ? undefined : transcripts[open];
  const leaf = transcript?.leaf ?? endOf(transcript);
  const route = open === null ? '#/' : leaf === null ? `#/c/${open}` : `#/c/${open}/${leaf}`;
  if (location.hash !== route && (open !== null || location.hash !== '')) history.replaceState(null, '', route);
  address = location.hash;
}

function newConversation() {
  chat.open(null);
  sidebar.setOpen(false);
  composer.focus();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (document.querySelector('dialog[open]') || event.isComposing || composer.composing || event.keyCode === 229) return;
  const typing = event.target instanceof Element && event.target.matches('input, textarea, select');
  if (event.key === 'Escape') {
    if (sidebar.covering) sidebar.setOpen(false);
    else chat.stop();
  } else if (event.altKey && event.code === 'KeyN') {
    event.preventDefault();
    newConversation();
  } else if (event.key === '?' && !typing) {
    event.preventDefault();
    showKeys();
  }
}

/** @param {string} language */
async function speak(language) {
  t = await speaker(language).catch(() => t);
  byId('language', HTMLSelectElement).value = t.language;
  applyLanguage();
  draw();
}

function listen() {
  addEventListener('hashchange', () => {
    address = location.hash;
    const { conversation, leaf } = routed();
    chat.open(conversation, leaf);
    composer.focus();
  });
  addEventListener('keydown', onKey);
  addEventListener('online', () => chat.reconnect());
  addEventListener('offline', () => chat.connection.offline());
  document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && chat.refresh());
  byId('new', HTMLAnchorElement).addEventListener('click', (event) => {
    event.preventDefault();
    newConversation();
  });
  byId('help', HTMLButtonElement).addEventListener('click', showKeys);
  byId('model', HTMLSelectElement).addEventListener('change', (event) => {
    if (event.target instanceof HTMLSelectElement) chat.dispatch({ type: 'local.model', model: event.target.value });
  });
  const language = byId('language', HTMLSelectElement);
  language.append(...LANGUAGES.map(([code, name]) => el('option', { value: code, lang: code }, name)));
  language.value = t.language;
  language.addEventListener('change', () => {
    memory.language = language.value;
    void speak(language.value);
  });
}

for (const node of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-icon]'))) {
  node.prepend(icon(/** @type {any} */ (node.dataset.icon)));
}
sidebar.onChange = draw;
applyLanguage();
listen();
const { conversation, leaf } = routed();
void chat.start(conversation, leaf);
draw();
composer.focus();
setTimeout(() => {
  for (const part of ['details', 'dialogs', 'edit', 'rename']) import(`./later/${part}.js`).catch(() => {});
}, REST_MS);
