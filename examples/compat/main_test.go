package main

import (
	"bufio"
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/sdk"
)

// The program against a real node, while another service comes, changes and goes.
func TestCompat(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cfg := registry.DefaultConfig()
	cfg.ID, cfg.DataDir, cfg.Bind, cfg.Addr = "n1", t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	cfg.BootstrapExpect = 1
	node, err := registry.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()

	running, stop := context.WithCancel(ctx)
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(running, w, node.Addr(), sdk.Service{Group: "web", ID: "web1", Addr: "127.0.0.1:8001"})
		_ = w.Close()
	}()
	lines := bufio.NewScanner(r)
	want := func(line string) {
		t.Helper()
		for lines.Scan() {
			if strings.Join(strings.Fields(lines.Text()), " ") == line {
				return
			}
		}
		t.Fatalf("no line %q: %v", line, <-ended)
	}
	want("user-id-1 is with web1 at 127.0.0.1:8001, says a node")
	want("user-id-1 is with web1 at 127.0.0.1:8001")
	want("web1 127.0.0.1:8001 1 active")
	want("join web1 at 127.0.0.1:8001")

	client, err := sdk.Dial(node.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	other, err := client.Register(ctx, sdk.Service{Group: "web", ID: "web2", Addr: "127.0.0.1:8002"})
	if err != nil {
		t.Fatal(err)
	}
	want("join web2 at 127.0.0.1:8002")
	draining := sdk.StateDraining
	if _, err := client.UpdateMember(ctx, "web", "web2", sdk.MemberUpdate{State: &draining}); err != nil {
		t.Fatal(err)
	}
	want("update web2 at 127.0.0.1:8002, draining")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	want("leave web2")
	stop()
	go func() { _, _ = io.Copy(io.Discard, r) }() // ends with the pipe
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if all, err := client.Members(ctx, "web"); len(all) != 0 {
		t.Errorf("%v are left, %v", all, err)
	}
}

type calls []string

func (c *calls) OnMemberJoin(m sdk.Member)   { *c = append(*c, "join "+m.ID) }
func (c *calls) OnMemberLeave(m sdk.Member)  { *c = append(*c, "leave "+m.ID) }
func (c *calls) OnMemberUpdate(m sdk.Member) { *c = append(*c, "update "+m.ID) }

// A reset tells of what is different, and of nothing else.
func TestTell(t *testing.T) {
	var got calls
	known := map[string]sdk.Member{}
	for _, e := range []sdk.GroupEvent{
		{Reset: true, Put: []sdk.Member{{ID: "a", ModifiedIndex: 1}, {ID: "b", ModifiedIndex: 1}}},
		{Reset: true, Put: []sdk.Member{{ID: "b", ModifiedIndex: 1}, {ID: "c", ModifiedIndex: 2}}},
		{Put: []sdk.Member{{ID: "c", ModifiedIndex: 3}}, Removed: []string{"b", "never shown"}},
		{Unknown: true},
	} {
		tell(known, e, &got)
	}
	want := calls{"join a", "join b", "leave a", "join c", "leave b", "update c", "leave c"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
