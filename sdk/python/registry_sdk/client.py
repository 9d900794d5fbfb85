"""The client of a cluster, with blocking calls; registry_sdk.aio has the same for asyncio."""

import base64
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

from ._call import STATUS, write
from ._core import Core, segment
from ._transport import Request
from .errors import EmptyGroupError, InvalidArgumentError, RevisionMismatchError, invalid
from .hashring import Key, key_bytes
from .registration import OnEvent, Registration
from .ring import Ring
from .types import (
    Answer, Group, Member, Receipt, Status, format_duration, group_from, malformed, member_from, receipt_from, status_from,
)  # fmt: skip
from .watch import Watch
from .watchlist import GroupsWatch, NodesWatch, PrefixWatch

# Bounds of one request of match_many: the server's, with room for the rest of the body.
BATCH_KEYS, BATCH_BYTES = 1000, (1 << 20) - (8 << 10)
#: The largest page of a list; a node ends a page at about 1 MiB.
PAGE = "10000"
#: How often a listing is started because nodes no longer have the revision of its first page.
PAGE_TRIES = 5


class Client(Core):
    """Talks to a cluster. It is safe for many threads; a process needs one, made after it forked.

    A call asks one node and, if that fails, is late, has no leader or has not caught up, the next one, in rounds
    with a growing pause, until its timeout ends. Reads never go back in time: the client remembers the highest
    log index that it has seen. Writes take effect once, however often they are tried. The client follows the
    nodes' addresses, so it survives the loss of the nodes that it was given. All times are seconds."""

    # Registrations

    def register(
        self,
        group: str,
        id: str,
        addr: str,
        *,
        weight: int = 1,
        meta: Optional[Mapping[str, str]] = None,
        ttl: float = 10.0,
        take_over: bool = False,
        on_event: Optional[OnEvent] = None,
        timeout: Optional[float] = None,
    ) -> Registration:
        """Adds a service to its group and keeps it there by heartbeats, until the registration is closed.

        group, id: 1–255 bytes of printable UTF-8 without "/". addr: host:port of the service. weight: 1–1000,
        its share of the keys. meta: up to 64 pairs and 8 KiB. ttl: how long it stays without heartbeats, 1 s –
        24 h; three are sent in a ttl. take_over: take the id over from a live process at another address, which
        is else ConflictError; it applies to the first registration alone. on_event: gets the Events, one at a
        time for the whole client, in a thread of its own.

        After OutcomeUnknownError the service may be listed until its ttl is over.
        """
        self._check_open()
        registration = Registration(self, group, id, addr, weight, meta or {}, ttl, on_event)
        try:
            registration._start(take_over, timeout)
        except BaseException:
            self.cancel.release(registration._cancel)
            raise
        return registration

    def deregister(self, group: str, id: str, *, timeout: Optional[float] = None) -> bool:
        """Removes a member, whoever registered it: for an operator. Its process may not register again. False:
        there was none."""
        answer, _ = write(self, "deregister", Request("DELETE", self.member_path(group, id)), timeout, in_query=True)
        return bool(answer["removed"])

    def update_member(
        self,
        group: str,
        id: str,
        *,
        weight: Optional[int] = None,
        state: Optional[str] = None,
        hold: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> int:
        """Changes what is given, for an operator, and returns the group's revision. hold, with the state "held":
        how long the member stays without heartbeats, 1 s – 24 h."""
        body: Dict[str, Any] = {"weight": weight, "state": state}
        if hold is not None:
            body["hold"] = format_duration("update member", "hold", hold)
        answer, _ = write(self, "update member", Request("PATCH", self.member_path(group, id), body=body), timeout)
        return int(answer["revision"])

    # Reads

    def match(self, group: str, key: Key, **read: Any) -> Member:
        """Returns the member that owns the key: text, or bytes, up to 4 KiB. A held owner has a fallback, which
        serves the key: Member.serving. A group without members that own keys is EmptyGroupError.

        All reads take linearizable=True (the answer reflects every write acknowledged before the call),
        min_index (the node has applied the log up to it), max_staleness (the node heard from the leader within
        so many seconds, or the call is StaleError), and timeout."""
        return self.match_n(group, key, 1, **read)[0]

    def match_n(self, group: str, key: Key, n: int, **read: Any) -> "Answer[Member]":
        """Returns the first n distinct owners of the key, the owner first; fewer if fewer members own keys."""
        request = Request("GET", self.group_path(group) + "/match", dict(_key(key), n=str(_owners(n))))
        answer = self._read("match", request, **read)
        members = Answer(map(member_from, answer["members"]), receipt_from(answer["receipt"]))
        if not members:
            raise EmptyGroupError(f"group {group!r}: no owner in the answer", op="match")
        if answer["fallback"] is not None:
            members[0] = members[0].with_fallback(member_from(answer["fallback"]))
        return members

    def match_many(self, group: str, keys: Iterable[Key], **read: Any) -> "Answer[Member]":
        """Returns the owner of each key, in their order. Keys beyond the limits of a request are sent in several,
        one after the other: each is answered from one ring, and the receipt is that of the first."""
        raw = [key_bytes(k) for k in keys]
        owners: "Answer[Member]" = Answer()
        most, done = BATCH_KEYS, 0
        while done < len(raw):
            batch = _batch(raw, done, most)
            try:
                got = self._match_batch(group, batch, read)
            except InvalidArgumentError as e:
                if e.field != "keys" or len(batch) == 1:
                    raise
                most = len(batch) // 2  # the owners with their metadata exceed the limit of an answer
                continue
            if not owners:
                owners.receipt = got.receipt
            owners += got
            done += len(batch)
        return owners

    def _match_batch(self, group: str, batch: List[str], read: Dict[str, Any]) -> "Answer[Member]":
        request = Request("POST", self.group_path(group) + "/match", body={"keys_base64": batch, "n": 1})
        answer = self._read("match", request, **read)
        members, fallbacks = [member_from(m) for m in answer["members"]], answer["fallbacks"]
        if answer["owners_per_key"] != 1 or len(answer["owners"]) != len(batch) or len(fallbacks) not in (0, len(batch)):
            raise malformed(f"{len(answer['owners'])} owners and {len(fallbacks)} fallbacks for {len(batch)} keys")
        owners = [members[m] for m in answer["owners"]]
        for i, f in enumerate(fallbacks):
            if f:
                owners[i] = owners[i].with_fallback(members[f - 1])
        return Answer(owners, receipt_from(answer["receipt"]))

    def members(self, group: str, **read: Any) -> "Answer[Member]":
        """Returns the group's members, ordered by id, whatever their state. They are read in pages, all of one
        revision: that of the receipt. If nodes no longer have it, the listing starts over, five times."""
        return self._whole(group, read)[1]

    def group(self, group: str, **read: Any) -> Group:
        """Returns the group with its ring's parameters."""
        return self._whole(group, read)[0]

    def _whole(self, group: str, read: Dict[str, Any]) -> "tuple[Group, Answer[Member]]":
        for left in reversed(range(PAGE_TRIES)):
            try:
                return self._pages(group, dict(read))
            except RevisionMismatchError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _pages(self, group: str, read: Dict[str, Any]) -> "tuple[Group, Answer[Member]]":
        members: "Answer[Member]" = Answer()
        config: Dict[str, int] = {}
        query = {"page_size": PAGE}
        while True:
            page = self._read("members", Request("GET", self.group_path(group) + "/members", query), **read)
            if "page_token" not in query:
                members.receipt, config = receipt_from(page["receipt"]), page["config"] or {}
                # A node that has applied the index of the first page knows its revision.
                read = {"min_index": members.receipt.index, "timeout": read.get("timeout")}
            members += [member_from(m) for m in page["members"]]
            token = page["next_page_token"]
            if not token:
                size = len(members)
                return Group(group, config.get("virtual_nodes", 0), config.get("bound", 0), size, members.receipt.revision), members
            if token == query.get("page_token") or not page["members"]:
                raise malformed("a page without members")
            query["page_token"] = token

    def groups(self, prefix: str = "", **read: Any) -> "Answer[Group]":
        """Returns the groups whose names begin with the prefix, ordered by name. They are read in pages, each of
        the node's state at that time. A token for one prefix lists only the groups of that prefix."""
        groups: "Answer[Group]" = Answer()
        for page, receipt, _ in self.group_pages(prefix, **read):
            if not groups:
                groups.receipt = receipt
            groups += page
        return groups

    def group_pages(self, prefix: str, **read: Any) -> "Iterator[tuple[List[Group], Receipt, bool]]":
        """Yields the pages of groups, each with its receipt, and whether it is the last. No page is older than
        the one before."""
        query = {"page_size": PAGE, "prefix": prefix}
        while True:
            page = self._read("groups", Request("GET", "/v1/groups", query), **read)
            receipt, token = receipt_from(page["receipt"]), page["next_page_token"]
            yield [group_from(g) for g in page["groups"]], receipt, not token
            if not token:
                return
            if token <= query.get("page_token", ""):
                raise malformed("the next page does not begin after this one")
            query["page_token"] = token
            read = {"min_index": receipt.index, "timeout": read.get("timeout")}

    def index(self, **read: Any) -> int:
        """Returns a log index that a node has applied; with linearizable=True, one not below any acknowledged write."""
        return int(self._read("index", Request("GET", "/v1/index"), **read)["index"])

    def status(self, group: str = "", *, timeout: Optional[float] = None) -> Status:
        """Returns the cluster as one of its nodes sees it; with a group, the fingerprint and the digest of its
        ring on every node."""
        query = {"group": group} if group else {}
        return status_from(self._call("status", STATUS, Request("GET", "/v1/cluster", query), timeout))

    # Watches and rings

    def ring(self, group: str, *, max_age: Optional[float] = None, timeout: Optional[float] = None) -> Ring:
        """Makes a local ring of a group; it lasts until it or the client is closed.

        It returns at the first state: the group's ring, or that there is no such group; with max_age, when a node
        has also confirmed the state. timeout bounds that wait. max_age: match fails with StaleError while the
        ring's age is above so many seconds; nodes confirm every two, so it should be a multiple."""
        self._check_open()
        segment("group", group)
        return Ring(self, group, max_age, timeout)

    def watch(self, group: str) -> Watch:
        """Follows one group, which need not exist yet. The first event is the whole group, or unknown; the next
        ones come as soon as the node has applied a change."""
        self._check_open()
        segment("group", group)
        return Watch(self, group)

    def watch_prefix(self, prefix: str) -> PrefixWatch:
        """Follows all groups whose names start with the prefix, new ones included; "" means all groups. Each event
        is of one group, and events of one group are in order."""
        self._check_open()
        key_bytes(prefix)
        return PrefixWatch(self, prefix)

    def watch_groups(self) -> GroupsWatch:
        """Follows the list of groups, without their members. The first event has all groups there are, and may be
        empty."""
        self._check_open()
        return GroupsWatch(self)

    def watch_nodes(self) -> NodesWatch:
        """Follows the cluster's nodes and its leader. The first event, and each later one, has all nodes."""
        self._check_open()
        return NodesWatch(self)

    # Groups

    def set_group(
        self, group: str, *, virtual_nodes: int = 0, bound: int = 0, expected_revision: int = 0, timeout: Optional[float] = None
    ) -> int:
        """Creates a group, or changes its ring's parameters, and returns its revision. virtual_nodes: a power of
        two, 64–4096; 0: the server's default. bound: 1010–10000 per mille of the fair share; 0: none.
        expected_revision, if not 0, refuses the change with RevisionMismatchError at another revision."""
        body: Dict[str, Any] = {"config": {"virtual_nodes": virtual_nodes, "bound": bound}, "expected_revision": expected_revision}
        answer, _ = write(self, "set group", Request("PUT", self.group_path(group), body=body), timeout)
        return int(answer["revision"])

    def delete_group(
        self, group: str, *, force: bool = False, expected_revision: int = 0, timeout: Optional[float] = None
    ) -> int:
        """Deletes a group and returns the number of members that went with it. With members it needs force."""
        query = {"force": "true" if force else "false", "expected_revision": str(expected_revision)}
        answer, _ = write(self, "delete group", Request("DELETE", self.group_path(group), query), timeout, in_query=True)
        return int(answer["members"])


def _key(key: Key) -> Dict[str, str]:
    raw = key_bytes(key)
    return {"key": key} if isinstance(key, str) else {"key_base64": base64.b64encode(raw).decode()}


def _owners(n: int) -> int:
    if not isinstance(n, int) or n < 1:
        raise invalid("match", "n", "≥ 1", f"n = {n!r} is not positive")
    return n


def _batch(raw: List[bytes], first: int, most: int) -> List[str]:
    """Returns the keys from the first on that fit into one request; at least one."""
    batch: List[str] = []
    size = 0
    for key in raw[first : first + most]:
        text = base64.b64encode(key).decode()
        size += len(text) + 3  # quotes and comma
        if batch and size > BATCH_BYTES:
            break
        batch.append(text)
    return batch
