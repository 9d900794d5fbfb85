"""A cluster of fake nodes over real sockets: groups, leases, deduplication, watches, and faults to order."""

import base64
import errno
import functools
import json
import random
import secrets
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from registry_sdk.hashring import HashRing, Params, RingMember


class Problem(Exception):
    def __init__(self, status: int, reason: str, field: str = "", limit: str = "", **more: Any) -> None:
        super().__init__(reason)
        self.status = status
        self.body = dict(more, title="t", status=status, detail=f"fake {reason}", reason=reason, field=field, limit=limit)


class Drop(Exception):
    """The connection is closed without an answer."""


class State:
    """The replicated state, or a copy of it for a node that is behind."""

    def __init__(self) -> None:
        self.index = 10
        self.groups: Dict[str, Dict[str, Any]] = {}

    def copy(self) -> "State":
        new = State()
        new.index, new.groups = self.index, json.loads(json.dumps(self.groups))
        return new

    def group(self, name: str) -> Dict[str, Any]:
        if name not in self.groups:
            raise Problem(404, "unknown_group")
        return self.groups[name]


def ring_of(group: Dict[str, Any]) -> HashRing:
    config = group["config"]
    members = tuple(RingMember(m["id"], m["weight"], m["state"]) for m in group["members"].values())
    return _ring(Params(config["virtual_nodes"], config["bound"]), members)


_ring = functools.lru_cache(maxsize=256)(HashRing)


class Cluster:
    def __init__(self, nodes: int = 3) -> None:
        self.lock = threading.Condition()
        self.name, self.id = "test", secrets.token_hex(16)
        self.state = State()
        self.leases: Dict[int, tuple] = {}
        self.instances: Dict[tuple, str] = {}
        self.fenced: set = set()
        self.done: Dict[str, Any] = {}  # answers by request id
        self.history: Dict[tuple, Any] = {}  # groups by name and revision
        self.tokens: Optional[set] = None
        self.beats: List[tuple] = []  # (time, node, lease ids)
        self.corrupt = False  # watches send a wrong fingerprint
        self.nodes = [Node(self, f"n-{i}") for i in range(nodes)]
        self.leader = self.nodes[0]

    @property
    def target(self) -> str:
        return ",".join(n.addr for n in self.nodes)

    def close(self) -> None:
        for n in self.nodes:
            n.stop()

    def change(self, group: str, *members: Any, remove: tuple = (), **config: int) -> int:
        """Applies a change as one log entry and returns the group's revision."""
        with self.lock:
            self.state.index += 1
            g = self.state.groups.setdefault(group, {"config": {"virtual_nodes": 64, "bound": 0}, "members": {}, "revision": 0})
            g["config"].update(config)
            for id in remove:
                g["members"].pop(id, None)
            for m in members:
                m = {"id": m} if isinstance(m, str) else m
                g["members"][m["id"]] = dict(member(m["id"]), **m)
            g["revision"] = self.state.index
            self.history[group, str(self.state.index)] = json.loads(json.dumps(g))
            self.lock.notify_all()
            return self.state.index

    def drop_group(self, group: str) -> None:
        with self.lock:
            self.state.index += 1
            del self.state.groups[group]
            self.lock.notify_all()

    def expire(self, id: int) -> None:
        with self.lock:
            group, member_id = self.leases.pop(id)
        self.change(group, remove=(member_id,))


def member(id: str) -> Dict[str, Any]:
    return {
        "id": id, "addr": f"{id}:80", "weight": 1, "meta": {}, "state": "active", "ttl": "10s", "hold": None,
        "created_index": 1, "modified_index": 1, "registered_at": "2026-01-02T03:04:05.123456789Z",
    }  # fmt: skip


