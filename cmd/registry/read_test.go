package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// TestReadingCommands pins what every reading command prints, both ways.
func TestReadingCommands(t *testing.T) {
	f := withWeb(t)
	f.nodes = []*registrypb.NodeStatus{
		{Id: "n1", Bind: "10.0.1.1:7370", Addr: "10.0.1.1:9800", Role: "leader", AppliedIndex: 43, CommitIndex: 43, Digest: 0xabc, Fingerprint: 0x1, RingDigest: 0x11, Revision: 43, Version: "v1", Voter: true, Ready: true},
		{Id: "n2", Bind: "10.0.1.2:7370", Addr: "10.0.1.2:9800", Role: "follower", AppliedIndex: 42, CommitIndex: 43, Digest: 0xdef, Fingerprint: 0x2, Revision: 42, Version: "v1", Voter: true, Ready: true, Lag: durationpb.New(time.Millisecond)},
		{
			Id: "n3", Bind: "10.0.1.3:7370", Addr: "10.0.1.3:9800", Error: "connection refused",
			Removal: &registrypb.Removal{Unreachable: durationpb.New(130 * time.Second), RemovedIn: durationpb.New(170 * time.Second)},
		},
	}
	for _, args := range []string{
		"members web", "groups", "group get web", "watch -n 1 web", "match web user-1 user-2", "match -n 2 web user-1",
		"cluster status", "ring stats web", "ring locate -n 2 web user-1 user-2", "ring digest web",
		"ring plan web -join web-4:2 -leave web-1 -weight web-2=3", "ring plan web -drain web-2 -virtual-nodes 128 -bound 1.10",
	} {
		name := strings.NewReplacer(" ", "_", "-", "", ":", "", "=", "").Replace(args)
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", memory.ReplaceAllString(ok(t, strings.Fields(args)...), "${1}0"))
			out := ok(t, append(strings.Fields(args), "--json")...)
			if !json.Valid([]byte(out)) {
				t.Errorf("not JSON: %s", out)
			}
			golden(t, name+".json", memory.ReplaceAllString(out, "${1}0"))
		})
	}
}

// TestStatusOfZones: the table has zones if a node names one.
func TestStatusOfZones(t *testing.T) {
	f := withWeb(t)
	f.nodes = []*registrypb.NodeStatus{
		{Id: "n1", Bind: "10.0.1.1:7370", Addr: "10.0.1.1:9800", Role: "leader", AppliedIndex: 43, Digest: 0xabc, Version: "v1", Voter: true, Ready: true, Zone: "eu-1", Alarms: []string{`the loss of zone "eu-1" (2 of 3 voters) loses the quorum of 2`}},
		{Id: "n2", Bind: "10.0.1.2:7370", Addr: "10.0.1.2:9800", Role: "follower", AppliedIndex: 43, Digest: 0xabc, Version: "v1", Voter: true, Ready: true},
		{Id: "n3", Bind: "10.0.1.3:7370", Addr: "10.0.1.3:9800", Error: "connection refused", Zone: "eu-1"},
	}
	golden(t, "cluster_status_zones.txt", ok(t, "cluster", "status"))
	golden(t, "cluster_status_zones.json", ok(t, "cluster", "status", "-json"))
}

// memory is how much a ring takes, which is not this package's to pin.
var memory = regexp.MustCompile(`(bytes": |bound off\)  )[0-9.]+( KiB)?`)

// TestGroupGetWithoutLeader: what any node knows is shown all the same.
func TestGroupGetWithoutLeader(t *testing.T) {
	f := withWeb(t)
	f.failWith("Guard", codes.Internal, registrypb.ErrorDetail_UNSPECIFIED, "no leader")
	if out := ok(t, "group", "get", "web"); !strings.Contains(out, "unknown: the leader does not answer") {
		t.Error(out)
	}
	if out := ok(t, "group", "get", "web", "--json"); !strings.Contains(out, `"guard": null`) || !strings.Contains(out, `"members": 3`) {
		t.Error(out)
	}
}

