package fsm

import "strings"

// Right is a kind of call, or a sum of several. No right implies another.
type Right uint8

const (
	// Discover reads groups and their members.
	Discover Right = 1 << iota
	// Register adds members and keeps them.
	Register
	// Operate changes groups, and members that belong to other tokens.
	Operate
	// Admin changes the cluster and its tokens.
	Admin

	allRights = Discover | Register | Operate | Admin
)

func (r Right) String() string {
	var names []string
	for i, name := range []string{"discover", "register", "operate", "admin"} {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Grant gives rights on the groups whose names begin with the prefix. Admin is about
// no group, and comes with an empty prefix.
type Grant struct {
	Rights Right
	Prefix string
}

// String returns RIGHT[,RIGHT…][:PREFIX].
func (g Grant) String() string {
	if g.Prefix == "" {
		return g.Rights.String()
	}
	return g.Rights.String() + ":" + g.Prefix
}

// Allows reports whether the token has a right on a group, or on all groups that begin
// with a prefix: both begin with a granted prefix. For Admin the name is ignored.
func (t *Token) Allows(r Right, groupOrPrefix string) bool {
	for _, g := range t.Grants {
		if r != 0 && g.Rights&r == r && (r == Admin || strings.HasPrefix(groupOrPrefix, g.Prefix)) {
			return true
		}
	}
	return false
}
