"""What the calls of a client are made of: connections, one request, the client's life."""

import logging
import os
import ssl
import threading
import time
from contextlib import contextmanager
from http.client import HTTPException
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Type, TypeVar, Union
from urllib.parse import quote

from ._call import READ, Call, Read
from ._identity import ClusterRef, Credential, Identity, TLSFiles, prepare
from ._keeper import Keeper
from ._pool import Endpoint, Pool, parse_target
from ._refresh import Refresher
from ._transport import Cancel, Connection, Request, Response, broken
from .errors import ClosedError, RegistryError, invalid
from .registration import Registration

#: Deregistrations that a close has under way at once.
CLOSERS = 16

_LOG = logging.getLogger("registry_sdk")
_within = threading.local()
C = TypeVar("C", bound="Core")


class Core:
    """The client without its calls. Its attributes and methods are for this package alone, but for observe, seen
    and close."""

    def __init__(
        self,
        target: Union[str, Iterable[str]],
        *,
        cluster: str = "",
        token: str = "",
        token_file: str = "",
        tls: Union[bool, ssl.SSLContext] = False,
        ca: str = "",
        cert: str = "",
        key: str = "",
        server_name: str = "",
        call_timeout: float = 10.0,
        attempt_timeout: float = 1.0,
        close_timeout: float = 5.0,
        refresh_interval: float = 60.0,
    ) -> None:
        """Checks the options and does not connect.

        target: client addresses of any nodes, "host:port,host:port".
        cluster: NAME, NAME/ID or /ID; what is not given, the first answer sets. Use it at least with a name in
        every client that runs long or writes: the first answer may come from a wrong cluster.
        token, token_file: the token, or a file that has it and is followed.
        tls: True for the system's authorities, or a context of your own. ca, cert, key: PEM files of the
        authorities that sign the nodes' certificates, and of this client's certificate; they are followed, and
        any of them turns TLS on. server_name: the name in the nodes' certificates, by default each address's host.
        call_timeout: of a call without a timeout. attempt_timeout: how long a read waits for one node (a write
        three times, a status five times as long; it doubles with every round over all nodes). close_timeout: of
        the deregistrations of a close. refresh_interval: how often the list of nodes is read; 0: never.
        """
        self.log = _LOG
        self.pool = Pool(parse_target(target))
        self.call_timeout = _positive("call_timeout", call_timeout)
        self.attempt_timeout = _positive("attempt_timeout", attempt_timeout)
        self.close_timeout = _positive("close_timeout", close_timeout)
        if token and token_file:
            raise invalid("client", "token", "token or token_file", "both are given")
        self.credential = Credential(token, token_file, self.log)
        self.identity = Identity(cluster)
        self._server_name = server_name
        self._files = TLSFiles(ca, cert, key, self.log) if ca or cert or key else None
        self._context = prepare(tls) if isinstance(tls, ssl.SSLContext) else None
        if tls is True and self._files is None:
            self._files = TLSFiles("", "", "", self.log)
        self.cancel = Cancel()  # ends all calls and threads
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards the rest; never held during a call
        self._closing = False
        self._closed = threading.Event()
        self._keeper: Optional[Keeper] = None
        self._registrations: Set[Registration] = set()
        self._followers: Set[Any] = set()  # watches and rings
        self._seen = 0  # highest log index in an answer
        self._seen_at = 0.0
        self._refresher = Refresher(self, refresh_interval) if refresh_interval > 0 else None

    def _call(self, op: str, kind: Any, request: Request, timeout: Optional[float]) -> Dict[str, Any]:
        self._check_open()
        return Call(self, op, kind, timeout).run(request)

    def _read(
        self,
        op: str,
        request: Request,
        *,
        linearizable: bool = False,
        min_index: int = 0,
        max_staleness: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> Dict[str, Any]:
        self._check_open()
        call = Call(self, op, READ, timeout, Read(linearizable, min_index, max_staleness))
        answer = call.run(request)
        receipt = answer.get("receipt") or answer
        if "cluster_id" in receipt:
            self.identity.check(ClusterRef(id=receipt["cluster_id"]), adopt=True)
        if call.fallback() and receipt["index"] < self._seen:
            self.log.warning("the cluster's log is shorter than before: it was restored or lost: seen %d, index %d",
                             self._seen, receipt["index"])  # fmt: skip
            with self._lock:
                self._seen = receipt["index"]
        self.observe(receipt["index"])
        return answer

    @property
    def seen(self) -> int:
        """The highest log index that this client has seen."""
        return self._seen

    def observe(self, index: int) -> None:
        """Remembers an index, so that later reads are not older: that of a receipt from elsewhere, for instance."""
        with self._lock:
            if index >= self._seen and index:
                self._seen, self._seen_at = index, time.monotonic()

    def answered(self, endpoint: Endpoint) -> None:
        self.pool.worked(endpoint)
        if self._refresher is not None:
            self._refresher.start()

    def since(self, op: str, max_age: float, timeout: float) -> int:
        """Returns an index that was observed at most max_age seconds ago, and asks for one if there is none."""
        with self._lock:
            if self._seen and time.monotonic() - self._seen_at < max_age:
                return self._seen
        # Not _call: the deregistrations of a close need an index, too.
        index = int(Call(self, op, READ, timeout).run(Request("GET", "/v1/index"))["index"])
        self.observe(index)
        return index

    def timeout_of(self, op: str, timeout: Optional[float]) -> float:
        return self.call_timeout if timeout is None else max(0.001, timeout)

    def group_path(self, group: str) -> str:
        return "/v1/groups/" + segment("group", group)

    def member_path(self, group: str, id: str) -> str:
        return self.group_path(group) + "/members/" + segment("id", id)

    def exchange(self, cancel: Cancel, endpoint: Endpoint, request: Request, deadline: float, op: str) -> Dict[str, Any]:
        """Makes one request to one node, until a deadline of the monotonic clock."""
        with self.opened(cancel, endpoint, request, deadline, op) as (_, response):
            return response.read()

    @contextmanager
    def opened(
        self, cancel: Cancel, endpoint: Endpoint, request: Request, deadline: float, op: str
    ) -> "Iterator[tuple[Connection, Response]]":
        """Sends a request to one node and yields the answer, whose body is to be read within the block."""
        content = request.content()
        headers = {"Accept": "application/json, application/problem+json", "User-Agent": "registry-sdk-python"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self.identity.header:
            headers["Registry-Cluster"] = self.identity.header
        token = self.credential.refresh()
        if token is not None:
            headers["Authorization"] = token
        connection = endpoint.idle.take()
        if connection is None:
            connection = Connection(endpoint.addr, self._context or (self._files.context() if self._files else None), self._server_name)
        connection.deadline, connection.sent = deadline, False
        response = None
        try:
            cancel.attach(connection)
            if connection.sock is None:
                connection.connect()
                if cancel.cancelled:  # there was nothing to abort
                    raise ConnectionAbortedError("cancelled")
            connection.request(request.method, request.target(), content, headers)
            response = Response(op, endpoint.addr, connection.getresponse())
            self.identity.check_header(response.cluster, adopt=response.status == 200)
            yield connection, response
        except RegistryError:
            raise
        except (OSError, HTTPException) as e:
            error = broken(endpoint.addr, e)
            error.sent = connection.sent
            raise error from None
        finally:
            cancel.detach(connection)
            if response is not None and response.reusable and not cancel.cancelled:
                endpoint.idle.put(connection)
            else:
                connection.close()

    @contextmanager
    def within(self, cancel: Cancel) -> Iterator[None]:
        """Lets the calls of this thread end with cancel, too."""
        before = getattr(_within, "cancel", None)
        _within.cancel = cancel
        try:
            yield
        finally:
            _within.cancel = before

    @contextmanager
    def cancellable(self) -> Iterator[Cancel]:
        parent: Cancel = getattr(_within, "cancel", None) or self.cancel
        child = parent.child()
        try:
            yield child
        finally:
            parent.release(child)

    # Life

    @property
    def keeper(self) -> Keeper:
        with self._lock:
            assert self._keeper is not None  # there is a registration
            return self._keeper

    def adopt(self, registration: Registration) -> Optional[Keeper]:
        with self._lock:
            if self._closing:
                return None
            if self._keeper is None:
                self._keeper = Keeper(self)
            self._registrations.add(registration)
            return self._keeper

    def forget(self, registration: Registration) -> None:
        with self._lock:
            self._registrations.discard(registration)

    def follow(self, follower: Any) -> None:
        """Has close stop a watch or a ring."""
        self._check_open()
        with self._lock:
            self._followers.add(follower)

    def unfollow(self, follower: Any) -> None:
        with self._lock:
            self._followers.discard(follower)

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError("the client was closed")
        if os.getpid() != self._pid:
            raise ClosedError("the client was made before this process forked: make one in each process")

    def close(self) -> None:
        """Ends the client: its registrations are deregistered, within close_timeout, and its threads have ended
        when it returns. It raises why registrations could not be deregistered; their leases then run out. Not to
        be called from an on_event function. Further calls wait for the first, and do nothing."""
        if os.getpid() != self._pid:
            return  # the threads are those of the parent
        with self._lock:
            first, self._closing = not self._closing, True  # 1. new calls are refused
            registrations, followers = list(self._registrations), list(self._followers)
        if not first:
            self._closed.wait()
            return
        errors = self._close_all(registrations)  # 2. heartbeats stop, members are deregistered
        self.cancel.cancel()  # 3. calls under way end
        for follower in followers:
            follower.close()  # 4. watches and rings
        if self._refresher is not None:
            self._refresher.stop()  # 5.
        if self._keeper is not None:
            self._keeper.stop()  # 6. no event follows
        self.pool.close()  # 7. connections
        self._closed.set()
        if errors:
            raise type(errors[0])(
                f"{len(errors)} of {len(registrations)} services not deregistered, the first: {errors[0].message}", op="close"
            )

    def _close_all(self, registrations: List[Registration]) -> List[RegistryError]:
        errors: List[RegistryError] = []
        deadline = time.monotonic() + self.close_timeout
        left = list(registrations)

        def work() -> None:
            while left:
                try:
                    registration = left.pop()
                except IndexError:
                    return
                try:
                    registration.close(max(0.1, deadline - time.monotonic()))
                except RegistryError as e:
                    errors.append(e)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(CLOSERS, len(registrations)) - 1)]
        for t in threads:
            t.start()
        work()
        for t in threads:
            t.join()
        return errors

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], tb: Optional[TracebackType]) -> None:
        self.close()


def _positive(name: str, seconds: float) -> float:
    if not 0 < seconds < 1e9:
        raise invalid("client", name, "> 0 seconds", f"{name} is {seconds!r}")
    return seconds


def segment(field: str, text: str) -> str:
    try:
        if isinstance(text, str) and text:
            return quote(text, safe="")
    except UnicodeEncodeError:
        pass
    raise invalid("", field, "1–255 bytes of printable UTF-8 without /", f"{field} is {text!r}")