// TestJSONShapes checks the keys that other programs rely on.
func TestJSONShapes(t *testing.T) {
	f := withWeb(t)
	f.nodes = []*registrypb.NodeStatus{{Id: "n1", Role: "leader", Digest: 1}}
	tests := []struct{ name, args, path string }{
		{"ring show", "ring show web -json", "group virtual_nodes bound fingerprint digest points.0.hash points.0.member points.0.index points.0.owner"},
		{"ring stats", "ring stats web -json", "group revision bound bound_in_use moved_by_bound.percent members.0.share.percent members.0.to_fair"},
		{"ring plan", "ring plan web -leave web-1 -json", "max_moved within bound_before bound_after members.0.weight_after moved.units least.units moves.0.share.percent"},
		{"ring plot", "ring plot web -json", "file fingerprint largest_to_fair members.2.share.percent circle.319"},
		{"groups", "groups -json", "0.group 0.virtual_nodes 0.bound 0.members 0.revision"},
		{"group get", "group get web -json", "group bound guard"},
		{"match", "match web k -json", "0.group 0.key 0.member.id 0.member.addr 0.fallback 0.index 0.revision 0.fingerprint"},
		{"match -n", "match web k -n 2 -json", "0.members.1.id"},
		{"watch", "watch web -n 1 -json", "group reset rebuilt unknown from revision index fingerprint virtual_nodes bound put.0.id removed"},
		{"members", "members web -json", "0.id 0.addr 0.weight 0.state 0.hold 0.meta.zone 0.registered_at"},
		{"cluster status", "cluster status -json", "leader term nodes.0.id nodes.0.bind nodes.0.addr nodes.0.role nodes.0.applied_index nodes.0.digest nodes.0.version nodes.0.error nodes.0.alarms"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var v any
			if err := json.Unmarshal([]byte(ok(t, strings.Fields(tt.args)...)), &v); err != nil {
				t.Fatal(err)
			}
			for path := range strings.FieldsSeq(tt.path) {
				if !has(v, strings.Split(path, ".")) {
					t.Errorf("%s is missing", path)
				}
			}
		})
	}
}

func has(v any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		next, ok := v[path[0]]
		return ok && has(next, path[1:])
	case []any:
		var i int
		_, err := fmt.Sscan(path[0], &i)
		return err == nil && i < len(v) && has(v[i], path[1:])
	}
	return false
}

func TestMatchFromStdin(t *testing.T) {
	f := withWeb(t)
	keys := strings.Repeat("user\n", 2500) + "last without an end"
	r := execute(t, t.Context(), keys, "match", "web", "-", "-json")
	var answers []matchJSON
	if err := json.Unmarshal([]byte(r.stdout), &answers); err != nil || r.code != exitOK {
		t.Fatalf("exit code %d, %v, %s", r.code, err, r.stderr)
	}
	if len(answers) != 2501 || answers[2500].Key != "last without an end" {
		t.Errorf("%d answers, last for %q", len(answers), answers[len(answers)-1].Key)
	}
	for _, n := range f.batches {
		if n > batchKeys {
			t.Errorf("a batch of %d keys", n)
		}
	}
	if r := execute(t, t.Context(), "", "match", "web", "-", "-json"); r.stdout != "[]\n" || r.code != exitOK {
		t.Errorf("no keys: %+v", r)
	}
	if r := execute(t, t.Context(), "a\n"+strings.Repeat("k", maxKey+1)+"\n", "match", "web", "-"); r.code != exitUsage || !strings.Contains(r.stderr, "line 2") || !strings.Contains(r.stdout, "a") {
		t.Errorf("long key: %+v", r)
	}
}

// TestErrorsAsJSON: a command that fails before its first answer prints none.
func TestErrorsAsJSON(t *testing.T) {
	f := withWeb(t)
	for _, args := range []string{
		"match nobody a b", "match nobody -", "match -n 2 nobody a", "members nobody", "group get nobody", "ring show nobody", "ring stats nobody",
		"ring locate nobody a", "ring digest nobody", "ring plan nobody -leave a", "ring plot nobody", "ring diff nobody web",
	} {
		r := execute(t, t.Context(), "a\n", append(strings.Fields(args), "-json")...)
		if r.code != exitNotFound || r.stdout != "" || !strings.Contains(r.stderr, "no group nobody") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	r := execute(t, t.Context(), "a\n"+strings.Repeat("k", maxKey+1)+"\n", "match", "web", "-", "-json")
	if r.code != exitUsage || !json.Valid([]byte(r.stdout)) || !strings.Contains(r.stdout, `"key": "a"`) {
		t.Errorf("an error after an answer: %+v", r)
	}
	f.failWith("Groups", codes.Internal, registrypb.ErrorDetail_UNSPECIFIED, "broken")
	if r := execute(t, t.Context(), "", "groups", "-json"); r.code != exitFailure || r.stdout != "" {
		t.Errorf("groups: %+v", r)
	}
}

// TestMatchAnswersWhatHasArrived: a key is answered before the next one is typed.
func TestMatchAnswersWhatHasArrived(t *testing.T) {
	withWeb(t)
	in, type_ := io.Pipe()
	read, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), &env{stdin: in, stdout: out, stderr: io.Discard}, []string{"match", "web", "-"})
		out.Close()
	}()
	buf := make([]byte, 4096)
	for _, key := range []string{"one", "two"} {
		fmt.Fprintln(type_, key)
		n, err := read.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), key) {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	type_.Close()
	if rest, err := io.ReadAll(read); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d", c)
	}
}

