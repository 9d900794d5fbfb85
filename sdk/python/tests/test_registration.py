"""Registrations against fake nodes: heartbeats, losses, conflicts, holds, the end."""

import threading
import time
import unittest
from typing import Any, List
from unittest import mock

import registry_sdk as sdk
from registry_sdk import _call, _keeper
from registry_sdk._pool import Rotation

from . import fake
from .test_client import OTHER, TOKEN, Case


def poke(client: sdk.Client) -> None:
    """Makes what the client's keeper waits for due now."""
    with client.keeper._changed:
        for lease in client.keeper._leases:
            lease.due = 0
        client.keeper._changed.notify()


class Events(list):
    """Collects the events of a registration."""

    def __init__(self, client: sdk.Client) -> None:
        super().__init__()
        self.client = client

    def __call__(self, event: sdk.Event) -> None:
        self.append(event)

    def kinds(self) -> List[str]:
        return [e.kind for e in self]

    def until(self, *kinds: str) -> None:
        def there() -> bool:
            if self.kinds() == list(kinds):
                return True
            if self.client._keeper is not None:
                poke(self.client)
            return False

        try:
            fake.eventually(there)
        except AssertionError:
            raise AssertionError(f"events {self.kinds()}, want {kinds}") from None


class Heartbeats(Case):
    def test_three_in_a_ttl_at_the_leader(self) -> None:
        client = self.client()
        events = Events(client)
        began = time.monotonic()
        with client.register("web", "a", "a:1", ttl=1.5, on_event=events) as registration:
            fake.eventually(lambda: len(self.cluster.beats) >= 6)
            took = time.monotonic() - began
            self.assertGreater(took, 6 * 1.5 / 3 * 0.75)  # the other limit is the lease: it is not lost
            assert registration._lease is not None
            intervals = {registration._lease.interval(_keeper.new_jitter()) for _ in range(100)}
            self.assertTrue(0.4 <= min(intervals) < 0.42 and 0.48 < max(intervals) <= 0.5, "jitter")
            fake.eventually(lambda: self.cluster.beats[-1][1] is self.cluster.leader)
            self.assertLess(registration.lease_age, 5)
            self.assertFalse(registration.done)
        self.assertFalse(registration.valid)
        self.assertTrue(registration.removed)
        self.assertIsInstance(registration.error, sdk.ClosedError)
        events.until("registered", "ended")
        beats = len(self.cluster.beats)
        self.assertFalse(threading.Event().wait(1.1))  # two heartbeats' time
        self.assertEqual(len(self.cluster.beats), beats)

    def test_all_leases_in_one_message(self) -> None:
        client = self.client()
        for i in range(20):
            client.register("web", f"m-{i}", "a:1", ttl=300)
        with client.keeper._changed:
            now = time.monotonic()
            for i, lease in enumerate(client.keeper._leases):
                lease.due = now + i  # within a fifteenth of the TTL
            client.keeper._changed.notify()
        fake.eventually(lambda: self.cluster.beats)
        self.assertEqual(set(self.cluster.beats[0][2]), set(self.cluster.leases))
        fake.eventually(lambda: all(lease.renewed > now for lease in client.keeper._leases))
        self.assertEqual(len({lease.due for lease in client.keeper._leases}), 1, "they stay together")
        client.close()
        self.assertEqual(self.cluster.state.groups["web"]["members"], {})
        self.assertFalse([t for t in threading.enumerate() if t.name.startswith("registry-")])

    def test_another_node_within_the_ttl(self) -> None:
        """A silent node, and one that is killed, cost no lease."""
        client = self.client()
        events = Events(client)
        client.register("web", "a", "a:1", ttl=9, on_event=events)
        poke(client)
        fake.eventually(lambda: self.cluster.beats)
        for down in ("killed", "silent"):  # a silent node that answers later would count as the next
            node = self.cluster.beats[-1][1]
            self.cluster.leader = next(n for n in self.cluster.nodes if n is not node and n.running)
            node.silent.set() if down == "silent" else node.stop()
            last = time.monotonic()
            poke(client)
            fake.eventually(lambda: self.cluster.beats[-1][1] is not node and self.cluster.beats[-1][0] > last)
            self.assertLess(self.cluster.beats[-1][0] - last, 9, down)
            node.silent.clear()
        self.assertEqual(events.kinds(), ["registered"])

    def test_malformed_answers_end_nothing(self) -> None:
        client = self.client()
        events = Events(client)
        client.register("web", "a", "a:1", on_event=events)
        real = fake.Handler._answer

        def answer(handler: fake.Handler, parts: Any, args: Any) -> Any:
            return {"lost": 7} if parts == ["heartbeat"] else real(handler, parts, args)

        with mock.patch.object(fake.Handler, "_answer", answer), self.assertLogs("registry_sdk", "ERROR"):
            fake.eventually(lambda: poke(client) or any(n.named("/v1/heartbeat") for n in self.cluster.nodes))
            fake.eventually(lambda: client.keeper._retry_at)
        fake.eventually(lambda: poke(client) or self.cluster.beats)
        self.assertEqual(events.kinds(), ["registered"])

    def test_unreachable_and_renewed(self) -> None:
        client = self.client()
        events = Events(client)
        client.register("web", "a", "a:1", ttl=1.5, on_event=events)
        for n in self.cluster.nodes:
            n.stop()
        events.until("registered", "unreachable")
        self.assertIsInstance(events[1].error, sdk.UnavailableError)
        for n in self.cluster.nodes:
            n.start()
        events.until("registered", "unreachable", "renewed")


