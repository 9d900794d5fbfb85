// A service on real nodes, which tests/e2e drives: node scenario.js NODES GROUP ID ADDR [hold]
//
// It registers, keeps a local ring, compares it with the nodes, and prints what happens, a line each. At SIGTERM it
// deregisters, or with hold holds its member. The files are those of the environment, as for all clients.

import { readFileSync } from 'node:fs';

import { connect } from '../index.js';

const [nodes, group, id, addr, hold] = process.argv.slice(2);
const { REGISTRY_CA, REGISTRY_CERT, REGISTRY_KEY, REGISTRY_TOKEN_FILE } = process.env;
const keys = Array.from({ length: 50 }, (_, i) => `user-${i}`);
const read = (name) => (name ? readFileSync(name) : undefined);
const say = (...words) => console.log(words.join(' '));

const client = connect(nodes, {
  tls: REGISTRY_CA ? { ca: read(REGISTRY_CA), cert: read(REGISTRY_CERT), key: read(REGISTRY_KEY) } : false,
  token: REGISTRY_TOKEN_FILE ? () => read(REGISTRY_TOKEN_FILE).toString().trim() : undefined,
});

/** compare asks a node for the owners that the local ring gives, by one revision. */
async function compare(ring) {
  if (ring.usable) return; // an empty group
  const own = keys.map((key) => ring.match(key).id), { revision, fingerprint } = ring;
  const { owners, receipt } = await client.matchMany(group, keys);
  if (receipt.revision !== revision) return; // the next change compares
  const same = receipt.fingerprint === fingerprint && owners.every(([m], i) => m.id === own[i]);
  say(same ? 'agrees' : 'DIFFERS', revision, fingerprint, receipt.fingerprint);
}

async function watch() {
  for await (const e of client.watch({ group }, { onOutage: (why) => say(why ? `watch outage ${why.name}` : 'watch recovered') })) {
    say('watch', e.type, e.revision, e.members?.map((m) => m.id).join());
  }
}

async function main() {
  const registration = await client.register({ group, id, addr, ttl: '5s' });
  say('registered, lease', registration.leaseId);
  for (const event of ['lost', 'regained', 'unreachable']) registration.on(event, (e) => say(event, e?.name ?? ''));
  const ring = await client.ring(group);
  const compared = () => compare(ring).catch((e) => say('not compared:', e.name));
  ring.on('change', () => {
    say('ring', ring.revision, ring.members.map((m) => `${m.id}:${m.state}`).join());
    void compared();
  });
  ring.on('outage', (e) => say('ring outage', e.name));
  ring.on('recovered', () => say('ring recovered'));
  ring.on('mismatch', (e) => say('DIFFERS', e.message));
  say('ring', ring.revision, ring.members.map((m) => `${m.id}:${m.state}`).join());
  void compared();
  const watching = watch().catch((e) => say('watch ended', e.name));
  const timer = setInterval(() => {
    if (ring.usable) say('no local match:', ring.usable.name);
    else say('local match of', keys.filter((key) => ring.match(key)).length, 'keys', `valid ${registration.valid}`);
  }, 500);
  process.once('SIGTERM', () => (hold ? registration.hold(hold) : registration.close()).catch((e) => say('at the end:', e.name, e.message)));
  const why = await registration.done;
  clearInterval(timer);
  await client.close();
  await watching;
  say('ended', why.name, registration.removed ? 'deregistered' : '');
  if (!['ClosedError', 'HeldError'].includes(why.name)) process.exitCode = 1;
}

main().catch((e) => {
  say('failed', e.name, e.message);
  process.exitCode = 1;
  return client.close().catch(() => {});
});
