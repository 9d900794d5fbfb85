package registrytest_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// call makes a call over gRPC, with the text of its answer in JSON or its error.
func call[Req, Resp proto.Message](t *testing.T, token string, f func(context.Context, Req) (Resp, error), req Req) (string, error) {
	t.Helper()
	resp, err := f(with(t.Context(), token), req)
	if err != nil {
		return "", err
	}
	return string(httpjson.Append(nil, resp)) + "\n", nil
}

// same drops what differs from one call to the next: the lag, and the index of the state.
func same(answer string) string {
	return regexp.MustCompile(`"(lag":"[^"]*"|index":\d+)`).ReplaceAllString(answer, "")
}

// withoutOptions drops what has the type of a gRPC client's method.
func withoutOptions[Req, Resp, Opt any](f func(context.Context, Req, ...Opt) (Resp, error)) func(context.Context, Req) (Resp, error) {
	return func(ctx context.Context, req Req) (Resp, error) { return f(ctx, req) }
}

// A node's answers over gRPC and over HTTP are the same, and so are its errors.
func TestHTTPAnswersLikeGRPC(t *testing.T) {
	t.Parallel()
	c := tokensOn(t, newAPINodes(t, 1))
	web := c.grant(t, "web", nil, may("web", rightDiscover, rightRegister))
	api, cluster, tokens := c.apis[0], registrypb.NewClusterClient(c.conns[0]), c.tokens(0)
	var lease uint64
	for _, id := range []string{"a", "b", "c"} {
		r, err := api.Register(with(t.Context(), web), &registrypb.RegisterRequest{Group: "web", Id: id, Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		lease = r.LeaseId
	}
	read, stale := &registrypb.ReadOptions{Linearizable: true}, &registrypb.ReadOptions{MaxStaleness: durationpb.New(-time.Second)}
	weight := uint32(1001)
	for name, row := range map[string]struct {
		request, body string
		grpc          func(token string) (string, error)
	}{
		"match": {"GET /v1/groups/web/match?key=k&n=2&linearizable=true", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Match), &registrypb.MatchRequest{Group: "web", Key: []byte("k"), N: 2, Read: read})
		}},
		"match of an unknown group": {"GET /v1/groups/web-2/match?key=k", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Match), &registrypb.MatchRequest{Group: "web-2", Key: []byte("k")})
		}},
		"match with too many owners": {"GET /v1/groups/web/match?key=k&n=1001", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Match), &registrypb.MatchRequest{Group: "web", Key: []byte("k"), N: 1001})
		}},
		"match of another group": {"GET /v1/groups/db/match?key=k", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Match), &registrypb.MatchRequest{Group: "db", Key: []byte("k")})
		}},
		"match many": {"POST /v1/groups/web/match", `{"keys":["a","b"],"n":3}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(api.MatchMany), &registrypb.MatchManyRequest{Group: "web", Keys: [][]byte{[]byte("a"), []byte("b")}, N: 3})
		}},
		"members": {"GET /v1/groups/web/members?page_size=2", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Members), &registrypb.MembersRequest{Group: "web", PageSize: 2})
		}},
		"members with a bad token of a page": {"GET /v1/groups/web/members?page_token=x", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Members), &registrypb.MembersRequest{Group: "web", PageToken: "x"})
		}},
		"groups": {"GET /v1/groups?prefix=web", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Groups), &registrypb.GroupsRequest{Prefix: "web"})
		}},
		"all groups": {"GET /v1/groups", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Groups), &registrypb.GroupsRequest{})
		}},
		"guard": {"GET /v1/groups/web/guard", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Guard), &registrypb.GuardRequest{Group: "web"})
		}},
		"index": {"GET /v1/index", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Index), &registrypb.IndexRequest{})
		}},
		"index with bad options": {"GET /v1/index?max_staleness=-1s", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Index), &registrypb.IndexRequest{Read: stale})
		}},
		"heartbeat": {"POST /v1/heartbeat", `{"lease_ids":[7]}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Heartbeat), &registrypb.HeartbeatRequest{LeaseIds: []uint64{7}})
		}},
		"heartbeat of web's lease": {"POST /v1/heartbeat", fmt.Sprintf(`{"lease_ids":[%d]}`, lease), func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Heartbeat), &registrypb.HeartbeatRequest{LeaseIds: []uint64{lease}})
		}},
		"register at a bad address": {"PUT /v1/groups/web/members/d", `{"addr":"x"}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Register), &registrypb.RegisterRequest{Group: "web", Id: "d", Addr: "x"})
		}},
		"register in conflict": {"PUT /v1/groups/web/members/a", `{"addr":"10.0.0.2:80"}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(api.Register), &registrypb.RegisterRequest{Group: "web", Id: "a", Addr: "10.0.0.2:80"})
		}},
		"update": {"PATCH /v1/groups/web/members/a", `{"weight":1001}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(api.UpdateMember), &registrypb.UpdateMemberRequest{Group: "web", Id: "a", Weight: &weight})
		}},
		"set a group at another revision": {"PUT /v1/groups/web", `{"config":{"virtual_nodes":512},"expected_revision":1}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(api.SetGroup), &registrypb.SetGroupRequest{Group: "web", Config: &registrypb.GroupConfig{VirtualNodes: 512}, ExpectedRevision: 1})
		}},
		"delete a group with members": {"DELETE /v1/groups/web", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(api.DeleteGroup), &registrypb.DeleteGroupRequest{Group: "web"})
		}},
		"remove an unknown node": {"DELETE /v1/cluster/nodes/n9", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(cluster.Remove), &registrypb.RemoveRequest{Id: "n9"})
		}},
		"join of nobody": {"POST /v1/cluster/join", `{"bind":"127.0.0.1:1"}`, func(token string) (string, error) {
			return call(t, token, withoutOptions(cluster.Join), &registrypb.JoinRequest{Bind: "127.0.0.1:1"})
		}},
		"tokens": {"GET /v1/tokens", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(tokens.List), &registrypb.ListTokensRequest{})
		}},
		"own token": {"GET /v1/tokens/self", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(tokens.Self), &registrypb.SelfRequest{})
		}},
		"rotate an unknown token": {"POST /v1/tokens/none/rotate", `{}`, func(token string) (string, error) {
			_, _, hash := registrypb.MakeToken()
			return call(t, token, withoutOptions(tokens.Rotate), &registrypb.RotateTokenRequest{Name: "none", Hash: hash})
		}},
		"revoke the last administrator": {"DELETE /v1/tokens/first", "", func(token string) (string, error) {
			return call(t, token, withoutOptions(tokens.Revoke), &registrypb.RevokeTokenRequest{Name: "first"})
		}},
	} {
		for caller, token := range map[string]string{"admin": c.admin, "web": web, "unknown": "x"} {
			t.Run(name+" by "+caller, func(t *testing.T) {
				want, err := row.grpc(token)
				got := c.http(t, 0, token, row.request, row.body)
				if err == nil {
					if same(got.text) != same(want) {
						t.Errorf("over HTTP %s, over gRPC %s", got.text, want)
					}
					return
				}
				gotReason, gotField := got.problem()
				if !strings.EqualFold(gotReason, reason(err).String()) || gotField != field(err) || sameWait(fmt.Sprint(got.body["detail"])) != sameWait(status.Convert(err).Message()) {
					t.Errorf("over HTTP %d %s, over gRPC %v with the field %q", got.code, got.text, err, field(err))
				}
				if named := fmt.Sprint(got.body["lease_ids"]); len(detailOf(err).GetLeaseIds()) > 0 && named != fmt.Sprint(detailOf(err).GetLeaseIds()) {
					t.Errorf("over HTTP the leases %s are named, over gRPC %v", named, err)
				}
			})
		}
	}
}

var waits = regexp.MustCompile(`again in [0-9a-z.]+`)

// sameWait leaves out of a text how long a caller has to wait: a second may pass between
// two calls.
func sameWait(text string) string { return waits.ReplaceAllString(text, "again in some time") }
