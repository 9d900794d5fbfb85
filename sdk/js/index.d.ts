// The types of index.js. Fields that are sent and received have the names of the API (/v1/openapi.json); indexes are
// numbers, exact up to 2^53.

declare global {
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
}

import type { Key, MemberState, Ring, RingMember } from './ring.js';

export type { Key, MemberState } from './ring.js';

/** Milliseconds, or a text such as "10s" or "1m30s". */
export type Duration = number | string;

export interface ClientOptions {
  /** NAME, NAME/ID or /ID of the cluster; by default that of the first answer. */
  cluster?: string;
  /** Sent with every request; a function is asked each time. */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** true, or options of node:tls such as ca, cert, key and servername. In a browser: as the page. */
  tls?: boolean | { ca?: unknown; cert?: unknown; key?: unknown; servername?: string; [option: string]: unknown };
  /** of a whole call, 10 s */
  call_timeout?: Duration;
  /** of one attempt of a read, 1 s; a write has three times as long */
  attempt_timeout?: Duration;
  /** of the deregistration when a registration is closed, 5 s */
  close_timeout?: Duration;
  /** how often the client tries to return to the node that it began with, 60 s */
  refresh?: Duration;
}

export interface CallOptions {
  signal?: AbortSignal;
  timeout?: Duration;
}

export interface ReadOptions extends CallOptions {
  /** at least as new as every write before the call */
  linearizable?: boolean;
  min_index?: number;
  max_staleness?: string;
}

export interface Receipt {
  index: number;
  revision: number;
  /** 16 hexadecimal digits */
  fingerprint: string;
  lag: string | null;
  node: string;
  cluster_id: string;
}

export interface Member extends RingMember {
  addr: string;
  meta: Record<string, string>;
  state: MemberState;
  ttl: string | null;
  hold: string | null;
  registered_at: string | null;
  created_index: number;
  modified_index: number;
}

export interface GroupConfig {
  virtual_nodes: number;
  bound: number;
}

export interface Group {
  name: string;
  config: GroupConfig | null;
  revision: number;
  [field: string]: unknown;
}

export interface ClusterStatus {
  cluster: string;
  cluster_id: string;
  leader: string;
  term: number;
  nodes: { id: string; [field: string]: unknown }[];
}

export interface MatchAnswer {
  owner: Member;
  /** the owner first, n of them */
  owners: Member[];
  /** serves the key while the owner is held */
  fallback: Member | null;
  receipt: Receipt;
}

export interface Service {
  group: string;
  id: string;
  /** host:port, as others dial it */
  addr: string;
  weight?: number;
  meta?: Record<string, string>;
  /** 1 s to 24 h, by default 10 s */
  ttl?: Duration;
  /** take the id over from a live process at another address, at the first registration */
  take_over?: boolean;
}

export type WatchTarget = { group: string } | { prefix: string } | { groups: true } | { nodes: true };

export interface WatchOptions {
  signal?: AbortSignal;
  /** how often a node confirms a state that does not change, 1 s to 1 h; by default 2 s */
  progress_interval?: Duration;
  /** called with why nothing can be followed, and with null when that is over */
  onOutage?: (error: RegistryError | null) => void;
}

export interface GroupEvent {
  type: 'snapshot' | 'delta';
  group: string;
  revision: number;
  index: number;
  fingerprint: string;
  cluster_id: string;
  config: GroupConfig;
  /** all members after the change, in the order of the bytes of their ids */
  members: Member[];
  put: Member[];
  removed: string[];
  /** of a delta: the revision before */
  from?: number;
  /** the cluster lost a part of its log: the revision may be lower than before */
  rebuilt: boolean;
}

export interface AbsenceEvent {
  type: 'unknown_group';
  group: string;
  index: number;
  /** it existed before */
  deleted: boolean;
  rebuilt: boolean;
}

export interface NodesEvent {
  type: 'nodes';
  index: number;
  leader: string;
  nodes: { id: string; bind: string; addr: string; version: string }[];
}

