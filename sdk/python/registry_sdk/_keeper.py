"""Renews all leases of a client: one thread, one message for all leases that are due."""

import logging
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Set, Tuple

from ._notice import Notice
from ._pool import Endpoint, Rotation, backoff, more_informative, token_refused
from ._transport import Cancel, Request
from .errors import ConflictError, FencedError, RegistryError
from .types import parse_duration

if TYPE_CHECKING:
    from ._core import Core
    from .registration import Event, Registration

#: The server's limit on the leases of one message.
MAX_BATCH = 1000
#: Registrations after a loss that are under way at once.
MAX_WORKERS = 16
#: While no node answers, leases are looked through so often for a missed TTL.
SCAN_EVERY = 0.1
#: How often, at most, heartbeats move to another leader.
FOLLOW_PAUSE = 1.0
#: A refused token is reported after so many rounds: nodes may not have applied yet that it was created.
REFUSED_ROUNDS = 2
MIN_ANSWER, MAX_ANSWER = 0.2, 3.0
#: Events that wait for one slow on_event function; the oldest are dropped.
MAX_PENDING = 16

RENEWING, LOST, REGISTERING, RELEASED = range(4)


class Lease:
    """The keeper's side of a registration, guarded by the keeper's lock."""

    def __init__(self, registration: "Registration", answer: Dict[str, Any], requested: float) -> None:
        self.registration = registration
        self.phase = RENEWING
        self.unreachable = Notice()  # of that event, until the lease is renewed
        self.tries = 0  # failed registrations since the loss
        self.idle = threading.Event()  # no worker registers it, and none will
        self.granted(answer, requested)

    def granted(self, answer: Dict[str, Any], requested: float) -> None:
        """Takes a new lease. Its TTL runs from when it was requested: the server's cannot have begun earlier."""
        self.id: int = answer["lease_id"]
        self.ttl = parse_duration(answer["ttl"]) or self.registration.ttl
        self.renewed = requested
        self.due = requested + self.interval(new_jitter())
        self.phase, self.tries = RENEWING, 0

    def interval(self, jitter: float) -> float:
        """Between two heartbeats: a third of the TTL, less the jitter."""
        return self.ttl / 3 * (1 - jitter)

    def early(self) -> float:
        """How long before it is due it may be renewed with others: what the largest jitter takes off."""
        return self.ttl / 15


def new_jitter() -> float:
    """The part by which an interval is shortened, so that clients do not send together: at most a fifth."""
    return random.uniform(0, 0.2)


