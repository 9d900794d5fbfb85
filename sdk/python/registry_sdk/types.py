"""What calls take and return. All durations are seconds, all of it is immutable."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Dict, Generic, Iterable, List, Mapping, Optional, Tuple, TypeVar

from .errors import RegistryError, invalid

T = TypeVar("T")


@dataclass(frozen=True)
class Receipt:
    """What an answer was computed from."""

    #: The last log index that the answering node had applied.
    index: int = 0
    #: The log index of the group's last change.
    revision: int = 0
    #: Of the inputs of the group's ring at the revision: equal members and parameters give equal fingerprints.
    fingerprint: int = 0
    #: The id of the cluster, made when it was formed.
    cluster_id: str = ""
    #: Seconds since the answering node last heard from the leader.
    lag: float = 0.0
    #: The id of the answering node.
    node: str = ""


class Answer(List[T], Generic[T]):
    """A list with the receipt of the answer that it came in; of several answers, that of the first."""

    def __init__(self, items: Iterable[T] = (), receipt: Receipt = Receipt()) -> None:
        super().__init__(items)
        self.receipt = receipt


@dataclass(frozen=True)
class Member:
    """One registered service of a group. meta is shared and not to be changed."""

    id: str
    addr: str = ""
    #: Its share of the keys, 1–1000.
    weight: int = 1
    meta: Mapping[str, str] = None  # type: ignore[assignment]
    #: "active", "draining" (owns no keys) or "held" (restarts and keeps its keys).
    state: str = "active"
    #: How long it stays without heartbeats.
    ttl: float = 0.0
    #: Of a held member: how long it stays without heartbeats, if that is longer than ttl; None: while its
    #: lease is renewed.
    hold: Optional[float] = None
    #: Log indexes of the entries that created it and that last changed what readers see.
    created_index: int = 0
    modified_index: int = 0
    #: By the clock of the leader at that time, for display.
    registered_at: Optional[datetime] = None
    #: Serves the keys of a held owner. It is set in the results of match, match_n and match_many.
    fallback: "Optional[Member]" = None

    @property
    def serving(self) -> "Member":
        """The member to ask: the fallback of a held owner, and otherwise the member itself."""
        return self.fallback or self

    def with_fallback(self, fallback: "Optional[Member]") -> "Member":
        """Returns a copy with that fallback."""
        return replace(self, fallback=fallback)


@dataclass(frozen=True)
class Group:
    """A named set of members and the parameters of its ring."""

    name: str
    #: Points of a member of weight 1.
    virtual_nodes: int = 0
    #: Largest share of a member, in per mille of its fair share; 0: no bound.
    bound: int = 0
    #: The number of its members, whatever their state.
    members: int = 0
    #: The log index of its last change.
    revision: int = 0


@dataclass(frozen=True)
class Removal:
    """What the leader does with a voter that it does not reach."""

    #: Seconds since the last contact, or since the leader leads.
    unreachable: float = 0.0
    #: Seconds until the leader removes the voter, if nothing changes; None if it does not.
    removed_in: Optional[float] = None
    #: Why the leader does not remove the voter: a rule of -remove-dead-after. Empty: it does.
    kept: str = ""


@dataclass(frozen=True)
class NodeStatus:
    """One node of a cluster."""

    id: str
    #: The address for other nodes, and the one for clients.
    bind: str = ""
    addr: str = ""
    #: leader, follower, candidate or nonvoter; empty if the node does not answer.
    role: str = ""
    applied_index: int = 0
    commit_index: int = 0
    #: Of the whole replicated state at applied_index.
    digest: int = 0
    #: Of the group that was asked for.
    fingerprint: int = 0
    revision: int = 0
    ring_digest: int = 0
    version: str = ""
    #: The failure zone that the node was started in; empty: it names none, or the cluster is below feature level 2.
    zone: str = ""
    voter: bool = False
    ready: bool = False
    #: Seconds since the node last heard from the leader.
    lag: float = 0.0
    #: Why the node did not answer.
    error: str = ""
    #: For the operator: a state that differs from the others', a disk that is nearly full.
    alarms: Tuple[str, ...] = ()
    #: Set for a voter that the leader does not reach, if the leader removes dead voters.
    removal: Optional[Removal] = None


@dataclass(frozen=True)
class Status:
    """A cluster as one of its nodes sees it."""

    cluster: str = ""
    cluster_id: str = ""
    #: The id of the leader; empty if there is none.
    leader: str = ""
    term: int = 0
    nodes: Tuple[NodeStatus, ...] = ()


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)")


def parse_duration(text: Optional[str]) -> Optional[float]:
    """Returns the seconds of a duration as the API writes it, 1m30s; None for None."""
    if text is None:
        return None
    parts = _PART.findall(text)
    if not parts or "".join(a + b for a, b in parts) != text.lstrip("-"):
        raise malformed(f"duration {text[:64]!r}")
    seconds = sum(float(n) * _UNITS[unit] for n, unit in parts)
    return -seconds if text.startswith("-") else seconds


def format_duration(op: str, field: str, seconds: float) -> str:
    """Returns a duration as the API reads it."""
    if not 0 <= seconds < 1e9:  # also refuses NaN
        raise invalid(op, field, "seconds, not negative", f"{field} is {seconds!r}")
    return f"{round(seconds * 1e9)}ns"


def malformed(what: str) -> RegistryError:
    """The error of an answer that does not have the form of the API."""
    return RegistryError("malformed answer: " + what)


_FRACTION = re.compile(r"\.(\d{1,6})\d*")


def _time(text: Optional[str]) -> Optional[datetime]:
    if text is None:
        return None
    # Before 3.11 fromisoformat takes neither Z nor other than 3 or 6 digits.
    whole = _FRACTION.sub(lambda m: "." + m[1].ljust(6, "0"), text)
    return datetime.fromisoformat(whole.replace("Z", "+00:00"))


def member_from(m: Mapping[str, Any]) -> Member:
    return Member(
        id=m["id"], addr=m["addr"], weight=m["weight"], meta=m["meta"],
        state=m["state"] if m["state"] in ("draining", "held") else "active",
        ttl=parse_duration(m["ttl"]) or 0.0, hold=parse_duration(m["hold"]),
        created_index=m["created_index"], modified_index=m["modified_index"], registered_at=_time(m["registered_at"]),
    )  # fmt: skip


def group_from(g: Mapping[str, Any]) -> Group:
    config = g["config"] or {}
    return Group(g["name"], config.get("virtual_nodes", 0), config.get("bound", 0), g["members"], g["revision"])


def receipt_from(r: Optional[Mapping[str, Any]]) -> Receipt:
    r = r or {}
    return Receipt(
        index=r["index"], revision=r["revision"], fingerprint=int(r["fingerprint"], 16),
        cluster_id=r["cluster_id"], lag=parse_duration(r["lag"]) or 0.0, node=r["node"],
    )  # fmt: skip


def status_from(s: Mapping[str, Any]) -> Status:
    nodes = []
    for n in s["nodes"]:
        fields: Dict[str, Any] = {k: n[k] for k in NodeStatus.__dataclass_fields__ if k in n}
        for name in ("digest", "fingerprint", "ring_digest"):
            fields[name] = int(fields.get(name) or "0", 16)
        fields["lag"] = parse_duration(fields.get("lag")) or 0.0
        fields["alarms"] = tuple(fields.get("alarms") or ())
        if r := fields.get("removal"):
            fields["removal"] = Removal(parse_duration(r.get("unreachable")) or 0.0, parse_duration(r.get("removed_in")), r.get("kept", ""))
        nodes.append(NodeStatus(**fields))
    return Status(s["cluster"], s["cluster_id"], s["leader"], s["term"], tuple(nodes))
