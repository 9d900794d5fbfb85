// Watches: a stream of events, from one node after the other.

import { query } from './call.js';
import { RegistryError, UnavailableError, errorOf, fromProblem, invalid, isRefusal } from './errors.js';
import { Rotation } from './nodes.js';
import { events } from './sse.js';
import { StreamEnd, Tracker, listOf } from './tracker.js';
import { milliseconds, now, sleep } from './values.js';

/** A node without a leader for so long loses its watchers to another one; each of them at most once in lagPause. */
const lagLimit = 5000, lagPause = 10_000;

/** settleTime is how long a stream stays at a node that is not the preferred one. */
const settleTime = 60_000;

/** refusedRounds is after how many rounds of refusals a watch that had no event ends: a node may not know a new token yet. */
const refusedRounds = 2;

/** The lists that the pieces of a large event are joined by. */
const lists = { snapshot: ['members'], delta: ['put', 'removed'], groups: ['groups', 'removed'] };

/** join returns a whole event of its pieces, or null while more follow. */
function join(pieces, e) {
  const first = pieces.length > 0 ? pieces[0] : e;
  if (first.type !== e.type || first.group !== e.group || first.revision !== e.revision) throw new StreamEnd('a piece of an event is missing');
  pieces.push(e);
  if (e.more) return null;
  const all = pieces.splice(0), whole = { ...all[0] };
  for (const list of lists[e.type] ?? []) whole[list] = all.length === 1 ? e[list] : all.flatMap((piece) => piece[list]);
  delete whole.more;
  return whole;
}

/**
 * follow yields the events of a watch: accepted ones if accept is given, which returns null for what is left out.
 * confirmed is called with a time of which the state was current, failed with an error of a node. It ends with the
 * signal; it throws what no other node would answer differently.
 */
export async function* follow(core, { params, position = () => ({}), every, accept = (e) => e, confirmed, failed, signal, unref = false }) {
  const rotation = new Rotation(core.nodes), refusals = { rounds: 0, any: false };
  while (!signal.aborted) {
    const node = rotation.next();
    if (!node) {
      await sleep(rotation.nextRound(), signal, { unref }).catch(() => {});
      continue;
    }
    let progressed = false, end = new UnavailableError('the stream ended', { op: 'watch' });
    try {
      for await (const e of session(core, node, { params, position, every, accept, confirmed, signal, unref, round: rotation.round })) {
        progressed = refusals.any = true;
        if (e) yield e;
      }
    } catch (e) {
      end = e;
    }
    if (signal.aborted) return;
    if (end instanceof Moving) {
      rotation.worked();
      continue;
    }
    if (!(end instanceof RegistryError || end instanceof StreamEnd || end.name === 'TimeoutError')) throw end;
    if (progressed && !end.mismatch) rotation.worked();
    if (!end.again || end.mismatch) rotation.skip(node);
    const e = end instanceof RegistryError ? end : new UnavailableError(end.message, { op: 'watch', cause: end });
    if (!end.again) rotation.failed(node, e);
    if (e.reason === 'invalid_argument') throw e;
    failed?.(e, rotation.exhausted);
    if (rotation.exhausted && !refusals.any && (isRefusal(e) || rotation.allForeign) && refusals.rounds++ === refusedRounds) throw e;
  }
}

/** Moving: another node is the preferred one. */
class Moving extends Error {}

