// The client of the registry, for Node and, where it reads, for browsers: README.md.

import { Client } from './lib/client.js';

export { Client } from './lib/client.js';
export {
  BusyError, ClosedError, ConflictError, EmptyGroupError, ExhaustedError, FencedError, GroupNotEmptyError, HeldError,
  FeatureLevelError, InvalidArgumentError, LastAdminError, MembershipError, MisdirectedError, NoLeaderError, NotOwnerError, NotReadyError,
  OutcomeUnknownError, PermissionDeniedError, RegistryError, RevisionMismatchError, StaleError, TokensOffError,
  UnauthenticatedError, UnavailableError, UnknownGroupError, UnknownMemberError, UnknownNodeError, UnknownTokenError, WrongClusterError,
} from './lib/errors.js';
export { GroupRing } from './lib/group-ring.js';
export { Owner, formatRoute, misdirected, ownerHeader, parseRoute, routeHeader, routeOf } from './lib/owner.js';
export { Registration } from './lib/registration.js';

/** connect makes a client of the nodes at host:port,host:port. It opens no connection before the first call. */
export function connect(target, options) {
  return new Client(target, options);
}
