package main

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// fake is one node that answers the public API from memory. fail, when set for
// a method, is what it answers instead.
type fake struct {
	registrypb.UnimplementedRegistryServer
	registrypb.UnimplementedClusterServer
	addr   string
	health *grpchealth.Server
	stop   func()       // as if the node were killed
	writes atomic.Int32 // changes that an operator asked for

	mu          sync.Mutex // guards all below
	index       uint64
	groups      map[string]*fakeGroup
	fail        map[string]error
	lost        bool // heartbeats answer that the lease is gone
	away        int  // deletions of groups that are not answered
	leaderless  bool
	fingerprint uint64
	nodes       []*registrypb.NodeStatus
	onStatus    func() // under the lock, before each answer
	batches     []int  // keys of each MatchMany
	events      chan string
	news        chan *registrypb.WatchEvent // for the watch that is open
	savedFile   []byte                      // that SaveSnapshot sends before it fails
	diagnosed   string                      // name of the file that Diagnose sends; empty: none
	diagnosing  chan struct{}               // closed by a Diagnose that then hangs; nil: it ends
}

type fakeGroup struct {
	config   *registrypb.GroupConfig
	members  []*registrypb.Member
	revision uint64 // if it is above those of the members
}

// startFake starts one that commands find by the environment.
func startFake(t *testing.T) *fake {
	t.Helper()
	f := newFake(t)
	t.Setenv("REGISTRY_ADDRS", f.addr)
	return f
}

// newFake starts one for tests that run beside others, which -registries finds.
func newFake(t *testing.T) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		addr: l.Addr().String(), health: grpchealth.NewServer(), groups: map[string]*fakeGroup{},
		fail: map[string]error{}, events: make(chan string, 64), news: make(chan *registrypb.WatchEvent),
	}
	s := grpc.NewServer()
	registrypb.RegisterRegistryServer(s, f)
	registrypb.RegisterClusterServer(s, f)
	healthpb.RegisterHealthServer(s, f.health)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	f.stop = func() { s.Stop(); <-done }
	t.Cleanup(f.stop)
	return f
}

// withWeb is a fake that has the group "web" with three members.
func withWeb(t *testing.T) *fake {
	return startFake(t).addWeb()
}

func (f *fake) addWeb() *fake {
	f.index = 40
	for i, m := range []struct {
		id     string
		weight uint32
		state  registrypb.MemberState
	}{{"web-1", 1, 0}, {"web-2", 2, 0}, {"web-3", 1, registrypb.MemberState_MEMBER_STATE_DRAINING}} {
		f.put("web", &registrypb.Member{
			Id: m.id, Addr: "10.0.0." + m.id[4:] + ":8080", Weight: m.weight, State: m.state,
			Meta: map[string]string{"zone": "a", "note": "x,y"}, Ttl: durationpb.New(10 * time.Second),
			CreatedIndex: uint64(41 + i), ModifiedIndex: uint64(41 + i),
			RegisteredAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		})
	}
	return f
}

func (f *fake) put(group string, m *registrypb.Member) {
	f.index++
	g := f.groups[group]
	if g == nil {
		g = &fakeGroup{config: &registrypb.GroupConfig{VirtualNodes: 64}}
		f.groups[group] = g
	}
	g.members = slices.DeleteFunc(g.members, func(o *registrypb.Member) bool { return o.Id == m.Id })
	g.members = append(g.members, m)
	slices.SortFunc(g.members, func(a, b *registrypb.Member) int { return strings.Compare(a.Id, b.Id) })
}

// failWith makes a method answer with a reason, or with nil as before.
func (f *fake) failWith(method string, code codes.Code, reason registrypb.ErrorDetail_Reason, text string) {
	st, err := status.New(code, text).WithDetails(&registrypb.ErrorDetail{Reason: reason})
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = st.Err()
}

// enter locks f and finds the group; the caller unlocks.
func (f *fake) enter(method, group string) (*fakeGroup, error) {
	f.mu.Lock()
	if err := f.fail[method]; err != nil {
		return nil, err
	}
	if g := f.groups[group]; g != nil {
		return g, nil
	}
	st, _ := status.New(codes.NotFound, "no group "+group).WithDetails(&registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_UNKNOWN_GROUP})
	return nil, st.Err()
}

