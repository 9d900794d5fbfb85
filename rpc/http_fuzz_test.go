package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// fuzzWriter takes an answer. The context of a stream ends with its first events.
type fuzzWriter struct {
	*httptest.ResponseRecorder
	end context.CancelFunc
}

func (fuzzWriter) SetReadDeadline(time.Time) error  { return nil }
func (fuzzWriter) SetWriteDeadline(time.Time) error { return nil }
func (w fuzzWriter) FlushError() error              { w.end(); return nil }

// fuzzedHTTP is the whole handler of a node.
type fuzzedHTTP struct {
	handler http.Handler
	node    *storetest.Node
	token   string // may do all but administer: nothing dials what was made up
	calls   int
	heap    uint64 // after the first calls
}

func newFuzzedHTTP(f *testing.F) *fuzzedHTTP {
	c := storetest.New(f)
	n := c.Start("n1", store.Formation{})
	c.AwaitReady(n)
	s, err := New(Config{Store: n.Store, Peers: NewPeers(nil)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := errors.Join(s.Close(), s.peers.Close()); err != nil {
			f.Error(err)
		}
	})
	makeToken(c, "root", true, every)
	token, _ := makeToken(c, "fuzz", false, fsm.Discover|fsm.Register|fsm.Operate)
	return &fuzzedHTTP{handler: s.http.http.Handler, node: n, token: token}
}

// answer makes a request. It returns nil for one that net/http would refuse itself.
func (h *fuzzedHTTP) answer(method, target, media, lastID string, body []byte) *httptest.ResponseRecorder {
	u, err := url.ParseRequestURI(target)
	if err != nil || !strings.HasPrefix(target, "/") {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond) // reads may wait for an index
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, method, "/", bytes.NewReader(body))
	r.URL, r.RequestURI = u, target
	r.Header.Set("Authorization", "Bearer "+h.token)
	r.Header.Set("Content-Type", media)
	r.Header.Set(lastEventID, lastID)
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(fuzzWriter{w, cancel}, r)
	return w
}

// tidy keeps the state small, and expects the memory not to grow.
func (h *fuzzedHTTP) tidy(t *testing.T) {
	if h.calls++; h.calls%1000 != 0 {
		return
	}
	var groups []string
	for g := range h.node.State().GroupsFrom("") {
		groups = append(groups, g.Name)
	}
	for _, name := range groups {
		cmd := &fsmpb.Command{Op: &fsmpb.Command_DeleteGroup{DeleteGroup: &fsmpb.DeleteGroup{Group: name, Force: true}}}
		if _, err := h.node.Write(t.Context(), cmd); err != nil {
			t.Logf("group %q stays for another 1,000 calls: %v", name, err)
		}
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	switch {
	case h.heap == 0:
		h.heap = m.HeapAlloc
	case m.HeapAlloc > 2*h.heap+32<<20:
		t.Errorf("after %d calls the heap has %d bytes, after the first 1,000 it had %d", h.calls, m.HeapAlloc, h.heap)
	}
}

var httpMethods = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}

// FuzzHTTP: whatever the path, the query, the headers and the body, a node answers with
// JSON, or events, and never with an error of its own.
func FuzzHTTP(f *testing.F) {
	h := newFuzzedHTTP(f)
	const member = `{"addr":"10.0.0.1:80","meta":{"zone":"a"},"ttl":"10s","instance":"0a","weight":2}`
	for _, seed := range []struct {
		method       string
		target, last string
		body         string
	}{
		{"PUT", "/v1/groups/web", "", `{"config":{"virtual_nodes":128,"bound":1250},"expected_revision":0}`},
		{"PUT", "/v1/groups/web/members/a", "", member},
		{"PATCH", "/v1/groups/web/members/a", "", `{"weight":2,"state":"draining"}`},
		{"GET", "/v1/groups?prefix=we&linearizable=true&page_size=3", "", ""},
		{"GET", "/v1/groups/web/members?max_staleness=1s&page_token=a", "", ""},
		{"GET", "/v1/groups/w%C3%BCb/match?key=k%00&n=2&min_index=1", "", ""},
		{"POST", "/v1/groups/web/match", "", `{"keys":["a","\u00fc"],"keys_base64":["/w=="],"n":3}`},
		{"GET", "/v1/groups/web/guard", "", ""},
		{"POST", "/v1/groups/web/accept-loss", "", `{}`},
		{"POST", "/v1/heartbeat", "", `{"lease_ids":[1,18446744073709551615]}`},
		{"GET", "/v1/index?min_index=99999999", "", ""},
		{"GET", "/v1/watch?group=web&progress_interval=1s&pieces=true", "7-0123456789abcdef-c", ""},
		{"GET", "/v1/watch?prefix=&revision=1&fingerprint=0123456789abcdef&cluster_id=c", "", ""},
		{"GET", "/v1/watch?groups=true", "", ""},
		{"GET", "/v1/watch?nodes=true", "", ""},
		{"DELETE", "/v1/groups/web/members/a?instance=0a", "", ""},
		{"DELETE", "/v1/groups/web?force=true", "", ""},
		{"GET", "/v1/cluster?group=web", "", ""},
		{"POST", "/v1/tokens", "", `{"name":"x","grants":[{"rights":["discover"],"prefix":"w"}],"expires_at":"2100-01-02T15:04:05Z"}`},
		{"DELETE", "/v1/tokens/%2e%2e", "", ""},
		{"GET", "/v1/tokens/self", "", ""},
		{"GET", "/v1//groups/../x;y?&=&%zz", "", ""},
		{"GET", "/v1/groups?\xff=1", "", ""},
		{"GET", "/readyz?max_lag=1s", "", ""},
	} {
		f.Add(uint8(slices.Index(httpMethods, seed.method)), seed.target, "application/json", seed.last, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, method uint8, target, media, lastID string, body []byte) {
		h.tidy(t)
		name := httpMethods[int(method)%len(httpMethods)]
		w := h.answer(name, target, media, lastID, body)
		if w == nil {
			return
		}
		got := w.Header().Get("Content-Type")
		if w.Code == http.StatusInternalServerError || w.Code == 0 {
			t.Errorf("%s %q: %d %s", name, target, w.Code, w.Body)
		}
		if strings.Contains(got, "json") && !json.Valid(w.Body.Bytes()) && w.Header().Get("Content-Encoding") == "" && w.Body.Len() > 0 {
			t.Errorf("%s %q: %s", name, target, w.Body)
		}
		if strings.HasPrefix(target, "/v1/") && w.Code >= 400 && got != "application/problem+json" {
			t.Errorf("%s %q: %d in %s: %s", name, target, w.Code, got, w.Body)
		}
	})
}
