package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

const (
	// ledgerTimeout is more than an election takes: a node holds the call until
	// there is a leader, and so its answer tells when.
	ledgerTimeout = 2500 * time.Millisecond
	ledgerPause   = 40 * time.Millisecond
)

// ledger registers members through one node, and deregisters some of them.
func (l *Load) ledger(ctx context.Context, n *node, r *rand.Rand) {
	group := l.ledgerGroup(n)
	var entries []check.Entry
	defer func() { l.note(func(h *History) { h.Ledger = append(h.Ledger, entries...) }) }()
	for seq := 0; pause(ctx, ledgerPause); seq++ {
		e := check.Entry{Group: group, Member: check.Member{ID: fmt.Sprintf("k%d", seq), Addr: fmt.Sprintf("10.1.%d.%d:80", seq>>8, seq&0xff), Weight: 1}}
		l.registerEntry(ctx, n, &e)
		entries = append(entries, e)
		if some := &entries[r.IntN(len(entries))]; r.IntN(4) == 0 && some.Deregistered != check.OK {
			l.deregisterEntry(ctx, n, some)
		}
	}
}

func (l *Load) registerEntry(ctx context.Context, n *node, e *check.Entry) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	sent := l.Now()
	resp, err := n.registry.Register(ctx, &registrypb.RegisterRequest{Group: e.Group, Id: e.Member.ID, Addr: e.Member.Addr, Ttl: forever()})
	if e.Registered = Outcome(err); e.Registered == check.Conflict {
		l.found("ledger", "%s: %s/%s is new and conflicts: %v", n.Node, e.Group, e.Member.ID, err)
	}
	if err != nil {
		return
	}
	l.note(func(h *History) {
		h.Acks = append(h.Acks, Ack{n.Node, sent, l.Now()})
		h.Index = max(h.Index, resp.Index)
	})
}

// deregisterEntry may be tried again: once it was acknowledged, the entry is gone.
func (l *Load) deregisterEntry(ctx context.Context, n *node, e *check.Entry) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	resp, err := n.registry.Deregister(ctx, &registrypb.DeregisterRequest{Group: e.Group, Id: e.Member.ID})
	found := e.Removal(Outcome(err), resp.GetRemoved())
	l.note(func(h *History) { h.Found = append(h.Found, found...) })
	if err == nil {
		l.note(func(h *History) { h.Index = max(h.Index, resp.Index) })
	}
}
