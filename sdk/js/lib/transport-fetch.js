// Requests of browsers.

import { UnavailableError } from './errors.js';

/** FetchTransport makes requests to nodes. A page reaches the node that it came from: nodes give no access to others. */
export class FetchTransport {
  #scheme;

  constructor({ tls }) {
    this.#scheme = tls ? 'https' : 'http';
  }

  /** request resolves with the head of an answer. sent(): the request may have reached the node. */
  async request(addr, { method, path, headers, body, signal, sent }) {
    sent(); // there is no way to know
    let answer;
    try {
      answer = await fetch(`${this.#scheme}://${addr}${path}`, { method, headers, body, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' });
    } catch (cause) {
      signal?.throwIfAborted();
      throw new UnavailableError(cause.message, { cause });
    }
    return { status: answer.status, header: (name) => answer.headers.get(name) ?? '', text: () => answer.text(), chunks: () => chunks(answer.body) };
  }

  close() {}
}

async function* chunks(body) {
  const reader = body.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}
