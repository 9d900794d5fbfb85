package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// Watch sends what is watched as it is, or how fresh it is where there is
// nothing, and then what tell hands to it.
func (f *fake) Watch(r *registrypb.WatchRequest, s registrypb.Registry_WatchServer) error {
	first, err := f.watched(r)
	if err != nil {
		select {
		case f.events <- "watch":
		default: // as often as it likes
		}
		return err
	}
	for _, e := range first {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	tick := time.NewTicker(r.ProgressInterval.AsDuration())
	defer tick.Stop()
	for {
		e := progress()
		select {
		case e = <-f.news:
		case <-tick.C:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		if err := s.Send(e); err != nil {
			return err
		}
	}
}

func progress() *registrypb.WatchEvent {
	return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Progress{Progress: &registrypb.Progress{}}}
}

func (f *fake) watched(r *registrypb.WatchRequest) (out []*registrypb.WatchEvent, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.groups)) {
		if _, prefix := r.Target.(*registrypb.WatchRequest_Prefix); name == r.GetGroup() || prefix && strings.HasPrefix(name, r.GetPrefix()) {
			out = append(out, f.snapshot(name))
		}
	}
	if name := r.GetGroup(); name != "" && len(out) == 0 {
		out = append(out, unknownGroup(name))
	}
	if len(out) == 0 {
		out = append(out, progress())
	}
	return out, f.fail["Watch"]
}

// snapshot is called with f.mu held.
func (f *fake) snapshot(name string) *registrypb.WatchEvent {
	g := f.groups[name]
	r := f.receipt(g)
	return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: &registrypb.GroupSnapshot{
		Group: name, Revision: r.Revision, Index: r.Index, Fingerprint: r.Fingerprint, Config: g.config, Members: g.members,
	}}}
}

func unknownGroup(name string) *registrypb.WatchEvent {
	return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: name}}
}

// change changes a group and returns the event of that.
func (f *fake) change(name string, edit func(*fakeGroup, *registrypb.GroupDelta)) *registrypb.WatchEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[name]
	next := f.index + 1
	d := &registrypb.GroupDelta{Group: name, From: f.receipt(g).Revision, Revision: next, Index: next}
	edit(g, d)
	d.Config = g.config
	for _, id := range d.Removed {
		g.members = slices.DeleteFunc(g.members, func(m *registrypb.Member) bool { return m.Id == id })
	}
	for _, m := range d.Put {
		m.ModifiedIndex = next
		f.put(name, m)
	}
	f.index, g.revision = next, next
	d.Fingerprint = g.ring().Fingerprint()
	return &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Delta{Delta: d}}
}

// only makes a group of one member and returns its snapshot.
func (f *fake) only(name string, m *registrypb.Member) *registrypb.WatchEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.groups, name)
	f.put(name, m)
	return f.snapshot(name)
}

// tell sends an event to the watch that is open, which must be the fake's only
// one so far: the end of another may not have been noticed yet.
func (f *fake) tell(t *testing.T, e *registrypb.WatchEvent) {
	t.Helper()
	select {
	case f.news <- e:
	case <-t.Context().Done():
		t.Fatal("nobody watches")
	}
}

func join(m *registrypb.Member) func(*fakeGroup, *registrypb.GroupDelta) {
	return func(_ *fakeGroup, d *registrypb.GroupDelta) { d.Put = []*registrypb.Member{m} }
}

func leave(ids ...string) func(*fakeGroup, *registrypb.GroupDelta) {
	return func(_ *fakeGroup, d *registrypb.GroupDelta) { d.Removed = ids }
}

// lines reads that many lines of stdout.
func (r *running) lines(n int) string {
	r.t.Helper()
	var out strings.Builder
	for range n {
		line, err := r.stdout.ReadString('\n')
		if out.WriteString(line); err != nil {
			r.t.Fatalf("%v after %q", err, out.String())
		}
	}
	return out.String()
}

func (r *running) shows(want string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.lines(strings.Count(want, "\n"))); diff != "" {
		r.t.Errorf("stdout:\n%s", diff)
	}
}

const webAsText = `43  web  reset  members=3 virtual-nodes=64 bound=off
43  web  put    web-1  10.0.0.1:8080  weight=1  active    ttl=10s  note=x,y zone=a
43  web  put    web-2  10.0.0.2:8080  weight=2  active    ttl=10s  note=x,y zone=a
43  web  put    web-3  10.0.0.3:8080  weight=1  draining  ttl=10s  note=x,y zone=a
`

