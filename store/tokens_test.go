package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// token returns fields that begin with the name, and the rights on all groups.
func token(name string, rights fsm.Right) *fsmpb.Token {
	return &fsmpb.Token{
		Id: tokenBytes(name, fsm.TokenIDSize), Name: name, Hash: tokenBytes(name, fsm.TokenHashSize),
		Grants: []*fsmpb.Grant{{Rights: uint32(rights)}},
	}
}

func tokenBytes(name string, size int) []byte {
	return append([]byte(name), make([]byte, size)...)[:size]
}

func createToken(name string, rights fsm.Right) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{Token: token(name, rights), First: name == "root"}}}
}

func registerFor(tokenName, id string) *fsmpb.Command {
	cmd := register("web", id, time.Minute)
	cmd.GetRegister().Token = tokenBytes(tokenName, fsm.TokenIDSize)
	return cmd
}

// writeTokens creates, rotates and revokes tokens, and registers member a for one.
func writeTokens(c *storetest.Cluster) {
	c.Write(createToken("root", fsm.Discover|fsm.Register|fsm.Operate|fsm.Admin))
	c.Write(createToken("agents", fsm.Register))
	c.Write(createToken("gone", fsm.Discover))
	c.Write(registerFor("agents", "a"))
	c.Write(&fsmpb.Command{Op: &fsmpb.Command_RotateToken{RotateToken: &fsmpb.RotateToken{
		Id: tokenBytes("agents", fsm.TokenIDSize), Hash: tokenBytes("new", fsm.TokenHashSize), PreviousExpiresMs: 1 << 41,
	}}})
	c.Write(&fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: tokenBytes("gone", fsm.TokenIDSize)}}})
}

type heldTokens struct {
	Tokens   []fsm.Token
	Revision uint64
	Owner    string // of member a
}

func tokensOf(s *fsm.State) heldTokens {
	h := heldTokens{Revision: s.TokensRevision()}
	for t := range s.Tokens {
		h.Tokens = append(h.Tokens, *t)
	}
	if m := member(s, "web", "a"); m != nil {
		h.Owner = m.Token
	}
	return h
}

func sameTokens(t *testing.T, was heldTokens, n *storetest.Node) {
	t.Helper()
	if len(was.Tokens) != 2 || was.Owner == "" {
		t.Fatalf("before: %+v", was)
	}
	if diff := cmp.Diff(was, tokensOf(n.State()), cmpopts.IgnoreUnexported(fsm.Token{})); diff != "" {
		t.Errorf("other tokens (-was +is):\n%s", diff)
	}
}

func TestTokensSurviveRestart(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, kind)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		writeTokens(c)
		was := tokensOf(n.State())
		n.Kill()
		n = c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		sameTokens(t, was, n)
	})
}

// Part of the tokens comes from the snapshot, which the log no longer has, and part
// from the log.
func TestTokensSurviveSnapshot(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, few, kind)
		n := c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		c.Write(createToken("root", fsm.Admin))
		c.Write(registerFor("root", "a"))
		for i := range 40 {
			c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		}
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		if first := n.Metrics().FirstIndex; first <= n.State().TokensRevision() {
			t.Fatalf("the log begins with entry %d, the token is of %d: the test shows nothing", first, n.State().TokensRevision())
		}
		c.Write(createToken("agents", fsm.Register))
		was := tokensOf(n.State())
		n.Kill()
		n = c.Start("n1", store.Formation{})
		c.AwaitReady(n)
		sameTokens(t, was, n)
	})
}

// A follower that is far behind gets them with another node's snapshot.
func TestTokensSurviveInstall(t *testing.T) {
	t.Parallel()
	eachLog(t, func(t *testing.T, kind func(*store.Config)) {
		c := storetest.New(t, few, kind)
		c.Three()
		leader, behind := c.Leader(), follower(c)
		behind.Kill()
		writeTokens(c)
		for i := range 100 {
			c.Write(register("web", fmt.Sprint("m", i), time.Minute))
		}
		if err := leader.Snapshot(); err != nil {
			t.Fatal(err)
		}
		seen := &restores{}
		back := c.Start(behind.ID, store.Formation{}, func(cfg *store.Config) { cfg.Observers = []fsm.Observer{seen} })
		c.AwaitReady(back)
		if seen.n.Load() == 0 {
			t.Error("the follower caught up without a snapshot")
		}
		sameTokens(t, tokensOf(leader.State()), back)
		c.AwaitSame()
	})
}

// A token that differs from what the log gave is found like a member that does: by the
// comparison with the others, or by the node's own check of its memory.
func TestWrongTokenIsFound(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]func(c *storetest.Cluster, n *storetest.Node) error{
		"by the others": func(c *storetest.Cluster, n *storetest.Node) error {
			err := n.Corrupt(createToken("ghost", fsm.Admin))
			c.Write(register("web", "b", time.Minute)) // a check entry follows
			return err
		},
		"in memory": func(_ *storetest.Cluster, n *storetest.Node) error {
			n.State().TokenNamed("agents").Grants[0].Rights = fsm.Admin
			n.Scrub()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := storetest.New(t, checkOften)
			c.Three()
			writeTokens(c)
			c.AwaitSame()
			n := follower(c)
			if err := alter(c, n); err != nil {
				t.Fatal(err)
			}
			c.Await("the node to reinstall its state", func() bool { return n.Metrics().Reinstalls > 0 })
			c.Await("the node to answer again", func() bool { return n.Serving() == nil })
			c.AwaitSame()
			if s := n.State(); s.TokenNamed("ghost") != nil || s.TokenNamed("agents").Allows(fsm.Admin, "") {
				t.Errorf("%+v, %+v", s.TokenNamed("ghost"), s.TokenNamed("agents"))
			}
		})
	}
}
