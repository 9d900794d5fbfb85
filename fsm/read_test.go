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
	return s.Index() + s.Digest() + g.Digest() + uint64(g.Len()) + g.Member(id).Epoch +
		g.Revision + g.Fingerprint() + g.Points() + uint64(s.GroupCount())
}

func longNames(tb testing.TB) (l *log, group, id string) {
	l = newLog(tb)
	group, id = strings.Repeat("g", MaxNameLength), strings.Repeat("i", MaxNameLength)
	for i := range 100 {
		l.must(register(newRegistration(group, id[:100+i], "10.0.0.1:80", "one")))
	}
	l.must(register(newRegistration(group, id, "10.0.0.1:80", "one")))
	return l, group, id
}

func TestReadsAllocateNothing(t *testing.T) {
	l, group, id := longNames(t)
	if n := testing.AllocsPerRun(100, func() { readAll(l.m, group, id) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// With the lock of the machine held, readers still get their answer.
func TestReadsTakeNoLock(t *testing.T) {
	l, group, id := longNames(t)
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
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
