import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

import { Plan, Ring, RingError, diff, fraction, hashOf, percent, xxh64 } from '../ring.js';
import { find, merge, sort } from '../ring-table.js';
import { hex16 } from '../xxh64.js';
import { Naive, naiveDiff } from './naive.js';
import { seeded } from './random.js';

const vectors = new URL('../../../testdata/ring/', import.meta.url);
const ids = (members) => members.map((m) => m.id);

test('vectors', async (t) => {
  const files = readdirSync(vectors).filter((name) => name.endsWith('.json'));
  assert.ok(files.length >= 8, `${files}`);
  for (const name of files) {
    await t.test(name, () => {
      const v = JSON.parse(readFileSync(new URL(name, vectors)));
      const ring = new Ring(v.params, v.members ?? []);
      assert.equal('0x' + ring.fingerprint, v.fingerprint);
      assert.equal('0x' + ring.digest(), v.digest);
      assert.equal(ring.boundInUse, v.bound_in_use ?? 0);
      const points = [...ring.points()].map(({ hash, id, index, owner }) => ({ hash: '0x' + hex16(hash), id, index, ...(owner !== id && { owner }) }));
      assert.deepEqual(points, v.points ?? []);
      for (const { key, hash, owners } of v.keys) {
        assert.equal('0x' + hex16(xxh64(key)), hash);
        assert.deepEqual(ids(ring.matchN(key, 3)), owners ?? []);
        assert.equal(ring.match(key)?.id, owners?.[0]);
        assert.equal(ring.ownerOf(BigInt(hash))?.id, owners?.[0]);
        assert.equal(ring.match(Buffer.from(key))?.id, owners?.[0]);
      }
    });
  }
});

/** randomSet draws parameters and members. */
function randomSet(below, most) {
  const params = { virtual_nodes: 64 << below(2), bound: below(2) ? 1010 + below(300) : 0 };
  const members = Array.from({ length: below(most + 1) }, (_, i) => randomMember(below, `m${i}`));
  return [params, members.sort(() => below(3) - 1)];
}

function randomMember(below, id) {
  return { id, weight: below(3) ? 1 : 1 + below(4), state: below(4) ? 'active' : ['active', 'draining', 'held'][below(3)] };
}

/** mutate changes some members. */
function mutate(below, members) {
  const byId = new Map(members.map((m) => [m.id, m]));
  for (let n = 1 + below(2); n > 0; n--) {
    const id = `m${below(15)}`;
    if (byId.has(id) && below(2)) byId.delete(id);
    else byId.set(id, randomMember(below, id));
  }
  return [...byId.values()];
}

function requireNaive(ring, naive, below) {
  assert.deepEqual(ring.members, naive.members);
  assert.deepEqual([...ring.points()], naive.points);
  assert.equal(ring.boundInUse, naive.bound);
  assert.deepEqual(ring.shares(), naive.members.map((m) => naive.shares()[m.id]));
  for (let i = 0; i < 20; i++) {
    const key = `key-${below(1e6)}`, n = below(7);
    assert.deepEqual(ids(ring.matchN(key, n)), naive.owners(xxh64(key), n));
  }
}

test('rings equal the naive ring, whatever they came from', (t) => {
  const below = seeded(t);
  for (let set = 0; set < 8; set++) {
    let [params, members] = randomSet(below, 10);
    let ring = new Ring(params, members);
    requireNaive(ring, new Naive(params, members), below);
    for (let step = 0; step < 6; step++) {
      members = mutate(below, members);
      if (below(5) === 0) [params] = randomSet(below, 0);
      ring = ring.with(params, members);
      requireNaive(ring, new Naive(params, members), below);
    }
  }
});

