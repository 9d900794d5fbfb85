package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/werbenhu/registry/sdk"
)

const users = 1000

func userName(i int) string { return fmt.Sprintf("user-id-%d", i) }

// gateway is the example that routes users to their services.
type gateway struct {
	addr   string
	client *http.Client
	*process
}

// startGateway starts one that is told of those registry nodes only.
func startGateway(t *testing.T, name, registry string, more ...string) *gateway {
	t.Helper()
	g := newGateway(t)
	g.start(t, name, registry, more...)
	return g
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{addr: local(freePorts(t, 1)[0])}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	g.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return g
}

// start starts the gateway, for the first time or again.
func (g *gateway) start(t *testing.T, name, registry string, more ...string) {
	t.Helper()
	args := append([]string{"-registries", registry, "-group", "web", "-addr", g.addr}, more...)
	g.process = start(t, command{name: name, program: "gateway", args: args})
	eventually(t, patience, name+" listens", func() error {
		resp, err := g.client.Get("http://" + g.addr + "/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	})
}

// router says where a user goes: a gateway, which has the ring to itself, or
// an SDK client that asks its registry node each time.
type router interface {
	route(ctx context.Context, user int) (service string, status int, err error)
}

// asking is an SDK client that knows one registry node to begin with.
type asking struct{ *sdk.Client }

func (a asking) route(ctx context.Context, user int) (string, int, error) {
	m, err := a.Match(ctx, "web", userName(user))
	return m.ID, 0, err
}

// sample is one request of one user and what came back.
type sample struct {
	router, user int
	start, end   time.Time
	served       string // which service, by its own word; empty if none
	status       int
	err          error
}

func (s sample) String() string {
	return fmt.Sprintf("router %d, user %d, at %s for %v: goes to %q, status %d, %v",
		s.router+1, s.user, s.start.Format("15:04:05.000"), ms(s.end.Sub(s.start)), s.served, s.status, s.err)
}

func (s sample) ok() bool { return s.err == nil && s.served != "" }

// ask routes one user.
func ask(ctx context.Context, routers []router, number, user int) sample {
	s := sample{router: number, user: user, start: time.Now()}
	s.served, s.status, s.err = routers[number].route(ctx, user)
	s.end = time.Now()
	return s
}

// route sends a request through the gateway; the service says which it is.
func (g *gateway) route(ctx context.Context, user int) (service string, code int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+"/", nil)
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("X-User-ID", userName(user))
	resp, err := g.client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", resp.StatusCode, errors.Join(err, fmt.Errorf("%q", bytes.TrimSpace(body)))
	}
	var who struct{ ID string }
	err = json.Unmarshal(body, &who)
	return who.ID, resp.StatusCode, err
}

// sweep asks for every user once at every router. All must agree.
func sweep(t *testing.T, routers []router) (owners []string, err error) {
	t.Helper()
	owners = make([]string, users)
	for number := range routers {
		var wg sync.WaitGroup
		samples := make([]sample, users)
		for worker := range 8 {
			wg.Go(func() {
				for u := worker; u < users; u += 8 {
					samples[u] = ask(t.Context(), routers, number, u)
				}
			})
		}
		wg.Wait()
		for u, s := range samples {
			if !s.ok() {
				return nil, fmt.Errorf("failed: %v", s)
			}
			if number > 0 && owners[u] != s.served {
				return nil, fmt.Errorf("router 1 sends user %d to %s, but %v", u, owners[u], s)
			}
			owners[u] = s.served
		}
	}
	return owners, nil
}

// mustSweep is a sweep that finds every user at one service now.
func mustSweep(t *testing.T, routers []router) []string {
	t.Helper()
	owners, err := sweep(t, routers)
	if err != nil {
		t.Fatal(err)
	}
	return owners
}

// countOf counts the users of each service.
func countOf(owners []string) map[string]int {
	n := map[string]int{}
	for _, o := range owners {
		n[o]++
	}
	return n
}

// load asks for all users at all routers, over and over, and keeps every answer.
type load struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // guards samples
	samples []sample
}

// loadWorkers are of each router: requests that may be under way.
const loadWorkers = 4

// loadPace is the time between two requests to a router. Programs with the
// race detector have enough to do as it is.
func loadPace() time.Duration {
	if raceEnabled {
		return 20 * time.Millisecond
	}
	return 5 * time.Millisecond
}

func startLoad(t *testing.T, routers []router) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel}
	for number := range routers {
		next := make(chan int)
		l.wg.Go(func() {
			defer close(next)
			tick := time.NewTicker(loadPace())
			defer tick.Stop()
			for u := 0; ; u = (u + 1) % users {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				select {
				case <-ctx.Done():
					return
				case next <- u:
				}
			}
		})
		for range loadWorkers {
			l.wg.Go(func() {
				for u := range next {
					// Not ctx: a request that is under way at the end ends by itself.
					l.keep(ask(context.WithoutCancel(ctx), routers, number, u))
				}
			})
		}
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) keep(s sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
}

// end waits for the requests under way.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// sorted returns what was kept, by the start of the requests.
func (l *load) sorted() []sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Clone(l.samples)
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.start.UnixNano(), b.start.UnixNano()) })
	return all
}

// slowest is the longest request that was under way in that time.
func slowest(all []sample, from, to time.Time) (worst sample, count int) {
	for _, s := range all {
		if s.end.Before(from) || s.start.After(to) {
			continue
		}
		count++
		if s.end.Sub(s.start) > worst.end.Sub(worst.start) {
			worst = s
		}
	}
	return worst, count
}
