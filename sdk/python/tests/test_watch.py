"""Watches and local rings against fake nodes: resume, nodes that are behind, wrong fingerprints, outages."""

import threading
import time
import unittest
from unittest import mock

import registry_sdk as sdk
from registry_sdk import _follow, _notice

from . import fake
from .test_client import Case


class Sse(unittest.TestCase):
    def test_parse(self) -> None:
        text = b': hello\nretry: 1000\n\nevent: a\nid: 1\ndata: {"x":\ndata: 1}\n\n: keep-alive\n\nevent:b\r\ndata:{}\r\n\r\ndata: {"cut'
        for size in (1, 3, 7, 1000):
            chunks = [text[i : i + size] for i in range(0, len(text), size)]
            got = [(e.name, e.data) for e in _follow.parse(chunks)]
            self.assertEqual(got, [("a", {"x": 1}), ("b", {})], size)
        for bad in (b"data: {\n\n", b"data: 1\n\n", b"data: \xff\n\n"):
            with self.assertRaises(sdk.RegistryError):
                list(_follow.parse([bad]))
        with mock.patch.object(_follow, "MAX_ANSWER", 10), self.assertRaises(sdk.RegistryError):
            list(_follow.parse([b"data: " + b"x" * 20]))

    def test_pieces(self) -> None:
        pieces = [{"m": [1], "more": True}, {"m": [2], "more": True}, {"m": [3], "more": None}, {"m": [4]}]
        got = [e.data["m"] for e in _follow.assemble(_follow.Event("snapshot", dict(p)) for p in pieces)]
        self.assertEqual(got, [[1, 2, 3], [4]])


class WatchCase(Case):
    def setUp(self) -> None:
        super().setUp()
        for patch in (mock.patch.object(_follow, "PROGRESS", 0.5), mock.patch.object(_notice, "OUTAGE_AFTER", 0.2)):
            patch.start()
            self.addCleanup(patch.stop)


class Watches(WatchCase):
    def test_a_groups_life(self) -> None:
        with self.client().watch("web") as watch:
            first = watch.next(30)
            self.assertTrue(first.unknown and not first.reset)
            one = self.cluster.change("web", "a", "b")
            e = watch.next(30)
            self.assertEqual((e.reset, e.revision, [m.id for m in e.put]), (True, one, ["a", "b"]))
            self.assertEqual(e.fingerprint, fake.ring_of(self.cluster.state.groups["web"]).fingerprint())
            two = self.cluster.change("web", {"id": "b", "weight": 3}, "c", remove=("a",), bound=1200)
            e = watch.next(30)
            self.assertEqual((e.reset, e.from_revision, e.revision, [m.id for m in e.put]), (False, one, two, ["b", "c"]))
            self.assertEqual((e.removed, e.bound, e.virtual_nodes), (("a",), 1200, 64))
            self.cluster.drop_group("web")
            e = watch.next(30)
            self.assertTrue(e.unknown and not e.rebuilt)
            self.assertIsNone(watch.next(0.05))
            fake.eventually(lambda: watch.age() < 60)
        self.assertIsInstance(watch.error, sdk.ClosedError)
        self.assertEqual(list(watch), [])

    def test_a_slow_reader_gets_all_changes_as_one(self) -> None:
        self.cluster.change("web", "a", "b")
        watch = self.client().watch("web")
        watch.next(30)
        for put, remove in ((("c",), ()), ((), ("a",)), (("d",), ("c",))):
            last = self.cluster.change("web", *put, remove=remove)
            fake.eventually(lambda: watch._cell.last.revision == last)
        e = watch.next(30)
        self.assertEqual((e.revision, [m.id for m in e.put], e.removed), (last, ["d"], ("a", "c")))

    def test_resumes_at_another_node(self) -> None:
        one = self.cluster.change("web", "a")
        watch = self.client().watch("web")
        self.assertEqual(watch.next(30).revision, one)
        (node,) = [n for n in self.cluster.nodes if n.named("/v1/watch")]
        node.stop()
        streams = lambda: [c for n in self.cluster.nodes if n is not node for c in n.named("/v1/watch")]  # noqa: E731
        fake.eventually(streams)
        args = streams()[0][2]
        self.assertEqual((args["revision"], args["cluster_id"]), (str(one), self.cluster.id))
        self.assertEqual(int(args["fingerprint"], 16), fake.ring_of(self.cluster.state.groups["web"]).fingerprint())
        two = self.cluster.change("web", "b")
        e = watch.next(30)
        self.assertEqual((e.reset, e.from_revision, e.revision), (False, one, two))

    def test_a_silent_node_is_left(self) -> None:
        self.cluster.change("web", "a")
        client = self.client()
        watch = client.watch("web")
        watch.next(30)
        client.attempt_timeout = 0.5  # from now on: the first stream must not end
        (node,) = [n for n in self.cluster.nodes if n.named("/v1/watch")]
        with mock.patch.object(fake.Handler, "_event", self._silent(node)):
            two = self.cluster.change("web", "b")
            self.assertEqual(watch.next(30).revision, two)

    @staticmethod
    def _silent(node: fake.Node) -> object:
        """Keeps the streams of a node open and sends comments alone."""
        real = fake.Handler._event

        def event(handler: fake.Handler, name: str, data: object) -> None:
            if handler.node is node:
                handler.wfile.write(b"e\r\n: keep-alive\n\n\r\n")
            else:
                real(handler, name, data)

        return event

    def test_a_node_that_is_behind_shows_nothing_older(self) -> None:
        old = self.cluster.change("web", "a")
        for n in self.cluster.nodes[1:]:
            n.pin()
        ahead = self.cluster.nodes[0]
        new = self.cluster.change("web", "b")
        client = self.client(ahead.addr, refresh_interval=0)
        watch = client.watch("web")
        self.assertEqual(watch.next(30).revision, new)
        for n in self.cluster.nodes[1:]:
            client.pool.add(n.addr)
        ahead.stop()
        e = watch.next(30)
        self.assertIsInstance(e.error, sdk.StaleError)
        self.assertIn("behind", str(e.error))
        self.assertEqual(e.revision, new)
        for n in self.cluster.nodes[1:]:
            n.unpin()
        self.assertTrue(watch.next(30).recovered)
        self.assertIsNone(watch.next(0.05), f"not {old}")

    def test_a_cluster_that_lost_its_log(self) -> None:
        self.cluster.change("web", "a")
        before = self.cluster.state.copy()
        self.cluster.change("web", "b")
        watch = self.client().watch("web")
        self.assertEqual(len(watch.next(30).put), 2)
        with self.assertLogs("registry_sdk", "WARNING"):
            for n in self.cluster.nodes:
                n.stop()
            self.cluster.state = before
            for n in self.cluster.nodes:
                n.start()
            e = watch.next(30)
            while e.error or e.recovered:
                e = watch.next(30)
        self.assertEqual((e.rebuilt, e.reset, [m.id for m in e.put]), (True, True, ["a"]))

    def test_an_error_ends_the_stream_and_not_the_watch(self) -> None:
        one = self.cluster.change("web", "a")
        real, sent = fake.Handler._watch, threading.Event()

        def refuse(handler: fake.Handler, args: dict) -> None:
            if not sent.is_set():
                sent.set()
                with mock.patch.object(handler.node, "running", False):
                    real(handler, args)  # the headers alone
                return handler._event("error", fake.Problem(503, "not_ready").body)
            real(handler, args)

        with mock.patch.object(fake.Handler, "_watch", refuse):
            self.assertEqual(self.client().watch("web").next(30).revision, one)
        self.assertTrue(sent.is_set())

    def test_an_invalid_request_ends_it(self) -> None:
        for n in self.cluster.nodes:
            self.fault(n, "watch", *[fake.Problem(400, "invalid_argument", "group")] * 3)
        watch = self.client().watch("web")
        self.assertIsNone(watch.next(30))
        self.assertIsInstance(watch.error, sdk.InvalidArgumentError)


