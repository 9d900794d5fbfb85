"""Decides which events of a group are accepted, so that a node that is behind undoes nothing that was seen."""

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from ._call import Call, READ, Read
from ._follow import BehindError, Event, GapError, MismatchError
from ._identity import ClusterRef
from ._transport import Request
from .errors import InvalidArgumentError, RegistryError, UnknownGroupError
from .hashring import MAX_MEMBERS, MAX_POINTS, Inputs, Params, RingMember
from .types import Member, Receipt, member_from, receipt_from

if TYPE_CHECKING:
    from ._core import Core


class Step(NamedTuple):
    """An accepted event of a group, relative to the state before it. Its members have its fingerprint."""

    revision: int = 0
    index: int = 0  # type: ignore[assignment]
    fingerprint: int = 0
    cluster: str = ""
    params: Params = Params()
    reset: bool = False  # put is the whole group
    rebuilt: bool = False  # the revision may be lower than before
    unknown: bool = False  # the group does not exist
    deleted: bool = False  # unknown, and it existed before
    put: "tuple[Member, ...]" = ()
    removed: "tuple[str, ...]" = ()  # before put; some may be in put again

    def apply(self, members: Dict[str, Member]) -> None:
        """Makes members those after the step."""
        if self.reset or self.unknown:
            members.clear()
        for id in self.removed:
            members.pop(id, None)
        for m in self.put:
            members[m.id] = m


class _Inputs:
    """What the fingerprint is computed from. A step costs what it changes."""

    def __init__(self) -> None:
        self.params = Params()
        self._weights: Dict[str, int] = {}  # of all members; 0 for those without points
        self._total = 0
        self._sum = Inputs()

    def fold(self, params: Params, removed: List[str], put: List[Member]) -> None:
        """Applies a step. After an error they are invalid."""
        params.check()
        if params.virtual_nodes != self.params.virtual_nodes:
            self._sum = Inputs()
            for id, weight in self._weights.items():
                self._sum.add(id, weight * params.virtual_nodes)
        self.params = params
        for id in removed:
            self._remove(id)
        for m in put:
            member = RingMember(m.id, m.weight, m.state)
            member.check()
            self._remove(m.id)
            weight = self._weights[m.id] = member.points(1)
            self._total += weight
            self._sum.add(m.id, weight * params.virtual_nodes)
        if len(self._weights) > MAX_MEMBERS or self._total * params.virtual_nodes > MAX_POINTS:
            raise MismatchError(f"{len(self._weights)} members with {self._total * params.virtual_nodes} points are too many")

    def _remove(self, id: str) -> None:
        weight = self._weights.pop(id, 0)
        self._total -= weight
        self._sum.remove(id, weight * self.params.virtual_nodes)

    def check(self, revision: int, fingerprint: int) -> None:
        got = self._sum.fingerprint(self.params)
        if got != fingerprint:
            raise MismatchError(f"revision {revision} has the fingerprint {got:016x}, the node says {fingerprint:016x}")


