package registrytest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// httpEvent is a server-sent event.
type httpEvent struct {
	name, id, data string
	body           map[string]any
}

// httpWatch is a watch over HTTP.
type httpWatch struct {
	t    *testing.T
	in   *bufio.Reader
	end  context.CancelFunc
	head http.Header
	last string // id of the last event
}

// watchHTTP opens a watch. It ends with the test, or by end.
func (c *apiCluster) watchHTTP(t *testing.T, via int, token, query string, headers ...string) *httpWatch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), registrytest.Patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.nodes[via].Addr()+"/v1/watch?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("watch of %s: %d %s", query, resp.StatusCode, body)
	}
	w := &httpWatch{t: t, in: bufio.NewReader(resp.Body), end: cancel, head: resp.Header}
	if first, err := w.in.ReadString('\n'); err != nil || first != "retry: 1000\n" {
		t.Fatalf("the first line is %q, %v", first, err)
	}
	return w
}

// read takes the next event, progress too, or the error at which the stream ends.
func (w *httpWatch) read() (e httpEvent, err error) {
	w.t.Helper()
	for {
		line, err := w.in.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && e.data != "":
			if err := json.Unmarshal([]byte(e.data), &e.body); err != nil {
				w.t.Fatalf("%v in %s", err, e.data)
			}
			return e, nil
		case field == "event":
			e.name = value
		case field == "data":
			e.data = value
		case field == "id":
			e.id, w.last = value, value
		}
	}
}

// next takes one event that is no progress, and wants its name.
func (w *httpWatch) next(name string) httpEvent {
	w.t.Helper()
	for {
		e, err := w.read()
		if err != nil {
			w.t.Fatalf("the stream ended with %v, want %s", err, name)
		}
		if e.name == "progress" && name != "progress" {
			continue
		}
		if e.name != name {
			w.t.Fatalf("%s %s, want %s", e.name, e.data, name)
		}
		return e
	}
}

// ends wants the stream to end with an event of an error, and then as an answer ends.
func (w *httpWatch) ends() httpEvent {
	w.t.Helper()
	e := w.next("error")
	if _, err := w.read(); !errors.Is(err, io.EOF) {
		w.t.Errorf("after the error: %v", err)
	}
	return e
}

