package routing

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

// RouteHeader is the HTTP header, and in lower case the gRPC metadata, with the ring
// that a request was routed with:
//
//	Registry-Ring: v2;41f2a6c09be7d35841f2a6c09be7d358;webservice-group;120;63a9843e583371c6
//	Registry-Ring: v2;41f2a6c09be7d35841f2a6c09be7d358;webservice-group;120;63a9843e583371c6;1
//
// The fields are the version of this form; the id of the cluster, empty if unknown,
// and the group, each escaped as in a URL's path; the revision; the ring's fingerprint
// in hexadecimal; and, for a request to a next owner because earlier ones could not be
// reached, how many of [sdk.View.Serving] were skipped. The fallback of a held owner
// does not count as skipped. Version 1 had no cluster and another fingerprint, and is
// refused.
const RouteHeader = "Registry-Ring"

const (
	routeVersion = "v2"
	routeForm    = routeVersion + ";cluster;group;revision;fingerprint"
)

// OwnerHeader is the member that answered an HTTP request, or, with status 421, the
// one that serves the key: the id, escaped as in a URL's path, a semicolon and the
// address.
const OwnerHeader = "Registry-Owner"

// Route is the ring that a request was routed with.
type Route struct {
	// ClusterID is the id of the revision's cluster; empty if unknown.
	ClusterID   string
	Group       string
	Revision    uint64
	Fingerprint uint64
	// Fallback is how many owners were skipped; 0 for the owner.
	Fallback int
}

// OfView returns the route of the view's answers.
func OfView(v *sdk.View) Route {
	return Route{ClusterID: v.ClusterID(), Group: v.Group(), Revision: v.Revision(), Fingerprint: v.Fingerprint()}
}

// OfReceipt returns the route of an answer with this receipt.
func OfReceipt(group string, r sdk.Receipt) Route {
	return Route{ClusterID: r.ClusterID, Group: group, Revision: r.Revision, Fingerprint: r.Fingerprint}
}

// String returns the value of the header.
func (r Route) String() string {
	s := fmt.Sprintf("%s;%s;%s;%d;%016x", routeVersion, url.PathEscape(r.ClusterID), url.PathEscape(r.Group), r.Revision, r.Fingerprint)
	if r.Fallback > 0 {
		s += ";" + strconv.Itoa(r.Fallback)
	}
	return s
}

// maxFallback is the largest Fallback in a header.
const maxFallback = 1000

// ParseRoute reads a header's value. Errors are [sdk.ErrInvalidArgument].
func ParseRoute(s string) (Route, error) {
	parts := strings.Split(s, ";")
	r := Route{}
	var err error
	switch {
	case len(s) > 1024:
		return Route{}, badRoute(s, "it is longer than 1024 bytes")
	case parts[0] != routeVersion && (len(parts) == 3 || len(parts) == 4):
		return Route{}, badRoute(s, "it has the form of version 1, which has no cluster; want version 2")
	case parts[0] != routeVersion:
		return Route{}, badRoute(s, "it does not begin with its version, "+routeVersion)
	case len(parts) < 5 || len(parts) > 6 || parts[2] == "":
		return Route{}, badRoute(s, "it does not have the fields of a route")
	}
	if r.ClusterID, err = url.PathUnescape(parts[1]); err != nil {
		return Route{}, badRoute(s, "its cluster is not escaped as in a path")
	}
	if r.Group, err = url.PathUnescape(parts[2]); err != nil {
		return Route{}, badRoute(s, "its group is not escaped as in a path")
	}
	if r.Revision, err = strconv.ParseUint(parts[3], 10, 64); err != nil {
		return Route{}, badRoute(s, "its revision is not a number")
	}
	if r.Fingerprint, err = strconv.ParseUint(parts[4], 16, 64); err != nil {
		return Route{}, badRoute(s, "its fingerprint is not a hexadecimal number")
	}
	if len(parts) == 6 {
		if r.Fallback, err = strconv.Atoi(parts[5]); err != nil || r.Fallback < 0 || r.Fallback > maxFallback {
			return Route{}, badRoute(s, fmt.Sprintf("its number of skipped members is not in 0–%d", maxFallback))
		}
	}
	return r, nil
}

func badRoute(s, why string) error {
	return invalid(RouteHeader, routeForm, fmt.Sprintf("%q is not a route: %s", shorten(s), why))
}

func invalid(field, limit, message string) error {
	return &sdk.Error{
		Op: "route", Reason: sdk.Reason(registrypb.ErrorDetail_INVALID_ARGUMENT), Code: codes.InvalidArgument,
		Field: field, Limit: limit, Message: message,
	}
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// SetHeader puts the route into an HTTP request's header.
func (r Route) SetHeader(h http.Header) { h.Set(RouteHeader, r.String()) }

// RouteFromHeader returns the route of an HTTP request, or nil if it has none.
func RouteFromHeader(h http.Header) (*Route, error) {
	return routeOf(h.Values(RouteHeader))
}

// Outgoing puts the route into the metadata of the gRPC calls made with the
// context.
func (r Route) Outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Set(RouteHeader, r.String())
	return metadata.NewOutgoingContext(ctx, md)
}

// RouteFromIncoming returns the route of a gRPC call that is being served, or
// nil if it has none.
func RouteFromIncoming(ctx context.Context) (*Route, error) {
	return routeOf(metadata.ValueFromIncomingContext(ctx, strings.ToLower(RouteHeader)))
}

func routeOf(values []string) (*Route, error) {
	switch len(values) {
	case 0:
		return nil, nil
	case 1:
		r, err := ParseRoute(values[0])
		if err != nil {
			return nil, err
		}
		return &r, nil
	}
	return nil, invalid(RouteHeader, "one value", "more than one route")
}
