"""The asyncio client against fake nodes."""

import asyncio
import threading
import time
import unittest
from typing import Any

import registry_sdk as sdk
from registry_sdk.aio import AsyncClient

from . import fake
from .test_watch import WatchCase


class Aio(WatchCase):
    def run_in_loop(self, body: Any, **options: Any) -> None:
        async def main() -> None:
            options.setdefault("cluster", "test")
            async with AsyncClient(self.cluster.target, **options) as client:
                await asyncio.wait_for(body(client), 60)

        asyncio.run(main())
        self.assertFalse([t for t in threading.enumerate() if t.name.startswith("registry-") and "call" not in t.name])

    def test_watches_of_several_groups_and_of_lists(self) -> None:
        self.cluster.change("web-1", "a")

        async def body(client: AsyncClient) -> None:
            async with client.watch_prefix("web-") as groups, client.watch_groups() as names, client.watch_nodes() as nodes:
                self.assertEqual([m.id for m in (await groups.__anext__()).put], ["a"])
                self.assertEqual([g.name for g in (await names.__anext__()).groups], ["web-1"])
                self.assertEqual((await nodes.__anext__()).leader, "n-0")
                self.cluster.change("web-2", "b")
                async for e in groups:
                    self.assertEqual((e.group, e.reset), ("web-2", True))
                    break
                self.assertEqual([g.name for g in (await names.__anext__()).groups], ["web-2"])

        self.run_in_loop(body)

    def test_a_services_life(self) -> None:
        events: list = []

        async def on_event(event: sdk.Event) -> None:
            events.append((event.kind, threading.current_thread()))

        async def body(client: AsyncClient) -> None:
            async with client.register("web", "a", "a:1", ttl=2, on_event=on_event) as registration:
                self.assertTrue(registration.valid)
                self.assertEqual((await client.match("web", "k")).id, "a")
                self.assertEqual([m.id for m in await client.match_many("web", ["k", b"l"])], ["a", "a"])
                self.assertEqual([m.id for m in await client.members("web")], ["a"])
                self.assertEqual([g.name for g in await client.groups()], ["web"])
                async with client.ring("web") as ring, client.watch("web") as watch:
                    self.assertEqual(ring.match("k").id, "a")
                    seen = [(await watch.__anext__()).revision]
                    revision = self.cluster.change("web", "b")
                    self.assertTrue(await ring.wait(revision, 30))
                    async for e in watch:
                        seen.append(e.revision)
                        break
                    self.assertEqual(seen[-1], revision)
                    await watch.close()
                    self.assertEqual([e async for e in watch], [])
                beats = len(self.cluster.beats)
                fake.eventually(lambda: len(self.cluster.beats) > beats + 3)  # a handler that blocks the loop
                self.assertTrue(registration.valid)
                await registration.drain()
                await registration.resume()
            await registration.wait()
            self.assertTrue(registration.removed)
            await asyncio.sleep(0)

        self.run_in_loop(body)
        self.assertEqual([e[0] for e in events], ["registered", "drained", "resumed", "ended"])
        self.assertEqual({e[1] for e in events}, {threading.current_thread()})

    def test_wait_ends_when_another_process_has_the_id(self) -> None:
        async def body(client: AsyncClient) -> None:
            registration = await client.register("web", "a", "a:1", ttl=1)
            self.assertTrue(await client.deregister("web", "a"))
            await registration.wait()
            self.assertIsInstance(registration.error, sdk.FencedError)
            with self.assertRaises(sdk.ConflictError):
                await client.register("web", "b", "b:1")
                await client.register("web", "b", "b:2")

        self.run_in_loop(body)

    def test_a_cancelled_call_ends_at_once(self) -> None:
        async def body(client: AsyncClient) -> None:
            for n in self.cluster.nodes:
                n.silent.set()
            began = time.monotonic()
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(client.index(), 0.2)
            self.assertLess(time.monotonic() - began, 10)
            fake.eventually(lambda: all(t.cancelled or not t._connections for t in client._client.cancel._children))
            for n in self.cluster.nodes:
                n.silent.clear()
            self.assertGreater(await client.index(), 0)

        self.run_in_loop(body, call_timeout=60, attempt_timeout=50)

    def test_a_registration_that_was_cancelled_too_late_is_closed(self) -> None:
        gate, entered = threading.Event(), threading.Event()
        real = sdk.Client.register

        def register(*args: Any, **kwargs: Any) -> sdk.Registration:
            registration = real(*args, **kwargs)
            entered.set()
            gate.wait(30)
            return registration

        async def body(client: AsyncClient) -> None:
            client._client.register = register.__get__(client._client)  # type: ignore[method-assign]
            task = asyncio.ensure_future(client.register("web", "a", "a:1").__aenter__())
            while not entered.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            gate.set()
            while self.cluster.state.groups["web"]["members"]:
                await asyncio.sleep(0.01)

        self.run_in_loop(body)

    def test_errors_and_the_end(self) -> None:
        async def body(client: AsyncClient) -> None:
            with self.assertRaises(sdk.UnknownGroupError):
                await client.match("web", "k")
            with self.assertRaises(AttributeError):
                client.nonsense  # type: ignore[attr-defined]
            await client.close()
            with self.assertRaises((sdk.ClosedError, RuntimeError)):
                await client.index()

        self.run_in_loop(body)


if __name__ == "__main__":
    unittest.main()
