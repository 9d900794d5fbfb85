package e2e

import "testing"

// TestRollingRestartOfNodes restarts the nodes of a cluster one after another, as
// docs/operations/upgrade.md says, under load. Nothing acknowledged is lost, no live
// member is dropped, no watch has a gap, and no SDK caller gets an error. It does so three
// times, and with REGISTRY_LONG_TESTS=1 fifteen times.
func TestRollingRestartOfNodes(t *testing.T) {
	needSignal(t, sigTerm)
	c := startCluster(t, 3)
	l := startOpenLoad(t, c)
	rounds := 3 * rollRounds()
	if raceEnabled {
		rounds = 1
	}
	for range rounds {
		rollNodes(t, c, l, "restart", func(n *node) { n.start() })
	}
	l.finish(c)
}
