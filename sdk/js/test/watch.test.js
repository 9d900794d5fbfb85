import assert from 'node:assert/strict';
import test from 'node:test';

import { ClosedError, EmptyGroupError, InvalidArgumentError, PermissionDeniedError, StaleError, UnavailableError, UnknownGroupError } from '../index.js';
import { events } from '../lib/sse.js';
import { FakeCluster, eventually } from './fake.js';
import { seeded } from './random.js';

async function started(t, options, count = 3) {
  const cluster = await FakeCluster.start(t, count), client = cluster.connect({ attempt_timeout: 5000, call_timeout: '60s', ...options });
  return { cluster, client };
}

const watches = (cluster) => cluster.calls.filter((c) => c.path === '/v1/watch' && c.query.group);
const ids = (members) => members.map((m) => m.id).join();

/** next returns the next event of a watch. */
async function next(watch) {
  const { value } = await watch.next();
  return value;
}

test('server-sent events, in whatever chunks they come', async (t) => {
  const below = seeded(t), text = 'retry: 1000\n\n: keep-alive\n\nevent: a\r\nid: 7\r\ndata: {"é":1}\r\n\r\ndata: one\ndata:two\ndata\n\nevent: none\n\nevent: b\ndata: x\n\n';
  const want = [{ event: 'a', data: '{"é":1}', id: '7' }, { event: 'message', data: 'one\ntwo\n', id: '7' }, { event: 'b', data: 'x', id: '7' }];
  const bytes = Buffer.from(text);
  for (let run = 0; run < 50; run++) {
    async function* chunks() {
      for (let at = 0; at < bytes.length;) yield bytes.subarray(at, at += 1 + below(12));
    }
    const got = [];
    let alive = 0;
    for await (const e of events(chunks())) e ? got.push(e) : alive++;
    assert.deepEqual(got, want);
    assert.ok(alive > 0);
  }
});

test('a watch goes on at another node', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }]);
  const watch = client.watch({ group: 'web' });
  const first = await next(watch);
  assert.deepEqual([first.type, first.group, first.revision, ids(first.members)], ['snapshot', 'web', 11, 'a']);
  cluster.change('web', [{ id: 'b' }]);
  const second = await next(watch);
  assert.deepEqual([second.type, second.from, second.revision, ids(second.members), ids(second.put)], ['delta', 11, 12, 'a,b', 'b']);
  await watches(cluster).at(-1).node.stop();
  const third = next(watch);
  await eventually(() => watches(cluster).length === 2, 'another node');
  const { query } = watches(cluster).at(-1);
  assert.deepEqual([query.revision, query.fingerprint, query.cluster_id, query.pieces], ['12', second.fingerprint, 'c1', 'true']);
  cluster.change('web', [], ['a']);
  assert.deepEqual(ids((await third).members), 'b');
  await watch.return();
  await eventually(() => cluster.nodes.every((n) => [...n.watchers].every((w) => !w.query.group)), 'the stream is closed');
});

test('the other watches', async (t) => {
  const { cluster, client } = await started(t);
  const nodes = await next(client.watch({ nodes: true }));
  assert.deepEqual([nodes.type, nodes.nodes.length], ['nodes', 3]);
  await assert.rejects(next(client.watch({})), InvalidArgumentError);
  await assert.rejects(next(client.watch({ group: 'a', nodes: true })), InvalidArgumentError);
  for (const n of cluster.nodes) n.intercept = () => ({ status: 400, reason: 'invalid_argument', field: 'group' });
  await assert.rejects(next(client.watch({ group: 'web' })), (e) => e instanceof InvalidArgumentError && e.field === 'group');
});

test('a watch that is refused at first ends, after some rounds', async (t) => {
  const { cluster, client } = await started(t);
  for (const n of cluster.nodes) n.intercept = () => ({ status: 403, reason: 'permission_denied', field: 'group' });
  await assert.rejects(next(client.watch({ group: 'web' })), PermissionDeniedError);
  assert.equal(watches(cluster).length, 9);
});

test('a watch ends with its signal, and with the client', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }]);
  const control = new AbortController(), watch = client.watch({ group: 'web' }, { signal: control.signal });
  await next(watch);
  const waiting = next(watch);
  control.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
  const other = client.watch({ group: 'web' });
  await next(other);
  const closed = next(other);
  await client.close();
  await assert.rejects(closed, ClosedError);
});

