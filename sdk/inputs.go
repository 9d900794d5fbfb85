package sdk

import (
	"errors"
	"fmt"

	"github.com/werbenhu/registry/ring"
)

// errMismatch: a state does not have the fingerprint that its node sent.
var errMismatch = errors.New("registry: state does not have the fingerprint that its node sent")

// inputs are the values that the fingerprint of a group's ring is computed from.
// They are updated incrementally, so that checking a step costs what it changes.
// They are for one goroutine.
//
// Example: at 256 virtual nodes, members a of weight 1 and b of weight 2 are
// {a: 1, b: 2}, and sum has 256 points of a and 512 of b. When b drains they are
// {a: 1, b: 0}, and the 512 points are removed from sum.
type inputs struct {
	params  ring.Params
	weights map[string]int // of all members; 0 for those without points
	total   int            // of the weights
	sum     ring.Inputs
}

func (in *inputs) fingerprint() uint64 { return in.sum.Fingerprint(in.params) }

// inputsOf returns the inputs of a whole group, ordered by id.
func inputsOf(params ring.Params, members []Member) (*inputs, error) {
	in := &inputs{params: params, weights: make(map[string]int, len(members))}
	return in, in.fold(&step{params: params, put: members})
}

// fold applies a step. It sets s.left to those of s.removed that were members, and
// s.added to which of s.put were not. An error wraps errMismatch and names the limit
// of a ring that the step breaks; the inputs are then invalid.
func (in *inputs) fold(s *step) error {
	if err := s.params.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errMismatch, err)
	}
	in.setParams(s.params)
	for _, id := range s.removed {
		if in.remove(id) {
			s.left = append(s.left, id)
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

// remove removes a member; it reports false if there is none.
func (in *inputs) remove(id string) bool {
	weight, found := in.weights[id]
	if found {
		delete(in.weights, id)
		in.total -= weight
		in.sum.Remove(id, weight*in.params.VirtualNodes)
	}
	return found
}

// setParams recomputes the sum if the members' numbers of points change.
func (in *inputs) setParams(p ring.Params) {
	if p.VirtualNodes != in.params.VirtualNodes {
		in.sum = ring.Inputs{}
		for id, weight := range in.weights {
			in.sum.Add(id, weight*p.VirtualNodes)
		}
	}
	in.params = p
}

// check compares the fingerprint with the one that a node sent.
func (in *inputs) check(revision, fingerprint uint64) error {
	if got := in.fingerprint(); got != fingerprint {
		return fmt.Errorf("%w: revision %d has %016x, the node says %016x", errMismatch, revision, got, fingerprint)
	}
	return nil
}
