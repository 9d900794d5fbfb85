"""The client of the registry in Python: registrations, Match, watches and rings in this process.

    from registry_sdk import Client

    with Client("127.0.0.1:9800,127.0.0.1:9801") as client:
        with client.register("web", "web-1", "10.0.0.1:8080"):
            member = client.match("web", "user-42")
            print(member.id, member.addr)

It needs the standard library alone and Python 3.9. Where the module xxhash is installed, local rings use it.
"""

from .client import Client
from .errors import *  # noqa: F401, F403
from .errors import __all__ as _errors
from .hashring import HashRing, Params, RingMember
from .registration import Event, Registration
from .ring import Ring, RingStats, View
from .types import Answer, Group, Member, NodeStatus, Receipt, Removal, Status
from .watch import GroupEvent, Watch
from .watchlist import GroupsEvent, GroupsWatch, Node, NodesEvent, NodesWatch, PrefixWatch

__version__ = "0.1.0"

__all__ = [
    *_errors, "Answer", "Client", "Event", "Group", "GroupEvent", "GroupsEvent", "GroupsWatch", "HashRing", "Member", "Node",
    "NodeStatus", "NodesEvent", "NodesWatch", "Params", "PrefixWatch", "Receipt", "Registration", "Removal", "Ring", "RingMember",
    "RingStats", "Status", "View", "Watch",
]  # fmt: skip
