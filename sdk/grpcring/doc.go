// Package grpcring routes gRPC calls by the ring of a group: a resolver for
// registry:///group and a balancer policy that sends each call to the member
// that owns its key.
//
//	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800")
//	conn, err := grpc.NewClient("registry:///web",
//		grpc.WithResolvers(grpcring.NewBuilder(client)),
//		grpc.WithTransportCredentials(insecure.NewCredentials()),
//		grpc.WithNoProxy())
//	reply, err := pb.NewWebClient(conn).Get(grpcring.WithKey(ctx, "user-id-1"), request)
//
// # Keys
//
// The key of a call is the one of WithKey, or else the value of a metadata
// header, if WithKeyHeader names one; values of a header that is there more than
// once are joined by commas, as gRPC's own ring_hash does. A stream has one key
// and stays with its member. A call without a key belongs to nobody: it is
// refused with code Internal (the codes that would say it better are not for
// balancers, by gRFC A54), or with WithKeyless(Spread) goes to the members that
// are connected, in turn.
//
// # Who gets a call
//
// The candidates of a key are its owner and the next Fallbacks distinct members
// clockwise, 1 by default; members that are held are passed over, unless too few
// others are there. The first candidate gets the call that is not unreachable:
//
//   - A member is unreachable from when a connection to it failed until one
//     succeeds; attempts go on in the background, with gRPC's backoff. When the
//     registry tells of a change of the member, which a new registration is, the
//     backoff ends at once.
//   - A held member, one that is away for a planned restart, gets calls only if
//     hardly another is there. Its fallback gets them, which a routing.Owner accepts
//     like an owner's.
//   - A member that no call has needed yet has no connection; the first call
//     makes it, and waits. So does a call to one that is being connected.
//
// If every candidate is unreachable the call fails with Unavailable and the
// owner's error, or waits, if it is to wait for ready. Calls that cannot be
// served because the group is unknown, empty or too old fare the same way.
//
// Draining members own no keys and get no calls. Calls in progress to a member
// that leaves, or changes its address, are let finish.
//
// # Promises
//
// Every call is routed by one state of the ring, whole; Route says which, in the
// call's metadata, for a server's routing.Owner to check. Picking takes no lock and
// allocates nothing for a call whose owner is connected and whose key comes from
// WithKey. A change of addresses moves no key.
//
// All connections of one builder to a group share one ring, which lives until
// the client is closed: a connection that was idle needs no registry to go on,
// nor does one that is new. Close connections before the client: calls fail with
// sdk.ErrClosed's message afterwards.
//
// # What is not promised
//
// A ring is as fresh as its Age says. A member whose machine vanishes without a
// word stays connected until TCP or keepalive notices, and is being connected
// until the connect timeout has passed (20 s by default): give
// grpc.WithKeepaliveParams and grpc.WithConnectParams where that is too long.
//
// A call that a routing.Owner refuses, because its ring is newer, fails: nothing was
// done, and routing.MisdirectedCall tells the owner. A retry policy for
// FAILED_PRECONDITION in WithServiceConfig sends it again, by the ring as it is
// then. Calls that carry a routing.Route of their own making need WithoutRoute:
// owners refuse two.
//
// With fallbacks two members may serve a key at one revision, if one router
// reaches the owner and another does not. A server that must not have that
// refuses by routing.Owner, or the client asks for no fallbacks.
//
// The service config comes from the resolver, so grpc.WithDefaultServiceConfig
// has no effect: give its content to WithServiceConfig. With
// grpc.WithDisableServiceConfig the default counts again, and must name a policy:
//
//	{"loadBalancingConfig": [{"registry_ring": {"keyHeader": "x-user-id", "keyless": "spread", "fallbacks": 2, "route": true}}]}
//
// Every field may be missing. Other policies, round_robin for instance, work
// with this resolver too, without keys.
//
// The connections are gRPC's, which by default makes them through the proxy that
// HTTPS_PROXY names, members on private addresses included: give
// grpc.WithNoProxy, unless that is wanted. The SDK's own connections are direct.
//
// With TLS, certificates are checked for the name of the group, unless
// grpc.WithAuthority names another.
package grpcring