func (g *fakeGroup) ring() *ring.Ring {
	members := make([]ring.Member, len(g.members))
	for i, m := range g.members {
		members[i] = ring.Member{ID: m.Id, Weight: int(m.Weight), State: ring.State(m.State)}
	}
	r, err := ring.New(ring.Params{VirtualNodes: int(g.config.VirtualNodes), Bound: int(g.config.Bound)}, members)
	if err != nil {
		panic(err)
	}
	return r
}

func (f *fake) receipt(g *fakeGroup) *registrypb.Receipt {
	r := &registrypb.Receipt{Index: f.index, Node: "n1", Fingerprint: f.fingerprint}
	if g != nil && r.Fingerprint == 0 {
		r.Fingerprint = g.ring().Fingerprint()
	}
	r.Revision = g.revision
	for _, m := range g.members {
		r.Revision = max(r.Revision, m.ModifiedIndex)
	}
	return r
}

func (f *fake) Register(_ context.Context, r *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["Register"]; err != nil {
		return nil, err
	}
	f.put(r.Group, &registrypb.Member{Id: r.Id, Addr: r.Addr, Weight: r.Weight, Meta: r.Meta, Ttl: r.Ttl, ModifiedIndex: f.index + 1})
	f.events <- "register " + r.Group + "/" + r.Id
	return &registrypb.RegisterResponse{LeaseId: f.index, Ttl: r.Ttl, Index: f.index, Instance: r.Instance, Revision: f.index}, nil
}

func (f *fake) Deregister(_ context.Context, r *registrypb.DeregisterRequest) (*registrypb.DeregisterResponse, error) {
	f.writes.Add(1)
	g, err := f.enter("Deregister", r.Group)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	before := len(g.members)
	g.members = slices.DeleteFunc(g.members, func(m *registrypb.Member) bool { return m.Id == r.Id && !(r.KeepHeld && m.Hold != nil) })
	f.events <- "deregister " + r.Group + "/" + r.Id
	return &registrypb.DeregisterResponse{Removed: len(g.members) < before, Index: f.index}, nil
}

func (f *fake) beat(r *registrypb.HeartbeatRequest) *registrypb.HeartbeatResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &registrypb.HeartbeatResponse{Term: 1}
	if f.lost {
		out.Lost = r.LeaseIds
	}
	return out
}

func (f *fake) Heartbeat(_ context.Context, r *registrypb.HeartbeatRequest) (*registrypb.HeartbeatResponse, error) {
	return f.beat(r), nil
}

func (f *fake) HeartbeatStream(s registrypb.Registry_HeartbeatStreamServer) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		f.mu.Lock()
		if err == nil {
			err = f.fail["HeartbeatStream"]
		}
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if err := s.Send(f.beat(r)); err != nil {
			return err
		}
	}
}

func (f *fake) MatchMany(_ context.Context, r *registrypb.MatchManyRequest) (*registrypb.MatchManyResponse, error) {
	g, err := f.enter("MatchMany", r.Group)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	f.batches = append(f.batches, len(r.Keys))
	built := g.ring()
	out := &registrypb.MatchManyResponse{Members: g.members, Receipt: f.receipt(g)}
	for _, key := range r.Keys {
		owners := built.MatchN(nil, string(key), int(max(r.N, 1)))
		out.OwnersPerKey = uint32(len(owners))
		for _, o := range owners {
			out.Owners = append(out.Owners, uint32(o))
		}
		out.Fallbacks = append(out.Fallbacks, uint32(built.Fallback(string(key))+1))
	}
	return out, nil
}

func (f *fake) Members(_ context.Context, r *registrypb.MembersRequest) (*registrypb.MembersResponse, error) {
	g, err := f.enter("Members", r.Group)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &registrypb.MembersResponse{Members: g.members, Config: g.config, Receipt: f.receipt(g)}, nil
}

func (f *fake) Groups(context.Context, *registrypb.GroupsRequest) (*registrypb.GroupsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &registrypb.GroupsResponse{Receipt: &registrypb.Receipt{Index: f.index}}
	for name, g := range f.groups {
		out.Groups = append(out.Groups, &registrypb.Group{Name: name, Config: g.config, Members: uint32(len(g.members)), Revision: f.receipt(g).Revision})
	}
	slices.SortFunc(out.Groups, func(a, b *registrypb.Group) int { return strings.Compare(a.Name, b.Name) })
	return out, f.fail["Groups"]
}