// A watch over HTTP has the events of one over gRPC.
func TestHTTPWatch(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	w := c.watchHTTP(t, 1, "", "group=web&progress_interval=1s")
	if got := w.head.Get("Content-Type"); got != "text/event-stream" || w.head.Get("Cache-Control") != "no-store" ||
		!strings.HasPrefix(w.head.Get(registrypb.ClusterHeader), "registry/") {
		t.Errorf("%v", w.head)
	}
	if e := w.next("unknown_group"); e.body["group"] != "web" || e.body["index"] == nil || e.body["cluster_id"] == "" || e.id == "" {
		t.Errorf("%+v", e)
	}
	if e := w.next("progress"); e.body["index"] == nil || e.body["lag"] == nil || e.id != "" {
		t.Errorf("%+v", e)
	}
	r := c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Meta = map[string]string{"k": "a\r\nb: ü\n\n"} })
	stream, err := c.apis[1].Watch(t.Context(), &registrypb.WatchRequest{
		Target: &registrypb.WatchRequest_Group{Group: "web"}, ProgressInterval: durationpb.New(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := w.next("snapshot")
	for e := new(registrypb.WatchEvent); e.GetSnapshot() == nil; {
		if e, err = stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if s := e.GetSnapshot(); s != nil && string(httpjson.Append(nil, s)) != snapshot.data {
			t.Errorf("%s, over gRPC %s", snapshot.data, httpjson.Append(nil, s))
		}
	}
	c.register(t, 2, func(r *registrypb.RegisterRequest) { r.Id = "web-2" })
	if e := w.next("delta"); e.body["from"] != float64(r.Revision) || len(e.body["put"].([]any)) != 1 || e.id == snapshot.id {
		t.Errorf("%+v", e)
	}
	w.next("progress")
	for query, want := range map[string][2]string{
		"prefix=":     {"snapshot", `{"group":"web",`},
		"prefix=we":   {"snapshot", `{"group":"web",`},
		"groups=true": {"groups", `"name":"web"`},
		"nodes=true":  {"nodes", `"id":"n3"`},
		"group=" + url.QueryEscape(fsm.NodesGroupName): {"snapshot", `"id":"n3"`},
	} {
		if e := c.watchHTTP(t, 2, "", query).next(want[0]); !strings.Contains(e.data, want[1]) || (e.id != "") != strings.HasPrefix(query, "group=") {
			t.Errorf("%s: %+v", query, e)
		}
	}
}

// A large event comes as a whole, or on request in pieces, of which the last has the id.
func TestHTTPWatchOfALargeGroup(t *testing.T) {
	t.Parallel()
	c := newAPINodes(t, 1)
	const members = 200
	for i := range members {
		c.register(t, 0, func(r *registrypb.RegisterRequest) {
			r.Id, r.Meta = strconv.Itoa(i), map[string]string{"k": strings.Repeat("x", fsm.MaxMetaBytes-1)}
		})
	}
	whole := c.watchHTTP(t, 0, "", "group=web").next("snapshot")
	if n := len(whole.body["members"].([]any)); n != members || whole.body["more"] == true || whole.id == "" {
		t.Errorf("%d members, more %v, id %q", n, whole.body["more"], whole.id)
	}
	w, n := c.watchHTTP(t, 0, "", "group=web&pieces=true"), 0
	for piece := 0; n < members; piece++ {
		e := w.next("snapshot")
		n += len(e.body["members"].([]any))
		if last := n == members; e.body["more"] == last || (e.id != "") != last || piece == 0 && last {
			t.Errorf("piece %d: %d members, more %v, id %q", piece, n, e.body["more"], e.id)
		}
	}
	if w.last != whole.id {
		t.Errorf("id %q, of the whole %q", w.last, whole.id)
	}
}

// A watch goes on from the last event at any node.
func TestHTTPWatchResumes(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	first := c.register(t, 0, nil)
	for node := range c.nodes { // one that applies both registrations together knows no state between them
		c.applied(t, node, first.Index)
	}
	w := c.watchHTTP(t, 0, "", "group=web")
	snapshot := w.next("snapshot")
	w.end()
	second := c.register(t, 0, func(r *registrypb.RegisterRequest) { r.Id = "web-2" })
	for node := range c.nodes {
		c.applied(t, node, second.Index)
	}
	position := url.Values{
		"revision": {strconv.FormatUint(first.Revision, 10)}, "fingerprint": {snapshot.body["fingerprint"].(string)},
		"cluster_id": {snapshot.body["cluster_id"].(string)},
	}.Encode()
	other := strings.Replace(snapshot.id, snapshot.body["fingerprint"].(string), "0123456789abcdef", 1)
	for name, row := range map[string]struct {
		query, id string
		want      string
	}{
		"by the id":                         {"", w.last, "delta"},
		"by the query":                      {position, "", "delta"},
		"by the id, which wins":             {"revision=1&fingerprint=0000000000000001&cluster_id=x", w.last, "delta"},
		"by an id of another past":          {position, other, "snapshot"},
		"by an id of another cluster":       {position, w.last + "x", "snapshot"},
		"by an empty id, as without":        {"", "", "snapshot"},
		"by an id of a group that is gone":  {"", "0-0000000000000000-" + snapshot.body["cluster_id"].(string), "snapshot"},
		"by an id of the future, as if new": {"", strings.Replace(w.last, position, "9999999", 1) + "y", "snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.watchHTTP(t, 1, "", "group=web&"+row.query, "Last-Event-ID", row.id)
			e := w.next(row.want)
			if row.want == "delta" && (e.body["from"] != float64(first.Revision) || e.body["revision"] != float64(second.Revision)) {
				t.Errorf("%s", e.data)
			}
			again := c.watchHTTP(t, 2, "", "group=web&progress_interval=1s", "Last-Event-ID", w.last)
			if e, err := again.read(); err != nil || e.name != "progress" { // there is nothing to send
				t.Errorf("with the newest id: %s %s, %v", e.name, e.data, err)
			}
		})
	}
}

// A watch that cannot begin is answered with a problem.
func TestHTTPWatchRefusals(t *testing.T) {
	t.Parallel()
	c := newAPINodes(t, 1)
	for name, row := range map[string]struct {
		request string
		headers []string
		code    int
		field   string
	}{
		"no target":           {"GET /v1/watch", nil, 400, "target"},
		"two targets":         {"GET /v1/watch?groups=true&nodes=true", nil, 400, ""},
		"an invalid group":    {"GET /v1/watch?group=", nil, 400, "group"},
		"an invalid interval": {"GET /v1/watch?group=web&progress_interval=1ms", nil, 400, "progress_interval"},
		"an unknown name":     {"GET /v1/watch?group=web&known=x", nil, 400, "known"},
		"an invalid position": {"GET /v1/watch?group=web&fingerprint=1", nil, 400, "fingerprint"},
		"an invalid id":       {"GET /v1/watch?group=web", []string{"Last-Event-ID", "7"}, 400, "Last-Event-ID"},
		"an id with no end":   {"GET /v1/watch?group=web", []string{"Last-Event-ID", "7-0123456789abcdef-"}, 400, "Last-Event-ID"},
		"an id with a sign":   {"GET /v1/watch?group=web", []string{"Last-Event-ID", "+7-0123456789abcdef-c"}, 400, "Last-Event-ID"},
		"a body":              {"GET /v1/watch?group=web", nil, 400, "body"},
		"the head":            {"HEAD /v1/watch?group=web", nil, 405, ""},
		"another method":      {"POST /v1/watch?group=web", nil, 405, "method"},
		"another cluster":     {"GET /v1/watch?group=web", []string{registrypb.ClusterHeader, "other"}, 421, ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := ""
			if row.field == "body" {
				body = "{}"
			}
			a := c.http(t, 0, "", row.request, body, row.headers...)
			if _, field := a.problem(); a.code != row.code || row.field != "" && field != row.field {
				t.Errorf("%d %s, want %d and the field %q", a.code, a.text, row.code, row.field)
			}
			if got := a.header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("an error in %s", got)
			}
		})
	}
}

