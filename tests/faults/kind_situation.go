//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/cluster"
	"github.com/werbenhu/registry/tests/faults/load"
)

// Kinds that hold up a situation which others pass through in a moment.
var situationKinds = []Kind{
	{Name: "deposed-leader", About: "the leader, which waits ten times as long as the others, is cut off: for 3 s it leads without knowing of the new one",
		Needs: needsLinks, Config: oneSlowNode, Inject: deposedLeader},
	{Name: "stop-leaders", About: "SIGSTOP of six leaders in turn, each for about as long as an election takes", Inject: stopLeaders},
	{Name: "quiet-return", About: "a follower is cut off for 5 s: it does not raise its term", Needs: needsLinks, Inject: quietReturn},
	{Name: "restart-alone", About: "a follower is killed and starts while it is cut off from the others: it answers no read before it has caught up", Needs: needsLinks, Inject: restartAlone},
	{Name: "wiped-silent", About: "a node loses its data and finds nobody to join: it follows nobody", Inject: wipedSilent},
	{Name: "foreign-data", About: "a node is started on the data of another: it refuses", Inject: foreignData},
	{Name: "consistency-check", About: "nothing happens for 8 s: no node finds its own state wrong", Inject: watchConsistencyCheck},
}

const slowNode = "n1"

func oneSlowNode(_ context.Context, _ *Env, cfg *cluster.Config) error {
	cfg.EnvOf = func(n *cluster.Node) []string {
		if n.ID == slowNode {
			return []string{"REGISTRY_ELECTION_TIMEOUT=5s"}
		}
		return nil
	}
	return nil
}

func deposedLeader(ctx context.Context, r *Run) error {
	n := r.Cluster.Node(slowNode)
	// A leader whose term has not opened answers nothing anyway.
	if err := errors.Join(r.transfer(ctx, n), r.Cluster.AwaitHealth(ctx), r.Hold(ctx, 500*time.Millisecond)); err != nil {
		return err
	}
	r.Fault([]*cluster.Node{n}, "%s, which leads, is cut off", n.ID)
	err := errors.Join(r.link(n, cluster.Link{Cut: true}, true, true), r.readOwnWrites(ctx, r.Cluster.Others(n)[0], n, 4*time.Second))
	r.Heal("%s is connected", n.ID)
	r.Cluster.Network.Heal()
	return err
}

// readOwnWrites writes at one node and reads at another. The load's clients do
// not read there for long: their writes have no answer.
func (r *Run) readOwnWrites(ctx context.Context, write, read *cluster.Node, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	group := fmt.Sprintf("own-%d", r.Seed)
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprint(i)
		if _, err := write.Registry().Register(ctx, &registrypb.RegisterRequest{Group: group, Id: id, Addr: "10.6.0.1:80", Ttl: durationpb.New(time.Hour)}); err != nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		resp, err := read.Registry().Members(call, &registrypb.MembersRequest{Group: group, Read: &registrypb.ReadOptions{Linearizable: true}})
		cancel()
		if err == nil && !slices.ContainsFunc(resp.Members, func(m *registrypb.Member) bool { return m.Id == id }) {
			return fmt.Errorf("a linearizable read at %s does not have %s/%s, which %s acknowledged before", read.ID, group, id, write.ID)
		}
		if r.Hold(ctx, 100*time.Millisecond) != nil {
			break
		}
	}
	return nil
}

func stopLeaders(ctx context.Context, r *Run) error {
	for range 6 {
		n, err := r.Leader(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(stop(ctx, r, r.between(600*time.Millisecond, 1700*time.Millisecond), n), r.Hold(ctx, r.between(200*time.Millisecond, 900*time.Millisecond))); err != nil {
			return err
		}
	}
	return nil
}

// quietReturn: who cannot win must not stand. Otherwise the node comes back
// with a term that deposes the leader.
func quietReturn(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	r.Fault([]*cluster.Node{n}, "%s is cut off", n.ID)
	errs := []error{r.link(n, cluster.Link{Cut: true}, true, true), r.Hold(ctx, 500*time.Millisecond)}
	before, err := n.Status(ctx, "") // it waits for the others' word until it gives up
	errs = append(errs, err)
	after, err := n.Status(ctx, "")
	errs = append(errs, err)
	r.Heal("%s is connected", n.ID)
	r.Cluster.Network.Heal()
	if was, is := before.GetTerm(), after.GetTerm(); is != was {
		errs = append(errs, fmt.Errorf("%s was cut off and raised its term from %d to %d", n.ID, was, is))
	}
	return errors.Join(errs...)
}

// restartAlone: what a node holds that has just started may be from long ago.
func restartAlone(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	r.Fault([]*cluster.Node{n}, "%s starts while it is cut off", n.ID)
	errs := []error{n.Kill(), r.link(n, cluster.Link{Cut: true}, true, true), n.Start()}
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		call, cancel := context.WithTimeout(ctx, time.Second)
		resp, err := n.Registry().Members(call, &registrypb.MembersRequest{Group: r.Load.Groups()[0]})
		cancel()
		if err == nil {
			errs = append(errs, fmt.Errorf("%s started alone and answers a read, as of index %d", n.ID, resp.Receipt.GetIndex()))
			break
		}
		if load.Reason(err) == registrypb.ErrorDetail_UNKNOWN_GROUP {
			errs = append(errs, fmt.Errorf("%s started alone and says of a group that there is none: %w", n.ID, err))
			break
		}
		errs = append(errs, r.Hold(ctx, 50*time.Millisecond))
	}
	r.Heal("%s is connected", n.ID)
	r.Cluster.Network.Heal()
	return errors.Join(errs...)
}

