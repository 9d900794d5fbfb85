"""The owner's check, in WSGI and ASGI applications."""

import asyncio
import threading
import unittest
from typing import Any, Dict, Optional
from unittest import mock

import registry_sdk as sdk
from registry_sdk.routing import OWNER_HEADER, ROUTE_HEADER, Incoming, MisdirectedError, Owner, Route

from . import fake
from .test_watch import WatchCase


class Header(unittest.TestCase):
    def test_travels(self) -> None:
        for r in (
            Route("41f2a6c09be7d358", "webservice-group", 120, 0x63A9843E583371C6),
            Route("", "web", 0, 1, 3),
            Route("a;b %", 'ünï; code,"x" %', (1 << 64) - 1, 1, 1000),
        ):
            self.assertEqual(Route.parse(str(r)), r)
        self.assertEqual(str(Route("c", "g", 1, 2)), "v2;c;g;1;0000000000000002")  # as in Go

    def test_bad(self) -> None:
        for bad in (
            "", "v2", "v2;c;g", "v2;c;g;1", "v2;c;;1;2", "v2;c;g;x;2", "v2;c;g;1;xyz", "v2;c;g;-1;2", "v2;c;g;1;0x2", "v2;c;g;1;2;x",
            "v2;c;g;1;2;-1", "v2;c;g;1;2;3;4", "v2;%zz;g;1;2", "v2;c;%zz;1;2", "v2;c;%ff;1;2", "v2;c;g;1;2;99999", "v3;c;g;1;2", "c;g;1;2;3",
            "v2;c;" + "g" * 2000 + ";1;2", "g;120;63a9843e583371c6", f"v2;c;g;{1 << 64};2", "v2;c;g;1;12345678901234567", "v2;c;g;²;2",
        ):  # fmt: skip
            with self.subTest(bad), self.assertRaises(sdk.InvalidArgumentError):
                Route.parse(bad)


class OwnerCase(WatchCase):
    def setUp(self) -> None:
        super().setUp()
        self.revision = self.cluster.change("web", *"abcd")
        self.ring = self.client().ring("web")
        self.owners = [m.id for m in self.ring.match_n("k", 4)]

    def route(self, **change: Any) -> Route:
        return Route.of_view(self.ring.view)._replace(**change)


class Accepts(OwnerCase):
    def test_the_owner_alone(self) -> None:
        for route in (None, self.route(), self.route(cluster_id="")):
            accepted = Owner(self.ring, self.owners[0]).accept(route, "k")
            self.assertEqual(accepted, self.route())
            with self.assertRaises(MisdirectedError) as raised:
                Owner(self.ring, self.owners[1]).accept(route, "k")
            self.assertEqual((raised.exception.owner.id, raised.exception.route), (self.owners[0], self.route()))

    def test_refusals(self) -> None:
        own = Owner(self.ring, self.owners[0], wait=0.05)
        for error, route in (
            (sdk.InvalidArgumentError, self.route(group="other")),
            (sdk.NotReadyError, self.route(revision=self.revision + 1)),
            (sdk.NotReadyError, self.route(fingerprint=1)),
            (sdk.NotReadyError, self.route(cluster_id="another")),
        ):
            with self.subTest(error=error, route=route), self.assertRaises(error):
                own.accept(route, "k")
        own.accept(self.route(revision=self.revision - 1, fingerprint=1), "k")  # an older ring, and still the owner
        with self.assertRaises(sdk.InvalidArgumentError):
            Owner(self.ring, self.owners[0], require_route=True).accept(None, "k")
        with self.assertRaises(sdk.InvalidArgumentError):
            Owner(self.ring, "a", redirect="ftp")

    def test_fallbacks(self) -> None:
        for place, fallback, allowed, ok in (
            (0, 0, 0, True), (0, 1, 0, True), (1, 0, 0, False), (1, 1, 0, False), (1, 1, 1, True), (1, 0, 1, False),
            (2, 1, 2, False), (2, 2, 2, True), (2, 2, 1, False),
        ):  # fmt: skip
            own = Owner(self.ring, self.owners[place], fallbacks=allowed)
            with self.subTest(place=place, fallback=fallback, allowed=allowed):
                if ok:
                    own.accept(self.route(fallback=fallback), "k")
                else:
                    self.assertRaises(MisdirectedError, own.accept, self.route(fallback=fallback), "k")

    def test_the_fallback_of_a_held_owner(self) -> None:
        self.ring.wait(self.cluster.change("web", {"id": self.owners[0], "state": "held"}), 30)
        Owner(self.ring, self.owners[1]).accept(self.route(), "k")
        self.assertRaises(MisdirectedError, Owner(self.ring, self.owners[0]).accept, self.route(), "k")

    def test_waits_for_the_routers_revision(self) -> None:
        for n in self.cluster.nodes:
            n.pin()
        revision = self.cluster.change("web", remove=(self.owners[0],))
        fingerprint = fake.ring_of(self.cluster.state.groups["web"]).fingerprint()
        timer = threading.Timer(0.1, lambda: [n.unpin() for n in self.cluster.nodes])
        timer.start()
        self.addCleanup(timer.join)
        route = self.route(revision=revision, fingerprint=fingerprint)
        self.assertEqual(Owner(self.ring, self.owners[1], wait=30).accept(route, "k").revision, revision)


