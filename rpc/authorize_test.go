package rpc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// serverOf is a server of a node without listeners.
func serverOf(t *testing.T, n *storetest.Node) *Server {
	t.Helper()
	s, err := New(Config{Store: n.Store, Peers: NewPeers(nil)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.peers.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// makeToken writes a token; the first one has all rights.
func makeToken(c *storetest.Cluster, name string, first bool, rights fsm.Right) (text string, id []byte) {
	text, id, hash := registrypb.MakeToken()
	c.Write(&fsmpb.Command{Op: &fsmpb.Command_CreateToken{CreateToken: &fsmpb.CreateToken{
		First: first, Token: &fsmpb.Token{Id: id, Hash: hash, Name: name, Grants: []*fsmpb.Grant{{Rights: uint32(rights)}}},
	}}})
	return text, id
}

func revoke(c *storetest.Cluster, id []byte) {
	c.Write(&fsmpb.Command{Op: &fsmpb.Command_RevokeToken{RevokeToken: &fsmpb.RevokeToken{Id: id}}})
}

const every = fsm.Discover | fsm.Register | fsm.Operate | fsm.Admin

// presenting is the context of a call that presents a token; "" for none.
func presenting(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.NewIncomingContext(ctx, metadata.Pairs(registrypb.AuthorizationHeader, "Bearer "+token))
}

// A server with a method that nobody guards does not start: etcd CVE-2026-33413,
// ZooKeeper CVE-2025-58457 and Vault CVE-2022-36129 were such methods.
func TestUnguardedMethodIsRefused(t *testing.T) {
	extra := grpc.ServiceDesc{
		ServiceName: "extra.Service", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary"}}, Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true}},
	}
	for _, at := range []port{clientPort, bindPort} {
		s := grpc.NewServer()
		if err := checkPermissions(map[port]*grpc.Server{at: s}); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		s.RegisterService(&extra, struct{}{})
		if got := unguarded(s, at); !slices.Equal(got, []string{"/extra.Service/Stream", "/extra.Service/Unary"}) {
			t.Errorf("%s: %q", at, got)
		}
		if err := checkPermissions(map[port]*grpc.Server{at: s}); err == nil {
			t.Errorf("%s: it starts", at)
		}
	}
}

// A method without a permission is denied, too, should it ever be called.
func TestUnknownMethodIsDenied(t *testing.T) {
	c := storetest.New(t)
	a := serverOf(t, c.Open("n1")).authorizer(clientPort)
	if _, err := a.call(t.Context(), "/extra.Service/Unary").decide(nil, nil); !errors.Is(err, auth.ErrDenied) {
		t.Error(err)
	}
}

// requestOf is a request of a method, for its needs.
var requestOf = map[string]any{
	registrypb.Registry_Register_FullMethodName:     &registrypb.RegisterRequest{Group: "web"},
	registrypb.Registry_RegisterMany_FullMethodName: &registrypb.RegisterManyRequest{Registrations: []*registrypb.RegisterRequest{{Group: "web"}}},
	registrypb.Registry_Deregister_FullMethodName:   &registrypb.DeregisterRequest{Group: "web"},
	registrypb.Registry_Match_FullMethodName:        &registrypb.MatchRequest{Group: "web"},
	registrypb.Registry_MatchMany_FullMethodName:    &registrypb.MatchManyRequest{Group: "web"},
	registrypb.Registry_Members_FullMethodName:      &registrypb.MembersRequest{Group: "web"},
	registrypb.Registry_Groups_FullMethodName:       &registrypb.GroupsRequest{},
	registrypb.Registry_SetGroup_FullMethodName:     &registrypb.SetGroupRequest{Group: "web"},
	registrypb.Registry_DeleteGroup_FullMethodName:  &registrypb.DeleteGroupRequest{Group: "web"},
	registrypb.Registry_UpdateMember_FullMethodName: &registrypb.UpdateMemberRequest{Group: "web"},
	registrypb.Registry_AcceptLoss_FullMethodName:   &registrypb.AcceptLossRequest{Group: "web"},
	registrypb.Registry_Guard_FullMethodName:        &registrypb.GuardRequest{Group: "web"},
	registrypb.Registry_Watch_FullMethodName:        &registrypb.WatchRequest{},
	registrypb.Cluster_Status_FullMethodName:        &registrypb.StatusRequest{},
	discoveryRoute:                                  &registrypb.GroupsRequest{},
}

// wantUndecided: a node that has not caught up lets no call through, whatever its
// state has. What is passed on to the leader has no effect here.
func wantUndecided(t *testing.T, s *Server, token string) {
	t.Helper()
	for method, p := range permissions {
		if p.access != byToken {
			continue
		}
		ctx := presenting(t.Context(), token)
		c := s.authorizer(clientPort).call(ctx, method)
		req := requestOf[method]
		err := c.authorize(req)
		switch {
		case !p.early && !errors.Is(err, store.ErrNotReady):
			t.Errorf("%s: %v", method, err)
		case p.early && err == nil:
			ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			if err := c.asLeader(ctx); !errors.Is(err, store.ErrNotLeader) && !errors.Is(err, store.ErrBusy) {
				t.Errorf("%s does its work: %v", method, err)
			}
			cancel()
		}
	}
}

// A node that joins, and knows nothing yet.
func TestJoinerLetsNoCallThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		s := serverOf(t, c.Open("n1"))
		wantUndecided(t, s, "")
		if _, err := s.Register(callOn(t, s, registrypb.Registry_Register_FullMethodName, &registrypb.RegisterRequest{Group: "web"}, ""), &registrypb.RegisterRequest{Group: "web", Id: "w", Addr: "10.0.0.1:80"}); reasonOf(err) != registrypb.ErrorDetail_NO_LEADER {
			t.Errorf("register: %v", err)
		}
		if _, err := s.Status(callOn(t, s, registrypb.Cluster_Status_FullMethodName, &registrypb.StatusRequest{}, ""), &registrypb.StatusRequest{Group: "web"}); reasonOf(err) != registrypb.ErrorDetail_NO_LEADER {
			t.Errorf("the status of a group: %v", err)
		}
	})
}