// TestWatch: every kind of change as text, until a signal, which is a good end.
func TestWatch(t *testing.T) {
	f := withWeb(t)
	r := start(t, "watch", "web")
	r.shows(webAsText)

	f.tell(t, f.change("web", join(&registrypb.Member{Id: "web-4", Addr: "10.0.0.4:80", Weight: 3})))
	r.shows("44  web  put  web-4  10.0.0.4:80  weight=3  active  ttl=0s  -\n")
	f.tell(t, f.change("web", leave("web-1", "web-2")))
	r.shows("45  web  removed  web-1\n45  web  removed  web-2\n")
	f.tell(t, f.change("web", func(g *fakeGroup, d *registrypb.GroupDelta) {
		d.Put, d.Removed = []*registrypb.Member{{Id: "web-5", Addr: "h:1", Weight: 1, Meta: map[string]string{"a": "\x1b[2J\n47  web  removed  web-5"}}}, []string{"web-4"}
	}))
	r.shows("46  web  removed  web-4\n46  web  put      web-5  h:1  weight=1  active  ttl=0s  a=\"\\x1b[2J\\n47  web  removed  web-5\"\n")
	f.tell(t, f.change("web", func(g *fakeGroup, _ *registrypb.GroupDelta) {
		g.config = &registrypb.GroupConfig{VirtualNodes: 128, Bound: 1100}
	}))
	r.shows("47  web  set  virtual-nodes=128 bound=1.100\n")
	f.tell(t, f.change("web", leave("web-3")))
	r.shows("48  web  removed  web-3\n")
	f.tell(t, f.change("web", leave("never-shown")))
	r.shows("49  web  removed  never-shown\n")

	r.cancel(signalCause{syscall.SIGTERM})
	r.wait(exitOK)
	if withoutPatience(r.stderr.String()) != "" {
		t.Errorf("stderr: %s", r.stderr)
	}
}

// TestWatchJSON: one object a line, and the same keys in each.
func TestWatchJSON(t *testing.T) {
	f := withWeb(t)
	r := start(t, "watch", "-json", "web", "-n", "3")
	read := func() (ev watchJSON) {
		t.Helper()
		line := r.lines(1)
		if err := json.Unmarshal([]byte(line), &ev); err != nil || strings.Contains(line, "null") {
			t.Fatalf("%v in %q", err, line)
		}
		return ev
	}
	if ev := read(); !ev.Reset || ev.Group != "web" || ev.Revision != 43 || ev.Index != 43 || len(ev.Fingerprint) != 16 || len(ev.Put) != 3 || ev.Put[2].State != "draining" || ev.VirtualNodes != 64 {
		t.Errorf("snapshot: %+v", ev)
	}
	f.tell(t, f.change("web", join(&registrypb.Member{Id: "web-4", Addr: "<h>:1", Weight: 3})))
	want := `{"group":"web","reset":false,"rebuilt":false,"unknown":false,"from":43,"revision":44,"index":44,"fingerprint":"a7d5f2a2b1ec1d7d","virtual_nodes":64,"bound":"off",` +
		`"put":[{"id":"web-4","addr":"<h>:1","weight":3,"state":"active","hold":"0s","ttl":"0s","meta":{},"created_index":0,"modified_index":44,"registered_at":null}],"removed":[],"error":"","recovered":false}` + "\n"
	r.shows(want)
	f.tell(t, f.change("web", leave("web-1")))
	if ev := read(); ev.Reset || ev.From != 44 || ev.Revision != 45 || len(ev.Put) != 0 || !slices.Equal(ev.Removed, []string{"web-1"}) {
		t.Errorf("removal: %+v", ev)
	}
	r.wait(exitOK) // by -n
}

func TestWatchUnknownGroup(t *testing.T) {
	withWeb(t)
	if out := ok(t, "watch", "nobody", "-n", "1"); out != "-  nobody  unknown\n" {
		t.Errorf("%q", out)
	}
	want := `{"group":"nobody","reset":false,"rebuilt":false,"unknown":true,"from":0,"revision":0,"index":0,"fingerprint":"","virtual_nodes":0,"bound":"off","put":[],"removed":[],"error":"","recovered":false}` + "\n"
	if out := ok(t, "watch", "nobody", "-n", "1", "-json"); out != want {
		t.Errorf("%q", out)
	}

}

