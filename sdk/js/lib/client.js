// The client.

import { ask, query, read, statusKind, write } from './call.js';
import { deregister, groupPath, leaderReceipt, updateMember } from './calls.js';
import { Core } from './core.js';
import { GroupRing } from './group-ring.js';
import { Keeper } from './keeper.js';
import { Registration } from './registration.js';
import { base64, closedError } from './values.js';
import { watchEvents } from './watch.js';

/** Client is a connection to the nodes of one cluster. It follows the leader, and survives the loss of nodes. */
export class Client {
  #core;
  #keeper;
  #open = new Set(); // registrations and rings

  /** target is host:port of some nodes, comma-separated; in a browser the page's node by default. */
  constructor(target, options) {
    this.#core = new Core(target, options);
  }

  /** addrs are the addresses of the known nodes: the given ones, and those learnt from the cluster. */
  get addrs() {
    return this.#core.nodes.addrs;
  }

  /** clusterId is "" before the first answer. */
  get clusterId() {
    return this.#core.clusterId;
  }

  /** match returns the owner of a key, and with n the next distinct members. */
  async match(group, key, options = {}) {
    const named = typeof key === 'string' ? { key } : { key_base64: base64(key) };
    const answer = await read(this.#core, 'match', options, (reading) => groupPath(group, 'match') + query({ ...named, n: options.n, ...reading }));
    const { members: owners, fallback, receipt } = answer;
    return { owner: owners[0], owners, fallback, receipt };
  }

  /** matchMany returns the owners of up to 1,000 keys, all by one ring. */
  async matchMany(group, keys, options = {}) {
    const texts = keys.every((key) => typeof key === 'string');
    const bytes = (key) => base64(typeof key === 'string' ? new TextEncoder().encode(key) : key);
    const body = { ...(texts ? { keys } : { keys_base64: keys.map(bytes) }), n: options.n };
    const a = await read(this.#core, 'matchMany', options, (reading) => groupPath(group, 'match') + query(reading), { method: 'POST', body });
    return {
      owners: keys.map((_, i) => a.owners.slice(i * a.owners_per_key, (i + 1) * a.owners_per_key).map((m) => a.members[m])),
      fallbacks: keys.map((_, i) => (a.fallbacks[i] ? a.members[a.fallbacks[i] - 1] : null)), receipt: a.receipt,
    };
  }

  /** members returns all members of a group at one revision. It asks for pages. */
  async members(group, options = {}) {
    const members = [];
    for (let token = '', tries = 1; ;) {
      const paged = { page_size: options.page_size ?? 1000, page_token: token || undefined };
      try {
        const page = await read(this.#core, 'members', options, (reading) => groupPath(group, 'members') + query({ ...reading, ...paged }));
        members.push(...page.members);
        token = page.next_page_token;
        if (!token) return { members, config: page.config, receipt: page.receipt };
      } catch (e) {
        // The node no longer has the revision of the pages.
        if (e.reason !== 'revision_mismatch' || e.field !== 'page_token' || tries++ === 5) throw e;
        members.length = 0;
        token = '';
      }
    }
  }

  /** groups returns the groups whose names begin with the prefix. */
  async groups(options = {}) {
    const groups = [];
    for (let token = '', receipt; ;) {
      const paged = { prefix: options.prefix || undefined, page_size: options.page_size ?? 1000, page_token: token || undefined };
      const page = await read(this.#core, 'groups', options, (reading) => '/v1/groups' + query({ ...reading, ...paged }));
      groups.push(...page.groups);
      receipt ??= page.receipt;
      token = page.next_page_token;
      if (!token) return { groups, receipt };
    }
  }

  /** receipt returns the state of a group at the leader. */
  receipt(group, options) {
    return leaderReceipt(this.#core, group, options);
  }

  /** index returns an index of the log that the node has applied. */
  async index(options = {}) {
    const { index } = await read(this.#core, 'index', options, (reading) => '/v1/index' + query(reading));
    this.#core.observe(index);
    return index;
  }

  /** status returns the nodes of the cluster and their leader, and with group their digests of its ring. */
  status(options = {}) {
    return ask(this.#core, 'status', options, { method: 'GET', path: '/v1/cluster' + query({ group: options.group }) }, statusKind);
  }

  /** self returns what the client's token may do. */
  self(options = {}) {
    return ask(this.#core, 'self', options, { method: 'GET', path: '/v1/tokens/self' });
  }

  /** setGroup creates a group or changes its parameters. */
  setGroup(group, { virtual_nodes, bound, expected_revision, ...options } = {}) {
    return write(this.#core, 'setGroup', options, (attempt) => ({
      method: 'PUT', path: groupPath(group), body: { config: { virtual_nodes, bound }, expected_revision, ...attempt },
    }));
  }

  /** updateMember changes the state, the weight, or the hold of a member. */
  updateMember(group, id, change) {
    return updateMember(this.#core, group, id, change);
  }

  /** deregister removes a member; with instance only that of one process. */
  deregister(group, id, options) {
    return deregister(this.#core, group, id, options);
  }

  /** register adds a service to its group and keeps it there by heartbeats until it is closed. */
  async register(service, options = {}) {
    this.#core.open();
    const r = await Registration.start(this.#core, this.#keeper ??= new Keeper(this.#core), service, options);
    if (this.#core.closing.aborted) {
      await r.close().catch(() => {}); // it ends with its lease
      throw closedError('client');
    }
    return this.#owned(r);
  }

  /** ring returns the ring of a group in this process, kept up to date by a watch. */
  async ring(group, options = {}) {
    this.#core.open();
    return this.#owned(await GroupRing.start(this.#core, group, options));
  }

  /** #owned keeps a child until it has ended, which for a registration is after its deregistration. */
  #owned(child) {
    this.#open.add(child);
    child.done.then(() => child.close()).catch(() => {}).then(() => this.#open.delete(child)); // the caller of close gets the error
    return child;
  }

  /** watch yields the events of {group}, {prefix}, {groups: true} or {nodes: true}, whatever node it follows. */
  watch(target, options = {}) {
    this.#core.open();
    return watchEvents(this.#core, target, options);
  }

  /** close deregisters what is registered, and ends rings and watches. */
  async close() {
    const results = await Promise.allSettled([...this.#open].map((child) => child.close()));
    await this.#core.close();
    const failed = results.find((r) => r.status === 'rejected');
    if (failed) throw failed.reason;
  }
}

if (Symbol.asyncDispose) {
  Client.prototype[Symbol.asyncDispose] = function () {
    return this.close();
  };
}