// A watch over HTTP ends with its token, and says so.
func TestHTTPWatchEndsWithItsToken(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	token := c.grant(t, "page", nil, may("web", rightDiscover))
	var watches []*httpWatch
	for i := range c.nodes {
		w := c.watchHTTP(t, i, token, "group=web&progress_interval=1h")
		w.next("unknown_group")
		watches = append(watches, w)
	}
	other := c.watchHTTP(t, 0, c.admin, "group=web&progress_interval=1s")
	other.next("unknown_group")
	if _, err := c.tokens(1).Revoke(with(t.Context(), c.admin), &registrypb.RevokeTokenRequest{Name: "page"}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for i, w := range watches {
		if e := w.ends(); e.body["status"] != float64(http.StatusUnauthorized) || e.body["reason"] != "unauthenticated" {
			t.Errorf("node %d: %s", i, e.data)
		}
	}
	t.Logf("the last stream ended after %v", time.Since(begin))
	other.next("progress")
	other.next("progress")
}

// A node stops in time although watches over HTTP are open, of which one reads nothing.
func TestNodeStopsDespiteHTTPWatches(t *testing.T) {
	t.Parallel()
	c := newAPINodes(t, 1)
	const changes = 600
	stalled, err := net.Dial("tcp", c.nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stalled.Close() }()
	if err := stalled.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stalled, "GET /v1/watch?group=web HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for i := range changes { // more than sockets take
		c.register(t, 0, func(r *registrypb.RegisterRequest) {
			r.Meta = map[string]string{"k": strings.Repeat("x", fsm.MaxMetaBytes-1-i%2)}
		})
	}
	w := c.watchHTTP(t, 0, "", "group=web")
	w.next("snapshot")
	begin, closed := time.Now(), make(chan error, 1)
	go func() { closed <- c.nodes[0].Close() }()
	if e := w.ends(); e.body["status"] != float64(http.StatusServiceUnavailable) || e.body["reason"] != "not_ready" {
		t.Errorf("%s", e.data)
	}
	told := time.Since(begin)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	took := time.Since(begin)
	if t.Logf("told after %v, closed after %v", told, took); took > rpc.HTTPTimeout*2/3 { // which a reader may be silent
		t.Error("that is too long")
	}
}
