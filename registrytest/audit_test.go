package registrytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// line is one of an audit log.
type line map[string]any

// has reports whether the line has the fields, none else of those that are named.
func (l line) has(fields map[string]any) bool {
	for _, name := range []string{"msg", "method", "outcome", "port", "token", "group", "member", "target_node", "target_token", "grants", "forwarded"} {
		if want := fields[name]; l[name] != want && want != "" || want == "" && l[name] != nil {
			return false
		}
	}
	return true
}

// auditFiles are the audit logs of nodes.
type auditFiles struct {
	t     *testing.T
	paths []string
	read  []int // bytes
}

func newAuditFiles(t *testing.T, nodes ...string) *auditFiles {
	dir := t.TempDir()
	f := &auditFiles{t: t, read: make([]int, len(nodes))}
	for _, id := range nodes {
		f.paths = append(f.paths, filepath.Join(dir, id))
	}
	return f
}

func (f *auditFiles) use(cfg *registry.Config) {
	cfg.AuditLog = filepath.Join(filepath.Dir(f.paths[0]), cfg.ID)
}

// take returns the new lines of each node.
func (f *auditFiles) take() [][]line {
	f.t.Helper()
	all := make([][]line, len(f.paths))
	for i, path := range f.paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		for text := range strings.Lines(string(data[f.read[i]:])) {
			l := make(line)
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				f.t.Fatalf("%v: %s", err, text)
			}
			all[i] = append(all[i], l)
		}
		f.read[i] = len(data)
	}
	return all
}

// text is all of it.
func (f *auditFiles) text() (text string) {
	for _, path := range f.paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		text += string(data)
	}
	return text
}

// auditCluster has a locked bind port and tokens.
type auditCluster struct {
	*tokenCluster
	files  *auditFiles
	secret string
	leader int
}

