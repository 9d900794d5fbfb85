// The ring of a group in this process.

import { Ring } from '../ring.js';
import { RegistryError, errorOf, invalid } from './errors.js';
import { Tracker } from './tracker.js';
import { Emitter, bounded, closedError, milliseconds, now } from './values.js';
import { Outage, follow, watchError } from './watch.js';

/** every is how often a node confirms a state that does not change. */
const every = 2000;

/** buildShare is the part of the time that builds take under lasting change. */
const buildShare = 0.4;

/**
 * GroupRing is kept up to date by a watch. match is local, and goes on while no node can be reached; age says how old
 * its answers may be. Members whose fingerprint is not the node's are never used: the group is fetched again.
 *
 * A group whose members all left is empty: EmptyGroupError. A deleted group is UnknownGroupError. If the registry lost
 * its data, so that the leader does not know the group, the ring stays as it was, and ages.
 *
 * Events: change (the ring), outage (why nothing can be followed), recovered, mismatch (an error), ended (an error).
 */
export class GroupRing extends Emitter {
  #core;
  #tracker;
  #maxAge;
  #control = new AbortController();
  #outage = new Outage();
  #received = null; // the newest state of the watch
  #asOf = null; // when the ring was last known to be current, by both clocks
  #pending = null; // the same of the newest state, while its ring is not built
  #builtAt = -Infinity;
  #buildTook = 0;
  #timer;
  #refuse; // why match fails
  #missing = false;
  #ended;
  #lastError;
  group;
  ring = null; // the bare ring
  revision = 0;
  index = 0;
  fingerprint = '';
  clusterId = '';
  error = null; // why it ended
  done; // resolves with that error

