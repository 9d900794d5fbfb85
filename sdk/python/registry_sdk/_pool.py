"""The known nodes, and the order in which calls, heartbeats and watches try them: as in the Go SDK."""

import random
import threading
import time
from typing import Iterable, List, Optional, Set

from ._transport import Idle
from .errors import (
    NotOwnerError, NotReadyError, PermissionDeniedError, RegistryError, UnauthenticatedError, UnavailableError,
    WrongClusterError, invalid,
)  # fmt: skip

# How long an endpoint that failed is suspect; the time doubles with every failure in a row.
SUSPECT_MIN, SUSPECT_MAX = 0.5, 30.0
# Pauses between rounds over all nodes; the last, where nodes refuse the token: only an operator ends that.
BACKOFF_BASE, BACKOFF_MAX, REFUSED_MAX = 0.05, 1.0, 5.0


def backoff(round: int, refused: bool = False) -> float:
    """The pause before a round: it doubles, and half of it is random, so that clients do not retry together."""
    d = min(BACKOFF_BASE * 2.0 ** min(round, 10), REFUSED_MAX if refused else BACKOFF_MAX)
    return d / 2 + random.uniform(0, d / 2)


def check_addr(addr: str) -> None:
    """Raises ValueError for what is not host:port."""
    host, colon, port = addr.rpartition(":")
    if not colon or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError("want host:port")
    if len(addr.encode()) > 255:
        raise ValueError("longer than 255 bytes")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} is not in 1–65535")
    if any(c.isspace() or ord(c) < 33 or c in "/?#@" for c in host):
        raise ValueError(f"host {host!r} is not a name or an address")


def parse_target(target: "str | Iterable[str]") -> List[str]:
    """Splits a list of addresses and checks each."""
    addrs: List[str] = []
    for part in target.split(",") if isinstance(target, str) else target:
        addr = part.strip()
        try:
            check_addr(addr)
        except ValueError as e:
            raise invalid("client", "target", "host:port,host:port", f"address {addr!r}: {e}") from None
        if addr not in addrs:
            addrs.append(addr)
    if not addrs:
        raise invalid("client", "target", "host:port,host:port", "no address is given")
    return addrs


class Endpoint:
    """A node's client address. Its state is guarded by the pool's lock."""

    def __init__(self, addr: str, seed: bool = False, listed: bool = False) -> None:
        self.addr, self.seed, self.listed = addr, seed, listed
        self.idle = Idle()
        self.suspect = 0.0  # until then it is chosen only after all others
        self.failures = 0
        self.works = False  # answered and has not failed since
        self.dropped = False

    def __repr__(self) -> str:
        return self.addr


