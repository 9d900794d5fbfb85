package systems

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"
)

// processes are the three nodes of one system.
type processes struct{ all []*process }

type process struct {
	cmd   *exec.Cmd
	log   bytes.Buffer // read when it has ended
	ended chan struct{}
}

func (p *processes) start(program string, args ...string) error {
	one, err := run(program, args...)
	if err == nil {
		p.all = append(p.all, one)
	}
	return err
}

func run(program string, args ...string) (*process, error) {
	one := &process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	one.cmd.Stdout, one.cmd.Stderr = &one.log, &one.log
	if err := one.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = one.cmd.Wait() // it is killed in the end
		close(one.ended)
	}()
	return one, nil
}

// kill ends one at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// close kills them: their data goes with them.
func (p *processes) close() {
	var wg sync.WaitGroup
	for _, one := range p.all {
		wg.Go(one.kill)
	}
	wg.Wait()
}

// alive returns an error with the log's end when one has ended.
func (p *processes) alive() error {
	for _, one := range p.all {
		if one.hasEnded() {
			log := one.log.Bytes()
			return fmt.Errorf("%s ended:\n%s", one.cmd.Path, log[max(0, len(log)-2000):])
		}
	}
	return nil
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// patience is longer than the join of a node to a million members takes.
const patience = 2 * time.Minute

// until tries until f returns nil.
func (p *processes) until(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		try, stop := context.WithTimeout(ctx, 2*time.Second)
		err := f(try)
		stop()
		if err == nil {
			return nil
		}
		if dead := p.alive(); dead != nil {
			return dead
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", patience, err)
		}
	}
}

// FreeAddrs returns loopback addresses that were free a moment ago.
func FreeAddrs(n int) (addrs []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = ln.Close() }() // all are held until all are chosen
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}
