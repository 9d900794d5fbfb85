// Processor time of builds, a join, and lookups of local rings: node bench/ring.js

import { Ring } from '../ring.js';

const keys = Array.from({ length: 100_000 }, (_, i) => `user-id-${i}`);

/** best returns the least processor time of some runs in milliseconds: the first ones are compiled. */
function best(runs, f) {
  let least = Infinity;
  for (let i = 0; i < runs; i++) {
    const began = process.cpuUsage();
    f();
    const { user, system } = process.cpuUsage(began);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

for (const [count, bound] of [[1000, 0], [1000, 1100], [10_000, 0], [10_000, 1100]]) {
  const params = { virtual_nodes: 256, bound }, members = Array.from({ length: count }, (_, i) => ({ id: `webserver-${i}`, weight: 1 }));
  const ring = new Ring(params, members), joined = [...members, { id: 'new', weight: 1 }];
  const figures = {
    'build ms': best(3, () => new Ring(params, members)),
    'join ms': best(5, () => ring.with(params, joined)),
    'match us': best(10, () => keys.forEach((key) => ring.match(key))) * 1000 / keys.length,
    'matchN(3) us': best(3, () => keys.forEach((key) => ring.matchN(key, 3))) * 1000 / keys.length,
  };
  const text = Object.entries(figures).map(([name, value]) => `${name} ${value.toFixed(value < 10 ? 2 : 0)}`).join(', ');
  console.log(`${count} members, 256 virtual nodes, bound ${bound}: ${text}`);
}
