package store_test

import (
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/store/storetest"
)

// A transfer without a target chooses a voter that answers.
func TestTransferChoosesARunningVoter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
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
	})
}
