package registry_test

import (
	"flag"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/docs"
	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/rings"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/portmux"
	"github.com/werbenhu/registry/store/rafttransport"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

var descParts = regexp.MustCompile(`fqName: "([^"]+)", help: "((?:[^"\\]|\\.)*)", (?:unit: "[^"]*", )?constLabels: {(.*)}, variableLabels: {(.*)}}`)

// metricRow is a line of the reference, of one or more descriptions.
type metricRow struct{ name, kind, labels, help string }

func metricRows(t *testing.T, n *registry.Node) (rows []metricRow) {
	t.Helper()
	kinds := regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(scrape(t, n), -1)
	byName := make(map[string]string)
	for _, m := range kinds {
		byName[m[1]] = m[2]
	}
	seen := make(map[string]bool)
	for _, d := range n.MetricDescs() {
		m := descParts.FindStringSubmatch(d)
		if m == nil {
			t.Fatalf("not understood: %s", d)
		}
		if seen[m[1]] {
			continue // it has a constant label with several values
		}
		seen[m[1]] = true
		kind := byName[m[1]]
		if kind == "" {
			kind = "gauge" // has no sample yet; counters and histograms always have one
		}
		label, _, _ := strings.Cut(m[3], "=")
		labels := strings.ReplaceAll(strings.Trim(label+","+m[4], ","), ",", ", ")
		rows = append(rows, metricRow{m[1], kind, labels, m[2]})
	}
	return rows
}

// TestDocumentedMetrics: the reference lists what a node exports.
func TestDocumentedMetrics(t *testing.T) {
	n := registrytest.Start(t).Nodes()[0]
	scrape(t, n) // which is itself counted
	table := "| metric | type | labels | |\n|---|---|---|---|\n"
	for _, r := range metricRows(t, n) {
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", r.name, r.kind, r.labels, r.help)
	}
	if err := docs.Generated(".", "docs/reference/metrics.md", "metrics", table, *update); err != nil {
		t.Error(err)
	}
}

// TestDocumentedLimits: the reference has the values of the code's constants.
func TestDocumentedLimits(t *testing.T) {
	name := fmt.Sprintf("1 – %d bytes of printable UTF-8 without `/`", fsm.MaxNameLength)
	parts := map[string][][2]string{
		"fields": {
			{"group, member id, node id, zone", name},
			{"address", fmt.Sprintf("`host:port` that others can dial, not `0.0.0.0` or `[::]`; at most %d bytes, port 1 – 65535", fsm.MaxAddrLength)},
			{"weight", fmt.Sprintf("%d – %d", ring.MinWeight, ring.MaxWeight)},
			{"metadata", fmt.Sprintf("at most %d pairs and %s in all", fsm.MaxMetaPairs, size(fsm.MaxMetaBytes))},
			{"TTL", fmt.Sprintf("%s – %s; %s by default", short(fsm.MinTTL), short(fsm.MaxTTL), short(fsm.DefaultTTL))},
			{"hold", fmt.Sprintf("%s – %s", short(fsm.MinHold), short(fsm.MaxHold))},
			{"instance", fmt.Sprintf("1 – %d bytes; 16 random bytes are usual", fsm.MaxInstance)},
			{"token", fmt.Sprintf("1 – %d grants; its name as a group's, a prefix at most %d bytes; at most %s tokens", fsm.MaxGrants, fsm.MaxNameLength, count(fsm.MaxTokens))},
			{"key", fmt.Sprintf("at most %s, any bytes", size(fsm.MaxKeyLength))},
		},
		"rings": {
			{"virtual nodes", fmt.Sprintf("a power of two, %d – %d; %d by default", ring.MinVirtualNodes, ring.MaxVirtualNodes, ring.DefaultVirtualNodes)},
			{"bound", fmt.Sprintf("off, or %.2f – %.2f fair shares", ring.MinBound/1000., ring.MaxBound/1000.)},
			{"points of one ring (virtual nodes × weights)", count(ring.MaxPoints)},
			{"members of one ring", count(ring.MaxMembers)},
			{"members of all groups", count(fsm.MaxTotalMembers)},
			{"groups", count(fsm.MaxGroups)},
			{"members that go with a group that is deleted by force", count(fsm.MaxFencedDeletion)},
		},
		"calls": {
			{"leases in a heartbeat, keys in a call, owners of a key", count(fsm.MaxBatch)},
			{"a request", size(rpc.MaxRequest)},
			{"an answer", size(rpc.MaxAnswer) + "; a longer list is refused with the field `page_size`, `keys` or `n`"},
			{"a page of a list, a piece of an event", size(rpc.MaxPiece)},
			{"a snapshot file that is restored into a running cluster", size(fsm.MaxRestore) + "; a new cluster takes larger ones"},
		},
		"connections": {
			{"connections of clients to one node", count(registry.MaxClientConns)},
			{"connections of nodes to one node", fmt.Sprintf("%s; of raft %s", count(registry.MaxNodeConns), count(rafttransport.MaxStreams))},
			{"connections of one source", fmt.Sprintf("%s of clients, %s of nodes; the node's own machine may have all", count(registry.MaxClientConns/registry.SourceShare), count(registry.MaxNodeConns/registry.SourceShare))},
			{"first bytes, or the TLS handshake", fmt.Sprintf("within %s", short(portmux.SniffTimeout))},
			{"wrong tokens of one source", fmt.Sprintf("%d within %s; after that each is refused with the time until the next may be looked at", auth.MaxFailures, short(auth.FailureWindow))},
			{"headers of a call", fmt.Sprintf("%s of gRPC, %s of HTTP", size(rpc.MaxHeaders), size(rpc.MaxHTTPHeaders))},
			{"calls and streams at a time, on one connection", fmt.Sprintf("%s of a client, %s of a node; gRPC lets more wait", count(rpc.MaxClientStreams), count(rpc.MaxNodeStreams))},
			{"open streams of all clients of one node", fmt.Sprintf("%s; one more is refused with `BUSY` and the field `streams`", count(rpc.MaxStreams))},
			{"other gRPC calls of all clients at a time", fmt.Sprintf("%s; one more is refused with `BUSY` and the field `calls`", count(rpc.MaxCalls))},
			{"the request of a gRPC call", fmt.Sprintf("within %s after its headers; then the call ends with `DEADLINE_EXCEEDED`. Calls whose clients send streams have no such limit", short(rpc.RequestTime))},
			{"a connection without calls", fmt.Sprintf("%s of gRPC, %s of HTTP", short(rpc.IdleTime), short(rpc.HTTPIdleTime))},
			{"an HTTP request", fmt.Sprintf("its headers within %s, then its answer within %s; a body is not read", short(rpc.HTTPHeaderTimeout), short(rpc.HTTPTimeout))},
			{"TLS handshakes that compute at a time", "half the processors, at least one, at each port"},
		},
		"nodes": {
			{"`-ring-memory`", fmt.Sprintf("at least %s; %s by default", size(rings.MinMemory), size(rings.DefaultMemory))},
			{"`-min-free-disk`", size(store.DefaultMinFreeDisk) + " by default"},
			{"`-election-timeout`", fmt.Sprintf("50 ms – 1 m; %s by default", short(store.DefaultElectionTimeout))},
			{"`-remove-dead-after`", fmt.Sprintf("0, or at least %s; 0 by default", short(store.MinRemoveDeadAfter))},
			{"`-min-voters`", fmt.Sprintf("%d – 99; %d by default", store.DefaultMinVoters, store.DefaultMinVoters)},
			{"`-delete-empty-after`", fmt.Sprintf("0, or at least %s; 0 by default", short(store.MinDeleteEmptyAfter))},
			{"`-snapshot-threshold`", fmt.Sprintf("at least %d entries; %s by default", store.MinSnapshotThreshold, count(store.DefaultSnapshotThreshold))},
			{"`-snapshot-interval`", fmt.Sprintf("at least %s; %s by default", short(store.MinSnapshotInterval), short(store.DefaultSnapshotInterval))},
			{"a write of the log", fmt.Sprintf("ends the node after %s", short(store.DefaultMaxHang))},
		},
	}
	for name, rows := range parts {
		table := "| | limit |\n|---|---|\n"
		for _, r := range rows {
			table += fmt.Sprintf("| %s | %s |\n", r[0], r[1])
		}
		if err := docs.Generated(".", "docs/reference/limits.md", name, table, *update); err != nil {
			t.Error(err)
		}
	}
}

func size(bytes int) string {
	for _, u := range []struct {
		of   int
		name string
	}{{1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if bytes%u.of == 0 {
			return fmt.Sprintf("%d %s", bytes/u.of, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func short(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Second == 0:
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d ms", d/time.Millisecond)
}

// count writes a number with commas.
func count(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", count(n/1000), n%1000)
}