class Pool:
    """The known nodes and the one that calls go to.

    Example: A and B are given, C was learnt. Calls go to B, the home chosen at random. B dies: the first call
    that fails marks B suspect and makes A current. When B answers again, it becomes current."""

    def __init__(self, addrs: List[str]) -> None:
        self._lock = threading.Lock()
        self._all = [Endpoint(a, seed=True) for a in addrs]
        self._home = self._current = random.choice(self._all)  # clients that are given one list spread over it
        self._closed = False
        self.moved = threading.Event()  # a node has failed since the list of nodes was read

    def pick(self, tried: Set[Endpoint]) -> Optional[Endpoint]:
        """Returns the best endpoint that was not tried: healthy ones first, among them the current one."""
        with self._lock:
            return self._pick(tried)

    def _pick(self, tried: Set[Endpoint]) -> Optional[Endpoint]:
        now = time.monotonic()
        start = self._all.index(self._current) if self._current in self._all else 0
        rest = [e for e in self._all[start:] + self._all[:start] if e not in tried]
        healthy = [e for e in rest if e.suspect <= now]
        if not healthy:
            return min(rest, key=lambda e: e.suspect) if rest else None
        if healthy[0] is self._current:
            return self._current
        return next((e for e in healthy if e.seed and not e.failures), healthy[0])

    def failed(self, e: Endpoint, fault: bool) -> None:
        """Moves calls away from e; with fault it is suspect: the node itself failed."""
        now = time.monotonic()
        with self._lock:
            if fault and e.suspect <= now:  # one outage counts once, however many calls see it
                e.suspect = now + min(SUSPECT_MIN * 2 ** min(e.failures, 10), SUSPECT_MAX)
                e.failures += 1
                e.works = False
                self._move_home()
                self.moved.set()
            if e is self._current:
                self._current = self._pick({e}) or e

    def worked(self, e: Endpoint) -> None:
        """Forgets e's failures; it becomes current if the current one is suspect."""
        with self._lock:
            if not e.dropped:
                e.suspect, e.failures, e.works = 0.0, 0, True
                if self._current.suspect > time.monotonic():
                    self._current = e

    def away(self) -> Optional[Endpoint]:
        """Returns the home node if calls go to another."""
        with self._lock:
            return None if self._home is self._current else self._home

    def return_home(self) -> None:
        with self._lock:
            self._current = self._home

    def preferred(self) -> Optional[Endpoint]:
        """Returns the node that a new call would go to."""
        return self.pick(set())

    def healthy(self, addr: str) -> Optional[Endpoint]:
        """Returns the endpoint of an address if it is known and not suspect."""
        with self._lock:
            return next((e for e in self._all if e.addr == addr and e.suspect <= time.monotonic()), None)

    def add(self, addr: str, listed: bool = False) -> None:
        with self._lock:
            self._add(addr, listed)

    def _add(self, addr: str, listed: bool) -> None:
        try:
            check_addr(addr)
        except ValueError:
            return  # what a node says of another one is not trusted
        if not self._closed and all(e.addr != addr for e in self._all):
            self._all.append(Endpoint(addr, listed=listed))

    def learn(self, addrs: Iterable[str]) -> None:
        """Replaces the learnt addresses. While no listed one is known to work, working ones are kept: a node
        may list addresses that this client cannot reach."""
        known = set(addrs)
        dropped = []
        with self._lock:
            for e in self._all:
                e.listed = e.addr in known
            proven = any(e.listed and e.works for e in self._all)
            for e in list(self._all):
                if not (e.seed or e.listed or e is self._current or e.works and not proven):
                    e.dropped = True
                    self._all.remove(e)
                    dropped.append(e)
            for addr in sorted(known):
                self._add(addr, listed=True)
            self._move_home()
        for e in dropped:
            e.idle.drop(for_ever=True)

    def _move_home(self) -> None:
        if self._home.listed or self._home.seed and not self._home.failures:
            return
        listed = [e for e in self._all if e.listed]
        if listed:
            self._home = random.choice(listed)

    def addrs(self) -> List[str]:
        with self._lock:
            return [e.addr for e in self._all]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            every = list(self._all)
        for e in every:
            e.idle.drop(for_ever=True)


class Rotation:
    """Chooses the nodes for one call, one watch or the heartbeats: in rounds, each node once a round, with a
    growing pause between rounds. It is for one thread."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.leader = ""  # address of the node to try first, if it is healthy
        self.round = 0  # rounds without success
        self.tried: Set[Endpoint] = set()
        self._foreign = self._refused = 0  # in this round: nodes of another cluster, nodes that refused the token

    def next(self) -> Optional[Endpoint]:
        """Returns the node to try; None when all were tried in this round."""
        e = self._pool.healthy(self.leader) if self.leader else None
        if e is None or e in self.tried:
            e = self._pool.pick(self.tried)
        if e is not None:
            self.tried.add(e)
        return e

    def exhausted(self) -> bool:
        return self._pool.pick(self.tried) is None

    def all_foreign(self) -> bool:
        """Reports whether all nodes of this round are of another cluster."""
        return self._foreign == len(self.tried)

    def next_round(self) -> float:
        """Begins a round and returns the pause before it."""
        refused = 0 < self._refused == len(self.tried)
        self.round += 1
        self._clear()
        return backoff(self.round - 1, refused)

    def restart(self) -> None:
        """Begins the first round, after a success."""
        self.round = 0
        self._clear()

    def _clear(self) -> None:
        self.tried.clear()
        self._foreign = self._refused = 0

    def failed(self, e: Endpoint, error: RegistryError) -> None:
        """Records the failure of a node, here and in the pool."""
        self.tried.add(e)
        self._foreign += isinstance(error, WrongClusterError)
        self._refused += token_refused(error)
        self._pool.failed(e, isinstance(error, (NotReadyError, WrongClusterError, UnavailableError)))
        if isinstance(error, WrongClusterError):
            e.idle.drop()  # the next call resolves the address again


def token_refused(error: Optional[BaseException]) -> bool:
    """Reports whether a node refused a call because of the token."""
    return isinstance(error, (UnauthenticatedError, PermissionDeniedError, NotOwnerError))


def more_informative(before: Optional[RegistryError], error: RegistryError) -> RegistryError:
    """Returns the error of two to report: an answer of the own cluster comes before WrongClusterError, and
    that before a failed connection."""

    def rank(e: RegistryError) -> int:
        return 0 if not e.reason else 1 if isinstance(e, WrongClusterError) else 2

    return before if before is not None and rank(before) > rank(error) else error