// wipedSilent: the others go on calling a node that forgot its votes. Before it
// was taken in again it must not answer them.
func wipedSilent(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	nobody := fmt.Sprintf("%v:9", r.Cluster.Others(n)[0].Endpoint().IP)
	r.Fault([]*cluster.Node{n}, "%s loses its data and finds nobody", n.ID)
	if err := errors.Join(n.Kill(), n.Wipe(), n.Start("-registries="+nobody, "-join-timeout=1m"), r.Hold(ctx, 3*time.Second)); err != nil {
		return err
	}
	if !n.Running() {
		return fmt.Errorf("%s ended", n.ID)
	}
	st, err := n.Status(ctx, "")
	if err != nil {
		return fmt.Errorf("status of %s, which is new: %w", n.ID, err)
	}
	var follows error
	if st.Term != 0 || len(st.Nodes) != 0 || st.Leader != "" {
		follows = fmt.Errorf("%s was wiped and nobody took it in, and it is at term %d, follows %q and knows of %d nodes", n.ID, st.Term, st.Leader, len(st.Nodes))
	}
	return errors.Join(follows, n.Kill(), r.rejoin(ctx, n))
}

// foreignData: a node that takes another's data for its own votes twice.
func foreignData(ctx context.Context, r *Run) error {
	n, err := r.Follower(ctx)
	if err != nil {
		return err
	}
	other := r.Cluster.Others(n)[r.Rand.IntN(2)]
	r.Fault(r.Cluster.Nodes, "%s on the data of %s", n.ID, other.ID)
	if err := errors.Join(n.Kill(), other.Kill()); err != nil {
		return err
	}
	since := logSize(n)
	if err := n.Start("-data-dir=" + other.Dir); err != nil {
		return err
	}
	err = within(ctx, 10*time.Second, func() error {
		if n.Running() {
			return fmt.Errorf("%s runs on the data of %s", n.ID, other.ID)
		}
		return nil
	})
	if err == nil {
		err = says(n, since, fmt.Sprintf("belongs to node %q", other.ID))
	}
	r.Heal("%s and %s on their own data", n.ID, other.ID)
	return errors.Join(err, n.Kill(), n.Start(), other.Start())
}

// What a node says that finds its own state wrong, and when that is mended.
const (
	saysWrong       = "state is wrong; this node answers nothing"
	saysReinstalled = "state was reinstalled; the node answers again"
)

// watchConsistencyCheck: on a sound cluster it finds nothing. Where it does, it
// tells how soon, and whether the node's rings were right from then on.
func watchConsistencyCheck(ctx context.Context, r *Run) error {
	r.Fault(nil, "none")
	began := time.Now()
	var wrong *cluster.Node
	for wrong == nil && time.Since(began) < 8*time.Second {
		for _, n := range r.Cluster.Nodes {
			if said(n, saysWrong) {
				wrong = n
			}
		}
		if err := r.Hold(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	if wrong == nil {
		r.Heal("none")
		return nil
	}
	found := time.Since(began)
	err := within(ctx, mendLimit, func() error {
		if !said(wrong, saysReinstalled) {
			return fmt.Errorf("%s found its own state wrong and got no other", wrong.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	mended := time.Since(began) - found
	r.Heal("%s has another state", wrong.ID)
	if err := r.equalRings(ctx, 2*time.Second); err != nil {
		return fmt.Errorf("%s found its own state wrong and got another, and still: %w", wrong.ID, err)
	}
	return fmt.Errorf("%s found its own state wrong after %v and had another %v later; its rings are the others' since then", wrong.ID, found.Round(10*time.Millisecond), mended.Round(10*time.Millisecond))
}

func said(n *cluster.Node, text string) bool {
	data, err := os.ReadFile(n.Log)
	return err == nil && strings.Contains(string(data), text)
}

// equalRings compares all nodes' rings of all groups, again and again.
func (r *Run) equalRings(ctx context.Context, d time.Duration) error {
	for began := time.Now(); time.Since(began) < d; {
		for _, group := range r.Load.Groups() {
			st, err := r.Cluster.Nodes[0].Status(ctx, group)
			if err != nil {
				return err
			}
			rings := make(map[uint64][2]uint64)
			for _, n := range st.Nodes {
				ring := [2]uint64{n.Fingerprint, n.RingDigest}
				if was, known := rings[n.Revision]; known && was != ring {
					return fmt.Errorf("group %s at revision %d has the fingerprints and ring digests %016x and %016x", group, n.Revision, was, ring)
				}
				rings[n.Revision] = ring
			}
		}
	}
	return nil
}
