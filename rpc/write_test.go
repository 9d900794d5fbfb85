package rpc

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// watchedRequest tells when a node has read it.
type watchedRequest struct {
	*registrypb.RegisterRequest
	read *bool
}

func (r watchedRequest) GetAgain() bool {
	*r.read = true
	return r.RegisterRequest.GetAgain()
}

// hookedContext calls f before each look for a value.
type hookedContext struct {
	context.Context
	f func()
}

func (c hookedContext) Value(key any) any {
	c.f()
	return c.Context.Value(key)
}

// A node that begins to lead during a write remembers it by its values: a later attempt
// returns the result.
func TestWriteThatMeetsANewLeadership(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		nodes := c.Three()
		n := nodes[0]
		if c.Leader().ID == n.ID {
			n = nodes[1]
		}
		s := serverOf(t, n)
		req := &registrypb.RegisterRequest{Group: "web", Id: "a", Addr: "a:1", RequestId: bytes.Repeat([]byte{1}, store.RequestIDSize), Instance: []byte("one")}
		attempt := func(ctx context.Context, req registrypb.Write) (*fsm.Result, error) {
			cmd := &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{Group: "web", Id: "a", Addr: "a:1", Weight: 1, TtlMs: 10_000, Instance: []byte("one")}}}
			return write(ctx, s, registrypb.Registry_Register_FullMethodName, req, cmd, func(r fsm.Result) *fsm.Result { return &r })
		}
		ctx := callOn(t, s, registrypb.Registry_Register_FullMethodName, req, "")
		read, led := false, false
		first, err := attempt(hookedContext{ctx, func() {
			if !read || led {
				return
			}
			led = true
			if err := c.Leader().Transfer(c.Context(), n.ID); err != nil {
				t.Error(err)
			}
			c.Await("a node that leads", func() bool {
				_, err := n.Write(c.Context(), &fsmpb.Command{Op: &fsmpb.Command_SetGroup{SetGroup: &fsmpb.SetGroup{Group: "web", VirtualNodes: 64}}})
				return err == nil
			})
		}}, watchedRequest{req, &read})
		if err != nil || !led {
			t.Fatalf("%v, the leadership changed: %v", err, led)
		}
		if second, err := attempt(ctx, req); err != nil || second.Index != first.Index {
			t.Errorf("the second attempt: %+v, %v; the first: %+v", second, err, first)
		}
	})
}
