// The keeper renews all leases of a client.

import { RegistryError, UnavailableError, isRefusal } from './errors.js';
import { Rotation, backoff } from './nodes.js';
import { bounded, now, sleep } from './values.js';

/** maxBatch is the limit on the leases of one heartbeat. */
const maxBatch = 1000;

/** maxRegistering bounds the registrations after losses that run at a time. */
const maxRegistering = 16;

/** refusedRounds is after how many rounds a refused token is told: a node may not know a new one yet. */
const refusedRounds = 2;

/** Pauses between registrations of one lease, at most, after ordinary failures and after refusals of the token. */
const pauseMax = 5000;

/** newJitter is the part by which an interval is shortened, so that clients do not send together: below a fifth. */
export function newJitter() {
  return Math.random() / 5;
}

/** interval between two heartbeats: a third of the TTL, less the jitter. */
export function interval(ttl, jitter) {
  return ttl / 3 * (1 - jitter);
}

/** early is how long before it is due a lease may be renewed with others: what the largest jitter takes off. */
function early(ttl) {
  return ttl / 15;
}

/** answerTime bounds the answer to a heartbeat: three nodes can be tried within a TTL. */
export function answerTime(ttl) {
  return Math.min(Math.max(ttl / 4, 200), 3000);
}

/**
 * Keeper sends one heartbeat at a time, for all leases that are due. The node that leads comes first: there they need
 * no hop. A lease that is lost is registered again, which shows why it was lost.
 */
export class Keeper {
  #core;
  #rotation;
  #leases = new Map(); // by registration: {due, phase, unreachable}
  #wake = () => {};
  #running = false;
  #registering = 0;
  #waiting = []; // for a place among those that register
  #followed = -Infinity; // when the leader last became the first node

  constructor(core) {
    this.#core = core;
    this.#rotation = new Rotation(core.nodes);
  }

  /** add keeps a registration that was just made. */
  add(r) {
    this.#leases.set(r, { due: r.renewed + interval(r.ttl, newJitter()), phase: 'renewing', unreachable: false });
    this.#wake();
    if (!this.#running) this.#run();
  }

  /** release forgets a registration, and waits for a registration of it that is in progress. */
  async release(r) {
    const lease = this.#leases.get(r);
    this.#leases.delete(r);
    this.#wake();
    lease?.control?.abort(r.error);
    await lease?.again;
  }

  async #run() {
    this.#running = true;
    while (this.#leases.size > 0) {
      const due = this.#due(), wait = due.length > 0 ? 0 : this.#next() - now();
      if (wait > 0) await this.#sleep(wait);
      else if (due.length > 0) await this.#beat(due);
    }
    this.#running = false;
  }

  /** #due returns the registrations to renew now, those first that are due first. */
  #due() {
    const renewing = [...this.#leases].filter(([, l]) => l.phase === 'renewing').sort(([, a], [, b]) => a.due - b.due), at = now();
    if (renewing.length === 0 || renewing[0][1].due > at) return [];
    return renewing.filter(([r, l]) => l.due <= at + early(r.ttl)).slice(0, maxBatch).map(([r]) => r);
  }

  #next() {
    let next = Infinity;
    for (const l of this.#leases.values()) if (l.phase === 'renewing') next = Math.min(next, l.due);
    return next;
  }

