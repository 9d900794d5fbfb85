// The cluster as this node sees it, asked for every second while the page is visible.

import { get } from './api.js';
import { milliseconds, span } from './format.js';

const interval = 1000;
const late = 3000; // a lag that is told

export class Cluster {
  status = null; // of GET /v1/cluster
  self = ''; // id of the node that serves the page
  problem = null; // why it could not be asked
  heard = 0; // when it was asked last, by this machine's clock
  told = []; // {at, kind, text}, newest first
  #changed;

  constructor(changed) { this.#changed = changed; }

  get node() { return this.status?.nodes.find((n) => n.id === this.self) ?? null; }

  // lag is the time since the node heard from the leader, in ms.
  get lag() { return milliseconds(this.node?.lag); }

  get leaderless() { return this.status !== null && !this.problem && (!this.status.leader || this.lag > late); }

  // refused: there is no token, or a wrong one.
  get refused() { return this.problem?.status === 401 || this.problem?.status === 429; }

  fail(problem) { this.problem = problem; }

  // forget drops what another token showed.
  forget() {
    this.status = this.problem = null;
    this.told = [];
  }

  // run asks until the signal.
  async run(signal) {
    while (!signal.aborted) {
      try {
        if (!this.self) this.self = decodeURIComponent((await get(['groups', 'registry-group', 'members'], {}, signal)).headers.get('Registry-Node') ?? '');
      } catch (e) {
        if (signal.aborted) return;
        if (e.reason !== 'not_ready') this.problem = e; // a node that has not caught up still shows the nodes
      }
      try {
        const { body } = await get(['cluster'], {}, signal);
        this.#take(body);
      } catch (e) {
        if (signal.aborted) return;
        this.problem = e;
      }
      this.#changed();
      if (this.refused) return; // until there is another token
      await new Promise((r) => { setTimeout(r, interval); });
    }
  }

  #take(status) {
    const before = this.status;
    this.status = status;
    this.problem = null;
    this.heard = Date.now();
    if (!before) return;
    if (before.leader !== status.leader) this.#tell(status.leader ? 'changed' : 'left', status.leader ? `${status.leader} leads, term ${status.term}` : `${before.leader} no longer leads`);
    const old = new Map(before.nodes.map((n) => [n.id, n]));
    for (const n of status.nodes) {
      const o = old.get(n.id);
      old.delete(n.id);
      if (!o) this.#tell('joined', `node ${n.id} joined the cluster`);
      else if (!o.error !== !n.error) this.#tell(n.error ? 'left' : 'joined', `node ${n.id} ${n.error ? 'does not answer' : 'answers again'}`);
    }
    for (const id of old.keys()) this.#tell('left', `node ${id} left the cluster`);
  }

  #tell(kind, text) {
    this.told.unshift({ at: Date.now(), kind, text });
    this.told.length = Math.min(this.told.length, 100);
  }

  // digests says per node whether its state is that of the others at the same index: true, false, or null
  // where there is nothing to compare with.
  get digests() {
    const at = new Map();
    for (const n of this.status?.nodes ?? []) {
      if (n.error || !n.role) continue;
      const same = at.get(n.applied_index) ?? [];
      at.set(n.applied_index, [...same, n]);
    }
    const out = new Map();
    for (const nodes of at.values()) {
      for (const n of nodes) out.set(n.id, nodes.length < 2 ? null : nodes.every((o) => o.digest === n.digest));
    }
    return out;
  }

  // attention lists what needs a look.
  get attention() {
    const out = [];
    const digests = this.digests;
    for (const n of this.status?.nodes ?? []) {
      if (n.error) out.push({ level: 'bad', what: n.id, text: `does not answer: ${n.error}` });
      else if (!n.ready) out.push({ level: 'warn', what: n.id, text: 'has not caught up yet' });
      else if (milliseconds(n.lag) > late) out.push({ level: 'warn', what: n.id, text: `last heard from the leader ${span(milliseconds(n.lag))} ago` });
      if (digests.get(n.id) === false) out.push({ level: 'bad', what: n.id, text: 'has another state than other nodes at the same index' });
      if (n.removal) {
        const kept = n.removal.kept ? `keeps it: ${n.removal.kept}` : `removes it in ${span(milliseconds(n.removal.removed_in))}`;
        out.push({ level: 'warn', what: n.id, text: `has not been reached by the leader for ${span(milliseconds(n.removal.unreachable))}, which ${kept}` });
      }
      for (const alarm of n.alarms) out.push({ level: 'warn', what: n.id, text: alarm });
    }
    return out;
  }
}
