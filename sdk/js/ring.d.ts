// The types of ring.js.

/** The parameters of a ring: K points for a weight of one, and the bound in per mille of the fair share, 0 for none. */
export interface RingParams {
  virtual_nodes: number;
  bound?: number;
}

export type MemberState = 'active' | 'draining' | 'held';

/** What a ring needs of a member. Further fields are kept as they are. */
export interface RingMember {
  id: string;
  weight: number;
  /** active if it is absent */
  state?: MemberState;
}

/** A key is a text, hashed as UTF-8, or bytes. */
export type Key = string | Uint8Array;

/** A part of the key space, in units of 2^-64: up to 2n ** 64n. */
export type Share = bigint;

export interface RingPoint {
  hash: bigint;
  /** of the member whose point it is */
  id: string;
  index: number;
  /** id of the owner of its keys, which differs under a bound only */
  owner: string;
}

export interface Location {
  key: Key;
  /** 16 hexadecimal digits, as all hashes here */
  hash: string;
  owner: string | null;
  state: MemberState | null;
  point: { hash: string; id: string; index: number } | null;
  next: string[];
  fallback: string | null;
  wrapped: boolean;
  bounded: boolean;
  why: string;
}

/** A field of the parameters, the members or a change is outside its limit. */
export class RingError extends Error {
  constructor(field: string, limit: string, message: string);
  readonly field: string;
  readonly limit: string;
}

export const limits: Readonly<{
  minVirtualNodes: number; maxVirtualNodes: number; minBound: number; maxBound: number;
  maxWeight: number; maxIdBytes: number; maxPoints: number; maxMembers: number;
}>;

/** An immutable ring. */
export class Ring<M extends RingMember = RingMember> {
  /** Throws RingError. base is a ring whose points are taken over where both have them. */
  constructor(params: RingParams, members: Iterable<M>, base?: Ring<RingMember> | null);
  readonly params: Readonly<Required<RingParams>>;
  /** in the order of the bytes of their ids, draining ones included */
  readonly members: readonly M[];
  /** the number of points */
  readonly size: number;
  /** the number of members with points */
  readonly owning: number;
  /** per mille: more than params.bound if that could not be kept */
  readonly boundInUse: number;
  /** upper and lower halves of the points' hashes, in order. Do not write to these arrays. */
  readonly hashHi: Uint32Array;
  readonly hashLo: Uint32Array;
  /** indexes of the members that own the points' arcs */
  readonly owners: Uint32Array;
  /** indexes of the members whose points they are: the owners without a bound */
  readonly plain: Uint32Array;
  /** 16 hexadecimal digits; hashes all members */
  readonly fingerprint: string;
  with<N extends RingMember>(params: RingParams, members: Iterable<N>): Ring<N>;
  find(hi: number, lo: number): number;
  match(key: Key): M | null;
  ownerOf(hash: bigint): M | null;
  matchN(key: Key, n: number): M[];
  serving(key: Key, n: number): M[];
  fallback(key: Key): M | null;
  digest(): string;
  points(): Generator<RingPoint, void, undefined>;
  shares(): Share[];
  fractions(): Float64Array;
  arcs(): { upTo: Float64Array; owner: Int32Array };
  locate(key: Key): Location;
}

export interface Range {
  lo: bigint;
  /** exclusive, up to 2n ** 64n */
  hi: bigint;
  /** ids, or "" where there is no owner */
  from: string;
  to: string;
}

export interface Move {
  from: string;
  to: string;
  share: Share;
}

export interface Diff {
  readonly moved: Share;
  /** largest first */
  readonly moves: readonly Move[];
  /** of the ranges */
  readonly count: number;
  ranges(): Range[];
  arcs(): { lo: Float64Array; hi: Float64Array; from: Int32Array; to: Int32Array };
}

export interface Change<M extends RingMember = RingMember> {
  join?: M[];
  leave?: string[];
  activate?: string[];
  drain?: string[];
  hold?: string[];
  weights?: Record<string, number>;
  virtual_nodes?: number;
  bound?: number;
}

export interface PlannedMember {
  id: string;
  weight_before: number;
  weight_after: number;
  before: Share;
  after: Share;
}

export class Plan<M extends RingMember = RingMember> {
  /** Throws RingError. */
  constructor(ring: Ring<M>, change: Change<M>);
  readonly before: Ring<M>;
  readonly after: Ring<M>;
  readonly diff: Diff;
  readonly moved: Share;
  /** what any ring would have to move between the same shares */
  readonly least: Share;
  readonly moves: readonly Move[];
  readonly members: readonly PlannedMember[];
}

export function applyChange<M extends RingMember>(params: RingParams, members: readonly M[], change: Change<M>): [Required<RingParams>, M[]];
export function diff(a: Ring, b: Ring): Diff;
/** the upper and the lower half of a key's hash */
export function hashOf(key: Key): [hi: number, lo: number];
export function xxh64(data: Key): bigint;
/** from 0 to 1 */
export function fraction(share: Share): number;
/** with six decimals, rounded down: "1.562500%" */
export function percent(share: Share): string;
