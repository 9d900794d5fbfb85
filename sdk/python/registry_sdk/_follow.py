"""Keeps one watch open, on one node after the other: server-sent events of GET /v1/watch."""

import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, Optional

from ._notice import Moment, Outage
from ._pool import Endpoint, Rotation, token_refused
from ._transport import MAX_ANSWER, Connection, Request, Response
from .errors import (
    ClosedError, InvalidArgumentError, RegistryError, StaleError, UnavailableError, from_problem,
)  # fmt: skip
from .types import malformed, parse_duration

if TYPE_CHECKING:
    from ._core import Core

#: How often a node without changes confirms its state.
PROGRESS = 2.0
#: How long a node may be without a leader before its watchers move, each of them at most once in LAG_PAUSE.
LAG_LIMIT, LAG_PAUSE = 5.0, 10.0
#: How long a stream stays on a node that is not the preferred one: up to twice as long.
SETTLE = 60.0


class BehindError(StaleError):
    """The node has an older state than this client has seen."""


class GapError(RegistryError):
    """An event does not follow from the state before."""


class MismatchError(GapError):
    """A state does not have the fingerprint that its node sent."""


class _MovingError(RegistryError):
    """Another node is the preferred one."""


class Event:
    """One server-sent event."""

    __slots__ = ("name", "data")

    def __init__(self, name: str, data: Dict[str, Any]) -> None:
        self.name, self.data = name, data