func newAuditCluster(t *testing.T) *auditCluster {
	t.Helper()
	c := &auditCluster{files: newAuditFiles(t, "n1", "n2", "n3"), secret: peertls.NewSecret()}
	file := secretFile(t, "", c.secret)
	c.tokenCluster = newTokenCluster(t, c.files.use, func(cfg *registry.Config) { cfg.SecretFile = file })
	st, err := c.cluster(0).Status(with(t.Context(), c.admin), &registrypb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range c.nodes {
		if n.ID() == st.Leader {
			c.leader = i
		}
	}
	return c
}

func (c *auditCluster) cluster(via int) registrypb.ClusterClient {
	return registrypb.NewClusterClient(c.conns[via])
}

// expect makes a call and wants one line at the node that is asked and, if the call is
// forwarded, one at the leader that names the same client.
func (c *auditCluster) expect(t *testing.T, via int, forwards bool, fields map[string]any, call func()) {
	t.Helper()
	c.files.take()
	call()
	fields["port"] = "client"
	for i, lines := range c.files.take() {
		want := 0
		if i == via || forwards && i == c.leader {
			want = 1
		}
		if len(lines) != want {
			t.Errorf("%v by node %d: %d lines at node %d: %v", fields["method"], via, len(lines), i, lines)
		}
		for _, l := range lines {
			wanted := fields
			if i != via {
				wanted = map[string]any{"forwarded": true, "port": "bind"}
				for name, v := range fields {
					if name != "port" {
						wanted[name] = v
					}
				}
				if l["via"] == nil || l["certificate_uri"] != fmt.Sprintf("registry://registry/node/n%d", via+1) {
					t.Errorf("who forwarded it: %v", l)
				}
			}
			if from, _ := l["from"].(string); !l.has(wanted) || !strings.HasPrefix(from, "127.0.0.1:") || from == l["via"] || l["node"] != fmt.Sprintf("n%d", i+1) {
				t.Errorf("node %d: %v, want %v", i, l, wanted)
			}
			if errored := l["error"] != nil; errored != (fields["outcome"] != "ok") {
				t.Errorf("node %d: %v", i, l)
			}
		}
	}
}

type fields = map[string]any

// Each administrative act has one line at the node that was asked, and one at the
// leader if that is another. What services do has none.
func TestActsAreAudited(t *testing.T) {
	t.Parallel()
	c := newAuditCluster(t)
	web := c.grant(t, "web", nil, may("", rightRegister))
	op := c.grant(t, "op", nil, may("", rightOperate))
	admin, ops := with(t.Context(), c.admin), with(t.Context(), op)
	for via, api := range c.apis {
		var id string
		ok := func(resp interface{ GetIndex() uint64 }, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			c.await(t, resp.GetIndex()) // so that each node knows whose members are
		}
		failed := func(_ any, err error) {
			t.Helper()
			if err == nil {
				t.Error("no error")
			}
		}
		register := func() {
			id = fmt.Sprintf("w%d", time.Now().UnixNano())
			ok(api.Register(with(t.Context(), web), &registrypb.RegisterRequest{Group: "g", Id: id, Addr: "10.0.0.1:80", Instance: []byte(id), Ttl: durationpb.New(time.Hour)}))
		}
		other := via != c.leader
		act := func(fields fields, call func()) {
			t.Helper()
			if fields["msg"] = "audit: act"; fields["outcome"] == nil {
				fields["outcome"] = "ok"
			}
			if fields["token"] == nil {
				fields["token"] = "first"
			}
			// a node that cannot forward a call says so itself
			c.expect(t, via, other && fields["method"] != "Cluster/Join", fields, call)
		}

		c.files.take()
		register()
		ok(api.Deregister(with(t.Context(), web), &registrypb.DeregisterRequest{Group: "g", Id: id})) // its own
		for i, lines := range c.files.take() {
			if len(lines) > 0 {
				t.Errorf("what a service does, at node %d: %v", i, lines)
			}
		}
		register()
		weight := uint32(2)
		act(fields{"method": "Registry/UpdateMember", "token": "op", "group": "g", "member": id}, func() {
			ok(api.UpdateMember(ops, &registrypb.UpdateMemberRequest{Group: "g", Id: id, Weight: &weight}))
		})
		act(fields{"method": "Registry/Deregister", "token": "op", "group": "g", "member": id}, func() {
			ok(api.Deregister(ops, &registrypb.DeregisterRequest{Group: "g", Id: id}))
		})
		act(fields{"method": "Registry/SetGroup", "token": "op", "group": "g2"}, func() {
			ok(api.SetGroup(ops, &registrypb.SetGroupRequest{Group: "g2"}))
		})
		act(fields{"method": "Registry/AcceptLoss", "token": "op", "group": "g2"}, func() {
			if _, err := api.AcceptLoss(ops, &registrypb.AcceptLossRequest{Group: "g2"}); err != nil {
				t.Fatal(err)
			}
		})
		act(fields{"method": "Registry/DeleteGroup", "token": "op", "group": "g2"}, func() {
			ok(api.DeleteGroup(ops, &registrypb.DeleteGroupRequest{Group: "g2"}))
		})

		_, tokenID, hash := registrypb.MakeToken()
		act(fields{"method": "Tokens/Create", "target_token": "new", "grants": "discover,register:web- operate"}, func() {
			ok(c.tokens(via).Create(admin, &registrypb.CreateTokenRequest{Token: &registrypb.NewToken{Id: tokenID, Hash: hash, Name: "new", Grants: []*registrypb.Grant{
				may("web-", rightDiscover, rightRegister), may("", rightOperate),
			}}}))
		})
		act(fields{"method": "Tokens/Rotate", "target_token": "new"}, func() {
			ok(c.tokens(via).Rotate(admin, &registrypb.RotateTokenRequest{Name: "new", Hash: hash}))
		})
		act(fields{"method": "Tokens/Revoke", "target_token": "new"}, func() {
			ok(c.tokens(via).Revoke(admin, &registrypb.RevokeTokenRequest{Name: "new"}))
		})
		act(fields{"method": "Tokens/Revoke", "target_token": "first", "outcome": "LAST_ADMIN"}, func() {
			failed(c.tokens(via).Revoke(admin, &registrypb.RevokeTokenRequest{Name: "first"}))
		})
		act(fields{"method": "Tokens/Init", "target_token": "again", "outcome": "CONFLICT", "token": ""}, func() {
			failed(c.tokens(via).Init(t.Context(), &registrypb.InitTokensRequest{Token: &registrypb.NewToken{Id: tokenID, Hash: hash, Name: "again"}}))
		})

		act(fields{"method": "Cluster/Remove", "target_node": "nobody", "outcome": "UNKNOWN_NODE"}, func() {
			failed(c.cluster(via).Remove(admin, &registrypb.RemoveRequest{Id: "nobody"}))
		})
		act(fields{"method": "Cluster/Transfer", "target_node": "nobody", "outcome": "UNKNOWN_NODE"}, func() {
			failed(c.cluster(via).Transfer(admin, &registrypb.TransferRequest{Id: "nobody"}))
		})
		act(fields{"method": "Cluster/Join", "target_node": c.nodes[via].BindAddr(), "outcome": "MEMBERSHIP"}, func() {
			failed(c.cluster(via).Join(admin, &registrypb.JoinRequest{Bind: c.nodes[via].BindAddr()}))
		})
		act(fields{"method": "Cluster/RestoreSnapshot", "outcome": "INVALID_ARGUMENT"}, func() {
			stream, err := c.cluster(via).RestoreSnapshot(admin)
			if err == nil {
				err = stream.Send(&registrypb.RestoreSnapshotRequest{Data: []byte("no snapshot file")})
			}
			if err != nil {
				t.Fatal(err)
			}
			failed(stream.CloseAndRecv())
		})
	}
}

// Each refusal has one line at the node that was asked, and no secret is in any.
func TestRefusalsAreAudited(t *testing.T) {
	t.Parallel()
	c := newAuditCluster(t)
	web := c.grant(t, "web", nil, may("web-", rightRegister))
	two := c.grant(t, "two", nil, may("", rightRegister))
	unknown, unknownID, _ := registrypb.MakeToken()
	for via, api := range c.apis {
		refused := func(forwards bool, fields fields, call func() error) {
			t.Helper()
			fields["msg"] = "audit: refused"
			c.expect(t, via, forwards && via != c.leader, fields, func() {
				t.Helper()
				if err := call(); err == nil {
					t.Errorf("%v is allowed", fields)
				}
			})
		}
		refused(false, fields{"method": "Registry/Match", "group": "web-1", "outcome": "UNAUTHENTICATED"}, func() error {
			_, err := api.Match(t.Context(), &registrypb.MatchRequest{Group: "web-1", Key: []byte("k")})
			return err
		})
		refused(false, fields{"method": "Registry/Members", "group": "web-1", "outcome": "UNAUTHENTICATED"}, func() error {
			_, err := api.Members(with(t.Context(), unknown), &registrypb.MembersRequest{Group: "web-1"})
			return err
		})
		if id := fmt.Sprintf("%x", unknownID); !strings.Contains(c.files.text(), `"presented_token_id":"`+id+`"`) {
			t.Errorf("the id of the unknown token is not there: %s", id)
		}
		refused(false, fields{"method": "Registry/SetGroup", "token": "web", "group": "web-1", "outcome": "PERMISSION_DENIED"}, func() error {
			_, err := api.SetGroup(with(t.Context(), web), &registrypb.SetGroupRequest{Group: "web-1"})
			return err
		})
		refused(false, fields{"method": "Tokens/Revoke", "token": "web", "target_token": "rgt_…", "outcome": "PERMISSION_DENIED"}, func() error {
			_, err := c.tokens(via).Revoke(with(t.Context(), web), &registrypb.RevokeTokenRequest{Name: web}) // which is no name
			return err
		})
		refused(false, fields{"method": "Registry/Watch", "token": "web", "group": "db", "outcome": "PERMISSION_DENIED"}, func() error {
			w, err := api.Watch(with(t.Context(), web), &registrypb.WatchRequest{Target: &registrypb.WatchRequest_Group{Group: "db"}})
			if err == nil {
				_, err = w.Recv()
			}
			return err
		})
		refused(false, fields{"method": "GET /metrics", "outcome": "UNAUTHENTICATED"}, func() error {
			if code := c.get(t, via, "/metrics", ""); code != http.StatusUnauthorized {
				return nil
			}
			return io.EOF
		})
		r, err := api.Register(with(t.Context(), web), &registrypb.RegisterRequest{Group: "web-1", Id: fmt.Sprint(via), Addr: "10.0.0.1:80", Instance: []byte("i"), Ttl: durationpb.New(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		c.await(t, r.Index)
		refused(true, fields{"method": "Registry/Deregister", "token": "two", "group": "web-1", "member": fmt.Sprint(via), "outcome": "NOT_OWNER"}, func() error {
			_, err := api.Deregister(with(t.Context(), two), &registrypb.DeregisterRequest{Group: "web-1", Id: fmt.Sprint(via)})
			return err
		})
		refused(true, fields{"method": "Registry/RegisterMany", "token": "two", "group": "web-1", "member": fmt.Sprint(via), "outcome": "NOT_OWNER"}, func() error {
			resp, err := api.RegisterMany(with(t.Context(), two), &registrypb.RegisterManyRequest{Registrations: []*registrypb.RegisterRequest{
				{Group: "web-2", Id: fmt.Sprint(via), Addr: "10.0.0.1:80"}, {Group: "web-1", Id: fmt.Sprint(via), Addr: "10.0.0.2:80", TakeOver: true},
			}})
			if err != nil || resp.Results[1].GetFailure() == nil {
				return err
			}
			return errors.New(resp.Results[1].GetFailure().GetMessage())
		})
		refused(true, fields{"method": "Registry/Heartbeat", "token": "two", "outcome": "NOT_OWNER"}, func() error {
			_, err := api.Heartbeat(with(t.Context(), two), &registrypb.HeartbeatRequest{LeaseIds: []uint64{r.LeaseId}})
			return err
		})
	}
	text := c.files.text()
	for name, secret := range map[string]string{"first": c.admin, "web": web, "two": two, "unknown": unknown, "secret": c.secret} {
		if strings.Contains(text, secret) || strings.Contains(text, secret[len(secret)/2:]) {
			t.Errorf("the text of %s is in the audit log", name)
		}
	}
}

// A connection that TLS refuses has a line on either port. A client's certificate is
// named.
func TestCertificatesAreAudited(t *testing.T) {
	t.Parallel()
	ca, otherCA := certstest.NewCA(t), certstest.NewCA(t)
	server, client := ca.Server("node"), ca.Issue("router", certs.Request{Client: true})
	unknown := otherCA.Issue("router", certs.Request{Client: true})
	files := newAuditFiles(t, "node-1")
	n := startNode(t, "node-1", func(cfg *registry.Config) {
		files.use(cfg)
		cfg.SecretFile = secretFile(t, "", peertls.NewSecret())
		cfg.Cert, cfg.Key, cfg.ClientCA = server.Cert, server.Key, ca.Path
	})
	waitReady(t, n)
	// The node may announce itself at its own port, if it was elected just then.
	take := func() []line {
		return slices.DeleteFunc(files.take()[0], func(l line) bool { return l["method"] == "Peer/Join" })
	}
	take()

	call := func(cert certs.Files, limit time.Duration) error {
		c, err := sdk.Dial(n.Addr(), sdk.WithTLSFiles(ca.Path, cert.Cert, cert.Key))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return c.Remove(ctx, "nobody")
	}
	if err := call(client, registrytest.Patience); err == nil {
		t.Error("no error")
	}
	lines := take()
	if len(lines) != 1 || lines[0]["certificate"] != "CN=router" || !lines[0].has(fields{"msg": "audit: act", "method": "Cluster/Remove", "target_node": "nobody", "outcome": "UNKNOWN_NODE", "port": "client"}) {
		t.Errorf("with a certificate: %v", lines)
	}
	if err := call(unknown, time.Second); err == nil {
		t.Error("a certificate of another authority is accepted")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(registrytest.Patience); ; <-tick.C { // the caller may know of it first
		if lines := take(); len(lines) > 0 {
			wantHandshakes(t, lines, "client")
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no line of another authority's certificate")
		}
	}
	for port, addr := range map[string]string{"client": n.Addr(), "bind": n.BindAddr()} {
		from := plain(t, addr)
		// A connection of the unknown caller may be refused late.
		lines := slices.DeleteFunc(take(), func(l line) bool { return l["from"] != from })
		if len(lines) != 1 {
			t.Errorf("%s without TLS: %d lines", port, len(lines))
		}
		wantHandshakes(t, lines, port)
	}
	for _, f := range []string{server.Key, client.Key} {
		key, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(files.text(), strings.Split(string(key), "\n")[1]) {
			t.Error("a key is in the audit log")
		}
	}
}

func wantHandshakes(t *testing.T, lines []line, port string) {
	t.Helper()
	for _, l := range lines {
		if !l.has(fields{"msg": "audit: refused", "method": "handshake", "outcome": "TLS", "port": port}) || l["error"] == nil {
			t.Errorf("%v", l)
		}
	}
}

// plain speaks without TLS until the node closes the connection. It returns its own address.
func plain(t *testing.T, addr string) (from string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(registrytest.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: registry\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c) // it ends by the end of the connection, or a reset
	return c.LocalAddr().String()
}

// Without a file the lines are in the node's log, and a file that cannot be opened ends
// the start.
func TestAuditWithoutAFile(t *testing.T) {
	t.Parallel()
	log := new(logbuffer.Buffer)
	c := registrytest.Start(t, registrytest.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	if _, err := c.Client().SetGroup(t.Context(), sdk.SetGroup{Group: "web"}); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Count(text, "method=Registry/SetGroup outcome=ok") != 1 || !strings.Contains(text, `msg="audit: act"`) {
		t.Errorf("the log: %s", text)
	}
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir = "n", "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	cfg.AuditLog = filepath.Join(t.TempDir(), "no", "file")
	if n, err := registry.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "-audit-log") {
		t.Errorf("started without its audit log: %v, %v", n, err)
	}
}