// TestRingIsChecked: a ring that differs from the node's is not shown.
func TestRingIsChecked(t *testing.T) {
	f := withWeb(t)
	f.fingerprint = 0x1234
	for _, args := range []string{"ring show web", "ring stats web", "ring locate web k", "ring plan web -leave web-1"} {
		r := execute(t, t.Context(), "", strings.Fields(args)...)
		if r.code != exitCheck || r.stdout != "" || !strings.Contains(r.stderr, "0000000000001234") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestRingDigest(t *testing.T) {
	node := func(id string, index, digest, revision, fingerprint, ringDigest uint64) *registrypb.NodeStatus {
		return &registrypb.NodeStatus{
			Id: id, Role: "follower", AppliedIndex: index, Digest: digest,
			Revision: revision, Fingerprint: fingerprint, RingDigest: ringDigest,
		}
	}
	a := node("a", 5, 1, 3, 9, 7)
	tests := []struct {
		name  string
		nodes []*registrypb.NodeStatus
		code  int
		text  string
	}{
		{"equal", []*registrypb.NodeStatus{a, node("b", 5, 1, 3, 9, 7)}, exitOK, ""},
		{"one is behind", []*registrypb.NodeStatus{a, node("b", 4, 2, 2, 8, 6)}, exitOK, ""},
		{"state differs", []*registrypb.NodeStatus{a, node("b", 5, 2, 3, 9, 7)}, exitCheck, "states of nodes a and b differ at index 5"},
		{"group differs", []*registrypb.NodeStatus{a, node("b", 6, 2, 3, 8, 6)}, exitCheck, "states of nodes a and b differ: at revision 3"},
		{"group differs, no ring", []*registrypb.NodeStatus{a, node("b", 6, 2, 3, 8, 0)}, exitCheck, "at revision 3"},
		{"ring differs", []*registrypb.NodeStatus{a, node("b", 6, 2, 3, 9, 6)}, exitCheck, "a and b built different rings"},
		{"ring differs at another revision", []*registrypb.NodeStatus{a, node("b", 6, 2, 4, 9, 6)}, exitCheck, "a and b built different rings"},
		{"fingerprint 0", []*registrypb.NodeStatus{a, node("b", 6, 2, 3, 0, 7)}, exitCheck, "at revision 3"},
		{"one could not build", []*registrypb.NodeStatus{a, node("b", 5, 1, 3, 9, 0)}, exitOK, "could not build the ring"},
		{"ring differs beside one that could not build", []*registrypb.NodeStatus{a, node("b", 5, 1, 3, 9, 0), node("c", 5, 1, 3, 9, 6)}, exitCheck, "a and c built different rings"},
		{"one does not answer", []*registrypb.NodeStatus{a, {Id: "b", Error: "down"}}, exitOK, "down"},
	}
	f := withWeb(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.nodes = tt.nodes
			for _, args := range [][]string{{"ring", "digest", "web"}, {"ring", "digest", "web", "--json"}} {
				r := execute(t, t.Context(), "", args...)
				if r.code != tt.code || !strings.Contains(r.stdout+r.stderr, tt.text) {
					t.Errorf("exit code %d, want %d and %q\n%s%s", r.code, tt.code, tt.text, r.stdout, r.stderr)
				}
			}
		})
	}
}

func TestPlanLimit(t *testing.T) {
	withWeb(t)
	for _, tt := range []struct {
		limit string
		code  int
	}{{"100%", exitOK}, {"0.01%", exitCheck}} {
		r := execute(t, t.Context(), "", "ring", "plan", "web", "-leave", "web-1", "-max-moved", tt.limit)
		if r.code != tt.code || r.stdout == "" {
			t.Errorf("%s: exit code %d", tt.limit, r.code)
		}
	}
	if r := execute(t, t.Context(), "", "ring", "plan", "web", "-leave", "nobody"); r.code != exitUsage {
		t.Errorf("leave of nobody: %+v", r)
	}
}

