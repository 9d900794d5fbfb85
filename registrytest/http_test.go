package registrytest_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// httpAnswer is an answer of the API over HTTP.
type httpAnswer struct {
	code   int
	header http.Header
	body   map[string]any
	text   string
}

// problem is the reason and the field of an error.
func (a httpAnswer) problem() (reason, field string) {
	reason, _ = a.body["reason"].(string)
	field, _ = a.body["field"].(string)
	return reason, field
}

// http makes a request; headers are pairs.
func (c *apiCluster) http(t *testing.T, via int, token, request, body string, headers ...string) httpAnswer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+c.nodes[via].Addr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	in := io.Reader(resp.Body)
	if resp.Header.Get("Content-Type") == "text/event-stream" { // it has no end
		in = io.LimitReader(in, int64(len("retry: 1000\n\n")))
	}
	data, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	a := httpAnswer{code: resp.StatusCode, header: resp.Header, text: string(data)}
	if strings.HasPrefix(a.text, "{") {
		if err := json.Unmarshal(data, &a.body); err != nil {
			t.Fatalf("%s: %v in %s", request, err, data)
		}
	}
	return a
}

// httpRoutes has requests for every route, in an order in which they succeed.
var httpRoutes = []struct {
	route   string
	request string // of success, by an administrator
	body    string
	want    string // in the body

	bad     string // a request with a bad field; empty: the route takes none
	badBody string
	field   string
	denied  bool // a token without rights is refused
}{
	{"PUT /v1/groups/{group}", "PUT /v1/groups/web", `{"config":{"virtual_nodes":128,"bound":1250}}`, `"revision":`,
		"PUT /v1/groups/web", `{"config":{"virtual_nodes":100}}`, "virtual_nodes", true},
	{"PUT /v1/groups/{group}/members/{id}", "PUT /v1/groups/web/members/a", `{"addr":"10.0.0.1:80","meta":{"zone":"z"},"ttl":"1h","instance":"0a"}`, `"ttl":"1h0m0s"`,
		"PUT /v1/groups/web/members/a", `{"addr":"10.0.0.1:80","ttl":"1ms"}`, "ttl", true},
	{"PATCH /v1/groups/{group}/members/{id}", "PATCH /v1/groups/web/members/a", `{"weight":2,"state":"active"}`, `"revision":`,
		"PATCH /v1/groups/web/members/a", `{"weight":0}`, "weight", true},
	{"GET /v1/groups", "GET /v1/groups?prefix=we&linearizable=true", "", `{"groups":[{"name":"web","config":{"virtual_nodes":128,"bound":1250},"members":1,`,
		"GET /v1/groups?page_size=10001", "", "page_size", true},
	{"GET /v1/groups/{group}/members", "GET /v1/groups/web/members?linearizable=true", "", `{"members":[{"id":"a","addr":"10.0.0.1:80","weight":2,"meta":{"zone":"z"},"state":"active","ttl":"1h0m0s",`,
		"GET /v1/groups/web/members?page_size=x", "", "page_size", true},
	{"GET /v1/groups/{group}/match", "GET /v1/groups/web/match?key=k&linearizable=true", "", `"id":"a"`,
		"GET /v1/groups/web/match", "", "key", true},
	{"POST /v1/groups/{group}/match", "POST /v1/groups/web/match?linearizable=true", `{"keys":["k","ü"],"n":2}`, `"owners":[0,0],"owners_per_key":1`,
		"POST /v1/groups/web/match", `{"keys":[]}`, "keys", true},
	{"GET /v1/groups/{group}/guard", "GET /v1/groups/web/guard", "", `{"phase":"idle","members":1,`,
		"GET /v1/groups/web/guard?x=1", "", "x", true},
	{"POST /v1/groups/{group}/accept-loss", "POST /v1/groups/web/accept-loss", `{}`, `{"silent":0}`,
		"POST /v1/groups/web/accept-loss", `{"x":1}`, "x", true},
	{"GET /v1/sd/prometheus", "GET /v1/sd/prometheus?linearizable=true", "", `[{"targets":["10.0.0.1:80"],"labels":{"__meta_registry_group":"web","__meta_registry_id":"a",`,
		"GET /v1/sd/prometheus?prefix=w&group=web", "", "prefix", true},
	{"POST /v1/register", "POST /v1/register", `{"registrations":[{"group":"web","id":"a","addr":"10.0.0.1:80","instance":"0a"},{"group":"web","id":"c","addr":"nowhere"}]}`, `"field":"addr"`,
		"POST /v1/register", `{"registrations":[{"group":"web","weight":"1"}]}`, "registrations[0].weight", true},
	{"POST /v1/heartbeat", "POST /v1/heartbeat", `{"lease_ids":[1]}`, `"lost":[1]`,
		"POST /v1/heartbeat", `{"lease_ids":["1"]}`, "lease_ids[0]", false},
	{"GET /v1/index", "GET /v1/index?max_staleness=1h", "", `{"index":`,
		"GET /v1/index?max_staleness=-1s", "", "max_staleness", false},
	{"GET /v1/watch", "GET /v1/watch?group=web", "", "retry: 1000\n\n",
		"GET /v1/watch?group=web&progress_interval=1ms", "", "progress_interval", true},
	{"DELETE /v1/groups/{group}/members/{id}", "DELETE /v1/groups/web/members/a?instance=0a", "", `"removed":true`,
		"DELETE /v1/groups/web/members/a?instance=xy", "", "instance", true},
	{"DELETE /v1/groups/{group}", "DELETE /v1/groups/web?force=true", "", `"members":0`,
		"DELETE /v1/groups/web?force=1", "", "force", true},

	{"GET /v1/cluster", "GET /v1/cluster", "", `"role":"leader"`,
		"GET /v1/cluster?group=a%2Fb&x=1", "", "x", false},
	{"POST /v1/cluster/transfer", "POST /v1/cluster/transfer", `{"id":"n2"}`, `{"leader":"n2"}`,
		"POST /v1/cluster/transfer", `{"id":1}`, "id", true},
	{"POST /v1/cluster/feature-level", "POST /v1/cluster/feature-level", `{}`, `"level":2`,
		"POST /v1/cluster/feature-level", `{"level":9}`, "level", true},
	{"POST /v1/cluster/join", "", "", "", // success needs another node
		"POST /v1/cluster/join", `{"bind":"nowhere"}`, "bind", true},
	{"DELETE /v1/cluster/nodes/{id}", "", "", "",
		"DELETE /v1/cluster/nodes/n3?x=1", "", "x", true},
	{"POST /v1/cluster/nodes/{id}/leave", "", "", "",
		"POST /v1/cluster/nodes/n3/leave", `{"x":1}`, "x", true},

	{"POST /v1/tokens", "POST /v1/tokens", `{"name":"new","grants":[{"rights":["discover","register"],"prefix":"web-"}],"expires_at":"2100-01-02T15:04:05Z"}`, `"grants":[{"rights":["discover","register"],"prefix":"web-"}],"expires_at":"2100-01-02T15:04:05Z"`,
		"POST /v1/tokens", `{"name":"new2","grants":[{"rights":["read"]}]}`, "grants[0].rights[0]", true},
	{"POST /v1/tokens/{name}/rotate", "POST /v1/tokens/new/rotate", `{"overlap":"1h"}`, `"secret":"rgt_`,
		"POST /v1/tokens/new/rotate", `{"overlap":"25h"}`, "overlap", true},
	{"GET /v1/tokens", "GET /v1/tokens?linearizable=true", "", `"name":"new"`,
		"GET /v1/tokens?page_size=10001", "", "page_size", true},
	{"DELETE /v1/tokens/{name}", "DELETE /v1/tokens/new", "", `"removed":true`,
		"DELETE /v1/tokens/new?x=1", "", "x", true},
	{"GET /v1/tokens/self", "GET /v1/tokens/self", "", `"name":"first"`,
		"GET /v1/tokens/self?x=1", "", "x", false},
	{"POST /v1/tokens/init", "", "", "", // TestHTTPMakesTokens
		"POST /v1/tokens/init", `{"name":1}`, "name", false},
}

