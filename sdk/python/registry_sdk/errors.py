"""The errors of this package: one class for each reason that the API knows.

Decide by the class, never by the text. A call that no node answered is UnavailableError, and TimeoutError
is never raised. The table of reasons is docs/reference/errors.md.
"""

from typing import Any, Dict, Mapping, Sequence, Type


class RegistryError(Exception):
    """The failure of a call; also the class of an error whose reason this version does not know."""

    #: The reason as the API names it, "conflict" for instance; empty if there is none.
    reason: str = ""

    def __init__(
        self,
        message: str,
        *,
        op: str = "",
        reason: str = "",
        field: str = "",
        limit: str = "",
        status: int = 0,
        lease_ids: Sequence[int] = (),
    ) -> None:
        super().__init__(message)
        #: The text for humans.
        self.message = message
        #: The call, "match" for instance.
        self.op = op
        #: The invalid argument, or what else the error is about.
        self.field = field
        #: The limit of that field.
        self.limit = limit
        #: The HTTP status code; 0 if no node answered.
        self.status = status
        #: Of a heartbeat: leases that belong to other tokens.
        self.lease_ids = tuple(lease_ids)
        if reason:
            self.reason = reason

    def __str__(self) -> str:
        return ": ".join(filter(None, ("registry", self.op, self.message)))


class InvalidArgumentError(RegistryError, ValueError):
    """A field is outside its limits; nothing was done. field and limit name both."""

    reason = "invalid_argument"


class UnknownGroupError(RegistryError):
    """There is no such group."""

    reason = "unknown_group"


class EmptyGroupError(RegistryError):
    """The group exists and none of its members owns keys."""

    reason = "empty_group"


class GroupNotEmptyError(RegistryError):
    """The group has members, and deleting it was not forced."""

    reason = "group_not_empty"


class UnknownMemberError(RegistryError):
    """The group has no such member."""

    reason = "unknown_member"


class ConflictError(RegistryError):
    """A live process at another address has registered the id."""

    reason = "conflict"


class FencedError(RegistryError):
    """Someone deregistered this registration, or another process took its id. Client.register makes a new one."""

    reason = "fenced"


class NoLeaderError(RegistryError):
    """The cluster had no leader until the call timed out; nothing was done."""

    reason = "no_leader"


class OutcomeUnknownError(RegistryError):
    """The write may have taken effect, or may still. The same call may be repeated without harm."""

    reason = "outcome_unknown"


class NotReadyError(RegistryError):
    """The reachable nodes, or the ring in this process, had not caught up."""

    reason = "not_ready"


class StaleError(RegistryError):
    """No node met the demanded index or staleness, or the ring in this process is older than max_age."""

    reason = "stale"


class RevisionMismatchError(RegistryError):
    """The group is not at the expected revision."""

    reason = "revision_mismatch"


class UnknownNodeError(RegistryError):
    """The cluster has no such node."""

    reason = "unknown_node"


class MembershipError(RegistryError):
    """A node's id or data does not match the cluster."""

    reason = "membership"


class WrongClusterError(RegistryError):
    """The reachable nodes are of another cluster than the client. A cluster that was formed anew, even under
    the same name, is another one and takes a new Client."""

    reason = "wrong_cluster"


class ExhaustedError(RegistryError):
    """A limit on the whole cluster, or on the node that answered, is reached."""

    reason = "exhausted"


class BusyError(RegistryError):
    """The reachable nodes were overloaded until the call timed out; nothing was done."""

    reason = "busy"


class UnauthenticatedError(RegistryError):
    """The client has no token, or one that is unknown, expired or revoked; nothing was done."""

    reason = "unauthenticated"


class PermissionDeniedError(RegistryError):
    """The client's token does not allow the call; nothing was done. limit says what it allows."""

    reason = "permission_denied"


class NotOwnerError(RegistryError):
    """The member or the lease belongs to another token; nothing was done."""

    reason = "not_owner"


class TokensOffError(RegistryError):
    """The cluster has no token."""

    reason = "tokens_off"


class LastAdminError(RegistryError):
    """It is the last token that has the right admin and does not expire."""

    reason = "last_admin"


class UnknownTokenError(RegistryError):
    """The cluster has no such token."""

    reason = "unknown_token"


class FeatureLevelError(RegistryError):
    """The cluster's feature level does not allow the call yet."""

    reason = "feature_level"


class UnavailableError(RegistryError):
    """No node could be reached. The message lists the addresses that were tried, with their errors."""

    #: Of one attempt: the request may have reached the node; the attempt ran out of time.
    sent = timed_out = False


class ClosedError(RegistryError):
    """The client, registration, watch or ring was closed."""


class HeldError(RegistryError):
    """Registration.hold ended the registration for a restart."""


BY_REASON: Dict[str, Type[RegistryError]] = {c.reason: c for c in RegistryError.__subclasses__() if c.reason}

#: HTTP status codes of answers that say only that the node, or a proxy before it, failed for now.
TEMPORARY = frozenset((502, 503, 504))


def from_problem(op: str, status: int, problem: Mapping[str, Any]) -> RegistryError:
    """Makes the error of an application/problem+json body; without a reason the status decides."""

    def text(name: str) -> str:
        value = problem.get(name)
        return value if isinstance(value, str) else ""

    reason = text("reason")
    reason = "" if reason == "unspecified" else reason
    kind = BY_REASON.get(reason, RegistryError)
    if not reason and status in TEMPORARY:
        kind = UnavailableError
    leases = problem.get("lease_ids")
    error = kind(
        text("detail") or text("title") or f"HTTP status {status}",
        op=op,
        reason=reason,
        field=text("field"),
        limit=text("limit"),
        status=status,
        lease_ids=[n for n in leases if isinstance(n, int)] if isinstance(leases, list) else (),
    )
    if isinstance(error, UnavailableError):
        error.sent = True
    return error


def invalid(op: str, field: str, limit: str, message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, op=op, field=field, limit=limit)


__all__ = sorted(c.__name__ for c in (RegistryError, *RegistryError.__subclasses__()))
