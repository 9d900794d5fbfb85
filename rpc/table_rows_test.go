package rpc_test

import (
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// The ports that have a method.
const (
	clients = "client"
	nodes   = "bind"
	both    = "both"
)

// Who may call a method, besides lists of credentials.
const (
	everybody = "everybody"
	anyToken  = "any token"
)

// row is a method and a kind of request. Its expectation is written from what the
// documents promise, without a look at the permissions of package rpc.
type row struct {
	method string
	about  string // the request, where a method has several kinds
	ports  string
	may    string     // everybody, anyToken, or a list of credentials
	answer codes.Code // to who may
	stream bool
	req    func(c *tableCluster) proto.Message
	resp   proto.Message
}

var fresh atomic.Int64

func unique(prefix string) string { return fmt.Sprintf("%s-%d", prefix, fresh.Add(1)) }

func always(m proto.Message) func(*tableCluster) proto.Message {
	return func(*tableCluster) proto.Message { return proto.Clone(m) }
}

func newToken() *registrypb.NewToken {
	_, id, hash := registrypb.MakeToken()
	return &registrypb.NewToken{Id: id, Hash: hash, Name: unique("token"), Grants: []*registrypb.Grant{may("web-", registrypb.Right_RIGHT_DISCOVER)}}
}

var packages = map[string]string{"Registry": "/registry.v1.", "Cluster": "/registry.v1.", "Tokens": "/registry.v1.", "Peer": "/registry.peer.v1."}

// methodRows have every method of both ports.
func methodRows() []row {
	name := func(service, method string) string { return packages[service] + service + "/" + method }
	const group = "web-1"
	const discover, operate, register = "discover, discover everything, all", "operate, all", "register, all"
	const registerOrOperate = "register, operate, all"
	update := func(id string, own bool) func(*tableCluster) proto.Message {
		return func(*tableCluster) proto.Message {
			weight := uint32(2)
			m := &registrypb.UpdateMemberRequest{Group: group, Id: id, Weight: &weight}
			if own {
				m.Instance = []byte("instance")
			}
			return m
		}
	}
	registration := func(group string) func(*tableCluster) proto.Message {
		return func(*tableCluster) proto.Message {
			return &registrypb.RegisterRequest{Group: group, Id: unique("m"), Addr: "10.0.0.1:80", Instance: []byte("instance"), Ttl: durationpb.New(time.Hour)}
		}
	}
	registrations := func(groups ...string) func(*tableCluster) proto.Message {
		return func(c *tableCluster) proto.Message {
			m := &registrypb.RegisterManyRequest{}
			for _, group := range groups {
				m.Registrations = append(m.Registrations, registration(group)(c).(*registrypb.RegisterRequest))
			}
			return m
		}
	}
	watch := func(edit func(*registrypb.WatchRequest)) func(*tableCluster) proto.Message {
		return func(*tableCluster) proto.Message {
			m := &registrypb.WatchRequest{}
			edit(m)
			return m
		}
	}
	knownOf := func(group string) func(*tableCluster) proto.Message {
		return watch(func(m *registrypb.WatchRequest) {
			m.Target, m.Known = &registrypb.WatchRequest_Prefix{Prefix: "web-"}, []*registrypb.KnownGroup{{Group: "web-1"}, {Group: group, Revision: 1}}
		})
	}
	return []row{
		{name("Registry", "Register"), "a new member", both, register, codes.OK, false, registration(group), &registrypb.RegisterResponse{}},
		{name("Registry", "Register"), "take over a member of another token", both, "all", codes.OK, false, always(&registrypb.RegisterRequest{Group: group, Id: "taken", Addr: "10.0.0.9:80", TakeOver: true, Instance: []byte("other"), Ttl: durationpb.New(time.Hour)}), &registrypb.RegisterResponse{}},
		{name("Registry", "Register"), "the group of the nodes, which is invalid", both, anyToken, codes.InvalidArgument, false, registration(fsm.NodesGroupName), &registrypb.RegisterResponse{}},
		{name("Registry", "RegisterMany"), "new members", both, register, codes.OK, false, registrations(group, group), &registrypb.RegisterManyResponse{}},
		{name("Registry", "RegisterMany"), "one of them in a group beside it", both, "all", codes.OK, false, registrations(group, "secret"), &registrypb.RegisterManyResponse{}},
		{name("Registry", "RegisterMany"), "none", both, anyToken, codes.InvalidArgument, false, registrations(), &registrypb.RegisterManyResponse{}},
		{name("Registry", "Deregister"), "no such member", both, registerOrOperate, codes.OK, false, always(&registrypb.DeregisterRequest{Group: group, Id: "ghost"}), &registrypb.DeregisterResponse{}},
		{name("Registry", "Heartbeat"), "no lease", both, anyToken, codes.OK, false, always(&registrypb.HeartbeatRequest{}), &registrypb.HeartbeatResponse{}},
		{name("Registry", "Heartbeat"), "a lease of another token", both, operate, codes.OK, false, func(c *tableCluster) proto.Message { return &registrypb.HeartbeatRequest{LeaseIds: []uint64{c.lease}} }, &registrypb.HeartbeatResponse{}},
		{name("Registry", "HeartbeatStream"), "no lease", both, anyToken, codes.OK, true, always(&registrypb.HeartbeatRequest{}), &registrypb.HeartbeatResponse{}},
		{name("Registry", "HeartbeatStream"), "a lease of another token", both, operate, codes.OK, true, func(c *tableCluster) proto.Message { return &registrypb.HeartbeatRequest{LeaseIds: []uint64{c.lease}} }, &registrypb.HeartbeatResponse{}},
		{name("Registry", "Match"), "", both, discover, codes.OK, false, always(&registrypb.MatchRequest{Group: group, Key: []byte("k")}), &registrypb.MatchResponse{}},
		{name("Registry", "MatchMany"), "", both, discover, codes.OK, false, always(&registrypb.MatchManyRequest{Group: group, Keys: [][]byte{[]byte("a"), []byte("b")}}), &registrypb.MatchManyResponse{}},
		{name("Registry", "Members"), "a group", both, discover, codes.OK, false, always(&registrypb.MembersRequest{Group: group}), &registrypb.MembersResponse{}},
		{name("Registry", "Members"), "the group of the nodes", both, anyToken, codes.OK, false, always(&registrypb.MembersRequest{Group: fsm.NodesGroupName}), &registrypb.MembersResponse{}},
		{name("Registry", "Groups"), "a prefix", both, discover, codes.OK, false, always(&registrypb.GroupsRequest{Prefix: "web-"}), &registrypb.GroupsResponse{}},
		{name("Registry", "Groups"), "all", both, "discover everything, all", codes.OK, false, always(&registrypb.GroupsRequest{}), &registrypb.GroupsResponse{}},
		{name("Registry", "SetGroup"), "", both, operate, codes.OK, false, always(&registrypb.SetGroupRequest{Group: "web-set"}), &registrypb.SetGroupResponse{}},
		{name("Registry", "SetGroup"), "the group of the nodes, which is invalid", both, anyToken, codes.InvalidArgument, false, always(&registrypb.SetGroupRequest{Group: fsm.NodesGroupName}), &registrypb.SetGroupResponse{}},
		{name("Registry", "DeleteGroup"), "no such group", both, operate, codes.NotFound, false, always(&registrypb.DeleteGroupRequest{Group: "web-none"}), &registrypb.DeleteGroupResponse{}},
		{name("Registry", "UpdateMember"), "without an instance", both, operate, codes.NotFound, false, update("ghost", false), &registrypb.UpdateMemberResponse{}},
		{name("Registry", "UpdateMember"), "with its instance", both, registerOrOperate, codes.NotFound, false, update("ghost", true), &registrypb.UpdateMemberResponse{}},
		{name("Registry", "UpdateMember"), "with the instance of another token's member", both, operate, codes.OK, false, update("owned", true), &registrypb.UpdateMemberResponse{}},
		{name("Registry", "AcceptLoss"), "", both, operate, codes.OK, false, always(&registrypb.AcceptLossRequest{Group: group}), &registrypb.AcceptLossResponse{}},
		{name("Registry", "Index"), "", both, anyToken, codes.OK, false, always(&registrypb.IndexRequest{}), &registrypb.IndexResponse{}},
		{name("Registry", "Guard"), "", both, discover, codes.OK, false, always(&registrypb.GuardRequest{Group: group}), &registrypb.GuardResponse{}},
		{name("Registry", "Watch"), "a group", both, discover, codes.OK, true, watch(func(m *registrypb.WatchRequest) { m.Target = &registrypb.WatchRequest_Group{Group: group} }), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "a group, from a revision", both, discover, codes.OK, true, watch(func(m *registrypb.WatchRequest) {
			m.Target, m.Revision = &registrypb.WatchRequest_Group{Group: group}, 1
		}), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "a prefix", both, discover, codes.OK, true, watch(func(m *registrypb.WatchRequest) { m.Target = &registrypb.WatchRequest_Prefix{Prefix: "web-"} }), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "a shorter prefix", both, "discover everything, all", codes.OK, true, watch(func(m *registrypb.WatchRequest) { m.Target = &registrypb.WatchRequest_Prefix{Prefix: "web"} }), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "the empty prefix", both, "discover everything, all", codes.OK, true, watch(func(m *registrypb.WatchRequest) { m.Target = &registrypb.WatchRequest_Prefix{} }), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "a prefix, with known groups of it", both, discover, codes.OK, true, knownOf("web-2"), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "a prefix, with a known group beside it", both, "discover everything, all", codes.OK, true, knownOf("secret"), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "the list of groups", both, "discover everything, all", codes.OK, true, watch(func(m *registrypb.WatchRequest) { m.Target = &registrypb.WatchRequest_Groups{Groups: true} }), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "the nodes", both, anyToken, codes.OK, true, watch(func(m *registrypb.WatchRequest) { m.Target = &registrypb.WatchRequest_Nodes{Nodes: true} }), &registrypb.WatchEvent{}},
		{name("Registry", "Watch"), "nothing", both, anyToken, codes.InvalidArgument, true, watch(func(*registrypb.WatchRequest) {}), &registrypb.WatchEvent{}},

		{name("Cluster", "Status"), "the nodes", both, anyToken, codes.OK, false, always(&registrypb.StatusRequest{}), &registrypb.StatusResponse{}},
		{name("Cluster", "Status"), "of a group", both, discover, codes.OK, false, always(&registrypb.StatusRequest{Group: group}), &registrypb.StatusResponse{}},
		{name("Cluster", "Join"), "no such node", both, "admin, all", codes.FailedPrecondition, false, always(&registrypb.JoinRequest{Bind: "127.0.0.1:1"}), &registrypb.JoinResponse{}},
		{name("Cluster", "Remove"), "no such node", both, "admin, all", codes.NotFound, false, always(&registrypb.RemoveRequest{Id: "ghost"}), &registrypb.RemoveResponse{}},
		{name("Cluster", "Leave"), "as another node", both, "admin, all", codes.FailedPrecondition, false, always(&registrypb.LeaveRequest{Id: "ghost"}), &registrypb.LeaveResponse{}},
		{name("Cluster", "Transfer"), "no such node", both, "admin, all", codes.NotFound, false, always(&registrypb.TransferRequest{Id: "ghost"}), &registrypb.TransferResponse{}},
		{name("Cluster", "RaiseFeatureLevel"), "", both, "admin, all", codes.OK, false, always(&registrypb.RaiseFeatureLevelRequest{}), &registrypb.RaiseFeatureLevelResponse{}},
		{name("Cluster", "SaveSnapshot"), "", both, "admin, all", codes.OK, true, always(&registrypb.SaveSnapshotRequest{}), &registrypb.SaveSnapshotResponse{}},
		{name("Cluster", "RestoreSnapshot"), "no snapshot file", both, "admin, all", codes.InvalidArgument, true, always(&registrypb.RestoreSnapshotRequest{Data: []byte("no snapshot at all")}), &registrypb.RestoreSnapshotResponse{}},
		{name("Cluster", "Diagnose"), "with a profile that is too long", both, "admin, all", codes.InvalidArgument, true, always(&registrypb.DiagnoseRequest{Cpu: durationpb.New(time.Hour)}), &registrypb.DiagnoseResponse{}},

		{name("Tokens", "Init"), "when there is a token", both, everybody, codes.AlreadyExists, false, func(*tableCluster) proto.Message {
			t := newToken()
			t.Grants = nil
			return &registrypb.InitTokensRequest{Token: t}
		}, &registrypb.InitTokensResponse{}},
		{name("Tokens", "Create"), "", both, "admin, all", codes.OK, false, func(*tableCluster) proto.Message { return &registrypb.CreateTokenRequest{Token: newToken()} }, &registrypb.CreateTokenResponse{}},
		{name("Tokens", "Rotate"), "", both, "admin, all", codes.OK, false, func(*tableCluster) proto.Message {
			return &registrypb.RotateTokenRequest{Name: "spare", Hash: newToken().Hash}
		}, &registrypb.RotateTokenResponse{}},
		{name("Tokens", "Revoke"), "no such token", both, "admin, all", codes.NotFound, false, always(&registrypb.RevokeTokenRequest{Name: "ghost"}), &registrypb.RevokeTokenResponse{}},
		{name("Tokens", "List"), "", both, "admin, all", codes.OK, false, always(&registrypb.ListTokensRequest{}), &registrypb.ListTokensResponse{}},
		{name("Tokens", "Self"), "", both, anyToken, codes.OK, false, always(&registrypb.SelfRequest{}), &registrypb.SelfResponse{}},

		{name("Peer", "Hello"), "", nodes, everybody, codes.OK, false, always(&peerpb.HelloRequest{}), &peerpb.HelloResponse{}},
		{name("Peer", "Term"), "of another node", nodes, everybody, codes.FailedPrecondition, false, always(&peerpb.TermRequest{Id: "ghost"}), &peerpb.TermResponse{}},
		{name("Peer", "ReadIndex"), "of another node", nodes, everybody, codes.FailedPrecondition, false, always(&peerpb.ReadIndexRequest{Id: "ghost"}), &peerpb.ReadIndexResponse{}},
		{name("Peer", "Join"), "under another node's id", nodes, everybody, codes.FailedPrecondition, false, always(&peerpb.JoinRequest{Cluster: "registry", Id: "ghost", Bind: "127.0.0.1:1", Addr: "127.0.0.1:2", Incarnation: "x"}), &peerpb.JoinResponse{}},
		{name("Peer", "Invite"), "a node in a cluster", nodes, everybody, codes.FailedPrecondition, false, always(&peerpb.InviteRequest{Cluster: "registry", Bind: "127.0.0.1:1"}), &peerpb.InviteResponse{}},
		{name("Peer", "Status"), "", nodes, everybody, codes.OK, false, always(&peerpb.StatusRequest{}), &peerpb.StatusResponse{}},
		{name("Peer", "Check"), "of another node", nodes, everybody, codes.FailedPrecondition, false, always(&peerpb.CheckRequest{Id: "ghost"}), &peerpb.CheckResponse{}},
		{name("Peer", "RecoverTokens"), "an invalid name", nodes, everybody, codes.InvalidArgument, false, func(*tableCluster) proto.Message {
			t := newToken()
			return &peerpb.RecoverTokensRequest{Name: "/", Id: t.Id, Hash: t.Hash}
		}, &peerpb.RecoverTokensResponse{}},
		{name("Peer", "State"), "of another node", nodes, everybody, codes.FailedPrecondition, true, always(&peerpb.StateRequest{Id: "ghost"}), &peerpb.StateResponse{}},

		{"/grpc.health.v1.Health/Check", "", clients, everybody, codes.OK, false, always(&grpc_health_v1.HealthCheckRequest{}), &grpc_health_v1.HealthCheckResponse{}},
		{"/grpc.health.v1.Health/List", "", clients, everybody, codes.OK, false, always(&grpc_health_v1.HealthListRequest{}), &grpc_health_v1.HealthListResponse{}},
		{"/grpc.health.v1.Health/Watch", "", clients, everybody, codes.OK, true, always(&grpc_health_v1.HealthCheckRequest{}), &grpc_health_v1.HealthCheckResponse{}},
		{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", clients, anyToken, codes.OK, true, always(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}), &grpc_reflection_v1.ServerReflectionResponse{}},
		//lint:ignore SA1019 clients still call it
		{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "", clients, anyToken, codes.OK, true, always(&grpc_reflection_v1alpha.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1alpha.ServerReflectionRequest_ListServices{}}), &grpc_reflection_v1alpha.ServerReflectionResponse{}},
	}
}

// routeRows have every HTTP route.
var routeRows = []struct {
	route   string
	request string // its path, with a query where the route takes one; empty: as the route
	body    string
	may     string
	answer  int // to who may
}{
	{"GET /livez", "", "", everybody, 200},
	{"GET /readyz", "", "", everybody, 200},
	{"GET /metrics", "", "", "discover everything, all", 200},

	{"GET /{$}", "/", "", everybody, 200},
	{"GET /ui/{file}", "/ui/main.js", "", everybody, 200},
	{"GET /v1/openapi.json", "", "", everybody, 200},
	{"GET /v1/sd/prometheus", "/v1/sd/prometheus?prefix=web-", "", "discover, discover everything, all", 200},
	{"GET /v1/groups", "/v1/groups?prefix=web-", "", "discover, discover everything, all", 200},
	{"PUT /v1/groups/{group}", "/v1/groups/web-set", "{}", "operate, all", 200},
	{"DELETE /v1/groups/{group}", "/v1/groups/web-none", "", "operate, all", 404},
	{"GET /v1/groups/{group}/members", "/v1/groups/web-1/members", "", "discover, discover everything, all", 200},
	{"PUT /v1/groups/{group}/members/{id}", "/v1/groups/web-1/members/own", `{"addr":"nowhere"}`, "register, all", 400},
	{"PATCH /v1/groups/{group}/members/{id}", "/v1/groups/web-1/members/ghost", `{"weight":2}`, "operate, all", 404},
	{"DELETE /v1/groups/{group}/members/{id}", "/v1/groups/web-1/members/ghost", "", "register, operate, all", 200},
	{"GET /v1/groups/{group}/match", "/v1/groups/web-1/match?key=k", "", "discover, discover everything, all", 200},
	{"POST /v1/groups/{group}/match", "/v1/groups/web-1/match", `{"keys":["a"]}`, "discover, discover everything, all", 200},
	{"GET /v1/groups/{group}/guard", "/v1/groups/web-1/guard", "", "discover, discover everything, all", 200},
	{"POST /v1/groups/{group}/accept-loss", "/v1/groups/web-1/accept-loss", "{}", "operate, all", 200},
	{"POST /v1/register", "", `{"registrations":[{"group":"web-1","id":"own","addr":"nowhere"}]}`, "register, all", 200},
	{"POST /v1/heartbeat", "", "{}", anyToken, 200},
	{"GET /v1/index", "", "", anyToken, 200},
	{"GET /v1/watch", "/v1/watch?group=web-1", "", "discover, discover everything, all", 200},

	{"GET /v1/cluster", "", "", anyToken, 200},
	{"POST /v1/cluster/join", "", `{"bind":"nowhere"}`, "admin, all", 400},
	{"POST /v1/cluster/transfer", "", `{"id":"ghost"}`, "admin, all", 404},
	{"POST /v1/cluster/feature-level", "", `{}`, "admin, all", 200},
	{"DELETE /v1/cluster/nodes/{id}", "/v1/cluster/nodes/ghost", "", "admin, all", 404},
	{"POST /v1/cluster/nodes/{id}/leave", "/v1/cluster/nodes/ghost/leave", `{}`, "admin, all", 409},

	{"GET /v1/tokens", "", "", "admin, all", 200},
	{"POST /v1/tokens", "", `{"name":"/","grants":[{"rights":["discover"]}]}`, "admin, all", 400},
	{"DELETE /v1/tokens/{name}", "/v1/tokens/ghost", "", "admin, all", 404},
	{"POST /v1/tokens/{name}/rotate", "/v1/tokens/ghost/rotate", "{}", "admin, all", 404},
	{"POST /v1/tokens/init", "", `{"name":"second"}`, everybody, 409},
	{"GET /v1/tokens/self", "", "", anyToken, 200},
}

// route is a route and a kind of request.
type route struct {
	route, about  string
	request, body string
	may           string
	answer        int
}

// routeKinds are further kinds of requests of the routes: those whose needs differ.
func (c *tableCluster) routeKinds() []route {
	const discover, operate = "discover, discover everything, all", "operate, all"
	instance := `"instance":"` + hex.EncodeToString([]byte("instance")) + `"`
	return []route{
		{"GET /v1/groups", "all groups", "/v1/groups", "", "discover everything, all", 200},
		{"GET /v1/groups/{group}/members", "the group of the nodes", "/v1/groups/" + fsm.NodesGroupName + "/members", "", anyToken, 200},
		{"PUT /v1/groups/{group}/members/{id}", "take over a member of another token", "/v1/groups/web-1/members/taken", `{"addr":"10.0.0.9:80","take_over":true,"ttl":"1h"}`, "all", 200},
		{"PATCH /v1/groups/{group}/members/{id}", "with its instance", "/v1/groups/web-1/members/ghost", `{"weight":2,` + instance + `}`, "register, operate, all", 404},
		{"PATCH /v1/groups/{group}/members/{id}", "with the instance of another token's member", "/v1/groups/web-1/members/owned", `{"weight":2,` + instance + `}`, operate, 200},
		{"POST /v1/register", "one of them in a group beside it", "", `{"registrations":[{"group":"web-1"},{"group":"secret"}]}`, "all", 200},
		{"POST /v1/heartbeat", "a lease of another token", "", fmt.Sprintf(`{"lease_ids":[%d]}`, c.lease), operate, 200},
		{"POST /v1/heartbeat", "a lease of another token among unknown ones", "", fmt.Sprintf(`{"lease_ids":[1,%d,2]}`, c.lease), operate, 200},
		{"GET /v1/cluster", "of a group", "/v1/cluster?group=web-1", "", discover, 200},
	}
}
