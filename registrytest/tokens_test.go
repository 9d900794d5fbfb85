package registrytest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// tokenCluster is an apiCluster with tokens on.
type tokenCluster struct {
	*apiCluster
	admin string // the first token
}

func newTokenCluster(t *testing.T, changes ...func(*registry.Config)) *tokenCluster {
	t.Helper()
	return tokensOn(t, newAPICluster(t, changes...))
}

func tokensOn(t *testing.T, api *apiCluster) *tokenCluster {
	t.Helper()
	c := &tokenCluster{apiCluster: api}
	text, id, hash := registrypb.MakeToken()
	r, err := c.tokens(len(c.conns)/2).Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "first"}})
	if err != nil {
		t.Fatal(err)
	}
	c.admin = text
	c.await(t, r.Index)
	return c
}

func (c *tokenCluster) tokens(via int) registrypb.TokensClient {
	return registrypb.NewTokensClient(c.conns[via])
}

// await waits until every node has applied the index. It asks with the first token.
func (c *tokenCluster) await(t *testing.T, index uint64) {
	t.Helper()
	for _, api := range c.apis {
		if _, err := api.Index(with(t.Context(), c.admin), &registrypb.IndexRequest{Read: &registrypb.ReadOptions{MinIndex: index}}); err != nil {
			t.Fatal(err)
		}
	}
}

// grant creates a token that every node knows.
func (c *tokenCluster) grant(t *testing.T, name string, change func(*registrypb.NewToken), grants ...*registrypb.Grant) string {
	t.Helper()
	text, id, hash := registrypb.MakeToken()
	token := &registrypb.NewToken{Id: id, Hash: hash, Name: name, Grants: grants}
	if change != nil {
		change(token)
	}
	r, err := c.tokens(len(c.conns)-1).Create(with(t.Context(), c.admin), &registrypb.CreateTokenRequest{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, r.Index)
	return text
}

// with adds a token to a call.
func with(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, registrypb.AuthorizationHeader, "Bearer "+token)
}

func may(prefix string, rights ...registrypb.Right) *registrypb.Grant {
	return &registrypb.Grant{Rights: rights, Prefix: prefix}
}

const (
	rightDiscover = registrypb.Right_RIGHT_DISCOVER
	rightRegister = registrypb.Right_RIGHT_REGISTER
	rightOperate  = registrypb.Right_RIGHT_OPERATE
)

// Every node demands a token for everything that the permissions do not declare open,
// as soon as the first one exists.
func TestTokensAreDemanded(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	for i, api := range c.apis {
		_, err := api.Match(t.Context(), &registrypb.MatchRequest{Group: "web", Key: []byte("k")})
		wantReason(t, err, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)
		_, err = api.Register(t.Context(), &registrypb.RegisterRequest{Group: "web", Id: "w", Addr: "10.0.0.1:80"})
		wantReason(t, err, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)
		other, _, _ := registrypb.MakeToken()
		_, err = api.Index(with(t.Context(), other), &registrypb.IndexRequest{})
		wantReason(t, err, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)
		text, id, hash := registrypb.MakeToken()
		_, err = c.tokens(i).Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "second"}})
		wantReason(t, err, codes.AlreadyExists, registrypb.ErrorDetail_CONFLICT)
		_, err = api.Index(with(t.Context(), text), &registrypb.IndexRequest{})
		wantReason(t, err, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)
		if code := c.get(t, i, "/metrics", ""); code != http.StatusUnauthorized {
			t.Errorf("metrics without a token: %d", code)
		}
		if code := c.get(t, i, "/metrics", c.admin); code != http.StatusOK {
			t.Errorf("metrics with a token: %d", code)
		}
		if code := c.get(t, i, "/livez", ""); code != http.StatusOK {
			t.Errorf("livez: %d", code)
		}
	}
}

func (c *tokenCluster) get(t *testing.T, via int, path, token string) int {
	t.Helper()
	code, _ := c.page(t, via, path, token)
	return code
}

// page requests a page of a node.
func (c *tokenCluster) page(t *testing.T, via int, path, token string) (code int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.nodes[via].Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

// A token allows what its grants say, in the groups of its prefix, through every node.
func TestGrantsBoundWhatATokenMay(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	web := c.grant(t, "web", nil, may("web-", rightDiscover, rightRegister))
	for i, api := range c.apis {
		ctx := with(t.Context(), web)
		w, err := api.Register(ctx, &registrypb.RegisterRequest{Group: "web-1", Id: "w", Addr: "10.0.0.1:80", Instance: []byte("one")})
		if err != nil {
			t.Errorf("node %d: %v", i, err)
		}
		read := &registrypb.ReadOptions{MinIndex: w.GetIndex()} // a follower may be behind
		_, err = api.Register(ctx, &registrypb.RegisterRequest{Group: "db", Id: "w", Addr: "10.0.0.1:80"})
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_PERMISSION_DENIED)
		_, err = api.Groups(ctx, &registrypb.GroupsRequest{})
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_PERMISSION_DENIED)
		if r, err := api.Groups(ctx, &registrypb.GroupsRequest{Prefix: "web-", Read: read}); err != nil || len(r.Groups) != 1 {
			t.Errorf("groups web-: %v, %v", r, err)
		}
		_, err = api.SetGroup(ctx, &registrypb.SetGroupRequest{Group: "web-1"})
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_PERMISSION_DENIED)
		_, err = c.tokens(i).List(ctx, &registrypb.ListTokensRequest{})
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_PERMISSION_DENIED)
		if self, err := c.tokens(i).Self(ctx, &registrypb.SelfRequest{}); err != nil || self.Token.GetName() != "web" {
			t.Errorf("self: %v, %v", self, err)
		}
	}
}

