package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// curl is the program, with a token and TLS as a user of HTTP gives them.
type curl struct {
	t           *testing.T
	path, token string
	addr        string
}

func newCurl(t *testing.T, c *cluster) *curl {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl (Debian: curl)")
	}
	file, _ := tokenFile(t)
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return &curl{t: t, path: path, token: strings.TrimSpace(string(token)), addr: c.nodes[0].addr}
}

func (c curl) at(n *node) *curl { c.addr = n.addr; return &c }

func (c curl) with(token string) *curl { c.token = token; return &c }

// args are those of a request to the node; the path is the last.
func (c *curl) args(path string, more ...string) []string {
	args := []string{"--silent", "--show-error", "--http1.1", "--cacert", tlsFile("ca.crt"), "--max-time", "20"}
	if c.token != "" {
		args = append(args, "--oauth2-bearer", c.token)
	}
	return append(append(args, more...), "https://"+c.addr+path)
}

// get makes a request, and wants its status code. It returns the answer's headers and body.
// It asks again while the cluster has no leader, as a busy machine may leave it.
func (c *curl) get(code int, path string, more ...string) (head, body string) {
	c.t.Helper()
	eventually(c.t, patience, path, func() error {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(c.t.Context(), c.path, c.args(path, append(more, "--include")...)...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			c.t.Fatalf("curl %s: %v: %s", path, err, &stderr)
		}
		head, body, _ = strings.Cut(string(out), "\r\n\r\n")
		if strings.Contains(body, `"reason":"no_leader"`) || strings.Contains(body, `"reason":"outcome_unknown"`) {
			return errors.New(body)
		}
		return nil
	})
	if want := fmt.Sprintf("HTTP/1.1 %d ", code); !strings.HasPrefix(head, want) {
		c.t.Fatalf("curl %s: %s\n%s, want %s", path, head, body, want)
	}
	return head, body
}

// json is get for an answer in JSON.
func (c *curl) json(code int, path string, more ...string) (body map[string]any) {
	c.t.Helper()
	_, text := c.get(code, path, more...)
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		c.t.Fatalf("curl %s: %v in %s", path, err, text)
	}
	return body
}

// header returns a header of an answer.
func (c *curl) header(head, name string) string {
	c.t.Helper()
	m := regexp.MustCompile(`(?im)^` + name + `: (.*?)\r?$`).FindStringSubmatch(head)
	if m == nil {
		c.t.Fatalf("no %s in\n%s", name, head)
	}
	return m[1]
}

// watch runs a watch, which prints its events.
func (c *curl) watch(query string, more ...string) *process {
	c.t.Helper()
	return start(c.t, command{name: "curl-watch", path: c.path, args: c.args("/v1/watch?"+query, append(more, "--no-buffer", "--max-time", "0")...)})
}

func body(method, text string) []string {
	return []string{"--request", method, "--header", "Content-Type: application/json", "--data-binary", text}
}