// TestRingDiff: the saved ring of an hour ago against the group as it is now.
func TestRingDiff(t *testing.T) {
	f := withWeb(t)
	saved := filepath.Join(t.TempDir(), "before.json")
	write(t, saved, ok(t, "ring", "show", "web", "--json"))
	f.put("web", &registrypb.Member{Id: "web-4", Addr: "10.0.0.4:8080", Weight: 1, ModifiedIndex: 50})

	golden(t, "ring_diff.txt", ok(t, "ring", "diff", saved, "web"))
	golden(t, "ring_diff.json", ok(t, "ring", "diff", saved, "web", "-json"))
	if out := ok(t, "ring", "diff", saved, saved); !strings.Contains(out, "0.00% of the keys") {
		t.Error(out)
	}
	if r := execute(t, t.Context(), "", "ring", "diff", saved, "web", "-max-moved", "1%"); r.code != exitCheck {
		t.Errorf("limit: %+v", r)
	}
	write(t, saved, strings.Replace(ok(t, "ring", "show", "web", "--json"), `"fingerprint": "`, `"fingerprint": "0`, 1))
	if r := execute(t, t.Context(), "", "ring", "diff", saved, "web"); r.code != exitFailure || !strings.Contains(r.stderr, "before.json") {
		t.Errorf("damaged file: %+v", r)
	}
	good := ok(t, "ring", "show", "web", "--json")
	for field, text := range map[string]string{"fingerprint": "its members and parameters have fingerprint", "digest": "the ring that is built of it has digest"} {
		other := regexp.MustCompile(`"`+field+`": "[0-9a-f]+"`).ReplaceAllString(good, `"`+field+`": "0000000000001234"`)
		write(t, saved, other)
		if r := execute(t, t.Context(), "", "ring", "diff", saved, "web"); r.code != exitCheck || other == good || !strings.Contains(r.stderr, text) {
			t.Errorf("file with another %s: %+v", field, r)
		}
	}
	if r := execute(t, t.Context(), "", "ring", "diff", "missing.json", "web"); r.code != exitFailure {
		t.Errorf("missing file: %+v", r)
	}
}