  constructor(core, group, maxAge) {
    super();
    this.#core = core;
    this.#tracker = new Tracker(core, group);
    this.#maxAge = maxAge;
    this.group = group;
    this.#refuse = ['not_ready', 'no state of the group yet'];
    this.done = new Promise((resolve) => { this.#ended = resolve; });
  }

  /** start returns a ring with its first state; with max_age when a node has confirmed it, too. */
  static async start(core, group, { max_age, signal, timeout = core.options.call_timeout } = {}) {
    if (typeof group !== 'string' || group === '') throw invalid('ring', 'group', '1-255 bytes', 'the group has no name');
    const r = new GroupRing(core, group, max_age === undefined ? Infinity : milliseconds(max_age, 'max_age'));
    const run = r.#run();
    try {
      await bounded([signal], milliseconds(timeout, 'timeout'), (s) => r.#ready(s));
    } catch (e) {
      await r.close();
      throw e instanceof RegistryError || e.name !== 'TimeoutError' ? e : watchError(`no node sent the group ${group}`, r.#lastError ?? e);
    }
    void run;
    return r;
  }

  #ready(signal) {
    return new Promise((resolve, reject) => {
      const settled = () => this.#missing || (this.ring && (this.#maxAge === Infinity || this.#asOf));
      const stop = [this.on('state', () => settled() && finish(resolve)), this.on('ended', (e) => finish(() => reject(e)))];
      const aborted = () => finish(() => reject(signal.reason));
      signal.addEventListener('abort', aborted, { once: true });
      function finish(f) {
        for (const off of stop) off();
        signal.removeEventListener('abort', aborted);
        f();
      }
    });
  }

  async #run() {
    const closed = () => this.#control.abort(closedError('client'));
    this.#core.closing.addEventListener('abort', closed, { once: true });
    let error;
    try {
      for await (const change of follow(this.#core, {
        params: { group: this.group, progress_interval: `${every}ms` }, every, signal: this.#control.signal,
        position: () => this.#tracker.position(), accept: (e) => this.#tracker.accept(e),
        confirmed: (at) => this.#confirmed(at), failed: (e) => this.#failed(e),
      })) this.#receive(change);
      error = this.#control.signal.reason;
    } catch (e) {
      error = e;
    }
    this.#core.closing.removeEventListener('abort', closed);
    clearTimeout(this.#timer);
    this.error = error;
    this.#ended(error);
    this.emit('ended', error);
  }

  #failed(e) {
    this.#lastError = e;
    if (e.cause?.mismatch) this.emit('mismatch', e);
    if (this.#outage.failed(e)) this.emit('outage', e);
  }

  #confirmed(at) {
    if (this.#outage.over()) this.emit('recovered');
    if (!this.#tracker.state && !this.#tracker.deleted) return;
    const asOf = { mono: at, wall: Date.now() - (now() - at) };
    if (this.#received) this.#pending = asOf;
    else this.#asOf = asOf;
    this.emit('state');
  }

  #receive(change) {
    if (change.type === 'unknown_group' && !change.deleted) {
      this.#missing = true;
      if (!this.ring) this.#refuse = ['unknown_group', 'there is no such group'];
      this.emit('state');
      return;
    }
    this.#missing = false;
    const params = this.ring?.params ?? { virtual_nodes: 256, bound: 0 };
    this.#received = change.state ?? { revision: change.index, index: change.index, fingerprint: '', cluster_id: this.clusterId, config: params, members: new Map(), deleted: true };
    const pause = this.#builtAt + this.#buildTook * (1 / buildShare - 1) - now();
    clearTimeout(this.#timer);
    if (pause <= 0) this.#build();
    else this.#timer = setTimeout(() => this.#build(), pause);
  }

  /** #build makes the ring of the newest state: one for all changes since the last one. */
  #build() {
    const s = this.#received, began = now();
    clearTimeout(this.#timer);
    try {
      this.ring = new Ring(s.config, s.members.values(), this.ring);
    } catch (e) {
      this.emit('mismatch', e); // the last ring stays, and ages
      return;
    }
    [this.revision, this.index, this.clusterId, this.fingerprint] = [s.revision, s.index, s.cluster_id, s.fingerprint || this.ring.fingerprint];
    this.#refuse = this.ring.size > 0 ? null : s.deleted ? ['unknown_group', 'the group was deleted'] : ['empty_group', 'no member of the group owns keys'];
    this.#received = null;
    if (this.#pending) [this.#asOf, this.#pending] = [this.#pending, null];
    this.#builtAt = now();
    this.#buildTook = this.#builtAt - began;
    this.emit('state');
    this.emit('change', this);
  }

  #check() {
    if (this.error) throw closedError(`ring of ${this.group}`);
    if (this.#refuse) throw this.#error(...this.#refuse);
    if (this.age > this.#maxAge) throw this.#error('stale', `no node has confirmed the ring for ${this.#maxAge} ms`);
  }

  #error(reason, message) {
    return errorOf(`ring of ${this.group}: ${message}`, { op: 'match', reason });
  }

  /** age is the time in milliseconds since a node last confirmed this ring, or an older one, as current. */
  get age() {
    return this.#asOf ? Math.max(now() - this.#asOf.mono, Date.now() - this.#asOf.wall, 0) : Infinity;
  }

  /** usable is null, or why match fails. */
  get usable() {
    try {
      this.#check();
      return null;
    } catch (e) {
      return e;
    }
  }

  /** match returns the owner of a key; one that is held is a copy with its fallback. */
  match(key) {
    this.#check();
    const owner = this.ring.match(key);
    return owner.state === 'held' ? { ...owner, fallback: this.ring.fallback(key) } : owner;
  }

  /** matchN returns the first n distinct owners. */
  matchN(key, n) {
    this.#check();
    return this.ring.matchN(key, n);
  }

  /** serving returns the first n members to ask for a key: its owners, held ones last. */
  serving(key, n) {
    this.#check();
    return this.ring.serving(key, n);
  }

  /** members returns all members, in the order of their ids. */
  get members() {
    return this.ring?.members ?? [];
  }

  /** wait waits until the ring has a revision. */
  wait(revision, { signal, timeout = Infinity } = {}) {
    return bounded([signal], timeout, (s) => new Promise((resolve, reject) => {
      const off = [];
      const finish = (f) => {
        for (const remove of off) remove();
        f();
      };
      const check = () => {
        if (this.#received?.revision >= revision) this.#build();
        if (this.revision >= revision) finish(resolve);
        else if (this.error) finish(() => reject(this.error));
        else return false;
        return true;
      };
      if (check()) return;
      off.push(this.on('state', check), this.on('ended', check));
      const aborted = () => finish(() => reject(s.reason));
      s.addEventListener('abort', aborted, { once: true });
      off.push(() => s.removeEventListener('abort', aborted));
    }));
  }

  /** close ends the ring. */
  async close() {
    if (!this.#control.signal.aborted) this.#control.abort(closedError(`ring of ${this.group}`));
    await this.done;
  }
}

if (Symbol.asyncDispose) {
  GroupRing.prototype[Symbol.asyncDispose] = function () {
    return this.close();
  };
}
