// The check in a service that a request is for it: docs/guides/routing.md.

import { MisdirectedError, RegistryError, errorOf, invalid } from './errors.js';
import { sameCluster } from './tracker.js';
import { milliseconds } from './values.js';

/** routeHeader names the ring that a request was routed with, ownerHeader the member that serves its key. */
export const routeHeader = 'registry-ring', ownerHeader = 'registry-owner';

const version = 'v2', form = 'v2;cluster;group;revision;fingerprint', maxFallback = 1000;

/** routeOf returns the route of the answers of a ring, or of a receipt of a group. */
export function routeOf(ring, receipt) {
  if (receipt) return { cluster_id: receipt.cluster_id, group: ring, revision: receipt.revision, fingerprint: receipt.fingerprint, fallback: 0 };
  return { cluster_id: ring.clusterId, group: ring.group, revision: ring.revision, fingerprint: ring.fingerprint, fallback: 0 };
}

/** formatRoute writes the value of the header. */
export function formatRoute({ cluster_id = '', group, revision, fingerprint, fallback = 0 }) {
  const parts = [version, encodeURIComponent(cluster_id), encodeURIComponent(group), revision, fingerprint];
  return (fallback > 0 ? [...parts, fallback] : parts).join(';');
}

/** parseRoute reads the value of the header. */
export function parseRoute(text) {
  const bad = (why) => invalid('route', routeHeader, form, `${JSON.stringify(text.slice(0, 64))} is not a route: ${why}`);
  const parts = text.split(';');
  if (text.length > 1024) throw bad('it is longer than 1024 bytes');
  if (parts[0] !== version) throw bad(`it does not begin with its version, ${version}`);
  if (parts.length < 5 || parts.length > 6 || parts[2] === '') throw bad('it does not have the fields of a route');
  const decoded = [parts[1], parts[2]].map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      throw bad('its cluster or group is not escaped as in a path');
    }
  });
  const revision = Number(parts[3]), fallback = Number(parts[5] ?? 0);
  if (!/^\d+$/.test(parts[3]) || !Number.isSafeInteger(revision)) throw bad('its revision is not a number up to 2^53');
  if (!/^[0-9a-fA-F]{1,16}$/.test(parts[4])) throw bad('its fingerprint is not a hexadecimal number');
  if (!/^\d+$/.test(parts[5] ?? '0') || fallback > maxFallback) throw bad(`its number of skipped members is not in 0-${maxFallback}`);
  return { cluster_id: decoded[0], group: decoded[1], revision, fingerprint: parts[4].toLowerCase().padStart(16, '0'), fallback };
}

const notReady = (message) => errorOf(message, { op: 'owner', reason: 'not_ready' });

/**
 * Owner refuses requests that are not for the service, because a router used an older ring. It decides by the
 * service's own ring, a GroupRing. With R the revision of the request's route, 0 without one, and S that of the ring:
 *
 *  1. S < R: the service may be behind. It waits for S >= R, a second at most, and then refuses: NotReadyError.
 *  2. Another cluster, or S = R and another fingerprint: one of the two is wrong, and it refuses: NotReadyError.
 *  3. Otherwise one member serves the key: its owner, or the fallback of a held owner. If that is the service, it
 *     accepts; if not, MisdirectedError names the member.
 *
 * So at any S at most one member accepts a key, and no request is accepted by a ring older than the router's. That
 * orders members by revision, not by time: max_age of the ring limits how long two may accept one key. To exclude
 * it, store the revision that accept returns with the data, and refuse writes with an older one.
 */
export class Owner {
  #ring;
  #id;
  #wait;
  #fallbacks;
  #routeRequired;
  #redirect;

