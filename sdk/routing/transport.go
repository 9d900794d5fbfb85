package routing

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// KeyFunc returns the key of an HTTP request; empty if it has none.
type KeyFunc func(*http.Request) string

// errNoKey: a request has no key.
var errNoKey = errors.New("registry: the request has no key")

// KeyFromHeader takes the key from a header.
func KeyFromHeader(name string) KeyFunc {
	return func(r *http.Request) string { return r.Header.Get(name) }
}

// KeyFromCookie takes the key from a cookie.
func KeyFromCookie(name string) KeyFunc {
	return func(r *http.Request) string {
		if c, err := r.Cookie(name); err == nil {
			return c.Value
		}
		return ""
	}
}

// KeyFromPath takes the key from a segment of the path, counted from 0: of
// /users/alice/orders, segment 1 is alice.
func KeyFromPath(segment int) KeyFunc {
	return func(r *http.Request) string {
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if segment < 0 || segment >= len(parts) {
			return ""
		}
		return parts[segment]
	}
}

// KeyFromQuery takes the key from a parameter of the query.
func KeyFromQuery(name string) KeyFunc {
	return func(r *http.Request) string { return r.URL.Query().Get(name) }
}

// FirstKey takes the first key that one of the functions finds.
func FirstKey(fs ...KeyFunc) KeyFunc {
	return func(r *http.Request) string {
		for _, f := range fs {
			if k := f(r); k != "" {
				return k
			}
		}
		return ""
	}
}

// Transport is an http.RoundTripper that sends each request to the member that owns
// its key, whatever host the request names. The request has the route in RouteHeader,
// and the answer has the member in OwnerHeader. Requests for a held owner go to its
// fallback.
//
// After a 421 from a member with a newer ring, the transport waits up to a second for
// its own ring to reach that revision and sends the request again, twice at most. The
// member did nothing, so this is safe for every method; the body must be repeatable
// (GetBody, or not yet read).
type Transport struct {
	// Ring and Key are required.
	Ring *sdk.Ring
	Key  KeyFunc
	// Base sends the requests. By default it is one for all Transports of the
	// process, which connects to members directly, whatever proxy the
	// environment names, and keeps up to 256 idle connections to each for 90 s.
	Base http.RoundTripper
	// Fallbacks is how many next owners are tried, one after the other, when the
	// owner cannot be reached. A request goes to the next only if that is safe: no
	// connection was established, so nothing was sent, or the method is idempotent
	// (GET, HEAD, OPTIONS, TRACE, PUT, DELETE); and if its body is repeatable.
	Fallbacks int
}

// defaultBase is http.DefaultTransport with two differences. It uses no proxy, because
// members are in the network of the registry. And it keeps more idle connections than
// net/http's default of two, which under hundreds of requests would always be
// reopened.
var defaultBase = &http.Transport{
	DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
	ForceAttemptHTTP2:     true,
	MaxIdleConnsPerHost:   256,
	IdleConnTimeout:       90 * time.Second,
	TLSHandshakeTimeout:   10 * time.Second,
	ExpectContinueTimeout: time.Second,
}

// base returns what sends the requests.
func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return defaultBase
}

// CloseIdleConnections closes the idle connections of Base; the default base is shared
// with other Transports.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// How often a misdirected request is sent again, and how long the ring may take
// to reach the owner's revision.
const (
	redirects    = 2
	redirectWait = time.Second
)

// RoundTrip implements http.RoundTripper. Errors of the ring are those of
// [sdk.Ring.Match].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := newRepeatableBody(req)
	defer body.release()
	key := t.Key(req)
	if key == "" {
		return nil, errNoKey
	}
	for again := 0; ; again++ {
		resp, err := t.try(req, body, key)
		if err != nil || again == redirects || !t.misdirected(req.Context(), resp, body) {
			return resp, err
		}
		drain(resp.Body)
	}
}

