"""The check in a service that a request is for it, for WSGI and ASGI; and the header that a router sends.

A router that matches keys by a ring, or by calls, names in a header which state its answer came from:

    member, headers = ring.match(key), {ROUTE_HEADER: str(Route.of_view(ring.view))}

The service compares it with a ring of its own, and refuses what an old ring sent:

    owner = Owner(client.ring("web"), "web-1")
    application = owner.wsgi(application, lambda request: request.header("X-User-ID"))   # or owner.asgi(...)

The Go package sdk/routing has the same rules and the same headers.
"""

import asyncio
import re
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any, Awaitable, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qs, quote, unquote

from .errors import InvalidArgumentError, NotReadyError, RegistryError, invalid
from .hashring import Key
from .ring import Ring, View
from .types import Member, Receipt

#: Of a request, the ring that it was routed with; of an answer 421, the one that decided.
ROUTE_HEADER = "Registry-Ring"
#: Of an answer 421: the member that serves the key, as ID;ADDR, with the id escaped as in a URL.
OWNER_HEADER = "Registry-Owner"

_VERSION = "v2"
_FORM = _VERSION + ";cluster;group;revision;fingerprint"
_MAX_FALLBACK = 1000


class Route(NamedTuple):
    """The ring that a request was routed with. str(route) is the header's value."""

    #: Empty if unknown.
    cluster_id: str
    group: str
    revision: int
    fingerprint: int
    #: How many of View.serving were skipped, because they could not be reached; 0 for the owner.
    fallback: int = 0

    @classmethod
    def of_view(cls, view: View, fallback: int = 0) -> "Route":
        """The route of the answers of a ring's view."""
        return cls(view.cluster_id, view.group, view.revision, view.fingerprint, fallback)

    @classmethod
    def of_receipt(cls, group: str, receipt: Receipt, fallback: int = 0) -> "Route":
        """The route of an answer with that receipt."""
        return cls(receipt.cluster_id, group, receipt.revision, receipt.fingerprint, fallback)

    def __str__(self) -> str:
        text = f"{_VERSION};{_escape(self.cluster_id)};{_escape(self.group)};{self.revision};{self.fingerprint:016x}"
        return f"{text};{self.fallback}" if self.fallback else text

    @classmethod
    def parse(cls, text: str) -> "Route":
        """Reads a header's value; else it raises InvalidArgumentError."""

        def bad(why: str) -> InvalidArgumentError:
            return invalid("route", ROUTE_HEADER, _FORM, f"{text[:64]!r} is not a route: {why}")

        parts = text.split(";")
        if len(text) > 1024:
            raise bad("it is longer than 1024 bytes")
        if parts[0] != _VERSION:
            raise bad("it does not begin with its version, " + _VERSION)
        if not 5 <= len(parts) <= 6 or not parts[2]:
            raise bad("it does not have the fields of a route")
        try:
            cluster, group = map(_unescape, parts[1:3])
        except ValueError:
            raise bad("its cluster or group is not escaped as in a path") from None
        if not (parts[3].isascii() and parts[3].isdigit() and int(parts[3]) < 1 << 64):
            raise bad("its revision is not a number")
        if not re.fullmatch("[0-9a-fA-F]{1,16}", parts[4]):
            raise bad("its fingerprint is not a hexadecimal number")
        skipped = parts[5] if len(parts) == 6 else "0"
        if not (skipped.isascii() and skipped.isdigit() and int(skipped) <= _MAX_FALLBACK):
            raise bad(f"its number of skipped members is not in 0–{_MAX_FALLBACK}")
        return cls(cluster, group, int(parts[3]), int(parts[4], 16), int(skipped))


def _escape(text: str) -> str:
    return quote(text, safe="")


def _unescape(text: str) -> str:
    if re.search("%(?![0-9a-fA-F]{2})", text):
        raise ValueError("an incomplete escape")
    return unquote(text, errors="strict")


class MisdirectedError(RegistryError):
    """The key has another owner; nothing was done."""

    def __init__(self, route: Route, owner: Member) -> None:
        super().__init__(
            f"misdirected: the owner is {owner.id} at {owner.addr}, by revision {route.revision} of group {route.group}", op="owner"
        )
        #: That of the ring that decided.
        self.route = route
        #: The member that serves the key. Over the network it has only id and addr.
        self.owner = owner

    @classmethod
    def of_answer(cls, status: int, headers: "Dict[str, str]") -> "Optional[MisdirectedError]":
        """Returns what an answer 421, or a redirect, of a service says; None if it names no owner."""
        lower = {k.lower(): v for k, v in headers.items()}
        id, semicolon, addr = lower.get(OWNER_HEADER.lower(), "").partition(";")
        if status not in (421, 307) or not semicolon:
            return None
        try:
            route = Route.parse(lower.get(ROUTE_HEADER.lower(), ""))
        except InvalidArgumentError:
            return None
        return cls(route, Member(unquote(id), addr))