  /** #sleep waits until then, or until something changes. */
  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = ms === Infinity ? undefined : setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** #beat makes one attempt at one node. */
  async #beat(due) {
    const node = this.#rotation.next();
    if (!node) {
      await this.#sleep(this.#rotation.nextRound());
      return;
    }
    const sent = now(), time = answerTime(Math.min(...due.map((r) => r.ttl))), body = { lease_ids: due.map((r) => r.leaseId) };
    try {
      const answer = await bounded([this.#core.closing], time, (signal) => this.#core.attempt(node, {
        op: 'heartbeat', method: 'POST', path: '/v1/heartbeat', body, signal, sent() {},
      }));
      this.#core.nodes.worked(node);
      this.#rotation.worked();
      this.#follow(answer.leader_addr);
      this.#answered(due, new Map(due.map((r, i) => [r, body.lease_ids[i]])), new Set(answer.lost), sent);
    } catch (e) {
      if (this.#core.closing.aborted) return;
      if (!(e instanceof RegistryError) && e.name !== 'TimeoutError') throw e;
      this.#failed(due, node, e instanceof RegistryError ? e : new UnavailableError(e.message, { op: 'heartbeat', cause: e }));
    }
  }

  /** #follow makes the leader the first node, at most once a second. */
  #follow(addr) {
    if (!addr || addr === this.#rotation.leader || now() - this.#followed < 1000) return;
    this.#rotation.leader = addr;
    this.#followed = now();
  }

  #answered(due, ids, lost, sent) {
    const jitter = newJitter(); // in common, so that the leases of a message stay together
    for (const r of due) {
      const l = this.#leases.get(r);
      if (l?.phase !== 'renewing' || ids.get(r) !== r.leaseId) continue;
      if (lost.has(r.leaseId)) {
        r.emit('lost');
        this.#registerAgain(r, l);
        continue;
      }
      r.renewed = sent;
      l.due = sent + interval(r.ttl, jitter);
      if (l.unreachable) {
        l.unreachable = false;
        r.emit('regained');
      }
    }
  }

  #failed(due, node, e) {
    if (e.reason === 'not_owner' && e.leaseIds.length > 0) {
      this.#refused(due, e);
      return;
    }
    this.#rotation.failed(node, e);
    const refused = isRefusal(e) && this.#rotation.round >= refusedRounds;
    for (const [r, l] of this.#leases) {
      if (l.phase === 'renewing' && (refused || now() - r.renewed >= r.ttl)) this.#unreachable(r, l, e);
    }
  }

  /**
   * #refused handles a heartbeat of which a lease belongs to another token: the node refuses the whole message. Those
   * that it names are left out, and registered again with pauses.
   */
  #refused(due, e) {
    this.#rotation.worked();
    for (const r of due) {
      const l = this.#leases.get(r);
      if (l?.phase !== 'renewing' || !e.leaseIds.includes(r.leaseId)) continue;
      this.#unreachable(r, l, e);
      this.#registerAgain(r, l, 1);
    }
  }

  #unreachable(r, l, e) {
    if (l.unreachable) return;
    l.unreachable = true;
    r.emit('unreachable', e);
  }

  /** #registerAgain registers until there is a definite answer: a running service belongs in its group. */
  #registerAgain(r, l, tries = 0) {
    l.phase = 'registering';
    l.control = new AbortController();
    l.again = this.#place(async () => {
      for (let n = tries; !r.error; n++) {
        try {
          if (n > 0) await sleep(backoff(n, pauseMax), l.control.signal);
          await r._register({ signal: l.control.signal });
          if (r.error) return;
          Object.assign(l, { phase: 'renewing', due: r.renewed + interval(r.ttl, newJitter()), unreachable: false });
          r.emit('regained');
          this.#wake();
          return;
        } catch (e) {
          if (r.error || this.#core.closing.aborted) return;
          if (e.reason === 'conflict' || e.reason === 'fenced') {
            this.#leases.delete(r);
            r._end(e);
            this.#wake();
            return;
          }
          if (!(e instanceof RegistryError)) throw e;
          this.#unreachable(r, l, e);
        }
      }
    });
  }

  /** #place calls f when fewer than maxRegistering others run. */
  async #place(f) {
    if (this.#registering >= maxRegistering) await new Promise((resolve) => { this.#waiting.push(resolve); });
    this.#registering++;
    try {
      await f();
    } finally {
      this.#registering--;
      this.#waiting.shift()?.();
    }
  }
}
