package ring

import "math/big"

// PPM is a ratio in millionths: 1_100_000 is 1.1.
type PPM uint64

// MemberShare is what one member owns.
type MemberShare struct {
	Member
	Points int   `json:"points"`
	Share  Share `json:"share"`
	ToFair PPM   `json:"to_fair_ppm"` // share ÷ fair share; the fair share is proportional to the weight
}

// Stats describes how evenly a ring divides the key space. All figures are exact, from the arcs, and rounded down.
type Stats struct {
	Params      Params        `json:"params"`
	BoundInUse  int           `json:"bound_in_use,omitempty"` // per mille; see Ring.Bound
	Members     int           `json:"members"`
	Owners      int           `json:"owners"` // members with points
	Points      int           `json:"points"`
	Bytes       int           `json:"bytes"`
	Fingerprint Hex64         `json:"fingerprint"`
	Largest     PPM           `json:"largest_to_fair_ppm"`  // of the members with points
	Smallest    PPM           `json:"smallest_to_fair_ppm"` // of the members with points
	Deviation   PPM           `json:"deviation_ppm"`        // standard deviation of share ÷ fair share
	MovedArcs   int           `json:"moved_arcs"`           // arcs that the bound gave to another member
	MovedShare  Share         `json:"moved_share"`          // and their part of the key space
	Shares      []MemberShare `json:"shares"`               // by index
}

// Shares returns each member's part of the key space, by index in Members. It takes time
// proportional to the points.
func (r *Ring) Shares() []Share {
	shares := make([]Share, len(r.members))
	whole := true
	for m, lo := range arcShares(r.table, len(r.members)) {
		shares[m].Lo = lo
		whole = whole && lo == 0
	}
	if whole && r.table.n > 0 {
		shares[r.table.ownerAt(0)] = Share{Hi: 1}
	}
	return shares
}

// Stats computes the figures of the ring, in time proportional to the points.
func (r *Ring) Stats() Stats {
	s := Stats{
		Params:      r.params,
		BoundInUse:  r.bound,
		Members:     len(r.members),
		Owners:      r.owners,
		Points:      r.table.n,
		Bytes:       r.Bytes(),
		Fingerprint: Hex64(r.Fingerprint()),
		MovedArcs:   len(r.moved),
		Shares:      make([]MemberShare, len(r.members)),
	}
	total := r.totalWeight()
	for m, share := range r.Shares() {
		member := r.members[m]
		s.Shares[m] = MemberShare{member, member.Points(r.params.VirtualNodes), share, toFair(share, member, total)}
	}
	for _, m := range r.moved {
		s.MovedShare = s.MovedShare.Add(Share{Lo: r.arcAt(int(m.at))})
	}
	s.spread()
	return s
}

// toFair returns share ÷ (weight ÷ total).
func toFair(share Share, m Member, total uint64) PPM {
	return PPM(share.Parts(1_000_000*total) / uint64(m.Weight))
}

// spread fills in the figures over all members with points.
func (s *Stats) spread() {
	squares, first := new(big.Int), true
	for _, m := range s.Shares {
		if m.Points == 0 {
			continue
		}
		if s.Largest = max(s.Largest, m.ToFair); first || m.ToFair < s.Smallest {
			s.Smallest, first = m.ToFair, false
		}
		d := big.NewInt(int64(m.ToFair) - 1_000_000)
		squares.Add(squares, d.Mul(d, d))
	}
	if s.Owners > 0 {
		squares.Div(squares, big.NewInt(int64(s.Owners)))
		s.Deviation = PPM(squares.Sqrt(squares).Uint64())
	}
}