class Tracker:
    """For one thread.

    An event of an older revision, of the same revision with another fingerprint, of another cluster, or that the
    group does not exist, needs the leader's confirmation. If the leader has the newer state, the node is behind;
    if not, the cluster lost its log or was restored from an older snapshot.

    Example: at revision 50 the stream breaks. The next node sends a snapshot of revision 48. If the leader has 51,
    the stream is closed. If it has 30, the minimum revision becomes 30, and the snapshot of 48 is accepted as one
    of a rebuilt cluster. That the group does not exist is accepted from a node of the same cluster whose applied
    index is not below the minimum: the group was deleted."""

    def __init__(self, client: "Core", group: str) -> None:
        self._client, self._group = client, group
        self._minimum = Receipt()  # the least that is accepted: revision, fingerprint, cluster
        self._rebuilt = False  # the minimum went down since the last step
        self._state = Step()  # without members; revision 0 without a state
        self._resync = False  # the next event must be a snapshot
        self._inputs = _Inputs()

    def query(self) -> Dict[str, str]:
        """Resumes from the state, if there is one to resume from."""
        s = self._state
        if self._resync or self._rebuilt or not s.revision:
            return {"group": self._group}
        query = {"group": self._group, "revision": str(s.revision), "fingerprint": f"{s.fingerprint:016x}"}
        return dict(query, cluster_id=s.cluster) if s.cluster else query

    @property
    def has_state(self) -> bool:
        return bool(self._state.revision) or self._state.unknown

    def step(self, e: Event) -> Optional[Step]:
        """Returns the step of an event, or None if nothing changed."""
        try:
            if e.name == "unknown_group":
                return self._unknown_step(e.data)
            if e.name == "snapshot":
                return self._snapshot_step(e.data)
            if e.name == "delta":
                return self._delta_step(e.data)
        except (MismatchError, InvalidArgumentError) as error:
            self._resync = True
            self._client.log.error("a state of group %s does not have its fingerprint and is fetched again: %s", self._group, error)
            raise MismatchError(error.message) from error
        return None  # of a newer server

    def _unknown_step(self, absence: Dict[str, Any]) -> Optional[Step]:
        if self._state.unknown and not self._rebuilt:
            return None
        index, cluster = int(absence.get("index") or 0), str(absence.get("cluster_id") or "")
        if self.deleted_at(index, cluster):
            return Step(index=index, cluster=cluster, unknown=True, deleted=True, rebuilt=self._rebuilt)
        self._ask_leader()
        if self._minimum.revision:
            raise BehindError("the node does not know the group")
        return Step(index=index, cluster=cluster, unknown=True, rebuilt=self._rebuilt)

    def deleted_at(self, index: int, cluster: str) -> bool:
        """Tells whether a group that does not exist at the index was deleted."""
        m = self._minimum
        return bool(m.revision and index >= m.revision and cluster and cluster == m.cluster_id)

    def _snapshot_step(self, s: Dict[str, Any]) -> Optional[Step]:
        revision, fingerprint, cluster = int(s["revision"]), int(s["fingerprint"], 16), s["cluster_id"]
        if not revision:
            raise GapError("a snapshot without a revision")
        self._client.identity.check(ClusterRef(id=cluster), adopt=True)
        if not self._acceptable(revision, fingerprint, cluster):
            self._ask_leader()
            if not self._acceptable(revision, fingerprint, cluster):
                raise BehindError(f"the node has revision {revision}")
        members = [member_from(m) for m in s["members"]]
        inputs = _Inputs()
        inputs.fold(_params(s), [], members)
        inputs.check(revision, fingerprint)
        self._inputs = inputs
        now = self._state
        if (revision, fingerprint) == (now.revision, now.fingerprint) and _same(cluster, now.cluster) and not self._rebuilt:
            self._resync = False
            return None
        return Step(revision, int(s["index"]), fingerprint, cluster, inputs.params, True, self._rebuilt, put=tuple(members))

    def _acceptable(self, revision: int, fingerprint: int, cluster: str) -> bool:
        m = self._minimum
        newer = revision > m.revision or revision == m.revision and fingerprint == m.fingerprint
        return _same(cluster, m.cluster_id) and newer

    def _delta_step(self, d: Dict[str, Any]) -> Step:
        now, revision = self._state, int(d["revision"])
        if self._resync or self._rebuilt or not now.revision or d["from"] != now.revision or revision <= now.revision:
            raise GapError(f"a delta from revision {d['from']}, at {now.revision}")
        members = [member_from(m) for m in d["put"]]
        self._inputs.fold(_params(d), d["removed"], members)
        fingerprint = int(d["fingerprint"], 16)
        self._inputs.check(revision, fingerprint)
        return Step(revision, int(d["index"]), fingerprint, now.cluster, self._inputs.params,
                    put=tuple(members), removed=tuple(d["removed"]))  # fmt: skip

    def _ask_leader(self) -> None:
        """Lowers the minimum if the leader's state is below it or of another cluster; else raises BehindError."""
        try:
            leader = leader_receipt(self._client, self._group)
        except UnknownGroupError:
            if self._state.unknown and not self._rebuilt:
                raise BehindError("the leader does not know the group, this node does") from None
            leader = Receipt()
        except RegistryError as e:
            raise BehindError(f"the node is behind an earlier answer, and the leader did not answer: {e}") from e
        m = self._minimum
        ahead = leader.revision > m.revision or leader.revision == m.revision and leader.fingerprint == m.fingerprint
        if _same(leader.cluster_id, m.cluster_id) and ahead and leader.revision:
            raise BehindError("the node is behind an earlier answer")
        if not m.revision:
            return
        self._client.log.warning("the cluster lost a part of its log: group %s went back from revision %d to %d",
                                 self._group, m.revision, leader.revision)  # fmt: skip
        self._minimum, self._rebuilt = leader, True

    def commit(self, s: Step) -> None:
        """Makes the step's state the current one."""
        self._state = s._replace(put=(), removed=())
        self._minimum = Receipt(revision=s.index if s.unknown else s.revision, fingerprint=s.fingerprint, cluster_id=s.cluster)
        self._rebuilt = self._resync = False
        self._client.observe(s.index)


def leader_receipt(client: "Core", group: str) -> Receipt:
    """Returns the leader's receipt of a group."""
    call = Call(client, "watch", READ, None, Read(linearizable=True))
    answer = call.run(Request("GET", client.group_path(group) + "/members", {"page_size": "1"}))
    receipt = receipt_from(answer["receipt"])
    client.identity.check(ClusterRef(id=receipt.cluster_id), adopt=True)
    return receipt


def _same(a: str, b: str) -> bool:
    """Compares two cluster ids; an empty one is unknown and matches."""
    return a == b or not a or not b


def _params(event: Dict[str, Any]) -> Params:
    config = event["config"] or {}
    return Params(config.get("virtual_nodes", 0), config.get("bound", 0))
