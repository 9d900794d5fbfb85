package portmux

import (
	"net"
	"testing"
)

func TestSource(t *testing.T) {
	for addr, want := range map[string]struct {
		name  string
		local bool
	}{
		"10.0.0.1:80":               {"10.0.0.1", false},
		"[::ffff:10.0.0.1]:80":      {"10.0.0.1", false},
		"127.0.0.1:80":              {"127.0.0.1", true},
		"[::1]:80":                  {"::1", true},
		"[2001:db8:1:2:3:4:5:6]:80": {"2001:db8:1:2::/64", false},
		"[2001:db8:1:2::9]:80":      {"2001:db8:1:2::/64", false},
		"[fd00::1]:80":              {"fd00::1", false},
		"[fe80::1%eth0]:80":         {"fe80::1%eth0", false},
		"pipe":                      {"pipe", false},
	} {
		if name, local := Source(text(addr)); name != want.name || local != want.local {
			t.Errorf("%s: %s, %t, want %s, %t", addr, name, local, want.name, want.local)
		}
	}
	if name, local := Source(nil); name != "" || local {
		t.Errorf("no address: %q, %t", name, local)
	}
}

// text is an address.
type text string

func (text) Network() string  { return "tcp" }
func (s text) String() string { return string(s) }

var _ net.Addr = text("")

// A source at its limit loses its own oldest pending connection, then an idle one, and
// nobody else loses anything.
func TestSourceLimit(t *testing.T) {
	l := NewLimiter(100)
	l.PerSource(4)
	peers, _ := enter(l, peer, 4, true)
	pending, _ := enter(l, other, 2, false)
	busy, _ := enter(l, other, 2, true)
	if more, in := enter(l, other, 2, true); in != 2 || pending.evicted() != 2 || more.evicted() != 0 {
		t.Errorf("%d of 2 were admitted, %d of 2 pending were closed", in, pending.evicted())
	}
	if _, in := enter(l, other, 1, true); in != 1 || busy.evicted() != 1 {
		t.Errorf("%d of 1 was admitted, %d idle were closed", in, busy.evicted())
	}
	for range 3 {
		for _, c := range l.sources[other].all() {
			c.active.Store(true)
		}
		if _, in := enter(l, other, 1, true); in != 0 {
			t.Error("a connection in use was closed for a new one of its own source")
		}
	}
	if peers.evicted() != 0 || l.sources[other].size != 4 || l.Size() != 8 {
		t.Errorf("%d connections of another source were closed; %d of %d are of this one", peers.evicted(), l.sources[other].size, l.Size())
	}
	if l.crowded != 6 || l.full != 0 {
		t.Errorf("counted %d at the source's limit, %d at the port's, want 6 and 0", l.crowded, l.full)
	}
	if _, in := enter(l, "127.0.0.1", 10, true); in != 10 {
		t.Errorf("this machine may have %d connections", in)
	}
	if l.pending.Len() != 0 || l.sources[other].pending.Len() != 0 {
		t.Errorf("%d and %d pending", l.pending.Len(), l.sources[other].pending.Len())
	}
}
