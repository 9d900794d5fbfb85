// The errors of calls, a class for each reason of the API: docs/reference/errors.md.

/** RegistryError is the failure of a call. Decide by its class or its reason, never by its message. */
export class RegistryError extends Error {
  /**
   * op is the call; reason that of the API in lower case, "" without one; field and limit name an invalid argument and
   * its limit; status is that of the HTTP answer, 0 without one. leaseIds are those of other tokens, of a heartbeat.
   */
  constructor(message, { op = '', reason = '', field = '', limit = '', status = 0, leaseIds = [], cause } = {}) {
    super(op ? `${op}: ${message}` : message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    Object.assign(this, { op, reason, field, limit, status, leaseIds });
  }
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
export class FeatureLevelError extends RegistryError {}
export class UnknownTokenError extends RegistryError {}
/** No node could be reached: the message lists the addresses that were tried. */
export class UnavailableError extends RegistryError {}
/** The client, the registration, the watch or the ring was closed. */
export class ClosedError extends RegistryError {}
/** hold() ended the registration. */
export class HeldError extends RegistryError {}
/** The key has another owner, or the request came by an older ring: nothing was done. */
export class MisdirectedError extends RegistryError {
  constructor(route, owner) {
    super(`misdirected: the owner is ${owner.id} at ${owner.addr}, by revision ${route.revision} of group ${route.group}`);
    this.route = route;
    this.owner = owner;
  }
}

const classes = {
  invalid_argument: InvalidArgumentError, unknown_group: UnknownGroupError, empty_group: EmptyGroupError,
  unknown_member: UnknownMemberError, conflict: ConflictError, fenced: FencedError, no_leader: NoLeaderError,
  outcome_unknown: OutcomeUnknownError, not_ready: NotReadyError, stale: StaleError, revision_mismatch: RevisionMismatchError,
  membership: MembershipError, exhausted: ExhaustedError, busy: BusyError, wrong_cluster: WrongClusterError,
  group_not_empty: GroupNotEmptyError, unknown_node: UnknownNodeError, unauthenticated: UnauthenticatedError,
  permission_denied: PermissionDeniedError, not_owner: NotOwnerError, tokens_off: TokensOffError, last_admin: LastAdminError,
  unknown_token: UnknownTokenError, feature_level: FeatureLevelError,
};

/** errorOf makes an error of its reason's class. */
export function errorOf(message, detail) {
  return new (classes[detail.reason] ?? RegistryError)(message, detail);
}

/** invalid makes the error of an argument that this client refuses. */
export function invalid(op, field, limit, message) {
  return errorOf(message, { op, reason: 'invalid_argument', field, limit });
}

/** fromProblem makes an error of a problem document, RFC 9457, or of what else an answer has. */
export function fromProblem(op, status, text) {
  let problem = {};
  try {
    problem = JSON.parse(text) ?? {};
  } catch {
    // An answer of something else than a node, a proxy for instance.
  }
  const { detail, title, reason, field, limit, lease_ids: leaseIds } = problem;
  return errorOf(detail || title || `HTTP status ${status}`, { op, reason: reason === 'unspecified' ? '' : reason ?? '', field, limit, status, leaseIds });
}

/** isRefusal tells whether a node refused the client's token. */
export function isRefusal(e) {
  return e.reason === 'unauthenticated' || e.reason === 'permission_denied';
}

/** isTransient tells whether an error without a reason may be gone at another node, or later. */
export function isTransient(e) {
  return e.reason === '' && (e instanceof UnavailableError || [408, 429, 502, 503, 504].includes(e.status));
}
