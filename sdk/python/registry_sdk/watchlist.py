"""Watches of several groups, of the list of groups, and of the cluster's nodes."""

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Deque, Dict, Optional, Set, Tuple

from ._follow import BehindError, Event
from ._notice import Moment
from ._refresh import NODES
from ._tracker import Step, Tracker, leader_receipt
from .errors import RegistryError, UnknownGroupError
from .types import Group, Receipt, group_from
from .watch import CHANGES_KEPT, BaseWatch, Cell, GroupEvent

if TYPE_CHECKING:
    from .client import Client


class PrefixWatch(BaseWatch[GroupEvent]):
    """Events of all groups whose names start with a prefix, new ones included. Each event is of one group, and
    those of one group are in order.

    A new stream sends every group there is, and says nothing of those that were deleted meanwhile: these are found
    by the leader's list. After that a node that is behind might send one of them once more, as of before its
    deletion: the leader is asked about a new group that is older than the newest deletion."""

    def __init__(self, client: "Client", prefix: str) -> None:
        self.prefix = prefix
        self._client = client
        self._trackers: Dict[str, Tracker] = {}  # of the follower's thread
        self._cells: Dict[str, Cell] = {}
        self._queue: Deque[Cell] = deque()  # those with changes, each once
        self._cluster = ""  # of the newest snapshot
        self._deleted = 0  # the index of the newest deletion in that cluster
        self._begun = False  # the stream has had something
        super().__init__(client, f"groups {prefix}*")

    def _query(self) -> Dict[str, str]:
        self._begun = False
        return {"prefix": self.prefix}

    def _handle(self, e: Event) -> None:
        self._begin()
        name = str(e.data.get("group") or "")
        if not name or not name.startswith(self.prefix):
            return
        tracker = self._trackers.get(name)
        if tracker is None:
            if e.name != "snapshot":
                return  # never shown, or its deletion was
            self._check_returned(name, e)
            tracker = Tracker(self._client, name)
        step = tracker.step(e)
        self._trackers[name] = tracker
        if step is None:
            return
        if step.reset and step.cluster and step.cluster != self._cluster:
            self._cluster, self._deleted = step.cluster, 0
        self._apply(name, tracker, step)

    def _confirm(self, as_of: Moment) -> None:
        self._begin()  # the last groups may be gone: nothing else comes, then
        self._staleness.confirm(0, as_of)

    def _begin(self) -> None:
        if not self._begun:
            self._vanished()
            self._begun = True

    def _apply(self, name: str, tracker: Tracker, step: Step) -> None:
        with self._ready:
            cell = self._cells.setdefault(name, Cell(name))
            if not cell.pending:
                self._queue.append(cell)
            cell.apply(step)
            self._wake()
        tracker.commit(step)
        if step.unknown:
            del self._trackers[name]
        if step.deleted:
            self._deleted = max(self._deleted, step.index)

    def _check_returned(self, name: str, e: Event) -> None:
        if int(e.data["index"]) >= self._deleted or e.data["cluster_id"] != self._cluster:
            return
        try:
            leader = leader_receipt(self._client, name)
        except UnknownGroupError:
            raise BehindError("the node does not know that the group was deleted") from None
        except RegistryError as error:
            raise BehindError(f"the node is behind a deletion, and the leader did not answer: {error}") from error
        if leader.revision > int(e.data["revision"]):
            raise BehindError("the group was deleted, and created again since")

    def _vanished(self) -> None:
        """Shows that groups no longer exist. The index of a deletion is that of the page that lacks the group: at
        that of an earlier page it may still have existed."""
        known = deque(sorted(self._trackers))
        missing: Dict[str, Receipt] = {}
        if not known:
            return
        try:
            for groups, receipt, last in self._client.group_pages(self.prefix, linearizable=True):
                names = {g.name for g in groups}
                end = groups[-1].name if groups else ""
                while known and (last or known[0] <= end):
                    name = known.popleft()
                    if name not in names:
                        missing[name] = receipt
        except RegistryError as error:
            raise BehindError(f"groups may have been deleted, and the leader did not answer: {error}") from error
        lost = False
        for name, r in missing.items():
            tracker = self._trackers[name]
            deleted = tracker.deleted_at(r.index, r.cluster_id)
            step = Step(index=r.index, cluster=r.cluster_id, unknown=True, deleted=deleted, rebuilt=not deleted)
            lost = lost or not deleted
            self._apply(name, tracker, step)
        if lost:  # this stream may be of before, and have the groups that are gone
            raise BehindError("the cluster lost its log")

    def _event(self) -> Optional[GroupEvent]:
        if not self._queue:
            return None
        cell = self._queue.popleft()
        if cell.last.unknown:
            del self._cells[cell.group]
        return cell.event()

    def _failure(self, error: Optional[RegistryError]) -> GroupEvent:
        return Cell("").failure(error)


