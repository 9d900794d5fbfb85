"""The changes of a group, as they happen, and what all watches have in common."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Dict, Generic, Optional, Set, Tuple, Type, TypeVar

from ._follow import Event, Follower
from ._notice import Moment, Staleness
from ._tracker import Step, Tracker
from .errors import RegistryError
from .types import Member

if TYPE_CHECKING:
    from ._core import Core

E = TypeVar("E")
W = TypeVar("W", bound="BaseWatch[Any]")

#: The names of changes that wait for a slow reader: twice the group's members and this. Beyond, it gets all members.
CHANGES_KEPT = 1024


@dataclass(frozen=True)
class GroupEvent:
    """How a group changed since the last event of the watch."""

    #: The group; empty in an event of an outage of a watch of several groups.
    group: str
    #: put has all members and replaces earlier events. The first event is one, and so is one after a gap.
    reset: bool = False
    #: The cluster lost its log, and the group went back. The event is a reset, or unknown.
    rebuilt: bool = False
    #: The group does not exist, or was deleted.
    unknown: bool = False
    #: The revision of the event before, and that of the group now.
    from_revision: int = 0
    revision: int = 0
    #: An applied index of the log at which the group was at the revision.
    index: int = 0
    #: Of the inputs of the group's ring, and its parameters.
    fingerprint: int = 0
    virtual_nodes: int = 0
    bound: int = 0
    #: New or changed members, ordered by id, and the ids of those that left; some of these were in no event.
    put: Tuple[Member, ...] = ()
    removed: Tuple[str, ...] = ()
    #: The watch gets nothing, for this reason, and keeps trying. Such an event has no change.
    error: Optional[RegistryError] = None
    #: The outage is over. Such an event has no change.
    recovered: bool = False


class BaseWatch(Generic[E]):
    """Events, by `for event in watch`. It ends by close, or with the client.

    A lost node is replaced without an event, and no state older than one before is shown, unless the cluster
    itself lost a part of its log. A watch that has got nothing for 5 s, from at least three attempts, gives an
    event with error, keeps trying, and gives one with recovered. Events are not a history: a slow reader gets all
    changes since its last event as one. One thread reads; close may be called from any."""

    def __init__(self, client: "Core", what: str) -> None:
        self._ready = threading.Condition()  # guards what the thread of the follower shares with readers
        self._staleness = Staleness()
        self._failing: Optional[RegistryError] = None
        self._reported: Optional[RegistryError] = None
        self._error: Optional[RegistryError] = None
        self._on_ready: Callable[[], None] = lambda: None
        self._follower = Follower(
            client, what, self._query, self._handle, self._confirm, lambda *_: None, self._outage, self._end
        )
        self._follower.start()

    # What the kinds of watches differ in; the first three are called by the follower's thread.

    def _query(self) -> Dict[str, str]:
        """Returns the parameters of a new stream."""
        raise NotImplementedError

    def _handle(self, e: Event) -> None:
        """Takes an event of the stream."""
        raise NotImplementedError

    def _confirm(self, as_of: Moment) -> None:
        """Takes that all of a time was sent."""
        raise NotImplementedError

    def _event(self) -> Optional[E]:
        """Returns the next event, if there is one."""
        raise NotImplementedError

    def _failure(self, error: Optional[RegistryError]) -> E:
        """Returns the event of an outage, or of its end."""
        raise NotImplementedError

    def _outage(self, error: Optional[RegistryError]) -> None:
        with self._ready:
            self._failing = error
            self._wake()

    def _end(self, error: RegistryError) -> None:
        with self._ready:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        self._ready.notify_all()
        self._on_ready()

    def on_ready(self, f: Callable[[], None]) -> None:
        """Has f called, in another thread, whenever next may have something; for other event loops."""
        with self._ready:
            self._on_ready = f

    def next(self, timeout: Optional[float] = None) -> Optional[E]:
        """Returns the next event; None after timeout seconds, and at the end of the watch."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._ready:
            while True:
                if self._failing is not self._reported:
                    self._reported = self._failing
                    return self._failure(self._failing)
                e = self._event()
                if e is not None or self._error is not None:
                    return e
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._ready.wait(left)

    def __iter__(self: W) -> W:
        return self

    def __next__(self) -> E:
        e = self.next()
        if e is None:
            raise StopIteration
        return e

    @property
    def error(self) -> Optional[RegistryError]:
        """None while the watch lasts, and then ClosedError, or why nodes refuse it as invalid."""
        return self._error

    def age(self) -> float:
        """Seconds since a node last confirmed that the watch has the newest state; infinite before the first."""
        return self._staleness.age()

    def close(self) -> None:
        """Ends the watch and its thread."""
        self._follower.close()

    def __enter__(self: W) -> W:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], tb: Optional[TracebackType]) -> None:
        self.close()


class Cell:
    """A group, and its changes that no reader has seen."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.pending = False
        self.last = Step()
        self._reset = self._rebuilt = False
        self._members: Dict[str, Member] = {}
        self._changed: Set[str] = set()
        self._shown = 0

    def apply(self, step: Step) -> None:
        step.apply(self._members)
        self.pending = True
        self._rebuilt = self._rebuilt or step.rebuilt
        self._reset = self._reset or step.reset or step.unknown
        if not self._reset:
            self._changed.update(step.removed, (m.id for m in step.put))
            self._reset = len(self._changed) > 2 * len(self._members) + CHANGES_KEPT
        if self._reset:
            self._changed.clear()
        self.last = step._replace(put=(), removed=())

    def event(self) -> Optional[GroupEvent]:
        if not self.pending:
            return None
        s, members = self.last, self._members
        ids = sorted(members) if self._reset else sorted(self._changed & members.keys())
        e = GroupEvent(
            self.group, self._reset and not s.unknown, self._rebuilt, s.unknown, self._shown, s.revision, s.index,
            s.fingerprint, s.params.virtual_nodes, s.params.bound, tuple(members[id] for id in ids),
            tuple(sorted(self._changed - members.keys())),
        )  # fmt: skip
        self._shown = s.revision
        self.pending = self._reset = self._rebuilt = False
        self._changed.clear()
        return e

    def failure(self, error: Optional[RegistryError]) -> GroupEvent:
        return GroupEvent(self.group, from_revision=self._shown, revision=self._shown, error=error, recovered=error is None)


class Watch(BaseWatch[GroupEvent]):
    """Events of one group."""

    def __init__(self, client: "Core", group: str) -> None:
        self.group = group
        self._tracker = Tracker(client, group)
        self._cell = Cell(group)
        super().__init__(client, "group " + group)

    def _query(self) -> Dict[str, str]:
        return self._tracker.query()

    def _event(self) -> Optional[GroupEvent]:
        return self._cell.event()

    def _failure(self, error: Optional[RegistryError]) -> GroupEvent:
        return self._cell.failure(error)

    def _handle(self, e: Event) -> None:
        step = self._tracker.step(e)
        if step is None:
            return
        with self._ready:
            self._cell.apply(step)
            self._wake()
        self._tracker.commit(step)

    def _confirm(self, as_of: Moment) -> None:
        if self._tracker.has_state:
            self._staleness.confirm(0, as_of)