def parse(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yields the events of a stream: fields event and data, ended by an empty line. The rest is skipped."""
    buffer, name, data = b"", "", []
    for chunk in chunks:
        buffer += chunk
        if len(buffer) > MAX_ANSWER:
            raise malformed(f"an event of more than {MAX_ANSWER} bytes")
        *lines, buffer = buffer.split(b"\n") if b"\n" in chunk else [buffer]
        for line in lines:
            line = line.rstrip(b"\r")
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"data":
                data.append(value)
            elif not line:
                if data:
                    yield _event(name, b"\n".join(data))
                name, data = "", []


def _event(name: str, data: bytes) -> Event:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise malformed(f"event {name[:64]!r} is no JSON object")
    return Event(name, value)


def assemble(events: Iterable[Event]) -> Iterator[Event]:
    """Joins the pieces of an event: those with "more" are followed by the rest."""
    begun: Optional[Event] = None
    for e in events:
        if begun is not None:
            for name, value in e.data.items():
                if isinstance(value, list):
                    begun.data[name] += value
            begun.data["more"] = e.data.get("more")
            e = begun
        begun = e if e.data.get("more") else None
        if begun is None:
            yield e


class Follower:
    """Follows one target until it is closed. All functions are called from its thread.

    Example: a stream to A is at revision 12. A dies; the follower opens a stream to B that resumes after 12, and
    goes on with 13. B hangs: nothing, not even a progress, arrives for one and a half intervals, and C is next."""

    def __init__(
        self,
        client: "Core",
        what: str,
        query: Callable[[], Dict[str, str]],
        handle: Callable[[Event], None],
        progress: Callable[[Moment], None],
        failed: Callable[[RegistryError, bool, int], None],
        outage: Callable[[Optional[RegistryError]], None],
        ended: Callable[[RegistryError], None],
    ) -> None:
        self._client, self._what = client, what
        self._query, self._handle, self._progress = query, handle, progress
        self._failed, self._report, self._ended = failed, outage, ended
        self._outage = Outage()
        self._cancel = client.cancel.child()
        self._thread = threading.Thread(target=self._run, name="registry-watch", daemon=True)

    def start(self) -> None:
        self._client.follow(self)
        self._thread.start()

    def close(self) -> None:
        """Ends the stream and waits for the thread."""
        self._cancel.cancel()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        error: RegistryError = ClosedError("it was closed", op="watch")
        try:
            with self._client.within(self._cancel):
                error = self._follow() or error
        except Exception as e:  # a fault of this package must not end the watch without a word
            self._client.log.exception("watch failed: %s", self._what)
            error = RegistryError(f"{type(e).__name__}: {e}", op="watch")
        finally:
            self._client.unfollow(self)
            self._client.cancel.release(self._cancel)
            self._ended(error)

    def _follow(self) -> Optional[RegistryError]:
        """Follows until it is cancelled, or until a node refuses the request as invalid, which is the error."""
        nodes = Rotation(self._client.pool)
        while not self._cancel.cancelled:
            node = nodes.next()
            if node is None:
                self._cancel.wait(nodes.next_round())
                continue
            session = _Session()
            try:
                self._session(node, nodes.round, session)
                error: RegistryError = UnavailableError(f"{node.addr}: the stream ended")
            except RegistryError as e:
                error = e
            if self._cancel.cancelled:
                break
            error.op = "watch"
            if isinstance(error, InvalidArgumentError):
                return error
            self._next(nodes, node, session, error)
        return None

    def _next(self, nodes: Rotation, node: Endpoint, session: "_Session", error: RegistryError) -> None:
        """Records why a session ended, and chooses how to go on."""
        if token_refused(error):
            self._client.credential.refused()
        moving = isinstance(error, _MovingError)
        if not moving:
            nodes.failed(node, error)
        level = "info" if session.progressed and not moving else "debug"  # an outage is logged once
        getattr(self._client.log, level)("watch of %s moves to another node: %s: %s", self._what, node.addr, error)
        if session.progressed and not isinstance(error, MismatchError):  # one group may cause it again at once
            nodes.restart()
            if not isinstance(error, GapError):  # else the same node may send a snapshot
                nodes.tried.add(node)
        self._failed(error, nodes.exhausted(), nodes.round)
        if not moving and self._outage.fail(error):
            self._client.log.warning("no node serves the watch of %s: %s", self._what, self._outage.error)
            self._report(self._outage.error)

    def _session(self, node: Endpoint, round: int, session: "_Session") -> None:
        query = dict(self._query(), progress_interval=f"{PROGRESS:g}s", pieces="true")
        first = self._client.attempt_timeout * 2 ** min(round, 5)
        if "revision" in query:  # a resumed stream may have no event for an interval
            first += PROGRESS * 1.5
        request = Request("GET", "/v1/watch", query)
        with self._client.opened(self._cancel, node, request, time.monotonic() + first, "watch") as (connection, response):
            if response.status != 200:
                response.read()  # raises the error
            for e in assemble(parse(self._chunks(connection, response))):
                connection.deadline = float("inf")  # what takes the event is not the node's fault
                self._client.pool.worked(node)
                self._take(node, session, e)
                connection.deadline = self._until()

    def _until(self) -> float:
        return time.monotonic() + PROGRESS * 1.5 + self._client.attempt_timeout

    def _chunks(self, connection: Connection, response: Response) -> Iterator[bytes]:
        """Comments do not count as a sign of life: a node that only sends these has no progress."""
        for chunk in response.chunks():
            if not chunk.startswith(b":"):
                connection.deadline = max(connection.deadline, self._until())
            yield chunk

    def _take(self, node: Endpoint, session: "_Session", e: Event) -> None:
        try:
            if e.name == "error":
                raise from_problem("watch", int(e.data.get("status") or 0), e.data)
            if e.name == "progress":
                self._on_progress(node, session, parse_duration(e.data.get("lag")) or 0.0)
            else:
                self._handle(e)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RegistryError):
                raise
            raise malformed(f"event {e.name[:64]!r}: {type(error).__name__}: {error}") from error
        session.progressed = True

    def _on_progress(self, node: Endpoint, session: "_Session", lag: float) -> None:
        now = time.monotonic()
        self._progress(Moment(before=max(lag, 0.0)))
        if self._outage.end():
            self._report(None)
        if lag > LAG_LIMIT and now - session.opened > LAG_PAUSE:
            raise UnavailableError(f"{node.addr}: the node has lost contact with the leader")
        if now > session.move_at and lag < LAG_LIMIT:
            session.settle(now)
            if self._client.pool.preferred() is not node:
                raise _MovingError("moving to the preferred node")


class _Session:
    """One open stream."""

    def __init__(self) -> None:
        self.opened = time.monotonic()
        self.progressed = False  # an event was accepted
        self.settle(self.opened)

    def settle(self, now: float) -> None:
        self.move_at = now + SETTLE * random.uniform(1, 2)