class Losses(Case):
    def test_registered_again_as_the_same_instance(self) -> None:
        client = self.client()
        events = Events(client)
        client.register("web", "a", "a:1", on_event=events)
        (lease,) = self.cluster.leases
        self.cluster.expire(lease)
        events.until("registered", "lost", "regained")
        first, second = [c[2] for n in self.cluster.nodes for c in n.calls if c[0] == "PUT"]
        self.assertEqual(first["instance"], second["instance"])
        self.assertNotEqual(first["request_id"], second["request_id"])
        self.assertFalse(second["take_over"])
        poke(client)
        fake.eventually(lambda: self.cluster.beats[-1][2] == list(self.cluster.leases))

    def test_until_it_succeeds(self) -> None:
        client = self.client()
        events = Events(client)
        client.register("web", "a", "a:1", on_event=events)
        for n in self.cluster.nodes:
            self.fault(n, "web/members", fake.Problem(400, "of_a_later_version"))
        self.cluster.expire(*self.cluster.leases)
        events.until("registered", "lost", "unreachable", "regained")
        self.assertEqual(events[2].error.reason, "of_a_later_version")

    def test_two_processes_never_fight(self) -> None:
        one, two = self.client(), self.client()
        events = Events(one)
        first = one.register("web", "a", "a:1", on_event=events)
        with self.assertRaises(sdk.ConflictError):
            two.register("web", "a", "a:2")
        for again, error in (("a:2", sdk.FencedError),):
            second = two.register("web", "a", again, take_over=True)
            poke(one)
            self.assertTrue(first.wait(30))
            self.assertIsInstance(first.error, error)
        events.until("registered", "lost", "ended")
        self.assertIsInstance(events[2].error, sdk.FencedError)
        first.close()  # does not remove the successor
        self.assertEqual(self.cluster.state.groups["web"]["members"]["a"]["addr"], "a:2")
        self.assertFalse(second.done)

    def test_an_operator_removes_it(self) -> None:
        client = self.client()
        events = Events(client)
        registration = client.register("web", "a", "a:1", on_event=events)
        self.client().deregister("web", "a")
        poke(client)
        self.assertTrue(registration.wait(30))
        self.assertIsInstance(registration.error, sdk.FencedError)

    def test_leases_of_another_token(self) -> None:
        """One of them makes a node refuse the whole heartbeat: it is left out, and the others are renewed."""
        client = self.client()
        events = Events(client)
        client.register("web", "a", "a:1")
        client.register("web", "b", "b:1", on_event=events)
        foreign = max(self.cluster.leases)

        def refuse(method: str, path: str, args: Any) -> None:
            if foreign in args.get("lease_ids", ()) or method == "PUT":
                raise fake.Problem(403, "not_owner", "lease_ids", lease_ids=[foreign])

        for n in self.cluster.nodes:
            n.fault = refuse
        events.until("registered", "unreachable")
        self.assertIsInstance(events[1].error, sdk.NotOwnerError)
        beats = len(self.cluster.beats)
        fake.eventually(lambda: poke(client) or len(self.cluster.beats) > beats + 2)
        self.assertEqual(self.cluster.beats[-1][2], [min(self.cluster.leases)])
        for n in self.cluster.nodes:
            n.fault = None
        events.until("registered", "unreachable", "regained")

    def test_a_refused_token_is_reported_early(self) -> None:
        self.cluster.tokens = {TOKEN}
        client = self.client(token=TOKEN)
        events = Events(client)
        client.register("web", "a", "a:1", ttl=30, on_event=events)
        self.cluster.tokens = {OTHER}
        events.until("registered", "unreachable")
        self.assertIsInstance(events[1].error, sdk.UnauthenticatedError)
        self.cluster.tokens = {TOKEN}
        events.until("registered", "unreachable", "renewed")