// A late attempt of Create or Rotate, at whichever node, does what its first one did and
// no more: it creates no revoked token again, and brings no old secret back.
func TestLateAttemptsOfTokenCalls(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	ctx := with(t.Context(), c.admin)
	text, id, hash := registrypb.MakeToken()
	create := &registrypb.CreateTokenRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "late", Grants: []*registrypb.Grant{may("", rightDiscover)}}}
	first, err := c.tokens(0).Create(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.conns {
		if r, err := c.tokens(i).Create(ctx, create); err != nil || r.Index != first.Index {
			t.Errorf("again at node %d: %v, %v, want index %d", i, r, err, first.Index)
		}
	}
	valid := func(what, token string, want bool) {
		t.Helper()
		for i := range c.conns {
			if _, err := c.tokens(i).Self(with(t.Context(), token), &registrypb.SelfRequest{}); (err == nil) != want {
				t.Errorf("%s at node %d: %v, want valid %v", what, i, err, want)
			}
		}
	}
	second, secondHash := registrypb.MakeTokenSecret(id)
	third, thirdHash := registrypb.MakeTokenSecret(id)
	var last uint64
	for _, hash := range [][]byte{secondHash, thirdHash} {
		r, err := c.tokens(1).Rotate(ctx, &registrypb.RotateTokenRequest{Name: "late", Hash: hash})
		if err != nil {
			t.Fatal(err)
		}
		last = r.Index
	}
	for i := range c.conns {
		_, err := c.tokens(i).Rotate(ctx, &registrypb.RotateTokenRequest{Name: "late", Hash: secondHash})
		wantReason(t, err, codes.AlreadyExists, registrypb.ErrorDetail_CONFLICT)
		if r, err := c.tokens(i).Rotate(ctx, &registrypb.RotateTokenRequest{Name: "late", Hash: thirdHash}); err != nil || r.Index != last {
			t.Errorf("the last rotation again at node %d: %v, %v, want index %d", i, r, err, last)
		}
	}
	c.await(t, last)
	valid("the first secret", text, false)
	valid("the second secret", second, false)
	valid("the third secret", third, true)
	gone, err := c.tokens(2).Revoke(ctx, &registrypb.RevokeTokenRequest{Name: "late"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.conns {
		_, err := c.tokens(i).Create(ctx, create)
		wantReason(t, err, codes.NotFound, registrypb.ErrorDetail_UNKNOWN_TOKEN)
	}
	c.await(t, gone.Index)
	valid("the first secret, after all", text, false)
	if list, err := c.tokens(0).List(ctx, &registrypb.ListTokensRequest{}); err != nil || len(list.Tokens) != 1 {
		t.Errorf("%v, %v, want the first token alone", list, err)
	}
}

// Every node tells at which index it has applied the last change of the tokens.
func TestTokensRevisionIsAMetric(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	c.grant(t, "short", nil, may("", rightDiscover))
	r, err := c.tokens(0).Revoke(with(t.Context(), c.admin), &registrypb.RevokeTokenRequest{Name: "short"})
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, r.Index)
	for i := range c.nodes {
		_, text := c.page(t, i, "/metrics", c.admin)
		if got := samples(t, []byte(text))["registry_tokens_revision"]; got != float64(r.Index) {
			t.Errorf("node %d: %v, want %d", i, got, r.Index)
		}
	}
}

// A lease belongs to the token that made it.
func TestLeasesBelongToTheirToken(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	one := c.grant(t, "one", nil, may("", rightRegister))
	two := c.grant(t, "two", nil, may("", rightRegister))
	op := c.grant(t, "op", nil, may("", rightOperate))
	for i, api := range c.apis {
		id := string(rune('a' + i))
		req := func() *registrypb.RegisterRequest {
			return &registrypb.RegisterRequest{Group: "web", Id: id, Addr: "10.0.0.1:80", Instance: []byte("inst" + id), Ttl: durationpb.New(time.Hour)}
		}
		r, err := api.Register(with(t.Context(), one), req())
		if err != nil {
			t.Fatal(err)
		}
		beat := &registrypb.HeartbeatRequest{LeaseIds: []uint64{r.LeaseId}}
		for token, want := range map[string]codes.Code{one: codes.OK, two: codes.PermissionDenied, op: codes.OK} {
			if _, err := api.Heartbeat(with(t.Context(), token), beat); status.Code(err) != want {
				t.Errorf("heartbeat: %v, want %v", err, want)
			} else if named := detailOf(err).GetLeaseIds(); want != codes.OK && !slices.Equal(named, beat.LeaseIds) {
				t.Errorf("leases %v are named, want %v", named, beat.LeaseIds)
			}
		}
		_, err = api.Register(with(t.Context(), two), req())
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_NOT_OWNER)
		for _, token := range []string{two, c.admin} { // a token for everything, too
			r, err := api.RegisterMany(with(t.Context(), token), &registrypb.RegisterManyRequest{Registrations: []*registrypb.RegisterRequest{req()}})
			if err != nil || r.Results[0].GetFailure().GetDetail().GetReason() != registrypb.ErrorDetail_NOT_OWNER {
				t.Errorf("registered in a call of several: %v, %v", r, err)
			}
		}
		taken := req()
		taken.Instance, taken.TakeOver = []byte("other"), true
		_, err = api.Register(with(t.Context(), two), taken)
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_NOT_OWNER)
		_, err = api.Deregister(with(t.Context(), two), &registrypb.DeregisterRequest{Group: "web", Id: id})
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_NOT_OWNER)
		weight := uint32(3)
		_, err = api.UpdateMember(with(t.Context(), two), &registrypb.UpdateMemberRequest{Group: "web", Id: id, Weight: &weight, Instance: []byte("inst" + id)})
		wantReason(t, err, codes.PermissionDenied, registrypb.ErrorDetail_NOT_OWNER)
		if _, err := api.UpdateMember(with(t.Context(), op), &registrypb.UpdateMemberRequest{Group: "web", Id: id, Weight: &weight}); err != nil {
			t.Errorf("update by operate: %v", err)
		}
		if r, err := api.Deregister(with(t.Context(), one), &registrypb.DeregisterRequest{Group: "web", Id: id}); err != nil || !r.Removed {
			t.Errorf("deregister by the owner: %v, %v", r, err)
		}
	}
}

