"""A consistent-hash ring in memory: the same points, owners and fingerprints as the nodes' and as the Go package ring.

ring/doc.go of the registry specifies it to the byte; testdata/ring has the vectors. All arithmetic is on integers.

    ring = HashRing(Params(), [RingMember("web-1"), RingMember("web-2", weight=2)])
    owner = ring.members[ring.match("user-id-1")].id
"""

import struct
from array import array
from bisect import bisect_left
from typing import Dict, Iterable, Iterator, List, NamedTuple, Tuple, Union

from . import _xxh64
from ._bound import apply_bound
from .errors import invalid

Key = Union[str, bytes]

#: Version of the specification; part of every fingerprint.
VERSION = 1
#: Among so many owners of a key, serving looks for those that are not held.
SERVING_OWNERS = 64
#: The largest number of members, and of points, of one ring.
MAX_MEMBERS = 1 << 20
MAX_POINTS = 1 << 25

# A point while a ring is built: hash, member (20 bits), index (22 bits). Their order is the ring's.
_MEMBER, _INDEX = 22, (1 << 22) - 1


class Params(NamedTuple):
    """What all members of a ring share."""

    #: Points of a member of weight 1: a power of two, 64–4096.
    virtual_nodes: int = 256
    #: Largest share of a member, in per mille of its fair share: 0 (off) or 1010–10000.
    bound: int = 0

    def check(self) -> "Params":
        """Returns self, or raises InvalidArgumentError."""
        k, bound = self
        if not 64 <= k <= 4096 or k & (k - 1):
            raise invalid("ring", "virtual_nodes", "a power of two, 64–4096", f"virtual_nodes is {k}")
        if bound and not 1010 <= bound <= 10000:
            raise invalid("ring", "bound", "0 or 1010–10000 per mille", f"bound is {bound}")
        return self


class RingMember(NamedTuple):
    """One owner of keys."""

    #: 1–255 bytes of UTF-8, unique in the ring.
    id: str
    #: 1–1000.
    weight: int = 1
    #: "active", "draining" (no points) or "held".
    state: str = "active"

    def points(self, virtual_nodes: int) -> int:
        """Returns the number of its points."""
        return 0 if self.state == "draining" else virtual_nodes * self.weight

    def check(self) -> None:
        """Raises InvalidArgumentError for a field outside its limits."""
        if not 1 <= len(self.id.encode()) <= 255:
            raise invalid("ring", "id", "1–255 bytes", f"id of {len(self.id.encode())} bytes")
        if not 1 <= self.weight <= 1000:
            raise invalid("ring", "weight", "1–1000", f"weight of {self.id!r} is {self.weight}")
        if self.state not in ("active", "draining", "held"):
            raise invalid("ring", "state", "active, draining or held", f"state of {self.id!r} is {self.state!r}")


class Inputs:
    """The members that have points, as a sum: a change of a member costs two hashes, whatever their number."""

    def __init__(self) -> None:
        self._members = 0
        self._sum = 0

    def add(self, id: str, points: int) -> None:
        """Counts a member; one without points changes nothing."""
        if points:
            self._members += 1
            self._sum += _input_hash(id, points)

    def remove(self, id: str, points: int) -> None:
        """Takes out a member that was counted with so many points."""
        if points:
            self._members -= 1
            self._sum -= _input_hash(id, points)

    def fingerprint(self, params: Params) -> int:
        """Returns the fingerprint of the members and the parameters."""
        packed = struct.pack("<4IQ", VERSION, params[0], params[1], self._members, self._sum & (1 << 64) - 1)
        return _xxh64.digest(packed)


def _input_hash(id: str, points: int) -> int:
    raw = id.encode()
    return _xxh64.digest(bytes((len(raw),)) + raw + struct.pack("<I", points))


def key_bytes(key: Key) -> bytes:
    """Returns the bytes of a key; a text is UTF-8."""
    if isinstance(key, bytes):
        return key
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise invalid("match", "key", "Unicode text, or bytes", "the key has a lone surrogate") from None
    except AttributeError:
        raise invalid("match", "key", "str or bytes", f"the key is of type {type(key).__name__}") from None


class Point(NamedTuple):
    """One point of a ring. The members are indexes into HashRing.members."""

    hash: int
    member: int
    index: int  # type: ignore[assignment]
    #: The owner of the keys up to the point: the member, unless a bound gave them to another.
    owner: int


