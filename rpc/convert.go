package rpc

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

var wireStates = map[ring.State]registrypb.MemberState{
	ring.Active:   registrypb.MemberState_MEMBER_STATE_ACTIVE,
	ring.Draining: registrypb.MemberState_MEMBER_STATE_DRAINING,
	ring.Held:     registrypb.MemberState_MEMBER_STATE_HELD,
}

func memberToWire(m *fsm.Member) *registrypb.Member {
	out := &registrypb.Member{
		Id: m.ID, Addr: m.Addr, Weight: m.Weight, State: wireStates[m.State],
		Ttl:          durationpb.New(m.TTL),
		CreatedIndex: m.CreatedIndex, ModifiedIndex: m.ModifiedIndex,
		RegisteredAt: timestamppb.New(time.UnixMilli(m.RegisteredMS)),
	}
	if m.Hold > 0 {
		out.Hold = durationpb.New(m.Hold)
	}
	if len(m.Meta) > 0 {
		out.Meta = make(map[string]string, len(m.Meta))
		for _, p := range m.Meta {
			out.Meta[p.Key] = p.Value
		}
	}
	return out
}

// stateToLog returns the state + 1, or 0 for none. The log's validation checks the
// upper bound.
func stateToLog(s *registrypb.MemberState) (uint32, error) {
	if s == nil {
		return 0, nil
	}
	if *s < 0 {
		return 0, &fsm.FieldError{Field: "state", Limit: "active, draining or held", Got: s.String()}
	}
	return uint32(*s) + 1, nil
}

func metaToLog(meta map[string]string) []*fsmpb.Pair {
	pairs := make([]*fsmpb.Pair, 0, len(meta))
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		pairs = append(pairs, &fsmpb.Pair{Key: k, Value: meta[k]})
	}
	return pairs
}

func configToWire(p ring.Params) *registrypb.GroupConfig {
	return &registrypb.GroupConfig{VirtualNodes: uint32(p.VirtualNodes), Bound: uint32(p.Bound)}
}

func groupToWire(g *fsm.Group) *registrypb.Group {
	return &registrypb.Group{Name: g.Name, Config: configToWire(g.Params), Members: uint32(g.Len()), Revision: g.Revision}
}
