"""Prints what a local Match costs, in µs, with the hash in pure Python and, where it is installed, with xxhash.

A match is the best of 30 runs over 2,000 keys; builds are processor time.

    python3 bench.py [MEMBERS …]
"""

import platform
import sys
import time
from typing import Callable, List

from registry_sdk import HashRing, Member, Params, RingMember, View, _xxh64

KEYS = [f"user-id-{i}" for i in range(2_000)]


def best(run: Callable[[], None], rounds: int = 30) -> float:
    """The shortest of some runs, in seconds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return min(took)


def measure(members: int) -> None:
    inputs = [RingMember(f"member-{i:05}") for i in range(members)]
    began = time.process_time()
    ring = HashRing(Params(), inputs)
    built = time.process_time() - began
    began = time.process_time()
    ring.changed(Params(), inputs[:-1])
    changed = time.process_time() - began
    match = View("bench", ring, tuple(Member(m.id) for m in ring.members)).match

    def run() -> None:
        for key in KEYS:
            match(key)

    each = best(run) / len(KEYS) * 1e6
    print(f"{members:>7} members {len(ring):>9,} points  match {each:5.2f} µs  build {built * 1e3:8.1f} ms  a leave {changed * 1e3:7.1f} ms")


def main(sizes: List[int]) -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}")
    for name, digest in {"pure": _xxh64.pure, _xxh64.BACKEND: _xxh64.digest}.items():
        _xxh64.digest = digest
        print(f"hash: {name}")
        for size in sizes:
            measure(size)


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or [3, 100, 1000])
