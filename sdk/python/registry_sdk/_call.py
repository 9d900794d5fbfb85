"""One call of the user: attempts on one node after the other, until one gives a definite answer or time runs out."""

import secrets
import time
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

from ._pool import Endpoint, Rotation, more_informative
from ._transport import Cancel, Request
from .errors import (
    BusyError, ClosedError, InvalidArgumentError, NoLeaderError, NotReadyError, OutcomeUnknownError,
    PermissionDeniedError, RegistryError, StaleError, UnauthenticatedError, UnavailableError, WrongClusterError,
)  # fmt: skip
from .types import format_duration

if TYPE_CHECKING:
    from ._core import Core

#: A call whose token is not valid tries so many nodes: one may not have applied yet that it was created.
MAX_UNKNOWN_TOKEN = 3
#: An index that a write names as observed before it is at most so old: the leader remembers requests for 15 s.
SINCE_AGE = 5.0


class Kind(NamedTuple):
    """How a call may be repeated."""

    #: Attempt timeouts that one attempt may last.
    timeouts: int
    #: An attempt that was sent and not answered has an unknown outcome.
    write: bool


READ, STATUS, WRITE = Kind(1, False), Kind(5, False), Kind(3, True)


class Read(NamedTuple):
    """How fresh an answer must be."""

    linearizable: bool = False
    min_index: int = 0
    max_staleness: Optional[float] = None


class Call:
    """Calls that are under way at the same time each have one of these."""

    def __init__(self, client: "Core", op: str, kind: Kind, timeout: Optional[float], read: Optional[Read] = None) -> None:
        self._client, self._op, self._kind, self._read = client, op, kind, read
        self.deadline = time.monotonic() + client.timeout_of(op, timeout)
        self._seen = client.seen if read is not None else 0
        self._nodes = Rotation(client.pool)
        self._failures: Dict[str, str] = {}
        self._last: Optional[RegistryError] = None  # the most informative failure
        self._behind = False  # in this round a node had not reached the index, or timed out
        self._stale: Optional[RegistryError] = None  # in this round, a node's refusal as stale
        self._unknown_token = 0
        #: An earlier attempt may have taken effect.
        self.unknown = False
        #: When the first attempt that may have taken effect was sent.
        self.requested = 0.0

    def run(self, request: Request) -> Dict[str, Any]:
        """Returns the answer, or raises a RegistryError."""
        with self._client.cancellable() as cancel:
            return self._run(cancel, request)

    def _run(self, cancel: Cancel, request: Request) -> Dict[str, Any]:
        # A write that the deadline cuts off has an unknown outcome, so no attempt begins in the last tenth.
        left = self.deadline - time.monotonic()
        latest = self.deadline - (min(self._client.attempt_timeout, left / 10) if self._kind.write else 0)
        while True:
            if cancel.cancelled:
                raise self._give_up("closed")
            if time.monotonic() >= latest and self._last is not None and not self.unknown or time.monotonic() >= self.deadline:
                raise self._give_up("timed out")
            endpoint = self._nodes.next()
            if endpoint is None:
                self._next_round(cancel)
                continue
            try:
                answer = self._attempt(cancel, endpoint, request)
            except RegistryError as e:
                e.op = self._op
                self._classify(cancel, endpoint, e)
                continue
            self._client.answered(endpoint)
            return answer

    def _attempt(self, cancel: Cancel, endpoint: Endpoint, request: Request) -> Dict[str, Any]:
        timeout = self._client.attempt_timeout * self._kind.timeouts * 2 ** min(self._nodes.round, 5)
        if self._read is not None:
            self._set_read(request.query)
        if not self.unknown:
            self.requested = time.monotonic()
        return self._client.exchange(cancel, endpoint, request, min(self.deadline, time.monotonic() + timeout), self._op)

    def _set_read(self, query: Dict[str, str]) -> None:
        read = self._read or Read()
        linearizable, least = read.linearizable, max(read.min_index, self._seen)
        if self.fallback():
            linearizable, least = True, read.min_index
        for name, value in (("linearizable", "true" if linearizable else ""), ("min_index", str(least) if least else "")):
            query.pop(name, None)
            if value:
                query[name] = value
        if read.max_staleness is not None:
            query["max_staleness"] = format_duration(self._op, "max_staleness", read.max_staleness)

    def fallback(self) -> bool:
        """True in every second round after nodes could not reach the index that this client remembers.

        The call is then linearizable, which is at least as strong and shows whether the index exists:
        otherwise a client could not use a cluster that was restored from an older snapshot."""
        return self._behind and self._nodes.round % 2 == 1

    def _classify(self, cancel: Cancel, endpoint: Endpoint, e: RegistryError) -> None:
        """Raises the error to end the call with, or returns to go on."""
        addr = endpoint.addr
        if isinstance(e, UnauthenticatedError):
            self._client.credential.refused()
            self._unknown_token += 1
            if self._unknown_token == MAX_UNKNOWN_TOKEN or self._client.credential.header is None:
                raise self._refused(addr, e)
        elif isinstance(e, PermissionDeniedError):
            raise self._refused(addr, e)
        elif isinstance(e, StaleError):
            self._stale = e
        elif isinstance(e, OutcomeUnknownError):
            self.unknown = True
            if e.field:  # no node can tell
                self._last, self._failures[addr] = e, e.message
                raise self._give_up("")
        elif isinstance(e, UnavailableError):
            self.unknown = self.unknown or self._kind.write and getattr(e, "sent", False)
        elif not isinstance(e, (NoLeaderError, BusyError, NotReadyError, WrongClusterError)):
            raise e
        self._last = more_informative(self._last, e)
        self._failures[addr] = e.message
        if cancel.cancelled:
            raise self._give_up("closed")
        late = isinstance(e, UnavailableError) and getattr(e, "timed_out", False)
        if self._read is not None and self._seen > self._read.min_index and (self._stale or late):
            self._behind = True
        self._nodes.failed(endpoint, e)

    def _refused(self, addr: str, e: RegistryError) -> RegistryError:
        """An earlier attempt may have taken effect, although the token is refused now."""
        if not self.unknown:
            return e
        self._failures[addr] = e.message
        return self._give_up("")

    def _next_round(self, cancel: Cancel) -> None:
        """Waits before all nodes are tried again."""
        if self._stale is not None and (not self._behind or self.fallback()):
            raise self._stale  # no node is fresh enough
        if self._nodes.all_foreign():
            raise self._give_up("")
        self._stale = None
        if not cancel.wait(min(self._nodes.next_round(), max(0.0, self.deadline - time.monotonic()))):
            raise self._give_up("closed")

    def _give_up(self, why: str) -> RegistryError:
        """Makes the error of a call that ends without an answer."""
        tail = f" ({why})" if why else ""
        if self.unknown:
            text = "the change may or may not have taken effect; repeat the call: " + self._list("")
            if isinstance(self._last, NoLeaderError):
                text = "the cluster has no leader, and " + text
            field = self._last.field if isinstance(self._last, OutcomeUnknownError) else ""
            return OutcomeUnknownError(text + tail, op=self._op, field=field)
        if why == "closed":
            return ClosedError("the client was closed, or the call was cancelled", op=self._op)
        last = self._last
        if last is not None and last.reason:
            text = f"{last.message}; tried {self._list(last.message)}{tail}"
            return type(last)(text, op=self._op, reason=last.reason, field=last.field, limit=last.limit, status=last.status)
        text = "no node could be reached: "
        if self._read is not None and self._read.min_index:
            text = f"no node answered at index {self._read.min_index} or above: "
        return UnavailableError(text + self._list("") + tail, op=self._op)

    def _list(self, reported: str) -> str:
        """The addresses that were tried with their errors, without an error that is reported already."""
        parts = []
        for addr, text in sorted(self._failures.items()):
            parts.append(addr if text == reported else text if text.startswith(addr) else f"{addr}: {text}")
        return "; ".join(parts) or f"none of {', '.join(self._client.pool.addrs())} was tried"