class Rings(WatchCase):
    def test_answers_as_the_nodes(self) -> None:
        self.cluster.change("web", *"abcd")
        revision = self.cluster.change("web", {"id": "b", "state": "held"}, {"id": "c", "weight": 5}, bound=1100)
        client = self.client()
        with client.ring("web") as ring:
            self.assertEqual(ring.view.revision, revision)
            self.assertEqual(ring.view.fingerprint, ring.view.ring.fingerprint())
            for i in range(100):
                remote, local = client.match("web", f"k{i}"), ring.match(f"k{i}")
                self.assertEqual((local, local.fallback), (remote, remote.fallback))
            self.assertEqual(ring.match_n("k", 9), list(client.match_n("web", "k", 9)))
            self.assertEqual([m.id for m in ring.serving("k", 9)][-1], "b")
            with self.assertRaises(sdk.InvalidArgumentError):
                ring.match_n("k", 0)
            self.assertEqual([m.id for m in ring.view.members], list("abcd"))
        with self.assertRaises(sdk.ClosedError):
            ring.match("k")
        self.assertFalse([t for t in threading.enumerate() if t.name in ("registry-ring", "registry-watch")])

    def test_goes_on_through_an_outage_of_all_nodes(self) -> None:
        self.cluster.change("web", *"abc")
        client = self.client()
        ring, strict = client.ring("web"), client.ring("web", max_age=1)
        before = [ring.match(f"k{i}").id for i in range(50)]
        for n in self.cluster.nodes:
            n.stop()
        fake.eventually(lambda: ring.stats.outage)
        self.assertEqual([ring.match(f"k{i}").id for i in range(50)], before)
        fake.eventually(lambda: strict.age() > 1)
        with self.assertRaises(sdk.StaleError):
            strict.match("k")
        for n in self.cluster.nodes:
            n.start()
        revision = self.cluster.change("web", "d")
        for r in (ring, strict):
            self.assertTrue(r.wait(revision, 30))
        fake.eventually(lambda: ring.stats.outage is None)
        self.assertGreaterEqual(ring.stats.outages, 1)

        def confirmed() -> bool:
            try:
                return strict.match("k").id == ring.match("k").id
            except sdk.StaleError:
                return False

        fake.eventually(confirmed)

    def test_a_state_without_its_fingerprint_is_not_used(self) -> None:
        one = self.cluster.change("web", "a")
        ring = self.client().ring("web")
        self.cluster.corrupt = True
        with self.assertLogs("registry_sdk", "ERROR"):
            self.cluster.change("web", "b")
            fake.eventually(lambda: ring.stats.mismatches > 1)
        self.assertEqual((ring.view.revision, ring.match("k").id), (one, "a"))
        self.cluster.corrupt = False
        self.assertTrue(ring.wait(self.cluster.change("web", "c"), 30))
        self.assertEqual(len(ring.view.members), 3)

    def test_groups_that_come_and_go(self) -> None:
        client = self.client()
        ring = client.ring("web")
        with self.assertRaises(sdk.UnknownGroupError):
            ring.match("k")
        self.assertTrue(ring.wait(self.cluster.change("web", "a"), 30))
        self.assertEqual(ring.match("k").id, "a")
        self.assertTrue(ring.wait(self.cluster.change("web", remove=("a",)), 30))
        with self.assertRaises(sdk.EmptyGroupError):
            ring.match("k")
        self.cluster.drop_group("web")
        self.assertTrue(ring.wait(self.cluster.state.index, 30))
        with self.assertRaises(sdk.UnknownGroupError):
            ring.match("k")
        self.assertTrue(ring.wait(self.cluster.change("web", "b"), 30))
        self.assertEqual(ring.match("k").id, "b")

    def test_a_leader_that_forgot_the_group_empties_no_ring(self) -> None:
        self.cluster.change("web", "a")
        ring = self.client().ring("web")
        with self.assertLogs("registry_sdk", "WARNING"):  # the stream that is open tells it first
            self.cluster.state = fake.State()  # as if all data were lost
            for n in self.cluster.nodes:
                n.stop()
                n.start()
            fake.eventually(lambda: ring.stats.outage is None and ring._missing)
        self.assertEqual(ring.match("k").id, "a")

    def test_no_node(self) -> None:
        client = self.client(refresh_interval=0)
        for n in self.cluster.nodes:
            n.stop()
        began = time.monotonic()
        with self.assertRaises(sdk.UnavailableError):
            client.ring("web", timeout=0.3)
        self.assertLess(time.monotonic() - began, 10)
        self.cluster.tokens = {"another"}
        for n in self.cluster.nodes:
            n.start()
        with self.assertRaises(sdk.UnauthenticatedError):
            self.client(refresh_interval=0).ring("web", timeout=30)

    def test_builds_within_their_share(self) -> None:
        """Under lasting change one build covers several changes, and a wait does not wait for the pause."""
        self.cluster.change("web", "a")
        ring = self.client().ring("web")
        with mock.patch("registry_sdk.ring.BUILD_SHARE", 1e-6):
            self.assertTrue(ring.wait(self.cluster.change("web", "b"), 30))  # at once, by the share before
            builds = ring.stats.builds
            for i in range(10):
                last = self.cluster.change("web", f"m-{i}")
                fake.eventually(lambda: ring._state.step.revision == last)
            self.assertLess(ring.stats.builds, builds + 3)
            self.assertTrue(ring.wait(last, 30))
        self.assertEqual(len(ring.view.members), 12)

    def test_after_close(self) -> None:
        client = self.client()
        self.cluster.change("web", "a")
        ring = client.ring("web")
        client.close()
        with self.assertRaises(sdk.ClosedError):
            ring.match("k")
        with self.assertRaises(sdk.ClosedError):
            ring.wait(10**6)
        for call in (client.ring, client.watch):
            with self.assertRaises(sdk.ClosedError):
                call("web")