// TestWatchRebuiltCluster: a group goes, comes, and goes back.
func TestWatchRebuiltCluster(t *testing.T) {
	f := withWeb(t)
	r := start(t, "watch", "web", "-n", "4")
	r.shows(webAsText)
	f.mu.Lock()
	delete(f.groups, "web")
	f.mu.Unlock()
	f.tell(t, unknownGroup("web"))
	r.shows("-  web  unknown rebuilt\n")
	f.tell(t, f.only("web", &registrypb.Member{Id: "web-7", Addr: "h:1", Weight: 1, ModifiedIndex: 2}))
	r.shows("2  web  reset  members=1 virtual-nodes=64 bound=off\n2  web  put    web-7  h:1  weight=1  active  ttl=0s  -\n")
	f.tell(t, f.only("web", &registrypb.Member{Id: "web-8", Addr: "h:1", Weight: 1, ModifiedIndex: 1}))
	r.shows("1  web  reset rebuilt  members=1 virtual-nodes=64 bound=off\n1  web  put            web-8  h:1  weight=1  active  ttl=0s  -\n")
	r.wait(exitOK)
}

func TestWatchPrefix(t *testing.T) {
	f := withWeb(t)
	f.put("api", &registrypb.Member{Id: "api-1", Addr: "h:1", Weight: 1, ModifiedIndex: 44})
	f.put("web-eu", &registrypb.Member{Id: "eu-1", Addr: "h:2", Weight: 1, ModifiedIndex: 45})
	all := "44  api  reset  members=1 virtual-nodes=64 bound=off\n44  api  put    api-1  h:1  weight=1  active  ttl=0s  -\n"
	web := webAsText + "45  web-eu  reset  members=1 virtual-nodes=64 bound=off\n45  web-eu  put    eu-1  h:2  weight=1  active  ttl=0s  -\n"
	for _, tt := range []struct{ args, want string }{
		{"watch -prefix -n 3", all + web},
		{"watch -n 2 web -prefix", web},
	} {
		if diff := cmp.Diff(tt.want, ok(t, strings.Fields(tt.args)...)); diff != "" {
			t.Errorf("%s:\n%s", tt.args, diff)
		}
	}

}

// TestWatchPrefixOfNoGroup: it says so and waits, without an end.
func TestWatchPrefixOfNoGroup(t *testing.T) {
	f := withWeb(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	in, stderr := io.Pipe()
	read, stdout := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, &env{stdout: stdout, stderr: stderr}, []string{"watch", "-prefix", "new-"})
		stderr.Close()
		stdout.Close()
	}()
	r := &running{t: t, stdout: bufio.NewReader(in)}
	r.until("no group starts with \"new-\" yet\n")
	in.Close() // whatever else it says is lost, and blocks nothing
	r.stdout = bufio.NewReader(read)
	f.tell(t, f.only("new-1", &registrypb.Member{Id: "n1", Addr: "h:1", Weight: 1, ModifiedIndex: 46}))
	r.shows("46  new-1  reset  members=1 virtual-nodes=64 bound=off\n46  new-1  put    n1  h:1  weight=1  active  ttl=0s  -\n")
	cancel(signalCause{os.Interrupt})
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d", c)
	}
}

func TestWatchFingerprints(t *testing.T) {
	f := withWeb(t)
	r := start(t, "watch", "web", "-fingerprints", "-n", "2")
	before := hex64(f.groups["web"].ring().Fingerprint()).String()
	for line := range strings.Lines(r.lines(4)) {
		if !strings.HasPrefix(line, "43  "+before+"  web  ") {
			t.Error(line)
		}
	}
	f.tell(t, f.change("web", leave("web-1")))
	r.shows("44  " + hex64(f.groups["web"].ring().Fingerprint()).String() + "  web  removed  web-1\n")
	r.wait(exitOK)
	if out := ok(t, "watch", "nobody", "-fingerprints", "-n", "1"); out != "-  -  nobody  unknown\n" {
		t.Errorf("%q", out)
	}
}

