package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/audit"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// Every method of both ports is an administrative act, or is not: a new one is decided
// about here.
func TestActsOfAllMethods(t *testing.T) {
	acts := []string{
		"Registry/Register", "Registry/Deregister", "Registry/UpdateMember", // of another token's member
		"Registry/SetGroup", "Registry/DeleteGroup", "Registry/AcceptLoss",
		"Cluster/Join", "Cluster/Remove", "Cluster/Leave", "Cluster/Transfer", "Cluster/RaiseFeatureLevel", "Cluster/SaveSnapshot", "Cluster/RestoreSnapshot", "Cluster/Diagnose",
		"Tokens/Init", "Tokens/Create", "Tokens/Rotate", "Tokens/Revoke",
		"Peer/Join", "Peer/RecoverTokens",
	}
	others := []string{
		"Registry/RegisterMany", "Registry/Heartbeat", "Registry/HeartbeatStream", "Registry/Match", "Registry/MatchMany", "Registry/Members", "Registry/Groups",
		"Registry/Index", "Registry/Guard", "Registry/Watch", "Cluster/Status", "Tokens/List", "Tokens/Self",
		"Peer/Hello", "Peer/Term", "Peer/ReadIndex", "Peer/Invite", "Peer/Status", "Peer/Check", "Peer/State",
		"Health/Check", "Health/List", "Health/Watch", "ServerReflection/ServerReflectionInfo", methodName(discoveryRoute),
	}
	for _, full := range slices.Sorted(maps.Keys(permissions)) {
		name, p := methodName(full), permissions[full]
		if is := p.act != nil; is != slices.Contains(acts, name) || is == slices.Contains(others, name) {
			t.Errorf("%s: an act: %t", name, is)
		}
	}
}

// A removal that a leader does by itself is an act; one that failed is one if it may have
// an effect, and otherwise counts against the limit of lines.
func TestAuditOfARemoval(t *testing.T) {
	for _, tc := range []struct {
		name    string
		err     error
		outcome string
	}{
		{"done", nil, audit.OK},
		{"refused", fmt.Errorf("%w: no majority", store.ErrMembership), "MEMBERSHIP"},
		{"unknown", store.ErrOutcomeUnknown, "OUTCOME_UNKNOWN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			log := audit.New(slog.New(audit.NewHandler(&out)), nil)
			for range 100 {
				AuditRemoval(log, "n5", tc.err)
			}
			var line map[string]any
			if err := json.Unmarshal(bytes.SplitN(out.Bytes(), []byte("\n"), 2)[0], &line); err != nil {
				t.Fatal(err)
			}
			if line["msg"] != "audit: act" || line["method"] != "RemoveDead" || line["target_node"] != "n5" || line["outcome"] != tc.outcome {
				t.Errorf("%v", line)
			}
			if lines := bytes.Count(out.Bytes(), []byte("\n")); (lines == 100) == (tc.name == "refused") {
				t.Errorf("%d lines", lines)
			}
		})
	}
}