func (f *fake) SetGroup(_ context.Context, r *registrypb.SetGroupRequest) (*registrypb.SetGroupResponse, error) {
	f.writes.Add(1)
	g, err := f.enter("SetGroup", r.Group)
	defer f.mu.Unlock()
	if f.fail["SetGroup"] != nil {
		return nil, err
	}
	if g == nil {
		g = &fakeGroup{}
		f.groups[r.Group] = g
	}
	g.config = r.Config
	f.index++
	return &registrypb.SetGroupResponse{Index: f.index, Revision: f.index}, nil
}

func (f *fake) DeleteGroup(_ context.Context, r *registrypb.DeleteGroupRequest) (*registrypb.DeleteGroupResponse, error) {
	f.writes.Add(1)
	g, err := f.enter("DeleteGroup", r.Group)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if f.away > 0 {
		f.away--
		return nil, status.Error(codes.Unavailable, "away")
	}
	if len(g.members) > 0 && !r.Force {
		st, _ := status.New(codes.FailedPrecondition, "group has members").WithDetails(&registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_GROUP_NOT_EMPTY})
		return nil, st.Err()
	}
	delete(f.groups, r.Group)
	f.index++
	return &registrypb.DeleteGroupResponse{Index: f.index, Members: uint32(len(g.members))}, nil
}

func (f *fake) UpdateMember(_ context.Context, r *registrypb.UpdateMemberRequest) (*registrypb.UpdateMemberResponse, error) {
	f.writes.Add(1)
	g, err := f.enter("UpdateMember", r.Group)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if r.Hold != nil {
		f.events <- "hold " + r.Group + "/" + r.Id + " for " + r.Hold.AsDuration().String()
	}
	for _, m := range g.members {
		if m.Id != r.Id {
			continue
		}
		if r.Weight != nil {
			m.Weight = *r.Weight
		}
		if r.State != nil {
			m.State, m.Hold = *r.State, r.Hold
		}
	}
	f.index++
	return &registrypb.UpdateMemberResponse{Index: f.index, Revision: f.index}, nil
}

func (f *fake) Status(context.Context, *registrypb.StatusRequest) (*registrypb.StatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onStatus != nil {
		f.onStatus()
	}
	leader := "n1"
	if f.leaderless {
		leader = ""
	}
	return &registrypb.StatusResponse{Cluster: "registry", ClusterId: "5f1c0c7c6a0bd1a2c3d4e5f60718293a", Leader: leader, Term: 3, Nodes: f.nodes}, f.fail["Status"]
}

func (f *fake) Join(_ context.Context, r *registrypb.JoinRequest) (*registrypb.JoinResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &registrypb.JoinResponse{Id: "at-" + r.Bind}, f.fail["Join"]
}

func (f *fake) Remove(context.Context, *registrypb.RemoveRequest) (*registrypb.RemoveResponse, error) {
	f.writes.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return &registrypb.RemoveResponse{}, f.fail["Remove"]
}

func (f *fake) Leave(_ context.Context, r *registrypb.LeaveRequest) (*registrypb.LeaveResponse, error) {
	f.writes.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events <- "leave " + r.Id
	return &registrypb.LeaveResponse{}, f.fail["Leave"]
}

func (f *fake) Transfer(_ context.Context, r *registrypb.TransferRequest) (*registrypb.TransferResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &registrypb.TransferResponse{Leader: r.Id + "!"}, f.fail["Transfer"]
}

func (f *fake) Guard(_ context.Context, r *registrypb.GuardRequest) (*registrypb.GuardResponse, error) {
	g, err := f.enter("Guard", r.Group)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &registrypb.GuardResponse{
		Phase: registrypb.GuardResponse_PHASE_HOLDING, Members: uint32(len(g.members)), Silent: 2, Lost: 2,
		Returned: 1, HoldLeft: durationpb.New(1500 * time.Millisecond),
	}, nil
}

func (f *fake) Index(context.Context, *registrypb.IndexRequest) (*registrypb.IndexResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &registrypb.IndexResponse{Index: f.index}, nil
}

func (f *fake) AcceptLoss(context.Context, *registrypb.AcceptLossRequest) (*registrypb.AcceptLossResponse, error) {
	f.writes.Add(1)
	return &registrypb.AcceptLossResponse{Silent: 2}, nil
}