test('a ring of many members is that of one merge', () => {
  const members = Array.from({ length: 300 }, (_, i) => ({ id: `member-${i}`, weight: 1 }));
  const params = { virtual_nodes: 64, bound: 1100 };
  const base = new Ring(params, members.slice(1));
  const next = [...members.slice(2), { id: 'member-0', weight: 3 }, { id: 'member-1', weight: 1, state: 'held' }];
  assert.equal(base.with(params, next).digest(), new Ring(params, next).digest());
  assert.equal(base.with(params, base.members).hashHi, base.hashHi, 'nothing changed and the points were made again');
});

test('differences equal the naive ones', (t) => {
  const below = seeded(t);
  for (let set = 0; set < 10; set++) {
    const [params, members] = randomSet(below, 6);
    let [others, changed] = [params, mutate(below, members)];
    if (below(3) === 0) [others, changed] = randomSet(below, 6);
    const a = new Ring(params, members), b = new Ring(others, changed);
    const want = naiveDiff(new Naive(params, members), new Naive(others, changed));
    const d = diff(a, b);
    assert.deepEqual(d.ranges(), want);
    assert.equal(d.count, want.length);
    assert.equal(d.moved, want.reduce((sum, r) => sum + r.hi - r.lo, 0n));
    assert.equal(d.moved, d.moves.reduce((sum, m) => sum + m.share, 0n));
    for (const { from, to, share } of d.moves) {
      assert.equal(share, want.filter((r) => r.from === from && r.to === to).reduce((sum, r) => sum + r.hi - r.lo, 0n));
    }
    const arcs = d.arcs();
    want.forEach((r, i) => {
      assert.ok(Math.abs(arcs.lo[i] - fraction(r.lo)) < 1e-12 && Math.abs(arcs.hi[i] - fraction(r.hi)) < 1e-12);
      assert.deepEqual([a.members[arcs.from[i]]?.id ?? '', b.members[arcs.to[i]]?.id ?? ''], [r.from, r.to]);
    });
  }
});

test('differences at the ends', () => {
  const params = { virtual_nodes: 64 }, empty = new Ring(params, []), one = new Ring(params, [{ id: 'a', weight: 1 }]);
  assert.deepEqual(diff(one, one).ranges(), []);
  assert.deepEqual(diff(empty, empty).moves, []);
  assert.deepEqual(diff(empty, one).ranges(), [{ lo: 0n, hi: 1n << 64n, from: '', to: 'a' }]);
  assert.equal(percent(diff(one, empty).moved), '100.000000%');
});

test('arcs cover the circle', () => {
  const ring = new Ring({ virtual_nodes: 64, bound: 1050 }, ['a', 'b', 'c', 'd'].map((id) => ({ id, weight: 1 })));
  const { upTo, owner } = ring.arcs(), sums = new Float64Array(4);
  upTo.forEach((end, i) => {
    assert.ok(i === 0 || end > upTo[i - 1] && owner[i] !== owner[i - 1]);
    sums[owner[i]] += end - (upTo[i - 1] ?? 0);
    assert.equal(ring.ownerOf(BigInt(Math.floor((end - 1e-9) * 2 ** 53)) << 11n), ring.members[owner[i]]);
  });
  assert.equal(upTo.at(-1), 1);
  ring.fractions().forEach((share, m) => assert.ok(Math.abs(share - sums[m]) < 1e-12));
  assert.deepEqual(new Ring({ virtual_nodes: 64 }, []).arcs().upTo.length, 0);
});