// The streams of a revoked, rotated or expired token end within a second.
func TestStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	end := map[string]func(name string){
		"revoked": func(name string) {
			if _, err := c.tokens(1).Revoke(with(t.Context(), c.admin), &registrypb.RevokeTokenRequest{Name: name}); err != nil {
				t.Error(err)
			}
		},
		"rotated": func(name string) {
			_, _, hash := registrypb.MakeToken()
			if _, err := c.tokens(1).Rotate(with(t.Context(), c.admin), &registrypb.RotateTokenRequest{Name: name, Hash: hash}); err != nil {
				t.Error(err)
			}
		},
		"expired": func(string) {},
	}
	for name, end := range end {
		token := c.grant(t, name, func(n *registrypb.NewToken) {
			if name == "expired" {
				n.ExpiresAt = timestamppb.New(time.Now().Add(5 * time.Second)) // the streams are open by then
			}
		}, may("", rightDiscover, rightRegister))
		var waits []func() error
		for i := range c.apis {
			waits = append(waits, c.openStreams(t, i, token)...)
		}
		end(name)
		begin := time.Now()
		for _, wait := range waits {
			err := wait()
			wantReason(t, err, codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)
		}
		t.Logf("%s: the last stream ended after %v", name, time.Since(begin))
	}
}

// openStreams opens a watch and a heartbeat stream; the results wait for their ends.
func (c *tokenCluster) openStreams(t *testing.T, via int, token string) []func() error {
	t.Helper()
	ctx, cancel := context.WithTimeout(with(t.Context(), token), 20*time.Second)
	t.Cleanup(cancel)
	watch, err := c.apis[via].Watch(ctx, &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "web"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	beats, err := c.apis[via].HeartbeatStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := beats.Send(&registrypb.HeartbeatRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := beats.Recv(); err != nil {
		t.Fatal(err)
	}
	return []func() error{
		func() error { return untilEnd(watch) },
		func() error { return untilEnd[registrypb.HeartbeatResponse](beats) },
	}
}

func untilEnd[T any](stream grpc.ServerStreamingClient[T]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// A watch that was opened before the first token ends with it.
func TestStreamsEndWhenTokensAreTurnedOn(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	var waits []func() error
	for i := range c.apis {
		waits = append(waits, (&tokenCluster{apiCluster: c}).openStreams(t, i, "")...)
	}
	_, id, hash := registrypb.MakeToken()
	if _, err := registrypb.NewTokensClient(c.conns[0]).Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: id, Hash: hash, Name: "first"}}); err != nil {
		t.Fatal(err)
	}
	for _, wait := range waits {
		if err := wait(); status.Code(err) != codes.Unauthenticated || errors.Is(err, io.EOF) {
			t.Errorf("the stream ended with %v", err)
		}
	}
}
