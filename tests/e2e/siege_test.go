package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// siege is a locked cluster whose nodes have each a secret file of its own.
type siege struct {
	*cluster
	secrets map[string]string // files, by the node's id
}

func startSiege(t *testing.T, secret string) *siege {
	t.Helper()
	lock(t)
	s := &siege{&cluster{t: t}, make(map[string]string)}
	for i := range 3 {
		n := newNode(t, fmt.Sprintf("node-%d", i+1))
		s.secrets[n.id] = filepath.Join(t.TempDir(), "secret")
		writeFile(t, s.secrets[n.id], secret)
		n.start(s.flags(n)...)
		s.nodes = append(s.nodes, n)
	}
	s.settled(3)
	initTokens(t, nil, s.nodes[0].addr)
	s.settled(3)
	return s
}

// flags are those that a node is started with, for the first time or again.
func (s *siege) flags(n *node) []string {
	flags := []string{"-secret-file", s.secrets[n.id]}
	if len(s.nodes) > 0 {
		flags = append(flags, "-registries", s.nodes[0].bind)
	}
	return flags
}

// newSecretText makes a secret by the command.
func newSecretText(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(ok(t, "secret", "new"))
}

// writeFile replaces a file in one step.
func writeFile(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// attack makes refused handshakes, calls with wrong tokens and calls without a request at
// both ports of all nodes, until the result is called.
func (s *siege) attack(t *testing.T) (end func()) {
	t.Helper()
	pem, err := os.ReadFile(tlsFile("ca.crt"))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("no authority: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, n := range s.nodes {
		target := &lockedNode{node: n, ca: pool}
		conn := target.connect(t)
		all.Go(func() {
			pace := time.NewTicker(50 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				target.refusedHandshakes(14)
				_, _ = conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/registry.v1.Registry/Match") // its request never comes
				_ = conn.Invoke(ctx, "/registry.v1.Registry/Nothing", nil, nil)
				<-pace.C
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// reload replaces a node's secrets and waits until it has read them.
func (s *siege) reload(n *node, secrets ...string) {
	s.t.Helper()
	const text = "the files for the bind port were read again"
	before := strings.Count(n.log.text(), text)
	writeFile(s.t, s.secrets[n.id], secrets...)
	n.send(sigHup)
	eventually(s.t, patience, n.id+" reads its secrets", func() error {
		if strings.Count(n.log.text(), text) == before {
			return fmt.Errorf("it does not say so")
		}
		return nil
	})
}

// TestLockedClusterUnderAttack replaces the nodes' secret by its three steps, while both
// ports of all nodes are attacked and an honest client calls; then it floods a node with
// SIGHUPs while its files change, and kills the leader. No call of the honest client fails
// before that; a node with the old secret cannot join any more, and one with the new one can.
func TestLockedClusterUnderAttack(t *testing.T) {
	needSignal(t, sigHup)
	oldSecret, newSecret := newSecretText(t), newSecretText(t)
	s := startSiege(t, oldSecret)
	honest := startHonest(t, dial(t, s.addrs()))
	honest.serves(t)
	end := s.attack(t)
	defer end()
	began := time.Now()
	for _, secrets := range [][]string{{oldSecret, newSecret}, {newSecret, oldSecret}, {newSecret}} {
		for _, n := range s.nodes {
			s.reload(n, secrets...)
		}
		honest.serves(t)
	}
	honest.unharmed(t)
	t.Logf("three steps in %v; an honest client meanwhile: %s", ms(time.Since(began)), honest.figures())

	leader, others := s.leader()
	began = time.Now()
	hups := s.flood(leader, newSecret)
	honest.serves(t)
	honest.unharmed(t)
	t.Logf("%d SIGHUPs in %v; an honest client meanwhile: %s", hups, ms(time.Since(began)), honest.figures())

	joiner := newNode(t, "node-4")
	joins := func(secret string) *process {
		file := filepath.Join(t.TempDir(), "secret")
		writeFile(t, file, secret)
		return start(t, command{name: joiner.id, args: joiner.args("-secret-file", file, "-registries", others[0].bind)})
	}
	stale := joins(oldSecret)
	stale.says("another secret", patience)
	if st, err := statusOf(t, others[0].addr); err != nil || len(st.Nodes) != 3 {
		t.Errorf("a node with the old secret: %v, %v", st, err)
	}
	stale.kill()
	joiner.process = joins(newSecret)
	s.nodes = append(s.nodes, joiner)
	s.settled(4)

	leader.kill()
	_, took := newLeader(t, others[0], leader.id)
	t.Logf("a new leader %v after the old one's death", ms(took))
	honest.serves(t)
	end()
	leader.start(s.flags(leader)...)
	s.settled(4)
	honest.end()
}

// flood sends SIGHUPs to a node while its secret file is now valid, now missing, now
// broken. The valid one is there at the end.
func (s *siege) flood(n *node, secret string) (sent int) {
	s.t.Helper()
	path := s.secrets[n.id]
	for round := range 100 {
		for _, lines := range [][]string{{secret}, {"broken"}, {}, {secret, secret}, {secret[:20]}} {
			writeFile(s.t, path, lines...)
			if round%5 == 0 && slices.Equal(lines, []string{"broken"}) {
				if err := os.Remove(path); err != nil {
					s.t.Fatal(err)
				}
			}
			n.send(sigHup)
			sent++
		}
	}
	s.reload(n, secret, newSecretText(s.t)) // a change that it tells of
	s.reload(n, secret)
	return sent
}
