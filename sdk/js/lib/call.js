// A call: attempts at one node after another, until one gives a definite answer or the time is over.

import { RegistryError, UnavailableError, errorOf, fromProblem, isRefusal, isTransient } from './errors.js';
import { Rotation } from './nodes.js';
import { bounded, milliseconds, now, randomHex, sleep } from './values.js';

// How calls may be repeated: timeouts is the time of one attempt in attempt timeouts. An attempt of a write that was
// sent and not answered has an unknown outcome.
export const readKind = { timeouts: 1, write: false };
export const statusKind = { timeouts: 5, write: false }; // the node asks all others first
export const writeKind = { timeouts: 3, write: true };

/** A node may not have applied yet that the client's token was created or rotated. */
const maxRefused = 3;

/** A write names an index that was observed at most so long before; with the call's time within the leader's memory. */
const sinceAge = 5000;

/** query makes the query of a path; undefined values are left out. */
export function query(values) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined) params.append(name, String(value));
  const text = params.toString();
  return text ? `?${text}` : '';
}

class Call {
  #core;
  #op;
  #kind;
  #rotation;
  #failures = new Map(); // last message by address
  #last; // the most informative failure
  #stale; // in this round, a node's refusal as stale
  #behind = false; // a node had not reached the index that this client has seen, or was silent
  #refused = 0;
  #read;
  #seen;
  again = false; // an earlier attempt may have taken effect

  constructor(core, op, kind, read) {
    this.#core = core;
    this.#op = op;
    this.#kind = kind;
    this.#read = read;
    this.#seen = core.seen;
    this.#rotation = new Rotation(core.nodes);
  }

