package sdk

import (
	"context"
	"fmt"
	"hash/fnv"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// fakeCluster is a registry without replication: its nodes share one state and
// answer over real gRPC. Tests script their faults.
type fakeCluster struct {
	t     *testing.T
	nodes []*fakeNode

	mu            sync.Mutex
	index         uint64
	id            string // of the cluster
	leader        string // address named by heartbeat answers
	registrations map[string]*fakeRegistration
	leases        map[uint64]*fakeRegistration
	beats         map[uint64]int
	batches       []int // leases of each heartbeat message
	streams       int   // opened so far

	cut       int  // elements of a page and of a piece; 0: any number
	watched   bool // groups are those with histories
	histories map[string]*fakeHistory
	news      chan struct{} // closed when a history changes
}

type fakeRegistration struct {
	member   *registrypb.Member
	lease    uint64
	instance string
	fenced   map[string]bool
}

// fakeNode is one node. hook, when set, runs before a call and may return its
// error; a heartbeat message is the method "Heartbeat".
type fakeNode struct {
	registrypb.UnimplementedRegistryServer
	registrypb.UnimplementedClusterServer
	registrypb.UnimplementedTokensServer
	cl   *fakeCluster
	id   string
	addr string
	srv  *grpc.Server

	mu    sync.Mutex
	hook  func(ctx context.Context, method string, req any) error
	calls map[string]int

	pinned map[string]int                                      // versions of a group it knows; guarded by cl.mu
	broken chan struct{}                                       // ends open streams
	alter  func(*registrypb.WatchEvent) *registrypb.WatchEvent // of what is sent
	lag    time.Duration
	mute   bool // no progress

	foreign  string // the cluster, NAME/ID, that the node is of instead; guarded by cl.mu
	unnamed  bool   // of a version that names no cluster and compares none
	trusting bool   // names its cluster and takes calls for another; guarded by cl.mu
}

func newFakeCluster(t *testing.T, n int) *fakeCluster {
	t.Helper()
	cl := &fakeCluster{
		t: t, index: 100, id: "cluster-1", registrations: map[string]*fakeRegistration{}, leases: map[uint64]*fakeRegistration{}, beats: map[uint64]int{},
	}
	for i := range n {
		cl.nodes = append(cl.nodes, cl.start(fmt.Sprintf("node-%d", i), ""))
	}
	return cl
}

func (cl *fakeCluster) start(id, addr string) *fakeNode {
	cl.t.Helper()
	lis, addr := listenFake(cl.t, addr)
	n := &fakeNode{cl: cl, id: id, addr: addr, calls: map[string]int{}}
	n.srv = grpc.NewServer(grpc.UnaryInterceptor(n.unary), grpc.StreamInterceptor(n.stream))
	registrypb.RegisterRegistryServer(n.srv, n)
	registrypb.RegisterClusterServer(n.srv, n)
	registrypb.RegisterTokensServer(n.srv, n)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = n.srv.Serve(lis)
	}()
	cl.t.Cleanup(func() {
		n.srv.Stop()
		<-served
	})
	return n
}

// move starts a node again at another address.
func (cl *fakeCluster) move(i int) {
	old := cl.nodes[i]
	old.srv.Stop()
	cl.replace(i, cl.start(old.id, ""))
}

// replace puts a node in the place of another and tells the watchers.
func (cl *fakeCluster) replace(i int, n *fakeNode) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.nodes[i] = n
	cl.index++
	cl.changedLocked()
}

// target names the given nodes, all without any.
func (cl *fakeCluster) target(nodes ...int) string {
	var addrs []string
	for i, n := range cl.nodes {
		if len(nodes) == 0 {
			addrs = append(addrs, n.addr)
		}
		for _, want := range nodes {
			if i == want {
				addrs = append(addrs, n.addr)
			}
		}
	}
	return strings.Join(addrs, ",")
}

