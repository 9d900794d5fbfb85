package routing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// Owner refuses requests that are not for the service, because a router used an older
// ring. It decides by the service's own [sdk.Ring].
//
// A request has a key and, from a router with a ring, a [Route]. Let R be the route's
// revision, 0 without a route, and S the revision of the service's own ring.
//
//  1. S < R: the service may be behind. It waits for S ≥ R, a second at most, and
//     then refuses with [sdk.ErrNotReady].
//  2. The two are of different clusters, or S = R and the fingerprints differ: one
//     of the two is wrong, and the service refuses with ErrNotReady. An unknown
//     cluster is not compared.
//  3. Otherwise, at S ≥ R, one member serves the key in the service's own ring: the
//     key's owner, or the fallback of a held owner. If that is the service, it
//     accepts; if not, *MisdirectedError names that member.
//
// So for any one S at most one member accepts a key, and with S ≥ R no request is
// accepted by a ring older than the router's.
//
// That is an order by revision and not by time. A service that has not received
// revision 12 still accepts at 11 what its successor accepts at 12, from routers that
// are as far behind. [sdk.WithMaxAge] limits that: a ring without contact refuses with
// [sdk.ErrStale], and two members accept one key for no longer than the maximum age
// and the duration of a request. To exclude it, store the revision that Accept returns
// with the data, and refuse writes with an older one.
//
// Requests that went to a next owner because the owner could not be reached are
// misdirected too, unless WithFallbacks allows them.
type Owner struct {
	ring *sdk.Ring
	id   string
	opts ownerOptions
}

// OwnerOption changes how an Owner decides.
type OwnerOption func(*ownerOptions)

type ownerOptions struct {
	wait      time.Duration
	fallbacks int
	require   bool
	scheme    string
}

// WithWaitTimeout bounds how long a request waits while the service's ring is behind
// the router's; a second by default.
func WithWaitTimeout(d time.Duration) OwnerOption { return func(o *ownerOptions) { o.wait = d } }

// WithFallbacks accepts requests that skipped up to n owners, if the service is among
// those or the next one. Two members may then accept one key at one revision: an
// owner that one router cannot reach, and the next one.
func WithFallbacks(n int) OwnerOption { return func(o *ownerOptions) { o.fallbacks = n } }

// WithRouteRequired refuses requests without a route. By default they are checked by
// the service's own ring alone.
func WithRouteRequired() OwnerOption { return func(o *ownerOptions) { o.require = true } }

// WithRedirect makes Handler answer a misdirected request with a redirect, 307, to the
// same path at the owner's address. The scheme is http or https.
func WithRedirect(scheme string) OwnerOption { return func(o *ownerOptions) { o.scheme = scheme } }

// NewOwner makes the Owner of the member with that id in the ring's group.
func NewOwner(ring *sdk.Ring, id string, opts ...OwnerOption) *Owner {
	o := &Owner{ring: ring, id: id, opts: ownerOptions{wait: time.Second}}
	for _, opt := range opts {
		opt(&o.opts)
	}
	return o
}

// MisdirectedError: the key has another owner. Nothing was done.
type MisdirectedError struct {
	// Route is that of the ring that decided.
	Route Route
	// Owner is the member that serves the key: its owner, or the fallback of a held
	// one. Over the network it has only ID and Addr.
	Owner sdk.Member
}

// Error names the owner.
func (e *MisdirectedError) Error() string {
	return fmt.Sprintf("registry: misdirected: the owner is %s at %s, by revision %d of group %s",
		e.Owner.ID, e.Owner.Addr, e.Route.Revision, e.Route.Group)
}

// Check decides on a key. route may be nil. Errors are *MisdirectedError, or
// those of Ring.Match, or sdk.ErrNotReady if the ring stayed behind the route, or
// sdk.ErrInvalidArgument for a route of another group.
func (o *Owner) Check(ctx context.Context, route *Route, key string) error {
	_, err := o.Accept(ctx, route, key)
	return err
}