class Node:
    def __init__(self, cluster: Cluster, id: str) -> None:
        self.cluster, self.id = cluster, id
        self.pinned: Optional[State] = None  # what a node knows that is behind
        self.fault: Optional[Callable[[str, str, Dict[str, Any]], None]] = None
        self.silent = threading.Event()  # set while the node does not answer
        self.calls: List[tuple] = []  # (method, path, arguments, headers)
        self.lag = "1ms"
        while True:
            # No connection is given such a port: a node that restarts finds it free.
            self.port = random.randrange(10_000, 20_000)
            try:
                self.start()
                return
            except OSError as e:
                if e.errno != errno.EADDRINUSE:
                    raise

    def start(self) -> None:
        self.sockets: set = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.node = self  # type: ignore[attr-defined]
        self.addr = f"127.0.0.1:{self.port}"
        self.running = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Is kill -9: the listener and every connection end."""
        if not self.running:
            return
        self.running = False
        with self.cluster.lock:
            self.cluster.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()
        for s in list(self.sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @property
    def state(self) -> State:
        return self.pinned or self.cluster.state

    def pin(self) -> None:
        with self.cluster.lock:
            self.pinned = self.cluster.state.copy()

    def unpin(self) -> None:
        with self.cluster.lock:
            self.pinned = None
            self.cluster.lock.notify_all()

    def named(self, path: str) -> List[tuple]:
        return [c for c in self.calls if c[1].startswith(path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    node: Node

    def setup(self) -> None:
        self.node = self.server.node  # type: ignore[attr-defined]
        self.cluster = self.node.cluster
        self.node.sockets.add(self.request)
        super().setup()

    def runs(self) -> bool:
        """Says that the node was not stopped since this connection came; it may have been started again."""
        return self.node.running and self.node.server is self.server

    def finish(self) -> None:
        self.node.sockets.discard(self.request)
        try:
            super().finish()
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        args: Dict[str, Any] = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if data:
            assert self.headers["Content-Type"] == "application/json"
            args.update(json.loads(data))
        self.node.calls.append((self.command, url.path, args, dict(self.headers)))
        while self.node.silent.is_set() and self.node.running:
            time.sleep(0.01)
        try:
            if not self.runs():
                raise Drop
            self._check()
            if self.node.fault is not None:
                self.node.fault(self.command, url.path, args)
            parts = [unquote(p) for p in url.path.split("/")[2:]]
            if parts == ["watch"]:
                return self._watch(args)
            with self.cluster.lock:
                answer = self._answer(parts, args)
            if self.node.silent.is_set():  # it became silent with the answer on its way
                raise Drop
            self._send(200, "application/json", answer)
        except Problem as p:
            self._send(p.status, "application/problem+json", p.body)
        except Drop:
            self.close_connection = True
            self.request.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _send(self, status: int, media: str, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Registry-Cluster", f"{self.cluster.name}/{self.cluster.id}")
        self.end_headers()
        self.wfile.write(data)

    def _check(self) -> None:
        name, _, id = self.headers.get("Registry-Cluster", "").partition("/")
        if name not in ("", self.cluster.name) or id not in ("", self.cluster.id):
            raise Problem(421, "wrong_cluster")
        tokens = self.cluster.tokens
        if tokens is not None and self.headers.get("Authorization", "")[7:] not in tokens:
            raise Problem(401, "unauthenticated", "authorization")

    def _receipt(self, group: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        fingerprint = ring_of(group).fingerprint() if group else 0
        return {
            "index": self.read.index, "revision": group["revision"] if group else 0, "lag": self.node.lag,
            "fingerprint": f"{fingerprint:016x}", "cluster_id": self.cluster.id, "node": self.node.id,
        }  # fmt: skip

    def _answer(self, parts: List[str], args: Dict[str, Any]) -> Dict[str, Any]:
        state = self.cluster.state if args.get("linearizable") == "true" else self.node.state
        self.read = state
        if int(args.get("min_index") or 0) > state.index:
            raise Problem(503, "stale")
        if parts == ["index"]:
            return {"index": state.index}
        if parts == ["heartbeat"]:
            self.cluster.beats.append((time.monotonic(), self.node, args["lease_ids"]))
            lost = [id for id in args["lease_ids"] if id not in self.cluster.leases]
            return {"lost": lost, "term": 1, "leader_addr": self.cluster.leader.addr}
        if parts == ["groups", "registry-group", "members"]:
            nodes = [dict(member(n.id), addr=n.addr) for n in self.cluster.nodes]
            return {"members": nodes, "config": None, "next_page_token": "", "receipt": self._receipt()}
        if parts == ["groups"]:
            return self._page(args, "groups", [
                {"name": n, "config": g["config"], "members": len(g["members"]), "revision": g["revision"]}
                for n, g in sorted(state.groups.items()) if n.startswith(args.get("prefix", ""))
            ], None)  # fmt: skip
        if self.command != "GET" and "request_id" in args:
            if args["request_id"] not in self.cluster.done:
                self.cluster.done[args["request_id"]] = self._write(parts, args)
            return self.cluster.done[args["request_id"]]
        group = state.group(parts[1])
        if parts[2] == "members":
            page = self._page(args, "members", [m for _, m in sorted(group["members"].items())], group)
            return dict(page, config=group["config"])
        return self._match(group, args)

    def _page(self, args: Dict[str, Any], name: str, items: List[Any], group: Any) -> Dict[str, Any]:
        # As of a node: the name of the last item, so that no item is left out when one before it goes.
        size, key, after = min(int(args["page_size"]), 3), {"groups": "name", "members": "id"}[name], args.get("page_token", "")
        items = [i for i in items if i[key] > after]
        token = items[size - 1][key] if size < len(items) else ""
        return {name: items[:size], "next_page_token": token, "receipt": self._receipt(group)}

    def _match(self, group: Dict[str, Any], args: Dict[str, Any]) -> Dict[str, Any]:
        ring, n = ring_of(group), int(args.get("n") or 1)
        members = [group["members"][m.id] for m in ring.members]
        if self.command == "POST":
            keys = [base64.b64decode(k) for k in args["keys_base64"]]
            if len(keys) > 2:
                raise Problem(400, "invalid_argument", "keys", "4 MiB of owners")
            return {
                "members": members, "owners": [ring.match(k) for k in keys], "owners_per_key": 1,
                "fallbacks": [ring.fallback(k) + 1 for k in keys] if any(m["state"] == "held" for m in members) else [],
                "receipt": self._receipt(group),
            }  # fmt: skip
        key = base64.b64decode(args["key_base64"]) if "key_base64" in args else args["key"]
        owners = ring.match_n(key, n)
        if not owners:
            raise Problem(409, "empty_group")
        f = ring.fallback(key)
        return {"members": [members[m] for m in owners], "fallback": members[f] if f >= 0 else None, "receipt": self._receipt(group)}

    def _write(self, parts: List[str], args: Dict[str, Any]) -> Dict[str, Any]:
        group, id = parts[1], parts[3]
        who, cluster = (group, id), self.cluster
        held = cluster.state.groups.get(group, {}).get("members", {}).get(id)
        if self.command == "PUT":
            if args["instance"] in cluster.fenced:
                raise Problem(409, "fenced")
            other = cluster.instances.get(who, args["instance"]) != args["instance"]
            if held and other and held["addr"] != args["addr"] and held["state"] != "held" and not args.get("take_over"):
                raise Problem(409, "conflict", "id")
            if other:
                cluster.fenced.add(cluster.instances[who])
            cluster.instances[who] = args["instance"]
            state = args.get("state") or "active"
            index = cluster.change(group, {k: args[k] for k in ("addr", "weight", "meta")} | {"id": id, "state": state})
            cluster.leases = {k: v for k, v in cluster.leases.items() if v != who}
            cluster.leases[index] = who
            ttl = f"{int(args['ttl'][:-2]) // 1000000}ms"
            return {"lease_id": index, "ttl": ttl, "index": index, "instance": args["instance"], "revision": index}
        if held is None and self.command == "PATCH":
            raise Problem(404, "unknown_member")
        if self.command == "PATCH":
            if args.get("state") == "held":
                cluster.fenced.add(args["instance"])
            index = cluster.change(group, dict(held, state=args["state"]))
            return {"index": index, "revision": index}
        if args.get("keep_held") == "true" and held and held["state"] == "held":
            return {"removed": False, "index": cluster.state.index}
        cluster.fenced.add(args.get("instance") or cluster.instances.get(who))
        cluster.leases = {k: v for k, v in cluster.leases.items() if v != who}
        return {"removed": held is not None, "index": cluster.change(group, remove=(id,))}

    # Watches

    def _event(self, name: str, data: Any) -> None:
        text = f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def _watch(self, args: Dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Registry-Cluster", f"{self.cluster.name}/{self.cluster.id}")
        self.end_headers()
        self.wfile.write(b"d\r\nretry: 1000\n\n\r\n")
        self.close_connection = True
        node, cluster = self.node, self.cluster
        interval = float(args["progress_interval"].rstrip("s")) / 10
        send = self._sender(args)
        while self.runs() and not node.silent.is_set():
            with cluster.lock:
                state, nodes = node.state.copy(), self._nodes()
            send(state, nodes)
            self._event("progress", {"index": state.index, "lag": node.lag})
            with cluster.lock:
                if node.state.index == state.index and nodes == self._nodes():
                    cluster.lock.wait(interval)
        if self.runs():
            raise Drop

    def _nodes(self) -> Dict[str, Any]:
        nodes = [{"id": n.id, "bind": "", "addr": n.addr, "version": ""} for n in self.cluster.nodes]
        return {"leader": self.cluster.leader.id, "nodes": nodes}

    def _sender(self, args: Dict[str, Any]) -> Callable[[State, Any], None]:
        """Returns what sends the changes since it was called last."""
        sent: Dict[str, Any] = {}

        def groups(names: Any, state: State) -> None:
            for name in sorted(names):
                group = state.groups.get(name)
                if group is None and sent.get(name) != "none":
                    sent[name] = "none"
                    self._event("unknown_group", {"group": name, "index": state.index, "cluster_id": self.cluster.id})
                elif group is not None and (sent.get(name) in (None, "none") or sent[name]["revision"] != group["revision"]):
                    self._changes(name, state, group, sent[name] if isinstance(sent.get(name), dict) else None, args)
                    sent[name] = group

        def prefix(state: State, _: Any) -> None:
            groups([n for n in {*sent, *state.groups} if n.startswith(args["prefix"])], state)

        def listed(state: State, _: Any) -> None:
            now = {n: {"name": n, "config": g["config"], "members": len(g["members"]), "revision": g["revision"]}
                   for n, g in sorted(state.groups.items())}  # fmt: skip
            put, removed = [g for n, g in now.items() if sent.get(n) != g], sorted(sent.keys() - now.keys() - {""})
            if put or removed or "" not in sent:
                self._event("groups", {"index": state.index, "groups": put[:1], "removed": [], "more": True})  # in two pieces
                self._event("groups", {"index": state.index, "groups": put[1:], "removed": removed, "more": None})
            sent.clear()
            sent.update(now, **{"": True})

        def nodes(state: State, now: Any) -> None:
            if sent != now:
                self._event("nodes", dict(now, index=state.index, more=None))
            sent.update(now)

        if "group" in args:
            return lambda state, _: groups([args["group"]], state)
        return prefix if "prefix" in args else listed if "groups" in args else nodes

    def _changes(self, name: str, state: State, group: Dict[str, Any], sent: Any, args: Dict[str, Any]) -> None:
        fingerprint = f"{ring_of(group).fingerprint() ^ self.cluster.corrupt:016x}"
        event = {
            "group": name, "revision": group["revision"], "index": state.index, "config": group["config"],
            "fingerprint": fingerprint, "more": None,
        }  # fmt: skip
        known = self.cluster.history.get((name, args.get("revision")))
        if sent is None and known and args["fingerprint"] == f"{ring_of(known).fingerprint():016x}":
            if known["revision"] == group["revision"]:
                return  # resumed
            sent = known if known["revision"] < group["revision"] else None
        if sent is None:
            members = [m for _, m in sorted(group["members"].items())]
            first = dict(event, members=members[:2], cluster_id=self.cluster.id, more=True)
            self._event("snapshot", first)  # in two pieces
            self._event("snapshot", dict(first, members=members[2:], more=None))
            return
        put = [m for id, m in sorted(group["members"].items()) if sent["members"].get(id) != m]
        removed = sorted(sent["members"].keys() - group["members"].keys())
        self._event("delta", dict(event, **{"from": sent["revision"]}, put=put, removed=removed))


def eventually(check: Callable[[], Any], within: float = 30.0) -> Any:
    """Waits until check returns something true."""
    end = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {check}")
        time.sleep(0.005)
