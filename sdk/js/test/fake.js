// A registry in this process: nodes that share one state, over real HTTP. Tests change what a node answers by its
// intercept, a function of the call: {status, ...problem}, 'silent' (no answer), 'break' (the connection), or undefined.

import { once } from 'node:events';
import http from 'node:http';

import { connect } from '../index.js';
import { Ring } from '../ring.js';

export class FakeCluster {
  index = 10;
  groups = new Map(); // name: {revision, config, members: Map}
  leases = new Map(); // lease id: {group, id, instance}
  nodes = [];
  clients = [];
  id = 'c1';

  /** start starts so many nodes. They end with the test. */
  static async start(t, count = 3) {
    const c = new FakeCluster();
    t.after(() => c.stop());
    for (let i = 0; i < count; i++) c.nodes.push(await FakeNode.start(c, `n${i + 1}`));
    return c;
  }

  /** connect makes a client, of all nodes or of a target. It ends with the test. */
  connect(options, target = this.target) {
    const client = connect(target, options);
    this.clients.push(client);
    return client;
  }

  /** stop closes the clients before the nodes: a client without a node waits before it gives up its registrations. */
  async stop() {
    for (const n of this.nodes) n.intercept = () => undefined;
    await Promise.all(this.clients.map((client) => client.close().catch(() => {})));
    await Promise.all(this.nodes.map((n) => n.stop()));
  }

  get target() {
    return this.nodes.map((n) => n.addr).join();
  }

  /** all calls but those by which the client follows the list of nodes, in their order */
  get calls() {
    return this.nodes.flatMap((n) => n.calls).filter((c) => !c.query.nodes).sort((a, b) => a.at - b.at);
  }

  group(name) {
    if (!this.groups.has(name)) this.groups.set(name, { name, revision: 0, config: { virtual_nodes: 64, bound: 0 }, members: new Map() });
    return this.groups.get(name);
  }

  /** change makes a change of a group and sends it to the watchers. */
  change(name, put = [], removed = [], config) {
    const g = this.group(name), from = g.revision;
    for (const id of removed) g.members.delete(id);
    for (const m of put) g.members.set(m.id, { addr: '', meta: {}, weight: 1, state: 'active', ...m });
    if (config) g.config = config;
    g.revision = ++this.index;
    if (!this.nodes.some((n) => [...n.watchers].some((w) => w.query.group === name))) return g;
    const delta = { group: name, from, revision: g.revision, index: this.index, config: g.config, put: put.map((m) => g.members.get(m.id)), removed, fingerprint: this.fingerprint(g) };
    for (const n of this.nodes) n.send(name, from === 0 ? ['snapshot', this.snapshot(g)] : ['delta', delta]);
    return g;
  }

  fingerprint(g) {
    return new Ring(g.config, g.members.values()).fingerprint;
  }

  snapshot(g) {
    const { name, revision, config } = g;
    return { group: name, revision, index: this.index, config, members: [...g.members.values()], fingerprint: this.fingerprint(g), cluster_id: this.id };
  }

  receipt(g) {
    return { index: this.index, revision: g.revision, fingerprint: this.fingerprint(g), lag: '0s', node: 'n', cluster_id: this.id };
  }
}

/** drawPort draws a port that the system gives to no connection: a node that restarts finds it free. */
const drawPort = () => 10_000 + Math.floor(Math.random() * 10_000);

export class FakeNode {
  calls = []; // {at, method, path, query, headers, body}
  intercept = () => undefined;
  watchers = new Set();
  lag = '0s';
  progress = true;

  static async start(cluster, id) {
    const n = new FakeNode();
    [n.cluster, n.id] = [cluster, id];
    for (;;) {
      try {
        await n.listen(drawPort());
        return n;
      } catch (e) {
        if (e.code !== 'EADDRINUSE') throw e;
      }
    }
  }

  async listen(port) {
    this.server = http.createServer((req, res) => this.#serve(req, res));
    this.server.listen(port, '127.0.0.1');
    await once(this.server, 'listening');
    this.port = this.server.address().port;
    this.addr = `127.0.0.1:${this.port}`;
  }

  /** stop breaks all connections. */
  async stop() {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
  }

  restart() {
    return this.listen(this.port);
  }

  async #serve(req, res) {
    const url = new URL(req.url, 'http://node'), parts = [];
    for await (const part of req) parts.push(part);
    const text = Buffer.concat(parts).toString();
    const call = {
      at: performance.now(), method: req.method, path: url.pathname, query: Object.fromEntries(url.searchParams), headers: req.headers,
      body: text ? JSON.parse(text) : {}, node: this,
    };
    this.calls.push(call);
    res.setHeader('registry-cluster', `prod/${this.cluster.id}`);
    const answer = this.intercept(call) ?? this.#answer(call, req, res);
    if (answer === 'silent') return;
    if (answer === 'break') {
      req.socket.destroy();
      return;
    }
    if (answer !== 'streaming') reply(res, answer);
  }

