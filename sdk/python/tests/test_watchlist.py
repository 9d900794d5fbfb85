"""Watches of several groups, of the list of groups and of the nodes, against fake nodes."""

from typing import Any, List, Optional

import registry_sdk as sdk

from . import fake
from .test_watch import WatchCase


class ListCase(WatchCase):
    def setUp(self) -> None:
        super().setUp()
        self.early: List[Any] = []  # events that came before that of the outage's end

    def next(self, watch: Any) -> Any:
        """The next event that is none of an outage."""
        while True:
            e = self.early.pop(0) if self.early else watch.next(30)
            self.assertIsNotNone(e)
            if e.error is None and not e.recovered:
                return e

    def behind(self, watch_of: Any, meanwhile: Any) -> Any:
        """Leaves a watch alone with nodes that do not know what happened meanwhile, and returns it."""
        for n in self.cluster.nodes[1:]:
            n.pin()
        client = self.client(self.cluster.nodes[0].addr, refresh_interval=0)
        watch = watch_of(client)
        meanwhile(watch)
        for n in self.cluster.nodes[1:]:
            client.pool.add(n.addr)
        self.cluster.nodes[0].stop()
        e = watch.next(30)
        self.assertIsInstance(e.error, sdk.StaleError, e)
        for n in self.cluster.nodes[1:]:
            n.unpin()
        while not (e := watch.next(30)).recovered:  # a change may come before
            self.early.append(e)
        return watch

    def restart(self, meanwhile: Any) -> None:
        for n in self.cluster.nodes:
            n.stop()
        meanwhile()
        for n in self.cluster.nodes:
            n.start()


class Prefixes(ListCase):
    def test_groups_come_change_and_go(self) -> None:
        for group in ("a-1", "a-2", "b-1"):
            self.cluster.change(group, "x", "y", "z")
        with self.client().watch_prefix("a-") as watch:
            first = {e.group: e for e in (watch.next(30), watch.next(30))}
            self.assertEqual({(g, e.reset, len(e.put)) for g, e in first.items()}, {("a-1", True, 3), ("a-2", True, 3)})
            self.cluster.change("b-1", "more")
            revision = self.cluster.change("a-2", "w", remove=("x",))
            e = watch.next(30)
            self.assertEqual((e.group, e.reset, e.revision, [m.id for m in e.put], e.removed), ("a-2", False, revision, ["w"], ("x",)))
            self.assertEqual(e.fingerprint, fake.ring_of(self.cluster.state.groups["a-2"]).fingerprint())
            self.cluster.change("a-3", "x")
            e = watch.next(30)
            self.assertEqual((e.group, e.reset), ("a-3", True))
            self.cluster.drop_group("a-3")
            e = watch.next(30)
            self.assertEqual((e.group, e.unknown, e.rebuilt), ("a-3", True, False))
            self.assertIsNone(watch.next(0.05))
            self.assertEqual(watch._cells.keys(), {"a-1", "a-2"})
            fake.eventually(lambda: watch.age() < 60)
        self.assertIsInstance(watch.error, sdk.ClosedError)

    def test_all_groups(self) -> None:
        self.cluster.change("a", "x")
        self.cluster.change("b", "x")
        watch = self.client().watch_prefix("")
        self.assertEqual({watch.next(30).group, watch.next(30).group}, {"a", "b"})

    def test_finds_what_was_deleted_while_no_node_answered(self) -> None:
        for group in ("a", "b", "c", "d", "e"):  # more than a page
            self.cluster.change(group, "x")
        for gone in (("b", "e"), ("a", "c", "d")):  # in the end nothing is left that a stream could begin with
            watch = self.client().watch_prefix("")
            for _ in self.cluster.state.groups:
                self.next(watch)
            self.restart(lambda: [self.cluster.drop_group(g) for g in gone])
            events = [self.next(watch) for _ in gone]
            self.assertEqual(sorted((e.group, e.unknown, e.rebuilt) for e in events), [(g, True, False) for g in gone])

    def test_a_node_that_is_behind_brings_no_group_back(self) -> None:
        self.cluster.change("a", "x")
        self.cluster.change("b", "x")

        def meanwhile(watch: Any) -> None:
            self.next(watch), self.next(watch)
            self.cluster.drop_group("b")
            self.assertTrue(self.next(watch).unknown)

        watch = self.behind(lambda client: client.watch_prefix(""), meanwhile)
        self.assertIsNone(watch.next(0.05))

    def test_nor_as_it_was_before_it_was_created_again(self) -> None:
        self.cluster.change("b", "old")

        def meanwhile(watch: Any) -> None:
            self.next(watch)
            self.cluster.drop_group("b")
            self.assertTrue(self.next(watch).unknown)
            self.cluster.nodes[0].pin()  # it shows no more
            self.cluster.change("b", "new")

        watch = self.behind(lambda client: client.watch_prefix(""), meanwhile)
        self.assertEqual([m.id for m in self.next(watch).put], ["new"])

    def test_a_cluster_that_lost_its_log(self) -> None:
        self.cluster.change("a", "x")
        before = self.cluster.state.copy()
        self.cluster.change("a", "y")
        self.cluster.change("b", "x")
        watch = self.client().watch_prefix("")
        self.next(watch), self.next(watch)

        def lose() -> None:
            self.cluster.state = before

        self.restart(lose)
        events = {e.group: e for e in (self.next(watch), self.next(watch))}
        self.assertEqual((events["b"].unknown, events["b"].rebuilt), (True, True))
        self.assertEqual((events["a"].reset, events["a"].rebuilt, len(events["a"].put)), (True, True, 1))


