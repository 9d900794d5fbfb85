package ring

import (
	"fmt"
	"slices"
	"strings"
)

// State says whether a member has points on the ring.
type State uint8

const (
	// Active members have points and own keys.
	Active State = iota
	// Draining members have no points: they own no key and are never returned by Match or MatchN.
	Draining
	// Held members keep their points and their keys while they do not answer. Match returns them,
	// and Member their state. Serving and Fallback return a member to use instead.
	Held
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Draining:
		return "draining"
	case Held:
		return "held"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText writes the state's name. It fails for a value that is not a State.
func (s State) MarshalText() ([]byte, error) {
	if s > Held {
		return nil, fmt.Errorf("%w: state %d is not active (0), draining (1) or held (2)", ErrMember, uint8(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(text []byte) error {
	for c := Active; c <= Held; c++ {
		if c.String() == string(text) {
			*s = c
			return nil
		}
	}
	return fmt.Errorf("%w: state %q is not active, draining or held", ErrMember, text)
}

// Limits of a member.
const (
	MinWeight   = 1
	MaxWeight   = 1000
	MaxIDLength = 255 // bytes
)

// Member is one owner of keys.
type Member struct {
	ID     string `json:"id"`              // 1 to MaxIDLength bytes, unique in the ring
	Weight int    `json:"weight"`          // MinWeight to MaxWeight; a member has VirtualNodes × Weight points
	State  State  `json:"state,omitempty"` // Draining members have no points
}

// Validate reports the first field outside its limits; the error wraps ErrMember.
func (m Member) Validate() error {
	if len(m.ID) == 0 || len(m.ID) > MaxIDLength {
		return fmt.Errorf("%w: id of %d bytes, want 1 to %d", ErrMember, len(m.ID), MaxIDLength)
	}
	if m.Weight < MinWeight || m.Weight > MaxWeight {
		return fmt.Errorf("%w: weight of %q is %d, want %d to %d", ErrMember, m.ID, m.Weight, MinWeight, MaxWeight)
	}
	if m.State > Held {
		return fmt.Errorf("%w: state of %q is %d, want active (0), draining (1) or held (2)", ErrMember, m.ID, uint8(m.State))
	}
	return nil
}

// Points returns how many points the member has when a weight of one has k.
func (m Member) Points(k int) int {
	if m.State == Draining {
		return 0
	}
	return k * m.Weight
}

// canonical returns a validated copy of members in the order of their ids, and their number of points.
func canonical(p Params, members []Member) ([]Member, int, error) {
	if err := p.Validate(); err != nil {
		return nil, 0, err
	}
	if len(members) > MaxMembers {
		return nil, 0, fmt.Errorf("%w: %d members, want at most %d", ErrTooLarge, len(members), MaxMembers)
	}
	byID := func(a, b Member) int { return strings.Compare(a.ID, b.ID) }
	sorted := slices.Clone(members)
	if !slices.IsSortedFunc(sorted, byID) {
		slices.SortFunc(sorted, byID)
	}
	total := 0
	for i, m := range sorted {
		if err := m.Validate(); err != nil {
			return nil, 0, err
		}
		if i > 0 && sorted[i-1].ID == m.ID {
			return nil, 0, fmt.Errorf("%w: %q", ErrDuplicate, m.ID)
		}
		if total += m.Points(p.VirtualNodes); total > MaxPoints {
			return nil, 0, fmt.Errorf("%w: more than %d points (virtual nodes %d × the sum of the weights)", ErrTooLarge, MaxPoints, p.VirtualNodes)
		}
	}
	return sorted, total, nil
}