test('a node that falls silent, or loses its leader, is left', async (t) => {
  const { cluster, client } = await started(t, { attempt_timeout: 1000 });
  cluster.change('web', [{ id: 'a' }]);
  for (const n of cluster.nodes) n.progress = false;
  const watch = client.watch({ group: 'web' }, { progress_interval: 200 });
  await next(watch);
  const began = performance.now();
  void next(watch).catch(() => {});
  await eventually(() => watches(cluster).length === 2, 'another node');
  assert.ok(performance.now() - began > 1200, 'one and a half intervals, and an attempt');
  assert.notEqual(watches(cluster)[0].node, watches(cluster)[1].node);
});

test('an error event ends the stream, and another node is asked', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }]);
  const watch = client.watch({ group: 'web' });
  await next(watch);
  const { node } = watches(cluster)[0], [watcher] = [...node.watchers].filter((w) => w.query.group);
  node.event(watcher, 'error', { status: 503, reason: 'not_ready', detail: 'the node stops' });
  void next(watch).catch(() => {});
  await eventually(() => watches(cluster).length === 2);
  assert.notEqual(watches(cluster)[1].node, node);
});

test('pieces are joined', async (t) => {
  const { cluster, client } = await started(t, {}, 1), g = cluster.change('web', [{ id: 'a' }, { id: 'b' }, { id: 'c' }]);
  const [n] = cluster.nodes, whole = cluster.snapshot(g);
  n.intercept = (call) => {
    if (call.query.group) queueMicrotask(() => sendPieces());
    return undefined;
  };
  const sendPieces = () => {
    const [w] = [...n.watchers].filter((x) => x.query.group);
    g.members.delete('x');
    cluster.change('web', [{ id: 'd' }]);
    const next = cluster.snapshot(g), [a, ...rest] = next.members;
    n.event(w, 'snapshot', { ...next, members: [a], more: true });
    n.event(w, 'snapshot', { ...next, members: rest });
  };
  const watch = client.watch({ group: 'web' });
  assert.equal(ids((await next(watch)).members), ids(whole.members));
  const e = await next(watch);
  assert.deepEqual([e.type, ids(e.members), e.more], ['delta', 'a,b,c,d', undefined]);
});

test('a delta that does not follow, or has another fingerprint, is replaced by a snapshot', async (t) => {
  for (const change of [{ from: 3 }, { fingerprint: '0123456789abcdef' }]) {
    const { cluster, client } = await started(t);
    cluster.change('web', [{ id: 'a' }]);
    const ring = await client.ring('web'), mismatches = [];
    ring.on('mismatch', (e) => mismatches.push(e.message));
    const { node } = watches(cluster)[0], [w] = [...node.watchers].filter((x) => x.query.group);
    const g = cluster.groups.get('web');
    g.members.set('b', { id: 'b', weight: 1, state: 'active' });
    g.revision = ++cluster.index;
    node.event(w, 'delta', { group: 'web', from: g.revision - 1, revision: g.revision, index: g.revision, config: g.config, put: [{ id: 'b', weight: 1 }], removed: [], fingerprint: cluster.fingerprint(g), ...change });
    await ring.wait(g.revision, { timeout: 15_000 });
    assert.equal(ids(ring.members), 'a,b');
    assert.equal(watches(cluster).length, 2, 'the group is asked for again');
    assert.equal(mismatches.length, change.from ? 0 : 1);
    if (!change.from) assert.equal(watches(cluster).at(-1).query.revision, undefined, 'it does not resume');
  }
});

test('a node that is behind is left, unless the leader is behind too', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }]);
  const g = cluster.change('web', [{ id: 'b' }]), ring = await client.ring('web'), old = { ...g, revision: 11, members: new Map([['a', g.members.get('a')]]) };
  const first = watches(cluster)[0].node, [behind, good] = cluster.nodes.filter((n) => n !== first);
  const snapshots = (n, state) => {
    n.intercept = (call) => {
      if (!call.query.group) return undefined;
      queueMicrotask(() => {
        for (const w of n.watchers) if (w.query.group) n.event(w, 'snapshot', cluster.snapshot(state));
      });
      return undefined;
    };
  };
  snapshots(behind, old);
  good.intercept = (call) => (call.query.group ? { status: 503, reason: 'busy' } : undefined);
  await first.stop();
  await eventually(() => watches(cluster).some((c) => c.node === behind), 'the node that is behind');
  await eventually(() => cluster.calls.some((c) => c.path.endsWith('/members') && c.query.linearizable), 'the leader is asked');
  assert.equal(ring.revision, 12);
  // Restored from a backup: now the leader has the older state.
  cluster.groups.set('web', old);
  await eventually(() => ring.revision === 11, 'the older state');
  assert.equal(ids(ring.members), 'a');
});

