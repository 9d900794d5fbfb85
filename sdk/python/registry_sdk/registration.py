"""A registered service: kept by heartbeats, registered again after a loss, deregistered at the end."""

import secrets
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Tuple, Type

from ._call import write
from ._keeper import Lease
from ._transport import Cancel, Request
from .errors import ClosedError, HeldError, OutcomeUnknownError, RegistryError, invalid
from .types import format_duration

if TYPE_CHECKING:
    from ._core import Core


@dataclass(frozen=True)
class Event:
    """What happened to a registration."""

    #: "registered": for the first time.
    #: "unreachable": no node renewed the lease for a whole TTL, or took the registration after a loss, or nodes
    #: refuse the client's token; error says why. The member may be removed; the client keeps trying. It is sent
    #: once in an outage, and again when nodes refuse, once for each reason.
    #: "renewed": the lease was renewed after "unreachable".
    #: "lost": the lease is lost; the client registers again.
    #: "regained": the service is registered again after a loss.
    #: "drained", "resumed": by drain and resume.
    #: "ended": the registration has ended; error says why. The last event.
    kind: str
    group: str
    id: str
    error: Optional[RegistryError] = None
    #: Seconds since the epoch.
    time: float = field(default_factory=time.time)


OnEvent = Callable[[Event], Any]


