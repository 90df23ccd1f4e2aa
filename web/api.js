// The HTTP half of the API: conversations, items, models, readiness. Every call has a time-out.

const TIMEOUT_MS = 15_000;
/** Items a page: as many as the API gives. */
const PAGE = 100;
/** Conversations. */
const LIST_PAGE = 50;

/** What the server, or the network, answered instead of what was asked for. */
export class ApiError extends Error {
  /** @param {number} status HTTP status, 0 if there was no answer @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** @param {() => string | null} token the API key, if there is one */
export function api(token) {
  /** @param {string} method @param {string} path @param {object} [body] */
  const call = async (method, path, body) => {
    const response = await ask(method, path, body, token());
    const value = await response.json().catch(() => null);
    if (response.ok && value !== null) return value;
    const error = value?.error ?? {};
    throw new ApiError(response.status, String(error.code ?? 'error'), String(error.message ?? response.statusText));
  };

  return {
    /** @returns {Promise<string[]>} ids of the models served */
    models: async () => (await call('GET', '/v1/models')).data.map((/** @type {{id: string}} */ model) => model.id),

    /** @returns {Promise<{ready: boolean, reason: string}>} */
    async readiness() {
      const response = await ask('GET', '/readyz', undefined, token());
      const value = await response.json().catch(() => ({}));
      return { ready: response.ok, reason: String(value.reason ?? value.status ?? response.status) };
    },

    /** A page of conversations, the newest first. @param {string | null} after */
    async conversations(after) {
      const page = await call('GET', `/v1/conversations?${parameters({ limit: LIST_PAGE, order: 'desc', after })}`);
      return { conversations: page.data, more: Boolean(page.has_more) };
    },

    /**
     * The newest items of a branch, or those before `after`; oldest first.
     * @param {string} conversation
     * @param {{after?: string | null, through?: string | null, leaf?: string | null}} which the branch; none: the head's
     */
    async items(conversation, which) {
      const query = parameters({ limit: PAGE, order: 'desc', siblings: 'true', ...which });
      const page = await call('GET', `${path(conversation)}/items?${query}`);
      const more = Boolean(page.has_more), items = page.data.reverse();
      // an answer that the page may have cut comes with the next one
      const cut = more ? items.findIndex((/** @type {any} */ it) => it.response_id !== (items[0].response_id ?? 0)) : 0;
      return { items: items.slice(Math.max(0, cut)), more };
    },

    /** @param {string} id */
    response: (id) => call('GET', `/v1/responses/${encodeURIComponent(id)}`),
    create: () => call('POST', '/v1/conversations', {}),
    /** @param {string} id @param {string} title */
    rename: (id, title) => call('POST', path(id), { title }),
    /** @param {string} id */
    remove: (id) => call('DELETE', path(id)),
    /** An item and everything under it. @param {string} id @param {string} item */
    removeItem: (id, item) => call('DELETE', `${path(id)}/items/${encodeURIComponent(item)}`),
    /** A new conversation that begins as this one does up to an item. @param {string} id @param {string} leaf */
    fork: (id, leaf) => call('POST', `${path(id)}/fork`, { leaf }),
  };
}

/** @typedef {ReturnType<typeof api>} Api */

/** @param {string} conversation */
const path = (conversation) => `/v1/conversations/${encodeURIComponent(conversation)}`;

/** @param {string} method @param {string} path @param {object | undefined} body @param {string | null} token */
async function ask(method, path, body, token) {
  /** @type {Record<string, string>} */
  const headers = { Accept: 'application/json' };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  try {
    return await fetch(path, {
      method, headers, body: body && JSON.stringify(body), cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new ApiError(0, 'network', error instanceof Error ? error.message : String(error));
  }
}

/** @param {Record<string, string | number | null>} values those that are empty are left out */
function parameters(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== '');
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
}