def write(client: "Core", op: str, request: Request, timeout: Optional[float], in_query: bool = False) -> "tuple[Dict[str, Any], float]":
    """Makes a call that takes effect at most once: all its attempts, on any node, have the same request id.

    It returns the answer, and when the first attempt was sent that may have taken effect."""
    limit = time.monotonic() + client.timeout_of(op, timeout)
    for max_age in (SINCE_AGE, 0.0):
        since = client.since(op, max_age, limit - time.monotonic())
        fields: Dict[str, Any] = {"request_id": secrets.token_hex(16), "since": since}
        call = _Write(client, op, limit - time.monotonic(), fields, in_query)
        try:
            answer = call.run(request)
        except InvalidArgumentError as e:
            if e.field != "since" or call.unknown or not max_age:
                raise
            continue  # the leader's memory of requests begins later; nothing was done
        client.observe(answer.get("index", 0))
        return answer, call.requested
    raise AssertionError("unreachable")


class _Write(Call):
    def __init__(self, client: "Core", op: str, timeout: float, fields: Dict[str, Any], in_query: bool) -> None:
        super().__init__(client, op, WRITE, timeout)
        self._fields, self._in_query = fields, in_query

    def _attempt(self, cancel: Cancel, endpoint: Endpoint, request: Request) -> Dict[str, Any]:
        fields = dict(self._fields, again=self.unknown)
        if self._in_query:
            request.query.update((k, str(v).lower()) for k, v in fields.items())
        else:
            request.body = dict(request.body or {}, **fields)
        return super()._attempt(cancel, endpoint, request)
