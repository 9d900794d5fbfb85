import assert from 'node:assert/strict';
import test from 'node:test';

import * as registry from '../index.js';
import { FakeCluster, eventually, firstOf } from './fake.js';

const { connect } = registry;

async function started(t, options) {
  const cluster = await FakeCluster.start(t, 3), client = cluster.connect({ attempt_timeout: '20s', call_timeout: '60s', ...options });
  cluster.change('web', [{ id: 'a', addr: 'a:1' }, { id: 'b', addr: 'b:1' }, { id: 'c', addr: 'c:1', state: 'held' }]);
  return { cluster, client, first: () => firstOf(cluster, client) };
}

test('reads', async (t) => {
  const { cluster, client } = await started(t);
  const m = await client.match('web', 'user-1', { n: 3 });
  assert.equal(m.owners.length, 3);
  assert.deepEqual(m.owner, m.owners[0]);
  assert.equal(m.receipt.revision, cluster.index);
  assert.equal((await client.match('web', new TextEncoder().encode('user-1'))).owner.id, m.owner.id);
  assert.deepEqual((await client.members('web')).members.map((x) => x.id), ['a', 'b', 'c']);
  assert.equal((await client.status()).leader, 'n1');
  assert.equal(client.clusterId, 'c1');
});

test('names and keys are escaped', async (t) => {
  const { cluster, client } = await started(t);
  cluster.change('a b?&é', [{ id: 'x' }]);
  const { receipt } = await client.match('a b?&é', 'k&n=5 +é%');
  assert.equal(receipt.revision, cluster.index);
  assert.equal(cluster.calls.at(-1).query.key, 'k&n=5 +é%');
});

test('many keys', async (t) => {
  const { cluster, client } = await started(t);
  const members = [{ id: 'a' }, { id: 'b' }, { id: 'c' }];
  for (const n of cluster.nodes) n.intercept = () => ({ members, owners: [0, 1, 2, 0], owners_per_key: 2, fallbacks: [0, 2], receipt: { index: 11 } });
  const many = await client.matchMany('web', ['k', new Uint8Array([255])], { n: 2 });
  assert.deepEqual(many.owners, [[members[0], members[1]], [members[2], members[0]]]);
  assert.deepEqual(many.fallbacks, [null, members[1]]);
  const { body } = cluster.calls.at(-1);
  assert.deepEqual(body, { keys_base64: ['aw==', '/w=='], n: 2 });
});

test('another node is asked when one is down, silent, breaks off, or has no leader', async (t) => {
  const { cluster, client, first } = await started(t, { attempt_timeout: 1000 });
  await (await first()).stop();
  assert.ok(await client.match('web', 'k'));
  for (const answer of ['silent', 'break', { status: 503, reason: 'no_leader' }, { status: 503, reason: 'busy' }, { status: 503, reason: 'not_ready' }, { status: 502 }]) {
    let once = answer;
    for (const n of cluster.nodes) n.intercept = (call) => (call.path.endsWith('/match') ? [once, once = undefined][0] : undefined);
    assert.ok(await client.match('web', 'k'), `${JSON.stringify(answer)}`);
    assert.equal(once, undefined);
  }
  assert.ok(cluster.calls.length >= 12);
});

test('a round over all nodes is followed by a pause and another one', async (t) => {
  const { cluster, client } = await started(t);
  let refusals = 7;
  for (const n of cluster.nodes) n.intercept = (call) => (call.path.endsWith('/match') && refusals-- > 0 ? { status: 503, reason: 'no_leader', detail: 'none' } : undefined);
  assert.ok(await client.match('web', 'k'));
  assert.equal(cluster.calls.length, 8);
});