class Incoming:
    """A request as the key functions see it, the same for WSGI and ASGI."""

    def __init__(self, path: str, query: str, headers: Iterable[Tuple[str, str]]) -> None:
        #: Decoded, without the query.
        self.path = path
        self.query_string = query
        self._headers: Dict[str, List[str]] = {}
        for name, value in headers:
            self._headers.setdefault(name.lower(), []).append(value)

    def headers(self, name: str) -> List[str]:
        return self._headers.get(name.lower(), [])

    def header(self, name: str) -> str:
        """The header's value; empty without one."""
        return next(iter(self.headers(name)), "")

    def query(self, name: str) -> str:
        """The first value of a query parameter; empty without one."""
        return parse_qs(self.query_string).get(name, [""])[0]

    def segment(self, n: int) -> str:
        """Segment n of the path, from 0; empty without one."""
        parts = self.path.strip("/").split("/")
        return parts[n] if 0 <= n < len(parts) else ""

    def cookie(self, name: str) -> str:
        """The value of a cookie; empty without one."""
        cookie: "SimpleCookie[str]" = SimpleCookie()
        try:
            cookie.load(self.header("Cookie"))
        except Exception:  # CookieError: an illegal name
            return ""
        return cookie[name].value if name in cookie else ""


KeyOf = Callable[[Incoming], Optional[Key]]


class _Refusal(NamedTuple):
    status: int
    headers: List[Tuple[str, str]]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.status} {HTTPStatus(self.status).phrase}"


