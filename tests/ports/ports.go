// Package ports hands out TCP ports to processes that tests start, and start again.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// blocks are below the ports that systems choose for connections. This process holds a
// block by listening on its first port: processes that restart find their port free, and
// two runs of tests do not meet.
var blocks struct {
	mu         sync.Mutex // guards the rest
	guards     []net.Listener
	next, last int
}

const size = 250

// claimLocked takes a block that no other process has.
func claimLocked() error {
	var err error
	for range 200 {
		base := 20000 + size*rand.IntN(12000/size)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base))); err == nil {
			blocks.guards = append(blocks.guards, l) // as long as the process runs
			blocks.next, blocks.last = base+1, base+size
			return nil
		}
	}
	return fmt.Errorf("no block of ports is free: %w", err)
}

// Free returns n free ports in a row. No other call returns one of them.
func Free(n int) ([]int, error) {
	blocks.mu.Lock()
	defer blocks.mu.Unlock()
	var row []int
	for len(row) < n {
		if blocks.next == blocks.last {
			if err := claimLocked(); err != nil {
				return nil, err
			}
			row = row[:0]
		}
		if p := blocks.next; isFree(p) {
			row = append(row, p)
		} else {
			row = row[:0]
		}
		blocks.next++
	}
	return row, nil
}

func isFree(port int) bool {
	for _, host := range []string{"", "127.0.0.1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = l.Close() // nothing was accepted
	}
	return true
}