test('errors have a class, a field and a limit', async (t) => {
  const { cluster, client } = await started(t);
  await assert.rejects(client.match('nowhere', 'k'), (e) => e instanceof registry.UnknownGroupError && e.reason === 'unknown_group' && e.status === 404 && e.op === 'match');
  for (const n of cluster.nodes) n.intercept = () => ({ status: 400, reason: 'invalid_argument', field: 'key', limit: 'at most 4 KiB', detail: 'key: too long' });
  await assert.rejects(client.match('web', 'k'), (e) => e instanceof registry.InvalidArgumentError && e.field === 'key' && e.limit === 'at most 4 KiB');
  const reasons = ['EMPTY_GROUP', 'UNKNOWN_MEMBER', 'CONFLICT', 'FENCED', 'REVISION_MISMATCH', 'MEMBERSHIP', 'EXHAUSTED', 'GROUP_NOT_EMPTY', 'UNKNOWN_NODE',
    'PERMISSION_DENIED', 'NOT_OWNER', 'TOKENS_OFF', 'LAST_ADMIN', 'UNKNOWN_TOKEN', 'FEATURE_LEVEL'];
  for (const reason of reasons.map((r) => r.toLowerCase())) {
    for (const n of cluster.nodes) n.intercept = () => ({ status: 409, reason });
    const name = reason.split('_').map((word) => word[0].toUpperCase() + word.slice(1)).join('') + 'Error';
    const before = cluster.calls.length;
    await assert.rejects(client.match('web', 'k'), (e) => e instanceof registry[name] && e.name === name, name);
    assert.equal(cluster.calls.length, before + 1, `${reason} is definite`);
  }
});

test('an error that ends the time tells what the nodes said', async (t) => {
  const { cluster, client } = await started(t);
  for (const n of cluster.nodes) n.intercept = () => ({ status: 503, reason: 'no_leader', detail: `${n.id} knows no leader` });
  await assert.rejects(client.match('web', 'k', { timeout: 1500 }), (e) => e instanceof registry.NoLeaderError && /n\d knows no leader/.test(e.message));
  for (const n of cluster.nodes) await n.stop();
  await assert.rejects(connect(cluster.target).match('web', 'k', { timeout: '3s' }), (e) => e instanceof registry.UnavailableError && /ECONNREFUSED/.test(e.message) && e.cause.name === 'TimeoutError');
});

test('a write has one request id for all its attempts', async (t) => {
  const { cluster, client } = await started(t);
  const answers = [{ status: 503, reason: 'no_leader' }, 'break', { status: 504, reason: 'outcome_unknown' }, 'break'];
  for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PUT' ? answers.shift() : undefined);
  await client.setGroup('web', { virtual_nodes: 128, bound: 0 }).catch((e) => assert.equal(e.reason, '')); // the fake has no such call
  const puts = cluster.calls.filter((c) => c.method === 'PUT');
  assert.equal(puts.length, 5);
  assert.equal(new Set(puts.map((c) => c.body.request_id)).size, 1);
  assert.match(puts[0].body.request_id, /^[0-9a-f]{32}$/);
  assert.deepEqual(puts.map((c) => c.body.again), [undefined, undefined, true, true, true], 'again only once an attempt may have taken effect');
  assert.ok(puts.every((c) => c.body.since === cluster.index));
});

test('a write without a definite answer has an unknown outcome', async (t) => {
  const { cluster, client } = await started(t, { attempt_timeout: 200 });
  await client.index();
  for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PATCH' ? 'silent' : undefined);
  await assert.rejects(client.updateMember('web', 'a', { weight: 2, timeout: 4000 }), registry.OutcomeUnknownError);
  for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PATCH' ? { status: 504, reason: 'outcome_unknown', field: 'since', detail: 'too old' } : undefined);
  const before = cluster.calls.length;
  const patient = cluster.connect({ attempt_timeout: '20s', call_timeout: '60s' });
  await assert.rejects(patient.updateMember('web', 'a', { weight: 2 }), registry.OutcomeUnknownError);
  assert.equal(cluster.calls.filter((c) => c.method === 'PATCH').length - cluster.calls.slice(0, before).filter((c) => c.method === 'PATCH').length, 1, 'no node can tell');
  for (const n of cluster.nodes) await n.stop();
  const fresh = connect(cluster.target); // a kept connection may have taken the request
  await assert.rejects(fresh.updateMember('web', 'a', { weight: 2, timeout: 3000 }), registry.UnavailableError, 'nothing was sent');
});