class Keeper:
    """Heartbeats go to the leader, which needs no hop, or else to any node. A lost lease is registered again
    without limit of time.

    Example: three leases of TTL 9 s are due at 2.5, 2.6 and 2.9 s. At 2.5 s one message has all three, and they are
    due together again. If its node does not answer within 2.25 s, the same message goes to the next node."""

    def __init__(self, client: "Core") -> None:
        self._client = client
        self._cancel: Cancel = client.cancel.child()
        self._changed = threading.Condition()
        self._leases: Set[Lease] = set()
        self._workers = 0
        self._nodes = Rotation(client.pool)
        self._follows = 0.0  # earliest time to move to another leader
        self._retry_at = 0.0
        self._failed: Optional[RegistryError] = None  # of this round, the most informative
        self._error: Optional[RegistryError] = None  # why there is no answer
        self._dispatcher = Dispatcher(client.log)
        self._thread = threading.Thread(target=self._run, name="registry-heartbeats", daemon=True)
        self._thread.start()

    def add(self, lease: Lease) -> None:
        with self._changed:
            if not self._leases:
                self._error = None  # of earlier leases
            self._leases.add(lease)
            self._changed.notify()

    def release(self, lease: Lease) -> None:
        """Takes a lease out, and waits until nothing registers it."""
        with self._changed:
            self._leases.discard(lease)
            if lease.phase != REGISTERING:
                lease.idle.set()
            lease.phase = RELEASED
            self._changed.notify()
        lease.idle.wait()

    def stop(self) -> None:
        """Ends the threads; the events before it are delivered."""
        self._cancel.cancel()
        with self._changed:
            self._changed.notify()
        self._thread.join()
        with self._changed:
            while self._workers:
                self._changed.wait()
        self._dispatcher.stop()

    def emit(self, event: "Event", registration: "Registration") -> None:
        level = logging.WARNING if event.kind in ("lost", "unreachable") else logging.INFO
        self._client.log.log(level, "registration %s/%s: %s%s", event.group, event.id, event.kind,
                             f": {event.error}" if event.error else "")  # fmt: skip
        self._dispatcher.emit(event, registration)

    def _run(self) -> None:
        while not self._cancel.cancelled:
            with self._changed:
                now = time.monotonic()
                self._register_due(now)
                self._scan(now)
                batch = self._collect(now) if now >= self._retry_at else []
                if not batch:
                    self._changed.wait(self._pause(now))
                    continue
                timeout = min(self._answer_timeout(lease) for lease in self._leases if lease.phase == RENEWING)
            try:
                self._beat(batch, timeout)
            except Exception:  # a fault of this package must not end the heartbeats
                self._client.log.exception("heartbeat failed")
                self._retry_at = time.monotonic() + FOLLOW_PAUSE

    @staticmethod
    def _answer_timeout(lease: Lease) -> float:
        """A quarter of the TTL leaves time to try two more nodes."""
        return min(max(lease.ttl / 4, MIN_ANSWER), MAX_ANSWER)

    def _pause(self, now: float) -> Optional[float]:
        """Until something is due; None: until there is a lease."""
        times = [max(x.due, self._retry_at) for x in self._leases if x.phase == RENEWING]
        if times and self._error is not None:
            times.append(now + SCAN_EVERY)
        if self._workers < MAX_WORKERS:
            times += [x.due for x in self._leases if x.phase == LOST]
        return max(0.0, min(times) - now) if times else None

    def _collect(self, now: float) -> List[Tuple[Lease, int]]:
        renewing = [x for x in self._leases if x.phase == RENEWING]
        if not any(x.due <= now for x in renewing):
            return []
        due = sorted((x for x in renewing if x.due <= now + x.early()), key=lambda x: x.due)
        return [(x, x.id) for x in due[:MAX_BATCH]]

    def _beat(self, batch: List[Tuple[Lease, int]], timeout: float) -> None:
        """Sends one message to one node, and takes its answer or its failure."""
        node = self._nodes.next()
        if node is None:  # all were tried
            self._error, self._failed = self._failed or self._error, None
            self._retry_at = time.monotonic() + self._nodes.next_round()
            return
        sent = time.monotonic()
        request = Request("POST", "/v1/heartbeat", body={"lease_ids": [id for _, id in batch]})
        try:
            answer = self._client.exchange(self._cancel, node, request, sent + timeout, "heartbeat")
            lost, leader = set(answer["lost"]), str(answer["leader_addr"])
        except RegistryError as e:
            if not self._cancel.cancelled:
                self._node_failed(node, e, batch)
            return
        self._failed = self._error = None
        self._nodes.restart()
        self._client.pool.worked(node)
        with self._changed:
            self._renew(batch, lost, sent)
        self._follow(leader)

    def _renew(self, batch: List[Tuple[Lease, int]], lost: Set[int], sent: float) -> None:
        jitter = new_jitter()  # in common, so that the leases of a message stay together
        for lease, id in batch:
            if lease.phase != RENEWING or lease.id != id:
                continue  # released, or registered again meanwhile
            if id in lost:
                self._lose(lease)
                continue
            lease.renewed, lease.due = sent, sent + lease.interval(jitter)
            if lease.unreachable.given:
                lease.unreachable = Notice()
                lease.registration._emit("renewed")

    def _lose(self, lease: Lease) -> None:
        """A lost lease: registering again shows the reason."""
        lease.phase, lease.due = LOST, time.monotonic()
        lease.registration._emit("lost")

    def _node_failed(self, node: Endpoint, e: RegistryError, batch: List[Tuple[Lease, int]]) -> None:
        e.op = "heartbeat"
        if e.reason == "not_owner" and self._refuse(e, batch):
            self._nodes.restart()  # the node renews the others
            return
        self._failed = more_informative(self._failed, e)
        if self._nodes.round == 0:
            self._error = self._failed
        if token_refused(e):
            self._client.credential.refused()
        self._nodes.failed(node, e)
        if node.addr == self._nodes.leader:
            self._follows = time.monotonic() + FOLLOW_PAUSE
        self._client.log.debug("heartbeats move to another node: %s: %s", node.addr, e)

    def _refuse(self, e: RegistryError, batch: List[Tuple[Lease, int]]) -> bool:
        """Takes the leases of other tokens out of the heartbeats: one makes a node refuse the whole message.

        Registering again shows when the token, or the owner, is another one."""
        refused = set(e.lease_ids) or ({batch[0][1]} if len(batch) == 1 else set())
        found = False
        with self._changed:
            for lease, id in batch:
                if id in refused and lease.phase == RENEWING and lease.id == id:
                    found = True
                    self._repeat(lease, e)
        return found

    def _repeat(self, lease: Lease, e: RegistryError) -> None:
        """Has a lease registered again after a pause."""
        lease.phase = LOST
        lease.due = time.monotonic() + backoff(lease.tries, token_refused(e))
        lease.tries += 1
        if lease.unreachable.due(e):
            lease.registration._emit("unreachable", e)

    def _register_due(self, now: float) -> None:
        for lease in [x for x in self._leases if x.phase == LOST and x.due <= now]:
            if self._workers >= MAX_WORKERS:
                return
            lease.phase = REGISTERING
            self._workers += 1
            threading.Thread(target=self._register, args=(lease,), name="registry-register", daemon=True).start()

    def _register(self, lease: Lease) -> None:
        """Registers a lost lease again; runs in a thread of its own."""
        registration = lease.registration
        error: Optional[RegistryError] = None
        try:
            with self._client.within(registration._cancel):
                granted = registration._register(take_over=False)
        except RegistryError as e:
            error = e
        except Exception as e:  # a fault of this package must not end the registration without a word
            self._client.log.exception("registration failed")
            error = RegistryError(str(e), op="register")
        ended = error if isinstance(error, (ConflictError, FencedError)) else None
        with self._changed:
            if lease.phase == RELEASED or ended is not None or registration.error is not None:
                lease.phase = RELEASED
                self._leases.discard(lease)
                lease.idle.set()
            elif error is not None:
                self._repeat(lease, error)
            else:
                lease.granted(*granted)
                lease.unreachable = Notice()
                registration._emit("regained")
        if ended is not None:
            registration._end(ended)
        with self._changed:
            self._workers -= 1
            self._changed.notify_all()

    def _scan(self, now: float) -> None:
        """Reports leases that were not renewed for a TTL while no node answers, or sooner if nodes refuse the token."""
        e = self._error
        if e is None:
            return
        refused = token_refused(e) and self._nodes.round > REFUSED_ROUNDS
        for lease in self._leases:
            if lease.phase == RENEWING and (refused or now - lease.renewed >= lease.ttl) and lease.unreachable.due(e):
                lease.registration._emit("unreachable", e)

    def _follow(self, leader: str) -> None:
        """Prefers the leader, at most once in FOLLOW_PAUSE; if it cannot be reached, any node will do."""
        now = time.monotonic()
        if leader and leader != self._nodes.leader and now >= self._follows:
            self._client.pool.add(leader)
            self._nodes.leader, self._follows = leader, now + FOLLOW_PAUSE


class Dispatcher:
    """Calls the on_event functions from one thread, one at a time and in order: a slow one delays no heartbeat."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._ready = threading.Condition()
        self._pending: "Dict[Registration, Deque[Event]]" = {}
        self._stopped = False
        self._thread: Optional[threading.Thread] = None

    def emit(self, event: "Event", registration: "Registration") -> None:
        if registration.on_event is None:
            return
        with self._ready:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="registry-events", daemon=True)
                self._thread.start()
            self._pending.setdefault(registration, deque(maxlen=MAX_PENDING)).append(event)
            self._ready.notify()

    def stop(self) -> None:
        with self._ready:
            self._stopped = True
            self._ready.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._pending:
                    if self._stopped:
                        return
                    self._ready.wait()
                registration = next(iter(self._pending))
                events = self._pending.pop(registration)
            for event in events:
                try:
                    registration.on_event(event)  # type: ignore[misc]
                except Exception:
                    self._log.exception("on_event raised")
