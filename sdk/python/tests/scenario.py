"""A service for tests/e2e: it registers, follows its group, and prints what happens, until a signal ends it.

    python3 -m tests.scenario threads|asyncio NODE,NODE… GROUP ID ADDR TTL

SIGTERM deregisters it; SIGINT holds the member for 60 s. It prints

    event KIND                     of the registration
    ring REVISION FINGERPRINT ID…  the owners of KEYS by the ring in this process, at each revision that a watch showed
    prefix GROUP ID…               of a watch of all groups whose names begin with GROUP
    groups GROUP…                  of the watch of the list of groups
    nodes LEADER ID…               of the watch of the nodes
    local ID                       the owner of the first key by that ring, all the time
    refused ERROR                  why a registration of the same id at another address was refused
"""

import asyncio
import os
import signal
import sys
import threading
from typing import Any, Dict, List, Set

from registry_sdk import Client, EmptyGroupError, Event, GroupEvent, GroupsEvent, NodesEvent, RegistryError, Ring
from registry_sdk.aio import AsyncClient
from registry_sdk.ring import View

KEYS = [f"user-{i}" for i in range(20)]
HOLD = 60.0


saying = threading.Lock()  # print writes a line in pieces


def say(*what: Any) -> None:
    with saying:
        print(*what, flush=True)


def on_event(event: Event) -> None:
    say("event", event.kind)
    if event.error is not None:
        say("error", type(event.error).__name__, event.error)


def options() -> Dict[str, str]:
    env = os.environ.get
    return {"ca": env("REGISTRY_CA", ""), "token_file": env("REGISTRY_TOKEN_FILE", "")}


def show(view: View) -> None:
    say("ring", view.revision, f"{view.fingerprint:016x}", *(owner(view, k) for k in KEYS))


def owner(view: "View | Ring", key: str) -> str:
    try:
        return view.match(key).id
    except EmptyGroupError:  # while all leases are lost
        return "nobody"


class Others:
    """Shows the events of the other watches."""

    def __init__(self) -> None:
        self._members: Dict[str, Set[str]] = {}
        self._groups: Set[str] = set()

    def show(self, e: "GroupEvent | GroupsEvent | NodesEvent") -> None:
        if e.error is not None or e.recovered:
            return
        if isinstance(e, NodesEvent):
            say("nodes", e.leader, *(n.id for n in e.nodes))
        elif isinstance(e, GroupsEvent):
            self._groups = (set() if e.reset else self._groups - set(e.removed)) | {g.name for g in e.groups}
            say("groups", *sorted(self._groups))
        else:
            before = set() if e.reset or e.unknown else self._members[e.group]
            self._members[e.group] = before - set(e.removed) | {m.id for m in e.put}
            say("prefix", e.group, *sorted(self._members[e.group]))


def threads(target: str, group: str, id: str, addr: str, ttl: float) -> None:
    ended = threading.Event()
    why: List[int] = []

    def stop(number: int, _: Any) -> None:
        why.append(number)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with Client(target, **options()) as client:  # type: ignore[arg-type]
        with client.register(group, id, addr, ttl=ttl, on_event=on_event) as registration:
            try:
                client.register(group, id, "127.0.0.1:1")
            except RegistryError as e:
                say("refused", type(e).__name__)
            with client.ring(group) as ring, client.watch(group) as watch:

                def follow() -> None:
                    for e in watch:
                        told(e)

                def told(e: GroupEvent) -> None:
                    if e.error is not None or e.recovered:
                        say("watch", "recovered" if e.recovered else type(e.error).__name__)
                    elif ring.wait(e.revision, 30):
                        show(ring.view)

                followers = [threading.Thread(target=follow)]
                others = [client.watch_prefix(group), client.watch_groups(), client.watch_nodes()]
                for other in others:

                    def tell(events: Any = other, shown: Others = Others()) -> None:
                        for e in events:
                            shown.show(e)

                    followers.append(threading.Thread(target=tell))
                for follower in followers:
                    follower.start()
                while not ended.wait(0.2):
                    say("local", owner(ring, KEYS[0]))
                for one in (watch, *others):
                    one.close()
                for follower in followers:
                    follower.join()
            if why[0] == signal.SIGINT:
                registration.hold(HOLD)
        say("removed", registration.removed)


async def aio(target: str, group: str, id: str, addr: str, ttl: float) -> None:
    ended = asyncio.Event()
    why: List[int] = []
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        why.append(number)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    async with AsyncClient(target, **options()) as client:
        async with client.register(group, id, addr, ttl=ttl, on_event=on_event) as registration:
            try:
                await client.register(group, id, "127.0.0.1:1")
            except RegistryError as e:
                say("refused", type(e).__name__)
            async with client.ring(group) as ring, client.watch(group) as watch:

                async def follow() -> None:
                    async for e in watch:
                        if e.error is not None or e.recovered:
                            say("watch", "recovered" if e.recovered else type(e.error).__name__)
                        elif await ring.wait(e.revision, 30):
                            show(ring.view)

                async def tell(opening: Any) -> None:
                    shown = Others()
                    async with opening as events:
                        async for e in events:
                            shown.show(e)

                follower = asyncio.ensure_future(follow())
                others = [asyncio.ensure_future(tell(o)) for o in (client.watch_prefix(group), client.watch_groups(), client.watch_nodes())]
                while not ended.is_set():
                    say("local", owner(ring, KEYS[0]))
                    await asyncio.wait([asyncio.ensure_future(ended.wait())], timeout=0.2)
                await watch.close()
                await follower
                for other in others:
                    other.cancel()
                await asyncio.gather(*others, return_exceptions=True)
            if why[0] == signal.SIGINT:
                await registration.hold(HOLD)
        say("removed", registration.removed)


if __name__ == "__main__":
    mode, *arguments, seconds = sys.argv[1:]
    if mode == "asyncio":
        asyncio.run(aio(*arguments, float(seconds)))  # type: ignore[misc]
    else:
        threads(*arguments, float(seconds))  # type: ignore[misc]
