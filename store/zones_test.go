package store_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// inZones gives the nodes n1, n2, … these zones.
func inZones(zones ...string) func(*store.Config) {
	return func(c *store.Config) { c.Zone = zones[c.ID[1]-'1'] }
}

// zonesAre reports whether all nodes that are up have recorded these zones, of n1, n2, ….
func zonesAre(c *storetest.Cluster, zones ...string) bool {
	for _, n := range c.Nodes() {
		for i, zone := range zones {
			if known := n.State().Node("n" + string(rune('1'+i))); known == nil || known.Zone != zone {
				return false
			}
		}
	}
	return true
}

// wantAlarm checks that a node has one alarm with the text, or none if it is empty.
func wantAlarm(t *testing.T, n *storetest.Node, text string) {
	t.Helper()
	alarms := n.Status().Alarms
	if len(alarms) != min(len(text), 1) || text != "" && !strings.Contains(alarms[0], text) {
		t.Errorf("%s has the alarms %q, want %q", n.ID, alarms, text)
	}
}

// idle lets virtual time pass for ten rounds of announcements, and reports whether the
// log stood still, once the check entries after the last write are through.
func idle(t *testing.T, c *storetest.Cluster) bool {
	t.Helper()
	store.After(10 * time.Second)
	before := c.Leader().Status().CommitIndex
	store.After(10 * time.Second)
	return c.Leader().Status().CommitIndex == before
}

// At level 1 no zone reaches the log, and no node announces its own for ever. When the
// level is raised, all are recorded.
func TestZonesNeedALevel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, inZones("a", "b", "a"))
		c.Three(old)
		for _, n := range c.Nodes() {
			upgrade(c, n)
		}
		c.AwaitKnown()
		leader := c.Leader()
		for _, n := range c.Nodes() {
			c.Await("the version of "+n.ID, func() bool { return leader.State().Node(n.ID).Version == "test" })
		}
		if !idle(t, c) {
			t.Error("the nodes write to the log for ever")
		}
		for _, n := range c.Nodes() {
			if !n.Announced() {
				t.Errorf("%s announces itself for ever", n.ID)
			}
			wantAlarm(t, n, "has no effect: it needs feature level 2, and the cluster is at 1 (registry cluster feature-level -raise)")
		}
		if leader = c.Leader(); !zonesAre(c, "", "", "") {
			t.Error("zones in the state at level 1")
		}
		before := leader.Status().CommitIndex
		if err := leader.RecordNode(c.Context(), leader.Self()); err != nil || leader.Status().CommitIndex != before {
			t.Errorf("recorded again at index %d, before %d: %v", leader.Status().CommitIndex, before, err)
		}

		if _, err := leader.RaiseFeatureLevel(c.Context(), 0); err != nil {
			t.Fatal(err)
		}
		c.Await("the zones", func() bool { return zonesAre(c, "a", "b", "a") })
		if !idle(t, c) {
			t.Error("the nodes write to the log for ever")
		}
		for _, n := range c.Nodes() {
			want := ""
			if n.ID == c.Leader().ID {
				want = `the loss of zone "a" (2 of 3 voters) loses the quorum of 2`
			}
			wantAlarm(t, n, want)
		}
		c.AwaitSame()
	})
}

// A node that is started in another zone, or in none, says so. A non-voter counts for no
// quorum.
func TestZoneChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		zones := []string{"a", "b", "a", "a"}
		c := storetest.New(t, func(cfg *store.Config) { inZones(zones...)(cfg) })
		c.Three()
		c.Await("the zones", func() bool { return zonesAre(c, zones[:3]...) })
		wantAlarm(t, c.Leader(), `zone "a" (2 of 3 voters)`)
		zones[2] = "c"
		upgrade(c, c.Node("n3"))
		c.Await("the new zone", func() bool { return zonesAre(c, zones[:3]...) })
		wantAlarm(t, c.Leader(), "")
		c.AwaitReady(c.Start("n4", store.Formation{Peers: binds("n1", "n2", "n3"), JoinTimeout: storetest.Patience}, func(cfg *store.Config) { cfg.Nonvoter = true }))
		c.Await("the zone of the non-voter", func() bool { return zonesAre(c, zones...) })
		wantAlarm(t, c.Leader(), "")
		zones[0] = "c"
		upgrade(c, c.Node("n1"))
		c.Await("another zone", func() bool { return zonesAre(c, zones...) })
		wantAlarm(t, c.Leader(), `zone "c" (2 of 3 voters)`)
		zones[0] = ""
		upgrade(c, c.Node("n1"))
		c.Await("no zone", func() bool { return zonesAre(c, zones...) })
		wantAlarm(t, c.Leader(), "")
		c.AwaitSame()
	})
}

// A zone that is no name is refused before the log.
func TestZoneIsChecked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		c.AwaitKnown()
		leader := c.Leader()
		before := leader.Status().CommitIndex
		for _, zone := range []string{strings.Repeat("z", fsm.MaxNameLength+1), "eu/1", "eu\n1", "\xff"} {
			n := store.Hello{Cluster: storetest.Name, ID: "n4", Bind: "n4:7370", Addr: "n4:9800", Version: "test", Incarnation: "x", FeatureLevel: fsm.NewestLevel, Zone: zone}
			err := leader.AdmitNode(c.Context(), n)
			field, ok := errors.AsType[*fsm.FieldError](err)
			if !ok || field.Field != "zone" || field.Limit != "1 to 255 bytes of printable UTF-8 without '/'" {
				t.Errorf("%.20q: %v", zone, err)
			}
		}
		if st := leader.Status(); st.CommitIndex != before || len(st.Configuration) != 3 {
			t.Errorf("index %d, before %d; %v", st.CommitIndex, before, st.Configuration)
		}
	})
}
