"""A group's ring in this process, fed by a watch: Match is local and goes on while no node can be reached."""

import threading
import time
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple, Type

from ._follow import Event, Follower, MismatchError
from ._notice import Moment, Staleness
from ._pool import more_informative, token_refused
from ._tracker import Step, Tracker
from .errors import (
    ClosedError, EmptyGroupError, NotReadyError, RegistryError, StaleError, UnavailableError, UnknownGroupError, invalid,
)  # fmt: skip
from .hashring import HashRing, Key, Params, RingMember
from .types import Member

if TYPE_CHECKING:
    from ._core import Core

#: The share of the elapsed time that builds take under lasting change.
BUILD_SHARE = 0.4
#: A refused token ends the wait for the first state after so many rounds over all nodes.
REFUSED_ROUNDS = 2


@dataclass(frozen=True)
class View:
    """One state of a ring. It never changes, so its answers are consistent."""

    group: str
    #: The bare ring, whose indexes are those of members.
    ring: HashRing
    #: All members, ordered by id.
    members: Tuple[Member, ...]
    revision: int = 0
    #: An applied index of the log at which the group was at the revision.
    index: int = 0
    #: Of the inputs of the ring; equal to the nodes'.
    fingerprint: int = 0
    cluster_id: str = ""
    deleted: bool = False

    def match(self, key: Key) -> Member:
        """Returns the member that owns the key; a held owner has its fallback."""
        at = self.ring.match(key)
        if at < 0:
            raise self._empty()
        member = self.members[at]
        return member if member.state != "held" else self._held(member, key)

    def _held(self, member: Member, key: Key) -> Member:
        f = self.ring.fallback(key)
        return member.with_fallback(self.members[f] if f >= 0 else None)

    def match_n(self, key: Key, n: int) -> List[Member]:
        """Returns the first n distinct owners, the owner first; fewer if fewer own keys, never none."""
        owners = self._list(self.ring.match_n(key, _count(n)))
        if owners[0].state == "held":
            owners[0] = self._held(owners[0], key)
        return owners

    def serving(self, key: Key, n: int = 1) -> List[Member]:
        """Returns the first n members to ask for the key: its owners, held ones last."""
        return self._list(self.ring.serving(key, _count(n)))

    def _list(self, found: Sequence[int]) -> List[Member]:
        if not found:
            raise self._empty()
        return [self.members[m] for m in found]

    def _empty(self) -> RegistryError:
        if self.deleted:
            return UnknownGroupError(f"ring of {self.group}: the group was deleted", op="match")
        return EmptyGroupError(f"ring of {self.group}: no member of the group owns keys", op="match")


def _count(n: int) -> int:
    if n < 1:
        raise invalid("match", "n", "≥ 1", f"n = {n!r} is not positive")
    return n


@dataclass
class RingStats:
    """Counters of a ring."""

    #: Accepted from the watch.
    snapshots: int = 0
    deltas: int = 0
    #: Published rings: fewer than changes, if these come faster than builds.
    builds: int = 0
    #: States without the fingerprint that the node sent; none was used.
    mismatches: int = 0
    #: Losses of the cluster's log after which the ring went back.
    rebuilds: int = 0
    #: Times without news for 5 s, and the reason of the present one.
    outages: int = 0
    outage: Optional[RegistryError] = None


@dataclass
class _State:
    """The newest state from the watch; the builder copies it."""

    number: int = 0
    step: Step = field(default_factory=Step)
    members: Dict[str, Member] = field(default_factory=dict)


