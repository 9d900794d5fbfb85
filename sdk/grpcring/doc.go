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
// and stays with its member. A call without a key is refused with code Internal
// (gRFC A54 keeps balancers from using a better one), or, with WithKeyless(Spread),
// goes to the connected members by round robin.
//
// # Choice of the member
//
// The candidates of a key are its owner and the next Fallbacks distinct members
// clockwise, 1 by default; held members are skipped, unless too few others exist.
// The call goes to the first candidate that is not unreachable:
//
//   - A member is unreachable from a failed connection attempt until one succeeds;
//     attempts continue in the background, with gRPC's backoff. A change of the
//     member, such as a new registration, ends the backoff at once.
//   - A held member, which is away for a planned restart, gets calls only as the
//     last resort. Its fallback gets them; a routing.Owner there accepts them.
//   - A member is connected at the first call that needs it. That call waits, and
//     so do calls to a member that is being connected.
//
// If every candidate is unreachable the call fails with Unavailable and the
// owner's error; with wait-for-ready it waits. The same holds while the group is
// unknown, empty or too old.
//
// Draining members own no keys and get no calls. Calls in progress to a member
// that leaves, or changes its address, finish.
//
// # Promises
//
// Every call is routed by one state of the ring. Its routing.Route is in the call's
// metadata, for a server's routing.Owner to check. Picking takes no lock and
// allocates nothing for a call whose owner is connected and whose key comes from
// WithKey. A change of addresses moves no key.
//
// All connections of one builder to a group share one ring, which lives until
// the client is closed: a new or idle connection works without the registry.
// Close connections before the client: later calls fail with sdk.ErrClosed.
//
// # What is not promised
//
// A ring is as fresh as its Age says. A member whose machine vanishes stays
// connected until TCP or keepalive notices, and connecting to it lasts until the
// connect timeout (20 s by default): grpc.WithKeepaliveParams and
// grpc.WithConnectParams shorten that.
//
// A call that a routing.Owner refuses, because its ring is newer, fails: nothing was
// done, and routing.MisdirectedCall returns the owner. A retry policy for
// FAILED_PRECONDITION in WithServiceConfig repeats it with the ring of that time.
// Calls that carry a routing.Route already need WithoutRoute: owners refuse two.
//
// With fallbacks two members may serve a key at one revision, if one router
// reaches the owner and another does not. To exclude that, check with routing.Owner
// in the server or use no fallbacks.
//
// The service config comes from the resolver, so grpc.WithDefaultServiceConfig
// has no effect: use WithServiceConfig. With grpc.WithDisableServiceConfig the
// default applies again, and must name a policy:
//
//	{"loadBalancingConfig": [{"registry_ring": {"keyHeader": "x-user-id", "keyless": "spread", "fallbacks": 2, "route": true}}]}
//
// Every field is optional. Other policies, such as round_robin, work with this
// resolver too, without keys.
//
// By default gRPC connects through the proxy that HTTPS_PROXY names, also to
// private addresses; grpc.WithNoProxy prevents that. The SDK's own connections are
// direct.
//
// With TLS, certificates must be for the name of the group, unless
// grpc.WithAuthority gives another name.
package grpcring