export interface GroupsEvent {
  type: 'groups';
  index: number;
  groups: Group[];
  removed: string[];
}

export type AnyEvent = { type: string; [field: string]: unknown };
export type EventOf<T> = T extends { group: string } ? GroupEvent | AbsenceEvent : T extends { nodes: true } ? NodesEvent : T extends { groups: true } ? GroupsEvent : AnyEvent;

export interface WriteAnswer {
  index: number;
  revision: number;
}

export function connect(target?: string, options?: ClientOptions): Client;

export class Client {
  /** target is host:port,host:port; in a browser by default the page's own node. */
  constructor(target?: string, options?: ClientOptions);
  /** of the known nodes: the given ones, and those learnt from the cluster */
  readonly addrs: string[];
  /** "" before the first answer */
  readonly clusterId: string;
  match(group: string, key: Key, options?: ReadOptions & { n?: number }): Promise<MatchAnswer>;
  matchMany(group: string, keys: Key[], options?: ReadOptions & { n?: number }): Promise<{ owners: Member[][]; fallbacks: (Member | null)[]; receipt: Receipt }>;
  members(group: string, options?: ReadOptions & { page_size?: number }): Promise<{ members: Member[]; config: GroupConfig; receipt: Receipt }>;
  groups(options?: ReadOptions & { prefix?: string; page_size?: number }): Promise<{ groups: Group[]; receipt: Receipt }>;
  receipt(group: string, options?: CallOptions): Promise<Receipt>;
  index(options?: ReadOptions): Promise<number>;
  status(options?: CallOptions & { group?: string }): Promise<ClusterStatus>;
  self(options?: CallOptions): Promise<Record<string, unknown>>;
  setGroup(group: string, change: CallOptions & GroupConfig & { expected_revision?: number }): Promise<WriteAnswer>;
  updateMember(group: string, id: string, change: CallOptions & { state?: MemberState; weight?: number; hold?: Duration; instance?: string }): Promise<WriteAnswer>;
  deregister(group: string, id: string, options?: CallOptions & { instance?: string; keep_held?: boolean }): Promise<{ index: number; removed: boolean }>;
  register(service: Service, options?: CallOptions): Promise<Registration>;
  ring(group: string, options?: CallOptions & { max_age?: Duration }): Promise<GroupRing>;
  watch<T extends WatchTarget>(target: T, options?: WatchOptions): AsyncGenerator<EventOf<T>, void, undefined>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

declare class Emitter<Events> {
  /** Returns a function that removes the listener. */
  on<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): () => void;
  off<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): void;
}

export interface RegistrationEvents {
  lost: undefined;
  regained: undefined;
  /** the lease may be lost */
  unreachable: RegistryError;
  /** closed, held, or the id belongs to another process */
  ended: RegistryError;
}

