package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

const defaultTTL = 10 * time.Second

// Service is what a process registers.
type Service struct {
	// Group and ID name the member: 1–255 bytes of printable UTF-8 without "/".
	Group string
	ID    string
	// Addr is the service's address for its own clients, host:port.
	Addr string
	// Weight is 1–1000, the service's share of the keys; 0 means 1.
	Weight int
	// Meta is up to 64 pairs and 8 KiB.
	Meta map[string]string
	// TTL is how long the member stays without heartbeats, 1 s – 24 h; 0 means 10 s.
	// Heartbeats are sent three times in a TTL.
	TTL time.Duration
	// TakeOver takes the id over from a live process at another address; without it
	// that is ErrConflict. It applies to the first registration only: this process
	// does not take the id back from a later one.
	TakeOver bool
	// OnEvent, if set, gets the events of the registration, one at a time for the
	// whole client and in order. It should not block. Without it events are logged, with
	// it at the level debug only.
	OnEvent func(Event)
}

// Registration is a member of a group that the client keeps by heartbeats. When the
// lease is lost, because no node could be reached for too long, the client registers
// again until it succeeds. A Registration ends when it is closed or held, and when
// another process registers the id: two processes never fight for an id.
type Registration struct {
	client   *Client
	service  Service
	instance []byte
	lease    *lease
	ended    bool // EventEnded was sent; guarded by the dispatcher's mutex

	ctx    context.Context // of the keeper's registration call
	cancel context.CancelFunc

	stateLock chan struct{} // holds a token during a Drain, Resume or Hold
	draining  atomic.Bool   // by Drain; a registration after a loss requests this state

	closing  atomic.Bool
	closed   chan struct{} // closed when the first Close has ended
	closeErr error         // set before closed is closed
	removed  atomic.Bool   // by Close

	mu   sync.Mutex // guards err
	err  error
	done chan struct{}
}