test('a leader that does not remember so far back gets another request id', async (t) => {
  const { cluster, client } = await started(t);
  let refuse = true;
  for (const n of cluster.nodes) n.intercept = (call) => (call.method === 'PATCH' && refuse ? (refuse = false, { status: 400, reason: 'invalid_argument', field: 'since' }) : undefined);
  await client.match('web', 'k');
  cluster.index += 5;
  await client.updateMember('web', 'a', { state: 'draining' });
  const patches = cluster.calls.filter((c) => c.method === 'PATCH');
  assert.equal(patches.length, 2);
  assert.notEqual(patches[0].body.request_id, patches[1].body.request_id);
  assert.equal(patches[1].body.since, patches[0].body.since + 5, 'the index is asked for');
});

test('reads never go back, and notice a cluster that was restored', async (t) => {
  const { cluster, client } = await started(t);
  await client.match('web', 'k');
  const seen = cluster.index;
  await client.match('web', 'k');
  assert.equal(cluster.calls.at(-1).query.min_index, String(seen));
  for (const n of cluster.nodes) {
    n.intercept = (call) => (call.query.min_index && !call.query.linearizable ? { status: 503, reason: 'stale', detail: 'behind' } : undefined);
  }
  assert.ok(await client.match('web', 'k'));
  const last = cluster.calls.at(-1);
  assert.equal(last.query.linearizable, 'true');
  assert.equal(last.query.min_index, undefined);
  await assert.rejects(client.match('web', 'k', { min_index: seen + 1 }), registry.StaleError);
});

test('nodes of another cluster are not believed', async (t) => {
  const { cluster, client, first } = await started(t);
  await client.match('web', 'k');
  await client.match('web', 'k');
  assert.equal(cluster.calls.at(-1).headers['registry-cluster'], 'prod/c1');
  const other = await FakeCluster.start(t, 1);
  other.id = 'c2';
  other.change('web', [{ id: 'z' }]);
  const old = await first();
  await old.stop();
  old.cluster = other;
  await old.restart();
  assert.notEqual((await client.match('web', 'k')).owner.id, 'z');
  for (const n of cluster.nodes) n.cluster = other;
  await assert.rejects(client.match('web', 'k'), (e) => e instanceof registry.WrongClusterError && /make a new client/.test(e.message));
  await assert.rejects(connect(other.target, { cluster: 'test' }).match('web', 'k'), registry.WrongClusterError);
  assert.throws(() => connect('a:1', { cluster: 'a/b/c' }), registry.InvalidArgumentError);
});

test('tokens', async (t) => {
  let token = 'old';
  const { cluster, client } = await started(t, { token: async () => token });
  const known = new Set(['old']);
  for (const n of cluster.nodes) {
    n.intercept = (call) => (known.has(call.headers.authorization?.slice(7)) ? undefined : { status: 401, reason: 'unauthenticated', detail: 'unknown token' });
  }
  assert.ok(await client.match('web', 'k'));
  const late = await firstOf(cluster, client), before = cluster.calls.length;
  token = 'new'; // which that node has not applied yet
  for (const n of cluster.nodes) if (n !== late) n.intercept = () => undefined;
  assert.ok(await client.match('web', 'k'));
  assert.equal(cluster.calls.length, before + 2);
  for (const n of cluster.nodes) n.intercept = () => ({ status: 401, reason: 'unauthenticated' });
  const all = cluster.calls.length;
  await assert.rejects(client.match('web', 'k'), registry.UnauthenticatedError);
  assert.equal(cluster.calls.length, all + 3, 'a token that three nodes refuse is not valid');
  for (const n of cluster.nodes) n.intercept = () => ({ status: 403, reason: 'permission_denied', field: 'group', limit: 'web-*' });
  await assert.rejects(client.match('web', 'k'), (e) => e instanceof registry.PermissionDeniedError && e.limit === 'web-*');
  assert.equal(cluster.calls.length, all + 4);
  const unreadable = connect(cluster.target, { token: () => { throw new Error('no such file'); } });
  await assert.rejects(unreadable.match('web', 'k'), (e) => e instanceof registry.UnauthenticatedError && /no such file/.test(e.message));
  assert.equal(cluster.calls.length, all + 4, 'nothing was sent');
});