// callOn is the context that the interceptor gives a handler, with a deadline.
func callOn(t *testing.T, s *Server, method string, req any, token string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(presenting(t.Context(), token), 300*time.Millisecond)
	t.Cleanup(cancel)
	c := s.authorizer(clientPort).call(ctx, method)
	if err := c.authorize(req); err != nil {
		t.Fatal(err)
	}
	return context.WithValue(ctx, callKey{}, c)
}

// A node that restarts without a quorum does not know the tokens that were made while
// it was down, or that one it knows was revoked.
func TestRestartedMinorityLetsNoCallThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		down := c.Node("n3")
		if c.Leader() == down {
			down = c.Node("n1")
		}
		down.Kill()
		root, _ := makeToken(c, "root", true, every)
		for _, n := range c.Nodes() {
			n.Kill()
		}
		restarted := c.Open(down.ID)
		if restarted.State().TokensOn() {
			t.Fatal("it knows the token")
		}
		s := serverOf(t, restarted)
		for _, token := range []string{"", root} {
			wantUndecided(t, s, token)
		}
	})
}

// blocking is an observer that stops the state machine at a member's registration.
type blocking struct{ reached, release chan struct{} }

func (b blocking) Applied(u *fsm.Update) {
	if g := u.State.Group("stop"); g != nil {
		select {
		case <-b.reached:
		default:
			close(b.reached)
			<-b.release
		}
	}
}

func (blocking) Restored(*fsm.State) {}

// threeWithBlocking starts three nodes, of which n2 follows and has a blocking observer.
func threeWithBlocking(t *testing.T, c *storetest.Cluster) (n2, lead *storetest.Node, stop blocking) {
	t.Helper()
	stop = blocking{make(chan struct{}), make(chan struct{})}
	c.Three(func(cfg *store.Config) {
		if cfg.ID == "n2" {
			cfg.Observers = append(cfg.Observers, stop)
		}
	})
	if lead = c.Leader(); lead.ID == "n2" {
		if err := lead.Transfer(c.Context(), "n1"); err != nil {
			t.Fatal(err)
		}
	}
	c.Await("n1 or n3 to lead", func() bool { lead = c.Leader(); return lead.ID != "n2" })
	return c.Node("n2"), lead, stop
}

// A new leader has not applied all that was acknowledged before its term. It refuses a
// token that was revoked under the leader before it, and nobody writes there after
// tokens were turned on.
func TestNewLeaderWaitsForTheTokens(t *testing.T) {
	t.Parallel()
	for name, turnOn := range map[string]bool{"revoked": false, "turned on": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testNewLeader(t, turnOn) })
		})
	}
}