class HashRing:
    """An immutable ring; its methods may be called from any thread. A point takes 16–20 bytes.

    A ring of 25,600 points is built in about 0.1 s in pure Python, and in 0.03 s with xxhash.
    """

    __slots__ = ("params", "members", "bound_in_use", "_hashes", "_plain", "_indexes", "_owners", "_with_points")

    def __init__(self, params: Params, members: Iterable[RingMember]) -> None:
        """Builds a ring. Raises InvalidArgumentError for what is outside the limits, and for an id given twice."""
        self._build(params, _canonical(params, members), (), [])

    def changed(self, params: Params, members: Iterable[RingMember]) -> "HashRing":
        """Returns the ring of other members. It hashes only the points that this ring has not."""
        new = object.__new__(HashRing)
        ordered = _canonical(params, members)
        k, old_k = params.virtual_nodes, self.params.virtual_nodes
        position = {m.id: i for i, m in enumerate(ordered)}
        kept: List[int] = []
        for m in self.members:
            at = position.get(m.id, -1)
            kept.append(at if at >= 0 and m.points(old_k) == ordered[at].points(k) else -1)
        points = [
            h << 42 | kept[m] << _MEMBER | i
            for h, m, i in zip(self._hashes, self._plain, self._indexes)
            if kept[m] >= 0
        ]
        new._build(params, ordered, frozenset(kept), points)
        return new

    def _build(self, params: Params, members: Tuple[RingMember, ...], kept: "Iterable[int]", points: List[int]) -> None:
        digest = _xxh64.digest
        fresh: List[int] = []
        for m, member in enumerate(members):
            if m not in kept:
                base, rank = member.id.encode() + b"_", m << _MEMBER
                n = member.points(params.virtual_nodes)
                fresh += [digest(base + b"%d" % i) << 42 | rank | i for i in range(n)]
        fresh.sort()
        points += fresh
        points.sort()  # two sorted runs: one merge
        self.params, self.members = params, members
        self._hashes = array("Q", [p >> 42 for p in points])
        self._plain = array("I", [p >> _MEMBER & 0xFFFFF for p in points])
        self._indexes = array("I", [p & _INDEX for p in points])
        self._with_points = sum(m.state != "draining" for m in members)
        self._owners, self.bound_in_use = self._plain, 0
        if params.bound and points:
            self._owners, self.bound_in_use = apply_bound(self._hashes, self._plain, self._indexes, members, params.bound)

    def __len__(self) -> int:
        """The number of points."""
        return len(self._hashes)

    def match(self, key: Key) -> int:
        """Returns the index in members of the key's owner; -1 if no member has points."""
        data = key.encode() if isinstance(key, str) and key.isascii() else key_bytes(key)
        at = bisect_left(self._hashes, _xxh64.digest(data))
        owners = self._owners
        if at < len(owners):
            return owners[at]
        return owners[0] if owners else -1

    def match_n(self, key: Key, n: int) -> List[int]:
        """Returns the indexes of the first n distinct owners, the owner first; fewer if fewer have points.

        Under a bound, those after the owner are those of the ring without the bound."""
        n = min(n, self._with_points)
        if n <= 0:
            return []
        at, size = bisect_left(self._hashes, _xxh64.digest(key_bytes(key))), len(self._hashes)
        at = 0 if at == size else at
        found: Dict[int, None] = {self._owners[at]: None}
        while len(found) < n:
            found[self._plain[at]] = None
            at = at + 1 if at + 1 < size else 0
        return list(found)

    def serving(self, key: Key, n: int = 1) -> List[int]:
        """Returns the indexes of the members to ask for a key: its owners, held ones last.

        If an owner is held, the first 64 owners are considered (or n, if that is more), so that the first is
        the fallback of a held owner."""
        owners = self.match_n(key, n)
        if not any(self._held(m) for m in owners):
            return owners
        every = self.match_n(key, max(n, SERVING_OWNERS))
        return sorted(every, key=self._held)[: len(owners)]

    def fallback(self, key: Key) -> int:
        """Returns the index of the member that serves the key while its owner is held.

        It is -1 if the owner is not held, and if all of the first 64 owners are."""
        owner = self.match(key)
        if owner < 0 or not self._held(owner):
            return -1
        served = self.serving(key)[0]
        return -1 if served == owner else served

    def _held(self, m: int) -> bool:
        return self.members[m].state == "held"

    def points(self) -> Iterator[Point]:
        """Yields the points in ring order."""
        return map(Point, self._hashes, self._plain, self._indexes, self._owners)

    def fingerprint(self) -> int:
        """Returns the fingerprint of the members and parameters. It hashes every member."""
        inputs = Inputs()
        for m in self.members:
            inputs.add(m.id, m.points(self.params.virtual_nodes))
        return inputs.fingerprint(self.params)

    def digest(self) -> int:
        """Returns the digest of the points and their owners, which shows whether two rings were built alike."""
        parts, position = [struct.pack("<I", self._with_points)], {}  # type: List[bytes], Dict[int, int]
        for m, member in enumerate(self.members):
            if member.state != "draining":
                position[m] = len(position)
                raw = member.id.encode()
                parts.append(bytes((len(raw),)) + raw)
        parts.append(struct.pack("<I", len(self)))
        parts += [struct.pack("<QI", h, position[m]) for h, m in zip(self._hashes, self._owners)]
        return _xxh64.digest(b"".join(parts))


def _canonical(params: Params, members: Iterable[RingMember]) -> Tuple[RingMember, ...]:
    """Returns the members in the byte order of their ids, which is that of their code points."""
    params.check()
    ordered = tuple(sorted(members))
    if len(ordered) > MAX_MEMBERS:
        raise invalid("ring", "members", f"at most {MAX_MEMBERS}", f"{len(ordered)} members")
    total, last = 0, ""
    for m in ordered:
        m.check()
        if m.id == last:
            raise invalid("ring", "id", "unique in the ring", f"two members have the id {m.id!r}")
        last = m.id
        total += m.points(params.virtual_nodes)
    if total > MAX_POINTS:
        raise invalid("ring", "weight", f"at most {MAX_POINTS} points", f"the ring would have {total} points")
    return ordered


def hash_of(key: Key) -> int:
    """Returns the hash of a key: its place on the ring, 0 to 2^64 - 1."""
    return _xxh64.digest(key_bytes(key))
