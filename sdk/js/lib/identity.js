// The cluster that a client belongs to. Addresses are reused, and a cluster that was formed anew has other indexes.

import { errorOf, invalid } from './errors.js';

/** Identity is the client's cluster: the given name or id, completed by the first answer and kept from then on. */
export class Identity {
  #name = '';
  #id = '';

  constructor(text = '') {
    [this.#name, this.#id = ''] = text.split('/');
    if (text.split('/').length > 2) throw invalid('connect', 'cluster', 'NAME, NAME/ID or /ID', `cluster is ${JSON.stringify(text)}, want NAME, NAME/ID or /ID`);
  }

  /** header is the value for requests, "" as long as nothing is known. */
  get header() {
    const parts = [this.#name, this.#id].map(encodeURIComponent);
    return this.#id ? parts.join('/') : parts[0];
  }

  get id() {
    return this.#id;
  }

  /** check throws if an answer's header names another cluster. With adopt it completes the identity. */
  check(header, adopt, op) {
    if (!header) return;
    let name, id;
    try {
      [name, id = ''] = header.split('/').map(decodeURIComponent);
    } catch {
      [name, id] = [header, ''];
    }
    if ((this.#name && name && this.#name !== name) || (this.#id && id && this.#id !== id)) {
      throw errorOf(`the node is of cluster ${name}/${id}, this client of ${this.#name}/${this.#id}; if the cluster was formed anew, make a new client`, { op, reason: 'wrong_cluster' });
    }
    if (adopt) {
      this.#name ||= name;
      this.#id ||= id;
    }
  }
}
