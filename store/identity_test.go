package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/werbenhu/registry/store/rafttransport"
)

// A node refuses calls for another node.
func TestCallsForOtherNodes(t *testing.T) {
	s := &Store{cfg: Config{ID: "n1"}}
	s.ident.Store(&identity{ClusterID: strings.Repeat("a", rafttransport.ClusterIDSize)})
	own, other := s.ClusterID(), strings.Repeat("b", rafttransport.ClusterIDSize)
	for _, tt := range []struct {
		id, cluster string
		ok          bool
	}{
		{"n1", own, true},
		{"", own, true}, // any node of the cluster
		{"n2", own, false},
		{"n1", other, false},
		{"n1", "", false}, // from a node without a cluster
		{"", other, false},
	} {
		err := s.IsTarget(tt.id, tt.cluster)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrMembership) {
			t.Errorf("a call for %q of cluster id %q: %v", tt.id, tt.cluster, err)
		}
	}
}