// TestCurl: a service written with curl alone registers, beats, is matched, watched and
// deregistered on a cluster with TLS and tokens, and reads why it is refused.
func TestCurl(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, 3)
	c := newCurl(t, cluster)
	leader, others := cluster.leader()
	var lease any
	for i, n := range cluster.nodes {
		lease = c.at(n).json(200, fmt.Sprintf("/v1/groups/web/members/web-%d", i), body("PUT", fmt.Sprintf(`{"addr":"10.0.0.%d:80","ttl":"1h","meta":{"zone":"ü"}}`, i+1))...)["lease_id"]
	}
	head, text := c.get(200, "/v1/groups/web/members?linearizable=true")
	var members struct {
		Members []struct {
			ID string
		}
	}
	if err := json.Unmarshal([]byte(text), &members); err != nil || len(members.Members) != 3 || !strings.Contains(text, `"meta":{"zone":"ü"}`) {
		t.Fatalf("%v in %s", err, text)
	}
	for _, name := range []string{"Registry-Index", "Registry-Lag", "Registry-Node", "Registry-Fingerprint", "Registry-Cluster"} {
		c.header(head, name)
	}
	c.get(304, "/v1/groups/web/members?linearizable=true", "--header", "If-None-Match: "+c.header(head, "ETag"))
	if head, zipped := c.get(200, "/v1/openapi.json", "--compressed"); c.header(head, "Content-Encoding") != "gzip" || !json.Valid([]byte(zipped)) {
		t.Error("the answer is not compressed, or not JSON")
	}
	owner := ""
	for _, n := range cluster.nodes {
		m := c.at(n).json(200, "/v1/groups/web/match?key=user-42&n=2&linearizable=true")
		first := fmt.Sprint(m["members"].([]any)[0].(map[string]any)["id"])
		if owner == "" {
			owner = first
		}
		if len(m["members"].([]any)) != 2 || first != owner {
			t.Errorf("%s says %v, others %s", n.id, m["members"], owner)
		}
	}
	beat := c.at(others[0]).json(200, "/v1/heartbeat", body("POST", fmt.Sprintf(`{"lease_ids":[%.0f,1]}`, lease))...)
	if lost := fmt.Sprint(beat["lost"]); lost != "[1]" {
		t.Errorf("lost %s", lost)
	}
	for _, refused := range []struct {
		of            *curl
		code          int
		path          string
		more          []string
		reason, field string
	}{
		{c, 400, "/v1/groups/web/members/x", body("PUT", `{"addr":"nowhere"}`), "invalid_argument", "addr"},
		{c, 404, "/v1/groups/none/match?key=k", nil, "unknown_group", ""},
		{c, 409, "/v1/groups/web/members/web-0", body("PUT", `{"addr":"10.0.0.9:80"}`), "conflict", ""},
		{c.with(""), 401, "/v1/groups", nil, "unauthenticated", ""},
		{c, 415, "/v1/heartbeat", []string{"--data", "x=1"}, "invalid_argument", "Content-Type"},
	} {
		p := refused.of.json(refused.code, refused.path, refused.more...)
		if p["reason"] != refused.reason || refused.field != "" && p["field"] != refused.field {
			t.Errorf("%s: %v", refused.path, p)
		}
	}
	c.at(leader).get(200, "/v1/groups/web/members/web-2", "--request", "DELETE")
	if n := len(c.json(200, "/v1/groups/web/members?linearizable=true")["members"].([]any)); n != 2 {
		t.Errorf("%d members after one has left", n)
	}
}

var eventID = regexp.MustCompile(`(?m)^id: (\S+)\r?\n`)

// TestCurlWatches: curl follows a group, goes on where it was when its node dies, and is
// told at once when its token ends.
func TestCurlWatches(t *testing.T) {
	t.Parallel()
	needSignal(t, sigTerm)
	cluster := startCluster(t, 3)
	c := newCurl(t, cluster)
	leader, others := cluster.leader()
	token := fmt.Sprint(c.json(200, "/v1/tokens", body("POST", `{"name":"page","grants":[{"rights":["discover"],"prefix":"web"}]}`)...)["secret"])
	register := func(id string) {
		t.Helper()
		c.at(leader).get(200, "/v1/groups/web/members/"+id, body("PUT", `{"addr":"10.0.0.1:80","ttl":"1h"}`)...)
	}
	register("web-1")
	for _, n := range cluster.nodes { // all know the token
		eventually(t, patience, "the token at "+n.id, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return exec.CommandContext(ctx, c.path, c.at(n).with(token).args("/v1/groups/web/members", "--fail")...).Run()
		})
	}
	page := c.with(token)
	first := page.at(others[0]).watch("group=web")
	first.says("event: snapshot", patience)
	register("web-2")
	first.says("event: delta", patience)
	first.says("event: progress", patience)
	others[0].kill()
	if code := first.ends(patience); code == 0 {
		t.Error("the watch of a node that was killed ended in order")
	}
	ids := eventID.FindAllStringSubmatch(first.log.text(), -1)
	if len(ids) == 0 {
		t.Fatal("no event has an id")
	}
	register("web-3")
	second := page.at(others[1]).watch("group=web", "--header", "Last-Event-ID: "+ids[len(ids)-1][1])
	second.says(`"id":"web-3"`, patience)
	if text := second.log.text(); strings.Contains(text, "event: snapshot") || strings.Contains(text, "web-1") {
		t.Errorf("it starts over:\n%s", text)
	}
	all := c.at(leader).watch("prefix=")
	all.says("event: snapshot", patience)
	c.at(leader).get(200, "/v1/tokens/page", "--request", "DELETE")
	revoked := time.Now()
	second.says("event: error", patience)
	if took := time.Since(revoked); took > 10*time.Second {
		t.Errorf("told %v after the revocation", took)
	}
	second.says(`"status":401`, patience)
	if code := second.ends(patience); code != 0 {
		t.Errorf("the stream is cut: exit code %d", code)
	}
	leader.stop()
	all.says(`"reason":"not_ready"`, patience)
	if code := all.ends(patience); code != 0 {
		t.Errorf("the stream of a node that stops is cut: exit code %d", code)
	}
}