// Register adds the service to its group and keeps it there by heartbeats
// until the registration or the client is closed, or another process takes the id
// over. ctx bounds the first registration only; after ErrOutcomeUnknown the service
// may be listed until its TTL is over.
func (c *Client) Register(ctx context.Context, s Service) (*Registration, error) {
	if s.TTL == 0 {
		s.TTL = defaultTTL
	}
	if s.Weight == 0 {
		s.Weight = 1
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	r := &Registration{
		client: c, service: s, instance: make([]byte, 16),
		closed: make(chan struct{}), done: make(chan struct{}), stateLock: make(chan struct{}, 1),
	}
	_, _ = rand.Read(r.instance) // never fails
	if err := c.ready("register", r.request(s.TakeOver)); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	resp, requested, err := c.register(ctx, r.request(s.TakeOver))
	if err != nil {
		r.cancel()
		return nil, err
	}
	r.lease = newLease(r, resp, requested)
	if err := c.adopt(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

// check refuses values that the message cannot represent; the server checks the limits.
func (s *Service) check() error {
	if err := checkText("register", "addr", s.Addr); err != nil {
		return err
	}
	for k, v := range s.Meta {
		if err := checkText("register", "meta", k+v); err != nil {
			return err
		}
	}
	if s.TTL < 0 {
		return invalid("register", "ttl", "1s–24h", fmt.Sprintf("ttl %v is negative", s.TTL))
	}
	return fits("register", "weight", s.Weight)
}

func checkText(op, field, s string) error {
	if !utf8.ValidString(s) {
		return invalid(op, field, "printable UTF-8", fmt.Sprintf("%s %q is not UTF-8", field, s))
	}
	return nil
}

func (r *Registration) request(takeOver bool) *registrypb.RegisterRequest {
	req := &registrypb.RegisterRequest{
		Group: r.service.Group, Id: r.service.ID, Addr: r.service.Addr,
		Weight: uint32(r.service.Weight), Meta: r.service.Meta,
		Ttl: durationpb.New(r.service.TTL), Instance: r.instance, TakeOver: takeOver,
	}
	if r.draining.Load() {
		req.State = registrypb.MemberState_MEMBER_STATE_DRAINING.Enum()
	}
	return req
}

// register also returns when it made the first attempt that may have taken effect;
// earlier attempts may have taken minutes.
func (c *Client) register(ctx context.Context, req *registrypb.RegisterRequest) (resp *registrypb.RegisterResponse, requested time.Time, err error) {
	resp, err = write(ctx, c, "register", req, func(ctx context.Context, a *attempt, req *registrypb.RegisterRequest) (*registrypb.RegisterResponse, error) {
		if !req.GetAgain() {
			requested = time.Now()
		}
		return a.ep.registers.register(ctx, c, a, req)
	})
	return resp, requested, err
}

// adopt gives a new registration to the keeper, or deregisters it if the client was
// closed meanwhile.
func (c *Client) adopt(ctx context.Context, r *Registration) error {
	c.mu.Lock()
	closing := c.closing
	if !closing {
		if c.keeper == nil {
			c.keeper = startKeeper(c)
		}
		c.regs[r] = struct{}{}
	}
	c.mu.Unlock()
	if closing {
		r.cancel()
		_, err := c.deregister(ctx, r.deregistration())
		return errors.Join(ErrClosed, err)
	}
	c.keeper.emit(r, Event{Kind: EventRegistered})
	c.keeper.post(func() { c.keeper.add(r.lease) })
	return nil
}

// Service returns the service with its defaults filled in.
func (r *Registration) Service() Service { return r.service }

// Done is closed when the registration has ended: by Close or Hold, or because the
// member was taken over or removed.
func (r *Registration) Done() <-chan struct{} { return r.done }

// Err is nil while the registration lasts, and then why it ended: ErrClosed,
// ErrHeld, or an *Error that is ErrConflict or ErrFenced.
func (r *Registration) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close stops the heartbeats and deregisters, within the client's close timeout. A
// member that is held, by Hold or by an operator, stays held for the restart. Further
// calls return the same.
func (r *Registration) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), r.client.cfg.closeTimeout)
	defer cancel()
	return r.CloseContext(ctx)
}

// CloseContext is Close bounded by a context. After an error the member may be listed
// until its TTL is over; the heartbeats have stopped.
func (r *Registration) CloseContext(ctx context.Context) error {
	if r.closing.CompareAndSwap(false, true) {
		r.closeErr = r.close(ctx)
		close(r.closed)
		return r.closeErr
	}
	select {
	case <-r.closed:
		return r.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Registration) close(ctx context.Context) error {
	if !r.end(ErrClosed) {
		return nil // ended before
	}
	// No heartbeat and no registration may follow the deregistration.
	r.client.keeper.release(r.lease)
	removed, err := r.client.deregister(ctx, r.deregistration())
	if err != nil {
		return fmt.Errorf("close %s/%s: %w", r.service.Group, r.service.ID, err)
	}
	r.removed.Store(removed)
	return nil
}

// Removed reports whether Close removed the member. It is false if Close found the
// member held, which then stays, or already removed.
func (r *Registration) Removed() bool { return r.removed.Load() }

func (r *Registration) deregistration() *registrypb.DeregisterRequest {
	return &registrypb.DeregisterRequest{Group: r.service.Group, Id: r.service.ID, Instance: r.instance, KeepHeld: true}
}

// end ends the registration; it reports false if that was done before.
func (r *Registration) end(why error) bool {
	r.mu.Lock()
	if r.err != nil {
		r.mu.Unlock()
		return false
	}
	r.err = why
	r.mu.Unlock()
	r.cancel()
	r.client.mu.Lock()
	delete(r.client.regs, r)
	r.client.mu.Unlock()
	r.client.keeper.emit(r, Event{Kind: EventEnded, Err: why})
	close(r.done)
	return true
}
