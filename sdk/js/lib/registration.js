// A registration: a member of a group that this process keeps by heartbeats.

import { deregister, putMember, updateMember } from './calls.js';
import { ClosedError, HeldError, invalid } from './errors.js';
import { Emitter, closedError, durationText, milliseconds, now, randomHex } from './values.js';

const fields = ['group', 'id', 'addr', 'weight', 'meta', 'ttl', 'take_over'];

/**
 * Registration is kept by the client's keeper. When the lease is lost, because no node could be reached for too long,
 * it registers again until it succeeds. It ends when it is closed or held, and when another process registers the id.
 *
 * Events: lost (the lease), regained, unreachable (the error: the lease may be lost), ended (why).
 */
export class Registration extends Emitter {
  #core;
  #keeper;
  #service;
  #instance = randomHex(); // of this process: never stored, the same for every attempt
  #draining = false; // a registration after a loss asks for this state
  #closing;
  #states = Promise.resolve(); // one change of state at a time
  #ended;
  leaseId = 0;
  ttl = 0; // milliseconds, as the node granted it
  renewed = 0; // when the last acknowledged heartbeat was sent, by performance.now()
  error = null; // why it ended
  removed = false; // close removed the member
  done; // resolves with the error that it ended with

  constructor(core, keeper, service) {
    super();
    this.#core = core;
    this.#keeper = keeper;
    this.#service = service;
    this.done = new Promise((resolve) => { this.#ended = resolve; });
  }

  /** start registers; options bound the first registration alone. */
  static async start(core, keeper, service, options) {
    for (const name of Object.keys(service)) {
      if (!fields.includes(name)) throw invalid('register', name, fields.join(', '), `${name} is no field of a service`);
    }
    for (const name of ['group', 'id', 'addr']) {
      if (typeof service[name] !== 'string' || service[name] === '') throw invalid('register', name, 'a text', `${name} is not set`);
    }
    const r = new Registration(core, keeper, { ttl: '10s', ...service });
    await r._register(options, service.take_over);
    keeper.add(r);
    return r;
  }

  get group() {
    return this.#service.group;
  }

  get id() {
    return this.#service.id;
  }

  /** valid is false once the lease may be over: work that needs the registration has to stop until the next answer. */
  get valid() {
    return !this.error && now() - this.renewed < this.ttl;
  }

  /** _register makes or renews the registration, as the keeper does after a loss. */
  async _register(options, takeOver) {
    const { group, id, addr, weight, meta, ttl } = this.#service;
    const body = { addr, weight, meta, ttl: durationText(ttl, 'ttl'), instance: this.#instance, take_over: takeOver || undefined };
    if (this.#draining) body.state = 'draining';
    let requested = now();
    // The lease counts from the first attempt that may have taken effect.
    const answer = await putMember(this.#core, group, id, body, options, () => { requested = now(); });
    this.#core.observe(answer.lease_id);
    [this.leaseId, this.ttl, this.renewed] = [answer.lease_id, milliseconds(answer.ttl ?? ttl), requested];
  }

  /** _end ends the registration; false if that was done before. */
  _end(why) {
    if (this.error) return false;
    this.error = why;
    this.#ended(why);
    this.emit('ended', why);
    return true;
  }

  /** close stops the heartbeats and deregisters. A member that is held stays held for the restart. */
  close(options = {}) {
    return this.#closing ??= this.#close(options);
  }

  async #close(options) {
    if (!this._end(closedError('registration'))) return;
    await this.#keeper.release(this); // no heartbeat and no registration follows
    const named = { instance: this.#instance, keep_held: true };
    ({ removed: this.removed } = await deregister(this.#core, this.group, this.id, { ...named, timeout: this.#core.options.close_timeout, ...options }));
  }

  /**
   * hold ends the registration for a planned restart and keeps the member, for a duration. The next process that
   * registers the id replaces it. Meanwhile its keys are served by their fallbacks.
   */
  hold(duration, options = {}) {
    return this.#change(async () => {
      await this.#update({ state: 'held', hold: durationText(duration, 'hold') }, options);
      this._end(new HeldError('the member is held for a restart'));
      await this.#keeper.release(this);
    });
  }

  /** drain gives the keys away and keeps the member registered. */
  drain(options = {}) {
    return this.#setState('draining', options);
  }

  /** resume gives the keys back after drain. */
  resume(options = {}) {
    return this.#setState('active', options);
  }

  #setState(state, options) {
    return this.#change(async () => {
      const was = this.#draining;
      this.#draining = state === 'draining';
      try {
        await this.#update({ state }, options);
      } catch (e) {
        if (e.reason !== 'outcome_unknown') this.#draining = was;
        throw e;
      }
    });
  }

  #update(changes, options) {
    return updateMember(this.#core, this.group, this.id, { ...options, ...changes, instance: this.#instance });
  }

  /** #change makes one change of state after another, while the registration lasts. */
  #change(f) {
    const change = this.#states.then(() => {
      if (this.error) throw this.error instanceof ClosedError ? closedError('registration') : this.error;
      return f();
    });
    this.#states = change.catch(() => {});
    return change;
  }
}

if (Symbol.asyncDispose) {
  Registration.prototype[Symbol.asyncDispose] = function () {
    return this.close();
  };
}