// client dials with short intervals and its first target as home.
func (cl *fakeCluster) client(target string, opts ...Option) *Client {
	cl.t.Helper()
	short := func(c *config) {
		c.attemptTimeout, c.refresh, c.dialer = 250*time.Millisecond, -1, dialFake
		c.backoffBase, c.backoffMax, c.firstRefresh = 5*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond
	}
	c, err := Dial(target, append([]Option{short}, opts...)...)
	if err != nil {
		cl.t.Fatal(err)
	}
	c.pool.home, c.pool.current = c.pool.all[0], c.pool.all[0]
	cl.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Index runs no hook: a client asks before its first write.
func (n *fakeNode) Index(context.Context, *registrypb.IndexRequest) (*registrypb.IndexResponse, error) {
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	return &registrypb.IndexResponse{Index: n.cl.index}, nil
}

func (n *fakeNode) script(hook func(ctx context.Context, method string, req any) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = hook
}

// silence makes the node take calls and never answer them.
func (n *fakeNode) silence() {
	n.script(func(ctx context.Context, _ string, _ any) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

func (n *fakeNode) count(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[method]
}

func (n *fakeNode) enter(ctx context.Context, method string, req any) error {
	n.mu.Lock()
	n.calls[method]++
	hook := n.hook
	n.mu.Unlock()
	if hook != nil {
		return hook(ctx, method, req)
	}
	return nil
}

// failing makes the error that a server sends.
func failing(code codes.Code, d *registrypb.ErrorDetail) error {
	st, err := status.New(code, "scripted "+strings.ToLower(d.GetReason().String())).WithDetails(d)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func because(r registrypb.ErrorDetail_Reason) error {
	return failing(codes.FailedPrecondition, &registrypb.ErrorDetail{Reason: r})
}

func (n *fakeNode) Register(ctx context.Context, req *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
	if err := n.enter(ctx, "Register", req); err != nil {
		return nil, err
	}
	cl := n.cl
	cl.mu.Lock()
	defer cl.mu.Unlock()
	key := req.GetGroup() + "/" + req.GetId()
	s := cl.registrations[key]
	if s == nil {
		s = &fakeRegistration{fenced: map[string]bool{}}
		cl.registrations[key] = s
	}
	inst := string(req.GetInstance())
	if s.fenced[inst] {
		return nil, because(registrypb.ErrorDetail_FENCED)
	}
	if s.lease != 0 && s.instance != inst {
		if s.member.GetAddr() != req.GetAddr() && !req.GetTakeOver() && s.member.GetHold() == nil {
			return nil, because(registrypb.ErrorDetail_CONFLICT)
		}
		s.fenced[s.instance] = true
	}
	if s.lease == 0 || s.instance != inst {
		delete(cl.leases, s.lease)
		cl.index++
		s.lease, s.instance = cl.index, inst
		cl.leases[s.lease] = s
	}
	s.member = &registrypb.Member{State: req.GetState(), Id: req.GetId(), Addr: req.GetAddr(), Weight: req.GetWeight(), Meta: req.GetMeta(), Ttl: req.GetTtl(), CreatedIndex: s.lease}
	return &registrypb.RegisterResponse{LeaseId: s.lease, Ttl: req.GetTtl(), Index: cl.index, Instance: req.GetInstance(), Revision: cl.index}, nil
}

// RegisterMany runs the hook for the call and for each registration.
func (n *fakeNode) RegisterMany(ctx context.Context, req *registrypb.RegisterManyRequest) (*registrypb.RegisterManyResponse, error) {
	if err := n.enter(ctx, "RegisterMany", req); err != nil {
		return nil, err
	}
	resp := &registrypb.RegisterManyResponse{}
	for _, r := range req.GetRegistrations() {
		result := &registrypb.RegisterResult{}
		registered, err := n.Register(ctx, r)
		if err == nil {
			result.Result = &registrypb.RegisterResult_Registered{Registered: registered}
		} else {
			st := status.Convert(err)
			f := &registrypb.Failure{Code: uint32(st.Code()), Message: st.Message()}
			for _, d := range st.Details() {
				f.Detail, _ = d.(*registrypb.ErrorDetail)
			}
			result.Result = &registrypb.RegisterResult_Failure{Failure: f}
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

func (n *fakeNode) Deregister(ctx context.Context, req *registrypb.DeregisterRequest) (*registrypb.DeregisterResponse, error) {
	if err := n.enter(ctx, "Deregister", req); err != nil {
		return nil, err
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	n.cl.index++
	resp := &registrypb.DeregisterResponse{Index: n.cl.index}
	s := n.cl.registrations[req.GetGroup()+"/"+req.GetId()]
	if s != nil && len(req.GetInstance()) > 0 {
		s.fenced[string(req.GetInstance())] = true // whichever process is registered
	}
	if s == nil || s.lease == 0 || req.GetKeepHeld() && s.member.GetHold() != nil || len(req.GetInstance()) > 0 && s.instance != string(req.GetInstance()) {
		return resp, nil
	}
	delete(n.cl.leases, s.lease)
	s.lease, s.fenced[s.instance] = 0, true
	resp.Removed = true
	return resp, nil
}

func (n *fakeNode) HeartbeatStream(srv registrypb.Registry_HeartbeatStreamServer) error {
	of := n.of()
	n.cl.mu.Lock()
	n.cl.streams++
	n.cl.mu.Unlock()
	for {
		req, err := srv.Recv()
		if err != nil {
			return nil
		}
		if err := n.enter(srv.Context(), "Heartbeat", req); err != nil {
			return err
		}
		if n.of() != of {
			return nil
		}
		if err := srv.Send(n.cl.beat(req)); err != nil {
			return err
		}
	}
}

func (cl *fakeCluster) beat(req *registrypb.HeartbeatRequest) *registrypb.HeartbeatResponse {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.batches = append(cl.batches, len(req.GetLeaseIds()))
	resp := &registrypb.HeartbeatResponse{Term: 1, LeaderAddr: cl.leader}
	for _, id := range req.GetLeaseIds() {
		if cl.leases[id] == nil {
			resp.Lost = append(resp.Lost, id)
		}
		cl.beats[id]++
	}
	return resp
}

func (n *fakeNode) receipt() *registrypb.Receipt {
	return &registrypb.Receipt{Index: n.cl.index, Revision: n.cl.index, Fingerprint: 42, Node: n.id, ClusterId: n.cl.id}
}

// list returns a group's members; the caller holds the cluster's mutex.
func (cl *fakeCluster) list(group string) []*registrypb.Member {
	var ms []*registrypb.Member
	for key, s := range cl.registrations {
		if s.lease != 0 && strings.HasPrefix(key, group+"/") {
			ms = append(ms, s.member)
		}
	}
	sort.Slice(ms, func(i, j int) bool { return ms[i].GetId() < ms[j].GetId() })
	return ms
}

func ownerIndex(key []byte, n int) int {
	h := fnv.New32a()
	_, _ = h.Write(key)
	return int(h.Sum32()) % n
}

func (n *fakeNode) Match(ctx context.Context, req *registrypb.MatchRequest) (*registrypb.MatchResponse, error) {
	if err := n.enter(ctx, "Match", req); err != nil {
		return nil, err
	}
	if n.hasHistory(req.GetGroup()) {
		r, ms, err := n.receiptOf(req.GetGroup(), req.GetRead())
		if err == nil && len(ms) == 0 {
			err = because(registrypb.ErrorDetail_EMPTY_GROUP)
		}
		if err != nil {
			return nil, err
		}
		return &registrypb.MatchResponse{Receipt: r, Members: ms[:1]}, nil
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	ms := n.cl.list(req.GetGroup())
	if len(ms) == 0 {
		return nil, because(registrypb.ErrorDetail_UNKNOWN_GROUP)
	}
	at := ownerIndex(req.GetKey(), len(ms))
	resp := &registrypb.MatchResponse{Receipt: n.receipt()}
	for i := range min(int(req.GetN()), len(ms)) {
		resp.Members = append(resp.Members, ms[(at+i)%len(ms)])
	}
	return resp, nil
}

func (n *fakeNode) MatchMany(ctx context.Context, req *registrypb.MatchManyRequest) (*registrypb.MatchManyResponse, error) {
	if err := n.enter(ctx, "MatchMany", req); err != nil {
		return nil, err
	}
	if len(req.GetKeys()) > 1000 {
		return nil, failing(codes.InvalidArgument, &registrypb.ErrorDetail{
			Reason: registrypb.ErrorDetail_INVALID_ARGUMENT, Field: "keys", Limit: "1000",
		})
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	ms := n.cl.list(req.GetGroup())
	if len(ms) == 0 {
		return nil, because(registrypb.ErrorDetail_UNKNOWN_GROUP)
	}
	per := min(int(req.GetN()), len(ms))
	resp := &registrypb.MatchManyResponse{Members: ms, OwnersPerKey: uint32(per), Receipt: n.receipt()}
	for _, k := range req.GetKeys() {
		for i := range per {
			resp.Owners = append(resp.Owners, uint32((ownerIndex(k, len(ms))+i)%len(ms)))
		}
	}
	return resp, nil
}

func (n *fakeNode) Members(ctx context.Context, req *registrypb.MembersRequest) (*registrypb.MembersResponse, error) {
	if err := n.enter(ctx, "Members", req); err != nil {
		return nil, err
	}
	if req.GetGroup() != nodesGroup && n.hasHistory(req.GetGroup()) {
		r, ms, err := n.receiptOf(req.GetGroup(), req.GetRead())
		if err != nil {
			return nil, err
		}
		return n.cl.membersPage(req, &registrypb.MembersResponse{Members: ms, Receipt: r, Config: fakeConfig()})
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	return &registrypb.MembersResponse{
		Members: n.cl.list(req.GetGroup()), Receipt: n.receipt(),
		Config: &registrypb.GroupConfig{VirtualNodes: 512, Bound: 1100},
	}, nil
}

func (n *fakeNode) Groups(ctx context.Context, req *registrypb.GroupsRequest) (*registrypb.GroupsResponse, error) {
	if err := n.enter(ctx, "Groups", req); err != nil {
		return nil, err
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	if n.cl.watched {
		resp := &registrypb.GroupsResponse{Receipt: n.receipt()}
		for name, h := range n.cl.histories {
			if len(h.versions) == h.gone {
				continue
			}
			resp.Groups = append(resp.Groups, &registrypb.Group{Name: name})
		}
		return n.cl.groupsPageLocked(req, resp), nil
	}
	return &registrypb.GroupsResponse{Groups: []*registrypb.Group{{Name: "g"}}, Receipt: n.receipt()}, nil
}

func (n *fakeNode) SetGroup(ctx context.Context, req *registrypb.SetGroupRequest) (*registrypb.SetGroupResponse, error) {
	if err := n.enter(ctx, "SetGroup", req); err != nil {
		return nil, err
	}
	return &registrypb.SetGroupResponse{Index: 7, Revision: 7}, nil
}

func (n *fakeNode) DeleteGroup(ctx context.Context, req *registrypb.DeleteGroupRequest) (*registrypb.DeleteGroupResponse, error) {
	if err := n.enter(ctx, "DeleteGroup", req); err != nil {
		return nil, err
	}
	return &registrypb.DeleteGroupResponse{Index: 7, Members: 2}, nil
}

func (n *fakeNode) UpdateMember(ctx context.Context, req *registrypb.UpdateMemberRequest) (*registrypb.UpdateMemberResponse, error) {
	if err := n.enter(ctx, "UpdateMember", req); err != nil {
		return nil, err
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	s := n.cl.registrations[req.GetGroup()+"/"+req.GetId()]
	if s == nil || s.lease == 0 {
		return nil, because(registrypb.ErrorDetail_UNKNOWN_MEMBER)
	}
	if inst := string(req.GetInstance()); inst != "" && inst != s.instance {
		return nil, because(registrypb.ErrorDetail_FENCED)
	} else if inst != "" && req.Hold != nil {
		s.fenced[inst] = true
	}
	m := proto.Clone(s.member).(*registrypb.Member)
	m.State, m.Hold = req.GetState(), req.GetHold()
	s.member = m
	n.cl.index++
	return &registrypb.UpdateMemberResponse{Index: n.cl.index, Revision: n.cl.index}, nil
}

// set changes a member as an operator does.
func (cl *fakeCluster) set(t *testing.T, id string, s registrypb.MemberState, hold time.Duration) {
	t.Helper()
	req := &registrypb.UpdateMemberRequest{Group: "g", Id: id, State: s.Enum()}
	if hold > 0 {
		req.Hold = durationpb.New(hold)
	}
	if _, err := cl.nodes[0].UpdateMember(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// member returns a member as it is now; nil without one.
func (cl *fakeCluster) member(group, id string) *registrypb.Member {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if s := cl.registrations[group+"/"+id]; s != nil && s.lease != 0 {
		return s.member
	}
	return nil
}

func (n *fakeNode) Status(ctx context.Context, req *registrypb.StatusRequest) (*registrypb.StatusResponse, error) {
	if err := n.enter(ctx, "Status", req); err != nil {
		return nil, err
	}
	n.cl.mu.Lock()
	defer n.cl.mu.Unlock()
	resp := &registrypb.StatusResponse{Cluster: "fake", Leader: n.cl.nodes[0].id, Term: 1}
	for _, o := range n.cl.nodes {
		resp.Nodes = append(resp.Nodes, &registrypb.NodeStatus{Id: o.id, Addr: o.addr, Role: "follower", Ready: true})
	}
	return resp, nil
}

func (n *fakeNode) Transfer(ctx context.Context, req *registrypb.TransferRequest) (*registrypb.TransferResponse, error) {
	if err := n.enter(ctx, "Transfer", req); err != nil {
		return nil, err
	}
	return &registrypb.TransferResponse{Leader: req.GetId()}, nil
}

// expire removes a member as if its lease had run out.
func (cl *fakeCluster) expire(group, id string) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	s := cl.registrations[group+"/"+id]
	delete(cl.leases, s.lease)
	s.lease = 0
}

func (cl *fakeCluster) held(group, id string) bool {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	s := cl.registrations[group+"/"+id]
	return s != nil && s.lease != 0
}
