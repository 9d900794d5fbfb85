package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/rafttransport"
)

// zoneLevel is the feature level that a zone needs to be recorded.
var zoneLevel = fsm.LevelOf("Node.zone")

// recordedZone is what the state can have of a node's zone: nothing below zoneLevel.
func recordedZone(state *fsm.State, zone string) string {
	if state.FeatureLevel() < zoneLevel {
		return ""
	}
	return zone
}

// zoneAlarms say that this node's zone is not recorded and, on the leader, which zones
// the cluster cannot lose.
func (s *Store) zoneAlarms() (out []string) {
	state := s.State()
	if recordedZone(state, s.cfg.Zone) != s.cfg.Zone && s.IsReady() {
		out = append(out, fmt.Sprintf("-zone %q has no effect: it needs feature level %d, and the cluster is at %d (registry cluster feature-level -raise)",
			s.cfg.Zone, zoneLevel, state.FeatureLevel()))
	}
	if !s.IsLeader() {
		return out
	}
	servers, _, err := s.configuration()
	if err != nil {
		return out
	}
	text := zoneAlarm(rafttransport.Voters(servers), func(id raft.ServerID) string {
		if n := state.Node(string(id)); n != nil {
			return n.Zone
		}
		return ""
	})
	if text != "" {
		out = append(out, text)
	}
	return out
}

// zoneAlarm says which zones hold so many voters that the loss of one of them loses the
// quorum; empty: none does. A voter without a zone counts as a zone of its own, since
// nothing says that it shares one, and has no name to tell. A single voter is a quorum in
// whatever zone it is.
func zoneAlarm(voters []raft.Server, zone func(raft.ServerID) string) string {
	count := make(map[string]int)
	for _, v := range voters {
		if z := zone(v.ID); z != "" {
			count[z]++
		}
	}
	all, quorum := len(voters), len(voters)/2+1
	var fatal []string
	for z, n := range count {
		if all > 1 && all-n < quorum {
			fatal = append(fatal, z)
		}
	}
	if len(fatal) == 0 {
		return ""
	}
	slices.SortFunc(fatal, func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	for i, z := range fatal {
		fatal[i] = fmt.Sprintf("%q (%d of %d voters)", z, count[z], all)
	}
	return fmt.Sprintf("the loss of zone %s loses the quorum of %d", strings.Join(fatal, " or "), quorum)
}