// Accept is Check and returns the route of the ring that it accepted by. Within one
// cluster its revision is a fencing token: two members that accept one key have
// different ones, and the later owner's is higher.
func (o *Owner) Accept(ctx context.Context, route *Route, key string) (Route, error) {
	if route == nil && o.opts.require {
		return Route{}, invalid(RouteHeader, "required", "the request has no route")
	}
	if route == nil {
		route = &Route{Group: o.ring.Group()}
	}
	if route.Group != o.ring.Group() {
		return Route{}, invalid(RouteHeader, "group "+o.ring.Group(), "the route is of group "+shorten(route.Group))
	}
	v, err := o.reach(ctx, route)
	if err != nil {
		return Route{}, err
	}
	place := 0
	if route.Fallback > 0 && route.Fallback <= o.opts.fallbacks {
		place = route.Fallback
	}
	var buf [4]sdk.Member
	serving, err := v.Serving(buf[:0], key, place+1)
	if err != nil {
		return Route{}, err
	}
	for _, m := range serving {
		if m.ID == o.id {
			return OfView(v), nil
		}
	}
	return Route{}, &MisdirectedError{Route: OfView(v), Owner: serving[0]}
}

// reach returns a view that is at least as new as the route.
func (o *Owner) reach(ctx context.Context, route *Route) (*sdk.View, error) {
	v := o.ring.View()
	if v.Err() == nil && sameCluster(v.ClusterID(), route.ClusterID) && v.Revision() < route.Revision {
		ctx, cancel := context.WithTimeout(ctx, o.opts.wait)
		defer cancel()
		if err := o.ring.Wait(ctx, route.Revision); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		v = o.ring.View()
	}
	switch {
	case v.Err() != nil:
		return nil, v.Err()
	case !sameCluster(v.ClusterID(), route.ClusterID):
		return nil, notReady(fmt.Sprintf("the ring is of cluster %s, the router's of cluster %s", v.ClusterID(), shorten(route.ClusterID)))
	case v.Revision() < route.Revision:
		return nil, notReady(fmt.Sprintf("the ring is at revision %d, the router's at %d", v.Revision(), route.Revision))
	case v.Revision() == route.Revision && v.Fingerprint() != route.Fingerprint:
		return nil, notReady(fmt.Sprintf("at revision %d the ring is %016x, the router's %016x", v.Revision(), v.Fingerprint(), route.Fingerprint))
	}
	return v, nil
}

// sameCluster compares two cluster ids; an empty one is unknown and matches.
func sameCluster(a, b string) bool { return a == b || a == "" || b == "" }

func notReady(message string) error {
	return &sdk.Error{Op: "owner", Reason: sdk.Reason(registrypb.ErrorDetail_NOT_READY), Code: codes.Unavailable, Message: message}
}

// Handler passes the service's requests to next. key returns the key of a request;
// without a key the answer is 400. A misdirected request gets 421 Misdirected
// Request, with the owner in OwnerHeader and the ring's route in RouteHeader; one that
// cannot be decided gets 503. In both cases nothing was done.
func (o *Owner) Handler(key KeyFunc, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := key(r)
		route, err := RouteFromHeader(r.Header)
		if k == "" {
			err = errNoKey
		}
		if err == nil {
			err = o.Check(r.Context(), route, k)
		}
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		o.refuse(w, r, err)
	})
}

func (o *Owner) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var m *MisdirectedError
	if !errors.As(err, &m) {
		http.Error(w, err.Error(), httpStatus(err))
		return
	}
	m.Route.SetHeader(w.Header())
	w.Header().Set(OwnerHeader, ownerValue(m.Owner))
	if o.opts.scheme == "" {
		http.Error(w, err.Error(), http.StatusMisdirectedRequest)
		return
	}
	u := *r.URL
	u.Scheme, u.Host, u.User = o.opts.scheme, m.Owner.Addr, nil
	http.Redirect(w, r, u.String(), http.StatusTemporaryRedirect)
}

