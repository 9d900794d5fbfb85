package ring

// ServingOwners bounds how many distinct owners of a key Serving looks at for some that are not held.
const ServingOwners = 64

// Serving appends to dst the indexes of the members to ask for a key, n of them or fewer: its owners in
// the order of MatchN, those that are not held before those that are. Where none of the first n is held,
// that is MatchN. Otherwise it looks at the first ServingOwners owners, or n if that is more, so that the
// first that it returns stands in for an owner that is held. All that know the ring agree on it.
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

// Fallback returns the index of the member that stands in for the key's owner while that is held; -1 if
// the owner is not held, or if none of the first ServingOwners owners is there to stand in.
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
