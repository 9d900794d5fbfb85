package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/systems"
)

// Registrations at the leader beside saves: at most 400 a second.
const (
	writers    = 8
	writeEvery = 20 * time.Millisecond
	saveRound  = 4 * time.Second
)

// besideSaves is what saves cost the writes beside them.
type besideSaves struct {
	P99     float64 `json:"write_p99_seconds"` // without saves
	Beside  float64 `json:"write_p99_beside_saves_seconds"`
	Saves   int     `json:"saves"`
	Save    float64 `json:"save_beside_writes_seconds"` // the median
	Restore float64 `json:"restore_seconds"`
}

func (b besideSaves) String() string {
	if b.Saves == 0 {
		return "-\t-\t-\t-"
	}
	return fmt.Sprintf("%.1f ms\t%.1f ms (%.2f)\t%.2fs\t%.1fs", b.P99*1e3, b.Beside*1e3, b.Beside/b.P99, b.Save, b.Restore)
}

// measureSaves registers at the leader in rounds, alternately without and beside saves from
// another node, one after the other. Then the last file is restored. Saves and the
// restoration are made by the command, in a process of its own, with nice, as
// docs/operations/backup.md advises.
func measureSaves(ctx context.Context, program, dir string, nodes *systems.Registry, rounds int) (b besideSaves, err error) {
	if rounds == 0 {
		return b, nil
	}
	leader, err := nodes.Leader(ctx)
	if err != nil {
		return b, err
	}
	file, from := filepath.Join(dir, "saved"), nodes.Addrs[(leader+1)%systems.Nodes]
	snapshot := func(command string, args ...string) (time.Duration, error) {
		began := time.Now()
		out, err := exec.CommandContext(ctx, "nice", append([]string{"-n", "19", program, "snapshot", command, "-registries", from}, args...)...).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("snapshot %s %q: %w\n%s", command, args, err, out)
		}
		return time.Since(began), nil
	}
	api := registrypb.NewRegistryClient(nodes.Conns[leader])
	var without, beside, saves []time.Duration
	for range rounds {
		took, err := writes(ctx, api, func(context.Context) error { return nil })
		if err != nil {
			return b, err
		}
		without = append(without, took...)
		took, err = writes(ctx, api, func(ctx context.Context) error {
			for ctx.Err() == nil {
				took, err := snapshot("save", file)
				if err != nil {
					return err
				}
				saves = append(saves, took)
			}
			return nil
		})
		if err != nil {
			return b, err
		}
		beside = append(beside, took...)
	}
	restored, err := snapshot("restore", "-yes", file)
	if err != nil {
		return b, err
	}
	return besideSaves{
		P99: quantile(without, 0.99), Beside: quantile(beside, 0.99),
		Saves: len(saves), Save: quantile(saves, 0.5), Restore: restored.Seconds(),
	}, nil
}

// quantile of some times, in seconds.
func quantile(all []time.Duration, q float64) float64 {
	slices.Sort(all)
	return all[int(float64(len(all)-1)*q)].Seconds()
}

// writes registers for a round beside another task and returns how long each took.
func writes(ctx context.Context, api registrypb.RegistryClient, beside func(context.Context) error) ([]time.Duration, error) {
	round, cancel := context.WithTimeout(ctx, saveRound)
	defer cancel()
	var mu sync.Mutex // guards all and failed
	var all []time.Duration
	var failed error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		}
		cancel()
	}
	var work sync.WaitGroup
	work.Go(func() {
		if err := beside(round); err != nil {
			fail(err)
		}
	})
	for writer := range writers {
		work.Go(func() {
			tick := time.NewTicker(writeEvery)
			defer tick.Stop()
			for i := 0; round.Err() == nil; i++ {
				began := time.Now()
				_, err := api.Register(ctx, &registrypb.RegisterRequest{
					Group: "beside-saves", Id: fmt.Sprintf("w%d-%d", writer, i%100), Addr: "10.0.0.2:8080", Ttl: durationpb.New(time.Hour),
				})
				if err != nil {
					fail(err)
					return
				}
				mu.Lock()
				all = append(all, time.Since(began))
				mu.Unlock()
				select {
				case <-tick.C:
				case <-round.Done():
				}
			}
		})
	}
	work.Wait()
	return all, failed
}
