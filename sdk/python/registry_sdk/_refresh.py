"""Follows the nodes' addresses, so that the client survives the loss of the nodes that it was given."""

import random
import threading
import time
from typing import TYPE_CHECKING

from ._call import Call, READ, Read
from ._transport import Request
from .errors import RegistryError

if TYPE_CHECKING:
    from ._core import Core

#: The group of the nodes, which every token may read.
NODES = "registry-group"
#: From the first answer to the first reading: a program with one call does not get so far.
FIRST = 1.0
#: From the failure of a node to a reading.
AFTER_FAILURE = 1.0


class Refresher:
    """Reads the list of nodes: soon after the first answer, then at an interval, and soon after a node failed.

    It also returns to the home node, so that clients spread again after an outage of a node."""

    def __init__(self, client: "Core", interval: float) -> None:
        self._client, self._interval = client, interval
        self._cancel = client.cancel.child()
        self._lock = threading.Lock()
        self._thread: "threading.Thread | None" = None

    def start(self) -> None:
        """Starts the thread, at the first answer."""
        with self._lock:
            if self._thread is None and not self._cancel.cancelled:
                self._thread = threading.Thread(target=self._run, name="registry-refresh", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        self._cancel.cancel()
        self._client.pool.moved.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = min(FIRST, self._interval)
        while self._cancel.wait(pause):
            self._client.pool.moved.clear()
            try:
                with self._client.within(self._cancel):
                    self._learn()
                    self._go_home()
            except RegistryError as e:
                self._client.log.debug("the list of nodes cannot be read: %s", e)
            pause = self._until()

    def _until(self) -> float:
        """Waits for a failed node, for an interval at most; returns the pause before the next reading."""
        if self._client.pool.moved.wait(self._interval * random.uniform(0.8, 1.2)):
            return min(AFTER_FAILURE, self._interval) * random.uniform(0.5, 1)
        return 0.0

    def _learn(self) -> None:
        call = Call(self._client, "nodes", READ, None, Read())
        page = call.run(Request("GET", f"/v1/groups/{NODES}/members", {"page_size": "1000"}))
        addrs = [m["addr"] for m in page["members"] if m["addr"]]
        if addrs:
            self._client.pool.learn(addrs)
            self._client.log.debug("list of nodes: %s", addrs)

    def _go_home(self) -> None:
        """Asks the home node for an index that its leader confirms, if calls go to another one."""
        home = self._client.pool.away()
        if home is None:
            return
        request = Request("GET", "/v1/index", {"linearizable": "true"})
        deadline = time.monotonic() + self._client.attempt_timeout
        try:
            self._client.exchange(self._cancel, home, request, deadline, "refresh")
        except RegistryError as e:
            self._client.log.debug("the home node does not answer: %s", e)
            return
        self._client.pool.worked(home)
        self._client.pool.return_home()