class _Lowest:
    """The applied index below which no list is accepted."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self.index = 0

    def check(self, index: int) -> bool:
        """Raises BehindError for a list of an older index, unless the leader says that the log is shorter than it
        was, which it returns."""
        if index >= self.index:
            return False
        try:
            leader = leader_receipt(self._client, NODES)  # any token may read it
        except RegistryError as error:
            raise BehindError(f"the node is behind an earlier answer, and the leader did not answer: {error}") from error
        if leader.index >= self.index or index < leader.index:
            raise BehindError("the node is behind an earlier answer")
        return True

    def commit(self, index: int) -> None:
        self.index = index
        self._client.observe(index)


@dataclass(frozen=True)
class GroupsEvent:
    """How the list of groups changed since the last event."""

    #: groups has all groups and replaces earlier events. The first event is one.
    reset: bool = False
    #: The cluster lost its log. The event is a reset.
    rebuilt: bool = False
    #: The applied index of the log that the list was read at.
    index: int = 0
    #: Groups whose configuration, size or revision changed, ordered by name, and the names of deleted ones.
    groups: Tuple[Group, ...] = ()
    removed: Tuple[str, ...] = ()
    #: As in GroupEvent.
    error: Optional[RegistryError] = None
    recovered: bool = False


class GroupsWatch(BaseWatch[GroupsEvent]):
    """Events of the list of groups, without their members."""

    def __init__(self, client: "Client") -> None:
        self._lowest = _Lowest(client)
        self._groups: Dict[str, Group] = {}
        self._index = 0
        self._whole = True  # the next event of the stream has all groups
        self._started = self._shown = self._reset = self._rebuilt = False
        self._changed: Set[str] = set()
        super().__init__(client, "groups")

    def _query(self) -> Dict[str, str]:
        self._whole = True
        return {"groups": "true"}

    def _handle(self, e: Event) -> None:
        if e.name != "groups":
            return
        index = int(e.data["index"])
        rebuilt = self._lowest.check(index)
        groups = {g["name"]: group_from(g) for g in e.data["groups"]}
        with self._ready:
            self._apply(index, groups, set(e.data["removed"]), rebuilt)
            self._wake()
        self._whole = False
        self._lowest.commit(index)

    def _apply(self, index: int, groups: Dict[str, Group], removed: Set[str], rebuilt: bool) -> None:
        if self._whole:
            removed |= self._groups.keys()
        removed -= groups.keys()
        for name in removed & self._groups.keys():
            del self._groups[name]
            self._changed.add(name)
        for name, group in groups.items():
            if self._groups.get(name) != group:
                self._groups[name] = group
                self._changed.add(name)
        self._started, self._index = True, index
        self._rebuilt = self._rebuilt or rebuilt
        self._reset = self._reset or rebuilt or len(self._changed) > 2 * len(self._groups) + CHANGES_KEPT
        if self._reset:
            self._changed.clear()

    def _confirm(self, as_of: Moment) -> None:
        if self._started:
            self._staleness.confirm(0, as_of)

    def _event(self) -> Optional[GroupsEvent]:
        if not self._started or self._shown and not self._reset and not self._changed:
            return None
        reset = self._reset or not self._shown
        names = self._groups.keys() if reset else self._changed & self._groups.keys()
        removed = () if reset else tuple(sorted(self._changed - self._groups.keys()))
        e = GroupsEvent(reset, self._rebuilt, self._index, tuple(self._groups[n] for n in sorted(names)), removed)
        self._changed.clear()
        self._shown, self._reset, self._rebuilt = True, False, False
        return e

    def _failure(self, error: Optional[RegistryError]) -> GroupsEvent:
        return GroupsEvent(index=self._index, error=error, recovered=error is None)


@dataclass(frozen=True)
class Node:
    """One node of the cluster, as the log has it."""

    id: str
    #: The address for other nodes, and the one for clients.
    bind: str = ""
    addr: str = ""
    version: str = ""
    #: The failure zone that the node was started in; empty: it names none, or the cluster is below feature level 2.
    zone: str = ""


@dataclass(frozen=True)
class NodesEvent:
    """The cluster's nodes as they are now."""

    #: The cluster lost its log.
    rebuilt: bool = False
    index: int = 0
    #: The id of the leader, from the log.
    leader: str = ""
    nodes: Tuple[Node, ...] = ()
    #: As in GroupEvent, with the last list.
    error: Optional[RegistryError] = None
    recovered: bool = False


class NodesWatch(BaseWatch[NodesEvent]):
    """Events of the cluster's nodes and its leader. Each has all nodes."""

    def __init__(self, client: "Client") -> None:
        self._lowest = _Lowest(client)
        self._last = NodesEvent()
        self._pending = self._rebuilt = False
        super().__init__(client, "nodes")

    def _query(self) -> Dict[str, str]:
        return {"nodes": "true"}

    def _handle(self, e: Event) -> None:
        if e.name != "nodes":
            return
        index = int(e.data["index"])
        rebuilt = self._lowest.check(index)
        nodes = tuple(Node(n["id"], n["bind"], n["addr"], n["version"], n.get("zone", "")) for n in e.data["nodes"])
        now = NodesEvent(index=index, leader=e.data["leader"], nodes=nodes)
        with self._ready:
            same = self._last.index != 0 and replace(now, index=0) == replace(self._last, index=0)
            self._last, self._pending, self._rebuilt = now, self._pending or rebuilt or not same, self._rebuilt or rebuilt
            self._wake()
        self._lowest.commit(index)

    def _confirm(self, as_of: Moment) -> None:
        if self._last.index:
            self._staleness.confirm(0, as_of)

    def _event(self) -> Optional[NodesEvent]:
        if not self._pending:
            return None
        e = replace(self._last, rebuilt=self._rebuilt)
        self._pending = self._rebuilt = False
        return e

    def _failure(self, error: Optional[RegistryError]) -> NodesEvent:
        return replace(self._last, error=error, recovered=error is None)