test('pages of one revision', async (t) => {
  const { cluster, client } = await started(t);
  const page = (from, next) => ({ members: [{ id: `m${from}` }], config: { virtual_nodes: 64 }, next_page_token: next, receipt: { index: 12, revision: 12 } });
  const answers = [page(1, 'p2'), { status: 412, reason: 'revision_mismatch', field: 'page_token' }, page(3, 'p4'), page(4, '')];
  for (const n of cluster.nodes) n.intercept = (call) => (call.path === '/v1/groups/web/members' ? answers.shift() : undefined);
  assert.deepEqual((await client.members('web', { page_size: 1 })).members.map((m) => m.id), ['m3', 'm4'], 'it starts over');
  const asked = cluster.calls.filter((c) => c.path.endsWith('members'));
  assert.deepEqual(asked.map((c) => c.query.page_token), [undefined, 'p2', undefined, 'p4']);
});

test('a call ends with its signal and with the client', async (t) => {
  const { cluster, client } = await started(t);
  for (const n of cluster.nodes) n.intercept = () => 'silent';
  const control = new AbortController(), call = client.match('web', 'k', { signal: control.signal });
  control.abort(new Error('enough'));
  await assert.rejects(call, /enough/);
  await assert.rejects(client.match('web', 'k', { signal: AbortSignal.abort() }), { name: 'AbortError' });
  const open = client.match('web', 'k');
  await client.close();
  await assert.rejects(open, registry.ClosedError);
  await assert.rejects(async () => client.match('web', 'k'), registry.ClosedError);
});

test('an index that a number does not hold is an error', async (t) => {
  const { cluster, client } = await started(t);
  for (const n of cluster.nodes) n.intercept = () => ({ members: [{ id: 'a' }], fallback: null, receipt: { index: 2 ** 53 } });
  await assert.rejects(client.match('web', 'k'), /2\^53/);
});

test('the addresses of the nodes are followed', async (t) => {
  const cluster = await FakeCluster.start(t, 3), client = cluster.connect({}, cluster.nodes[0].addr);
  cluster.change('web', [{ id: 'a' }]);
  await client.match('web', 'k');
  await eventually(() => client.addrs.length === 3, 'the addresses');
  assert.deepEqual([...client.addrs].sort(), cluster.nodes.map((n) => n.addr).sort());
  await cluster.nodes[0].stop();
  assert.ok(await client.match('web', 'k'), 'the given node is gone');
});

test('bad options', () => {
  for (const target of ['', 'host', 'host:0', 'host:99999', 'http://host:1', 'a:1,,b:2', 'u@h:1']) {
    assert.throws(() => connect(target), (e) => e instanceof registry.InvalidArgumentError && e.field === 'target', target);
  }
  assert.throws(() => connect('a:1', { call_timeout: 'soon' }), (e) => e.field === 'call_timeout' && /10s/.test(e.limit));
  assert.throws(() => connect('a:1', { attempt_timeout: 0 }), (e) => e.field === 'attempt_timeout');
  assert.deepEqual(connect('[::1]:9800, b:1,b:1').addrs, ['[::1]:9800', 'b:1']);
});