// misdirected reports whether to send a request again by a newer ring.
func (t *Transport) misdirected(ctx context.Context, resp *http.Response, body *repeatableBody) bool {
	if resp.StatusCode != http.StatusMisdirectedRequest || !body.again() {
		return false
	}
	m := Misdirected(resp)
	if m == nil || m.Route.Group != t.Ring.Group() || !sameCluster(m.Route.ClusterID, t.Ring.View().ClusterID()) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, redirectWait)
	defer cancel()
	return t.Ring.Wait(ctx, m.Route.Revision) == nil
}

func drain(b io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, b, 64<<10) // so that the connection is reused
	_ = b.Close()
}

// try sends a request to the owner, or to the next ones.
func (t *Transport) try(req *http.Request, body *repeatableBody, key string) (*http.Response, error) {
	v := t.Ring.View()
	var buf [4]sdk.Member
	owners, err := v.Serving(buf[:0], key, 1+max(t.Fallbacks, 0))
	if err != nil {
		return nil, err
	}
	route := OfView(v)
	var errs []error
	for i, m := range owners {
		route.Fallback = i
		resp, err := t.send(req, body, m, route)
		if err == nil {
			if Misdirected(resp) == nil {
				resp.Header.Set(OwnerHeader, ownerValue(m))
			}
			return resp, nil
		}
		errs = append(errs, &unreachableError{m, err})
		if req.Context().Err() != nil || !repeatable(req.Method, err) || !body.again() {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// unreachableError: a member sent no answer.
type unreachableError struct {
	member sdk.Member
	err    error
}

func (e *unreachableError) Error() string {
	return e.member.ID + " at " + e.member.Addr + ": " + e.err.Error()
}
func (e *unreachableError) Unwrap() error { return e.err }

func (t *Transport) send(req *http.Request, body *repeatableBody, m sdk.Member, route Route) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Host = m.Addr
	if out.URL.Scheme == "" {
		out.URL.Scheme = "http"
	}
	if out.Host == req.URL.Host {
		out.Host = "" // from the URL, which is not used
	}
	route.SetHeader(out.Header)
	var err error
	if out.Body, err = body.open(); err != nil {
		return nil, err
	}
	resp, err := t.base().RoundTrip(out)
	if err == nil {
		resp.Request = req
	}
	return resp, err
}

// repeatable reports whether a failed request may be sent to another member.
func repeatable(method string, err error) bool {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return true // nothing was sent
	}
	return slices.Contains([]string{"", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}, method)
}

// repeatableBody lets a request's body be sent more than once: if GetBody makes it
// again, or if no byte of it was read. A transport also closes a body that it did not
// read; that must not close it for the next attempt.
type repeatableBody struct {
	orig io.ReadCloser // nil without a body
	make func() (io.ReadCloser, error)

	mu     sync.Mutex // guards the rest
	opened bool
	read   bool
	closed bool // by a transport
	freed  bool // no attempt follows
}

func newRepeatableBody(req *http.Request) *repeatableBody {
	b := &repeatableBody{make: req.GetBody}
	if req.Body != nil && req.Body != http.NoBody {
		b.orig = req.Body
	}
	return b
}

// open returns the body for an attempt.
func (b *repeatableBody) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.orig == nil {
		return http.NoBody, nil
	}
	if b.read {
		return b.make()
	}
	b.opened, b.closed = true, false
	return (*bodyReader)(b), nil
}

// again reports whether there is a body for another attempt.
func (b *repeatableBody) again() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.orig == nil || !b.read || b.make != nil
}

// release closes the body if no attempt uses it; otherwise the last attempt does.
func (b *repeatableBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freed = true
	if b.orig != nil && !b.read && (b.closed || !b.opened) {
		_ = b.orig.Close()
	}
}

type bodyReader repeatableBody

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	r.read = true
	r.mu.Unlock()
	return r.orig.Read(p)
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.read || r.freed {
		return r.orig.Close()
	}
	return nil
}

// NewProxy returns a reverse proxy that sends each request to the owner of its
// key. It answers 400 to a request without a key, 503 if the ring has no
// answer, and 502 if the owner has none.
func NewProxy(t *Transport) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: t,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "owner" // replaced by the transport
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
				return // the caller has gone
			}
			http.Error(w, err.Error(), httpStatus(err))
		},
	}
}
