"""Calls against fake nodes: failover, retries, deduplication, freshness, errors."""

import os
import tempfile
import threading
import time
import unittest
from typing import Any
from unittest import mock

import registry_sdk as sdk
from registry_sdk import _call, _identity, _pool, _refresh
from registry_sdk.types import format_duration, parse_duration, status_from

from . import fake

TOKEN, OTHER = ("rgt_" + c * 54 for c in "Ag")


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.cluster = fake.Cluster()
        self.addCleanup(self.cluster.close)
        for patch in (
            mock.patch.object(_pool, "BACKOFF_MAX", 0.1),
            mock.patch.object(_refresh, "FIRST", 0.05),
            mock.patch.object(_refresh, "AFTER_FAILURE", 0.05),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def client(self, target: str = "", **options: Any) -> sdk.Client:
        options = {"cluster": "test", "call_timeout": 20, "attempt_timeout": 2, "close_timeout": 5, **options}
        client = sdk.Client(target or self.cluster.target, **options)
        self.addCleanup(client.close)
        return client

    def fault(self, node: fake.Node, path: str, *problems: Any) -> None:
        """Answers the next calls of a path with these problems, and those after them as usual."""
        left = list(problems)

        def answer(method: str, at: str, args: Any) -> None:
            if left and path in at:
                raise left.pop(0)

        node.fault = answer


class Reads(Case):
    def test_all_of_them(self) -> None:
        self.cluster.change("web", *"abcd")
        revision = self.cluster.change("web", {"id": "a", "state": "held"}, bound=1100)
        client, ring = self.client(), fake.ring_of(self.cluster.state.groups["web"])
        keys = ["", "ü", b"\xff\x00", *map(str, range(50))]
        owners = [ring.members[ring.match(k)].id for k in keys]
        self.assertEqual([client.match("web", k).id for k in keys], owners)
        many = client.match_many("web", iter(keys))  # in batches that the node makes smaller
        self.assertEqual([m.id for m in many], owners)
        for key, m in zip(keys, many):
            f = ring.fallback(key)
            self.assertEqual(m.fallback and m.fallback.id, ring.members[f].id if f >= 0 else None)
            self.assertEqual(m.serving.id, ring.members[ring.serving(key)[0]].id)
            self.assertEqual(client.match("web", key).serving.id, m.serving.id)
        self.assertEqual([m.id for m in client.match_n("web", "k", 9)], [ring.members[m].id for m in ring.match_n("k", 9)])
        self.assertEqual(client.match_many("web", []), [])
        members = client.members("web")
        self.assertEqual([m.id for m in members], list("abcd"))
        self.assertEqual((members.receipt.revision, members.receipt.fingerprint), (revision, ring.fingerprint()))
        self.assertEqual(client.group("web"), sdk.Group("web", 64, 1100, 4, revision))
        for name in ("web-1", "web-2", "web-3", "zoo"):
            self.cluster.change(name)
        self.assertEqual([g.name for g in client.groups()], ["web", "web-1", "web-2", "web-3", "zoo"])
        self.assertEqual([g.name for g in client.groups("web-")], ["web-1", "web-2", "web-3"])
        self.assertEqual(client.seen, self.cluster.state.index)

    def test_refused_arguments(self) -> None:
        client = self.client()
        for field, call in (
            ("group", lambda: client.match("", "k")),
            ("group", lambda: client.match("\ud800", "k")),
            ("key", lambda: client.match("web", "\ud800")),
            ("n", lambda: client.match_n("web", "k", 0)),
            ("max_staleness", lambda: client.match("web", "k", max_staleness=-1)),
            ("id", lambda: client.register("web", "", "a:1")),
            ("ttl", lambda: client.register("web", "a", "a:1", ttl=float("nan"))),
            ("target", lambda: sdk.Client("")),
            ("target", lambda: sdk.Client("host")),
            ("target", lambda: sdk.Client(["a:1", "b:99999"])),
            ("target", lambda: sdk.Client("http://a:1")),
            ("cluster", lambda: sdk.Client("a:1", cluster="a/b/c")),
            ("token", lambda: sdk.Client("a:1", token="secret")),
            ("token_file", lambda: sdk.Client("a:1", token_file="/nonexistent/token")),
            ("token_file", lambda: sdk.Client("a:1", token_file=TOKEN)),
            ("ca", lambda: sdk.Client("a:1", ca="/nonexistent/ca")),
            ("cert", lambda: sdk.Client("a:1", cert="/nonexistent/crt")),
            ("call_timeout", lambda: sdk.Client("a:1", call_timeout=0)),
            ("max_age", lambda: client.ring("web", max_age=0)),
        ):
            with self.subTest(field=field):
                with self.assertRaises(sdk.InvalidArgumentError) as raised:
                    call()
                self.assertEqual(raised.exception.field, field, raised.exception)
                self.assertNotIn(TOKEN, str(raised.exception))
        self.assertEqual([len(n.calls) for n in self.cluster.nodes], [0, 0, 0])
        with self.assertRaises(sdk.InvalidArgumentError) as raised:
            client.register("web", "a", "a:1", meta={"k": "v" * (1 << 20)})
        self.assertEqual(raised.exception.field, "request")

    def test_errors_by_reason(self) -> None:
        client = self.client()
        self.cluster.change("empty")
        with self.assertRaises(sdk.UnknownGroupError):
            client.match("web", "k")
        with self.assertRaises(sdk.EmptyGroupError):
            client.match("empty", "k")
        for n in self.cluster.nodes:
            self.fault(n, "match", fake.Problem(400, "invalid_argument", "n", "at most 1,000"), fake.Problem(418, "of_a_later_version"))
        with self.assertRaises(sdk.InvalidArgumentError) as raised:
            client.match_n("empty", "k", 2000)
        e = raised.exception
        self.assertEqual((e.op, e.field, e.limit, e.status), ("match", "n", "at most 1,000", 400))
        self.assertIsInstance(e, ValueError)
        with self.assertRaises(sdk.RegistryError) as other:
            client.match("empty", "k")
        self.assertEqual((type(other.exception), other.exception.reason), (sdk.RegistryError, "of_a_later_version"))

    def test_malformed_answers(self) -> None:
        client = self.client()
        for answer in ({}, {"members": [{"id": "a"}], "receipt": None}, {"members": [], "receipt": {"index": 1}}):
            with mock.patch.object(fake.Handler, "_answer", lambda *_: answer):
                for call in (
                    lambda: client.match("web", "k"), lambda: client.match_many("web", ["k"]), lambda: client.members("web"),
                ):  # fmt: skip
                    with self.subTest(answer=answer), self.assertRaises(sdk.RegistryError):
                        call()

    def test_reads_never_go_back(self) -> None:
        self.cluster.change("web", "a")
        for n in self.cluster.nodes[1:]:
            n.pin()
        self.cluster.change("web", "b")
        ahead = self.client(self.cluster.nodes[0].addr, refresh_interval=0)
        behind = self.client(",".join(n.addr for n in self.cluster.nodes[1:]), refresh_interval=0)
        self.assertEqual(len(behind.members("web")), 1)
        behind.observe(ahead.members("web").receipt.index)
        self.assertEqual(len(behind.members("web")), 2)  # made linearizable in a second round
        with self.assertRaises(sdk.StaleError):
            behind.members("web", min_index=10**9)

    def test_a_shorter_log_is_accepted(self) -> None:
        self.cluster.change("web", "a")
        client = self.client()
        client.observe(10**6)
        with self.assertLogs("registry_sdk", "WARNING"):
            self.assertEqual(len(client.members("web")), 1)
        self.assertLess(client.seen, 10**6)

    def test_pages_of_one_revision(self) -> None:
        self.cluster.change("web", *"abcdefg")
        for n in self.cluster.nodes:
            self.fault(n, "members", fake.Problem(412, "revision_mismatch", "page_token"))
        self.assertEqual(len(self.client().members("web")), 7)
        for n in self.cluster.nodes:
            self.fault(n, "web/members", *[fake.Problem(412, "revision_mismatch", "page_token")] * 5)
        with self.assertRaises(sdk.RevisionMismatchError):
            self.client(self.cluster.nodes[0].addr, refresh_interval=0).members("web")


class Failover(Case):
    def test_one_good_node_is_enough(self) -> None:
        self.cluster.change("web", "a")
        dead, bad, good = self.cluster.nodes
        for name, fault in (
            ("refuses", lambda *_: None), ("drops", fake.Drop()), ("no leader", fake.Problem(503, "no_leader")),
            ("not ready", fake.Problem(503, "not_ready")), ("busy", fake.Problem(503, "busy")),
            ("a proxy's error", fake.Problem(502, "")),
        ):  # fmt: skip
            if callable(fault):
                dead.stop()
            else:
                self.fault(bad, "", *[fault] * 1000)
            for _ in range(4):  # whichever is the first
                with self.subTest(name):
                    self.assertEqual(self.client(refresh_interval=0).match("web", "k").id, "a")

    def test_a_silent_node_costs_one_attempt(self) -> None:
        self.cluster.change("web", "a")
        client = self.client(refresh_interval=0, attempt_timeout=0.5)
        client.match("web", "k")
        at = client.pool.preferred()
        node = next(n for n in self.cluster.nodes if n.addr == at.addr)
        node.silent.set()
        before = len(node.calls)
        for _ in range(20):
            client.match("web", "k")
        tried = len(node.calls) - before
        self.assertTrue(1 <= tried < 10, tried)  # a busy machine costs attempts at the others, too

    def test_no_node(self) -> None:
        client = self.client(refresh_interval=0)
        for n in self.cluster.nodes:
            n.stop()
        began = time.monotonic()
        with self.assertRaises(sdk.UnavailableError) as raised:
            client.match("web", "k", timeout=1.5)
        self.assertLess(time.monotonic() - began, 10)
        for n in self.cluster.nodes:  # the deadline may cut the last attempt at one of them off
            self.assertIn(n.addr, str(raised.exception))
        self.assertIn(": connection refused", str(raised.exception))

    def test_follows_the_list_of_nodes(self) -> None:
        self.cluster.change("web", "a")
        first, second, third = self.cluster.nodes
        client = self.client(first.addr)
        client.match("web", "k")
        fake.eventually(lambda: len(client.pool.addrs()) == 3)
        first.stop()
        self.assertEqual(client.match("web", "k").id, "a")
        second.stop()
        self.assertEqual(client.match("web", "k").id, "a")

    def test_returns_home(self) -> None:
        self.cluster.change("web", "a")
        client = self.client(refresh_interval=0.2)
        client.match("web", "k")
        home = next(n for n in self.cluster.nodes if n.named("/v1/groups/web"))
        home.stop()
        client.match("web", "k")
        fake.eventually(lambda: client.pool.away())
        home.start()
        fake.eventually(lambda: not client.pool.away())

    def test_wrong_cluster(self) -> None:
        other = fake.Cluster(1)
        self.addCleanup(other.close)
        other.id = "another"
        other.change("web", "x")
        self.cluster.change("web", "a")
        client = self.client()
        client.match("web", "k")
        node = self.cluster.nodes[0]
        for name in ("test", "prod"):  # a cluster formed anew, one that is reached by mistake
            other.name = name
            with self.assertRaises(sdk.WrongClusterError):
                mixed = self.client(other.nodes[0].addr, cluster=f"test/{self.cluster.id}")
                mixed.match("web", "k")
        mixed = self.client(f"{other.nodes[0].addr},{node.addr}", cluster=f"test/{self.cluster.id}")
        self.assertEqual({mixed.match("web", "k").id for _ in range(5)}, {"a"})
        # A node that takes the header and answers as another cluster is caught, too.
        self.cluster.name = "prod"
        with mock.patch.object(fake.Handler, "_check", lambda self: None), self.assertRaises(sdk.WrongClusterError):
            client.match("web", "k")

    def test_close_ends_calls(self) -> None:
        client = self.client(call_timeout=30, attempt_timeout=20, refresh_interval=0)
        for n in self.cluster.nodes:
            n.silent.set()
        failed: list = []

        def call() -> None:
            try:
                client.index()
            except sdk.RegistryError as e:
                failed.append(e)

        thread = threading.Thread(target=call)
        thread.start()
        fake.eventually(lambda: any(n.calls for n in self.cluster.nodes))
        client.close()
        thread.join(5)
        self.assertIsInstance(failed[0], sdk.ClosedError)
        with self.assertRaises(sdk.ClosedError):
            client.index()
        client.close()

    @unittest.skipUnless(hasattr(os, "fork"), "this system cannot fork")
    def test_not_after_a_fork(self) -> None:
        client = self.client()
        with mock.patch.object(os, "getpid", return_value=1), self.assertRaises(sdk.ClosedError):
            client.index()


class Writes(Case):
    def changes(self) -> list:
        return [c for n in self.cluster.nodes for c in n.named("/v1/groups/web/members") if c[0] == "PUT"]

    def test_once_at_whatever_nodes(self) -> None:
        first, *others = self.cluster.nodes
        client = self.client(first.addr)
        client.index()
        fake.eventually(lambda: len(client.pool.addrs()) == 3)
        done: list = []
        real = fake.Handler._answer

        def applied_and_lost(handler: Any, parts: Any, args: Any) -> Any:
            answer = real(handler, parts, args)
            if handler.command == "PUT" and not done:
                done.append(answer)
                raise fake.Drop
            return answer

        with mock.patch.object(fake.Handler, "_answer", applied_and_lost):
            client.register("web", "a", "a:1")
        one, two = [c[2] for c in self.changes()]
        self.assertEqual((one["request_id"], one["since"], one["again"]), (two["request_id"], two["since"], False))
        self.assertTrue(two["again"])
        self.assertEqual(done[0]["index"], self.cluster.state.index)  # it took effect once

    def test_not_sent_is_not_unknown(self) -> None:
        self.cluster.nodes[0].stop()
        self.cluster.nodes[1].stop()
        self.client(refresh_interval=0).register("web", "a", "a:1")
        self.assertEqual([c[2]["again"] for c in self.changes()], [False])

    def test_unknown_outcome(self) -> None:
        client = self.client(attempt_timeout=0.05, close_timeout=0.2)
        client.index()
        for n in self.cluster.nodes:
            n.silent.set()
        with self.assertRaises(sdk.OutcomeUnknownError):
            client.register("web", "a", "a:1", timeout=0.5)
        for n in self.cluster.nodes:
            n.silent.clear()
            self.fault(n, "web", *[fake.Problem(504, "outcome_unknown", "since")] * 10)
        with self.assertRaises(sdk.OutcomeUnknownError) as raised:
            client.register("web", "a", "a:1")
        self.assertEqual(raised.exception.field, "since")

    def test_no_attempt_begins_at_the_end(self) -> None:
        """The deadline would cut it off, and its outcome would be unknown."""
        client = self.client(refresh_interval=0, attempt_timeout=20)
        began, passed = time.monotonic(), [0]

        def slow(method: str, path: str, args: Any) -> None:
            if method == "PUT":
                at.append(passed[0])
                passed[0] += 14
                raise fake.Problem(503, "no_leader")

        at: list = []
        for n in self.cluster.nodes:
            n.fault = slow
        clock = mock.Mock(monotonic=lambda: time.monotonic() + passed[0])
        with mock.patch.object(_call, "time", clock), self.assertRaises(sdk.NoLeaderError):
            client.register("web", "a", "a:1", timeout=200)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(at, [*range(0, 180, 14)])

    def test_an_index_that_is_too_old(self) -> None:
        client = self.client()
        client.index()
        for n in self.cluster.nodes:
            self.fault(n, "web", fake.Problem(400, "invalid_argument", "since"))
        with mock.patch.object(_call, "SINCE_AGE", 5.0):
            client.register("web", "a", "a:1")
        one, two = [c[2] for c in self.changes()]
        self.assertNotEqual(one["request_id"], two["request_id"])
        self.assertGreaterEqual(sum(len(n.named("/v1/index")) for n in self.cluster.nodes), 2)

    def test_the_operators_writes(self) -> None:
        client = self.client()
        client.register("web", "a", "a:1")
        self.assertGreater(client.update_member("web", "a", state="draining"), 0)
        with self.assertRaises(sdk.UnknownMemberError):
            client.update_member("web", "b", weight=2)
        self.assertTrue(client.deregister("web", "a"))
        self.assertFalse(client.deregister("web", "a"))


class Tokens(Case):
    def test_three_nodes_are_asked(self) -> None:
        self.cluster.change("web", "a")
        self.cluster.tokens = {OTHER}
        client = self.client(token=TOKEN)
        with self.assertRaises(sdk.UnauthenticatedError):
            client.match("web", "k")
        self.assertEqual(sum(len(n.calls) for n in self.cluster.nodes), 3)
        with self.assertRaises(sdk.UnauthenticatedError):
            self.client().match("web", "k")
        self.assertEqual(sum(len(n.calls) for n in self.cluster.nodes), 4)

    def test_the_file_is_followed(self) -> None:
        self.cluster.change("web", "a")
        self.cluster.tokens = {TOKEN}
        path = os.path.join(tempfile.mkdtemp(), "token")

        def put(text: str) -> None:
            with open(path, "w") as f:
                f.write(text + "\n")

        put(TOKEN)
        client = self.client(token_file=path, refresh_interval=0)
        self.assertEqual(client.match("web", "k").id, "a")
        self.cluster.tokens = {OTHER}
        put(OTHER)
        self.assertEqual(client.match("web", "k").id, "a")  # read again after the refusal
        with mock.patch.object(_identity, "FILE_AGE", 0.0), self.assertLogs("registry_sdk", "ERROR") as logs:
            put("nonsense")
            client.credential.refused()
            for _ in range(3):
                self.assertEqual(client.match("web", "k").id, "a")  # that before stays in use
        self.assertEqual(len(logs.output), 1)
        self.assertNotIn("nonsense", logs.output[0])


class Text(unittest.TestCase):
    def test_durations(self) -> None:
        for text, want in (
            ("0s", 0), ("10s", 10), ("1m30s", 90), ("1h0m0.5s", 3600.5), ("250ms", 0.25), ("1.5µs", 1.5e-6), ("7ns", 7e-9), (None, None),
        ):  # fmt: skip
            got = parse_duration(text)
            self.assertTrue(got == want or abs(got - want) < 1e-12, (text, got))
        for bad in ("", "10", "1d", "s", "1s!"):
            with self.assertRaises(sdk.RegistryError):
                parse_duration(bad)
        self.assertEqual(format_duration("op", "ttl", 1.5), "1500000000ns")

    def test_removal(self) -> None:
        for given, want in (
            (None, None),
            ({"unreachable": "3s", "removed_in": "0s", "kept": ""}, sdk.Removal(3.0, 0.0, "")),
            ({"unreachable": "3s", "removed_in": None, "kept": "n2 is behind"}, sdk.Removal(3.0, None, "n2 is behind")),
        ):
            node = {"id": "n1", "digest": "ff", "lag": "1s", "removal": given}
            status = status_from({"cluster": "c", "cluster_id": "", "leader": "n1", "term": 1, "nodes": [node]})
            self.assertEqual(status.nodes[0].removal, want)
            self.assertEqual(status.nodes[0].digest, 255)

    def test_backoff(self) -> None:
        for round, most in ((0, 0.05), (1, 0.1), (9, 1.0), (10**6, 1.0)):
            pauses = [_pool.backoff(round) for _ in range(50)]
            self.assertTrue(all(most / 2 <= p <= most for p in pauses), pauses)
            self.assertGreater(len(set(pauses)), 10)


if __name__ == "__main__":
    unittest.main()
