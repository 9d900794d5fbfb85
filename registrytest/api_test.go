package registrytest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// apiCluster is nodes in this process with a connection to each.
type apiCluster struct {
	nodes []*registry.Node
	conns []*grpc.ClientConn
	apis  []registrypb.RegistryClient
}

// newAPICluster starts three.
func newAPICluster(t *testing.T, changes ...func(*registry.Config)) *apiCluster {
	t.Helper()
	return newAPINodes(t, 3, changes...)
}

func newAPINodes(t *testing.T, n int, changes ...func(*registry.Config)) *apiCluster {
	t.Helper()
	var joins []string
	change := func(cfg *registry.Config) {
		cfg.Registries = joins
		for _, change := range changes {
			change(cfg)
		}
	}
	c := new(apiCluster)
	for i := 1; i <= n; i++ {
		c.nodes = append(c.nodes, startNode(t, fmt.Sprintf("n%d", i), change))
		joins = []string{c.nodes[0].BindAddr()}
	}
	waitReady(t, c.nodes...)
	for _, n := range c.nodes {
		conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		c.conns = append(c.conns, conn)
		c.apis = append(c.apis, registrypb.NewRegistryClient(conn))
	}
	c.settle(t)
	return c
}

// settle waits until all nodes are voters that know each other, so that the
// log moves on the test's own account only, and each knows the leader.
func (c *apiCluster) settle(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		settled, led := 0, 0
		var st *registrypb.StatusResponse
		for _, conn := range c.conns {
			var err error
			if st, err = registrypb.NewClusterClient(conn).Status(t.Context(), &registrypb.StatusRequest{}); err != nil {
				t.Fatal(err)
			}
			if st.Leader != "" {
				led++
			}
		}
		for _, n := range st.Nodes {
			if n.Voter && n.Addr != "" && n.AppliedIndex == st.Nodes[0].CommitIndex {
				settled++
			}
		}
		if settled == len(c.nodes) && led == len(c.nodes) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("cluster does not settle: %v", st)
		}
	}
}

func (c *apiCluster) register(t *testing.T, via int, change func(*registrypb.RegisterRequest)) *registrypb.RegisterResponse {
	t.Helper()
	req := &registrypb.RegisterRequest{Group: "web", Id: "web-1", Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour)}
	if change != nil {
		change(req)
	}
	r, err := c.apis[via].Register(t.Context(), req)
	if err != nil {
		t.Fatalf("register %s: %v", req.Id, err)
	}
	return r
}

// applied waits until a node has applied the index: it may answer a write that it
// forwarded before that.
func (c *apiCluster) applied(t *testing.T, node int, index uint64) {
	t.Helper()
	if _, err := c.apis[node].Index(t.Context(), &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: index}}); err != nil {
		t.Fatal(err)
	}
}

func reason(err error) registrypb.ErrorDetail_Reason { return detailOf(err).GetReason() }

// detailOf is nil without a detail.
func detailOf(err error) *registrypb.ErrorDetail {
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*registrypb.ErrorDetail); ok {
			return detail
		}
	}
	return nil
}

func wantReason(t *testing.T, err error, code codes.Code, want registrypb.ErrorDetail_Reason) {
	t.Helper()
	if status.Code(err) != code || reason(err) != want {
		t.Errorf("got %v with reason %v, want code %v and reason %v", err, reason(err), code, want)
	}
}

