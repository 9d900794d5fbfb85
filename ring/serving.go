package ring

// ServingOwners bounds the distinct owners of a key among which Serving finds those that are not held.
const ServingOwners = 64

// Serving appends to dst the indexes of the members that serve a key, at most n: its owners in the order
// of MatchN, those that are not held before those that are. If none of the first n is held, that is
// MatchN. Otherwise it takes the first ServingOwners owners, or n if that is more, so that the first is the
// fallback of a held owner. It depends on the ring alone.
//
//	owners A, B (held), C, D     n = 1: A     n = 2: A C     n = 4: A C D B
//	owners A (held), B, C, D     n = 1: B     n = 2: B C
func (r *Ring) Serving(dst []int, key string, n int) []int {
	first := len(dst)
	dst = r.MatchN(dst, key, n)
	held := 0
	for _, m := range dst[first:] {
		if r.held(m) {
			held++
		}
	}
	if held == 0 {
		return dst
	}
	var buf [ServingOwners]int
	owners := r.MatchN(buf[:0], key, max(n, ServingOwners))
	n, dst = len(dst)-first, dst[:first]
	for _, held := range [2]bool{false, true} {
		for _, m := range owners {
			if len(dst)-first == n {
				return dst
			}
			if r.held(m) == held {
				dst = append(dst, m)
			}
		}
	}
	return dst
}

// Fallback returns the index of the member that serves the key while its owner is held; -1 if the owner
// is not held, or if all of the first ServingOwners owners are.
func (r *Ring) Fallback(key string) int {
	owner := r.Match(key)
	if owner < 0 || !r.held(owner) {
		return -1
	}
	var buf [1]int
	if m := r.Serving(buf[:0], key, 1)[0]; m != owner {
		return m
	}
	return -1
}

func (r *Ring) held(m int) bool { return r.members[m].State == Held }
