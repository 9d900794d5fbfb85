package fsm

import (
	"fmt"

	"github.com/werbenhu/registry/ring"
)

// restoredLease is set in the lease ids that restorations give out: no log index
// reaches it, and JavaScript reads numbers of this size exactly.
const restoredLease = 1 << 52

// CheckRestore refuses a state that may not replace this one.
func (s *State) CheckRestore(from *State) error {
	if s.TokensOn() && !from.TokensOn() {
		return &FieldError{Field: "tokens", Limit: "in the snapshot, because this cluster has some: without them every call would be allowed to everybody", Got: "none"}
	}
	if from.FeatureLevel() > s.FeatureLevel() {
		return &LevelError{Needed: from.FeatureLevel(), Has: s.FeatureLevel(), What: "a snapshot of that level"}
	}
	return from.checkValues()
}

// restore returns this state, of the given index, with the groups, members and tokens
// of another one, which is of the same log or of another log.
//
// Clients compare revisions, lease ids and epochs, and none goes back for them. The
// revision of every group is the index, which is above all earlier ones. So is the epoch
// of every lease: an expiry that was decided before has no effect. Lease ids stay if
// they are of this log; ids of another log could be given out here once more, so each
// member gets a new one. Nodes and term are those of this cluster.
//
// Of the fences, those of this cluster stay, except those of members that are restored.
// A member whose id belongs to another process now is restored as held for its TTL: the
// process that has it learns at its next heartbeat that its lease is lost, registers
// again, and gets the id back from whatever address.
func (s *State) restore(from *State, index uint64, sameLog bool) (*State, error) {
	if err := s.CheckRestore(from); err != nil {
		return nil, err
	}
	if sameLog && from.index >= index {
		return nil, &FieldError{Field: "index", Limit: fmt.Sprintf("below %d, for a snapshot of this log", index), Got: fmt.Sprint(from.index)}
	}
	r := &restoration{before: s, index: index, sameLog: sameLog, batch: newBatch(s.emptied(index), nil)}
	r.batch.index = index
	for g := range from.Groups {
		if err := r.group(g); err != nil {
			return nil, err
		}
	}
	for t := range from.Tokens {
		r.token(t)
	}
	r.batch.next.tokensRevision = index
	next, _ := r.batch.finish()
	return next, nil
}

// emptied is the state without groups, tokens and staged parts.
func (s *State) emptied(index uint64) *State {
	out := *s.WithoutStaged()
	for g := range s.Groups {
		out.digest -= g.digest
	}
	for t := range s.Tokens {
		out.digest -= t.digest
	}
	out.index, out.members, out.groups, out.tokens = index, 0, newTable[*Group](), newTokens()
	return &out
}

type restoration struct {
	before  *State
	index   uint64
	sameLog bool
	batch   *batch
}

func (r *restoration) group(from *Group) error {
	g, err := r.batch.createGroup(from.Name)
	if err != nil {
		return err
	}
	g.Params, g.Revision = from.Params, r.index
	now := r.before.Group(from.Name)
	for m := range from.Members {
		if err := r.batch.roomFor(g, nil, uint64(m.Weight)); err != nil {
			return err
		}
		r.batch.set(g, r.member(now, m))
		r.batch.unfence(from.Name, m)
	}
	return nil
}

// member is a member as it is restored into a group, which is nil where there is none.
func (r *restoration) member(now *Group, from *Member) *Member {
	m := *from
	m.Epoch, m.ModifiedIndex = r.index, r.index
	if !r.sameLog {
		m.CreatedIndex, m.LeaseID = r.index, r.batch.newLease()
	}
	if now == nil {
		return &m
	}
	if has := now.Member(m.ID); has != nil && has.Instance != m.Instance {
		m.Hold = max(m.Hold, m.TTL)
		if m.State == ring.Active { // a draining member has no points, and gets none
			m.State = ring.Held
		}
	}
	return &m
}

func (r *restoration) token(from *Token) {
	t := *from
	if t.ModifiedIndex = r.index; !r.sameLog {
		t.CreatedIndex = r.index
	}
	r.batch.putToken(&t)
}

// newLease gives out a lease id that no other lease of this cluster had or will have.
func (b *batch) newLease() uint64 {
	b.next.digest -= leasesDigest(b.next.restoredLeases)
	b.next.restoredLeases++
	b.next.digest += leasesDigest(b.next.restoredLeases)
	return restoredLease | b.next.restoredLeases
}

// checkValues checks what Validate checked before the log: a snapshot file may come from
// elsewhere, and every node has to be able to serve what is restored.
func (s *State) checkValues() error {
	for g := range s.Groups {
		if err := firstError(validateGroup(g.Name), ValidateParams(g.Params)); err != nil {
			return err
		}
		for m := range g.Members {
			if err := m.checkValues(); err != nil {
				return fmt.Errorf("member %q of group %q: %w", m.ID, g.Name, err)
			}
		}
	}
	if s.TokensOn() && s.lastingAdmins() == 0 {
		return &FieldError{Field: "tokens", Limit: "with one that has the right admin and does not expire", Got: "none"}
	}
	return nil
}

func (m *Member) checkValues() error {
	return firstError(
		ValidateName("id", m.ID),
		ValidateAddr("addr", m.Addr),
		validateWeight(m.Weight),
		validateTTL(m.TTL.Milliseconds()),
		validateHold(m.Hold.Milliseconds(), uint32(ring.Held)+1),
		validateInstance([]byte(m.Instance), 1),
		validateMeta(setPairs(nil, m.Meta)),
		validateOwner([]byte(m.Token)))
}

// WithoutNodes is the state as another cluster may begin with it: no node of this one is
// in it.
func (s *State) WithoutNodes() *State {
	out := *s.WithoutStaged()
	for n := range s.Nodes {
		out.digest -= n.digest
	}
	out.nodes, out.nodesRevision = newTable[*Node](), s.index
	return &out
}
