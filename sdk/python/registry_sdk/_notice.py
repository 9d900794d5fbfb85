"""Which causes of an outage are reported, and how old a state is."""

import threading
import time
from collections import deque
from typing import Deque, List, Optional, Tuple

from .errors import (
    BusyError, NoLeaderError, NotReadyError, OutcomeUnknownError, RegistryError, StaleError, UnavailableError,
)  # fmt: skip

_TEMPORARY = (UnavailableError, NoLeaderError, NotReadyError, StaleError, BusyError, OutcomeUnknownError)

#: An outage of a watch is reported after so many failed streams and so many seconds without one.
OUTAGE_FAILURES, OUTAGE_AFTER = 3, 5.0


class Notice:
    """Reports the first cause of an outage, and each kind of refusal by nodes, since waiting does not end one.

    Example: connection refused is reported, no leader is not, wrong cluster is; connection refused and wrong
    cluster again are not."""

    def __init__(self) -> None:
        self.given = False
        self._kinds: List[Tuple[type, str]] = []

    def due(self, error: RegistryError) -> bool:
        """Tells whether the cause has to be reported, and records that it was."""
        kind = None if isinstance(error, _TEMPORARY) else (type(error), error.reason)
        if self.given and (kind is None or kind in self._kinds):
            return False
        self.given = True
        if kind is not None:
            self._kinds.append(kind)
        return True


class Outage:
    """A time without a useful stream."""

    def __init__(self) -> None:
        self.error: Optional[RegistryError] = None  # the last that tells more than that a connection failed
        self._since = 0.0
        self._failed = 0
        self._notice = Notice()

    def fail(self, error: RegistryError) -> bool:
        """Records a failure and reports whether the outage is due to be reported."""
        now = time.monotonic()
        if self.error is None or error.reason or not self.error.reason:
            self.error = error
        self._failed += 1
        self._since = self._since or now
        if self._failed < OUTAGE_FAILURES or now - self._since < OUTAGE_AFTER:
            return False
        return self._notice.due(self.error)

    def end(self) -> bool:
        """Ends the outage and tells whether it was reported."""
        reported = self._notice.given
        self.__init__()  # type: ignore[misc]
        return reported


class Moment:
    """A time by the monotonic and by the wall clock: the first may stop while the machine sleeps."""

    def __init__(self, before: float = 0.0) -> None:
        self._monotonic, self._wall = time.monotonic() - before, time.time() - before

    def age(self) -> float:
        """Seconds since then: the larger of the two ages."""
        return max(time.monotonic() - self._monotonic, time.time() - self._wall, 0.0)

    def later(self, other: "Optional[Moment]") -> bool:
        return other is None or self._monotonic > other._monotonic


class Staleness:
    """Records when the shown state was last known to be current.

    A node confirms what it has sent. Where a ring must be built before a state is shown, the confirmation waits
    for the ring. Example: state 7 is shown when 8 arrives, confirmed as of 12:00:00. While the ring of 8 is
    built, 9 arrives, confirmed as of 12:00:02. When 8 is shown, it is as of 12:00:00; when 9 is, as of 12:00:02."""

    #: At the limit the newest confirmation replaces the one before it: the next state shown may be that of the first.
    MOST = 16

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._as_of: Optional[Moment] = None
        self._shown = 0
        self._pending: Deque[Tuple[int, Moment]] = deque()

    def confirm(self, number: int, as_of: Moment) -> None:
        """Records that the state of that number was current at a time."""
        with self._lock:
            if number <= self._shown:
                self._set(as_of)
                return
            if self._pending and (len(self._pending) == self.MOST or self._pending[-1][0] == number):
                self._pending.pop()
            self._pending.append((number, as_of))

    def reached(self, number: int) -> None:
        """Records that the state of that number is shown."""
        with self._lock:
            self._shown = number
            while self._pending and self._pending[0][0] <= number:
                self._set(self._pending.popleft()[1])

    def _set(self, as_of: Moment) -> None:
        if as_of.later(self._as_of):
            self._as_of = as_of

    def age(self) -> float:
        """Seconds since the shown state was known to be current; infinite before the first confirmation."""
        as_of = self._as_of
        return float("inf") if as_of is None else as_of.age()
