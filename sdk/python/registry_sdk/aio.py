"""The client for asyncio: the calls of registry_sdk.Client as coroutines.

    async with AsyncClient("127.0.0.1:9800") as client:
        async with client.register("web", "web-1", "10.0.0.1:8080"):
            member = await client.match("web", "user-42")

        async with client.ring("web") as ring:
            member = ring.match("user-42")      # local, without await

The calls run in threads of the client, and so do heartbeats and watches. That is why a handler that blocks the
event loop delays no heartbeat: a lease does not end because of it. At most CALLS calls of a client are under way at
once, others wait. A call that is cancelled ends at once; a write may then have taken effect.
"""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Callable, Coroutine, Generator, Generic, Iterable, Optional, Set, Type, TypeVar

from .client import Client
from .hashring import Key
from .registration import Event, Registration
from .ring import Ring
from .types import Answer, Group, Member, Status
from .watch import BaseWatch, GroupEvent
from .watchlist import GroupsEvent, NodesEvent

T = TypeVar("T")

#: Calls of one client that are under way at once.
CALLS = 32


class Opening(Generic[T]):
    """What register, ring and watch return: `await` it, or use it in `async with`, which closes it."""

    def __init__(self, opening: Coroutine[Any, Any, T]) -> None:
        self._opening = opening
        self._opened: Any = None  # a T, which has a close

    def __await__(self) -> Generator[Any, None, T]:
        return self._opening.__await__()

    async def __aenter__(self) -> T:
        opened = self._opened = await self._opening
        return opened

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], tb: Optional[TracebackType]) -> None:
        await self._opened.close()


class AsyncRegistration:
    """A Registration; what is not here is as there: id, error, done, valid and others."""

    def __init__(self, client: "AsyncClient", registration: Registration) -> None:
        self._client, self._registration = client, registration
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        registration.on_end(self._client._soon(self._loop, self._ended.set))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registration, name)

    async def close(self, timeout: Optional[float] = None) -> None:
        """As Registration.close."""
        await self._client._run(self._registration.close, timeout)

    async def hold(self, seconds: float, timeout: Optional[float] = None) -> None:
        """As Registration.hold."""
        await self._client._run(self._registration.hold, seconds, timeout)

    async def drain(self, timeout: Optional[float] = None) -> None:
        """As Registration.drain."""
        await self._client._run(self._registration.drain, timeout)

    async def resume(self, timeout: Optional[float] = None) -> None:
        """As Registration.resume."""
        await self._client._run(self._registration.resume, timeout)

    async def wait(self) -> None:
        """Waits until the registration has ended; error says why."""
        await self._ended.wait()


class AsyncRing:
    """A Ring, whose match, match_n, serving, view, age and stats are as there, without await."""

    def __init__(self, client: "AsyncClient", ring: Ring) -> None:
        self._client, self._ring = client, ring

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ring, name)

    @property
    def ring(self) -> Ring:
        """For registry_sdk.routing.Owner."""
        return self._ring

    async def wait(self, revision: int, timeout: Optional[float] = None) -> bool:
        """As Ring.wait."""
        return await self._client._run(self._ring.wait, revision, timeout)

    async def close(self) -> None:
        """As Ring.close."""
        await self._client._run(self._ring.close)


class AsyncWatch(Generic[T]):
    """A watch, of whatever kind: `async for event in watch`."""

    def __init__(self, client: "AsyncClient", watch: BaseWatch[T]) -> None:
        self._client, self._watch = client, watch
        self._ready = asyncio.Event()
        watch.on_ready(client._soon(asyncio.get_running_loop(), self._ready.set))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watch, name)

    def __aiter__(self) -> "AsyncWatch[T]":
        return self

    async def __anext__(self) -> T:
        while True:
            self._ready.clear()
            event = self._watch.next(0)
            if event is not None:
                return event
            if self._watch.error is not None:
                raise StopAsyncIteration
            await self._ready.wait()

    async def close(self) -> None:
        """As Watch.close."""
        await self._client._run(self._watch.close)


