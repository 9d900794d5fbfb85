import assert from 'node:assert/strict';
import test from 'node:test';

import { ConflictError, FencedError, HeldError, InvalidArgumentError } from '../index.js';
import { answerTime, interval, newJitter } from '../lib/keeper.js';
import { FakeCluster, eventually, firstOf } from './fake.js';

const service = { group: 'web', id: 'a', addr: '127.0.0.1:8080', ttl: '3s' };

async function started(t, count = 3) {
  const cluster = await FakeCluster.start(t, count), client = cluster.connect({ attempt_timeout: '20s', call_timeout: '60s' });
  return { cluster, client };
}

/** heard records the events of a registration. */
function heard(r) {
  const events = [];
  for (const name of ['lost', 'regained', 'unreachable', 'ended']) r.on(name, (e) => events.push(e ? `${name} ${e.name}` : name));
  return events;
}

const beats = (cluster) => cluster.calls.filter((c) => c.path === '/v1/heartbeat');
const puts = (cluster) => cluster.calls.filter((c) => c.method === 'PUT');

test('heartbeats come every third of the TTL, less some jitter', () => {
  const pauses = Array.from({ length: 1000 }, () => interval(900, newJitter()));
  assert.ok(pauses.every((ms) => ms > 239 && ms <= 300));
  assert.ok(Math.max(...pauses) - Math.min(...pauses) > 50);
});

test('a registration is kept by heartbeats, and removed', async (t) => {
  const { cluster, client } = await started(t);
  const r = await client.register({ ...service, ttl: '900ms', weight: 2, meta: { zone: 'a' } });
  const { body } = puts(cluster)[0];
  assert.deepEqual([body.addr, body.weight, body.meta, body.ttl, body.take_over], [service.addr, 2, { zone: 'a' }, '900ms', undefined]);
  assert.match(body.instance, /^[0-9a-f]{32}$/);
  const sent = [r.renewed]; // when each acknowledged heartbeat was sent
  await eventually(() => {
    if (r.renewed !== sent.at(-1)) sent.push(r.renewed);
    return sent.length >= 5;
  }, 'heartbeats');
  for (let i = 1; i < sent.length; i++) assert.ok(sent[i] - sent[i - 1] >= 239, `${sent}`);
  assert.ok(beats(cluster).every((c) => c.body.lease_ids.join() === String(r.leaseId)));
  assert.ok(r.valid);
  await r.close();
  const { query, method } = cluster.calls.at(-1);
  assert.deepEqual([method, query.instance, query.keep_held], ['DELETE', body.instance, 'true']);
  assert.ok(r.removed && !r.valid && r.error);
  const count = beats(cluster).length;
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(beats(cluster).length, count, 'no heartbeat follows');
  await r.close();
  assert.equal(await r.done, r.error);
});

test('a lost lease is registered again, by the same process', async (t) => {
  const { cluster, client } = await started(t), r = await client.register(service, {}), events = heard(r), lease = r.leaseId;
  cluster.leases.clear();
  cluster.change('web', [], ['a']);
  await eventually(() => events.includes('regained'), 'events');
  assert.deepEqual(events.filter((e) => !e.startsWith('unreachable')), ['lost', 'regained']); // a busy machine is late with a heartbeat
  assert.notEqual(r.leaseId, lease);
  const [first, second] = puts(cluster);
  assert.equal(second.body.instance, first.body.instance);
  assert.notEqual(second.body.request_id, first.body.request_id);
  assert.ok(cluster.groups.get('web').members.has('a'));
});

for (const [reason, Class] of [['conflict', ConflictError], ['fenced', FencedError]]) {
  test(`after a loss, ${reason} ends the registration`, async (t) => {
    const { cluster, client } = await started(t), r = await client.register(service), events = heard(r);
    for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PUT' ? { status: 409, reason, detail: 'other' } : undefined);
    cluster.leases.clear();
    assert.ok((await r.done) instanceof Class);
    assert.deepEqual(events.filter((e) => !e.startsWith('unreachable')), ['lost', `ended ${Class.name}`]); // a busy machine is late with a heartbeat
    await r.close();
    assert.ok(!cluster.calls.some((c) => c.method === 'DELETE'), 'the id belongs to another process');
    await assert.rejects(r.drain(), Class);
  });
}

