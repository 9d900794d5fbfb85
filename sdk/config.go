package sdk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/certs"
)

// config is built by Dial and never changed afterwards.
type config struct {
	logger         *slog.Logger
	callTimeout    time.Duration
	attemptTimeout time.Duration
	closeTimeout   time.Duration
	refresh        time.Duration
	dialer         func(ctx context.Context, addr string) (net.Conn, error)
	dialOptions    []grpc.DialOption
	cluster        string             // as WithCluster takes it
	tls            func() *tls.Config // of the next connection; nil: no TLS
	tlsFiles       *certs.Files       // that tls reads, once they are open
	token          string
	tokenFile      string

	// Set by tests only: pauses between rounds over all nodes, and the pause before
	// the client follows the nodes' addresses, which keeps short-lived clients from it.
	backoffBase  time.Duration
	backoffMax   time.Duration
	refusedMax   time.Duration // instead of backoffMax, where nodes refuse the token
	firstRefresh time.Duration

	// progress is how often a node without changes confirms its state to a watch.
	progress time.Duration
	// outageAfter is how long a watch gets nothing before it reports an outage.
	outageAfter time.Duration
}

func newConfig(opts []Option) *config {
	c := &config{
		logger:         slog.New(slog.DiscardHandler),
		callTimeout:    10 * time.Second,
		attemptTimeout: time.Second,
		closeTimeout:   5 * time.Second,
		refresh:        time.Minute,
		dialer:         defaultDialer,
		backoffBase:    50 * time.Millisecond,
		backoffMax:     time.Second,
		refusedMax:     5 * time.Second,
		firstRefresh:   time.Second,
		progress:       2 * time.Second,
		outageAfter:    5 * time.Second,
	}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

func (c *config) validate() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"call timeout", c.callTimeout}, {"attempt timeout", c.attemptTimeout}, {"close timeout", c.closeTimeout},
	} {
		if d.d <= 0 {
			return invalid("dial", d.name, "> 0", fmt.Sprintf("%s %v is not positive", d.name, d.d))
		}
	}
	return nil
}

// parseTarget splits a comma-separated list of addresses and checks each.
func parseTarget(target string) ([]string, error) {
	var addrs []string
	seen := map[string]bool{}
	for a := range strings.SplitSeq(target, ",") {
		a = strings.TrimSpace(a)
		if err := checkAddr(a); err != nil {
			return nil, invalid("dial", "target", "host:port,host:port", fmt.Sprintf("address %q: %v", a, err))
		}
		if !seen[a] {
			seen[a] = true
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

func checkAddr(a string) error {
	if a == "" {
		return errors.New("empty, want host:port")
	}
	if len(a) > 255 {
		return errors.New("longer than 255 bytes")
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		if ae := (*net.AddrError)(nil); errors.As(err, &ae) {
			return fmt.Errorf("%s, want host:port", ae.Err) // without the address, which the caller adds
		}
		return err
	}
	if host == "" {
		return errors.New("no host, want host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not in 1–65535", port)
	}
	return nil
}
