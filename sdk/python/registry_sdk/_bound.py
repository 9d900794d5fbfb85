"""The bound of a ring: steps 1 to 3 of the section Bound in ring/doc.go."""

from array import array
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Sequence, Tuple

from . import _xxh64

if TYPE_CHECKING:
    from .hashring import RingMember

#: How many points an arc looks at, clockwise, for a member with room.
MAX_WALK = 4096

_SPACE = 1 << 64


class _Arc(NamedTuple):
    mix: int
    at: int
    size: int


def apply_bound(
    hashes: "array[int]", plain: "array[int]", indexes: "array[int]", members: "Sequence[RingMember]", bound: int
) -> "Tuple[array[int], int]":
    """Returns the owners of the points under a bound, and the bound that could be kept."""
    sizes = [(h - before) % _SPACE for h, before in zip(hashes, hashes[-1:] + hashes[:-1])]
    if hashes[0] == hashes[-1]:
        sizes[0] = _SPACE
    shares, positions = [0] * len(members), [[] for _ in members]  # type: Tuple[List[int], List[List[int]]]
    for at, m in enumerate(plain):
        shares[m] += sizes[at]
        positions[m].append(at)
    for own in positions:
        own.sort(key=indexes.__getitem__, reverse=True)
    weights = [m.weight if m.state != "draining" else 0 for m in members]
    total = sum(weights)
    while True:
        caps = [bound * w * _SPACE // (1000 * total) for w in weights]
        owners = _attempt(hashes, plain, sizes, positions, list(shares), caps)
        if owners is not None:
            return owners, bound
        bound = 1000 + 2 * (bound - 1000)


def _attempt(
    hashes: "array[int]",
    plain: "array[int]",
    sizes: List[int],
    positions: List[List[int]],
    shares: List[int],
    caps: List[int],
) -> "Optional[array[int]]":
    """Returns the owners, or None if an arc finds no member with room."""
    shed = []
    for m, own in enumerate(positions):
        for at in own:
            if shares[m] <= caps[m]:
                break
            if sizes[at]:
                shares[m] -= sizes[at]
                shed.append(_Arc(_xxh64.digest(hashes[at].to_bytes(8, "little")), at, sizes[at]))
    owners, points = array("I", plain), len(plain)
    for _, at, size in sorted(shed):
        for step in range(1, min(points - 1, MAX_WALK) + 1):
            m = plain[(at + step) % points]
            if shares[m] + size <= caps[m]:
                shares[m] += size
                owners[at] = m
                break
        else:
            return None
    return owners