  /** #fallback: every second round a read is linearizable, which shows whether the index that was seen still exists. */
  get #fallback() {
    return this.#behind && this.#rotation.round % 2 === 1;
  }

  /** reading returns the parameters of a read. */
  reading() {
    const { linearizable, min_index = 0, max_staleness } = this.#read;
    const index = this.#fallback ? min_index : Math.max(min_index, this.#seen);
    return { linearizable: linearizable || this.#fallback || undefined, min_index: index || undefined, max_staleness };
  }

  /** run makes attempts. make returns the request of the next one. */
  async run(make, signal, deadline) {
    const latest = this.#kind.write ? deadline - Math.min(this.#core.options.attempt_timeout, (deadline - now()) / 10) : Infinity;
    for (;;) {
      if (this.#last && !this.again && now() > latest) throw this.#giveUp(signal.reason);
      const node = this.#rotation.next();
      if (!node) {
        await this.#nextRound(signal);
        continue;
      }
      let sent = false;
      try {
        const time = this.#core.options.attempt_timeout * this.#kind.timeouts * 2 ** Math.min(this.#rotation.round, 5);
        const answer = await bounded([signal], time, (s) => this.#core.attempt(node, { op: this.#op, ...make(), signal: s, sent: () => { sent = true; } }));
        this.#core.nodes.worked(node);
        return answer;
      } catch (e) {
        this.#classify(node, e, sent, signal);
      }
    }
  }

  /** #classify throws the error that ends the call, or returns to go on. */
  #classify(node, thrown, sent, signal) {
    let e = thrown;
    if (signal.aborted || e.name === 'TimeoutError') e = new UnavailableError(e.message, { op: this.#op, cause: e });
    if (!(e instanceof RegistryError)) throw e; // a mistake of this program
    if (e.reason === 'unauthenticated' && this.#core.tokenRefused() && ++this.#refused < maxRefused) {
      // Another node may know the token.
    } else if (isRefusal(e)) {
      this.#failures.set(node.addr, e.message);
      throw this.again ? this.#giveUp() : e;
    } else if (e.reason === 'outcome_unknown') {
      this.again = true;
      if (e.field) { // no node can tell
        this.#failures.set(node.addr, e.message);
        throw this.#giveUp();
      }
    } else if (e.reason === 'stale') {
      this.#stale = e;
    } else if (!['no_leader', 'busy', 'not_ready', 'wrong_cluster', ''].includes(e.reason)) {
      throw e;
    } else if (e.reason === '') {
      if (!isTransient(e)) throw e;
      if (sent && this.#kind.write) this.again = true;
    }
    if (signal.aborted) {
      if (!this.#failures.has(node.addr)) this.#failures.set(node.addr, e.message);
      throw this.#giveUp(signal.reason);
    }
    this.#failures.set(node.addr, e.message);
    if (rank(e) >= rank(this.#last)) this.#last = e;
    const silent = thrown.name === 'TimeoutError';
    this.#behind ||= Boolean(this.#read) && this.#seen > (this.#read.min_index ?? 0) && (Boolean(this.#stale) || silent);
    this.#rotation.failed(node, e);
  }

  async #nextRound(signal) {
    if (this.#stale && (!this.#behind || this.#fallback)) throw this.#stale; // no node is fresh enough
    if (this.#rotation.allForeign) throw this.#giveUp();
    this.#stale = undefined;
    try {
      await sleep(this.#rotation.nextRound(), signal);
    } catch (e) {
      throw this.#giveUp(e);
    }
  }

  /** #giveUp makes the error of a call that ends without a definite answer. */
  #giveUp(cause) {
    if (cause && cause.name !== 'TimeoutError' && !this.again) return cause; // the caller, or close, ended it
    const tried = [...this.#failures].map(([addr, message]) => `${addr}: ${message}`).sort().join('; ') || `none of ${this.#core.nodes.addrs.join(', ')} was tried`;
    const ended = cause ? ` (${cause.message})` : '', detail = { op: this.#op, cause };
    if (this.again) return errorOf(`the change may or may not have taken effect; repeat the call: ${tried}${ended}`, { ...detail, reason: 'outcome_unknown' });
    if (this.#last?.reason) {
      const { reason, field, limit, status } = this.#last;
      return errorOf(`${tried}${ended}`, { ...detail, reason, field, limit, status });
    }
    return new UnavailableError(`no node could be reached: ${tried}${ended}`, detail);
  }
}

/** rank: an answer of the own cluster tells more than one of another, and that more than a failed connection. */
function rank(e) {
  if (!e?.reason) return 0;
  return e.reason === 'wrong_cluster' ? 1 : 2;
}

/** within calls f with a signal and the time until when it has to answer. */
function within(core, { signal, timeout = core.options.call_timeout }, f) {
  core.open();
  const time = milliseconds(timeout, 'timeout');
  return bounded([signal, core.closing], time, (s) => f(s, now() + time));
}

/** read makes a call that reads: path of the parameters that say how fresh the answer has to be. */
export function read(core, op, options, path, { method = 'GET', body, kind = readKind } = {}) {
  return within(core, options, async (signal, deadline) => {
    const call = new Call(core, op, kind, options);
    const answer = await call.run(() => ({ method, path: path(call.reading()), body }), signal, deadline);
    core.observe(answer.receipt?.index);
    return answer;
  });
}

/** ask makes a call that neither reads the replicated state nor writes. */
export function ask(core, op, options, request, kind = readKind) {
  return within(core, options, (signal, deadline) => new Call(core, op, kind).run(() => request, signal, deadline));
}

/**
 * write makes a call that takes effect at most once, however many nodes it is sent to. make returns the request of an
 * attempt with the fields request_id, since and again.
 */
export function write(core, op, options, make) {
  return within(core, options, async (signal, deadline) => {
    for (let age = sinceAge; ; age = 0) {
      const since = await observed(core, op, age, signal, deadline), request_id = randomHex(), call = new Call(core, op, writeKind);
      try {
        const answer = await call.run(() => make({ request_id, since, again: call.again || undefined }), signal, deadline);
        core.observe(answer.index);
        return answer;
      } catch (e) {
        // The leader does not remember so far back. Nothing was done.
        if (age === 0 || call.again || e.reason !== 'invalid_argument' || e.field !== 'since') throw e;
      }
    }
  });
}

/** observed returns an index that was observed at most age ago. */
async function observed(core, op, age, signal, deadline) {
  if (core.seen > 0 && now() - core.seenAt < age) return core.seen;
  const { index } = await new Call(core, op, readKind).run(() => ({ method: 'GET', path: '/v1/index' }), signal, deadline);
  core.observe(index);
  return index;
}

/** answerOf returns the body of an answer, or throws its problem. */
export async function answerOf(op, answer) {
  const text = await answer.text();
  if (answer.status !== 200) throw fromProblem(op, answer.status, text);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UnavailableError(`the answer is not JSON: ${cause.message}`, { op, cause });
  }
}