test('a plan', () => {
  const three = new Ring({ virtual_nodes: 256 }, ['a', 'b', 'c'].map((id) => ({ id, weight: 1, addr: `${id}:1` })));
  const plan = new Plan(three, { join: [{ id: 'd', weight: 1 }] });
  assert.deepEqual(ids(plan.after.members), ['a', 'b', 'c', 'd']);
  assert.equal(plan.moved, plan.least, 'without a bound a join moves the minimum');
  assert.equal(plan.members[3].after, plan.moved);
  assert.equal(plan.members[3].weight_before, 0);
  assert.ok(plan.moves.every((m) => m.to === 'd') && plan.moves.length === 3);
  const away = new Plan(three, { leave: ['a', 'b'], drain: ['c'] });
  assert.equal(away.moved, 1n << 64n);
  assert.equal(away.least, 1n << 64n);
  const same = new Plan(three, { weights: { a: 2 }, hold: ['b'], bound: 1100, virtual_nodes: 512 });
  assert.deepEqual(same.after.params, { virtual_nodes: 512, bound: 1100 });
  assert.deepEqual(same.after.members.map((m) => [m.weight, m.state, m.addr]), [[2, undefined, 'a:1'], [1, 'held', 'b:1'], [1, undefined, 'c:1']]);
  for (const [change, field] of [
    [{ join: [{ id: 'a', weight: 1 }] }, 'join'], [{ leave: ['x'] }, 'leave'], [{ leave: ['a'], drain: ['a'] }, 'drain'],
    [{ weights: { x: 1 } }, 'weights'], [{ weights: { a: 0 } }, 'weight'], [{ bound: 5 }, 'bound'], [{ virtual_nodes: 100 }, 'virtual_nodes'],
  ]) assert.throws(() => new Plan(three, change), (e) => e instanceof RingError && e.field === field, JSON.stringify(change));
});

test('held members keep their keys, and another one serves them', () => {
  const ring = new Ring({ virtual_nodes: 64 }, ['a', 'b', 'c', 'd'].map((id) => ({ id, weight: 1, state: id === 'b' ? 'held' : 'active' })));
  let held = 0;
  for (let i = 0; i < 200; i++) {
    const owners = ids(ring.matchN(`k${i}`, 4)), serving = ids(ring.serving(`k${i}`, 4));
    assert.deepEqual(serving, [...owners.filter((id) => id !== 'b'), 'b']);
    const where = ring.locate(`k${i}`);
    assert.equal(where.owner, owners[0]);
    assert.deepEqual(where.next, owners.slice(1));
    if (owners[0] === 'b') {
      held++;
      assert.equal(ring.fallback(`k${i}`).id, owners[1]);
      assert.deepEqual(ids(ring.serving(`k${i}`, 1)), [owners[1]]);
      assert.equal(where.fallback, owners[1]);
    } else {
      assert.equal(ring.fallback(`k${i}`), null);
      assert.deepEqual(ids(ring.serving(`k${i}`, 1)), [owners[0]]);
      assert.equal(where.fallback, null);
    }
  }
  assert.ok(held > 20 && held < 90);
  const all = ring.with(ring.params, ring.members.map((m) => ({ ...m, state: 'held' })));
  assert.equal(all.fallback('k'), null);
});

test('locate names the point', () => {
  const v = JSON.parse(readFileSync(new URL('bound.json', vectors)));
  const ring = new Ring(v.params, v.members), points = [...ring.points()];
  let bounded = 0, wrapped = 0;
  for (let i = 0; i < 1000; i++) {
    const where = ring.locate(`k${i}`), found = ring.find(...hashOf(`k${i}`)), point = points[found] ?? points[0];
    assert.deepEqual([where.point.hash, where.point.id, where.point.index, where.owner], [hex16(point.hash), point.id, point.index, point.owner]);
    assert.match(where.why, new RegExp(`^the first point at or after 0x${where.hash} is 0x${where.point.hash}, number ${point.index} of "${point.id}"`));
    bounded += where.bounded;
    wrapped += where.wrapped;
  }
  assert.ok(bounded > 0 && wrapped > 0, `${bounded} bounded, ${wrapped} wrapped`);
  assert.equal(new Ring(v.params, []).locate('k').why, 'no member has points');
});