class Registration:
    """A member of a group, as a context manager: `with client.register(...) as registration:`.

    It ends when it is closed or held, and when another process takes the id or an operator removes the member:
    two processes never fight for an id. All methods may be called from any thread."""

    def __init__(
        self,
        client: "Core",
        group: str,
        id: str,
        addr: str,
        weight: int,
        meta: Mapping[str, str],
        ttl: float,
        on_event: Optional[OnEvent],
    ) -> None:
        self.group, self.id, self.addr, self.weight, self.meta = group, id, addr, weight, dict(meta)
        #: Seconds that the member stays without heartbeats, as asked for.
        self.ttl = ttl
        self.on_event = on_event
        #: Whether close removed the member; false if it found it held, which then stays, or already removed.
        self.removed = False
        self._client = client
        self._instance = secrets.token_hex(16)
        self._cancel: Cancel = client.cancel.child()
        self._lock = threading.Lock()
        self._state_lock = threading.Lock()  # during a drain, resume or hold
        self._draining = False
        self._closing = threading.Lock()
        self._error: Optional[RegistryError] = None
        self._done = threading.Event()
        self._lease: Optional[Lease] = None
        self._on_end: List[Callable[[], None]] = []

    @property
    def path(self) -> str:
        return self._client.member_path(self.group, self.id)

    def _register(self, take_over: bool, timeout: Optional[float] = None) -> Tuple[Dict[str, Any], float]:
        body: Dict[str, Any] = {
            "addr": self.addr, "weight": self.weight, "meta": self.meta, "instance": self._instance,
            "ttl": format_duration("register", "ttl", self.ttl), "take_over": take_over,
        }  # fmt: skip
        if self._draining:
            body["state"] = "draining"
        return write(self._client, "register", Request("PUT", self.path, body=body), timeout)

    def _start(self, take_over: bool, timeout: Optional[float]) -> None:
        """Registers for the first time and begins the heartbeats."""
        answer, requested = self._register(take_over, timeout)
        self._lease = Lease(self, answer, requested)
        keeper = self._client.adopt(self)
        if keeper is None:  # the client was closed meanwhile
            self._deregister(None)
            raise ClosedError("the client was closed", op="register")
        self._emit("registered")
        keeper.add(self._lease)

    def _emit(self, kind: str, error: Optional[RegistryError] = None) -> None:
        with self._lock:
            if self._done.is_set():
                return  # a late answer to a heartbeat
            if kind == "ended":
                self._done.set()
            self._client.keeper.emit(Event(kind, self.group, self.id, error), self)

    def _end(self, why: RegistryError) -> bool:
        """Ends the registration; reports false if that was done before."""
        with self._lock:
            if self._error is not None:
                return False
            self._error = why
        self._cancel.cancel()
        self._client.forget(self)
        self._emit("ended", why)
        with self._lock:
            called, self._on_end = self._on_end, []
        for f in called:
            f()
        return True

    def on_end(self, f: Callable[[], None]) -> None:
        """Has f called once, in another thread, when the registration has ended; at once if it has."""
        with self._lock:
            if not self._done.is_set():
                self._on_end.append(f)
                return
        f()

    @property
    def error(self) -> Optional[RegistryError]:
        """None while the registration lasts, and then why it ended: ClosedError, HeldError, ConflictError or
        FencedError."""
        return self._error

    @property
    def done(self) -> bool:
        """Whether the registration has ended."""
        return self._done.is_set()

    @property
    def lease_age(self) -> float:
        """Seconds since the last acknowledged heartbeat was sent. Beyond the TTL the member may be removed:
        work that needs the registration must stop until it is renewed."""
        return time.monotonic() - self._lease.renewed if self._lease is not None else float("inf")

    @property
    def valid(self) -> bool:
        """Whether the lease lasts for certain: the registration goes on, and lease_age is below the TTL."""
        return self._error is None and self._lease is not None and self.lease_age < self._lease.ttl

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until the registration has ended; reports false after timeout seconds."""
        return self._done.wait(timeout)

    def close(self, timeout: Optional[float] = None) -> None:
        """Stops the heartbeats and deregisters, within timeout seconds (by default the client's close_timeout).

        A member that is held stays held. After an error the member may be listed until its TTL is over.
        Further calls do nothing."""
        with self._closing:
            if self._end(ClosedError("the registration was closed")):
                self._client.keeper.release(self._lease_or_raise())
                self._deregister(timeout)

    def _lease_or_raise(self) -> Lease:
        assert self._lease is not None  # set before anybody gets the registration
        return self._lease

    def _deregister(self, timeout: Optional[float]) -> None:
        query = {"instance": self._instance, "keep_held": "true"}
        request = Request("DELETE", self.path, query)
        answer, _ = write(self._client, "deregister", request, timeout or self._client.close_timeout, in_query=True)
        self.removed = bool(answer["removed"])

    def hold(self, seconds: float, timeout: Optional[float] = None) -> None:
        """Ends the registration for a planned restart and keeps the member: for 1 s – 24 h, or for its TTL if
        that is longer.

        The next registration of the id takes over, at any address. Until then the member owns its keys, and its
        fallback serves them. On an error the registration goes on; after OutcomeUnknownError the member may be
        held, and hold may be called again."""
        if not seconds:
            raise invalid("hold", "hold", "1s to 24h", "the hold is 0")
        with self._state_lock:
            self._update("hold", {"state": "held", "hold": format_duration("hold", "hold", seconds)}, timeout)
            if self._end(HeldError("the member is held for a restart")):
                self._client.keeper.release(self._lease_or_raise())

    def drain(self, timeout: Optional[float] = None) -> None:
        """Gives the service's keys away and keeps it registered. A later close moves no key."""
        self._set_state("drain", "draining", "drained", timeout)

    def resume(self, timeout: Optional[float] = None) -> None:
        """Makes the member active again, after drain, or after an operator drained or held it."""
        self._set_state("resume", "active", "resumed", timeout)

    def _set_state(self, op: str, state: str, kind: str, timeout: Optional[float]) -> None:
        with self._state_lock:
            before, self._draining = self._draining, state == "draining"
            try:
                self._update(op, {"state": state}, timeout)
            except RegistryError as e:
                if not isinstance(e, OutcomeUnknownError):
                    self._draining = before
                raise
            self._emit(kind)

    def _update(self, op: str, change: Dict[str, Any], timeout: Optional[float]) -> None:
        if self._error is not None:
            raise self._error
        body = dict(change, instance=self._instance)
        write(self._client, op, Request("PATCH", self.path, body=body), timeout)

    def __enter__(self) -> "Registration":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], tb: Optional[TracebackType]) -> None:
        self.close()
