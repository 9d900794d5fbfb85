package registry_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/storetest"
)

// limitedNode is a node, and clients that take no message of more than a piece.
type limitedNode struct {
	*registry.Node
	api    registrypb.RegistryClient
	client *sdk.Client
}

func newLimitedNode(t *testing.T, l rpc.Limits, most int) *limitedNode {
	t.Helper()
	cluster := registrytest.Start(t, registrytest.WithConfig(func(c *registry.Config) { c.SetLimits(l) }))
	n := &limitedNode{Node: cluster.Nodes()[0]}
	bounded := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(most))
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()), bounded)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n.api = registrypb.NewRegistryClient(conn)
	n.client = cluster.Dial(sdk.WithDialOptions(bounded), sdk.WithCallTimeout(time.Minute))
	return n
}

// fill registers members with some bytes of metadata each.
func (n *limitedNode) fill(t *testing.T, group string, members, meta int) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range members {
		g.Go(func() error {
			_, err := n.api.Register(t.Context(), &registrypb.RegisterRequest{
				Group: group, Id: fmt.Sprintf("m-%05d", i), Addr: "10.0.0.1:80", Ttl: durationpb.New(time.Hour),
				Meta: map[string]string{"k": strings.Repeat("x", meta-1)},
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (n *limitedNode) context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// isListed lists, watches and rings a group by the SDK.
func (n *limitedNode) isListed(t *testing.T, group string, members int) {
	t.Helper()
	ctx := n.context(t)
	var r sdk.Receipt
	g, all, err := n.client.Group(ctx, group, sdk.Linearizable(), sdk.WithReceipt(&r))
	if err != nil || len(all) != members || g.Members != members {
		t.Fatalf("%d of %d members, %v", len(all), members, err)
	}
	if !slices.IsSortedFunc(all, func(a, b sdk.Member) int { return strings.Compare(a.ID, b.ID) }) || all[members-1].ID != fmt.Sprintf("m-%05d", members-1) {
		t.Error("they are not in order")
	}
	watch, err := n.client.Watch(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	prefix, err := n.client.WatchPrefix(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*sdk.Watch[sdk.GroupEvent]{"watch": watch, "prefix": prefix} {
		if e, err := w.Next(ctx); err != nil || !e.Reset || len(e.Put) != members || e.Revision != r.Revision {
			t.Errorf("%s: %d members at %d, %v", name, len(e.Put), e.Revision, err)
		}
		_ = w.Close()
	}
	ring, err := n.client.Ring(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	if len(ring.Members()) != members || ring.Fingerprint() != r.Fingerprint {
		t.Errorf("a ring of %d members with fingerprint %016x, want %016x", len(ring.Members()), ring.Fingerprint(), r.Fingerprint)
	}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	owners, err := n.client.MatchMany(ctx, group, keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		if m, err := ring.Match(key); err != nil || m.ID != owners[i].ID {
			t.Fatalf("%s is at %s and at %v, %v", key, owners[i].ID, m, err)
		}
	}
}

// A group whose members are larger than a message may be is listed, watched and
// ringed in messages of a piece each, and refused by name to who wants it whole.
func TestGroupLargerThanAMessage(t *testing.T) {
	l := rpc.Limits{Answer: 96 << 10, Piece: 24 << 10}
	n := newLimitedNode(t, l, l.Answer)
	n.fill(t, "web", 300, 1000)
	n.isListed(t, "web", 300)
	ctx := n.context(t)

	wantField := func(what string, err error, field string) {
		t.Helper()
		wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
		if !strings.Contains(fmt.Sprint(err), field+": must be") {
			t.Errorf("%s: %v does not name %s", what, err, field)
		}
	}
	_, err := n.api.Members(ctx, &registrypb.MembersRequest{Group: "web"})
	wantField("members", err, "page_size")
	_, err = n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageSize: 10_001})
	wantField("members", err, "page_size")
	for _, token := range []string{"m-00007", "1/zz/m-00007", "/"} {
		_, err = n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageToken: token})
		wantField("members", err, "page_token")
	}
	_, err = n.api.Match(ctx, &registrypb.MatchRequest{Group: "web", Key: []byte("k"), N: 200})
	wantField("match", err, "n")
	_, err = n.api.MatchMany(ctx, &registrypb.MatchManyRequest{Group: "web", Keys: [][]byte{[]byte("k")}, N: 200})
	wantField("match many", err, "n")
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Append(nil, "key-", i)
	}
	_, err = n.api.MatchMany(ctx, &registrypb.MatchManyRequest{Group: "web", Keys: keys})
	wantField("match many", err, "keys")
	for name, req := range map[string]*registrypb.WatchRequest{
		"group": {Target: &registrypb.WatchRequest_Group{Group: "web"}}, "prefix": {Target: &registrypb.WatchRequest_Prefix{Prefix: "w"}},
	} {
		stream, err := n.api.Watch(ctx, req)
		if err == nil {
			_, err = stream.Recv()
		}
		wantField("watch of a "+name, err, "pieces")
	}
	small, err := n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageSize: 2})
	if err != nil || len(small.Members) != 2 || small.NextPageToken == "" {
		t.Errorf("a page of two: %v, %v", small, err)
	}
}

// All pages are of the revision of the first, whatever changes meanwhile.
func TestPagesAreOfOneRevision(t *testing.T) {
	n := newLimitedNode(t, rpc.Limits{}, rpc.MaxPiece)
	n.fill(t, "web", 50, 1)
	ctx := n.context(t)
	first, err := n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageSize: 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.Deregister(ctx, &registrypb.DeregisterRequest{Group: "web", Id: "m-00030"}); err != nil {
		t.Fatal(err)
	}
	n.fill(t, "web", 60, 1)
	ids, last := 20, first
	for last.NextPageToken != "" {
		if last, err = n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageSize: 20, PageToken: last.NextPageToken}); err != nil {
			t.Fatal(err)
		}
		if last.Members[0].Id != fmt.Sprintf("m-%05d", ids) || last.Receipt.Revision != first.Receipt.Revision || last.Receipt.Fingerprint != first.Receipt.Fingerprint {
			t.Errorf("a page from %s on, at revision %d, after %d members at %d", last.Members[0].Id, last.Receipt.Revision, ids, first.Receipt.Revision)
		}
		ids += len(last.Members)
	}
	if ids != 50 {
		t.Errorf("%d members", ids)
	}
	_, err = n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageToken: "1/abc/m-00001"})
	wantReason(t, err, codes.Aborted, registrypb.ErrorDetail_REVISION_MISMATCH)
}

