"""The ring against the vectors of testdata/ring, with both forms of the hash, and against itself."""

import json
import os
import random
import unittest
from pathlib import Path
from unittest import mock

from registry_sdk import _xxh64
from registry_sdk.errors import InvalidArgumentError
from registry_sdk.hashring import HashRing, Params, RingMember, hash_of

VECTORS = Path(__file__).resolve().parents[3] / "testdata" / "ring"
BACKENDS = {"pure": _xxh64.pure, _xxh64.BACKEND: _xxh64.digest}


def members_of(vector: dict) -> list:
    return [RingMember(m["id"], m["weight"], m.get("state", "active")) for m in vector["members"] or ()]


class Hash(unittest.TestCase):
    def test_known(self) -> None:
        for data, want in (
            (b"", 0xEF46DB3751D8E999),
            (b"a", 0xD24EC4F1A98C6E5B),
            (b"user-id-1", 0xE6F0A419815A6C2F),
            (b"webserver1_0", 0xCDD2B937187D1158),
        ):
            self.assertEqual(_xxh64.pure(data), want, data)

    @unittest.skipUnless(_xxh64.BACKEND == "xxhash", "the module xxhash is not installed")
    def test_both_forms_agree(self) -> None:
        rnd = random.Random(7)
        for size in list(range(0, 200)) + [1000, 4096]:
            data = rnd.randbytes(size) if hasattr(rnd, "randbytes") else os.urandom(size)
            self.assertEqual(_xxh64.pure(data), _xxh64.digest(data), size)


class Vectors(unittest.TestCase):
    def check(self, vector: dict, ring: HashRing) -> None:
        name = lambda m: ring.members[m].id  # noqa: E731
        self.assertEqual(ring.fingerprint(), int(vector["fingerprint"], 16))
        self.assertEqual(ring.digest(), int(vector["digest"], 16))
        self.assertEqual(ring.bound_in_use, vector.get("bound_in_use", 0))
        for key in vector["keys"]:
            self.assertEqual(hash_of(key["key"]), int(key["hash"], 16))
            owners = key["owners"] or []
            self.assertEqual([name(m) for m in ring.match_n(key["key"], 3)], owners)
            match = ring.match(key["key"])
            self.assertEqual([name(match)] if match >= 0 else [], owners[:1])
        points = [
            {"hash": f"0x{p.hash:016x}", "id": name(p.member), "index": p.index}
            | ({"owner": name(p.owner)} if p.owner != p.member else {})
            for p in ring.points()
        ]
        self.assertEqual(points, vector["points"] or [])

    def test_all(self) -> None:
        files = sorted(VECTORS.glob("*.json"))
        self.assertGreaterEqual(len(files), 8)
        for backend, digest in BACKENDS.items():
            for file in files:
                with self.subTest(file=file.name, backend=backend), mock.patch.object(_xxh64, "digest", digest):
                    vector = json.loads(file.read_text())
                    params = Params(vector["params"]["virtual_nodes"], vector["params"].get("bound", 0))
                    members = members_of(vector)
                    self.check(vector, HashRing(params, members))
                    self.check(vector, HashRing(params, reversed(members)))
                    other = HashRing(Params(), [RingMember("other"), *members[1:]])
                    self.check(vector, other.changed(params, members))


class Changes(unittest.TestCase):
    def test_a_changed_ring_is_that_of_its_members(self) -> None:
        seed = random.randrange(1 << 32)
        rnd = random.Random(seed)
        for bound in (0, 1100):
            ring = HashRing(Params(64, bound), [])
            for step in range(40):
                members = [
                    RingMember(f"m-{i}", rnd.choice((1, 1, 2, 3)), rnd.choice(("active", "active", "held", "draining")))
                    for i in rnd.sample(range(12), rnd.randrange(10))
                ]
                params = Params(rnd.choice((64, 64, 64, 128)), bound)
                ring = ring.changed(params, members)
                fresh = HashRing(params, members)
                self.assertEqual(list(ring.points()), list(fresh.points()), f"seed {seed}, bound {bound}, step {step}")

    def test_serving(self) -> None:
        for held, want in ((), 0), ((0,), 1), ((0, 1), 2):
            plain = HashRing(Params(64), [RingMember(c) for c in "abcd"])
            order = [plain.members[m].id for m in plain.match_n("k", 4)]
            states = {order[i]: "held" for i in held}
            ring = HashRing(Params(64), [RingMember(c, 1, states.get(c, "active")) for c in "abcd"])
            self.assertEqual(ring.members[ring.serving("k")[0]].id, order[want])
            self.assertEqual(ring.fallback("k"), ring.serving("k")[0] if held else -1)
            self.assertEqual(sorted(ring.serving("k", 4)), [0, 1, 2, 3])
            self.assertEqual([ring.members[m].id for m in ring.serving("k", 2)][:1], [order[want]])
        every = HashRing(Params(64), [RingMember(c, 1, "held") for c in "ab"])
        self.assertEqual((every.fallback("k"), every.serving("k")), (-1, every.match_n("k", 1)))

    def test_keys_are_bytes_or_text(self) -> None:
        ring = HashRing(Params(64), [RingMember(c) for c in "abc"])
        self.assertEqual(ring.match("ü"), ring.match("ü".encode()))
        for bad in ("\ud800", 7, None):
            with self.assertRaises(InvalidArgumentError) as raised:
                ring.match(bad)  # type: ignore[arg-type]
            self.assertEqual(raised.exception.field, "key")

    def test_limits(self) -> None:
        a = RingMember("a")
        for field, params, members in (
            ("virtual_nodes", Params(65), [a]),
            ("virtual_nodes", Params(8192), [a]),
            ("bound", Params(64, 1009), [a]),
            ("weight", Params(), [RingMember("a", 0)]),
            ("weight", Params(), [RingMember("a", 1001)]),
            ("id", Params(), [RingMember("")]),
            ("id", Params(), [RingMember("ü" * 128)]),
            ("id", Params(), [a, RingMember("a", 2)]),
            ("state", Params(), [RingMember("a", 1, "gone")]),
            ("weight", Params(4096), [RingMember(str(i), 1000) for i in range(9)]),
        ):
            with self.subTest(field=field, params=params, members=members[:2]):
                with self.assertRaises(InvalidArgumentError) as raised:
                    HashRing(params, members)
                self.assertEqual(raised.exception.field, field)
        with self.assertRaises(ValueError):
            HashRing(Params(1), [])


if __name__ == "__main__":
    unittest.main()
