package ring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrChange: a change does not fit its ring.
var ErrChange = errors.New("ring: invalid change")

// Change is a change of a ring. Each id may be named once; Join may be combined with the other fields.
type Change struct {
	Join         []Member       `json:"join,omitempty"`          // must not be in the ring
	Leave        []string       `json:"leave,omitempty"`         // must be in the ring, as in all fields below
	Activate     []string       `json:"activate,omitempty"`      // become Active
	Drain        []string       `json:"drain,omitempty"`         // become Draining
	Hold         []string       `json:"hold,omitempty"`          // become Held
	Weights      map[string]int `json:"weights,omitempty"`       // new weights
	VirtualNodes int            `json:"virtual_nodes,omitempty"` // 0: as before
	Bound        *int           `json:"bound,omitempty"`         // nil: as before; 0: off
}

// Apply returns parameters and members after the change; its arguments stay as they are. Errors wrap
// ErrChange. It does not check the limits of New.
func (c Change) Apply(p Params, members []Member) (Params, []Member, error) {
	if c.VirtualNodes != 0 {
		p.VirtualNodes = c.VirtualNodes
	}
	if c.Bound != nil {
		p.Bound = *c.Bound
	}
	e := newEditor(members)
	for _, m := range c.Join {
		e.join(m)
	}
	for _, id := range c.Leave {
		e.edit("leave", id, func(m *Member) { m.ID = "" })
	}
	for _, set := range []struct {
		name  string
		ids   []string
		state State
	}{{"activate", c.Activate, Active}, {"drain", c.Drain, Draining}, {"hold", c.Hold, Held}} {
		for _, id := range set.ids {
			e.edit(set.name, id, func(m *Member) { m.State = set.state })
		}
	}
	for id, weight := range c.Weights {
		e.edit("weights", id, func(m *Member) { m.Weight = weight })
	}
	return p, e.result(), e.err
}

// editor changes a copy of a member set and keeps the first error in the order of ids.
type editor struct {
	members []Member
	index   map[string]int
	touched map[string]bool
	err     error
}

func newEditor(members []Member) *editor {
	e := &editor{members: slices.Clone(members), index: map[string]int{}, touched: map[string]bool{}}
	for i, m := range members {
		e.index[m.ID] = i
	}
	return e
}

// fail keeps the least of the errors, because maps have no order.
func (e *editor) fail(format string, args ...any) {
	err := fmt.Errorf("%w: "+format, append([]any{ErrChange}, args...)...)
	if e.err == nil || err.Error() < e.err.Error() {
		e.err = err
	}
}

func (e *editor) touch(id string) {
	if e.touched[id] {
		e.fail("%q is named twice", id)
	}
	e.touched[id] = true
}

func (e *editor) join(m Member) {
	e.touch(m.ID)
	if _, ok := e.index[m.ID]; ok {
		e.fail("join: %q is a member already", m.ID)
	}
	e.members = append(e.members, m)
}

func (e *editor) edit(field, id string, f func(*Member)) {
	e.touch(id)
	i, ok := e.index[id]
	if !ok {
		e.fail("%s: %q is not a member", field, id)
		return
	}
	f(&e.members[i])
}

// result omits the members that edit emptied; joined members without an id stay, for New to refuse.
func (e *editor) result() []Member {
	kept := e.members[:0]
	for i, m := range e.members {
		if m.ID != "" || i >= len(e.index) {
			kept = append(kept, m)
		}
	}
	return kept
}

// Move is the part of the key space that moves from one member to another.
type Move struct {
	From  string `json:"from"` // empty: it had no owner
	To    string `json:"to"`   // empty: it has no owner
	Share Share  `json:"share"`
}

// PlannedMember is a member before and after a change; shares and weights are zero while it is no member.
type PlannedMember struct {
	ID           string `json:"id"`
	WeightBefore int    `json:"weight_before,omitempty"`
	WeightAfter  int    `json:"weight_after,omitempty"`
	Before       Share  `json:"before"`
	After        Share  `json:"after"`
}

// Plan is the exact effect of a change, known before it is made.
type Plan struct {
	ParamsBefore  Params          `json:"params_before"`
	ParamsAfter   Params          `json:"params_after"`
	PointsBefore  int             `json:"points_before"`
	PointsAfter   int             `json:"points_after"`
	LargestBefore PPM             `json:"largest_before_ppm"` // largest share ÷ fair share
	LargestAfter  PPM             `json:"largest_after_ppm"`
	Moved         Share           `json:"moved"` // of the key space
	Least         Share           `json:"least"` // the least that any ring would move between the same shares
	Moves         []Move          `json:"moves"` // largest first, then by ids
	Members       []PlannedMember `json:"members"`

	before, after *Ring
}

// NewPlan computes what a change would do to a ring, in time proportional to the points. Errors wrap
// ErrChange, or are those of New.
func NewPlan(r *Ring, c Change) (*Plan, error) {
	params, members, err := c.Apply(r.params, r.members)
	if err != nil {
		return nil, err
	}
	after, err := r.With(params, members)
	if err != nil {
		return nil, err
	}
	p := &Plan{before: r, after: after}
	p.ParamsBefore, p.PointsBefore = r.params, r.NumPoints()
	p.ParamsAfter, p.PointsAfter = after.params, after.NumPoints()
	p.addMoves()
	p.addMembers(r.Stats(), after.Stats())
	return p, nil
}

// Before returns the ring that the plan is for.
func (p *Plan) Before() *Ring { return p.before }

// After returns the ring that the change leads to.
func (p *Plan) After() *Ring { return p.after }

// Ranges returns the ranges that move: Diff(Before(), After()).
func (p *Plan) Ranges() []Range { return Diff(p.before, p.after) }

func (p *Plan) addMoves() {
	type pair struct{ from, to string }
	sums := map[pair]Share{}
	for r := range DiffSeq(p.before, p.after) {
		key := pair{r.From, r.To}
		sums[key] = sums[key].Add(r.Share())
		p.Moved = p.Moved.Add(r.Share())
	}
	p.Moves = make([]Move, 0, len(sums))
	for key, share := range sums {
		p.Moves = append(p.Moves, Move{key.from, key.to, share})
	}
	slices.SortFunc(p.Moves, func(a, b Move) int {
		return cmp.Or(b.Share.Cmp(a.Share), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
}

func (p *Plan) addMembers(before, after Stats) {
	p.LargestBefore, p.LargestAfter = before.Largest, after.Largest
	byID := map[string]int{}
	for _, m := range before.Shares {
		byID[m.ID] = len(p.Members)
		p.Members = append(p.Members, PlannedMember{ID: m.ID, WeightBefore: m.Weight, Before: m.Share})
	}
	for _, m := range after.Shares {
		i, ok := byID[m.ID]
		if !ok {
			i = len(p.Members)
			p.Members = append(p.Members, PlannedMember{ID: m.ID})
		}
		p.Members[i].WeightAfter, p.Members[i].After = m.Weight, m.Share
	}
	slices.SortFunc(p.Members, func(a, b PlannedMember) int { return strings.Compare(a.ID, b.ID) })
	for _, m := range p.Members {
		p.Least = p.Least.Add(m.After.minus(m.Before))
	}
	if before.Owners > 0 && after.Owners == 0 {
		p.Least = p.Moved
	}
}