  /**
   * wait bounds how long a request waits while the ring is behind the router's. fallbacks accepts requests that skipped
   * up to so many owners. routeRequired refuses requests without a route. redirect, http or https, makes the
   * middleware redirect (307) misdirected requests.
   */
  constructor(ring, id, { wait = 1000, fallbacks = 0, routeRequired = false, redirect = '' } = {}) {
    [this.#ring, this.#id, this.#wait] = [ring, id, milliseconds(wait, 'wait')];
    [this.#fallbacks, this.#routeRequired, this.#redirect] = [fallbacks, routeRequired, redirect];
  }

  /** accept resolves with the route of the ring that accepted the key; its revision is a fencing token. */
  async accept(route, key) {
    if (!route && this.#routeRequired) throw invalid('owner', routeHeader, 'required', 'the request has no route');
    const group = route?.group ?? this.#ring.group;
    if (group !== this.#ring.group) throw invalid('owner', routeHeader, `group ${this.#ring.group}`, `the route is of group ${group.slice(0, 64)}`);
    if (route) await this.#reach(route);
    const place = route && route.fallback <= this.#fallbacks ? route.fallback : 0;
    // From here on nothing waits, so the answer and the route are of one ring.
    const serving = this.#ring.serving(key, place + 1), own = routeOf(this.#ring);
    if (serving.some((m) => m.id === this.#id)) return own;
    throw new MisdirectedError(own, serving[0]);
  }

  /** #reach waits until the ring is at least as new as the route. */
  async #reach({ cluster_id, revision, fingerprint }) {
    const ring = this.#ring;
    if (!ring.usable && sameCluster(ring.clusterId, cluster_id) && ring.revision < revision) {
      await ring.wait(revision, { timeout: this.#wait }).catch((e) => {
        if (e.name !== 'TimeoutError') throw e;
      });
    }
    if (ring.usable) throw ring.usable;
    if (!sameCluster(ring.clusterId, cluster_id)) throw notReady(`the ring is of cluster ${ring.clusterId}, the router's of cluster ${cluster_id.slice(0, 64)}`);
    if (ring.revision < revision) throw notReady(`the ring is at revision ${ring.revision}, the router's at ${revision}`);
    if (ring.revision === revision && ring.fingerprint !== fingerprint) {
      throw notReady(`at revision ${revision} the ring is ${ring.fingerprint}, the router's ${fingerprint}`);
    }
  }

  /**
   * middleware passes the service's requests on: (req, res, next) as in Express, or of node:http. keyOf returns the
   * key of a request. A misdirected request gets 421 with the owner in Registry-Owner and the ring in Registry-Ring,
   * one without a key 400, one that cannot be decided 503. In all cases nothing was done.
   */
  middleware(keyOf) {
    return (req, res, next) => {
      this.#checked(req, keyOf).then((route) => {
        req.registryRoute = route;
        next();
      }, (e) => (e instanceof RegistryError ? this.#refuse(req, res, e) : next(e)));
    };
  }

  async #checked(req, keyOf) {
    const values = req.headersDistinct?.[routeHeader] ?? [req.headers[routeHeader]].flat().filter((v) => v !== undefined);
    if (values.length > 1) throw invalid('owner', routeHeader, 'one value', 'more than one route');
    const route = values.length > 0 ? parseRoute(values[0]) : null, key = await keyOf(req);
    if (key === undefined || key === null || key === '') throw invalid('owner', 'key', 'required', 'the request has no key');
    return this.accept(route, key);
  }

  #refuse(req, res, e) {
    if (!(e instanceof MisdirectedError)) {
      answer(res, statusOf(e), e.message);
      return;
    }
    res.setHeader(routeHeader, formatRoute(e.route));
    res.setHeader(ownerHeader, `${encodeURIComponent(e.owner.id)};${e.owner.addr}`);
    if (this.#redirect) res.setHeader('location', `${this.#redirect}://${e.owner.addr}${req.originalUrl ?? req.url}`);
    answer(res, this.#redirect ? 307 : 421, e.message);
  }
}

function statusOf(e) {
  if (e.reason === 'invalid_argument') return 400;
  return 503;
}

function answer(res, status, message) {
  res.statusCode = status;
  res.setHeader('content-type', 'text/plain; charset=utf-8');
  res.setHeader('x-content-type-options', 'nosniff');
  res.end(`${message}\n`);
}

/** misdirected returns {route, owner} that an answer of status 421, or a redirect, names; null if it names none. */
export function misdirected(status, header) {
  const route = header(routeHeader), owner = header(ownerHeader);
  if ((status !== 421 && status !== 307) || !route || !owner?.includes(';')) return null;
  try {
    const [id, ...addr] = owner.split(';');
    return { route: parseRoute(route), owner: { id: decodeURIComponent(id), addr: addr.join(';') } };
  } catch (e) {
    if (e instanceof RegistryError || e instanceof URIError) return null;
    throw e;
  }
}
