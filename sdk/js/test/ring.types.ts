// Compiled by tsc and never run: what TypeScript must accept, and what it must refuse.

import { Plan, Ring, RingError, diff, percent, type Change } from '../ring.js';

interface Instance { id: string; weight: number; addr: string }

const ring = new Ring<Instance>({ virtual_nodes: 256, bound: 1100 }, [{ id: 'a', weight: 1, addr: 'a:80' }]);
const addr: string | undefined = ring.match('key')?.addr;
const bytes: string[] = ring.matchN(new Uint8Array([1]), 2).map((m) => m.addr);
const next: Ring<Instance> = ring.with({ ...ring.params, bound: 0 }, [...ring.members]);
const change: Change<Instance> = { join: [{ id: 'b', weight: 2, addr: 'b:80' }], weights: { a: 3 } };
const moved: string = percent(new Plan(ring, change).moved);
const ends: bigint[] = diff(ring, next).ranges().map((r) => r.hi);
for (const { hash, owner } of ring.points()) console.log(hash + 1n, owner.length);
try {
  console.log(addr, bytes, moved, ends, ring.locate('key').why);
} catch (e) {
  if (e instanceof RingError) console.log(e.field, e.limit);
}

// @ts-expect-error a member needs a weight
new Ring({ virtual_nodes: 256 }, [{ id: 'a' }]);
// @ts-expect-error there is no such state
new Ring({ virtual_nodes: 256 }, [{ id: 'a', weight: 1, state: 'gone' }]);
// @ts-expect-error the owner may be null
ring.match('key').addr;
// @ts-expect-error a key is a text or bytes
ring.match(7);
// @ts-expect-error rings do not change
ring.size = 0;
