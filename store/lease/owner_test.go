package lease

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// registerFor registers a member that belongs to a token, and returns the lease's id.
func (l *leaseLog) registerFor(owner, id string, ttl time.Duration) uint64 {
	cmd := registration(id, "one", ttl)
	cmd.GetRegister().Token = []byte(owner)
	return l.apply(cmd).LeaseID
}

// One refused lease, and none is renewed.
func TestRenewIsAllOrNothing(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		mine, other := l.registerFor("mine", "a", 10*time.Second), l.registerFor("other", "b", 10*time.Second)
		asked := make(map[string]string)
		onlyMine := func(group, owner string) bool {
			asked[owner] = group
			return owner == "mine"
		}
		after(9 * time.Second)
		third := l.registerFor("third", "c", 10*time.Second)
		lost, err := l.Renew([]uint64{mine, 77, other, third}, onlyMine)
		var refused *NotOwnerError
		if !errors.As(err, &refused) || !slices.Equal(refused.LeaseIDs, []uint64{other, third}) || !errors.Is(err, fsm.ErrNotOwner) || lost != nil {
			t.Fatalf("got %v, %v", lost, err)
		}
		if len(asked) != 3 || asked["mine"] != "web" || asked["other"] != "web" {
			t.Errorf("asked about %v", asked)
		}
		after(time.Second)
		want(t, "a TTL after the registration", l.dueNow(10), "a", "b")
	})
}

func TestRenewWithAnOwner(t *testing.T) {
	bubble(t, func(t *testing.T, l *leaseLog) {
		none := l.register("a", 10*time.Second)
		mine := l.registerFor("mine", "b", 10*time.Second)
		after(9 * time.Second)
		allowed := func(_, owner string) bool { return owner == "mine" || owner == "" }
		if lost, err := l.Renew([]uint64{none, 77, mine}, allowed); err != nil || !slices.Equal(lost, []uint64{77}) {
			t.Errorf("lost %v, %v", lost, err)
		}
		after(9 * time.Second)
		want(t, "after a renewal", l.dueNow(10))
		// The member is adopted by a refresh, and its lease with it.
		if again := l.registerFor("mine", "a", 10*time.Second); again != none {
			t.Fatalf("lease %d became %d", none, again)
		}
		if _, err := l.Renew([]uint64{none}, func(_, owner string) bool { return owner == "mine" }); err != nil {
			t.Error(err)
		}
		// A new leader knows the owners from the state.
		l.Follow()
		l.Lead(l.machine)
		if _, err := l.Renew([]uint64{none}, func(_, owner string) bool { return owner != "mine" }); !errors.Is(err, fsm.ErrNotOwner) {
			t.Errorf("after a change of the leader: %v", err)
		}
	})
}