// httpStatus returns the HTTP status of an error.
func httpStatus(err error) int {
	switch {
	case errors.Is(err, sdk.ErrInvalidArgument), errors.Is(err, errNoKey):
		return http.StatusBadRequest
	case errors.Is(err, sdk.ErrEmptyGroup), errors.Is(err, sdk.ErrUnknownGroup), errors.Is(err, sdk.ErrStale),
		errors.Is(err, sdk.ErrNotReady), errors.Is(err, sdk.ErrClosed):
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadGateway
	}
}

func ownerValue(m sdk.Member) string { return url.PathEscape(m.ID) + ";" + m.Addr }

// Misdirected returns the owner that an HTTP answer of status 421, or a redirect,
// names; nil if it names none.
func Misdirected(resp *http.Response) *MisdirectedError {
	if resp.StatusCode != http.StatusMisdirectedRequest && resp.StatusCode != http.StatusTemporaryRedirect {
		return nil
	}
	route, err := RouteFromHeader(resp.Header)
	id, addr, found := strings.Cut(resp.Header.Get(OwnerHeader), ";")
	id, bad := url.PathUnescape(id)
	if err != nil || route == nil || !found || bad != nil {
		return nil
	}
	return &MisdirectedError{Route: *route, Owner: sdk.Member{ID: id, Addr: addr}}
}

// UnaryInterceptor checks a gRPC server's unary calls. key returns the key of a call,
// from its metadata or its request; calls without a key are InvalidArgument. A
// misdirected call gets FailedPrecondition, which MisdirectedCall converts back; one
// that cannot be decided gets Unavailable. In both cases nothing was done.
func (o *Owner) UnaryInterceptor(key func(ctx context.Context, req any) string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := o.checkCall(ctx, key(ctx, req)); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// StreamInterceptor is UnaryInterceptor for streams. A stream has one key, which is
// checked when the stream is opened.
func (o *Owner) StreamInterceptor(key func(ctx context.Context) string) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if err := o.checkCall(ss.Context(), key(ss.Context())); err != nil {
			return err
		}
		return handler(srv, ss)
	}
}

// KeyFromMetadata takes the key from a call's metadata.
func KeyFromMetadata(name string) func(ctx context.Context) string {
	return func(ctx context.Context) string {
		if vs := metadata.ValueFromIncomingContext(ctx, strings.ToLower(name)); len(vs) == 1 {
			return vs[0]
		}
		return ""
	}
}

func (o *Owner) checkCall(ctx context.Context, key string) error {
	route, err := RouteFromIncoming(ctx)
	if key == "" {
		err = errNoKey
	}
	if err == nil {
		err = o.Check(ctx, route, key)
	}
	if err == nil {
		return nil
	}
	var m *MisdirectedError
	if errors.As(err, &m) {
		return m.status().Err()
	}
	switch httpStatus(err) {
	case http.StatusBadRequest:
		return status.Error(codes.InvalidArgument, err.Error())
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}

// status carries the owner and the route in its details.
func (e *MisdirectedError) status() *status.Status {
	st := status.New(codes.FailedPrecondition, e.Error())
	detailed, err := st.WithDetails(
		&registrypb.ErrorDetail{Reason: registrypb.ErrorDetail_REVISION_MISMATCH, Field: RouteHeader, Limit: e.Route.String()},
		&registrypb.Member{Id: e.Owner.ID, Addr: e.Owner.Addr},
	)
	if err != nil {
		return st
	}
	return detailed
}

// MisdirectedCall returns the owner that the error of a gRPC call names; nil if it
// names none.
func MisdirectedCall(err error) *MisdirectedError {
	st, ok := status.FromError(err)
	if !ok || st.Code() != codes.FailedPrecondition {
		return nil
	}
	var out *MisdirectedError
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *registrypb.ErrorDetail:
			if r, err := ParseRoute(d.GetLimit()); err == nil && d.GetField() == RouteHeader {
				out = &MisdirectedError{Route: r}
			}
		case *registrypb.Member:
			if out != nil {
				out.Owner = sdk.Member{ID: d.GetId(), Addr: d.GetAddr()}
			}
		}
	}
	return out
}