export class Registration extends Emitter<RegistrationEvents> {
  private constructor();
  readonly group: string;
  readonly id: string;
  readonly leaseId: number;
  /** milliseconds, as granted */
  readonly ttl: number;
  /** when the last acknowledged heartbeat was sent, by performance.now() */
  readonly renewed: number;
  /** false once the lease may be over */
  readonly valid: boolean;
  readonly error: RegistryError | null;
  /** close removed the member */
  readonly removed: boolean;
  readonly done: Promise<RegistryError>;
  hold(duration: Duration, options?: CallOptions): Promise<void>;
  drain(options?: CallOptions): Promise<void>;
  resume(options?: CallOptions): Promise<void>;
  close(options?: CallOptions): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface GroupRingEvents {
  change: GroupRing;
  state: undefined;
  outage: RegistryError;
  recovered: undefined;
  mismatch: Error;
  ended: Error;
}

export class GroupRing extends Emitter<GroupRingEvents> {
  private constructor();
  readonly group: string;
  /** the bare ring; null before the first state */
  readonly ring: Ring<Member> | null;
  readonly members: readonly Member[];
  readonly revision: number;
  readonly index: number;
  readonly fingerprint: string;
  readonly clusterId: string;
  /** milliseconds; Infinity before a node has confirmed the ring */
  readonly age: number;
  /** null, or why match fails */
  readonly usable: RegistryError | null;
  readonly error: Error | null;
  readonly done: Promise<Error>;
  /** Throws EmptyGroupError, UnknownGroupError, StaleError and ClosedError. A held owner is a copy with its fallback. */
  match(key: Key): Member & { fallback?: Member | null };
  matchN(key: Key, n: number): Member[];
  serving(key: Key, n: number): Member[];
  wait(revision: number, options?: { signal?: AbortSignal; timeout?: number }): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Route {
  cluster_id: string;
  group: string;
  revision: number;
  fingerprint: string;
  /** how many owners were skipped */
  fallback: number;
}

export interface OwnerOptions {
  wait?: Duration;
  fallbacks?: number;
  routeRequired?: boolean;
  redirect?: '' | 'http' | 'https';
}

interface Incoming {
  headers: Record<string, string | string[] | undefined>;
  url?: string;
}

interface Outgoing {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(text: string): unknown;
}

export class Owner {
  constructor(ring: GroupRing, id: string, options?: OwnerOptions);
  accept(route: Route | null, key: Key): Promise<Route>;
  middleware<Req extends Incoming>(keyOf: (req: Req) => Key | null | undefined | Promise<Key | null | undefined>): (req: Req, res: Outgoing, next: (error?: unknown) => void) => void;
}

export const routeHeader: string;
export const ownerHeader: string;
export function routeOf(ring: GroupRing): Route;
export function routeOf(group: string, receipt: Receipt): Route;
export function formatRoute(route: Route): string;
export function parseRoute(text: string): Route;
export function misdirected(status: number, header: (name: string) => string | null | undefined): { route: Route; owner: { id: string; addr: string } } | null;

export class RegistryError extends Error {
  constructor(message: string, detail?: { op?: string; reason?: string; field?: string; limit?: string; status?: number; leaseIds?: number[]; cause?: unknown });
  readonly op: string;
  /** that of the API in lower case; "" without one */
  readonly reason: string;
  readonly field: string;
  readonly limit: string;
  /** of the HTTP answer; 0 without one */
  readonly status: number;
  /** of a heartbeat: leases of other tokens */
  readonly leaseIds: number[];
}

export class InvalidArgumentError extends RegistryError {}
export class UnknownGroupError extends RegistryError {}
export class EmptyGroupError extends RegistryError {}
export class UnknownMemberError extends RegistryError {}
export class ConflictError extends RegistryError {}
export class FencedError extends RegistryError {}
export class NoLeaderError extends RegistryError {}
export class OutcomeUnknownError extends RegistryError {}
export class NotReadyError extends RegistryError {}
export class StaleError extends RegistryError {}
export class RevisionMismatchError extends RegistryError {}
export class MembershipError extends RegistryError {}
export class ExhaustedError extends RegistryError {}
export class BusyError extends RegistryError {}
export class WrongClusterError extends RegistryError {}
export class GroupNotEmptyError extends RegistryError {}
export class UnknownNodeError extends RegistryError {}
export class UnauthenticatedError extends RegistryError {}
export class PermissionDeniedError extends RegistryError {}
export class NotOwnerError extends RegistryError {}
export class TokensOffError extends RegistryError {}
export class LastAdminError extends RegistryError {}
export class UnknownTokenError extends RegistryError {}
export class FeatureLevelError extends RegistryError {}
export class UnavailableError extends RegistryError {}
export class ClosedError extends RegistryError {}
export class HeldError extends RegistryError {}
export class MisdirectedError extends RegistryError {
  constructor(route: Route, owner: { id: string; addr: string });
  readonly route: Route;
  readonly owner: { id: string; addr: string };
}