test('the id of a loss is not taken over', async (t) => {
  const { cluster, client } = await started(t), r = await client.register({ ...service, take_over: true }), events = heard(r);
  cluster.leases.clear();
  await eventually(() => events.includes('regained'));
  assert.deepEqual(puts(cluster).map((c) => c.body.take_over), [true, undefined]);
});

test('an outage of all nodes: the lease may be lost, and is renewed or registered again', async (t) => {
  const { cluster, client } = await started(t), r = await client.register(service), events = heard(r);
  for (const n of cluster.nodes) await n.stop();
  await eventually(() => events.length > 0, 'unreachable');
  assert.deepEqual(events, ['unreachable UnavailableError']);
  assert.ok(!r.valid);
  for (const n of cluster.nodes) await n.restart();
  await eventually(() => events.includes('regained'), 'regained');
  assert.ok(r.valid);
  for (const n of cluster.nodes) await n.stop();
  cluster.leases.clear();
  await eventually(() => events.length === 3, 'told once for each outage');
  for (const n of cluster.nodes) await n.restart();
  await eventually(() => events.length === 5, 'regained');
  assert.deepEqual(events.slice(2), ['unreachable UnavailableError', 'lost', 'regained']);
});

test('a silent node costs a quarter of the TTL', async (t) => {
  const { cluster, client } = await started(t), r = await client.register({ ...service, ttl: '4s' }), events = heard(r);
  await eventually(() => beats(cluster).length > 0);
  const silent = beats(cluster).at(-1).node;
  silent.intercept = (call) => (call.path === '/v1/heartbeat' ? 'silent' : undefined);
  const stuck = await eventually(() => beats(cluster).find((c, i) => c.node === silent && i > 0), 'a heartbeat to the silent node');
  const next = await eventually(() => beats(cluster).find((c) => c.at > stuck.at), 'a heartbeat to another one');
  assert.notEqual(next.node, silent);
  assert.ok(next.at - stuck.at > 300, `${next.at - stuck.at} ms`);
  assert.deepEqual([100, 4000, 60_000].map(answerTime), [200, 1000, 3000]);
  assert.deepEqual(events.filter((e) => e === 'lost'), []);
});

test('heartbeats go to the leader', async (t) => {
  const { cluster, client } = await started(t);
  const first = await firstOf(cluster, client);
  cluster.leader = cluster.nodes.find((n) => n !== first).addr;
  await client.register(service);
  const atLeader = (c) => c.node.addr === cluster.leader;
  await eventually(() => beats(cluster).length >= 4 && beats(cluster).slice(-3).every(atLeader), 'three heartbeats in a row');
  assert.ok(!atLeader(beats(cluster)[0]), 'the first one goes to the node that is asked first');
});

test('leases that are due together share a heartbeat', async (t) => {
  const { cluster, client } = await started(t);
  await Promise.all(Array.from({ length: 20 }, (_, i) => client.register({ ...service, id: `m${i}`, ttl: '3s' })));
  const together = () => beats(cluster).findIndex((c) => c.body.lease_ids.length === 20);
  await eventually(() => together() >= 0 && beats(cluster).length > together() + 1, 'a heartbeat of all, and the next one');
  assert.equal(beats(cluster)[together() + 1].body.lease_ids.length, 20, 'they stay together');
});

test('a lease of another token does not keep others from being renewed', async (t) => {
  const { cluster, client } = await started(t);
  const all = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((id) => client.register({ ...service, id, ttl: '6s' })));
  const events = all.map(heard), foreign = all[2].leaseId;
  for (const n of cluster.nodes) {
    n.intercept = (call) => (call.body.lease_ids?.includes(foreign) || (call.method === 'PUT' && call.path.endsWith('/c')) ? { status: 403, reason: 'not_owner', lease_ids: [foreign] } : undefined);
  }
  const at = performance.now();
  await eventually(() => events[2].length > 0, 'told');
  await eventually(() => all.every((r, i) => i === 2 || r.renewed > at), 'the others are renewed');
  assert.deepEqual(events.map((list) => list.includes('unreachable NotOwnerError')), [false, false, true, false, false]);
  for (const n of cluster.nodes) n.intercept = () => undefined;
  await eventually(() => events[2].includes('regained'), 'regained');
});