class Ages(unittest.TestCase):
    def test_a_confirmation_waits_for_its_state(self) -> None:
        s = _notice.Staleness()
        self.assertEqual(s.age(), float("inf"))
        s.confirm(1, _notice.Moment(before=100))
        s.confirm(2, _notice.Moment(before=10))
        self.assertEqual(s.age(), float("inf"))
        s.reached(1)
        self.assertTrue(100 <= s.age() < 140)
        s.reached(2)
        self.assertTrue(10 <= s.age() < 40)
        s.confirm(2, _notice.Moment(before=50))
        self.assertTrue(10 <= s.age() < 40)

    def test_the_clock_that_runs_while_the_machine_sleeps(self) -> None:
        m = _notice.Moment()
        with mock.patch.object(_notice.time, "time", return_value=time.time() + 3600):
            self.assertGreaterEqual(m.age(), 3599)

    def test_which_causes_are_reported(self) -> None:
        n = _notice.Notice()
        causes = [
            sdk.UnavailableError("a"), sdk.NoLeaderError("b"), sdk.WrongClusterError("c"), sdk.UnavailableError("d"),
            sdk.WrongClusterError("e"), sdk.UnauthenticatedError("f"),
        ]  # fmt: skip
        self.assertEqual([n.due(c) for c in causes], [True, False, True, False, False, True])


if __name__ == "__main__":
    unittest.main()
