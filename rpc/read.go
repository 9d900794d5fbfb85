package rpc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// freshState is a state that is read from.
type freshState struct {
	*fsm.State
	lag   time.Duration // the node's, from before the state was read
	index uint64        // what the reader required; 0: nothing
}

// read returns this node's state. The lag comes first: after it the node may catch up,
// and its lag is no longer that of an earlier state.
func (s *Server) read(index uint64) freshState {
	lag := s.store.Lag()
	return freshState{s.store.State(), lag, index}
}

// lastContact says what a lag means.
func lastContact(lag time.Duration) string {
	if lag == store.UnknownLag {
		return "no contact with a leader since the start"
	}
	return fmt.Sprintf("last contact with the leader %s ago", lag.Round(time.Millisecond))
}

// state returns this node's state, as fresh as the options require.
func (s *Server) state(ctx context.Context, opts *registrypb.ReadOptions) (freshState, error) {
	if err := s.store.Serving(); err != nil {
		return freshState{}, err
	}
	if opts == nil {
		return s.read(0), nil
	}
	if max := opts.MaxStaleness; max != nil {
		if max.AsDuration() < 0 {
			return freshState{}, &fsm.FieldError{Field: "max_staleness", Limit: "0 or more", Got: max.AsDuration().String()}
		}
		if lag := s.store.Lag(); lag > max.AsDuration() || lag == store.UnknownLag {
			return freshState{}, fmt.Errorf("%w: %s, at most %s allowed", errStale, lastContact(lag), max.AsDuration())
		}
	}
	index := opts.MinIndex
	if opts.Linearizable {
		at, err := s.store.LinearizableIndex(ctx)
		if err != nil {
			return freshState{}, err
		}
		index = max(index, at)
	}
	if _, err := s.store.WaitIndex(ctx, index); err != nil {
		return freshState{}, err
	}
	if err := callOf(ctx).again(); err != nil {
		return freshState{}, err
	}
	return s.read(index), nil
}

// Index implements the public service.
func (s *Server) Index(ctx context.Context, req *registrypb.IndexRequest) (*registrypb.IndexResponse, error) {
	state, err := s.state(ctx, req.Read)
	if err != nil {
		return nil, toStatus(err)
	}
	return &registrypb.IndexResponse{Index: state.Index()}, nil
}

// answer is the source of an answer.
type answer struct {
	state freshState
	group *fsm.Group
	view  *rings.View
	lag   time.Duration // the node's, or the ring's if that is longer
	index uint64        // up to which the ring has every change; 0: the state's
}

// ring returns a group and its ring, as fresh as the options require.
func (s *Server) ring(ctx context.Context, name string, opts *registrypb.ReadOptions) (answer, error) {
	if err := fsm.ValidateName("group", name); err != nil {
		return answer{}, err
	}
	state, err := s.state(ctx, opts)
	if err != nil {
		return answer{}, err
	}
	a := answer{state: state, group: state.GroupToRead(name)}
	if a.group == nil {
		return answer{}, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, name)
	}
	fresh := rings.Freshness{MinIndex: state.index}
	if max := opts.GetMaxStaleness(); max != nil {
		delay := max.AsDuration()
		fresh.MaxDelay = &delay
	}
	view, staleness, err := s.view(ctx, state.State, a.group, fresh)
	// The contact may have been lost while the ring was built.
	a.view, a.lag, a.index = view, max(staleness.Delay, state.lag, s.store.Lag()), staleness.Index
	return a, err
}

// ringReceipt returns the receipt of an answer from a ring: if the ring is behind the
// state, with the ring's index and lag.
func (s *Server) ringReceipt(a answer) *registrypb.Receipt {
	r := &registrypb.Receipt{
		Index: a.state.Index(), Revision: a.view.Revision, Fingerprint: a.view.Fingerprint,
		Lag: durationpb.New(a.lag), Node: s.store.ID(), ClusterId: s.store.ClusterID(),
	}
	switch {
	case a.index != 0:
		r.Index = a.index
	case a.view.Revision != a.group.Revision: // newer than the state
		r.Index = a.view.Index
	}
	return r
}

// receipt returns the receipt of an answer from the state; g may be nil.
func (s *Server) receipt(state freshState, g *fsm.Group) *registrypb.Receipt {
	r := &registrypb.Receipt{Index: state.Index(), Lag: durationpb.New(state.lag), Node: s.store.ID(), ClusterId: s.store.ClusterID()}
	if g != nil {
		r.Revision, r.Fingerprint = g.Revision, g.Fingerprint()
	}
	return r
}

