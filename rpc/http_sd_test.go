package rpc

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// discovery describes the route for the OpenAPI document.
func (s *schemas) discovery() object {
	text := object{"type": "string"}
	parameters := []any{
		object{"name": "group", "in": "query", "schema": text, "description": "The members of one group. Without group and prefix: of all groups."},
		object{"name": "prefix", "in": "query", "schema": text, "description": "The members of the groups whose names start with it."},
	}
	for i := range readOptions.Fields().Len() {
		fd := readOptions.Fields().Get(i)
		parameters = append(parameters, object{
			"name": string(fd.Name()), "in": "query", "schema": s.value(fd, string(fd.Name())), "description": s.comments["ReadOptions."+string(fd.Name())],
		})
	}
	targets := object{"type": "array", "items": object{"type": "object", "properties": object{
		"targets": object{"type": "array", "items": text}, "labels": object{"type": "object", "additionalProperties": text},
	}}}
	return object{
		"operationId": "discover", "tags": []any{"Prometheus"},
		"description": "The members as Prometheus's http_sd wants them: always the whole list, or an error.", "parameters": parameters,
		"responses": object{
			"200":     object{"description": "The targets.", "content": object{"application/json": object{"schema": targets}}},
			"default": object{"$ref": "#/components/responses/Problem"},
		},
	}
}

func pairsOf(keys ...string) (meta []fsm.Pair) {
	for _, k := range slices.Sorted(slices.Values(keys)) {
		meta = append(meta, fsm.Pair{Key: k, Value: "of " + k})
	}
	return meta
}

func TestMetadataLabels(t *testing.T) {
	for _, tc := range []struct{ keys, want []string }{
		{nil, []string{}},
		{[]string{"Zone", "rack_1"}, []string{"Zone", "rack_1"}},
		{[]string{"app.kubernetes.io/name", "größe", "7"}, []string{"7", "app_kubernetes_io_name", "gr__e"}},
		{[]string{"a-b", "a.b", "a_b"}, []string{"a_b_2", "a_b_3", "a_b"}},
		{[]string{"a-b", "a.b", "a_b_2"}, []string{"a_b", "a_b_3", "a_b_2"}},
		{[]string{"-", "."}, []string{"_", "__2"}},
	} {
		if got := metadataLabels(pairsOf(tc.keys...)); !slices.Equal(got, tc.want) {
			t.Errorf("%q are labelled %q, want %q", tc.keys, got, tc.want)
		}
	}
}

var validLabel = regexp.MustCompile(`^[a-zA-Z0-9_]+$`)

// FuzzTarget: whatever a member is named, its target is JSON with a label for each of its
// values and no other.
func FuzzTarget(f *testing.F) {
	f.Add("web", "a", "a-b", "a.b", "a_b", "x")
	f.Add("w\"b", "\\", "\x00", "__", "id", "\n")
	f.Fuzz(func(t *testing.T, group, id, k1, k2, k3, value string) {
		m := &fsm.Member{ID: strings.ToValidUTF8(id, "?"), Addr: "10.0.0.1:80", Weight: 7}
		for _, k := range []string{k1, k2, k3} {
			k = strings.ToValidUTF8(k, "?")
			if k != "" && !slices.ContainsFunc(m.Meta, func(p fsm.Pair) bool { return p.Key == k }) {
				m.Meta = append(m.Meta, fsm.Pair{Key: k, Value: strings.ToValidUTF8(value, "?")})
			}
		}
		slices.SortFunc(m.Meta, func(a, b fsm.Pair) int { return strings.Compare(a.Key, b.Key) })
		var got struct {
			Targets []string
			Labels  map[string]string
		}
		group = strings.ToValidUTF8(group, "?")
		if err := json.Unmarshal(appendTarget(nil, group, m), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Labels) != 4+len(m.Meta) || got.Labels["__meta_registry_id"] != m.ID || got.Labels["__meta_registry_group"] != group {
			t.Errorf("%q of %+v", got.Labels, m)
		}
		for i, name := range metadataLabels(m.Meta) {
			if !validLabel.MatchString(name) || got.Labels["__meta_registry_metadata_"+name] != m.Meta[i].Value {
				t.Errorf("%q of %q is %q", name, m.Meta[i], got.Labels)
			}
		}
	})
}

// discoverAt asks a server without a port.
func discoverAt(s *Server, query string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	s.http.http.Handler.ServeHTTP(rec, httptest.NewRequest("GET", "/v1/sd/prometheus"+query, nil))
	return rec
}

// A node that has not caught up does not answer with an empty list: Prometheus would
// drop its targets.
func TestDiscoveryAtANodeThatIsNotReady(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	s := serverOf(t, c.Open("n1"))
	for _, query := range []string{"", "?group=web", "?prefix=w"} {
		rec := discoverAt(s, query)
		if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), `"reason":"not_ready"`) || rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %v %s", query, rec.Code, rec.Header(), rec.Body)
		}
	}
}

// slowWriter takes nothing until it is released.
type slowWriter struct {
	*httptest.ResponseRecorder
	writing chan<- struct{}
	release <-chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.writing <- struct{}{}
	<-w.release
	return w.ResponseRecorder.Write(p)
}

// Callers that do not read take a bounded number of answers, and others are told to come
// again.
func TestDiscoveriesAreBounded(t *testing.T) {
	t.Parallel()
	c := storetest.New(t)
	s := serverOf(t, c.Start("n1", store.Formation{}))
	c.AwaitReady(c.Node("n1"))
	writing, release, ended := make(chan struct{}), make(chan struct{}), make(chan int)
	for range maxDiscoveries {
		go func() {
			w := &slowWriter{httptest.NewRecorder(), writing, release}
			s.http.http.Handler.ServeHTTP(w, httptest.NewRequest("GET", "/v1/sd/prometheus", nil))
			ended <- w.Code
		}()
		<-writing
	}
	if rec := discoverAt(s, ""); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), `"reason":"busy"`) {
		t.Errorf("one more: %d %s", rec.Code, rec.Body)
	}
	close(release)
	for range maxDiscoveries {
		if code := <-ended; code != http.StatusOK {
			t.Errorf("the slow ones got %d", code)
		}
	}
	if rec := discoverAt(s, ""); rec.Code != http.StatusOK || strings.TrimSpace(rec.Body.String()) != "[]" {
		t.Errorf("afterwards: %d %s", rec.Code, rec.Body)
	}
}

// BenchmarkDiscovery encodes the members of a group with three pairs of metadata.
func BenchmarkDiscovery(b *testing.B) {
	const members = 10_000
	m := fsm.New()
	entries := make([]fsm.Entry, members)
	for i := range entries {
		data, err := fsm.Encode(&fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
			Group: "web", Id: fmt.Sprintf("web-%05d", i), Addr: fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250), Weight: 1, TtlMs: 10_000, Instance: []byte("one"),
			Meta: []*fsmpb.Pair{{Key: "metrics-path", Value: "/metrics"}, {Key: "version", Value: "1.2.3"}, {Key: "zone", Value: "eu-1a"}},
		}}})
		if err != nil {
			b.Fatal(err)
		}
		entries[i] = fsm.Entry{Index: uint64(i + 1), Term: 1, Data: data}
	}
	m.Apply(entries)
	t := &targets{groups: withPrefix(m.State(), "")}
	var size bytes.Buffer
	if err := t.encode(bufio.NewWriter(&size)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if err := t.encode(bufio.NewWriter(io.Discard)); err != nil {
			b.Fatal(err)
		}
	}
}
