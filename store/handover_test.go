package store_test

import (
	"testing"

	"github.com/werbenhu/registry/store/storetest"
)

// Raft gives leadership to the one that it sent the latest entry to, also when
// that one has ended since.
func TestLeadershipGoesToOneThatRuns(t *testing.T) {
	t.Parallel()
	for _, dead := range []string{"n2", "n3"} {
		c := storetest.New(t)
		c.Three()
		leader := leading(t, c, "n1")
		c.AwaitSame()
		c.Node(dead).Kill()
		if err := leader.Transfer(c.Context(), ""); err != nil {
			t.Errorf("with %s down: %v", dead, err)
		}
	}
}
