package ring

import (
	"errors"
	"fmt"
)

// Errors of this package. Test for them with errors.Is; the text around them names the field and its limit.
var (
	// ErrParams: a parameter is outside its limits.
	ErrParams = errors.New("ring: invalid parameters")
	// ErrMember: a member's field is outside its limits.
	ErrMember = errors.New("ring: invalid member")
	// ErrDuplicate: two members have the same id.
	ErrDuplicate = errors.New("ring: duplicate member id")
	// ErrTooLarge: the ring would exceed MaxPoints or MaxMembers.
	ErrTooLarge = errors.New("ring: too large")
)

// Limits of the parameters and of a ring.
const (
	DefaultVirtualNodes = 256
	MinVirtualNodes     = 64
	MaxVirtualNodes     = 4096

	MinBound = 1010  // per mille: 1 % over the fair share
	MaxBound = 10000 // per mille: ten times the fair share

	// MaxPoints is the largest number of points of one ring: about 300 MB of memory, and three
	// times that for the moment of building it.
	MaxPoints = 1 << 25
	// MaxMembers is the largest number of members of one ring, draining ones included.
	MaxMembers = 1 << 20
)

// Params are the parameters that all members of a ring share.
type Params struct {
	// VirtualNodes is the number of points of a member of weight one: a power of two from
	// MinVirtualNodes to MaxVirtualNodes. Halving or doubling it moves about half of the keys.
	VirtualNodes int `json:"virtual_nodes"`
	// Bound limits each member's share of the key space, in per mille of its fair (weighted)
	// share: 0 is off, otherwise MinBound to MaxBound. 1100 means at most 10 % above the fair share.
	Bound int `json:"bound,omitempty"`
}

// DefaultParams returns DefaultVirtualNodes and no bound.
func DefaultParams() Params { return Params{VirtualNodes: DefaultVirtualNodes} }

// Validate reports the first parameter outside its limits; the error wraps ErrParams.
func (p Params) Validate() error {
	k := p.VirtualNodes
	if k < MinVirtualNodes || k > MaxVirtualNodes || k&(k-1) != 0 {
		return fmt.Errorf("%w: virtual nodes is %d, want a power of two from %d to %d", ErrParams, k, MinVirtualNodes, MaxVirtualNodes)
	}
	if p.Bound != 0 && (p.Bound < MinBound || p.Bound > MaxBound) {
		return fmt.Errorf("%w: bound is %d per mille, want 0 (off) or %d to %d", ErrParams, p.Bound, MinBound, MaxBound)
	}
	return nil
}
