package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

const readTimeout = 2 * time.Second

// session reads here and there, and writes now and then, and says each time
// what it has seen.
func (l *Load) session(ctx context.Context, name string, r *rand.Rand) {
	s := &check.Session{Name: name}
	defer func() { l.note(func(h *History) { h.Found = append(h.Found, s.Violations()...) }) }()
	for pause(ctx, between(r, 20*time.Millisecond, 60*time.Millisecond)) {
		n, group := l.nodes[r.IntN(len(l.nodes))], l.StableGroups()[r.IntN(linearGroups+len(l.nodes))]
		call, cancel := context.WithTimeout(ctx, readTimeout)
		switch p := r.IntN(10); {
		case p < 1:
			l.sessionWrites(call, s, n, r)
		case p < 5:
			l.sessionLists(call, s, n, group)
		default:
			l.sessionMatches(call, s, n, group)
		}
		cancel()
	}
}

// sessionWrites changes a member of the session's own, in a group that nobody
// else looks for it.
func (l *Load) sessionWrites(ctx context.Context, s *check.Session, n *node, r *rand.Rand) {
	group := l.ledgerGroup(l.nodes[r.IntN(len(l.nodes))])
	resp, err := n.registry.Register(ctx, &registrypb.RegisterRequest{
		Group: group, Id: s.Name, Addr: "10.4.0.1:80", Weight: 1 + uint32(r.IntN(5)), Ttl: forever()})
	if err == nil {
		s.Wrote(group, resp.Index, resp.Revision)
	}
}

func (l *Load) sessionLists(ctx context.Context, s *check.Session, n *node, group string) {
	resp, err := n.registry.Members(ctx, &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{MinIndex: s.Index()}})
	if rc := resp.GetReceipt(); err == nil {
		s.Note(n.Node, group, rc.GetIndex(), rc.GetRevision())
		l.views.Note(group, rc.GetRevision(), rc.GetFingerprint(), membersOf(resp.Members), s.Name+" at "+n.Node)
	}
}

func (l *Load) sessionMatches(ctx context.Context, s *check.Session, n *node, group string) {
	resp, err := n.registry.Match(ctx, &registrypb.MatchRequest{Group: group, Key: []byte("key"), Read: &registrypb.ReadOptions{MinIndex: s.Index()}})
	if rc := resp.GetReceipt(); err == nil {
		s.Note(n.Node, group, rc.GetIndex(), rc.GetRevision())
		l.views.NoteRing(group, rc.GetRevision(), rc.GetFingerprint(), s.Name+" at "+n.Node)
	}
}

// ReadLocal reads all stable groups of one node as they are there.
func (l *Load) ReadLocal(ctx context.Context, id string) error {
	for _, n := range l.nodes {
		if n.Node != id {
			continue
		}
		for _, group := range l.StableGroups() {
			call, cancel := context.WithTimeout(ctx, readTimeout)
			resp, err := n.registry.Members(call, &registrypb.MembersRequest{Group: group})
			cancel()
			if err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			rc := resp.GetReceipt()
			l.views.Note(group, rc.GetRevision(), rc.GetFingerprint(), membersOf(resp.Members), "a local read of "+id)
		}
	}
	return nil
}

const (
	pollEvery   = 200 * time.Millisecond
	pollTimeout = time.Second
)

// poll asks one node how the cluster is.
func (l *Load) poll(ctx context.Context, n *node) {
	for pause(ctx, pollEvery) {
		call, cancel := context.WithTimeout(ctx, pollTimeout)
		resp, err := n.cluster.Status(call, &registrypb.StatusRequest{})
		cancel()
		if err != nil {
			continue
		}
		l.note(func(h *History) {
			h.Terms = append(h.Terms, Term{At: l.Now(), Node: n.Node, Term: resp.Term, Leader: resp.Leader})
		})
		for _, s := range resp.Nodes {
			if s.Role != "" && s.AppliedIndex > 0 {
				l.cfg.Digests.Note(s.Id, s.AppliedIndex, s.Digest)
			}
		}
	}
}

// Listings reads all stable groups from every node, compares them with the
// watches, and returns them. What does not come about in time is an error.
func (l *Load) Listings(ctx context.Context) (listings []check.Listing, err error) {
	for _, n := range l.nodes {
		listing := check.Listing{Node: n.Node, Members: make(map[string]map[string]check.Member)}
		for _, group := range l.StableGroups() {
			var resp *registrypb.MembersResponse
			for {
				if resp, err = l.listing(ctx, n, group); err == nil {
					break
				}
				if !pause(ctx, watchRetry) {
					return nil, fmt.Errorf("%s: %w", n.Node, err)
				}
			}
			ms := membersOf(resp.Members)
			l.finalWatch(n, group, resp.Receipt.GetRevision(), ms)
			listing.Members[group] = make(map[string]check.Member, len(ms))
			for _, s := range ms {
				listing.Members[group][s.ID] = s
			}
		}
		listings = append(listings, listing)
	}
	return listings, nil
}

// listing reads a group from one node, when its watches have come as far.
func (l *Load) listing(ctx context.Context, n *node, group string) (*registrypb.MembersResponse, error) {
	call, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	call0 := l.Now()
	resp, err := n.registry.Members(call, &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{Linearizable: true}})
	if err != nil {
		return nil, err
	}
	rc := resp.GetReceipt()
	ms := membersOf(resp.Members)
	l.views.Note(group, rc.GetRevision(), rc.GetFingerprint(), ms, "the last read of "+n.Node)
	if err := l.behind(n, group, rc.GetRevision()); err != nil {
		return nil, err
	}
	for i := range linearGroups {
		if group == l.linearGroup(i) {
			op := check.Op{Node: n.Node, Group: group, Kind: check.Read, Call: call0, Return: l.Now(), Outcome: check.OK, Members: ms}
			l.note(func(h *History) { h.Ops = append(h.Ops, op) })
		}
	}
	return resp, nil
}