func TestEveryNodeAnswersAlike(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	var last uint64
	for i := range 9 {
		r := c.register(t, i%3, func(r *registrypb.RegisterRequest) {
			r.Id, r.Addr, r.Meta = fmt.Sprintf("web-%d", i), fmt.Sprintf("10.0.0.%d:80", i+1), map[string]string{"n": fmt.Sprint(i)}
		})
		last = max(last, r.Index)
	}
	read := &registrypb.ReadOptions{MinIndex: last}
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "user-id-%d", i)
	}
	var first *registrypb.MatchManyResponse
	for i, api := range c.apis {
		many, err := api.MatchMany(t.Context(), &registrypb.MatchManyRequest{Group: "web", Keys: keys, N: 2, Read: read})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = many
		}
		if many.Receipt.Fingerprint != first.Receipt.Fingerprint || many.Receipt.Revision != last {
			t.Errorf("node %d: receipt %v, node 0 has %v", i, many.Receipt, first.Receipt)
		}
		for k := range keys {
			for n := range 2 {
				got, want := many.Members[many.Owners[2*k+n]], first.Members[first.Owners[2*k+n]]
				if !proto.Equal(got, want) {
					t.Fatalf("key %s: node %d says %v, node 0 %v", keys[k], i, got, want)
				}
			}
		}
		one, err := api.Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: keys[7], N: 2, Read: read})
		if err != nil {
			t.Fatal(err)
		}
		if one.Members[0].Id != many.Members[many.Owners[14]].Id || one.Members[1].Id != many.Members[many.Owners[15]].Id {
			t.Errorf("Match and MatchMany differ on node %d", i)
		}
	}
	st, err := registrypb.NewClusterClient(c.conns[1]).Status(t.Context(), &registrypb.StatusRequest{Group: "web"})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range st.Nodes {
		if n.Error != "" || n.Fingerprint != first.Receipt.Fingerprint {
			t.Errorf("status: node %s has fingerprint %x, error %q", n.Id, n.Fingerprint, n.Error)
		}
	}
}

func TestFreshness(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	for i := range 30 { // each read on another node than the write
		r := c.register(t, i%3, func(r *registrypb.RegisterRequest) { r.Id = fmt.Sprintf("m-%d", i) })
		for name, read := range map[string]*registrypb.ReadOptions{
			"linearizable": {Linearizable: true}, "at least": {MinIndex: r.Index},
		} {
			got, err := c.apis[(i+1)%3].Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: read})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Members) != i+1 {
				t.Errorf("%s read after write %d sees %d members", name, i, len(got.Members))
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.apis[0].Members(ctx, &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{MinIndex: 1 << 40}})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("read at an index of the future: %v", err)
	}
	stale := 0
	for _, api := range c.apis {
		_, err := api.Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{MaxStaleness: durationpb.New(0)}})
		if reason(err) == registrypb.ErrorDetail_STALE {
			stale++
		}
	}
	if stale != 2 {
		t.Errorf("a staleness of 0 was refused by %d nodes, want both followers", stale)
	}
}

func TestLeaseRunsOutUnlessRenewed(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	const leaseTTL = 2 * time.Second // a busy machine may be late by more than a second
	ttl := func(id string) func(*registrypb.RegisterRequest) {
		return func(r *registrypb.RegisterRequest) { r.Id, r.Ttl = id, durationpb.New(leaseTTL) }
	}
	kept, lost := c.register(t, 1, ttl("kept")), c.register(t, 2, ttl("lost"))
	stream, err := c.apis[2].HeartbeatStream(t.Context()) // two of three nodes have to send it on
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	beat := time.NewTicker(200 * time.Millisecond)
	defer beat.Stop()
	for gone := time.Duration(0); gone == 0; {
		<-beat.C
		if err := stream.Send(&registrypb.HeartbeatRequest{LeaseIds: []uint64{kept.LeaseId}}); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); err != nil || len(r.Lost) > 0 {
			t.Fatalf("heartbeat: %v, %v", r, err)
		}
		all, err := c.apis[0].Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: &registrypb.ReadOptions{Linearizable: true}})
		if err != nil {
			t.Fatal(err)
		}
		after := time.Since(start)
		switch {
		case len(all.Members) == 1 && all.Members[0].Id == "kept":
			gone = after
			if after < leaseTTL-100*time.Millisecond {
				t.Errorf("expired after %s, before its TTL", after)
			}
		case after > registrytest.Patience:
			t.Fatalf("not expired after %s: %v", after, all.Members)
		}
	}
	r, err := c.apis[1].Heartbeat(t.Context(), &registrypb.HeartbeatRequest{LeaseIds: []uint64{kept.LeaseId, lost.LeaseId, 12345678}})
	if err != nil || len(r.Lost) != 2 {
		t.Errorf("heartbeat of lost leases: %v, %v", r, err)
	}
}

