package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

const emptyAfter = 10 * time.Second

func deletingEmpty(cfg *store.Config) { cfg.DeleteEmptyAfter = emptyAfter }

// visit registers a member and deregisters it: the group is left empty.
func visit(c *storetest.Cluster, group, id string) {
	c.Write(register(group, id, 24*time.Hour))
	c.Write(deregister(group, id))
}

// lives lets virtual time pass and checks the groups that there are then.
func lives(t *testing.T, c *storetest.Cluster, d time.Duration, want map[string]bool) {
	t.Helper()
	time.Sleep(d) // virtual
	for group, there := range want {
		if got := c.Leader().State().Group(group) != nil; got != there {
			t.Errorf("group %s is there: %v, want %v", group, got, there)
		}
	}
}

// A group that stays empty goes; one with a member or with settings stays, and one that was
// used in between has its whole time again.
func TestEmptyGroupIsDeleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, deletingEmpty)
		c.Three()
		for _, g := range []string{"idle", "used", "settings"} {
			visit(c, g, "first")
		}
		c.Write(register("full", "stays", 24*time.Hour))
		c.Write(setGroup("settings", 512))
		c.Write(&fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: "bound", VirtualNodes: 256, Bound: 1100}}})

		lives(t, c, emptyAfter*3/4, map[string]bool{"idle": true, "used": true})
		visit(c, "used", "second")
		lives(t, c, emptyAfter/2, map[string]bool{"idle": false, "used": true, "full": true, "settings": true, "bound": true})
		lives(t, c, emptyAfter*3/4, map[string]bool{"used": false, "full": true, "settings": true, "bound": true})
		if got := c.Leader().Metrics().EmptyDeleted; got != 2 {
			t.Errorf("%d groups were counted as deleted, want 2", got)
		}
	})
}

// Another leader does not know since when a group is empty, and counts anew.
func TestNewLeaderCountsEmptyGroupsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, deletingEmpty)
		c.Three()
		visit(c, "idle", "first")
		time.Sleep(emptyAfter * 3 / 4) // virtual
		c.Leader().Kill()
		lives(t, c, emptyAfter/2, map[string]bool{"idle": true})
		lives(t, c, emptyAfter*3/4, map[string]bool{"idle": false})
	})
}

func TestEmptyGroupStaysByDefault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		visit(c, "idle", "first")
		lives(t, c, 2*emptyAfter, map[string]bool{"idle": true})
	})
}

// A group that got settings after it was looked at stays.
func TestChangedGroupIsNotDeleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		visit(c, "idle", "first")
		visit(c, "gone", "first")
		leader := c.Leader()
		before := leader.State()
		c.Write(setGroup("idle", 512))
		c.Write(&fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: &fsmpb.DeleteGroup{Group: "gone"}}})
		if err := leader.DeleteEmpty(c.Context(), before); err != nil {
			t.Errorf("what changed since is an error: %v", err)
		}
		lives(t, c, 0, map[string]bool{"idle": true})
		if err := leader.DeleteEmpty(c.Context(), leader.State()); err != nil || leader.Metrics().EmptyDeleted != 0 {
			t.Errorf("%v, %d deleted", err, leader.Metrics().EmptyDeleted)
		}
	})
}

// More groups than are deleted in one check go in the next ones.
func TestManyEmptyGroupsAreDeleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t, deletingEmpty)
		c.Three()
		leader := c.Leader()
		var writes []store.Write
		for i := range 1100 {
			writes = append(writes, store.Write{Command: setGroup(fmt.Sprintf("group-%d", i), ring.DefaultVirtualNodes)})
		}
		for _, out := range leader.WriteMany(c.Context(), writes) {
			if out.Err != nil {
				t.Fatal(out.Err)
			}
		}
		time.Sleep(2 * emptyAfter) // virtual
		if got := leader.State().GroupCount(); got != 0 {
			t.Errorf("%d groups are left", got)
		}
		c.AwaitSame()
	})
}