class Ends(Case):
    def test_hold_and_return(self) -> None:
        client = self.client()
        events = Events(client)
        registration = client.register("web", "a", "a:1", on_event=events)
        with self.assertRaises(sdk.InvalidArgumentError):
            registration.hold(0)
        registration.hold(30)
        self.assertIsInstance(registration.error, sdk.HeldError)
        events.until("registered", "ended")
        registration.close()
        self.assertFalse(registration.removed)
        self.assertEqual(self.cluster.state.groups["web"]["members"]["a"]["state"], "held")
        with self.assertRaises(sdk.HeldError):
            registration.drain()
        client.register("web", "a", "a:2")
        self.assertEqual(self.cluster.state.groups["web"]["members"]["a"]["state"], "active")

    def test_an_operators_hold_survives_the_close(self) -> None:
        registration = self.client().register("web", "a", "a:1")
        self.cluster.change("web", dict(self.cluster.state.groups["web"]["members"]["a"], state="held"))
        registration.close()
        self.assertFalse(registration.removed)
        self.assertIn("a", self.cluster.state.groups["web"]["members"])

    def test_drain_lasts_through_a_loss(self) -> None:
        client = self.client()
        events = Events(client)
        registration = client.register("web", "a", "a:1", on_event=events)
        registration.drain()
        self.cluster.expire(*self.cluster.leases)
        events.until("registered", "drained", "lost", "regained")
        self.assertEqual(self.cluster.state.groups["web"]["members"]["a"]["state"], "draining")
        registration.resume()
        self.assertEqual(self.cluster.state.groups["web"]["members"]["a"]["state"], "active")

    def test_a_failed_hold_changes_nothing(self) -> None:
        client = self.client()
        registration = client.register("web", "a", "a:1")
        for n in self.cluster.nodes:
            self.fault(n, "web/members", fake.Problem(400, "invalid_argument", "hold"))
        with self.assertRaises(sdk.InvalidArgumentError):
            registration.hold(10**6)
        self.assertFalse(registration.done)
        beats = len(self.cluster.beats)
        fake.eventually(lambda: poke(client) or len(self.cluster.beats) > beats + 1)

    def test_closing_the_client_long_after_the_last_index(self) -> None:
        """The index that a deregistration names as observed before it is then asked for."""
        client = self.client()
        registration = client.register("web", "a", "a:1")
        client._seen_at -= 2 * _call.SINCE_AGE
        client.close()
        self.assertTrue(registration.removed)

    def test_close_without_nodes(self) -> None:
        client = self.client(close_timeout=0.3)
        registrations = [client.register("web", f"m-{i}", "a:1") for i in range(3)]
        for n in self.cluster.nodes:
            n.stop()
        began = time.monotonic()
        with self.assertRaises(sdk.UnavailableError) as raised:
            client.close()
        self.assertIn("3 of 3 services not deregistered", str(raised.exception))
        self.assertLess(time.monotonic() - began, 15)
        self.assertTrue(all(r.done for r in registrations))
        client.close()  # does nothing

    def test_close_during_a_registration_after_a_loss(self) -> None:
        """Nothing registers the member after its deregistration."""
        client = self.client()
        events = Events(client)
        registration = client.register("web", "a", "a:1", on_event=events)
        gate, entered = threading.Event(), threading.Event()

        def wait(method: str, path: str, args: Any) -> None:
            if method == "PUT":
                entered.set()
                gate.wait(30)

        for n in self.cluster.nodes:
            n.fault = wait
        self.cluster.expire(*self.cluster.leases)
        poke(client)
        self.assertTrue(entered.wait(30))
        real = _keeper.Keeper.release

        def release(keeper: _keeper.Keeper, lease: _keeper.Lease) -> None:
            fake.eventually(lambda: not keeper._workers)  # the cancelled attempt ends first
            real(keeper, lease)

        with mock.patch.object(_keeper.Keeper, "release", release):
            registration.close()
        gate.set()
        fake.eventually(lambda: "a" not in self.cluster.state.groups["web"]["members"])
        events.until("registered", "lost", "ended")

    def test_a_slow_or_faulty_on_event_delays_no_heartbeat(self) -> None:
        gate = threading.Event()
        self.addCleanup(gate.set)

        def slow(event: sdk.Event) -> None:
            gate.wait(10)
            raise RuntimeError("user's fault")

        client = self.client()
        client.register("web", "a", "a:1", on_event=slow)
        fake.eventually(lambda: poke(client) or len(self.cluster.beats) > 5)
        with self.assertLogs("registry_sdk", "ERROR"):
            gate.set()
            fake.eventually(lambda: poke(client) or client._keeper._dispatcher._pending == {})
            client.close()

    def test_the_rotation(self) -> None:
        client = self.client(refresh_interval=0)
        nodes = Rotation(client.pool)
        nodes.leader = self.cluster.nodes[2].addr
        order = [nodes.next(), nodes.next(), nodes.next(), nodes.next()]
        self.assertEqual(order[0].addr, nodes.leader)
        self.assertEqual({e.addr for e in order[:3]}, {n.addr for n in self.cluster.nodes})
        self.assertIsNone(order[3])
        nodes.failed(order[0], sdk.UnavailableError("x"))
        nodes.next_round()
        self.assertEqual([nodes.next() for _ in range(3)][2], order[0])  # suspect, so the last


if __name__ == "__main__":
    unittest.main()