class AsyncClient:
    """The options are those of Client, and so are the errors. It belongs to the event loop that uses it."""

    def __init__(self, target: Any, **options: Any) -> None:
        self._client = Client(target, **options)
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix="registry-call")
        self._tasks: Set[Any] = set()  # of on_event functions that are coroutines

    async def _run(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await self._open(call, None, *args, **kwargs)

    async def _open(self, call: Callable[..., T], close: Optional[Callable[[T], None]], *args: Any, **kwargs: Any) -> T:
        """Runs a call in a thread. close is called with the result of a call that was cancelled too late."""
        cancel = self._client.cancel.child()

        def work() -> T:
            with self._client.within(cancel):
                return call(*args, **kwargs)

        future: "Future[T]" = self._threads.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            cancel.cancel()
            if close is not None:
                future.add_done_callback(partial(_discard, close))
            raise
        finally:
            self._client.cancel.release(cancel)

    @staticmethod
    def _soon(loop: asyncio.AbstractEventLoop, f: Callable[..., Any]) -> Callable[..., None]:
        """Returns a function for other threads that calls f in the loop."""

        def soon(*args: Any) -> None:
            try:
                loop.call_soon_threadsafe(f, *args)
            except RuntimeError:
                pass  # the loop has ended, and nobody waits

        return soon

    def register(
        self, group: str, id: str, addr: str, *, on_event: Optional[Callable[[Event], Any]] = None, **options: Any
    ) -> "Opening[AsyncRegistration]":
        """As Client.register. on_event is called in the event loop, and may be a coroutine function."""

        async def opening() -> AsyncRegistration:
            deliver = None if on_event is None else self._soon(asyncio.get_running_loop(), partial(self._deliver, on_event))
            call = partial(self._client.register, group, id, addr, on_event=deliver, **options)
            return AsyncRegistration(self, await self._open(call, Registration.close))

        return Opening(opening())

    def _deliver(self, on_event: Callable[[Event], Any], event: Event) -> None:
        result = on_event(event)
        if asyncio.iscoroutine(result):
            task = asyncio.ensure_future(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def ring(self, group: str, **options: Any) -> "Opening[AsyncRing]":
        """As Client.ring."""

        async def opening() -> AsyncRing:
            return AsyncRing(self, await self._open(partial(self._client.ring, group, **options), Ring.close))

        return Opening(opening())

    def watch(self, group: str) -> "Opening[AsyncWatch[GroupEvent]]":
        """As Client.watch."""
        return self._watching(partial(self._client.watch, group))

    def watch_prefix(self, prefix: str) -> "Opening[AsyncWatch[GroupEvent]]":
        """As Client.watch_prefix."""
        return self._watching(partial(self._client.watch_prefix, prefix))

    def watch_groups(self) -> "Opening[AsyncWatch[GroupsEvent]]":
        """As Client.watch_groups."""
        return self._watching(self._client.watch_groups)

    def watch_nodes(self) -> "Opening[AsyncWatch[NodesEvent]]":
        """As Client.watch_nodes."""
        return self._watching(self._client.watch_nodes)

    def _watching(self, watch: "Callable[[], BaseWatch[T]]") -> "Opening[AsyncWatch[T]]":
        async def opening() -> "AsyncWatch[T]":
            return AsyncWatch(self, watch())

        return Opening(opening())

    # The other calls, each as in Client.

    async def match(self, group: str, key: Key, **read: Any) -> Member:
        return await self._run(self._client.match, group, key, **read)

    async def match_n(self, group: str, key: Key, n: int, **read: Any) -> "Answer[Member]":
        return await self._run(self._client.match_n, group, key, n, **read)

    async def match_many(self, group: str, keys: Iterable[Key], **read: Any) -> "Answer[Member]":
        return await self._run(self._client.match_many, group, keys, **read)

    async def members(self, group: str, **read: Any) -> "Answer[Member]":
        return await self._run(self._client.members, group, **read)

    async def group(self, group: str, **read: Any) -> Group:
        return await self._run(self._client.group, group, **read)

    async def groups(self, prefix: str = "", **read: Any) -> "Answer[Group]":
        return await self._run(self._client.groups, prefix, **read)

    async def index(self, **read: Any) -> int:
        return await self._run(self._client.index, **read)

    async def status(self, group: str = "", *, timeout: Optional[float] = None) -> Status:
        return await self._run(self._client.status, group, timeout=timeout)

    async def deregister(self, group: str, id: str, *, timeout: Optional[float] = None) -> bool:
        return await self._run(self._client.deregister, group, id, timeout=timeout)

    async def update_member(self, group: str, id: str, **change: Any) -> int:
        return await self._run(self._client.update_member, group, id, **change)

    async def set_group(self, group: str, **change: Any) -> int:
        return await self._run(self._client.set_group, group, **change)

    async def delete_group(self, group: str, **how: Any) -> int:
        return await self._run(self._client.delete_group, group, **how)

    async def close(self) -> None:
        """As Client.close."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._client.close)
        finally:
            self._threads.shutdown(wait=False)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], tb: Optional[TracebackType]) -> None:
        await self.close()


def _discard(close: Callable[[T], None], future: "Future[T]") -> None:
    """Closes what a cancelled call made."""
    if not future.cancelled() and future.exception() is None:
        try:
            close(future.result())
        except Exception:
            pass  # its lease runs out
