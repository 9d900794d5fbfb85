package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

const (
	// beatMembers of one beater; two beaters share a group, which stays below
	// what the mass-loss guard looks at.
	beatMembers = 5
	// beatEvery is a quarter of the shortest TTL.
	beatEvery = 250 * time.Millisecond
	// beatPatience is how long a beater waits for an answer before it goes to
	// the next node.
	beatPatience = 800 * time.Millisecond
	// stopEvery is how often one member of a beater stops to beat.
	stopEvery = 1500 * time.Millisecond
	// steadyMembers of a beater never stop, so that some beat through every
	// fault. Their TTL is more than twice any pause that a beater makes.
	steadyMembers = 2
	steadyTTL     = 3 * time.Second
)

// shortTTLs are those of the members that may stop.
var shortTTLs = []time.Duration{time.Second, 1500 * time.Millisecond, 2 * time.Second}

// beater keeps some members alive, by streams or by single calls, at one node
// as long as that answers, and then at the next. Now and then a member stops
// to beat; a new one takes its place, and that of one that was lost.
type beater struct {
	load   *Load
	stream bool
	rand   *rand.Rand
	at     int // node
	group  string
	name   string
	seq    int
	alive  map[uint64]*check.Lease // by lease id; those that beat
}

func (l *Load) beater(ctx context.Context, i int, stream bool, r *rand.Rand) {
	b := &beater{load: l, stream: stream, rand: r, at: i, group: l.beatGroup(l.nodes[i]), name: "s", alive: make(map[uint64]*check.Lease)}
	if !stream {
		b.name = "u"
	}
	nextStop := l.Now() + stopEvery
	for ctx.Err() == nil {
		for i := 0; i < 2 && len(b.alive) < beatMembers && b.register(ctx); i++ {
		}
		if l.Now() > nextStop {
			b.stopOne()
			nextStop = l.Now() + stopEvery
		}
		until := l.Now() + between(r, stopEvery/2, stopEvery)
		var ok bool
		if stream {
			ok = b.beatByStream(ctx, until)
		} else {
			ok = b.beatByCalls(ctx, until)
		}
		if !ok {
			b.at++
			pause(ctx, 20*time.Millisecond)
		}
	}
}

func (b *beater) node() *node { return b.load.nodes[b.at%len(b.load.nodes)] }

// register adds a member; the registration is its first beat. The others wait
// for it, and so it is given up soon: what becomes of it then is not followed.
func (b *beater) register(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	b.seq++
	l := &check.Lease{Group: b.group, ID: fmt.Sprintf("%s%d", b.name, b.seq), TTL: b.drawTTL()}
	sent := b.load.Now()
	resp, err := b.node().registry.Register(ctx, &registrypb.RegisterRequest{Group: l.Group, Id: l.ID, Addr: "10.2.0.1:80", Ttl: durationpb.New(l.TTL)})
	if err != nil {
		b.at++
		return false
	}
	l.Beats = []check.Beat{{Sent: sent, Acked: b.load.Now()}}
	b.alive[resp.LeaseId] = l
	b.load.note(func(h *History) { h.Leases = append(h.Leases, l) })
	return true
}

// drawTTL makes the first members steady, and those that take their place.
func (b *beater) drawTTL() time.Duration {
	steady := 0
	for _, l := range b.alive {
		if l.TTL == steadyTTL {
			steady++
		}
	}
	if steady < steadyMembers {
		return steadyTTL
	}
	return shortTTLs[b.rand.IntN(len(shortTTLs))]
}

// stopOne lets a member fall silent, if there is one that is not steady.
func (b *beater) stopOne() {
	for id, l := range b.alive {
		if l.TTL == steadyTTL {
			continue
		}
		b.load.note(func(*History) { l.Stopped = b.load.Now() })
		delete(b.alive, id)
		return
	}
}

// batch is one request and the beats that it is.
type batch struct {
	sent   time.Duration
	leases map[uint64]*check.Lease
	at     map[uint64]int // index in Beats
}

// send notes the beats before they are on their way.
func (b *beater) send() (*batch, *registrypb.HeartbeatRequest) {
	s := &batch{sent: b.load.Now(), leases: make(map[uint64]*check.Lease), at: make(map[uint64]int)}
	req := &registrypb.HeartbeatRequest{}
	b.load.note(func(*History) {
		for id, l := range b.alive {
			req.LeaseIds = append(req.LeaseIds, id)
			s.leases[id], s.at[id] = l, len(l.Beats)
			l.Beats = append(l.Beats, check.Beat{Sent: s.sent})
		}
	})
	return s, req
}

func (b *beater) answered(s *batch, resp *registrypb.HeartbeatResponse) {
	now := b.load.Now()
	b.load.note(func(*History) {
		for id, l := range s.leases {
			l.Beats[s.at[id]].Acked = now
		}
		for _, id := range resp.Lost {
			if l := s.leases[id]; l != nil {
				l.Beats[s.at[id]].Lost = true
				delete(b.alive, id)
			}
		}
	})
}

// beatByCalls makes one call after the other; false when one failed.
func (b *beater) beatByCalls(ctx context.Context, until time.Duration) bool {
	for b.load.Now() < until && pause(ctx, beatEvery) {
		s, req := b.send()
		call, cancel := context.WithTimeout(ctx, beatPatience)
		resp, err := b.node().registry.Heartbeat(call, req)
		cancel()
		if err != nil {
			return false
		}
		b.answered(s, resp)
	}
	return true
}

// beatByStream sends on, also while answers are late; false when the stream
// broke or an answer was late for too long.
func (b *beater) beatByStream(ctx context.Context, until time.Duration) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := b.node().registry.HeartbeatStream(ctx)
	if err != nil {
		return false
	}
	answers := make(chan *registrypb.HeartbeatResponse)
	receiver := make(chan struct{})
	defer func() { cancel(); <-receiver }()
	go func() {
		defer close(receiver)
		for {
			resp, err := stream.Recv()
			if err != nil {
				close(answers)
				return
			}
			select {
			case answers <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	var waiting []*batch
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if len(waiting) == 0 && b.load.Now() > until {
			return true
		}
		if len(waiting) > 0 && b.load.Now()-waiting[0].sent > beatPatience {
			return false
		}
		select {
		case <-tick.C:
			// Without an answer it goes on, so that there is no pause in the beat.
			s, req := b.send()
			if stream.Send(req) != nil {
				return false
			}
			waiting = append(waiting, s)
		case resp, ok := <-answers:
			if !ok || len(waiting) == 0 {
				return false
			}
			b.answered(waiting[0], resp)
			waiting = waiting[1:]
		case <-ctx.Done():
			return true
		}
	}
}