// TestWatchWithoutAState: -timeout is how long the first state may take, and
// the exit code says why there was none.
func TestWatchWithoutAState(t *testing.T) {
	t.Parallel()
	failing := func(code codes.Code, reason registrypb.ErrorDetail_Reason, methods ...string) func(*fake) {
		return func(f *fake) {
			for _, m := range methods {
				f.failWith(m, code, reason, "because of the test")
			}
		}
	}
	var cases sync.WaitGroup // some wait for their timeout
	for _, args := range []string{"watch web", "watch -prefix"} {
		tests := []struct {
			name, more string
			fail       func(*fake)
			code       int
			says       string
		}{
			{"nobody there", "-timeout 20s", nil, exitUnavailable, "no node can be reached\n  127.0.0.1:1: connection refused\n"},
			{"not ready", "-timeout " + waits, failing(codes.Unavailable, registrypb.ErrorDetail_NOT_READY, "Members", "Groups", "Watch"), exitUnavailable, "because of the test"},
			{"no stream", "-timeout " + waits, failing(codes.Unavailable, registrypb.ErrorDetail_NOT_READY, "Watch"), exitUnavailable, "none gave a first state within " + waits + ""},
			{"refused", "-timeout 20s", failing(codes.InvalidArgument, registrypb.ErrorDetail_INVALID_ARGUMENT, "Watch"), exitUsage, "because of the test"},
		}
		for _, tt := range tests {
			f := newFake(t).addWeb()
			addr := "127.0.0.1:1"
			if tt.fail != nil {
				tt.fail(f)
				addr = f.addr
			}
			cases.Go(func() {
				r := execute(t, t.Context(), "", strings.Fields(args+" -registries "+addr+" "+tt.more)...)
				if r.code != tt.code || r.stdout != "" || !strings.Contains(r.stderr, tt.says) || strings.Count(r.stderr, "registry:") != 1 {
					t.Errorf("%s, %s: want exit code %d and %q, got %+v", args, tt.name, tt.code, tt.says, r)
				}
			})
		}
	}
	cases.Wait()
}

// TestWatchInterrupted: without a first state there was no answer.
func TestWatchInterrupted(t *testing.T) {
	f := withWeb(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signalCause{os.Interrupt})
	if r := execute(t, ctx, "", "watch", "web"); r.code != exitInterrupted || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	r := start(t, "watch", "web", "-json", "-n", "2") // and with one it is a good end also before -n
	r.lines(1)
	r.cancel(signalCause{os.Interrupt})
	r.wait(exitOK)
	f.failWith("Watch", codes.Unavailable, registrypb.ErrorDetail_NOT_READY, "because of the test")
	r = start(t, "watch", "web", "-timeout", patience.String())
	for range 3 {
		f.expect(t, "watch")
	}
	r.cancel(signalCause{os.Interrupt})
	r.wait(exitInterrupted)
}

// TestWatchOfAnotherCluster: a watch whose nodes are of another cluster gets nothing any
// more, so it ends and says what to do.
func TestWatchOfAnotherCluster(t *testing.T) {
	t.Parallel()
	f := newFake(t).addWeb()
	f.failWith("Watch", codes.FailedPrecondition, registrypb.ErrorDetail_WRONG_CLUSTER, "of another cluster")
	r := execute(t, t.Context(), "", "watch", "web", "-registries", f.addr, "-timeout", patience.String())
	if r.code != exitConflict || !strings.Contains(r.stdout, "failing") || !strings.Contains(r.stderr, "run the command again to watch the new one") {
		t.Errorf("%+v", r)
	}
}

// What is wrong with the watch itself is printed, and that it is over.
func TestWatchPrintsOutages(t *testing.T) {
	var text, lines strings.Builder
	p := &eventPrinter{w: &text, params: map[string]string{}}
	for _, ev := range []sdk.GroupEvent{
		{Group: "web", Err: errors.New("no node answers")}, {Group: "web", From: 7, Revision: 7, Recovered: true},
	} {
		if err := p.print(ev); err != nil {
			t.Fatal(err)
		}
		if err := writeJSONLine(&lines, toWatchJSON(ev)); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Fields(text.String()); strings.Join(got, " ") != "- web failing no node answers 7 web recovered" {
		t.Errorf("%q", text.String())
	}
	if got := lines.String(); !strings.Contains(got, `"error":"no node answers"`) || strings.Count(got, `"recovered":true`) != 1 {
		t.Errorf("%s", got)
	}
}
