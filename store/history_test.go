package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// crashHistories is set by the module tests, which has another check of the histories.
var crashHistories = flag.String("crash-histories", "", "directory to write the histories of the crash tests to")

// operation is a call and its answer. Its JSON is that of check.Op in the module tests.
type operation struct {
	Client  int       `json:"client"`
	Node    string    `json:"node"`
	Group   string    `json:"group"`
	Kind    string    `json:"kind"` // register, deregister or read
	Member  operand   `json:"member,omitzero"`
	Over    bool      `json:"take_over,omitzero"`
	Call    uint64    `json:"call"` // calls and returns are numbered in their order
	Return  uint64    `json:"return"`
	Outcome string    `json:"outcome"` // ok, failed or unknown
	Removed bool      `json:"removed,omitzero"`
	Members []operand `json:"members,omitempty"`

	request []byte // id
	index   uint64 // of the entry, if the outcome is ok
}

type operand struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Weight uint32 `json:"weight"`
}

// history is what the callers of a cluster noted.
type history struct {
	c     *storetest.Cluster
	down  func(*storetest.Node) bool // its answers do not arrive
	clock atomic.Uint64
	end   context.Context
	stop  context.CancelFunc
	all   sync.WaitGroup

	mu  sync.Mutex // guards ops
	ops []operation
}

const (
	historyGroup = "web"
	attemptLimit = 300 * time.Millisecond
	callLimit    = 10 * time.Second
)

var historyMembers = []string{"a", "b", "c"}

// callers start to write and read concurrently.
func (h *history) callers(rng *rand.Rand, n int) {
	for i := range n {
		own := rand.New(rand.NewPCG(rng.Uint64(), 1))
		h.all.Go(func() {
			for h.end.Err() == nil {
				h.call(i, own)
				store.After(time.Duration(own.IntN(8)) * time.Millisecond)
			}
		})
	}
}

