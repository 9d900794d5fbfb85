package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/werbenhu/registry/store/rafttransport"
)

// clusterID distinguishes clusters of one name. It is a hash of the founders' data
// directory ids, so all founders compute the same one, and a wiped node another.
func clusterID(founders []Founder) string {
	h := sha256.New()
	for _, f := range founders {
		fmt.Fprintf(h, "%s\n", f.Incarnation)
	}
	return hex.EncodeToString(h.Sum(nil)[:rafttransport.ClusterIDSize/2])
}

// saveFounders saves the founders of a cluster, before this node forms it.
func (s *Store) saveFounders(nodes []Hello) error {
	founders := make([]Founder, len(nodes))
	for i, n := range nodes {
		founders[i] = Founder{ID: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version, Incarnation: n.Incarnation}
	}
	slices.SortFunc(founders, func(a, b Founder) int { return cmp.Compare(a.ID, b.ID) })
	return s.setCluster(clusterID(founders), founders, nil, foundersLevel(nodes))
}

// setCluster saves the cluster that this node belongs to, and its feature level, as far
// as it is known. From then on it votes and follows in that cluster only.
func (s *Store) setCluster(cluster string, founders []Founder, recoveredFrom []string, level uint32) error {
	s.identMu.Lock()
	defer s.identMu.Unlock()
	own := s.ClusterID()
	if own == cluster {
		return nil
	}
	if own != "" {
		return fmt.Errorf("%w: this node belongs to cluster id %s, not to %s", ErrMembership, own, cluster)
	}
	next := *s.ident.Load()
	next.ClusterID, next.Founders, next.RecoveredFrom = cluster, founders, recoveredFrom
	next.Format = formatOf(max(level, 1))
	if err := next.save(s.cfg.DataDir); err != nil {
		return err
	}
	s.ident.Store(&next)
	return nil
}

// ClusterID is the id of the cluster that this node belongs to; empty before.
func (s *Store) ClusterID() string { return s.ident.Load().ClusterID }

func (s *Store) founders() []Founder { return s.ident.Load().Founders }

// Target is the node that a call is for. Another node at its address refuses it.
type Target struct {
	Bind      string
	ID        string // empty: any node of the cluster
	ClusterID string
}

// IsTarget returns [ErrMembership] for a call to another node.
func (s *Store) IsTarget(id, cluster string) error {
	if own := s.ClusterID(); cluster != own {
		return fmt.Errorf("%w: the call is for cluster id %q, this is %q", ErrMembership, cluster, own)
	}
	if id != "" && id != s.cfg.ID {
		return fmt.Errorf("%w: the call is for node %q, this is %q", ErrMembership, id, s.cfg.ID)
	}
	return nil
}

// target is the node with that address and id in this node's cluster.
func (s *Store) target(bind, id string) Target {
	return Target{Bind: bind, ID: id, ClusterID: s.ClusterID()}
}

func (s *Store) streams() *rafttransport.Streams {
	return rafttransport.NewStreams(rafttransport.StreamsConfig{
		Listener: s.cfg.Listener, Advertise: s.cfg.BindAdvertise, Dial: s.cfg.DialRaft,
		ClusterID: s.ClusterID, Foreign: s.foreignCall,
		Failed: s.failed, Lost: s.lostStream, Idle: s.cfg.idleLimit,
	})
}

// foreignCall handles a raft call from another cluster. If this node is the only
// one of its cluster and the cluster has no groups, the node was probably wiped
// and then started as the first node of a new cluster, while the cluster that it
// was part of still calls it: then it fails. Any other node only logs the call.
func (s *Store) foreignCall(from string) {
	if s.recoveredFrom(from) {
		if dropped, ok := s.foreign.pass("recovered", time.Now()); ok {
			s.log.Error("raft call of a node with its data of before the recovery refused; stop it, and start it with an empty -data-dir",
				"from_cluster_id", from, "own_cluster_id", s.ClusterID(), "repeated", dropped)
		}
		return
	}
	servers, _, err := s.configuration()
	empty := s.State().GroupCount() == 0
	if err != nil || len(servers) != 1 || !empty {
		// One key for all cluster ids: a caller must not fill the log with random ones.
		if dropped, ok := s.foreign.pass("", time.Now()); ok {
			s.log.Warn("raft call from another cluster refused", "from_cluster_id", from, "own_cluster_id", s.ClusterID(), "repeated", dropped)
		}
		return
	}
	s.fail(fmt.Errorf("%w: node id %q is taken: another cluster has a node at %s, so this node lost its data directory and formed a new cluster by mistake; "+
		"remove the old node there with: registry cluster remove %s, and start with an empty directory, -registries and the same or another -id",
		ErrMembership, s.cfg.ID, s.cfg.BindAdvertise, s.cfg.ID))
}