class Owner:
    """Refuses requests that are not for the service, because a router used an older ring. It decides by the
    service's own ring.

    Let R be the revision of a request's route, 0 without one, and S that of the service's ring.

    1. S < R: the service may be behind. It waits for S ≥ R, `wait` seconds at most, and then refuses with
       NotReadyError.
    2. The two are of different clusters, or S = R and the fingerprints differ: one of the two is wrong, and the
       service refuses with NotReadyError. An unknown cluster is not compared.
    3. Otherwise one member serves the key in the service's own ring: its owner, or the fallback of a held owner.
       If that is the service, it accepts; if not, MisdirectedError names that member.

    So for any one S at most one member accepts a key, and with S ≥ R no request is accepted by a ring older than
    the router's. That is an order by revision and not by time: max_age of the ring limits how long two members may
    accept one key. To exclude it, store the revision that accept returns with the data, and refuse writes with an
    older one."""

    def __init__(
        self, ring: Ring, id: str, *, wait: float = 1.0, fallbacks: int = 0, require_route: bool = False, redirect: str = ""
    ) -> None:
        """id: the service's own. fallbacks: accept requests that skipped up to so many owners, if the service is
        among those or the next one; two members may then accept one key at one revision. require_route: refuse
        requests without a route. redirect: "http" or "https" answers a misdirected request with 307 to the same
        path at the owner's address, instead of 421."""
        if redirect not in ("", "http", "https"):
            raise invalid("owner", "redirect", "http or https", f"redirect is {redirect!r}")
        self._ring, self._id, self._wait = ring, id, wait
        self._fallbacks, self._require, self._redirect = fallbacks, require_route, redirect

    def accept(self, route: Optional[Route], key: Key) -> Route:
        """Returns the route of the ring that accepted the key. Within one cluster its revision is a fencing token:
        two members that accept one key have different ones, and the later owner's is higher.

        It raises MisdirectedError, NotReadyError, what Ring.match raises, and InvalidArgumentError for a route of
        another group. It may block for `wait` seconds."""
        if route is None and self._require:
            raise invalid("owner", ROUTE_HEADER, "required", "the request has no route")
        route = route or Route("", self._ring.group, 0, 0)
        if route.group != self._ring.group:
            raise invalid("owner", ROUTE_HEADER, "group " + self._ring.group, f"the route is of group {route.group[:64]}")
        view = self._reach(route)
        place = route.fallback if 0 < route.fallback <= self._fallbacks else 0
        serving = view.serving(key, place + 1)
        if all(m.id != self._id for m in serving):
            raise MisdirectedError(Route.of_view(view), serving[0])
        return Route.of_view(view)

    def _behind(self, route: Route, view: View) -> bool:
        return _same(view.cluster_id, route.cluster_id) and view.revision < route.revision

    def _reach(self, route: Route) -> View:
        """Returns a view that is at least as new as the route."""
        view = self._ring.view
        if self._behind(route, view):
            self._ring.wait(route.revision, self._wait)
            view = self._ring.view
        why = ""
        if not _same(view.cluster_id, route.cluster_id):
            why = f"the ring is of cluster {view.cluster_id}, the router's of cluster {route.cluster_id[:64]}"
        elif view.revision < route.revision:
            why = f"the ring is at revision {view.revision}, the router's at {route.revision}"
        elif view.revision == route.revision and view.fingerprint != route.fingerprint:
            why = f"at revision {view.revision} the ring is {view.fingerprint:016x}, the router's {route.fingerprint:016x}"
        if why:
            raise NotReadyError(why, op="owner")
        return view

    def _check(self, request: Incoming, key: Optional[Key], target: str) -> Optional[_Refusal]:
        """Returns how a request is refused, or None."""
        try:
            if not key:
                raise invalid("owner", "key", "a key", "the request has no key")
            self.accept(_route_of(request), key)
            return None
        except RegistryError as e:
            return self._refusal(e, target)

    def _refusal(self, e: RegistryError, target: str) -> _Refusal:
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
        status = 400 if isinstance(e, InvalidArgumentError) else 503
        if isinstance(e, MisdirectedError):
            status = 307 if self._redirect else 421
            headers += [(ROUTE_HEADER, str(e.route)), (OWNER_HEADER, f"{_escape(e.owner.id)};{e.owner.addr}")]
            if self._redirect:
                headers.append(("Location", f"{self._redirect}://{e.owner.addr}{target}"))
        body = f"{e}\n".encode()
        return _Refusal(status, headers + [("Content-Length", str(len(body)))], body)

    def wsgi(self, application: Callable[..., Any], key: KeyOf) -> Callable[..., Any]:
        """Passes the requests that are for the service to a WSGI application. key returns a request's key; without
        one the answer is 400. A misdirected request gets 421 with the owner in OWNER_HEADER, one that cannot be
        decided 503. In both cases nothing was done."""

        def guarded(environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")  # latin-1, by PEP 3333
            query = environ.get("QUERY_STRING", "")
            headers = ((k[5:].replace("_", "-"), v) for k, v in environ.items() if k.startswith("HTTP_"))
            request = Incoming(path.encode("latin-1").decode("utf-8", "replace"), query, headers)
            target = quote(path.encode("latin-1"), safe="/:@!$&'()*+,;=~") + ("?" + query if query else "")
            refusal = self._check(request, key(request), target)
            if refusal is None:
                return application(environ, start_response)  # type: ignore[no-any-return]
            start_response(refusal.line, refusal.headers)
            return [refusal.body]

        return guarded

    def asgi(self, application: Callable[..., Awaitable[None]], key: KeyOf) -> Callable[..., Awaitable[None]]:
        """wsgi for an ASGI application. A request whose route is newer than the ring waits in a thread. The key of
        a WebSocket is checked when it is opened; a refusal closes it with code 1013, try again later."""

        async def guarded(scope: Dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
            refusal = await self._asgi_refusal(scope, key) if scope["type"] in ("http", "websocket") else None
            if refusal is None:
                await application(scope, receive, send)
            elif scope["type"] == "websocket":
                await receive()  # websocket.connect
                await send({"type": "websocket.close", "code": 1013, "reason": HTTPStatus(refusal.status).phrase})
            else:
                headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in refusal.headers]
                await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
                await send({"type": "http.response.body", "body": refusal.body})

        return guarded

    async def _asgi_refusal(self, scope: Dict[str, Any], key: KeyOf) -> Optional[_Refusal]:
        query = scope.get("query_string", b"").decode("latin-1")
        headers = ((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope.get("headers", ()))
        request = Incoming(scope["path"], query, headers)
        raw = scope.get("raw_path") or quote(scope["path"], safe="/:@!$&'()*+,;=~").encode()
        target = raw.decode("latin-1").partition("?")[0] + ("?" + query if query else "")
        found = key(request)
        if self._may_wait(request):
            return await asyncio.get_running_loop().run_in_executor(None, self._check, request, found, target)
        return self._check(request, found, target)

    def _may_wait(self, request: Incoming) -> bool:
        try:
            route = _route_of(request)
            return route is not None and self._behind(route, self._ring.view)
        except RegistryError:
            return False  # the check says what is wrong


def _route_of(request: Incoming) -> Optional[Route]:
    values = request.headers(ROUTE_HEADER)
    if len(values) > 1 or "," in "".join(values):  # WSGI servers join repeated headers
        raise invalid("route", ROUTE_HEADER, "one value", "more than one route")
    return Route.parse(values[0]) if values else None


def _same(a: str, b: str) -> bool:
    """Compares two cluster ids; an empty one is unknown and matches."""
    return a == b or not a or not b
