"""HTTP/1.1 connections to nodes, with one deadline for a whole request, which another thread can end.

Connections are direct: the proxy variables of the environment are ignored.
"""

import http.client
import io
import json
import socket
import ssl
import threading
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional
from urllib.parse import quote

from .errors import ClosedError, UnavailableError, from_problem, invalid
from .types import malformed

CONNECT_TIMEOUT = 3.0
#: An idle connection is used again for so long; nodes close one after two minutes.
IDLE_AGE = 60.0
MAX_IDLE = 8
MAX_REQUEST = 1 << 20
#: Of an answer: the limit of nodes is 4 MiB of its binary form.
MAX_ANSWER = 64 << 20


class Cancel:
    """Ends what a thread waits for, from another thread: a pause, or a request on the wire."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._connections: List["Connection"] = []
        self._children: List["Cancel"] = []

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        with self._lock:
            self._event.set()
            connections, children = list(self._connections), list(self._children)
        for connection in connections:
            connection.abort()
        for child in children:
            child.cancel()

    def child(self) -> "Cancel":
        """Returns one that ends with this one; release forgets it."""
        child = Cancel()
        with self._lock:
            self._children.append(child)
            if self.cancelled:
                child._event.set()
        return child

    def release(self, child: "Cancel") -> None:
        with self._lock:
            self._children.remove(child)

    def wait(self, seconds: float) -> bool:
        """Waits; reports false if it was cancelled."""
        return not self._event.wait(max(0.0, seconds))

    def attach(self, connection: "Connection") -> None:
        with self._lock:
            if self.cancelled:
                raise ClosedError("closed")
            self._connections.append(connection)

    def detach(self, connection: "Connection") -> None:
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)


class _Timed(io.RawIOBase):
    """A socket as http.client uses it; each step gets what is left until the connection's deadline."""

    def __init__(self, sock: socket.socket, connection: "Connection") -> None:
        self.sock, self._connection = sock, connection

    def _arm(self) -> None:
        left = self._connection.deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        self.sock.settimeout(left)

    def sendall(self, data: bytes) -> None:
        self._arm()
        self.sock.sendall(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._arm()
        return self.sock.recv_into(buffer)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self, 1 << 16)

    def close(self) -> None:
        """http.client closes the file of each answer; Connection.close closes the socket."""


class Connection(http.client.HTTPConnection):
    """One connection to a node, for one request at a time."""

    auto_open = 0

    def __init__(self, addr: str, context: Optional[ssl.SSLContext], server_name: str) -> None:
        host, _, port = addr.rpartition(":")
        super().__init__(host.strip("[]"), int(port))
        self._context, self._server_name = context, server_name or self.host
        self._raw: Optional[socket.socket] = None
        self.deadline = 0.0
        self.idle_since = 0.0
        #: Whether a byte of the present request may have been sent.
        self.sent = False

    def connect(self) -> None:
        left = min(CONNECT_TIMEOUT, self.deadline - time.monotonic())
        if left <= 0:
            raise socket.timeout("timed out")
        raw = socket.create_connection((self.host, self.port), left)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._context is not None:
                raw.settimeout(max(0.001, self.deadline - time.monotonic()))
                raw = self._context.wrap_socket(raw, server_hostname=self._server_name)
        except BaseException:
            raw.close()
            raise
        self._raw = raw
        self.sock = _Timed(raw, self)

    def usable(self) -> bool:
        """Reports whether an idle connection can take a request: the node has not closed it."""
        if self._raw is None or time.monotonic() - self.idle_since > IDLE_AGE:
            return False
        try:
            self._raw.settimeout(0)
            socket.socket.recv(self._raw, 1, socket.MSG_PEEK)  # beneath TLS
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def abort(self) -> None:
        """Ends the request under way, from another thread."""
        raw = self._raw
        if raw is not None:
            try:
                socket.socket.shutdown(raw, socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def close(self) -> None:
        super().close()
        if self._raw is not None:
            self._raw.close()

    def send(self, data: Any) -> None:
        self.sent = True
        super().send(data)


class Request:
    """One call as it is sent to any node."""

    def __init__(self, method: str, path: str, query: Optional[Mapping[str, str]] = None, body: Optional[Any] = None) -> None:
        self.method, self.path = method, path
        self.query: Dict[str, str] = dict(query or {})
        self.body: Optional[Dict[str, Any]] = body

    def target(self) -> str:
        query = "&".join(f"{k}={quote(v, safe='')}" for k, v in self.query.items())
        return self.path + ("?" + query if query else "")

    def content(self) -> Optional[bytes]:
        if self.body is None:
            return None
        data = json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()
        if len(data) > MAX_REQUEST:
            raise invalid("", "request", "1 MiB", f"request of {len(data)} bytes is over the limit of 1 MiB")
        return data


class Fields(Dict[str, Any]):
    """An object of an answer; a field that is not there makes the answer malformed."""

    def __missing__(self, name: str) -> Any:
        raise malformed(f"it has no field {name!r}")


class Response:
    """An answer whose body is still to be read."""

    def __init__(self, op: str, addr: str, raw: http.client.HTTPResponse) -> None:
        self._op, self._addr, self._raw = op, addr, raw
        self.status = raw.status
        self.cluster = raw.headers.get("Registry-Cluster")
        self.reusable = False

    def read(self) -> Dict[str, Any]:
        """Returns the JSON of a success; raises the error that the answer is."""
        data = self._raw.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise malformed(f"more than {MAX_ANSWER} bytes")
        self.reusable = not self._raw.will_close
        try:
            value = json.loads(data, object_hook=Fields)
        except ValueError:
            value = None
        if self.status == 200 and isinstance(value, dict):
            return value
        if self.status == 200:
            raise malformed(f"{self._addr} sent no JSON object")
        problem = value if isinstance(value, dict) else {"detail": f"{self._addr} answered with HTTP status {self.status}"}
        raise from_problem(self._op, self.status, problem)

    def chunks(self) -> Iterator[bytes]:
        """Yields the body as it arrives."""
        while True:
            data = self._raw.read1(1 << 16)
            if not data:
                return
            yield data


def broken(addr: str, error: BaseException) -> UnavailableError:
    """The error of a connection that failed."""
    if isinstance(error, socket.timeout):
        text = "did not answer in time"
    elif isinstance(error, ssl.SSLCertVerificationError):
        text = "its certificate is refused: " + error.verify_message
    elif isinstance(error, ssl.SSLError):
        text = f"TLS: {error.reason or error}"
    elif isinstance(error, ConnectionRefusedError):
        text = "connection refused"
    elif isinstance(error, http.client.RemoteDisconnected):
        text = "the connection was closed without an answer"
    else:
        text = str(error) or type(error).__name__
    wrapped = UnavailableError(f"{addr}: {text}")
    wrapped.timed_out = isinstance(error, socket.timeout)
    return wrapped


class Idle:
    """The idle connections to one node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: List[Connection] = []
        self._closed = False

    def take(self) -> Optional[Connection]:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()

    def put(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            if not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def drop(self, for_ever: bool = False) -> None:
        """Closes the idle connections, so that the next call resolves the address again."""
        with self._lock:
            self._closed = self._closed or for_ever
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

