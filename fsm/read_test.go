package fsm

import (
	"strings"
	"testing"
	"time"
)

// What readers call; the names are longer than what a compiler keeps on the stack.
func readAll(m *Machine, group, id string) (sum uint64) {
	s := m.State()
	g := s.Group(group)
	v := g.Ring()
	i := v.Ring.Match("key")
	return s.Index() + s.Digest() + g.Digest() + uint64(g.Len()) + g.Member(id).Epoch +
		v.Revision + uint64(v.Member(i).Weight) + uint64(s.GroupCount())
}

func longNames(tb testing.TB) (l *log, group, id string) {
	l = newLog(tb)
	group, id = strings.Repeat("g", MaxNameLength), strings.Repeat("i", MaxNameLength)
	for i := range 100 {
		l.must(register(newSeat(group, id[:100+i], "10.0.0.1:80", "one")))
	}
	l.must(register(newSeat(group, id, "10.0.0.1:80", "one")))
	settle(tb, l.m)
	return l, group, id
}

func TestReadsAllocateNothing(t *testing.T) {
	l, group, id := longNames(t)
	if n := testing.AllocsPerRun(100, func() { readAll(l.m, group, id) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// With every lock of the machine held, readers still get their answer.
func TestReadsTakeNoLock(t *testing.T) {
	l, group, id := longNames(t)
	cell := l.m.State().Group(group).cell
	for _, mu := range []interface {
		Lock()
		Unlock()
	}{&l.m.mu, &l.m.rings.mu, &cell.mu} {
		mu.Lock()
		defer mu.Unlock()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		readAll(l.m, group, id)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a reader waits for a lock")
	}
}

func BenchmarkRead(b *testing.B) {
	l, group, id := longNames(b)
	b.ReportAllocs()
	for b.Loop() {
		readAll(l.m, group, id)
	}
}
