package registrytest_test

import (
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// TestLeaderWithoutQuorumSaysSo: a node that led and lost both others answers
// from what it has, says how old that is, and refuses who wants better.
func TestLeaderWithoutQuorumSaysSo(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	c.register(t, 0, nil)
	leader := 0
	st, err := registrypb.NewClusterClient(c.conns[0]).Status(t.Context(), &registrypb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range c.nodes {
		if n.ID() == st.Leader {
			leader = i
		}
	}
	read := func(opts *registrypb.ReadOptions) (*registrypb.MembersResponse, error) {
		return c.apis[leader].Members(t.Context(), &registrypb.MembersRequest{Group: "web", Read: opts})
	}
	const allowed = 2 * time.Second
	if r, err := read(&registrypb.ReadOptions{MaxStaleness: durationpb.New(allowed)}); err != nil || r.Receipt.Node != st.Leader || r.Receipt.Revision == 0 || r.Receipt.Fingerprint == 0 {
		t.Fatalf("with a quorum: %v, %v", r, err)
	}
	for i, n := range c.nodes {
		if i != leader {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	alone := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last time.Duration
	for refused := false; !refused; <-tick.C {
		_, err := read(&registrypb.ReadOptions{MaxStaleness: durationpb.New(allowed)})
		refused = reason(err) == registrypb.ErrorDetail_STALE
		if err != nil && !refused {
			t.Fatal(err)
		}
		if took := time.Since(alone); took > allowed+10*time.Second {
			t.Fatalf("answers with a bound of %s for %s", allowed, took)
		}
		r, err := read(nil)
		if err != nil {
			t.Fatalf("local read: %v", err)
		}
		lag := r.Receipt.Lag.AsDuration()
		if lag < last && last > time.Second {
			t.Errorf("the lag fell from %s to %s without anyone to hear from", last, lag)
		}
		last = lag
	}
	t.Logf("refused %s after the others had ended, at a lag of %s", time.Since(alone), last)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for query, want := range map[string]int{"": 200, "?max_lag=1h": 200, "?max_lag=1s": 503, "?max_lag=1": 400, "?maxlag=1h": 400} {
		resp, err := client.Get("http://" + c.nodes[leader].Addr() + "/readyz" + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("/readyz%s: %d, want %d", query, resp.StatusCode, want)
		}
	}
	if _, err := read(&registrypb.ReadOptions{Linearizable: true}); err == nil {
		t.Error("a linearizable read without a quorum")
	}
}
