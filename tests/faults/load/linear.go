package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

// linearTimeout is more than a node waits for a leader.
const linearTimeout = 3500 * time.Millisecond

// linearClient works on the groups through one node. After a write of unknown
// outcome it only reads until it gets an answer: every such write doubles what
// the checker has to look at.
func (l *Load) linearClient(ctx context.Context, n *node, client int, r *rand.Rand) {
	unknown := false
	for seq := 0; pause(ctx, between(r, 10*time.Millisecond, 50*time.Millisecond)); seq++ {
		op := l.draw(r, client, seq)
		if unknown {
			op.Kind = check.Read
		}
		op.Client, op.Node = client, n.Node
		l.call(ctx, n, &op)
		unknown = op.Outcome == check.Unknown || unknown && op.Outcome != check.OK
		l.note(func(h *History) { h.Ops = append(h.Ops, op) })
	}
}

// draw chooses an operation whose values no other has.
func (l *Load) draw(r *rand.Rand, client, seq int) check.Op {
	op := check.Op{Group: l.linearGroup(r.IntN(linearGroups)), Kind: check.Read}
	op.Member.ID = string(rune('a' + r.IntN(linearIDs)))
	switch p := r.IntN(100); {
	case p < 30:
		op.Kind, op.TakeOver = check.Register, r.IntN(4) > 0
		op.Member.Addr, op.Member.Weight = fmt.Sprintf("10.0.%d.%d:%d", client, seq>>14, 1+seq&0x3fff), 1+uint32(r.IntN(3))
	case p < 45:
		op.Kind, op.Member.Weight = check.Update, 4+uint32(r.IntN(60))
	case p < 60:
		op.Kind = check.Deregister
	}
	return op
}

// call makes the call and fills in its answer.
func (l *Load) call(ctx context.Context, n *node, op *check.Op) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), linearTimeout)
	defer cancel()
	var err error
	op.Call = l.Now()
	switch op.Kind {
	case check.Read:
		var resp *registrypb.MembersResponse
		resp, err = n.registry.Members(ctx, &registrypb.MembersRequest{Group: op.Group, Read: &registrypb.ReadOptions{Linearizable: true}})
		op.Return = l.Now()
		if err == nil {
			op.Members = membersOf(resp.Members)
			l.views.Note(op.Group, resp.Receipt.GetRevision(), resp.Receipt.GetFingerprint(), op.Members, "a read of "+n.Node)
		} else if Reason(err) == registrypb.ErrorDetail_UNKNOWN_GROUP {
			l.found("linearizable", "%s does not know group %s, which was there before", n.Node, op.Group)
		}
	case check.Register:
		_, err = n.registry.Register(ctx, &registrypb.RegisterRequest{
			Group: op.Group, Id: op.Member.ID, Addr: op.Member.Addr, Weight: op.Member.Weight, Ttl: forever(), TakeOver: op.TakeOver})
	case check.Update:
		_, err = n.registry.UpdateMember(ctx, &registrypb.UpdateMemberRequest{Group: op.Group, Id: op.Member.ID, Weight: &op.Member.Weight})
	case check.Deregister:
		var resp *registrypb.DeregisterResponse
		resp, err = n.registry.Deregister(ctx, &registrypb.DeregisterRequest{Group: op.Group, Id: op.Member.ID})
		op.Removed = resp.GetRemoved()
	}
	if op.Return == 0 {
		op.Return = l.Now()
	}
	op.Outcome = Outcome(err)
	if op.Kind == check.Read && err != nil {
		op.Outcome = check.Failed
	}
	if err != nil {
		op.Error = err.Error()
	}
}

func (l *Load) found(checker, format string, args ...any) {
	v := check.Violation{Checker: checker, Text: fmt.Sprintf(format, args...)}
	l.note(func(h *History) { h.Found = append(h.Found, v) })
}