func testNewLeader(t *testing.T, turnOn bool) {
	c := storetest.New(t)
	n2, lead, stop := threeWithBlocking(t, c)
	s, token, id := serverOf(t, n2), "", []byte(nil)
	if !turnOn {
		makeToken(c, "root", true, every)
		token, id = makeToken(c, "agent", false, fsm.Register)
		c.Await("the token at n2", func() bool { return n2.State().TokenNamed("agent") != nil })
	}
	c.Write(register("stop", "a", "10.0.0.1:80"))
	<-stop.reached
	if turnOn {
		makeToken(c, "root", true, every)
	} else {
		revoke(c, id)
	}
	if err := lead.Transfer(c.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	c.Await("n2 to lead", n2.IsLeader)
	req := &registrypb.RegisterRequest{Group: "web", Id: "w", Addr: "10.0.0.1:80"}
	ctx := callOn(t, s, registrypb.Registry_Register_FullMethodName, req, token)
	if err := callOf(ctx).asLeader(ctx); !errors.Is(err, store.ErrBusy) {
		t.Errorf("before the first entry of the term: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storetest.Patience)
	defer cancel()
	time.AfterFunc(50*time.Millisecond, func() { close(stop.release) }) // while Register waits
	_, err := s.Register(ctx, req)
	if reasonOf(err) != registrypb.ErrorDetail_UNAUTHENTICATED {
		t.Errorf("register: %v", err)
	}
}

// A write that may have taken effect is not reported as refused.
func TestRefusedRetryLeavesTheOutcomeUnknown(t *testing.T) {
	for _, err := range []error{auth.ErrUnauthenticated, auth.ErrDenied} {
		if rejected(toStatus(err)) {
			t.Errorf("%v tells that no attempt took effect", err)
		}
	}
	if !rejected(fsm.ErrConflict) {
		t.Error("a conflict is no rejection")
	}
}

// A retry that finds no such token does not tell whether the attempt before revoked it.
func TestRetriedRevocationLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		s := serverOf(t, c.Leader())
		req := &registrypb.RevokeTokenRequest{Name: "agent"}
		ctx := callOn(t, s, registrypb.Tokens_Revoke_FullMethodName, req, "")
		outcomes := []error{store.ErrOutcomeUnknown, fsm.ErrUnknownToken}
		_, err := onLeader(ctx, s, registrypb.Tokens_Revoke_FullMethodName, req, func(context.Context, *registrypb.RevokeTokenRequest) (*registrypb.RevokeTokenResponse, error) {
			err := outcomes[0]
			outcomes = outcomes[1:]
			return nil, err
		})
		if reasonOf(err) != registrypb.ErrorDetail_OUTCOME_UNKNOWN {
			t.Error(err)
		}
	})
}

// A retry that finds no such node ends a removal whose outcome was unknown.
func TestRetriedRemovalSucceeds(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	c.Together(1)
	s := serverOf(t, c.Leader())
	req := &registrypb.RemoveRequest{Id: "n9"}
	ctx := callOn(t, s, registrypb.Cluster_Remove_FullMethodName, req, "")
	for _, outcomes := range [][]error{{store.ErrOutcomeUnknown, store.ErrUnknownNode}, {store.ErrUnknownNode}} {
		first := outcomes[0]
		_, err := onLeader(ctx, s, registrypb.Cluster_Remove_FullMethodName, req, func(context.Context, *registrypb.RemoveRequest) (*registrypb.RemoveResponse, error) {
			err := outcomes[0]
			outcomes = outcomes[1:]
			return nil, err
		})
		if failed := reasonOf(err) == registrypb.ErrorDetail_UNKNOWN_NODE; failed != errors.Is(first, store.ErrUnknownNode) || err != nil && !failed {
			t.Errorf("first %v, then %v", first, err)
		}
	}
}

// A read that waits for an index shows nothing of a state in which its token is revoked.
func TestWaitingReadEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		makeToken(c, "root", true, every)
		token, id := makeToken(c, "agent", false, fsm.Discover)
		c.Write(register("web", "a", "10.0.0.1:80"))
		n := c.Leader()
		s, index := serverOf(t, n), n.State().Index()
		for method, call := range map[string]func(context.Context, *registrypb.ReadOptions) error{
			registrypb.Registry_Members_FullMethodName: func(ctx context.Context, read *registrypb.ReadOptions) error {
				_, err := s.Members(ctx, &registrypb.MembersRequest{Group: "web", Read: read})
				return err
			},
			registrypb.Registry_Match_FullMethodName: func(ctx context.Context, read *registrypb.ReadOptions) error {
				_, err := s.Match(ctx, &registrypb.MatchRequest{Group: "web", Key: []byte("k"), Read: read})
				return err
			},
		} {
			ctx := context.WithoutCancel(callOn(t, s, method, requestOf[method], token)) // decided before
			defer func() {
				if err := call(ctx, &registrypb.ReadOptions{MinIndex: index + 2}); reasonOf(err) != registrypb.ErrorDetail_UNAUTHENTICATED {
					t.Errorf("%s: %v", method, err)
				}
			}()
		}
		revoke(c, id)
		c.Write(register("web", "b", "10.0.0.2:80"))
	})
}