class Applications(OwnerCase):
    def wsgi(self, own: Owner, headers: Dict[str, str], query: str = "") -> "tuple[str, Dict[str, str], bytes]":
        def application(environ: Any, start: Any) -> Any:
            start("200 OK", [])
            return [b"served"]

        answer: list = []
        environ = {"SCRIPT_NAME": "/app", "PATH_INFO": "/\xc3\xbc", "QUERY_STRING": query}
        environ.update({"HTTP_" + k.upper().replace("-", "_"): v for k, v in headers.items()})
        guarded = own.wsgi(application, lambda r: r.header("X-User-ID"))
        body = b"".join(guarded(environ, lambda status, headers: answer.extend((status, dict(headers)))))
        return answer[0], answer[1], body

    def asgi(self, own: Owner, headers: Dict[str, str], query: str = "", kind: str = "http") -> list:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "served"})

        sent: list = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        scope = {"type": kind, "path": "/app/ü", "query_string": query.encode(), "headers": raw}
        asyncio.run(own.asgi(application, lambda r: r.header("X-User-ID"))(scope, receive, send))
        return sent

    def test_both(self) -> None:
        owner, other = Owner(self.ring, self.owners[0], wait=0.05), Owner(self.ring, self.owners[1], wait=0.05)
        redirecting = Owner(self.ring, self.owners[1], redirect="http")
        key = {"X-User-ID": "k"}
        routed = {**key, ROUTE_HEADER: str(self.route())}
        late = {**key, ROUTE_HEADER: str(self.route(revision=self.revision + 9))}
        for own, headers, want in (
            (owner, key, 200), (owner, routed, 200), (other, routed, 421), (other, key, 421), (redirecting, key, 307),
            (owner, {}, 400), (owner, {**key, ROUTE_HEADER: "v9"}, 400), (owner, late, 503),
            (owner, {**key, ROUTE_HEADER: f"{self.route()}, {self.route()}"}, 400),
        ):  # fmt: skip
            status, answer, body = self.wsgi(own, headers, "a=b")
            sent = self.asgi(own, headers, "a=b")
            self.assertEqual(int(status[:3]), want, body)
            if want == 200:
                self.assertEqual((body, sent), (b"served", [{"type": "served"}]))
                continue
            self.assertEqual(sent[0]["status"], want)
            self.assertEqual({k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}, {k.lower(): v for k, v in answer.items()})
            self.assertEqual(sent[1]["body"], body)
            said = MisdirectedError.of_answer(want, answer)
            self.assertEqual(said is not None, want in (421, 307))
            if said is not None:
                self.assertEqual((said.route, said.owner.id, said.owner.addr), (self.route(), self.owners[0], self.owners[0] + ":80"))
            if want == 307:
                self.assertEqual(answer["Location"], f"http://{self.owners[0]}:80/app/%C3%BC?a=b")
        self.assertEqual(self.asgi(owner, {}, kind="lifespan"), [{"type": "served"}])
        self.assertEqual(self.asgi(owner, key, kind="websocket"), [{"type": "served"}])
        self.assertEqual(self.asgi(other, key, kind="websocket")[0]["type"], "websocket.close")

    def test_an_event_loop_is_not_blocked(self) -> None:
        """A request whose route is newer than the ring waits in a thread."""
        own = Owner(self.ring, self.owners[0], wait=30)
        late = {"X-User-ID": "k", ROUTE_HEADER: str(self.route(revision=self.revision + 1))}
        at: list = []
        real = Owner._check

        def check(*args: Any) -> Any:
            at.append(threading.current_thread())
            return real(*args)

        timer = threading.Timer(0.05, lambda: self.cluster.change("web", {"id": "a", "weight": 2}))
        timer.start()
        with mock.patch.object(Owner, "_check", check):
            self.asgi(own, late)
        timer.join()
        self.assertIsNot(at[0], threading.current_thread())

    def test_no_answer_names_no_owner(self) -> None:
        good: Dict[str, str] = {ROUTE_HEADER: str(self.route()), OWNER_HEADER: "a%3Bb;c:80"}
        said: Optional[MisdirectedError] = MisdirectedError.of_answer(421, {k.lower(): v for k, v in good.items()})
        assert said is not None
        self.assertEqual((said.owner.id, said.owner.addr), ("a;b", "c:80"))
        for status, headers in ((200, good), (421, {}), (421, {OWNER_HEADER: "a;b:80"}), (421, {**good, OWNER_HEADER: "a"})):
            self.assertIsNone(MisdirectedError.of_answer(status, headers))

    def test_keys_of_requests(self) -> None:
        r = Incoming("/users/alice/x", "u=bob&u=c", [("X-User-ID", "carol"), ("Cookie", "user=dave; x=y")])
        self.assertEqual(
            (r.header("x-user-id"), r.cookie("user"), r.cookie("z"), r.segment(1), r.segment(9), r.segment(-1), r.query("u"), r.query("v")),
            ("carol", "dave", "", "alice", "", "", "bob", ""),
        )


if __name__ == "__main__":
    unittest.main()