func TestTwoProcessesNeverFightForAnID(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	as := func(instance, addr string, takeOver bool) *registrypb.RegisterRequest {
		return &registrypb.RegisterRequest{Group: "web", Id: "web-1", Addr: addr, Instance: []byte(instance), TakeOver: takeOver}
	}
	must := func(req *registrypb.RegisterRequest) *registrypb.RegisterResponse {
		t.Helper()
		r, err := c.apis[1].Register(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := must(as("process-a", "10.0.0.1:80", false))
	if again := must(as("process-a", "10.0.0.1:80", false)); again.LeaseId != first.LeaseId || again.Revision != first.Revision {
		t.Errorf("a repeated registration changed the member: %v, then %v", first, again)
	}
	_, err := c.apis[2].Register(t.Context(), as("process-b", "10.0.0.2:80", false))
	wantReason(t, err, codes.AlreadyExists, registrypb.ErrorDetail_CONFLICT)
	second := must(as("process-b", "10.0.0.2:80", true))
	hb, err := c.apis[0].Heartbeat(t.Context(), &registrypb.HeartbeatRequest{LeaseIds: []uint64{first.LeaseId, second.LeaseId}})
	if err != nil || len(hb.Lost) != 1 || hb.Lost[0] != first.LeaseId {
		t.Errorf("heartbeat after a take-over: %v, %v", hb, err)
	}
	_, err = c.apis[0].Register(t.Context(), as("process-a", "10.0.0.2:80", true))
	wantReason(t, err, codes.FailedPrecondition, registrypb.ErrorDetail_FENCED)
	must(as("process-c", "10.0.0.2:80", false)) // restarted at the same address
	d, err := c.apis[0].Deregister(t.Context(), &registrypb.DeregisterRequest{Group: "web", Id: "web-1"})
	if err != nil || !d.Removed {
		t.Fatalf("deregister: %v, %v", d, err)
	}
	_, err = c.apis[0].Register(t.Context(), as("process-c", "10.0.0.2:80", false))
	wantReason(t, err, codes.FailedPrecondition, registrypb.ErrorDetail_FENCED)
}

func TestGroupsAndMembersChangeOnAnOperatorsWord(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	for i := range 3 {
		c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Id = fmt.Sprintf("m-%d", i) })
	}
	draining := registrypb.MemberState_MEMBER_STATE_DRAINING
	u, err := c.apis[1].UpdateMember(t.Context(), &registrypb.UpdateMemberRequest{Group: "web", Id: "m-1", State: &draining})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		m, err := c.apis[2].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: fmt.Append(nil, i), Read: &registrypb.ReadOptions{MinIndex: u.Index}})
		if err != nil {
			t.Fatal(err)
		}
		if m.Members[0].Id == "m-1" {
			t.Fatalf("key %d went to a draining member", i)
		}
	}
	_, err = c.apis[0].SetGroup(t.Context(), &registrypb.SetGroupRequest{Group: "web", Config: &registrypb.GroupConfig{VirtualNodes: 512}, ExpectedRevision: 1})
	wantReason(t, err, codes.Aborted, registrypb.ErrorDetail_REVISION_MISMATCH)
	_, err = c.apis[0].SetGroup(t.Context(), &registrypb.SetGroupRequest{Group: "web", Config: &registrypb.GroupConfig{VirtualNodes: 300}})
	wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
	set, err := c.apis[0].SetGroup(t.Context(), &registrypb.SetGroupRequest{Group: "web", Config: &registrypb.GroupConfig{VirtualNodes: 512}, ExpectedRevision: u.Revision})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := c.apis[2].Groups(t.Context(), &registrypb.GroupsRequest{Read: &registrypb.ReadOptions{MinIndex: set.Index}})
	if err != nil || len(groups.Groups) != 1 || groups.Groups[0].Config.VirtualNodes != 512 || groups.Groups[0].Members != 3 {
		t.Errorf("groups: %v, %v", groups, err)
	}
	_, err = c.apis[0].UpdateMember(t.Context(), &registrypb.UpdateMemberRequest{Group: "web", Id: "nobody", State: &draining})
	wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_MEMBER)
	_, err = c.apis[0].Match(t.Context(), &registrypb.MatchRequest{Group: "nothing", Key: []byte("k")})
	wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP)
}

