import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import test from 'node:test';

import { InvalidArgumentError, MisdirectedError, NotReadyError, Owner, formatRoute, misdirected, parseRoute, routeOf } from '../index.js';
import { FakeCluster } from './fake.js';

async function started(t, members = [{ id: 'a', addr: 'a:1' }, { id: 'b', addr: 'b:1' }]) {
  const cluster = await FakeCluster.start(t, 1), client = cluster.connect();
  cluster.change('web', members);
  const ring = await client.ring('web');
  /** keyOf finds a key of a member. */
  const keyOf = (id) => Array.from({ length: 500 }, (_, i) => `k${i}`).find((key) => ring.match(key).id === id);
  return { cluster, ring, keyOf };
}

test('one member accepts a key', async (t) => {
  const { ring, keyOf } = await started(t), a = new Owner(ring, 'a'), b = new Owner(ring, 'b'), key = keyOf('a');
  assert.equal((await a.accept(routeOf(ring), key)).revision, ring.revision);
  assert.equal((await a.accept(null, key)).fingerprint, ring.fingerprint);
  await assert.rejects(b.accept(routeOf(ring), key), (e) => e instanceof MisdirectedError && e.owner.id === 'a' && e.route.revision === ring.revision);
});

test('the ring of the router is newer, of another cluster, or another one', async (t) => {
  const { cluster, ring, keyOf } = await started(t), owner = new Owner(ring, 'a', { wait: 300 }), key = keyOf('a'), route = routeOf(ring);
  await assert.rejects(owner.accept({ ...route, revision: route.revision + 1 }, key), NotReadyError);
  await assert.rejects(owner.accept({ ...route, cluster_id: 'c2' }, key), NotReadyError);
  await assert.rejects(owner.accept({ ...route, fingerprint: '0000000000000001' }, key), NotReadyError);
  await assert.rejects(owner.accept({ ...route, group: 'other' }, key), InvalidArgumentError);
  assert.ok(await owner.accept({ ...route, revision: 1, fingerprint: '0000000000000001' }, key), 'an older ring of the router is no harm');
  const late = new Owner(ring, 'a', { wait: 30_000 }).accept({ ...route, revision: route.revision + 1, fingerprint: '' }, key);
  cluster.change('web', [{ id: 'b', addr: 'b:1' }]);
  await assert.rejects(late, (e) => e instanceof NotReadyError && /at revision \d+ the ring is/.test(e.message), 'it waited for the revision, whose fingerprint differs');
  assert.equal(ring.revision, route.revision + 1);
  assert.ok(await owner.accept(routeOf(ring), key));
});

test('held owners, fallbacks, and routes that are required', async (t) => {
  const { ring, keyOf } = await started(t, [{ id: 'a', addr: 'a:1' }, { id: 'b', addr: 'b:1', state: 'held' }]), key = keyOf('b');
  assert.ok(await new Owner(ring, 'a').accept(null, key), 'a serves the keys of b');
  await assert.rejects(new Owner(ring, 'b').accept(null, key), MisdirectedError);
  const skipped = { ...routeOf(ring), fallback: 1 };
  assert.ok(await new Owner(ring, 'b', { fallbacks: 1 }).accept(skipped, keyOf('a')));
  await assert.rejects(new Owner(ring, 'b').accept(skipped, keyOf('a')), MisdirectedError);
  await assert.rejects(new Owner(ring, 'a', { routeRequired: true }).accept(null, key), InvalidArgumentError);
});

test('the header of a route', () => {
  const text = 'v2;41f2a6c09be7d35841f2a6c09be7d358;web%20%C3%BC;120;63a9843e583371c6', route = parseRoute(text);
  assert.deepEqual(route, { cluster_id: '41f2a6c09be7d35841f2a6c09be7d358', group: 'web ü', revision: 120, fingerprint: '63a9843e583371c6', fallback: 0 });
  assert.equal(formatRoute(route), text);
  assert.equal(formatRoute(parseRoute(`${text};3`)), `${text};3`);
  for (const bad of ['', 'v1;web;1;a', 'v2;c;;1;a', 'v2;c;g;x;a', 'v2;c;g;1;xyz', 'v2;c;g;1;a;1001', 'v2;c;g;1;a;-1', 'v2;c;%zz;1;a', 'v2;c;g;1', 'v2;c;g;1;a;1;1', `v2;${'c'.repeat(1025)};g;1;a`]) {
    assert.throws(() => parseRoute(bad), (e) => e instanceof InvalidArgumentError && e.field === 'registry-ring', bad);
  }
});

test('middleware', async (t) => {
  const { ring, keyOf } = await started(t), served = [];
  const check = new Owner(ring, 'a', { wait: 50 }).middleware((req) => req.headers['x-user']);
  const redirecting = new Owner(ring, 'a', { redirect: 'http' }).middleware((req) => req.headers['x-user']);
  const failing = new Owner(ring, 'a').middleware(() => { throw new TypeError('a mistake'); });
  const server = http.createServer((req, res) => {
    const use = { '/r': redirecting, '/f': failing }[req.url.slice(0, 2)] ?? check;
    use(req, res, (e) => {
      served.push(req.url);
      res.statusCode = e ? 500 : 200;
      res.end(e ? e.message : String(req.registryRoute.revision));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const ask = (path, headers) => fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers, redirect: 'manual' });
  const good = await ask('/', { 'x-user': keyOf('a'), 'registry-ring': formatRoute(routeOf(ring)) });
  assert.deepEqual([good.status, await good.text()], [200, String(ring.revision)]);
  const wrong = await ask('/', { 'x-user': keyOf('b') });
  assert.equal(wrong.status, 421);
  assert.deepEqual(misdirected(wrong.status, (name) => wrong.headers.get(name)), { route: routeOf(ring), owner: { id: 'b', addr: 'b:1' } });
  assert.equal(misdirected(200, () => 'x;y'), null);
  const moved = await ask('/r/x?y=1', { 'x-user': keyOf('b') });
  assert.deepEqual([moved.status, moved.headers.get('location')], [307, 'http://b:1/r/x?y=1']);
  assert.equal((await ask('/', {})).status, 400);
  assert.equal((await ask('/', { 'x-user': 'k', 'registry-ring': 'v1' })).status, 400);
  assert.equal((await ask('/', { 'x-user': keyOf('a'), 'registry-ring': formatRoute({ ...routeOf(ring), revision: 99 }) })).status, 503);
  assert.equal((await ask('/f', {})).status, 500);
  assert.deepEqual(served, ['/', '/f']);
});