// tested fails for a route of the OpenAPI document without requests, and the other way.
func tested(t *testing.T, document httpAnswer) {
	t.Helper()
	routes := make(map[string]bool)
	paths, _ := document.body["paths"].(map[string]any)
	for path, verbs := range paths {
		for verb := range verbs.(map[string]any) {
			routes[strings.ToUpper(verb)+" "+path] = true
		}
	}
	for _, r := range httpRoutes {
		if !routes[r.route] {
			t.Errorf("%s is not in the document", r.route)
		}
		delete(routes, r.route)
	}
	for r := range routes {
		t.Errorf("no request for %s", r)
	}
}

// Every route answers, names a bad field, and refuses who may not call it.
func TestHTTPRoutes(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	tested(t, c.http(t, 1, "", "GET /v1/openapi.json", ""))
	weak := c.grant(t, "weak", nil, may("other-", rightDiscover))
	for i, r := range httpRoutes {
		via := i % len(c.nodes)
		refused := r.request
		if refused == "" {
			refused = r.bad
		}
		if a := c.http(t, via, weak, refused, r.body); r.denied && r.request != "" && a.code != http.StatusForbidden {
			t.Errorf("%s with a weak token: %d %s", r.route, a.code, a.text)
		}
		if a := c.http(t, via, "", refused, r.body); r.request != "" && (a.code != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") != "Bearer") {
			t.Errorf("%s without a token: %d %s", r.route, a.code, a.text)
		}
		a := c.http(t, via, c.admin, r.bad, r.badBody)
		if reason, field := a.problem(); a.code != http.StatusBadRequest || reason != "invalid_argument" || field != r.field {
			t.Errorf("%s, %s: %d %s, want the field %s", r.route, r.bad, a.code, a.text, r.field)
		}
		if got := a.header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: an error in %s", r.route, got)
		}
		if r.request == "" {
			continue
		}
		a = c.http(t, via, c.admin, r.request, r.body)
		if a.code != http.StatusOK || !strings.Contains(a.text, r.want) {
			t.Errorf("%s: %d %s, want %s", r.request, a.code, a.text, r.want)
		}
		if cluster := a.header.Get(registrypb.ClusterHeader); !strings.HasPrefix(cluster, "registry/") {
			t.Errorf("%s: of the cluster %q", r.request, cluster)
		}
	}
}