test('a ring goes on without any node, and says how old it is', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }, { id: 'b' }]);
  const ring = await client.ring('web', { max_age: 3000 }), owner = ring.match('user-1').id, outages = [];
  ring.on('outage', (e) => outages.push(e));
  assert.ok(ring.age < 3000, `${ring.age}`);
  for (const n of cluster.nodes) await n.stop();
  assert.equal(ring.match('user-1').id, owner);
  await eventually(() => ring.usable instanceof StaleError, 'too old');
  assert.throws(() => ring.match('user-1'), StaleError);
  const down = ring.age;
  for (const n of cluster.nodes) await n.restart();
  await eventually(() => !ring.usable, 'confirmed again');
  assert.ok(ring.age < down);
  await eventually(async () => cluster.calls.length > 0);
  await ring.close();
  assert.throws(() => ring.match('user-1'), ClosedError);
});

test('groups that are empty, unknown, or deleted', async (t) => {
  const { cluster, client } = await started(t);
  const ring = await client.ring('web');
  assert.throws(() => ring.match('k'), UnknownGroupError);
  cluster.change('web', [{ id: 'a' }]);
  await ring.wait(11, { timeout: 15_000 });
  assert.equal(ring.match('k').id, 'a');
  cluster.change('web', [], ['a']);
  await ring.wait(12, { timeout: 15_000 });
  assert.throws(() => ring.match('k'), EmptyGroupError);
  cluster.change('web', [{ id: 'b' }]);
  await ring.wait(13, { timeout: 15_000 });
  const absent = (cluster_id) => {
    for (const n of cluster.nodes) for (const w of n.watchers) if (w.query.group) n.event(w, 'unknown_group', { group: 'web', index: ++cluster.index, cluster_id });
  };
  cluster.groups.delete('web');
  absent('c1');
  await eventually(() => ring.usable instanceof UnknownGroupError, 'deleted');
  assert.match(ring.usable.message, /deleted/);
  cluster.index++;
  cluster.change('web', [{ id: 'c' }]);
  await eventually(() => ring.usable === null, 'created again');
  assert.equal(ring.match('k').id, 'c');
  // The registry lost its data: another cluster, which knows no such group. The ring stays.
  cluster.groups.delete('web');
  cluster.id = 'c1';
  absent('');
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(ring.match('k').id, 'c');
});

test('a held owner comes with its fallback', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }, { id: 'b', state: 'held' }]);
  const ring = await client.ring('web');
  const owners = Array.from({ length: 50 }, (_, i) => ring.match(`k${i}`));
  const held = owners.find((m) => m.id === 'b');
  assert.equal(held.fallback.id, 'a');
  assert.ok(owners.every((m) => m.id === 'b' || !('fallback' in m)));
  assert.deepEqual(ring.serving('k1', 1).map((m) => m.id), ['a']);
});

test('many changes are few builds, and wait does not wait for their turn', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', Array.from({ length: 500 }, (_, i) => ({ id: `m${i}` })), [], { virtual_nodes: 256, bound: 0 });
  const ring = await client.ring('web');
  let builds = 0;
  ring.on('change', () => builds++);
  for (let i = 0; i < 40; i++) cluster.change('web', [{ id: `new-${i}` }]);
  await ring.wait(cluster.index, { timeout: 30_000 });
  assert.equal(ring.members.length, 540);
  assert.ok(builds < 40, `${builds} builds`);
  assert.equal(ring.fingerprint, cluster.fingerprint(cluster.groups.get('web')));
});

test('the parameters of a group change', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('web', [{ id: 'a' }, { id: 'b', weight: 3 }]);
  const ring = await client.ring('web');
  cluster.change('web', [], [], { virtual_nodes: 128, bound: 1100 });
  await ring.wait(12, { timeout: 15_000 });
  assert.deepEqual(ring.ring.params, { virtual_nodes: 128, bound: 1100 });
});

test('no node sends the group', async (t) => {
  const { cluster, client } = await started(t);
  for (const n of cluster.nodes) await n.stop();
  await assert.rejects(client.ring('web', { timeout: 1500 }), (e) => e.op === 'ring' && /no node sent the group web: .*ECONNREFUSED/.test(e.message));
  await assert.rejects(client.ring(''), InvalidArgumentError);
  await assert.rejects(client.match('web', 'k', { timeout: 100 }), UnavailableError);
});
