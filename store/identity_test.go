package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/werbenhu/registry/store/rafttransport"
)

// A question for a node must not be answered by whoever is at its address now.
func TestQuestionsForOthers(t *testing.T) {
	s := &Store{cfg: Config{ID: "n1"}}
	s.ident.Store(&identity{ClusterID: strings.Repeat("a", rafttransport.ClusterIDSize)})
	own, other := s.ClusterID(), strings.Repeat("b", rafttransport.ClusterIDSize)
	for _, tt := range []struct {
		id, cluster string
		ok          bool
	}{
		{"n1", own, true},
		{"", own, true}, // for whichever node of the cluster
		{"n2", own, false},
		{"n1", other, false},
		{"n1", "", false}, // of a node that belongs to none
		{"", other, false},
	} {
		err := s.IsTarget(tt.id, tt.cluster)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrMembership) {
			t.Errorf("a question for %q of cluster id %q: %v", tt.id, tt.cluster, err)
		}
	}
}
