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

// clusterID tells clusters of one name apart: it is made of the founders' data
// directories, so all founders make the same, and a wiped node makes another.
func clusterID(founders []Founder) string {
	h := sha256.New()
	for _, f := range founders {
		fmt.Fprintf(h, "%s\n", f.Incarnation)
	}
	return hex.EncodeToString(h.Sum(nil)[:rafttransport.ClusterIDSize/2])
}

// found notes that this node forms a cluster with others, before it does.
func (s *Store) found(nodes []Hello) error {
	founders := make([]Founder, len(nodes))
	for i, n := range nodes {
		founders[i] = Founder{ID: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version, Incarnation: n.Incarnation}
	}
	slices.SortFunc(founders, func(a, b Founder) int { return cmp.Compare(a.ID, b.ID) })
	return s.belong(clusterID(founders), founders)
}

// belong makes this node part of a cluster: from now on it votes and follows
// there, and nowhere else.
func (s *Store) belong(cluster string, founders []Founder) error {
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
	next.ClusterID, next.Founders = cluster, founders
	if err := next.save(s.cfg.DataDir); err != nil {
		return err
	}
	s.ident.Store(&next)
	return nil
}

// ClusterID is the id of the cluster that this node belongs to; empty before.
func (s *Store) ClusterID() string { return s.ident.Load().ClusterID }

func (s *Store) founders() []Founder { return s.ident.Load().Founders }

// Target is a node that a question is for. Whoever else answers at its address
// must not.
type Target struct {
	Bind      string
	ID        string // empty: whichever node of the cluster
	ClusterID string
}

// IsTarget returns [ErrMembership] when a question is for another node.
func (s *Store) IsTarget(id, cluster string) error {
	if own := s.ClusterID(); cluster != own {
		return fmt.Errorf("%w: the call is for cluster id %q, this is %q", ErrMembership, cluster, own)
	}
	if id != "" && id != s.cfg.ID {
		return fmt.Errorf("%w: the call is for node %q, this is %q", ErrMembership, id, s.cfg.ID)
	}
	return nil
}

// target is the node with that address in this node's own cluster.
func (s *Store) target(bind, id string) Target {
	return Target{Bind: bind, ID: id, ClusterID: s.ClusterID()}
}

func (s *Store) streams() *rafttransport.Streams {
	return rafttransport.NewStreams(rafttransport.StreamsConfig{
		Listener: s.cfg.Listener, Advertise: s.cfg.BindAdvertise, Dial: s.cfg.DialRaft,
		ClusterID: s.ClusterID, Foreign: s.calledFromOutside,
		Failed: s.failed, Lost: s.lostStream, Idle: s.cfg.idleLimit,
	})
}

// calledFromOutside handles a raft call of another cluster. Of a node that is
// all of its cluster it means that it was wiped and then started as if it were
// the first: the cluster that it was part of still calls it. That is believed of a
// cluster that holds nothing yet; any other node goes on.
func (s *Store) calledFromOutside(from string) {
	servers, _, err := s.configuration()
	fresh := s.State().GroupCount() == 0
	if err != nil || len(servers) != 1 || !fresh {
		// One key for all: a stranger must not fill the log, whatever it calls itself.
		if dropped, ok := s.strangers.pass("", time.Now()); ok {
			s.log.Warn("raft call from another cluster refused", "from_cluster_id", from, "own_cluster_id", s.ClusterID(), "repeated", dropped)
		}
		return
	}
	s.fail(fmt.Errorf("%w: node id %q is taken: another cluster counts %s among its nodes, so this node lost its data directory there and is now a cluster of its own by mistake; "+
		"take the old node out there with: registry cluster remove %s, and start with an empty directory, another -id and -registries",
		ErrMembership, s.cfg.ID, s.cfg.BindAdvertise, s.cfg.ID))
}
