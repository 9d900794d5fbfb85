package systems

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// RSS is the resident memory in bytes of the running node that has most.
func (r *Registry) RSS() (int64, error) { return r.memory("VmRSS:") }

// PeakRSS is the most that a running node had since it was started.
func (r *Registry) PeakRSS() (int64, error) { return r.memory("VmHWM:") }

func (r *Registry) memory(field string) (most int64, err error) {
	for _, p := range r.all {
		if p.hasEnded() {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, line, _ := strings.Cut(string(status), field)
		var kib int64
		if _, err := fmt.Sscan(line, &kib); err != nil {
			return 0, fmt.Errorf("%s %w", field, err)
		}
		most = max(most, kib<<10)
	}
	return most, nil
}

// ProcessorTime is what a node has taken of the processors since its start.
func (r *Registry) ProcessorTime(node int) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ of Linux, proc_pid_stat(5)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.all[node].cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the program's name may have spaces
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat has %d fields", len(fields))
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, err
}

// Restart kills a node, starts it again, and returns when it is ready.
func (r *Registry) Restart(ctx context.Context, node int) error {
	old := r.all[node]
	old.kill()
	again, err := run(old.cmd.Path, old.cmd.Args[1:]...)
	if err != nil {
		return err
	}
	r.all[node] = again
	return r.until(ctx, func(ctx context.Context) error { return isReady(ctx, r, node, fmt.Sprintf("n%d", node+1)) })
}

// Join starts an empty node and returns when it is a voter and ready.
func (r *Registry) Join(ctx context.Context, id, dir string) error {
	addrs, err := FreeAddrs(2)
	if err != nil {
		return err
	}
	if err := r.start(r.program, r.args(id, addrs[0], addrs[1], dir)...); err != nil {
		return err
	}
	return r.until(ctx, func(ctx context.Context) error { return isReady(ctx, r, 0, id) })
}

func isReady(ctx context.Context, r *Registry, asked int, id string) error {
	st, err := registrypb.NewClusterClient(r.Conns[asked]).Status(ctx, &registrypb.StatusRequest{})
	if err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if n.Id == id && n.Voter && n.Ready {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready: %v", id, st)
}

// Kill ends a node at once.
func (r *Registry) Kill(node int) { r.all[node].kill() }

// Target is what clients are given: the addresses of all nodes.
func (r *Registry) Target() string { return strings.Join(r.Addrs, ",") }