class Ring:
    """Every event from a node has the group's fingerprint: if the members here have another one, the last ring
    stays, and the whole group is fetched. age says how old the answers may be.

    A group whose members all left is EmptyGroupError. A deleted group is UnknownGroupError until it is created
    again. If the registry lost its data, so that the leader does not know the group, the ring stays as it was,
    ages, and is replaced when the group exists again. match takes some µs and may be called from any thread."""

    def __init__(self, client: "Core", group: str, max_age: Optional[float], timeout: Optional[float]) -> None:
        if max_age is not None and not max_age > 0:
            raise invalid("ring", "max_age", "> 0 seconds", f"max_age is {max_age!r}")
        self.group = group
        self._client, self._max_age = client, max_age
        self._tracker = Tracker(client, group)
        self._staleness = Staleness()
        self._changed = threading.Condition()  # guards the rest
        self._view: Optional[View] = None  # read without the lock
        self._state = _State()
        self._built = 0  # number of the state of the view
        self._missing = False  # the leader does not know the group
        self._refused = False  # the nodes go on to refuse the token
        self._waiting: List[int] = []  # revisions that wait needs
        self._error: Optional[RegistryError] = None
        self._last: Optional[RegistryError] = None  # why no node gave a stream: the most informative
        self._stats = RingStats()
        self._refusals = 0
        self._follower = Follower(
            client, "ring " + group, self._tracker.query, self._handle, self._confirm, self._failed, self._outage, self._end
        )
        self._builder = threading.Thread(target=self._build, name="registry-ring", daemon=True)
        client.follow(self._follower)  # else a closed client would leave the builder behind
        self._builder.start()
        self._follower.start()
        try:
            self._first(client.timeout_of("ring", timeout))
        except BaseException:
            self.close()
            raise

    def _first(self, timeout: float) -> None:
        """Waits for the first state, and with max_age until a node has confirmed it."""

        def ready() -> bool:
            known = self._view is not None and (self._max_age is None or self.age() < float("inf"))
            return known or self._missing or self._refused or self._error is not None

        with self._changed:
            self._changed.wait_for(ready, timeout)
            if self._view is not None or self._missing:
                return
            if self._error is not None:
                raise self._error
            last = self._last
            text = f"no node sent the group {self.group}" + (f": {last.message}" if last is not None else "")
            if last is not None and (token_refused(last) or last.reason == "wrong_cluster"):
                raise type(last)(text, op="ring", reason=last.reason, field=last.field, limit=last.limit)
            raise UnavailableError(text, op="ring")

    def _handle(self, e: Event) -> None:
        try:
            step = self._tracker.step(e)
        except MismatchError:
            with self._changed:
                self._stats.mismatches += 1
            raise
        if step is None:
            return
        with self._changed:
            self._receive(step)
            self._changed.notify_all()
        self._tracker.commit(step)

    def _receive(self, step: Step) -> None:
        self._stats.rebuilds += step.rebuilt
        if step.unknown and not step.deleted:
            self._client.log.warning("the cluster does not know group %s", self.group)
            self._missing = True
            return
        if step.deleted:
            self._client.log.info("group %s was deleted at index %d", self.group, step.index)
            # At a revision above those that the group had, and below those that it may have later.
            step = step._replace(revision=step.index, fingerprint=HashRing(Params(), ()).fingerprint())
        self._stats.snapshots += step.reset
        self._stats.deltas += not (step.reset or step.unknown)
        step.apply(self._state.members)
        self._state.number += 1
        self._state.step = step._replace(put=(), removed=())
        self._missing = False

    def _confirm(self, as_of: Moment) -> None:
        """The newest state of the watch was current at a time; it counts once the ring is of that state."""
        if self._tracker.has_state:
            self._staleness.confirm(self._state.number, as_of)
            with self._changed:
                self._changed.notify_all()

    def _failed(self, error: RegistryError, last: bool, round: int) -> None:
        with self._changed:
            self._last = more_informative(self._last, error)
            if last and token_refused(error):
                self._refusals += 1
                self._refused = self._refusals > REFUSED_ROUNDS
                self._changed.notify_all()

    def _outage(self, error: Optional[RegistryError]) -> None:
        with self._changed:
            self._stats.outages += error is not None and self._stats.outage is None
            self._stats.outage = error

    def _end(self, error: RegistryError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
        self._builder.join()

    def _build(self) -> None:
        """Builds the newest state, within a share of the time, or at once if a wait needs it."""
        made: Optional[HashRing] = None
        next_at = 0.0
        while True:
            with self._changed:
                while self._error is None and not self._due(next_at):
                    late = self._state.number > self._built
                    self._changed.wait(max(0.0, next_at - time.monotonic()) if late else None)
                if self._error is not None:
                    return
                state = replace(self._state, members=dict(self._state.members))
            began = time.monotonic()
            try:
                made, view = self._view_of(state, made)
            except Exception:  # cannot happen: the inputs were checked
                self._client.log.exception("the ring of group %s cannot be built", self.group)
                with self._changed:
                    self._stats.mismatches += 1
                    self._built = state.number
                continue
            next_at = time.monotonic() + (time.monotonic() - began) * (1 / BUILD_SHARE - 1)
            with self._changed:
                self._view, self._built = view, state.number
                self._stats.builds += 1
                self._staleness.reached(state.number)
                self._changed.notify_all()

    def _due(self, next_at: float) -> bool:
        """Reports whether there is something to build now."""
        if self._state.number <= self._built:
            return False
        shown = self._view.revision if self._view is not None else 0
        return time.monotonic() >= next_at or any(shown < r <= self._state.step.revision for r in self._waiting)

    def _view_of(self, state: _State, before: Optional[HashRing]) -> Tuple[HashRing, View]:
        s = state.step
        members = tuple(m for _, m in sorted(state.members.items()))
        inputs = [RingMember(m.id, m.weight, m.state) for m in members]
        ring = HashRing(s.params, inputs) if before is None else before.changed(s.params, inputs)
        return ring, View(self.group, ring, members, s.revision, s.index, s.fingerprint, s.cluster, s.deleted)

    @property
    def view(self) -> View:
        """The newest state, for several answers from one ring. It raises what match would raise."""
        view = self._view
        if self._error is not None:
            raise ClosedError(f"ring of {self.group}: {self._error.message}", op="match")
        if view is None:
            if self._missing:
                raise UnknownGroupError(f"ring of {self.group}: there is no such group", op="match")
            raise NotReadyError(f"ring of {self.group}: no state of the group yet", op="match")
        if self._max_age is not None and self.age() > self._max_age:
            raise StaleError(f"ring of {self.group}: no node has confirmed it for {self._max_age:g} s", op="match")
        return view

    def match(self, key: Key) -> Member:
        """Returns the member that owns the key, by the newest ring in this process. A held owner has a fallback,
        which serves the key: Member.serving."""
        return self.view.match(key)

    def match_n(self, key: Key, n: int) -> List[Member]:
        """Returns the first n distinct owners, the owner first; fewer if fewer own keys, never none."""
        return self.view.match_n(key, n)

    def serving(self, key: Key, n: int = 1) -> List[Member]:
        """Returns the first n members to ask for the key: its owners, held ones last."""
        return self.view.serving(key, n)

    def wait(self, revision: int, timeout: Optional[float] = None) -> bool:
        """Waits until the ring has the revision, that of a receipt or of a write for instance, or a later one.
        Reports false after timeout seconds. A ring that was closed is ClosedError."""

        def reached() -> bool:
            return self._error is not None or self._view is not None and self._view.revision >= revision

        with self._changed:
            self._waiting.append(revision)
            self._changed.notify_all()
            try:
                self._changed.wait_for(reached, timeout)
            finally:
                self._waiting.remove(revision)
            if self._error is not None:
                raise ClosedError(f"ring of {self.group}: {self._error.message}", op="ring")
            return reached()

    def age(self) -> float:
        """Seconds since a node last confirmed that the ring is the newest, by its contact with the leader;
        infinite before the first confirmation. Nodes confirm every two seconds."""
        return self._staleness.age()

    @property
    def stats(self) -> RingStats:
        """A copy of the counters."""
        with self._changed:
            return replace(self._stats)

    def close(self) -> None:
        """Ends the watch and the threads; match is then ClosedError."""
        self._follower.close()

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], tb: Optional[TracebackType]) -> None:
        self.close()
