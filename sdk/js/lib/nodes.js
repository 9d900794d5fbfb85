// The known nodes, and the order in which they are asked.

import { jittered, now } from './values.js';

// Bounds of how long a node that failed is suspect, doubled with every failure in a row.
const suspectMin = 500, suspectMax = 30_000;

// Pauses between rounds over all nodes. Only an operator ends a refusal of the token.
const backoffMin = 50, backoffMax = 1000, refusedMax = 5000;

/** Nodes has the addresses of nodes: the given ones, and those learnt from the cluster. */
export class Nodes {
  #all;
  #current;
  home; // of this client, by chance, so that clients spread

  constructor(addrs) {
    this.#all = addrs.map((addr) => ({ addr, given: true, suspect: 0, failures: 0 }));
    this.home = this.#all[Math.floor(Math.random() * this.#all.length)];
    this.#current = this.home;
  }

  get addrs() {
    return this.#all.map((n) => n.addr);
  }

  get current() {
    return this.#current;
  }

  /** pick returns the best node that is not among the tried ones: healthy ones first, from the current one on. */
  pick(tried) {
    const at = now(), start = this.#all.indexOf(this.#current);
    let best;
    for (let i = 0; i < this.#all.length; i++) {
      const n = this.#all[(start + i) % this.#all.length];
      if (!tried.has(n) && (!best || (best.suspect > at && n.suspect < best.suspect))) best = n;
    }
    return best;
  }

  /** healthy returns the node of an address if it is known and not suspect. */
  healthy(addr) {
    return this.#all.find((n) => n.addr === addr && n.suspect <= now());
  }

  /** failed moves calls away from a node, which is suspect for a time if it is at fault. */
  failed(node, atFault) {
    if (atFault && node.suspect <= now()) node.suspect = now() + Math.min(suspectMin * 2 ** node.failures++, suspectMax);
    if (node === this.#current) this.#current = this.pick(new Set([node])) ?? node;
  }

  worked(node) {
    node.suspect = node.failures = 0;
    if (this.#all.includes(node) && this.#current.suspect > now()) this.#current = node;
  }

  returnHome() {
    this.#current = this.home;
  }

  /** learn replaces the learnt addresses. The current node stays: the listed ones may not be reachable from here. */
  learn(addrs) {
    const listed = new Set(addrs);
    this.#all = this.#all.filter((n) => n.given || n === this.#current || listed.has(n.addr));
    for (const addr of listed) {
      if (!this.#all.some((n) => n.addr === addr)) this.#all.push({ addr, given: false, suspect: 0, failures: 0 });
    }
    if (!listed.has(this.home.addr) && (this.home.failures > 0 || !this.home.given)) {
      const homes = this.#all.filter((n) => listed.has(n.addr));
      if (homes.length > 0) this.home = homes[Math.floor(Math.random() * homes.length)];
    }
  }
}

/** Rotation chooses nodes in rounds, each once a round. */
export class Rotation {
  #nodes;
  #tried = new Set();
  #foreign = 0; // nodes of another cluster
  #refused = 0;
  round = 0; // rounds without success
  leader = ''; // address of the node to try first

  constructor(nodes) {
    this.#nodes = nodes;
  }

  /** next returns the node to try; undefined when all were tried in this round. */
  next() {
    let node = this.leader && this.#nodes.healthy(this.leader);
    if (!node || this.#tried.has(node)) node = this.#nodes.pick(this.#tried);
    if (node) this.#tried.add(node);
    return node;
  }

  get exhausted() {
    return !this.#nodes.pick(this.#tried);
  }

  get allForeign() {
    return this.#foreign > 0 && this.#foreign === this.#tried.size;
  }

  failed(node, e) {
    if (e.reason === 'wrong_cluster') this.#foreign++;
    if (e.reason === 'unauthenticated' || e.reason === 'permission_denied') this.#refused++;
    this.#nodes.failed(node, e.reason === '' || e.reason === 'not_ready' || e.reason === 'wrong_cluster');
  }

  /** nextRound begins a round and returns the pause before it. */
  nextRound() {
    const most = this.#refused > 0 && this.#refused === this.#tried.size ? refusedMax : backoffMax;
    const pause = backoff(this.round++, most);
    this.#restart();
    return pause;
  }

  /** worked begins the first round. */
  worked() {
    this.round = 0;
    this.#restart();
  }

  #restart() {
    this.#tried.clear();
    this.#foreign = this.#refused = 0;
  }

  /** skip leaves a node out of this round. */
  skip(node) {
    this.#tried.add(node);
  }
}

export function backoff(round, most = backoffMax) {
  return jittered(Math.min(backoffMin * 2 ** Math.min(round, 10), most));
}
