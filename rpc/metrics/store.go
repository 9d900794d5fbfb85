package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/werbenhu/registry/store"
)

// MaxGroups bounds the groups with their own series: those in which the mass-loss guard
// acts, in the order of their names.
const MaxGroups = 100

// storeCollector reads a store at a scrape.
type storeCollector struct {
	store *store.Store
	info  prometheus.Metric
}

func newStoreCollector(s *store.Store) *storeCollector {
	st := s.Status()
	return &storeCollector{store: s, info: prometheus.MustNewConstMetric(
		prometheus.NewDesc("registry_build_info", "1, with the version, node, cluster and zone as labels.", []string{"version", "go_version", "node", "cluster", "zone"}, nil),
		prometheus.GaugeValue, 1, st.Version, runtime.Version(), st.ID, st.Cluster, st.Zone)}
}

// storeMetric is a metric that is read from the store.
type storeMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	from func(*store.Metrics) float64
}

func gauge(name, help string, from func(*store.Metrics) float64) storeMetric {
	return storeMetric{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, from}
}

func counter(name, help string, from func(*store.Metrics) float64) storeMetric {
	return storeMetric{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, from}
}

func labelled(name, help, label, value string, from func(*store.Metrics) float64) storeMetric {
	return storeMetric{prometheus.NewDesc(name, help, nil, prometheus.Labels{label: value}), prometheus.CounterValue, from}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var storeMetrics = []storeMetric{
	gauge("registry_ready", "1 if this node answers reads and has caught up since its start.", func(m *store.Metrics) float64 { return boolValue(m.Ready) }),
	gauge("registry_alarms", "Alarms, which registry cluster status lists.", func(m *store.Metrics) float64 { return float64(m.Alarms) }),
	gauge("registry_groups", "Groups, including empty ones.", func(m *store.Metrics) float64 { return float64(m.Groups) }),
	gauge("registry_members", "Members of all groups.", func(m *store.Metrics) float64 { return float64(m.Members) }),
	gauge("registry_tokens_revision", "Log index of the last change of the tokens that this node has applied; 0 without tokens.", func(m *store.Metrics) float64 { return float64(m.TokensRevision) }),
	gauge("registry_leases", "Leases that this node holds as the leader; 0 on followers.", func(m *store.Metrics) float64 { return float64(m.Leases) }),
	counter("registry_heartbeats_total", "Lease renewals that this node acknowledged as the leader.", func(m *store.Metrics) float64 { return float64(m.Renewed) }),
	counter("registry_heartbeats_lost_total", "Lease ids in heartbeats that were no longer valid.", func(m *store.Metrics) float64 { return float64(m.NotLeased) }),
	counter("registry_leases_expired_total", "Leases whose expiry this node committed.", func(m *store.Metrics) float64 { return float64(m.Expired) }),
	counter("registry_stalls_total", "Times that this process stalled as the leader, after which leases got time to renew.", func(m *store.Metrics) float64 { return float64(m.Stalls) }),

	gauge("registry_guard_silent_leases", "Leases past their deadline that the mass-loss guard has not let expire.", func(m *store.Metrics) float64 { return float64(m.Guard.Silent) }),
	gauge("registry_guard_groups", "Groups in which the guard holds or releases members.", func(m *store.Metrics) float64 { return float64(len(m.Guard.Holding)) }),
	counter("registry_guard_holds_total", "Mass losses that the guard began to hold.", func(m *store.Metrics) float64 { return float64(m.Guard.Holds) }),
	counter("registry_guard_returned_total", "Held members that sent a heartbeat again.", func(m *store.Metrics) float64 { return float64(m.Guard.Returned) }),
	counter("registry_guard_released_total", "Held members that were released and expired.", func(m *store.Metrics) float64 { return float64(m.Guard.Gone) }),
	counter("registry_guard_accepted_total", "Losses that an operator accepted.", func(m *store.Metrics) float64 { return float64(m.Guard.Accepted) }),

	gauge("registry_raft_leader", "1 if this node leads.", func(m *store.Metrics) float64 { return boolValue(m.Leader) }),
	gauge("registry_raft_term", "Current term.", func(m *store.Metrics) float64 { return float64(m.Term) }),
	gauge("registry_raft_commit_index", "Last log index known to be committed.", func(m *store.Metrics) float64 { return float64(m.CommitIndex) }),
	gauge("registry_applied_index", "Last log index applied to the state.", func(m *store.Metrics) float64 { return float64(m.AppliedIndex) }),
	gauge("registry_raft_last_index", "Last log index stored.", func(m *store.Metrics) float64 { return float64(m.LastIndex) }),
	gauge("registry_raft_last_contact_seconds", "Time since this node heard from the leader; 0 on the leader. 3153600000 (100 years) while it answers and has heard from none since its start.", func(m *store.Metrics) float64 { return m.Lag.Seconds() }),
	gauge("registry_raft_voters", "Voters in the configuration.", func(m *store.Metrics) float64 { return float64(m.Voters) }),
	gauge("registry_raft_nonvoters", "Non-voters in the configuration.", func(m *store.Metrics) float64 { return float64(m.Nonvoters) }),
	counter("registry_raft_leader_changes_total", "Terms that began while this node was ready.", func(m *store.Metrics) float64 { return float64(m.LeaderChanges) }),
	counter("registry_raft_elections_won_total", "Times that this node became the leader.", func(m *store.Metrics) float64 { return float64(m.Led) }),
	counter("registry_empty_groups_deleted_total", "Empty groups that this node deleted as the leader: -delete-empty-after.", func(m *store.Metrics) float64 { return float64(m.EmptyDeleted) }),
	counter("registry_dead_voters_removed_total", "Dead voters that this node removed as the leader: -remove-dead-after.", func(m *store.Metrics) float64 { return float64(m.DeadRemoved) }),

	labelled("registry_state_checks_total", "Comparisons of this node's state with the others', by result.", "result", "agreed", func(m *store.Metrics) float64 { return float64(m.Agreed) }),
	labelled("registry_state_checks_total", "Comparisons of this node's state with the others', by result.", "result", "other_wrong", func(m *store.Metrics) float64 { return float64(m.Majority) }),
	labelled("registry_state_checks_total", "Comparisons of this node's state with the others', by result.", "result", "undecided", func(m *store.Metrics) float64 { return float64(m.Undecided) }),
	labelled("registry_state_checks_total", "Comparisons of this node's state with the others', by result.", "result", "wrong", func(m *store.Metrics) float64 { return float64(m.Wrong) }),
	counter("registry_state_reinstalls_total", "Times that this node replaced its state because it differed from the majority's, or was damaged in memory.", func(m *store.Metrics) float64 { return float64(m.Reinstalls) }),

	counter("registry_ring_builds_total", "Rings built.", func(m *store.Metrics) float64 { return float64(m.Rings.Builds) }),
	counter("registry_ring_build_seconds_total", "Time of ring builds.", func(m *store.Metrics) float64 { return m.Rings.Took.Seconds() }),
	gauge("registry_ring_builds_pending", "Rings that wait to be built or are being built.", func(m *store.Metrics) float64 { return float64(m.Rings.Pending) }),
	counter("registry_ring_busy_total", "Requests that were refused because too many rings waited to be built.", func(m *store.Metrics) float64 { return float64(m.Rings.Busy) }),
	counter("registry_ring_evictions_total", "Rings that were evicted to make room for others.", func(m *store.Metrics) float64 { return float64(m.Rings.Evicted) }),
	counter("registry_ring_verifications_total", "Updated rings that were compared with a rebuilt one.", func(m *store.Metrics) float64 { return float64(m.Rings.Verified) }),
	counter("registry_ring_mismatches_total", "Updated rings that differed from a rebuilt one.", func(m *store.Metrics) float64 { return float64(m.Rings.Mismatches) }),
	gauge("registry_rings", "Rings in memory.", func(m *store.Metrics) float64 { return float64(m.Rings.Rings) }),
	gauge("registry_ring_memory_bytes", "Memory of the rings that are kept and of those being built.", func(m *store.Metrics) float64 { return float64(m.Rings.Bytes) }),
	gauge("registry_ring_memory_limit_bytes", "Limit of registry_ring_memory_bytes: -ring-memory.", func(m *store.Metrics) float64 { return float64(m.Rings.Memory) }),

	gauge("registry_disk_low", "1 while less than -min-free-disk is free.", func(m *store.Metrics) float64 { return boolValue(m.DiskLow) }),
	gauge("registry_log_size_bytes", "Size of raft.db, which never shrinks, and of the log's segments.", func(m *store.Metrics) float64 { return float64(m.LogSize) }),
	gauge("registry_log_entries", "Entries in the log.", func(m *store.Metrics) float64 {
		if m.FirstIndex == 0 || m.LastIndex < m.FirstIndex {
			return 0
		}
		return float64(m.LastIndex - m.FirstIndex + 1)
	}),
	gauge("registry_log_free_pages", "Pages of raft.db that are free.", func(m *store.Metrics) float64 { return float64(m.Log.FreePageN) }),
	counter("registry_log_writes_total", "Writes to the log: pages of raft.db, and batches and truncations of segments.", func(m *store.Metrics) float64 { return float64(m.LogWrites) }),
	counter("registry_log_write_seconds_total", "Time of writing and syncing the log.", func(m *store.Metrics) float64 { return m.LogWriteTime.Seconds() }),
}

var (
	diskFree = prometheus.NewDesc("registry_disk_free_bytes", "Bytes available to this node in the file system of its data directory.", nil, nil)
	held     = prometheus.NewDesc("registry_guard_group_silent_members", "Silent members of a group in which the guard acts; at most 100 groups.", []string{"group", "phase"}, nil)
)

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.info.Desc()
	out <- diskFree
	out <- held
	for _, r := range storeMetrics {
		out <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(out chan<- prometheus.Metric) {
	m := c.store.Metrics()
	out <- c.info
	for _, r := range storeMetrics {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.from(&m))
	}
	if m.DiskFreeOK {
		out <- prometheus.MustNewConstMetric(diskFree, prometheus.GaugeValue, float64(m.DiskFree))
	}
	for _, g := range m.Guard.Holding[:min(len(m.Guard.Holding), MaxGroups)] {
		out <- prometheus.MustNewConstMetric(held, prometheus.GaugeValue, float64(g.Silent), g.Group, g.Phase.String())
	}
}
