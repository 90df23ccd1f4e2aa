// Making elements. Attributes and text only: no HTML, no inline style, no inline script can come from here.

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const SVG = 'http://www.w3.org/2000/svg';

/** Icons as strokes in a 24 × 24 box. */
const PATHS = {
  menu: 'M4 7h16M4 12h16M4 17h10',
  plus: 'M12 5v14M5 12h14',
  pencil: 'M4 20l1-4L16 5l3 3L8 19l-4 1M14 7l3 3',
  bin: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  down: 'M12 5v14M6 13l6 6 6-6',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  check: 'M5 13l5 5L19 7',
  redo: 'M19 8a8 8 0 1 0 1 6M20 4v5h-5',
  goOn: 'M6 5l9 7l-9 7zM19 5v14',
  fork: 'M7 8v8M7 8a2 2 0 1 0-.1 0M7 20a2 2 0 1 0-.1 0M17 8a2 2 0 1 0-.1 0M17 8c0 5-10 3-10 8',
  left: 'M14 6l-6 6l6 6',
  right: 'M10 6l6 6l-6 6',
  help: 'M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 18v.1',
};

/** A decorative icon. @param {keyof typeof PATHS} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', `icon icon-${name}`);
  svg.append(path);
  return svg;
}

/** A button that shows only an icon. @param {keyof typeof PATHS} name @param {string} label @param {Record<string, string>} [attributes] */
export function iconButton(name, label, attributes = {}) {
  return el('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, ...attributes }, icon(name));
}

/**
 * An element of index.html, by id: it is there, and of that kind, or the page is broken.
 * @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T}
 */
export function byId(id, kind) {
  const node = document.getElementById(id);
  if (!(node instanceof kind)) throw new Error(`index.html: expected ${kind.name} #${id}`);
  return node;
}

/** Load what is needed now, again if that failed. @template T @param {() => Promise<T>} load */
export function needed(load) {
  /** @type {Promise<T> | undefined} */
  let part;
  return (/** @type {(it: T) => void} */ then) => void (part ??= load()).then(then, () => (part = undefined));
}
