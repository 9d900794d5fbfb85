package load

import (
	"testing"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

// TestPrefixResumes: every other stream that had events is followed by one
// that goes on from them; streams that nobody answered do not count.
func TestPrefixResumes(t *testing.T) {
	p := &prefixWatch{groups: map[string]*check.Watcher{"g": {}, "not yet": {}}}
	request := p.request("")
	event := &registrypb.WatchEvent{Event: &registrypb.WatchEvent_Snapshot{Snapshot: &registrypb.GroupSnapshot{Group: "g", Revision: 5, Fingerprint: 50}}}
	for i, want := range []int{0, 1, 0, 1} {
		for range 3 {
			known := request().Known
			if len(known) != want || want == 1 && (known[0].Group != "g" || known[0].Revision != 5 || known[0].Fingerprint != 50) {
				t.Errorf("stream %d goes on from %v, want %d groups", i, known, want)
			}
		}
		p.take(event)
		p.take(event)
	}
	if v := p.groups["g"].Violations(); len(v) != 0 {
		t.Errorf("found %v", v)
	}
}