test('a token that is refused is told after some rounds, and heartbeats go on', async (t) => {
  const cluster = await FakeCluster.start(t, 3), client = cluster.connect({ token: 'secret' });
  const r = await client.register({ ...service, ttl: '12s' }), events = heard(r);
  for (const n of cluster.nodes) n.intercept = () => ({ status: 401, reason: 'unauthenticated' });
  await eventually(() => events.length > 0, 'told');
  assert.ok(r.valid, 'told before the lease is over');
  assert.ok(beats(cluster).length >= 7, `after ${beats(cluster).length} heartbeats`);
  for (const n of cluster.nodes) n.intercept = () => undefined;
  await eventually(() => events.includes('regained'));
  assert.deepEqual(events, ['unreachable UnauthenticatedError', 'regained']);
});

test('close ends a registration that is being made again', async (t) => {
  const { cluster, client } = await started(t), r = await client.register(service), events = heard(r);
  for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PUT' ? 'silent' : undefined);
  cluster.leases.clear();
  await eventually(() => puts(cluster).length === 2, 'a registration');
  await r.close();
  const count = cluster.calls.length;
  assert.equal(cluster.calls.at(-1).method, 'DELETE');
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(cluster.calls.length, count, 'nothing follows');
  assert.deepEqual([events[0], events.at(-1)], ['lost', 'ended ClosedError']);
});

test('hold, drain and resume', async (t) => {
  const { cluster, client } = await started(t), r = await client.register(service), events = heard(r);
  const patches = () => cluster.calls.filter((c) => c.method === 'PATCH').map(({ body: { state, hold } }) => [state, hold]);
  await r.drain();
  for (const n of cluster.nodes) n.intercept = () => undefined;
  await r.resume();
  await r.drain();
  cluster.leases.clear();
  await eventually(() => events.includes('regained'));
  assert.equal(puts(cluster).at(-1).body.state, 'draining', 'a drained member comes back as such');
  await r.resume();
  await r.hold('30s');
  assert.deepEqual(patches(), [['draining', undefined], ['active', undefined], ['draining', undefined], ['active', undefined], ['held', '30s']]);
  assert.ok((await r.done) instanceof HeldError);
  await r.close();
  assert.ok(!cluster.calls.some((c) => c.method === 'DELETE'));
  await assert.rejects(r.hold('1s'), HeldError);
});

test('a drain that failed is not asked for again', async (t) => {
  const { cluster, client } = await started(t), r = await client.register(service), events = heard(r);
  for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PATCH' ? { status: 409, reason: 'fenced' } : undefined);
  await assert.rejects(r.drain(), FencedError);
  cluster.leases.clear();
  await eventually(() => events.includes('regained'));
  assert.equal(puts(cluster).at(-1).body.state, undefined);
});

test('closing the client deregisters', async (t) => {
  const { cluster, client } = await started(t);
  const [a, b] = [await client.register(service), await client.register({ ...service, id: 'b' })];
  await client.close();
  assert.ok(a.removed && b.removed);
  assert.equal(cluster.groups.get('web').members.size, 0);
});

test('closing the client waits for a registration that is being closed', async (t) => {
  const { client } = await started(t), r = await client.register(service), closing = r.close();
  await r.done;
  await client.close();
  assert.ok(r.removed);
  await closing;
});

test('what cannot be registered', async (t) => {
  const { client } = await started(t, 1);
  for (const [change, field] of [[{ addr: undefined }, 'addr'], [{ id: '' }, 'id'], [{ ttl: 'x' }, 'ttl'], [{ adr: 'a:1' }, 'adr']]) {
    await assert.rejects(client.register({ ...service, ttl: 1000, ...change }), (e) => e instanceof InvalidArgumentError && e.field === field, field);
  }
});
