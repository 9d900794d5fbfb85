// Package registrytest starts a cluster of registry nodes in the process of a
// test, for the tests of programs that use the registry.
//
//	func TestRouter(t *testing.T) {
//		c := registrytest.Start(t) // or Start(t, registrytest.WithNodes(3))
//		router := NewRouter(c.Client())
//		…
//	}
//
// Everything ends with the test: clients are closed, nodes stopped, data
// removed, no goroutine is left. A helper that does not succeed within [Patience]
// fails the test with what it waited for. Helpers are called from the test's own
// goroutine, as [testing.T.FailNow] demands; the clients are for any.
//
// # Limits
//
// Nodes listen on loopback, write to [testing.TB.TempDir] and are real but for
// one thing: they end in order. A node that stops hands leadership over first,
// so a test sees connections break and calls go elsewhere, but not the pause that
// a crash costs. There are no faults of disks and of the network, and no clock
// to turn: a lease takes its TTL to end, at least 1 s. For those, run the
// registry's binary.
package registrytest