// An answer in JSON names its state in the body and in headers, is compressed on
// request, and is not sent again to who has it.
func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if a := c.http(t, 0, "", "PUT /v1/groups/web/members/"+id, `{"addr":"10.0.0.1:80","ttl":"1h"}`); a.code != http.StatusOK || a.header.Get("Registry-Revision") == "" {
			t.Fatalf("%d %s", a.code, a.text)
		}
	}
	a := c.http(t, 1, "", "GET /v1/groups/web/members?linearizable=true", "")
	receipt, _ := a.body["receipt"].(map[string]any)
	for header, member := range map[string]string{
		"Registry-Fingerprint": "fingerprint", "Registry-Node": "node", "Registry-Lag": "lag",
	} {
		if got := a.header.Get(header); got == "" || got != receipt[member] {
			t.Errorf("%s: %q, the receipt has %v", header, got, receipt[member])
		}
	}
	if !strings.Contains(a.text, `"receipt":{"index":`+a.header.Get("Registry-Index")+`,"revision":`+a.header.Get("Registry-Revision")+`,`) {
		t.Errorf("headers %v, body %s", a.header, a.text)
	}
	tag := a.header.Get("ETag")
	if again := c.http(t, 2, "", "GET /v1/groups/web/members?linearizable=true", "", "If-None-Match", tag); again.code != http.StatusNotModified || again.text != "" {
		t.Errorf("with %s: %d %s", tag, again.code, again.text)
	}
	zipped := c.http(t, 1, "", "GET /v1/groups/web/members?linearizable=true", "", "Accept-Encoding", "gzip")
	z, err := gzip.NewReader(strings.NewReader(zipped.text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || !bytes.HasPrefix(plain, []byte(`{"members":[{"id":"a"`)) {
		t.Errorf("compressed: %s, %v", plain, err)
	}
	if a := c.http(t, 1, "", "GET /v1/index", "", "Accept-Encoding", "gzip"); a.header.Get("Content-Encoding") != "" {
		t.Error("a small answer is compressed")
	}
	c.http(t, 0, "", "PATCH /v1/groups/web/members/a", `{"weight":3}`)
	if again := c.http(t, 2, "", "GET /v1/groups/web/members?linearizable=true", "", "If-None-Match", tag); again.code != http.StatusOK {
		t.Errorf("after a change: %d", again.code)
	}
}

// What is no call of the API is refused by name.
func TestHTTPRefusesWhatIsNoCall(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	put := "PUT /v1/groups/web/members/a"
	for _, row := range []struct {
		name, request, body string
		headers             []string
		code                int
		field               string
	}{
		{"unknown path", "GET /v1/nothing", "", nil, 404, "path"},
		{"the root of the API", "GET /v1/", "", nil, 404, "path"},
		{"another method", "POST /v1/index", "{}", nil, 405, "method"},
		{"OPTIONS of a browser", "OPTIONS /v1/groups", "", nil, 405, "method"},
		{"a path that is not clean", "DELETE /v1/groups/web/members/%2E%2E", "", nil, 404, "path"},
		{"an encoded slash", "DELETE /v1/groups/a%2Fb", "", nil, 400, "group"},
		{"a form", put, `addr=x`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "Content-Type"},
		{"no type", "POST /v1/heartbeat", "", nil, 415, "Content-Type"},
		{"a body where none is taken", "GET /v1/index", "{}", nil, 400, "body"},
		{"too large", put, `{"addr":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "body"},
		{"no JSON", put, `{"addr"`, nil, 400, "body"},
		{"two values", put, `{} {}`, nil, 400, "body"},
		{"a list", put, `[]`, nil, 400, "body"},
		{"a deep value", put, `{"addr":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, nil, 400, "body"},
		{"an unknown name", put, `{"adr":"10.0.0.1:80"}`, nil, 400, "adr"},
		{"a name of the path", put, `{"id":"b","addr":"10.0.0.1:80"}`, nil, 400, "id"},
		{"another case", put, `{"Addr":"10.0.0.1:80"}`, nil, 400, "Addr"},
		{"a name twice", put, `{"addr":"10.0.0.1:80","addr":"10.0.0.2:80"}`, nil, 400, "addr"},
		{"another type", put, `{"addr":1}`, nil, 400, "addr"},
		{"a fraction", put, `{"addr":"10.0.0.1:80","weight":1.5}`, nil, 400, "weight"},
		{"a lone surrogate", put, `{"addr":"10.0.0.1:80","meta":{"k":"\ud800"}}`, nil, 400, "body"},
		{"no UTF-8", put, "{\"addr\":\"10.0.0.1:80\",\"meta\":{\"k\":\"\xff\"}}", nil, 400, "body"},
		{"an unknown state", put, `{"addr":"10.0.0.1:80","state":"gone"}`, nil, 400, "state"},
		{"an unknown parameter", "GET /v1/index?linear=true", "", nil, 400, "linear"},
		{"a parameter that is no UTF-8", "GET /v1/index?%FF=1", "", nil, 400, "\ufffd"},
		{"a parameter twice", "GET /v1/index?min_index=1&min_index=2", "", nil, 400, "min_index"},
		{"a broken query", "GET /v1/index?min_index=%zz", "", nil, 400, "query"},
		{"two keys", "GET /v1/groups/web/match?key=a&key_base64=YQ==", "", nil, 400, ""},
		{"another cluster", "GET /v1/index", "", []string{registrypb.ClusterHeader, "other"}, 421, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := c.http(t, 0, "", row.request, row.body, row.headers...)
			if _, field := a.problem(); a.code != row.code || row.field != "" && field != row.field {
				t.Errorf("%d %s, want %d and the field %q", a.code, a.text, row.code, row.field)
			}
			if allow := a.header.Get("Allow"); (a.code == 405) != (allow != "") {
				t.Errorf("Allow: %q", allow)
			}
			if a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("pages of other origins are allowed")
			}
		})
	}
	if groups := c.http(t, 0, "", "GET /v1/groups?linearizable=true", ""); !strings.Contains(groups.text, `"groups":[]`) {
		t.Errorf("a refused call had an effect: %s", groups.text)
	}
}

// What a page, or somebody with a raw connection, might try: no answer is one of another
// resource, names another host, or lets pages of other origins in.
func TestHTTPWithOtherEyes(t *testing.T) {
	t.Parallel()
	c := newAPINodes(t, 1)
	addr := c.nodes[0].Addr()
	for _, row := range []struct {
		request string // line and headers, without Host
		host    string
		code    int
	}{
		{"GET /v1/groups", "evil.example:9800", 403},
		{"GET /v1/groups HTTP/1.1\r\nAuthorization: Bearer x", "evil.example:9800", 403},
		{"GET /v1/groups", "localhost:9800", 200},
		{"GET http://evil.example/v1/groups", addr, 403},
		{"GET //evil.example/..", addr, 307},
		{"GET //v1/groups", addr, 307},
		{"GET /v1//groups", addr, 404},
		{"GET /v1/groups/", addr, 404},
		{"GET /v1%2Fgroups", addr, 404},
		{"GET /v1/groups%2F", addr, 404},
		{"GET /v1/groups/a%2Fmembers", addr, 405},
		{"GET /v1/groups/a%2F..%2Fb/members", addr, 404},
		{"GET /v1/groups/%00/members", addr, 400},
		{"GET /v1/groups/%FF/members", addr, 400},
		{"GET /ui/..%2F..%2Fmain.js", addr, 404},
		{"HEAD /v1/groups", addr, 200},
		{"HEAD /v1/watch?group=web", addr, 405},
		{"OPTIONS /v1/groups", addr, 405},
		{"OPTIONS /", addr, 405},
		{"TRACE /v1/groups", addr, 405},
		{"CONNECT /v1/groups", addr, 405},
		{"GET /v1/groups?authorization=Bearer%20x", addr, 400},
		{"GET /v1/groups?" + strings.Repeat("prefix=a&", 4000), addr, 400},
		{"GET /v1/groups?" + strings.Repeat("a", 1<<20), addr, 431},
		{"GET /v1/groups HTTP/1.1\r\nCookie: " + strings.Repeat("a=b; ", 1000) + "\r\nOrigin: http://evil.example", addr, 200},
		{"POST /v1/heartbeat HTTP/1.1\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\nContent-Length: 17", addr, 415},
	} {
		line, headers, _ := strings.Cut(row.request, " HTTP/1.1\r\n")
		request := line + " HTTP/1.1\r\nHost: " + row.host + "\r\nConnection: close\r\n"
		if headers != "" {
			request += headers + "\r\n"
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		go func() { _, _ = io.WriteString(conn, request+"\r\n"+`{"lease_ids":[1]}`) }() // the node need not take all of it
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%.60q: %v", request, err)
		} else {
			if resp.StatusCode != row.code {
				t.Errorf("%.60q: %d, want %d", request, resp.StatusCode, row.code)
			}
			if to := resp.Header.Get("Location"); to != "" && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//")) {
				t.Errorf("%.60q leads to %s", request, to)
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
					t.Errorf("%.60q: %s", request, name)
				}
			}
		}
		_ = conn.Close()
	}
}