  #answer(call, req, res) {
    const c = this.cluster, [, , area, group, part, id] = call.path.split('/').map(decodeURIComponent);
    if (call.path === '/v1/index') return { index: c.index };
    if (call.path === '/v1/cluster') return { cluster: 'prod', cluster_id: c.id, leader: 'n1', nodes: [], term: 1 };
    if (call.path === '/v1/heartbeat') return { lost: call.body.lease_ids.filter((lease) => !c.leases.has(lease)), leader_addr: c.leader ?? '', term: 1 };
    if (call.path === '/v1/watch') return this.#watch(call, req, res);
    if (area !== 'groups') return { status: 404, reason: 'invalid_argument', detail: call.path };
    if (part === 'members' && id) return this.#write(call, group, id);
    const g = c.groups.get(group);
    if (!g) return { status: 404, reason: 'unknown_group', detail: `no group ${group}` };
    if (part === 'members') return { members: [...g.members.values()], config: g.config, next_page_token: '', receipt: c.receipt(g) };
    const ring = new Ring(g.config, g.members.values()), key = call.query.key ?? Buffer.from(call.query.key_base64 ?? '', 'base64');
    return { members: ring.matchN(key, Number(call.query.n ?? 1)), fallback: ring.fallback(key), receipt: c.receipt(g) };
  }

  #write({ method, body, query }, group, id) {
    const c = this.cluster;
    for (const [lease, l] of c.leases) if (l.group === group && l.id === id) c.leases.delete(lease);
    if (method === 'DELETE') {
      const removed = c.group(group).members.has(id);
      c.change(group, [], [id]);
      return { index: c.index, removed };
    }
    if (method === 'PATCH') {
      c.change(group, [{ ...c.group(group).members.get(id), state: body.state }]);
      return { index: c.index, revision: c.index };
    }
    c.change(group, [{ id, addr: body.addr, weight: body.weight || 1, state: body.state ?? 'active' }]);
    c.leases.set(c.index, { group, id, instance: body.instance });
    return { index: c.index, lease_id: c.index, revision: c.index, instance: body.instance ?? query.request_id, ttl: body.ttl };
  }

  #watch({ query, headers }, req, res) {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    const watcher = { res, query, headers }, c = this.cluster, g = c.groups.get(query.group);
    this.watchers.add(watcher);
    res.on('close', () => this.watchers.delete(watcher));
    res.write('retry: 1000\n\n');
    if (query.nodes) this.event(watcher, 'nodes', { index: c.index, leader: 'n1', nodes: c.nodes.map((n) => ({ id: n.id, addr: n.addr })) });
    else if (!g) this.event(watcher, 'unknown_group', { group: query.group, index: c.index, cluster_id: c.id });
    else if (Number(query.revision) !== g.revision) this.event(watcher, 'snapshot', c.snapshot(g));
    this.confirm(watcher);
    return 'streaming';
  }

  /** confirm sends progress. */
  confirm(watcher) {
    if (this.progress) this.event(watcher, 'progress', { index: this.cluster.index, lag: this.lag });
  }

  /** event sends an event to a watcher. */
  event(watcher, type, data) {
    watcher.res.write(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** send sends an event and progress to the watchers of a group. */
  send(group, [type, data]) {
    for (const w of this.watchers) {
      if (w.query.group !== group) continue;
      this.event(w, type, data);
      this.confirm(w);
    }
  }
}

function reply(res, { status = 200, ...body }) {
  res.writeHead(status, { 'content-type': status === 200 ? 'application/json' : 'application/problem+json' });
  res.end(JSON.stringify(status === 200 ? body : { title: 'Problem', status, detail: '', field: '', limit: '', ...body }));
}

/** eventually waits until f returns something that is true. */
export async function eventually(f, what = f, within = 30_000) {
  for (const began = performance.now(); ;) {
    const value = await f();
    if (value) return value;
    if (performance.now() - began > within) throw new Error(`not within ${within} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** firstOf returns the node that the client asks first. */
export async function firstOf(cluster, client) {
  await client.index();
  return cluster.calls.filter((c) => c.path === '/v1/index').at(-1).node;
}
