package sdk

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"
)

// outage is a time in which no node gave a stream that was of use: one on which
// the whole state came, which is when a node says how fresh it is.
type outage struct {
	since  time.Time // of the first failure; zero while there is none
	failed int
	notice notice
	err    *Error // the last that gave a reason, or else the last
}

// troubleFailures is how often a stream fails, besides the time that passes,
// before there is an event.
const troubleFailures = 3

// fail reports whether the outage has to be told.
func (o *outage) fail(err *Error, now time.Time, after time.Duration) bool {
	if o.err == nil || err.Reason != reasonUnspecified || o.err.Reason == reasonUnspecified {
		o.err = err
	}
	if o.failed++; o.since.IsZero() {
		o.since = now
	}
	if o.failed < troubleFailures || now.Sub(o.since) < after {
		return false
	}
	return o.notice.due(o.err)
}

// end reports whether an outage that was told is over.
func (o *outage) end() bool {
	told := o.notice.given
	*o = outage{}
	return told
}

// notice remembers what was told of an outage. It is told once, and again when
// nodes answer and refuse, once for each change of the refusal: waiting does not
// end a refusal, and who was told of refused connections waits.
//
// Example: connection refused is told, no leader is not, wrong cluster is,
// connection refused and wrong cluster again are not.
type notice struct {
	given     bool
	rejection rejection // the last that was told
}

// due reports whether an outage of that cause has to be told, and takes it as told.
func (n *notice) due(err error) bool {
	r := rejectionOf(err)
	if n.given && (r == rejection{} || r == n.rejection) {
		return false
	}
	n.given = true
	if r != (rejection{}) {
		n.rejection = r
	}
	return true
}

// rejection tells apart what nodes refuse with.
type rejection struct {
	reason Reason
	code   codes.Code
}

// rejectionOf is zero for what may pass by itself, such as nodes that cannot be reached.
func rejectionOf(err error) rejection {
	e := (*Error)(nil)
	if !errors.As(err, &e) {
		return rejection{}
	}
	switch e.Reason {
	case reasonNoLeader, reasonNotReady, reasonStale, reasonBusy, reasonOutcomeUnknown:
		return rejection{}
	case reasonUnspecified:
		if e.Code == codes.OK || e.Code == codes.Unknown || transient(e.Code) { // OK and Unknown: the connection failed
			return rejection{}
		}
	}
	return rejection{e.Reason, e.Code}
}