/** session yields the accepted events of one stream, and undefined for each confirmation. */
async function* session(core, node, { params, position, every, accept, confirmed, signal, unref, round }) {
  const control = new AbortController(), end = () => control.abort(signal.reason);
  signal.addEventListener('abort', end, { once: true });
  const silent = new Silence(control, unref), at = position(), opened = now();
  try {
    // A resumed stream may have no event for an interval.
    silent.within(core.options.attempt_timeout * 2 ** Math.min(round, 5) + (at.revision ? every * 1.5 : 0));
    const answer = await core.send(node, {
      op: 'watch', method: 'GET', path: '/v1/watch' + query({ ...params, ...at, pieces: true }), headers: { accept: 'text/event-stream' },
      signal: control.signal, stream: true, unref, sent() {},
    });
    if (answer.status !== 200) throw fromProblem('watch', answer.status, await answer.text());
    const pieces = [];
    let moveAt = opened + settleTime * (1 + Math.random());
    for await (const raw of events(answer.chunks())) {
      silent.stop();
      if (raw?.event === 'error') throw fromProblem('watch', 0, raw.data);
      const e = raw && join(pieces, { ...parse(raw.data), type: raw.event });
      if (e?.type === 'progress') {
        const lag = Math.max(0, milliseconds(e.lag ?? 0, 'lag'));
        core.nodes.worked(node);
        confirmed?.(now() - lag);
        yield undefined;
        if (lag > lagLimit && now() - opened > lagPause) throw new StreamEnd('the node has lost contact with the leader');
        if (now() > moveAt && lag < lagLimit) {
          moveAt = now() + settleTime * (1 + Math.random());
          if (core.nodes.pick(new Set()) !== node) throw new Moving();
        }
      } else if (e) {
        core.nodes.worked(node);
        const accepted = await accept(e);
        yield accepted ?? undefined;
      }
      silent.within(every * 1.5 + core.options.attempt_timeout);
    }
  } finally {
    silent.stop();
    signal.removeEventListener('abort', end);
    control.abort();
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch (cause) {
    throw new StreamEnd(`an event is not JSON: ${cause.message}`);
  }
}

/** Silence ends a stream that sends nothing. */
class Silence {
  #control;
  #unref;
  #timer;

  constructor(control, unref) {
    this.#control = control;
    this.#unref = unref;
  }

  within(ms) {
    this.stop();
    this.#timer = setTimeout(() => this.#control.abort(new DOMException(`nothing arrived within ${Math.round(ms)} ms`, 'TimeoutError')), ms);
    if (this.#unref) this.#timer.unref?.();
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/** outageAfter is how long nothing is confirmed before that is an outage, and outageFailures the least failures. */
const outageAfter = 5000, outageFailures = 3;

/** Outage tells when nothing can be followed any more, and when that is over. */
export class Outage {
  #since = 0;
  #failures = 0;
  error = null; // why, during an outage

  /** failed reports true when the outage begins. */
  failed(e) {
    this.#since ||= now();
    if (++this.#failures < outageFailures || now() - this.#since < outageAfter) return false;
    const began = !this.error;
    this.error = e;
    return began;
  }

  /** over reports true when an outage ends. */
  over() {
    const was = this.error !== null;
    [this.#since, this.#failures, this.error] = [0, 0, null];
    return was;
  }
}

const targets = ['group', 'prefix', 'groups', 'nodes'];

/** watchEvents is Client.watch. */
export async function* watchEvents(core, target, { signal, progress_interval = 2000, onOutage } = {}) {
  const named = targets.filter((name) => target[name] !== undefined && target[name] !== false);
  if (named.length !== 1) throw invalid('watch', 'target', 'one of group, prefix, groups, nodes', 'want one of group, prefix, groups: true and nodes: true');
  const every = milliseconds(progress_interval, 'progress_interval'), control = new AbortController(), outage = new Outage();
  const params = { [named[0]]: target[named[0]], progress_interval: `${every}ms` };
  const end = () => control.abort(core.closing.aborted ? core.closing.reason : signal.reason);
  for (const s of [signal, core.closing]) s?.addEventListener('abort', end, { once: true });
  if (signal?.aborted) end();
  const tracker = target.group === undefined ? null : new Tracker(core, target.group);
  try {
    yield* follow(core, {
      params, every, signal: control.signal, position: () => tracker?.position() ?? {},
      accept: (e) => (tracker ? acceptedEvent(tracker, e) : e),
      confirmed: () => outage.over() && onOutage?.(null),
      failed: (e) => outage.failed(e) && onOutage?.(e),
    });
    throw control.signal.reason;
  } finally {
    for (const s of [signal, core.closing]) s?.removeEventListener('abort', end);
  }
}

/** acceptedEvent is an event of one group for users, with all members. */
async function acceptedEvent(tracker, e) {
  const change = await tracker.accept(e);
  if (!change) return null;
  const { state, ...more } = change;
  return state ? { ...more, ...state, group: e.group, members: listOf(state) } : { ...more, group: e.group };
}

/** watchError makes the error of a ring whose group nobody sends. */
export function watchError(message, e) {
  return errorOf(`${message}: ${e?.message ?? 'no node answered'}`, { op: 'ring', reason: e?.reason ?? '', cause: e });
}