func TestBadInputNeverReachesTheLog(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	c.register(t, 0, nil)
	long := strings.Repeat("x", 256)
	bad := map[string]func(*registrypb.RegisterRequest){
		"group": func(r *registrypb.RegisterRequest) { r.Group = "" },
		"id":    func(r *registrypb.RegisterRequest) { r.Id = long },
		"addr":  func(r *registrypb.RegisterRequest) { r.Addr = "0.0.0.0:80" },
		"weight": func(r *registrypb.RegisterRequest) {
			r.Weight = 1001
		},
		"ttl":  func(r *registrypb.RegisterRequest) { r.Ttl = durationpb.New(25 * time.Hour) },
		"meta": func(r *registrypb.RegisterRequest) { r.Meta = map[string]string{"k": strings.Repeat("x", 9000)} },
		"instance": func(r *registrypb.RegisterRequest) {
			r.Instance = make([]byte, 65)
		},
	}
	c.logStays(t, "web", func() {
		for field, change := range bad {
			for via := range 3 {
				req := &registrypb.RegisterRequest{Group: "web", Id: "web-9", Addr: "10.0.0.9:80"}
				change(req)
				_, err := c.apis[via].Register(t.Context(), req)
				wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
				if d := status.Convert(err).Details(); len(d) != 1 || d[0].(*registrypb.ErrorDetail).Field != field || d[0].(*registrypb.ErrorDetail).Limit == "" {
					t.Errorf("%s: details are %v", field, d)
				}
			}
		}
		for via := range 3 {
			_, err := c.apis[via].UpdateMember(t.Context(), &registrypb.UpdateMemberRequest{Group: "web", Id: "web-1"})
			wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
			_, err = c.apis[via].Match(t.Context(), &registrypb.MatchRequest{Group: "web"})
			wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		}
		if _, err := c.apis[0].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte{}}); err != nil {
			t.Errorf("the empty key: %v", err)
		}
		_, err := c.apis[0].Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: make([]byte, 4097)})
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		_, err = c.apis[0].MatchMany(t.Context(), &registrypb.MatchManyRequest{Group: "web", Keys: make([][]byte, 1001)})
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		_, err = c.apis[0].Heartbeat(t.Context(), &registrypb.HeartbeatRequest{LeaseIds: make([]uint64, 1001)})
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		_, err = c.apis[0].Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: "web-9", Addr: "10.0.0.9:80", Instance: make([]byte, 2<<20)})
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a request of 2 MiB: %v", err)
		}
	})
}

// logStays fails if the log moves although do gives it nothing. It may move once without:
// the nodes compare their states up to 2 s after a write, at an entry of its own.
func (c *apiCluster) logStays(t *testing.T, group string, do func()) {
	t.Helper()
	var before, after uint64
	for range 2 {
		before = c.indexOf(t, group)
		do()
		if after = c.indexOf(t, group); after == before {
			return
		}
	}
	t.Errorf("the log moved from %d to %d", before, after)
}

func (c *apiCluster) indexOf(t *testing.T, group string) uint64 {
	t.Helper()
	r, err := c.apis[0].Members(t.Context(), &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{Linearizable: true}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Receipt.Index
}

func TestClientPortSpeaksHealthReflectionAndHTTP(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	h, err := grpc_health_v1.NewHealthClient(c.conns[0]).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "registry.v1.Registry"})
	if err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(c.conns[0]).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil || !strings.Contains(list.String(), "registry.v1.Registry") {
		t.Errorf("reflection: %v, %v", list, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/nothing": 404} {
		resp, err := client.Get("http://" + c.nodes[0].Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}
