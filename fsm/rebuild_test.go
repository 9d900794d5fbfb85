package fsm

import (
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// TestNoStepToTheSameRevision: a build that is under way may take up a state
// before the change that made it asks for a build.
func TestNoStepToTheSameRevision(t *testing.T) {
	m := New()
	data, err := Encode(&fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: "web", Id: "a", Addr: "a:1", Weight: 1, TtlMs: 10_000, Instance: []byte("one"),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	m.Apply([]Entry{{Index: 1, Term: 1, Data: data}})
	g := m.State().Group("web")
	if _, err := g.WaitRing(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	m.rings.build(g)
	m.rings.wg.Wait()
	m.Close()
	for _, c := range g.cell.feed.changes {
		if c.From >= c.Revision {
			t.Errorf("a step from revision %d to %d", c.From, c.Revision)
		}
	}
}
