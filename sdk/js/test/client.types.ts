// Compiled by tsc and never run: what TypeScript must accept, and what it must refuse.

import { ConflictError, Owner, RegistryError, connect, formatRoute, routeOf } from '../index.js';

const client = connect('127.0.0.1:9800,127.0.0.1:9801', { token: async () => 'secret', tls: { ca: 'pem' }, call_timeout: '5s' });

async function use(): Promise<void> {
  const registration = await client.register({ group: 'web', id: 'a', addr: '10.0.0.1:80', ttl: 10_000, meta: { zone: 'a' } });
  const off: () => void = registration.on('unreachable', (e) => console.log(e.reason));
  off();
  const { owner, receipt } = await client.match('web', new Uint8Array([1]), { n: 2, linearizable: true });
  console.log(owner.addr, formatRoute(routeOf('web', receipt)));
  const ring = await client.ring('web', { max_age: '10s' });
  const fallback: string | undefined = ring.match('k').fallback?.addr;
  const check = new Owner(ring, 'a').middleware((req: { headers: Record<string, string | undefined> }) => req.headers['x-user']);
  console.log(fallback, ring.ring?.boundInUse, check.length);
  for await (const e of client.watch({ group: 'web' })) {
    if (e.type === 'unknown_group') console.log(e.deleted);
    else console.log(e.members[0]?.addr, e.from);
  }
  for await (const e of client.watch({ nodes: true }, { onOutage: (why) => console.log(why?.message) })) console.log(e.leader);
  try {
    await registration.hold('30s', { signal: new AbortController().signal });
  } catch (e) {
    if (e instanceof ConflictError) console.log(e.field);
    else if (e instanceof RegistryError) console.log(e.limit);
  }
  await client.close();
  // @ts-expect-error a service has an address
  await client.register({ group: 'web', id: 'a' });
  // @ts-expect-error one target
  client.watch({});
  // @ts-expect-error there is no such event
  registration.on('gone', () => {});
  // @ts-expect-error the client does not change it
  registration.leaseId = 1;
}

void use;
