package check

import "cmp"

// Entry is one registration that nobody else touches, and what became of it.
type Entry struct {
	Group        string  `json:"group"`
	Member       Member  `json:"member"`
	Registered   Outcome `json:"registered"`
	Deregistered Outcome `json:"deregistered,omitempty"` // empty: never tried
}

// Removal takes the answer to a deregistration, which may be tried again. Whose
// registration was acknowledged is there to be removed the first time, however
// often a node attempted the call.
func (e *Entry) Removal(o Outcome, removed bool) (violations []Violation) {
	switch {
	case o == OK && (e.Registered == OK || removed):
		if !removed && e.Deregistered == "" {
			violations = append(violations, violation("ledger", "%s/%s was not there to be deregistered: its registration was acknowledged", e.Group, e.Member.ID))
		}
		e.Deregistered = OK
	case o == OK, o == Unknown:
		// An unknown registration that was not there yet may still come.
		e.Deregistered = Unknown
	}
	return violations
}

// mayBe says whether the member may be there and whether it may be missing.
func (e Entry) mayBe() (there, gone bool) {
	switch {
	case e.Deregistered == OK, e.Registered == Failed:
		return false, true
	case e.Deregistered == Unknown, e.Registered == Unknown:
		return true, true
	}
	return true, false
}

// Listing is what one node says that it holds.
type Listing struct {
	Node string
	// Members by group and id.
	Members map[string]map[string]Member
}

// Ledger compares the entries with what every node holds in the end.
func Ledger(entries []Entry, nodes []Listing) (violations []Violation) {
	for _, e := range entries {
		there, gone := e.mayBe()
		first := ""
		for i, n := range nodes {
			got, found := n.Members[e.Group][e.Member.ID]
			switch {
			case found && !there:
				violations = append(violations, violation("ledger", "%s holds %s/%s, which was registered: %s, deregistered: %s",
					n.Node, e.Group, e.Member.ID, e.Registered, e.Deregistered))
			case !found && !gone:
				violations = append(violations, violation("ledger", "%s lost %s/%s: its registration was acknowledged", n.Node, e.Group, e.Member.ID))
			case found && got != e.Member:
				violations = append(violations, violation("ledger", "%s holds %s/%s as %+v, registered was %+v", n.Node, e.Group, e.Member.ID, got, e.Member))
			}
			now := "missing"
			if found {
				now = "there"
			}
			if i > 0 && now != first {
				violations = append(violations, violation("ledger", "%s/%s is %s at %s and %s at %s", e.Group, e.Member.ID, first, nodes[0].Node, now, n.Node))
			}
			first = cmp.Or(first, now)
		}
	}
	return violations
}
