// Command faults runs real registry processes, injects faults into them and
// into the network between them, and judges what many clients saw meanwhile.
//
//	go -C tests run ./faults -list                    # the kinds of faults, and what cannot run here
//	go -C tests run ./faults -kinds kill-leader -runs 3
//	go -C tests run ./faults -runs 20 -parallel 3     # everything: make faults
//
// Paths in flags are relative to the module tests, because of -C.
//
// It needs Linux and Go. As root, every node gets a network namespace of its
// own and links can be cut, lossy and slow; otherwise nodes are on loopback
// addresses and those kinds are skipped, which the table says. With /dev/fuse too,
// the power of nodes can be cut: see package disk.
//
// Nodes have a secret, TLS for clients and tokens, unless -plain.
//
// A run is: clients start to work; the fault is injected and taken back; the
// cluster becomes healthy again; clients work on for a while; then everything
// that they noted is checked (see packages load and check). A kind's runs share
// a cluster until one finds a violation. A violation is printed with the
// command that repeats its run, and its history and the nodes' logs are kept.
// The exit code is 1 if there was one, 3 if runs are missing, and 2 for a
// wrong flag.
//
// # Mutants
//
//	go -C tests run ./faults -mutant all              # make mutants
//	go -C tests run ./faults -mutant read-check,handshake -finders kinds
//
// A [Mutant] is the registry with one protection switched off, by a small edit
// of a source file that go build reads through an overlay: the sources stay as
// they are. A sync is left out by the disk instead, which also reaches those of
// raft, raft-wal and bbolt. Faults are injected into it until a run finds a violation, of those
// that the missing protection should cause, and the tests that should fail are
// run with it too. The exit code is 1 if something did not find it that should.
// The tables are in mutants.go and mutants_sync.go; go test fails when an edit does not fit its source
// any more. A new protection gets its line there.
//
// # A further kind
//
// A [Kind] is one value in a file kind_*.go, in the list that the file's name
// stands for; kinds gathers the lists. Its Inject does all of the fault: it
// says [Run.Fault] before it breaks something, naming the nodes that are not
// expected to work on, and [Run.Heal] when it begins to mend it, waits with
// [Run.Hold], and leaves every node running. What it cannot do here, Needs says.
package main