class Lists(ListCase):
    def names(self, e: sdk.GroupsEvent) -> "tuple[bool, list[str], tuple[str, ...]]":
        return e.reset, [g.name for g in e.groups], e.removed

    def test_groups(self) -> None:
        with self.client().watch_groups() as watch:
            self.assertEqual(self.names(watch.next(30)), (True, [], ()))
            self.cluster.change("web", "a", "b", bound=1200)
            e = watch.next(30)
            self.assertEqual(self.names(e), (False, ["web"], ()))
            self.assertEqual((e.groups[0].members, e.groups[0].bound, e.groups[0].revision), (2, 1200, self.cluster.state.index))
            self.assertEqual(e.index, self.cluster.state.index)
            self.cluster.change("api", "a")
            self.assertEqual(self.names(watch.next(30)), (False, ["api"], ()))
            self.cluster.drop_group("web")
            self.assertEqual(self.names(watch.next(30)), (False, [], ("web",)))
            self.assertIsNone(watch.next(0.05))

    def test_a_slow_reader_gets_all_changes_as_one(self) -> None:
        self.cluster.change("a", "x")
        self.cluster.change("b", "x")
        watch = self.client().watch_groups()
        watch.next(30)
        self.cluster.drop_group("a")
        self.cluster.change("c", "x")
        self.cluster.drop_group("c")
        self.cluster.change("b", "y")
        fake.eventually(lambda: watch._index == self.cluster.state.index)
        reset, groups, removed = self.names(watch.next(30))
        self.assertEqual((reset, groups), (False, ["b"]))
        self.assertIn(removed, [("a",), ("a", "c")])  # c may have been in no event

    def test_what_was_deleted_while_no_node_answered(self) -> None:
        self.cluster.change("a", "x")
        self.cluster.change("b", "x")
        watch = self.client().watch_groups()
        self.next(watch)
        self.restart(lambda: self.cluster.drop_group("a"))
        self.assertEqual(self.names(self.next(watch)), (False, [], ("a",)))

    def test_a_node_that_is_behind(self) -> None:
        self.cluster.change("a", "x")

        def meanwhile(watch: Any) -> None:
            watch.next(30)
            self.cluster.drop_group("a")
            self.assertEqual(self.names(watch.next(30)), (False, [], ("a",)))

        watch = self.behind(lambda client: client.watch_groups(), meanwhile)
        self.assertIsNone(watch.next(0.05))

    def test_a_cluster_that_lost_its_log(self) -> None:
        self.cluster.change("a", "x")
        before = self.cluster.state.copy()
        self.cluster.change("b", "x")
        watch = self.client().watch_groups()
        self.next(watch)

        def lose() -> None:
            self.cluster.state = before

        self.restart(lose)
        e = self.next(watch)
        self.assertEqual((self.names(e), e.rebuilt), ((True, ["a"], ()), True))

    def test_nodes(self) -> None:
        with self.client().watch_nodes() as watch:
            e: Optional[sdk.NodesEvent] = watch.next(30)
            self.assertEqual((e.leader, [n.id for n in e.nodes]), ("n-0", ["n-0", "n-1", "n-2"]))
            self.assertEqual(e.nodes[1].addr, self.cluster.nodes[1].addr)
            with self.cluster.lock:
                self.cluster.leader = self.cluster.nodes[1]
                self.cluster.lock.notify_all()
            self.assertEqual(watch.next(30).leader, "n-1")
            self.assertIsNone(watch.next(0.05))