// A page of an old revision says how old it is, and is refused where that is too old.
func TestPagesOfAnOldRevisionSayTheirAge(t *testing.T) {
	n := newLimitedNode(t, rpc.Limits{}, rpc.MaxPiece)
	n.fill(t, "web", 5, 1)
	ctx := n.context(t)
	page := func(token string, maxStaleness time.Duration) (*registrypb.MembersResponse, error) {
		return n.api.Members(ctx, &registrypb.MembersRequest{Group: "web", PageSize: 2, PageToken: token,
			Read: &registrypb.ReadOptions{MaxStaleness: durationpb.New(maxStaleness)}})
	}
	first, err := page("", 0)
	for ctx.Err() == nil && err != nil { // until the node has heard of itself as the leader
		first, err = page("", 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.fill(t, "web", 6, 1)
	second, err := page(first.NextPageToken, time.Hour)
	if err != nil || second.Receipt.Lag.AsDuration() <= 0 || second.Receipt.Revision != first.Receipt.Revision {
		t.Errorf("an old revision has receipt %v, %v", second.GetReceipt(), err)
	}
	_, err = page(first.NextPageToken, 0)
	wantReason(t, err, codes.Unavailable, registrypb.ErrorDetail_STALE)
}

// A list that others pushed out between two pages starts over in the SDK, and is then
// of the new revision.
func TestListStartsOverWhenItsPagesWerePushedOut(t *testing.T) {
	n := newLimitedNode(t, rpc.Limits{}, rpc.MaxPiece)
	n.fill(t, "web", 30, 1000)
	for i := range 64 {
		n.fill(t, fmt.Sprint("other-", i), 2, 1)
	}
	var pages, refused atomic.Int64
	pushOut := func(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		m, ok := req.(*registrypb.MembersRequest)
		if !ok {
			return call(ctx, method, req, resp, conn, opts...)
		}
		m.PageSize = 20
		if m.PageToken != "" && pages.Add(1) == 1 {
			n.fill(t, "web", 31, 1)
			for i := range 64 {
				if _, err := n.api.Members(ctx, &registrypb.MembersRequest{Group: fmt.Sprint("other-", i), PageSize: 1}); err != nil {
					t.Error(err)
				}
			}
		}
		err := call(ctx, method, req, resp, conn, opts...)
		if err != nil {
			refused.Add(1)
			wantReason(t, err, codes.Aborted, registrypb.ErrorDetail_REVISION_MISMATCH)
		}
		return err
	}
	client, err := sdk.Dial(n.Addr(), sdk.WithDialOptions(grpc.WithUnaryInterceptor(pushOut)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ms, err := client.Members(n.context(t), "web")
	if err != nil || len(ms) != 31 || refused.Load() != 1 {
		t.Errorf("%d members after %d refusals, %v", len(ms), refused.Load(), err)
	}
}

// Lists of groups come in pages, too.
func TestPagesOfGroups(t *testing.T) {
	l := rpc.Limits{Answer: 2 << 10, Piece: 12 << 10}
	n := newLimitedNode(t, l, l.Piece)
	for i := range 120 {
		n.fill(t, fmt.Sprintf("%03d-%s", i, strings.Repeat("g", 200)), 1, 1)
	}
	ctx := n.context(t)
	groups, err := n.client.Groups(ctx)
	if err != nil || len(groups) != 120 || !slices.IsSortedFunc(groups, func(a, b sdk.Group) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d groups, %v", len(groups), err)
	}
	w, err := n.client.WatchGroups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := w.Next(ctx); err != nil || len(e.Groups) != 120 {
		t.Errorf("%d groups, %v", len(e.Groups), err)
	}
	_, err = n.api.Groups(ctx, &registrypb.GroupsRequest{})
	wantReason(t, err, codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT)
}

// 9,000 members with all the metadata that they may have: 74 MB.
func TestNineThousandMembersWithFullMetadata(t *testing.T) {
	if !storetest.Long() {
		t.Skip("registers 9,000 members: REGISTRY_LONG_TESTS=1")
	}
	n := newLimitedNode(t, rpc.Limits{}, rpc.MaxAnswer)
	n.fill(t, "web", 9000, 8<<10)
	n.isListed(t, "web", 9000)
}