// The node makes a token's secret and shows it once; the caller may make it instead.
func TestHTTPMakesTokens(t *testing.T) {
	t.Parallel()
	c := newAPICluster(t)
	first := c.http(t, 1, "", "POST /v1/tokens/init", `{"name":"first"}`)
	admin, _ := first.body["secret"].(string)
	if first.code != http.StatusOK || len(admin) != registrypb.TokenLength {
		t.Fatalf("%d %s", first.code, first.text)
	}
	at := "?min_index=" + first.header.Get("Registry-Index")
	if self := c.http(t, 2, admin, "GET /v1/index"+at, ""); self.code != http.StatusOK {
		t.Fatalf("%d %s", self.code, self.text)
	}
	if a := c.http(t, 0, "", "POST /v1/tokens/init", `{"name":"second"}`); a.code != http.StatusConflict {
		t.Errorf("a second first token: %d %s", a.code, a.text)
	}
	made := c.http(t, 0, admin, "POST /v1/tokens", `{"name":"web","grants":[{"rights":["discover"],"prefix":""}]}`)
	rotated := c.http(t, 2, admin, "POST /v1/tokens/web/rotate", `{}`)
	if rotated.code != http.StatusOK {
		t.Fatalf("%d %s", rotated.code, rotated.text)
	}
	old, _ := made.body["secret"].(string)
	secret, _ := rotated.body["secret"].(string)
	for i := range c.nodes {
		if a := c.http(t, i, admin, "GET /v1/index?min_index="+rotated.header.Get("Registry-Index"), ""); a.code != http.StatusOK {
			t.Fatalf("%d %s", a.code, a.text)
		}
		if a := c.http(t, i, secret, "GET /v1/tokens/self", ""); !strings.Contains(a.text, `"name":"web"`) {
			t.Errorf("the rotated token: %d %s", a.code, a.text)
		}
		if a := c.http(t, i, old, "GET /v1/tokens/self", ""); a.code != http.StatusUnauthorized {
			t.Errorf("the token from before: %d %s", a.code, a.text)
		}
	}
	list := c.http(t, 0, admin, "GET /v1/tokens", "")
	if strings.Contains(list.text, secret[12:]) || !strings.Contains(list.text, `"name":"web"`) {
		t.Errorf("the list: %s", list.text)
	}
	text, id, hash := registrypb.MakeToken()
	own, _ := json.Marshal(map[string]any{"name": "own", "id": hexOf(id), "hash": hexOf(hash), "grants": []any{map[string]any{"rights": []string{"discover"}}}})
	if a := c.http(t, 0, admin, "POST /v1/tokens", string(own)); a.code != http.StatusOK || a.body["secret"] != nil {
		t.Errorf("%d %s", a.code, a.text)
	}
	if a := c.http(t, 0, text, "GET /v1/tokens/self", ""); !strings.Contains(a.text, `"name":"own"`) {
		t.Errorf("a token of the caller's own secret: %d %s", a.code, a.text)
	}
}

// Who sends too many wrong tokens is told to wait.
func TestHTTPLimitsWrongTokens(t *testing.T) {
	t.Parallel()
	c := tokensOn(t, newAPINodes(t, 1))
	for range auth.MaxFailures {
		if a := c.http(t, 0, "wrong", "GET /v1/index", ""); a.code != http.StatusUnauthorized {
			t.Fatalf("%d %s", a.code, a.text)
		}
	}
	a := c.http(t, 0, "wrong", "GET /v1/index", "")
	if reason, field := a.problem(); a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") != "60" || reason != "unauthenticated" || field != registrypb.AuthorizationHeader {
		t.Errorf("%d %v %s", a.code, a.header, a.text)
	}
	if a := c.http(t, 0, c.admin, "GET /v1/index", ""); a.code != http.StatusOK {
		t.Errorf("with a valid token: %d %s", a.code, a.text)
	}
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
