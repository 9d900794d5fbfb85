// What all parts of a client share: the nodes, the requests, the cluster, and what was seen.

import { answerOf } from './call.js';
import { RegistryError, errorOf, invalid } from './errors.js';
import { Identity } from './identity.js';
import { Nodes } from './nodes.js';
import { End, closedError, milliseconds, now, sleep } from './values.js';
import { follow } from './watch.js';

const defaults = { call_timeout: 10_000, attempt_timeout: 1000, close_timeout: 5000, refresh: 60_000 };

/** After the first answer the client waits so long before it follows the list of nodes: a script with one call does not. */
const firstRefresh = 1000;

/** parseAddrs splits a comma-separated list of addresses. */
function parseAddrs(target) {
  const addrs = [...new Set(String(target).split(',').map((a) => a.trim()))];
  for (const addr of addrs) {
    const port = Number(/^(?:\[[^\]]+\]|[^:/@\s]+):(\d+)$/.exec(addr)?.[1]);
    if (!(port >= 1 && port <= 65535)) throw invalid('connect', 'target', 'host:port,host:port', `address ${JSON.stringify(addr)}, want host:port`);
  }
  return addrs;
}

const isNode = () => Boolean(globalThis.process?.versions?.node);

async function openTransport(options) {
  if (isNode()) return new (await import('./transport-node.js')).NodeTransport(options);
  return new (await import('./transport-fetch.js')).FetchTransport(options);
}

/** Core sends requests to the nodes of one cluster. */
export class Core {
  #transport;
  #identity;
  #token;
  #end = new End();
  #background;
  options;
  nodes;
  seen = 0; // the highest index of all answers
  seenAt = 0;

  /** target is host:port of some nodes, comma-separated; in a browser the page's node by default. */
  constructor(target, options = {}) {
    const page = isNode() ? undefined : globalThis.location;
    if (!target && !page) throw invalid('connect', 'target', 'host:port,host:port', 'no address of a node is given');
    this.options = { ...defaults };
    for (const name of Object.keys(defaults)) {
      if (options[name] !== undefined) this.options[name] = milliseconds(options[name], name);
      if (this.options[name] <= 0) throw invalid('connect', name, '> 0', `${name} is not above 0`);
    }
    this.nodes = new Nodes(target ? parseAddrs(target) : [`${page.hostname}:${page.port || (page.protocol === 'https:' ? 443 : 80)}`]);
    this.#identity = new Identity(options.cluster);
    this.#token = options.token;
    this.#transport = openTransport({ tls: options.tls ?? page?.protocol === 'https:' });
  }

  /** closing is aborted when the client is closed. */
  get closing() {
    return this.#end;
  }

  get clusterId() {
    return this.#identity.id;
  }

  /** open throws if the client is closed. */
  open() {
    if (this.#end.aborted) throw closedError('client');
  }

  /** observe remembers an index of an answer: no later read is older. */
  observe(index) {
    if (index === undefined) return;
    if (!Number.isSafeInteger(index)) throw new RegistryError(`index ${index} is above 2^53, the largest that this client reads exactly`);
    if (index < this.seen) return;
    this.seen = index;
    this.seenAt = now();
  }

  /** tokenRefused tells whether another attempt with the token makes sense. */
  tokenRefused() {
    return this.#token !== undefined;
  }

  /** send sends a request to one node, and returns the head of the answer of this client's cluster. */
  async send(node, { op, method, path, body, headers = {}, ...more }) {
    const token = await this.#secret(op), cluster = this.#identity.header;
    const all = { accept: 'application/json', ...headers };
    if (token) all.authorization = `Bearer ${token}`;
    if (cluster) all['registry-cluster'] = cluster;
    if (body !== undefined) all['content-type'] = 'application/json';
    const content = body === undefined ? undefined : JSON.stringify(body);
    if (content !== undefined && isNode()) all['content-length'] = Buffer.byteLength(content);
    const transport = await this.#transport;
    const answer = await transport.request(node.addr, { method, path, headers: all, body: content, ...more });
    this.#identity.check(answer.header('registry-cluster'), answer.status === 200, op);
    this.#follow();
    return answer;
  }

  /** #secret returns the client's token. */
  async #secret(op) {
    if (typeof this.#token !== 'function') return this.#token;
    try {
      return await this.#token();
    } catch (cause) {
      throw errorOf(`the token cannot be read: ${cause?.message ?? cause}`, { op, reason: 'unauthenticated', cause });
    }
  }

  /** attempt makes one request to one node. */
  async attempt(node, request) {
    return answerOf(request.op, await this.send(node, request));
  }

  /** #follow starts, after the first answer, what keeps the addresses up to date. In a browser there is one node. */
  #follow() {
    if (this.#background || !isNode()) return;
    const signal = this.#end, unref = true;
    this.#background = Promise.all([this.#learn(signal, unref), this.#goHome(signal, unref)]).catch((e) => {
      if (!signal.aborted) throw e;
    });
  }

  async #learn(signal, unref) {
    await sleep(Math.min(firstRefresh, this.options.refresh), signal, { unref });
    for (;;) {
      try {
        for await (const { nodes } of follow(this, { params: { nodes: true, progress_interval: '1m' }, every: 60_000, signal, unref })) {
          const addrs = nodes.map((n) => n.addr).filter(Boolean);
          if (addrs.length > 0) this.nodes.learn(addrs);
        }
      } catch (e) {
        if (!(e instanceof RegistryError)) throw e; // refused: the token may be allowed later
      }
      await sleep(this.options.refresh, signal, { unref });
    }
  }

  /** #goHome returns to the client's node when that answers again, so that clients spread after an outage. */
  async #goHome(signal, unref) {
    for (;;) {
      await sleep(this.options.refresh * (0.8 + 0.4 * Math.random()), signal, { unref });
      const { home } = this.nodes;
      if (home === this.nodes.current) continue;
      try {
        const timeout = AbortSignal.timeout(this.options.attempt_timeout);
        await this.attempt(home, { op: 'refresh', method: 'GET', path: '/v1/index?linearizable=true', signal: timeout, sent: () => {}, unref });
        this.nodes.worked(home);
        this.nodes.returnHome();
      } catch (e) {
        if (!(e instanceof RegistryError) && e.name !== 'TimeoutError') throw e;
        this.nodes.failed(home, e.reason === '' || e.reason === undefined);
      }
    }
  }

  /** close ends all calls and streams. */
  async close() {
    this.#end.abort(closedError('client'));
    await this.#background;
    (await this.#transport).close();
  }
}
