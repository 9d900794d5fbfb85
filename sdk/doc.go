// Package sdk is the client of the registry: services register themselves with
// it, routers ask it who owns a key.
//
//	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800")
//	reg, err := client.Register(ctx, sdk.Service{Group: "web", ID: "web1", Addr: "172.16.3.3:8080"})
//	m, err := client.Match(ctx, "web", "user-id-1") // m.ID, m.Addr
//
// # What it promises
//
// A call tries one node and, when that node fails, is late, has no leader or has
// not caught up, the next one, in rounds with a growing pause, until its context
// ends (after 10 s without a deadline). A node that refuses connections costs
// nothing; one that is silent costs the attempt timeout once, because later calls
// skip it. Connections are direct and ignore the environment's proxy variables.
//
// From a second after the first answer the client follows the addresses of all
// nodes over a stream. It survives the loss of the nodes that it was given, even
// when all nodes move, one after another. Working addresses are kept until one of a
// newer list works, and the given ones always.
//
// Reads never go back in time: the client remembers the highest log index that
// it has seen, and no node answers it from an older state. Linearizable, AtLeast
// and MaxStaleness ask for more, and a Receipt says what an answer was computed
// from. If the cluster itself loses a part of its log, because its nodes were
// restored to an older state, a linearizable read shows that, and the client
// accepts the older index.
//
// A client belongs to one cluster: the one that WithCluster, or the copy of a ring
// on disk, names, or else the one of its first answer. It keeps that cluster's id
// for its life. A node of another cluster, at a reused address for instance, is
// skipped like a node that is down, and its answers are discarded. When no node of
// the client's cluster is left, calls end with ErrWrongCluster; registrations,
// watches and rings keep trying, and report it by EventUnreachable, an event and
// RingStats. A cluster that was formed anew is another cluster, even under the same
// name: it takes a new Client, without the old copy on disk.
//
// Writes are repeated after failures as well: all but Join, Remove and Transfer
// are idempotent by their own fields. A write whose context ends before the
// outcome is certain is ErrOutcomeUnknown, never a failure.
//
// Heartbeats keep a Registration, three in each TTL. All registrations of a client
// share one stream, to the leader if it can be reached, else through another node.
// After the loss of its lease a service is registered again, without limit of time.
// A Registration ends when another process takes over the id or an operator removes
// the member. Service.OnEvent reports all of it.
//
// # Tokens
//
// WithToken and WithTokenFile send a token with every call, as a cluster with tokens
// demands. A call whose token is not valid tries two further nodes, since one may not
// have applied it yet, and is then ErrUnauthenticated; without the needed right it is
// ErrPermissionDenied at once. A registration says by EventUnreachable that the token is
// refused, a watch by an event and a ring in RingStats. They keep trying, every five
// seconds in the end, and a ring keeps its state. Of several registrations the refused
// ones do not disturb the others: one whose member belongs to another token is
// ErrNotOwner until that member's lease has ended, and is then registered anew.
//
// # Restarts and departures
//
// Registration.Hold keeps the member for a planned restart: it stays the owner of
// its keys, its fallback serves them, and the next registration of the id takes
// over; no key moves for good. Registration.Drain gives the keys away and lets the
// service finish; its Close then moves no key.
//
// # Watches and rings
//
// Client.Ring keeps a group's ring in this process: Match is then local, and works
// while no node can be reached. Client.Watch reports the changes of a group as soon
// as a node has applied them; WatchPrefix, WatchGroups and WatchNodes report others.
//
//	ring, err := client.Ring(ctx, "web", sdk.WithDiskCopy("/var/lib/gateway/ring"))
//	m, err := ring.Match("user-id-1")
//
// Both survive the loss of nodes. They show no state older than one shown before,
// and an empty group only if the log made it empty: where a node seems to have gone
// back, the leader decides. Rebuilt marks a cluster that lost a part of its log. A
// state whose members do not have the fingerprint that the node sent is neither
// shown nor built into a ring. Without news from any node a watch sends an event,
// and a ring reports it in RingStats; both keep trying.
//
// Rings are built from the newest state, one at a time, within a share of one
// processor (WithBuildShare): under lasting change one build covers several
// changes. RingStats.Builds counts builds.
//
// Package routing routes HTTP requests by a ring, and package grpcring gRPC calls.
// With routing.Owner a service checks that a request is for it.
//
// # What it does not promise
//
// Age says how stale a ring is: until a change arrives, Match answers from the
// state before. If the process is killed, the copy on disk may be a second behind
// the ring in its revision and ten in its age.
//
// A client that reaches no node cannot tell whether its services are still
// registered: after a TTL, OnEvent reports EventUnreachable, and work that needs the
// registration must stop. Two clients may see a change at different times; compare
// fingerprints of receipts where that matters. Connections are not encrypted without
// WithTLS or WithTLSFiles.
package sdk