func (h *history) call(client int, rng *rand.Rand) {
	op := operation{Client: client, Group: historyGroup, Member: operand{ID: historyMembers[rng.IntN(len(historyMembers))]}}
	switch rng.IntN(5) {
	case 0, 1:
		h.read(&op, rng)
	case 2:
		op.Kind = "deregister"
		h.write(&op, rng)
	default:
		op.Kind, op.Over = "register", true
		h.write(&op, rng)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// read is a linearizable read at any node.
func (h *history) read(op *operation, rng *rand.Rand) {
	op.Kind, op.Member, op.Outcome, op.Call = "read", operand{}, "failed", h.clock.Add(1)
	nodes := h.c.Nodes()
	if len(nodes) == 0 {
		return
	}
	n := nodes[rng.IntN(len(nodes))]
	op.Node = n.ID
	ctx, cancel := context.WithTimeout(context.Background(), attemptLimit)
	defer cancel()
	index, err := n.LinearizableIndex(ctx)
	if err != nil {
		return
	}
	s, err := n.WaitIndex(ctx, index)
	if err != nil || h.down(n) {
		return
	}
	op.Outcome = "ok"
	if g := s.Group(historyGroup); g != nil {
		for _, id := range historyMembers {
			if m := g.Member(id); m != nil {
				op.Members = append(op.Members, operand{m.ID, m.Addr, m.Weight})
			}
		}
	}
	op.Return = h.clock.Add(1)
}

// write attempts a write at leaders until its outcome is known.
func (h *history) write(op *operation, rng *rand.Rand) {
	op.Call = h.clock.Add(1)
	if op.Kind == "register" {
		op.Member.Addr, op.Member.Weight = fmt.Sprintf("h%d:1", op.Call), uint32(op.Call%1000+1)
	}
	request := store.Request{ID: binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, op.Call), rng.Uint64())}
	op.request = request.ID
	if nodes := h.c.Nodes(); len(nodes) > 0 {
		request.Since = nodes[rng.IntN(len(nodes))].State().Index()
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	for ; ctx.Err() == nil && !errors.Is(h.attempt(ctx, op, &request), store.ErrForgotten) && op.Outcome == ""; store.After(5 * time.Millisecond) {
	}
	op.Return = h.clock.Add(1)
	switch {
	case op.Outcome != "":
	case request.Again:
		op.Outcome = "unknown"
	default:
		op.Outcome = "failed"
	}
}

func (h *history) attempt(ctx context.Context, op *operation, request *store.Request) error {
	nodes := h.c.Nodes()
	i := slices.IndexFunc(nodes, func(n *storetest.Node) bool { return n.IsLeader() })
	if i < 0 {
		return store.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	r, err := nodes[i].WriteOnce(ctx, op.command(), *request)
	switch {
	case h.down(nodes[i]):
		request.Again = true
	case err == nil:
		op.Node, op.Outcome, op.Removed, op.index = nodes[i].ID, "ok", op.Kind == "deregister" && r.Removed, r.Index
	case !errors.Is(err, store.ErrNotLeader) && !errors.Is(err, store.ErrBusy):
		request.Again = true
	}
	return err
}

func (op *operation) command() *fsmpb.Command {
	if op.Kind == "deregister" {
		return deregister(op.Group, op.Member.ID)
	}
	return &fsmpb.Command{Op: &fsmpb.Command_Register{Register: &fsmpb.Register{
		Group: op.Group, Id: op.Member.ID, Addr: op.Member.Addr, Weight: op.Member.Weight, TtlMs: time.Hour.Milliseconds(),
		Instance: binary.LittleEndian.AppendUint64([]byte("instance"), op.Call), TakeOver: true,
	}}}
}

// finish ends the callers, reads once more at each node, and writes the history down.
func (h *history) finish(t *testing.T) []operation {
	h.stop()
	h.all.Wait()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2 * len(h.c.Nodes()) {
		op := operation{Client: -1, Group: historyGroup}
		h.read(&op, rng)
		h.ops = append(h.ops, op)
	}
	if *crashHistories != "" {
		if err := writeHistory(filepath.Join(*crashHistories, strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())+".json"), h.ops); err != nil {
			t.Error(err)
		}
	}
	return h.ops
}

func writeHistory(path string, ops []operation) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, op := range ops {
		err = errors.Join(err, json.NewEncoder(w).Encode(op))
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// lost returns the acknowledged writes whose entries a node's log lacks.
func lost(n *storetest.Node, ops []operation) (lost []string) {
	for _, op := range ops {
		if op.Kind == "read" || op.Outcome != "ok" {
			continue
		}
		if l, err := n.Entry(op.index); err != nil || !bytes.Contains(l.Data, op.request) {
			lost = append(lost, fmt.Sprintf("%s of %s, entry %d", op.Kind, op.Member.ID, op.index))
		}
	}
	return lost
}

// notLinearizable returns the ids of the members for which no order of the operations
// explains all answers. Each member is a register of its own: a read of all is one of each.
func notLinearizable(ops []operation) (ids []string) {
	for _, id := range historyMembers {
		var of []memberOp
		for _, op := range ops {
			o := memberOp{kind: op.Kind, call: op.Call, end: op.Return, removed: op.Removed, unknown: op.Outcome == "unknown"}
			if o.unknown {
				o.end = math.MaxUint64
			}
			switch {
			case op.Outcome == "failed" || op.Kind != "read" && op.Member.ID != id:
				continue
			case op.Kind == "read":
				if i := slices.IndexFunc(op.Members, func(m operand) bool { return m.ID == id }); i >= 0 {
					o.addr = op.Members[i].Addr
				}
			default:
				o.addr = op.Member.Addr
			}
			of = append(of, o)
		}
		if !explainable(of) {
			ids = append(ids, id)
		}
	}
	return ids
}

// memberOp is an operation on one member; addr is empty if it is not registered.
type memberOp struct {
	kind, addr       string
	call, end        uint64
	removed, unknown bool
}

// step returns the member's address after the operation; false if its answer contradicts.
func (o memberOp) step(addr string) (string, bool) {
	switch o.kind {
	case "read":
		return addr, o.addr == addr
	case "deregister":
		return "", o.unknown || o.removed == (addr != "")
	}
	return o.addr, true
}

// explainable searches for an order, as Wing and Gong do: the next operation is one that
// was called before any that is left has returned.
func explainable(ops []memberOp) bool {
	slices.SortFunc(ops, func(a, b memberOp) int { return int(a.call) - int(b.call) })
	known := 0
	for _, o := range ops {
		if !o.unknown {
			known++
		}
	}
	taken, seen := make([]byte, len(ops)), make(map[string]bool)
	var search func(left int, addr string) bool
	search = func(left int, addr string) bool {
		at := string(taken) + addr
		if left == 0 || seen[at] {
			return left == 0
		}
		seen[at] = true
		end := uint64(math.MaxUint64)
		for i, o := range ops {
			if taken[i] != 0 {
				continue
			}
			if o.call > end {
				break
			}
			end = min(end, o.end)
			next, ok := o.step(addr)
			if !ok {
				continue
			}
			taken[i] = 1
			rest := left
			if !o.unknown {
				rest--
			}
			if search(rest, next) {
				return true
			}
			taken[i] = 0
		}
		return false
	}
	return search(known, "")
}

// The check of histories finds what it should.
func TestHistoryCheck(t *testing.T) {
	a := []operand{{ID: "a", Addr: "one"}}
	reg := func(addr string, call, end uint64, outcome string) operation {
		return operation{Kind: "register", Member: operand{ID: "a", Addr: addr}, Call: call, Return: end, Outcome: outcome}
	}
	read := func(call, end uint64, members []operand) operation {
		return operation{Kind: "read", Call: call, Return: end, Outcome: "ok", Members: members}
	}
	remove := func(call, end uint64, removed bool) operation {
		return operation{Kind: "deregister", Member: operand{ID: "a"}, Call: call, Return: end, Outcome: "ok", Removed: removed}
	}
	for name, tc := range map[string]struct {
		ops []operation
		bad bool
	}{
		"one after the other":                {[]operation{reg("one", 1, 2, "ok"), read(3, 4, a), remove(5, 6, true), read(7, 8, nil)}, false},
		"an acknowledged write is lost":      {[]operation{reg("one", 1, 2, "ok"), read(3, 4, nil)}, true},
		"a read that is stale":               {[]operation{reg("one", 1, 2, "ok"), reg("two", 3, 4, "ok"), read(5, 6, a)}, true},
		"a read during the write":            {[]operation{reg("one", 1, 2, "ok"), reg("two", 3, 6, "ok"), read(4, 5, a)}, false},
		"back in time":                       {[]operation{reg("one", 1, 8, "ok"), read(2, 3, a), read(4, 5, nil)}, true},
		"an unknown write takes effect late": {[]operation{reg("one", 1, 2, "unknown"), read(3, 4, nil), read(5, 6, a)}, false},
		"an unknown write never does":        {[]operation{reg("one", 1, 2, "unknown"), read(3, 4, nil)}, false},
		"an unknown write comes and goes":    {[]operation{reg("one", 1, 2, "unknown"), read(3, 4, a), read(5, 6, nil)}, true},
		"a write takes effect twice":         {[]operation{reg("one", 1, 2, "ok"), remove(3, 4, true), read(5, 6, a)}, true},
		"a failed write takes effect":        {[]operation{reg("one", 1, 2, "failed"), read(3, 4, a)}, true},
		"removed what was not there":         {[]operation{remove(1, 2, true)}, true},
	} {
		if got := notLinearizable(tc.ops); (len(got) > 0) != tc.bad {
			t.Errorf("%s: found %v", name, got)
		}
	}
}
