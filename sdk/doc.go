// Package sdk is the client of the registry: services register themselves with
// it, routers ask it who owns a key.
//
//	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800")
//	reg, err := client.Register(ctx, sdk.Service{Group: "web", ID: "web1", Addr: "172.16.3.3:8080"})
//	m, err := client.Match(ctx, "web", "user-id-1") // m.ID, m.Addr
//
// # What it promises
//
// A call asks one node and, when that fails, is late, has no leader or has not
// caught up, the next, in rounds with a growing pause, until its context ends
// (after 10 s without a deadline). A node that refuses connections costs
// nothing, one that is silent the attempt timeout, once: later calls pass it
// over. Nodes are reached directly: the environment's proxy variables do not
// count.
//
// From a second after the first answer the client follows the addresses of all
// nodes, over a stream that tells of each change. It survives the loss of those
// that it was given, also when all nodes move, one after another. Addresses that
// work are kept until one of a newer list does, and the given ones always.
//
// Reads never go back in time: the client remembers the highest log index that
// it has seen, and no node answers it from an older state. Freshness beyond
// that is asked for by Linearizable, AtLeast and MaxStaleness, and a Receipt
// tells what an answer was computed from. Should the cluster itself lose a part
// of its log, because its nodes were put back to an older state, the client
// notices by a linearizable read and starts anew.
//
// A client is of one cluster: the one that WithCluster, or the copy of a ring on
// disk, names, or else the one that gives it its first answer. It holds to that
// cluster's id for its life. A node of another, at an address that was reused for
// instance, is passed over like one that is down, and nothing is ever taken from
// it. Where no node of the own cluster is left, calls end with ErrWrongCluster;
// registrations, watches and rings go on trying, and say it by EventUnreachable, in
// an event and in RingStats. A cluster that was formed anew is
// another cluster, also under the same name: only a new Client follows it, and
// without a copy on disk of the old one.
//
// Writes are repeated after failures as well: all but Join, Remove and Transfer
// are idempotent by their own fields. A write whose context ends before the
// outcome is certain is ErrOutcomeUnknown, never a failure.
//
// A Registration is kept by heartbeats, three in each TTL, all registrations
// of a client in batches over one stream, to the leader if it can be reached
// and through any other node if not. A lost lease is registered again, for
// ever; a seat that another process took, or an operator removed, ends the
// registration. What happens is told to Service.OnEvent.
//
// # Restarts and departures
//
// Registration.Hold keeps the seat for a planned restart: the service stays the
// owner of its keys, its fallback serves them, and the next to register the id
// has the seat again; no key moves for good. Registration.Drain gives the keys
// away and lets the service finish; its Close then moves no key.
//
// # Watches and rings
//
// Client.Ring keeps a group's ring in this process: Match then asks nobody, and
// goes on while no node can be reached. Client.Watch tells of the changes of a
// group as soon as a node has applied them; WatchPrefix, WatchGroups and WatchNodes
// tell of more.
//
//	ring, err := client.Ring(ctx, "web", sdk.WithDiskCopy("/var/lib/gateway/ring"))
//	m, err := ring.Match("user-id-1")
//
// Both survive the loss of nodes, and show no state older than one shown before,
// nor an empty group that the log did not make empty: where a node seems to have
// gone back, the leader decides. A cluster that lost a part of its log is told as
// Rebuilt. The members have the fingerprint that the node sent, at every step, or
// they are not shown and no ring is built of them. A watch that gets nothing from
// any node says so in an event, and a ring in its RingStats; both go on trying.
//
// Rings are built one at a time of the newest state, within a share of one
// processor (WithBuildShare): under lasting change one build is for several
// changes. RingStats.Builds counts them.
//
// Package routing routes HTTP requests by a ring and package grpcring gRPC calls. A
// service checks there that a request is for it, whatever ring the router had.
//
// # What it does not promise
//
// A ring is as fresh as its Age says: until a change has reached it, Match
// answers from the state before. A copy of a ring on disk may be a second behind
// the ring in its revision and ten in its age, if the process is killed.
//
// A client that reaches no node cannot tell whether its seats are still held:
// OnEvent says EventUnreachable when a TTL has passed, and work that needs the
// seat must stop there. Two clients may see a change of a group at different
// times; compare fingerprints of receipts where that matters. Connections are
// not encrypted unless WithDialOptions says how.
package sdk
