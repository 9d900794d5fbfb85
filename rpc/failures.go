package rpc

import (
	"errors"
	"time"

	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/metrics"
	"github.com/werbenhu/registry/store/portmux"
)

// failed counts a call without a valid token, and returns its error. On the client port
// the error of a wrong token is another one after too many from the same source. On the
// bind port the source is a node, which has passed a client's token on.
func (c *call) failed(err error) error {
	if !errors.Is(err, auth.ErrUnauthenticated) {
		return err
	}
	port := metrics.NodePort
	why := auth.ReasonOf(c.headers, err)
	if c.port == clientPort {
		port = metrics.ClientPort
		if limited := c.limited(why); limited != nil {
			err, why = limited, auth.Limited
		}
	}
	c.count.Failed(port, why)
	return err
}

// limited counts what may be a guess. A call without a token is none, and who has an
// expired one once had the right one.
func (c *call) limited(why auth.Reason) *auth.LimitedError {
	if why != auth.Malformed && why != auth.Unknown {
		return nil
	}
	source, _ := portmux.Source(c.from)
	return c.failures.Add(source, time.Now())
}
