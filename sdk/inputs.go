package sdk

import (
	"errors"
	"fmt"

	"github.com/werbenhu/registry/ring"
)

// errMismatch: a state is not the one whose fingerprint its node sent.
var errMismatch = errors.New("registry: state does not have the fingerprint that its node sent")

// inputs are what the fingerprint of a group's ring is computed from. They are
// kept by differences, so that each step of a watch is checked at the cost of
// what it changes. They are for one goroutine.
//
// Example: at 256 virtual nodes, members a of weight 1 and b of weight 2 are
// {a: 1, b: 2}, and sum has 256 points of a and 512 of b. That b drains makes it
// {a: 1, b: 0}, and takes the 512 points out of sum.
type inputs struct {
	params  ring.Params
	weights map[string]int // of all members; 0 for those without points
	total   int            // of the weights
	sum     ring.Inputs
}

func (in *inputs) fingerprint() uint64 { return in.sum.Fingerprint(in.params) }

// inputsOf returns the inputs of a group as a whole, ordered by id.
func inputsOf(params ring.Params, members []Member) (*inputs, error) {
	in := &inputs{params: params, weights: make(map[string]int, len(members))}
	return in, in.fold(&step{params: params, put: members})
}

// fold takes a step over. It notes in s.gone which of s.removed were members,
// and in s.added which of s.put were none. An error wraps errMismatch and says which
// limit of a ring the step breaks; the inputs are then of no use any more.
func (in *inputs) fold(s *step) error {
	if err := s.params.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errMismatch, err)
	}
	in.setParams(s.params)
	for _, id := range s.removed {
		if in.remove(id) {
			s.gone = append(s.gone, id)
		}
	}
	s.added = make([]bool, len(s.put))
	for i := range s.put {
		m := ringMember(&s.put[i])
		if err := m.Validate(); err != nil {
			return fmt.Errorf("%w: %w", errMismatch, err)
		}
		if i > 0 && s.put[i-1].ID == m.ID {
			return fmt.Errorf("%w: %w: %q", errMismatch, ring.ErrDuplicate, m.ID)
		}
		s.added[i] = !in.remove(m.ID)
		weight := m.Points(1)
		in.weights[m.ID] = weight
		in.total += weight
		in.sum.Add(m.ID, weight*in.params.VirtualNodes)
	}
	if len(in.weights) > ring.MaxMembers || in.total > ring.MaxPoints/in.params.VirtualNodes {
		return fmt.Errorf("%w: %w: %d members with %d points, want at most %d with %d", errMismatch, ring.ErrTooLarge,
			len(in.weights), in.total*in.params.VirtualNodes, ring.MaxMembers, ring.MaxPoints)
	}
	return nil
}

// remove takes a member out; it reports false if there is none.
func (in *inputs) remove(id string) bool {
	weight, found := in.weights[id]
	if found {
		delete(in.weights, id)
		in.total -= weight
		in.sum.Remove(id, weight*in.params.VirtualNodes)
	}
	return found
}

// setParams counts all members anew where their numbers of points change.
func (in *inputs) setParams(p ring.Params) {
	if p.VirtualNodes != in.params.VirtualNodes {
		in.sum = ring.Inputs{}
		for id, weight := range in.weights {
			in.sum.Add(id, weight*p.VirtualNodes)
		}
	}
	in.params = p
}

// check compares with the fingerprint that a node sent with a revision.
func (in *inputs) check(revision, fingerprint uint64) error {
	if got := in.fingerprint(); got != fingerprint {
		return fmt.Errorf("%w: revision %d has %016x, the node says %016x", errMismatch, revision, got, fingerprint)
	}
	return nil
}