test('bad input names the field and the limit', () => {
  const params = { virtual_nodes: 64 }, good = { id: 'a', weight: 1 };
  for (const [p, members, field, limit] of [
    [{ virtual_nodes: 63 }, [], 'virtual_nodes', /64-4096/], [{ virtual_nodes: 8192 }, [], 'virtual_nodes', /64-4096/], [{}, [], 'virtual_nodes', /64/],
    [{ virtual_nodes: 64, bound: 1009 }, [], 'bound', /1010-10000/], [{ virtual_nodes: 64, bound: 10001 }, [], 'bound', /1010-10000/],
    [params, [{ id: '', weight: 1 }], 'id', /1-255/], [params, [{ id: 'é'.repeat(128), weight: 1 }], 'id', /1-255/],
    [params, [{ id: '\ud800', weight: 1 }], 'id', /UTF-8/], [params, [{ id: 7, weight: 1 }], 'id', /UTF-8/],
    [params, [{ id: 'a', weight: 0 }], 'weight', /1-1000/], [params, [{ id: 'a', weight: 1.5 }], 'weight', /1-1000/],
    [params, [{ id: 'a', weight: 1001 }], 'weight', /1-1000/], [params, [{ ...good, state: 'gone' }], 'state', /held/],
    [params, [good, { ...good }], 'id', /unique/],
    [{ virtual_nodes: 4096 }, Array.from({ length: 9 }, (_, i) => ({ id: `${i}`, weight: 1000 })), 'members', /33554432 points/],
  ]) {
    assert.throws(() => new Ring(p, members), (e) => e instanceof RingError && e.field === field && limit.test(e.limit), `${field} ${limit}`);
  }
});

test('ids are ordered by their bytes, not as strings', () => {
  const ring = new Ring({ virtual_nodes: 64 }, ['\u{1f600}', '\uff5e', 'z', 'é', 'a', 'ab'].map((id) => ({ id, weight: 1 })));
  assert.deepEqual(ids(ring.members), ['a', 'ab', 'z', 'é', '\uff5e', '\u{1f600}']);
});

// All ids that share a bucket: sorting and lookups stay right, and fast enough.
test('a bucket that is over-full', (t) => {
  const size = 3000, below = seeded(t);
  const hashes = Array.from({ length: size }, (_, i) => [i % 3 === 0 ? below(2 ** 32) : 0xabcdef01, below(50)]);
  const order = hashes.map((h, i) => [...h, i]).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  const table = sort({ size, hi: Uint32Array.from(hashes, (h) => h[0]), lo: Uint32Array.from(hashes, (h) => h[1]), owner: Uint32Array.from(hashes, (_, i) => i) });
  assert.deepEqual([...table.owner], order.map((h) => h[2]));
  for (const [hi, lo] of [...hashes, [0xabcdef01, 100], [0, 0], [0xffffffff, 0xffffffff]]) {
    const want = order.findIndex((h) => h[0] > hi || h[0] === hi && h[1] >= lo);
    assert.equal(find(table, hi, lo), want < 0 ? size : want);
  }
});

test('points with equal hashes are merged in the order of their members', (t) => {
  const below = seeded(t), count = 6;
  const table = (owners) => sort({ size: owners.length, hi: Uint32Array.from(owners, () => below(2)), lo: Uint32Array.from(owners, () => below(3)), owner: Uint32Array.from(owners) });
  const list = ({ hi, lo, owner }) => [...hi].map((h, i) => [h, lo[i], owner[i]]);
  for (let run = 0; run < 50; run++) {
    const draw = (from) => Array.from({ length: 30 }, () => from + 2 * below(count)).sort((a, b) => a - b);
    const old = table(draw(0)), added = table(draw(1)), gone = 2 * below(count);
    const renamed = Int32Array.from({ length: 2 * count }, (_, m) => (m === gone ? -1 : m)), merged = merge(old, renamed, added);
    const want = [...list(old).filter(([, , m]) => m !== gone), ...list(added)].sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    assert.deepEqual(list(merged), want);
    for (const [hi, lo] of want) assert.equal(find(merged, hi, lo), want.findIndex((p) => p[0] === hi && p[1] === lo));
  }
});