func TestRingPlot(t *testing.T) {
	withWeb(t)
	golden(t, "ring_plot.txt", ok(t, "ring", "plot", "web"))
	dir := t.TempDir()
	for name, magic := range map[string]string{"ring.svg": "<svg", "ring.png": "\x89PNG"} {
		path := filepath.Join(dir, name)
		ok(t, "ring", "plot", "web", "-o", path)
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data[:min(len(data), 100)]), magic) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, more := range [][]string{nil, {"-json"}} {
		if r := execute(t, t.Context(), "", append([]string{"ring", "plot", "web", "-width", "5"}, more...)...); r.code != exitUsage || r.stdout != "" {
			t.Errorf("%q: %+v", more, r)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	f := startFake(t)
	if out := ok(t, "health"); out != f.addr+" serving\n" {
		t.Errorf("%q", out)
	}
	f.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	r := execute(t, t.Context(), "", "health", "-addr", f.addr, "--json")
	if r.code != exitUnavailable || !strings.Contains(r.stdout, `"not_serving"`) {
		t.Errorf("not ready: %+v", r)
	}
	refuses, silent := free(t), silentListener(t)
	r = execute(t, t.Context(), "", "health", "-registries", refuses+","+f.addr+","+silent, "-timeout", "2s")
	want := "registry: " + refuses + ": connection refused\n  " + f.addr + " is not_serving\n  " + silent + ": no answer in time\n"
	if r.code != exitUnavailable || !strings.HasSuffix(r.stderr, want) { // it may say before what it tries
		t.Errorf("nobody there: %+v, want %q", r, want)
	}
	r = execute(t, t.Context(), "", "health", "-addr", refuses, "-json")
	if !strings.Contains(r.stdout, `"status": "unreachable",`) || !strings.Contains(r.stdout, `"error": "connection refused"`) {
		t.Errorf("nobody there: %+v", r)
	}
}

// TestExitCodes: each reason that a node may give has its exit code.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		reason registrypb.ErrorDetail_Reason
		grpc   codes.Code
		code   int
	}{
		{registrypb.ErrorDetail_INVALID_ARGUMENT, codes.InvalidArgument, exitUsage},
		{registrypb.ErrorDetail_UNKNOWN_GROUP, codes.NotFound, exitNotFound},
		{registrypb.ErrorDetail_EMPTY_GROUP, codes.NotFound, exitNotFound},
		{registrypb.ErrorDetail_UNKNOWN_MEMBER, codes.NotFound, exitNotFound},
		{registrypb.ErrorDetail_UNKNOWN_NODE, codes.NotFound, exitNotFound},
		{registrypb.ErrorDetail_GROUP_NOT_EMPTY, codes.FailedPrecondition, exitConflict},
		{registrypb.ErrorDetail_CONFLICT, codes.AlreadyExists, exitConflict},
		{registrypb.ErrorDetail_FENCED, codes.FailedPrecondition, exitConflict},
		{registrypb.ErrorDetail_REVISION_MISMATCH, codes.FailedPrecondition, exitConflict},
		{registrypb.ErrorDetail_MEMBERSHIP, codes.FailedPrecondition, exitConflict},
		{registrypb.ErrorDetail_NO_LEADER, codes.Unavailable, exitUnavailable},
		{registrypb.ErrorDetail_NOT_READY, codes.Unavailable, exitUnavailable},
		{registrypb.ErrorDetail_BUSY, codes.Unavailable, exitUnavailable},
		{registrypb.ErrorDetail_OUTCOME_UNKNOWN, codes.Unknown, exitUnknown},
		{registrypb.ErrorDetail_EXHAUSTED, codes.ResourceExhausted, exitFailure},
		{registrypb.ErrorDetail_UNSPECIFIED, codes.Internal, exitFailure},
	}
	var cases sync.WaitGroup // some wait for their timeout
	for _, tt := range tests {
		f := newFake(t)
		cases.Go(func() {
			f.failWith("Join", tt.grpc, tt.reason, "because of the test")
			timeout := patience.String()
			if tt.code == exitUnavailable || tt.code == exitUnknown { // it tries again until then
				timeout = waits
			}
			r := execute(t, t.Context(), "", "cluster", "join", "10.0.0.9:7370", "-timeout", timeout, "-registries", f.addr)
			if r.code != tt.code || r.stdout != "" || !strings.Contains(r.stderr, "because of the test") {
				t.Errorf("%v: want exit code %d, got %+v", tt.reason, tt.code, r)
			}
		})
	}
	cases.Wait()
	if r := execute(t, t.Context(), "", "members", "nobody", "-registries", newFake(t).addr); r.code != exitNotFound || r.stderr != "registry: no group nobody\n" { // without the name of a call
		t.Errorf("unknown group: %+v", r)
	}
	if r := execute(t, t.Context(), "", "members", "web", "-registries", "127.0.0.1:1", "-timeout", "300ms"); r.code != exitUnavailable {
		t.Errorf("nobody there: %+v", r)
	}
}

// percents are the shares that a table shows.
var percents = regexp.MustCompile(`[0-9]+\.[0-9]{2}%`)

// TestOneTextForAShare: every command shows a member's share alike.
func TestOneTextForAShare(t *testing.T) {
	withWeb(t)
	want := []string{"34.54%", "65.46%", "0.00%"}
	for _, args := range []string{"ring stats web", "ring plot web"} {
		if got := percents.FindAllString(ok(t, strings.Fields(args)...), -1); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	plan := ok(t, "ring", "plan", "web", "-weight", "web-3=2")
	for _, share := range want {
		if !strings.Contains(plan, share) {
			t.Errorf("no %s in\n%s", share, plan)
		}
	}
	deviation := "0.029"
	for _, args := range []string{"ring stats web", "ring plot web"} {
		if out := ok(t, strings.Fields(args)...); !strings.Contains(out, deviation) {
			t.Errorf("%s: no deviation of %s in\n%s", args, deviation, out)
		}
	}
}

// TestOneOfAThing: one is no plural.
func TestOneOfAThing(t *testing.T) {
	f := withWeb(t)
	f.put("one", &registrypb.Member{Id: "a", Addr: "h:1", Weight: 1, ModifiedIndex: 50})
	f.put("other", &registrypb.Member{Id: "b", Addr: "h:1", Weight: 1, ModifiedIndex: 51})
	for args, want := range map[string]string{
		"ring stats one": "\n1 member  64 points ", "ring stats web": "\n3 members  192 points ",
		"ring diff one other": ", in 1 range\n",
	} {
		if out := ok(t, strings.Fields(args)...); !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", args, want, out)
		}
	}
	if out := ok(t, "ring", "plot", "one"); strings.Contains(out, "1 members") {
		t.Error(out)
	}
}