var addr = func(s string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", s); return a }

// The address of a forwarded call's client is believed on the bind port only, and only
// from a caller that has shown a certificate there.
func TestWhoForwardsIsBelievedWithACertificate(t *testing.T) {
	node := &x509.Certificate{URIs: []*url.URL{{Scheme: "registry", Host: "c", Path: "/node/n2"}}}
	for _, tc := range []struct {
		name      string
		port      port
		cert      *x509.Certificate
		md        metadata.MD
		from, via string
		forwarded bool
	}{
		{"on the client port", clientPort, node, metadata.Pairs(forwardedKey, "c", forwardedForKey, "10.9.9.9:9"), "10.0.0.1:1", "", false},
		{"without a certificate", bindPort, nil, metadata.Pairs(forwardedKey, "c", forwardedForKey, "10.9.9.9:9"), "10.0.0.1:1", "", true},
		{"not forwarded", bindPort, node, metadata.Pairs(forwardedForKey, "10.9.9.9:9"), "10.0.0.1:1", "", false},
		{"twice", bindPort, node, metadata.Pairs(forwardedKey, "c", forwardedForKey, "10.9.9.9:9", forwardedForKey, "10.8.8.8:8"), "10.0.0.1:1", "", true},
		{"by a node", bindPort, node, metadata.Pairs(forwardedKey, "c", forwardedForKey, "10.9.9.9:9"), "10.9.9.9:9", "10.0.0.1:1", true},
	} {
		var out bytes.Buffer
		a := &authorizer{port: tc.port, audit: audit.New(slog.New(audit.NewHandler(&out)), nil)}
		p := &peer.Peer{Addr: addr("10.0.0.1:1")}
		if tc.cert != nil {
			p.AuthInfo = credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{tc.cert}}}
		}
		ctx := metadata.NewIncomingContext(peer.NewContext(t.Context(), p), tc.md)
		c := a.call(ctx, peerpb.Peer_Join_FullMethodName)
		ctx = context.WithValue(ctx, callKey{}, c)
		c.decision.Store(&decision{})
		if err := c.ended(ctx, &peerpb.JoinRequest{Id: "n3"}, true, nil); err != nil {
			t.Fatal(err)
		}
		var r map[string]any
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		via, _ := r["via"].(string)
		forwarded, _ := r["forwarded"].(bool)
		if r["from"] != tc.from || via != tc.via || forwarded != tc.forwarded || r["target_node"] != "n3" {
			t.Errorf("%s: %v", tc.name, r)
		}
		a.audit.Close()
	}
}

// What fails is an act's failure, a refusal, or, where nobody has decided about it,
// nothing.
func TestFailuresInTheAuditLog(t *testing.T) {
	reason := func(code codes.Code, r registrypb.ErrorDetail_Reason) error {
		st, err := status.New(code, "why").WithDetails(&registrypb.ErrorDetail{Reason: r})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, tc := range []struct {
		name, msg, outcome string
		act                bool
		err                error
	}{
		{"act", "audit: act", "ok", true, nil},
		{"no act", "", "", false, nil},
		{"failed act", "audit: act", "UNKNOWN_NODE", true, reason(codes.NotFound, registrypb.ErrorDetail_UNKNOWN_NODE)},
		{"failed call", "", "", false, reason(codes.NotFound, registrypb.ErrorDetail_UNKNOWN_GROUP)},
		{"unknown outcome", "audit: act", "OUTCOME_UNKNOWN", true, reason(codes.Unknown, registrypb.ErrorDetail_OUTCOME_UNKNOWN)},
		{"given up", "audit: act", "Canceled", true, status.Error(codes.Canceled, "gone")},
		{"no leader", "", "", true, reason(codes.Unavailable, registrypb.ErrorDetail_NO_LEADER)},
		{"not ready", "", "", true, reason(codes.Unavailable, registrypb.ErrorDetail_NOT_READY)},
		{"not the owner", "audit: refused", "NOT_OWNER", false, reason(codes.PermissionDenied, registrypb.ErrorDetail_NOT_OWNER)},
		{"refused act", "audit: refused", "UNAUTHENTICATED", true, reason(codes.Unauthenticated, registrypb.ErrorDetail_UNAUTHENTICATED)},
	} {
		var out bytes.Buffer
		a := &authorizer{port: clientPort, audit: audit.New(slog.New(audit.NewHandler(&out)), nil)}
		c := a.call(t.Context(), registrypb.Tokens_Init_FullMethodName)
		c.decision.Store(&decision{})
		if err := c.ended(context.WithValue(t.Context(), callKey{}, c), &registrypb.InitTokensRequest{}, tc.act, tc.err); err != tc.err {
			t.Errorf("%s: the error became %v", tc.name, err)
		}
		a.audit.Close()
		r := make(map[string]any)
		if out.Len() > 0 {
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
		}
		msg, _ := r["msg"].(string)
		outcome, _ := r["outcome"].(string)
		if msg != tc.msg || outcome != tc.outcome {
			t.Errorf("%s: %v", tc.name, r)
		}
	}
}