const maxOwners = fsm.MaxBatch

func checkOwners(n uint32) (int, error) {
	if n > maxOwners {
		return 0, &fsm.FieldError{Field: "n", Limit: fmt.Sprintf("at most %d", maxOwners), Got: fmt.Sprint(n)}
	}
	return int(max(n, 1)), nil
}

// Match implements the public service.
func (s *Server) Match(ctx context.Context, req *registrypb.MatchRequest) (*registrypb.MatchResponse, error) {
	n, err := checkOwners(req.N)
	if err == nil && req.Key == nil {
		err = &fsm.FieldError{Field: "key", Limit: "set; the empty key is valid", Got: "none"}
	}
	if err == nil {
		err = fsm.ValidateKey(req.Key)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	a, err := s.ring(ctx, req.Group, req.Read)
	if err != nil {
		return nil, toStatus(err)
	}
	view := a.view
	var buf [8]int
	owners := view.Ring.MatchN(buf[:0], string(req.Key), n)
	if len(owners) == 0 {
		return nil, toStatus(fmt.Errorf("%w: %q", errEmptyGroup, req.Group))
	}
	resp := &registrypb.MatchResponse{Receipt: s.ringReceipt(a), Members: make([]*registrypb.Member, len(owners))}
	room := s.limits.Answer - messageHead
	for i, o := range owners {
		resp.Members[i] = memberToWire(view.Member(o))
		room -= memberSize(view.Member(o))
	}
	if f := fallback(view, owners[0], string(req.Key)); f >= 0 {
		resp.Fallback = memberToWire(view.Member(f))
		room -= memberSize(view.Member(f))
	}
	if room < 0 {
		return nil, toStatus(s.limits.tooLarge("n", answerLimit, fmt.Sprint(n)))
	}
	return resp, nil
}

// MatchMany implements the public service.
func (s *Server) MatchMany(ctx context.Context, req *registrypb.MatchManyRequest) (*registrypb.MatchManyResponse, error) {
	n, err := checkOwners(req.N)
	if err == nil {
		err = checkKeys(req.Keys, n)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	a, err := s.ring(ctx, req.Group, req.Read)
	if err != nil {
		return nil, toStatus(err)
	}
	many := newManyMatcher(a.view, len(req.Keys), n)
	many.resp.Receipt = s.ringReceipt(a)
	many.room = s.limits.Answer - messageHead - maxIndexSize*len(req.Keys)*(n+1)
	for i, key := range req.Keys {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, toStatus(ctx.Err()) // the caller has gone
		}
		if !many.add(string(key), n) {
			return nil, toStatus(fmt.Errorf("%w: %q", errEmptyGroup, req.Group))
		}
		if many.room < 0 && len(req.Keys) > 1 {
			return nil, toStatus(s.limits.tooLarge("keys", answerLimit, fmt.Sprint(len(req.Keys))))
		}
	}
	if many.room < 0 {
		return nil, toStatus(s.limits.tooLarge("n", answerLimit, fmt.Sprint(n)))
	}
	return many.resp, nil
}

// fallback returns the ring's fallback if the owner is held, or -1.
func fallback(view *rings.View, owner int, key string) int {
	if view.Member(owner).State != ring.Held {
		return -1
	}
	return view.Ring.Fallback(key)
}

// manyMatcher collects the owners of keys, each once.
type manyMatcher struct {
	view  *rings.View
	resp  *registrypb.MatchManyResponse
	index map[int]uint32 // ring index → index in resp.Members
	buf   []int
	room  int // bytes left
}

// maxIndexSize is the size of an index into the members of an answer, of which there
// are at most 100,000.
const maxIndexSize = 3

func newManyMatcher(view *rings.View, keys, n int) *manyMatcher {
	return &manyMatcher{
		view: view, index: make(map[int]uint32),
		resp: &registrypb.MatchManyResponse{Owners: make([]uint32, 0, keys*n)},
	}
}

// add matches the next key; false if no member has points.
func (m *manyMatcher) add(key string, n int) bool {
	m.buf = m.view.Ring.MatchN(m.buf[:0], key, n)
	if len(m.buf) == 0 {
		return false
	}
	before := len(m.resp.Owners) / len(m.buf)
	m.resp.OwnersPerKey = uint32(len(m.buf))
	for _, o := range m.buf {
		m.resp.Owners = append(m.resp.Owners, m.member(o))
	}
	f := fallback(m.view, m.buf[0], key)
	if f >= 0 && m.resp.Fallbacks == nil {
		m.resp.Fallbacks = make([]uint32, before, cap(m.resp.Owners)) // 0 for the keys before
	}
	if f >= 0 {
		m.resp.Fallbacks = append(m.resp.Fallbacks, m.member(f)+1)
	} else if m.resp.Fallbacks != nil {
		m.resp.Fallbacks = append(m.resp.Fallbacks, 0)
	}
	return true
}

// member returns the index in the answer of the member with a ring index.
func (m *manyMatcher) member(o int) uint32 {
	at, known := m.index[o]
	if !known {
		at = uint32(len(m.resp.Members))
		m.index[o] = at
		m.resp.Members = append(m.resp.Members, memberToWire(m.view.Member(o)))
		m.room -= memberSize(m.view.Member(o))
	}
	return at
}

func checkKeys(keys [][]byte, n int) error {
	if len(keys) == 0 || len(keys) > fsm.MaxBatch {
		return &fsm.FieldError{Field: "keys", Limit: fmt.Sprintf("1 to %d", fsm.MaxBatch), Got: fmt.Sprint(len(keys))}
	}
	if len(keys)*n > 100*fsm.MaxBatch {
		return &fsm.FieldError{Field: "n", Limit: fmt.Sprintf("at most %d owners in one answer", 100*fsm.MaxBatch), Got: fmt.Sprint(len(keys) * n)}
	}
	for _, key := range keys {
		if err := fsm.ValidateKey(key); err != nil {
			return err
		}
	}
	return nil
}

// Members implements the public service.
func (s *Server) Members(ctx context.Context, req *registrypb.MembersRequest) (*registrypb.MembersResponse, error) {
	p, err := s.page(req.PageSize, req.PageToken)
	if err == nil {
		err = fsm.ValidateName("group", req.Group)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	state, err := s.state(ctx, req.Read)
	if err != nil {
		return nil, toStatus(err)
	}
	g, after, err := s.pageOf(state, req.Group, req.PageToken)
	if max := req.Read.GetMaxStaleness(); err == nil && max != nil && g.lag > max.AsDuration() {
		err = fmt.Errorf("%w: the page is of a state of %s ago, at most %s allowed", errStale, g.lag, max.AsDuration())
	}
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &registrypb.MembersResponse{Config: configToWire(g.group.Params), Receipt: s.receipt(state, g.group)}
	resp.Receipt.Index, resp.Receipt.Lag = g.index, durationpb.New(g.lag)
	for m := range g.group.MembersAfter(after) {
		if !p.take(memberSize(m)) {
			if err := p.full(); err != nil {
				return nil, toStatus(err)
			}
			s.pages.keep(g)
			resp.NextPageToken = memberToken(g.group, after)
			break
		}
		resp.Members, after = append(resp.Members, memberToWire(m)), m.ID
	}
	return resp, nil
}

// Groups implements the public service.
func (s *Server) Groups(ctx context.Context, req *registrypb.GroupsRequest) (*registrypb.GroupsResponse, error) {
	p, err := s.page(req.PageSize, req.PageToken)
	if err == nil && req.PageToken != "" {
		err = fsm.ValidateName("page_token", req.PageToken)
	}
	if err == nil && len(req.Prefix) > fsm.MaxNameLength {
		err = prefixTooLong(req.Prefix)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	state, err := s.state(ctx, req.Read)
	if err != nil {
		return nil, toStatus(err)
	}
	resp, last := &registrypb.GroupsResponse{Receipt: s.receipt(state, nil)}, req.PageToken
	for g := range state.GroupsFrom(max(last, req.Prefix)) {
		if !strings.HasPrefix(g.Name, req.Prefix) {
			break
		}
		if g.Name == req.PageToken {
			continue // the last of the page before
		}
		if !p.take(groupSize(g)) {
			if err := p.full(); err != nil {
				return nil, toStatus(err)
			}
			resp.NextPageToken = last
			break
		}
		resp.Groups, last = append(resp.Groups, groupToWire(g)), g.Name
	}
	return resp, nil
}
