package sdk

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
)

// outage is a time without a useful stream: one on which a node sent its whole state
// and confirmed it.
type outage struct {
	since  time.Time // of the first failure; zero while there is none
	failed int
	notice notice
	err    *Error // the last one that tells more than that a connection failed, or else the last
}

// outageFailures is the least number of failed streams before an outage is reported.
const outageFailures = 3

// fail records a failure and reports whether the outage is due to be reported.
func (o *outage) fail(err *Error, now time.Time, after time.Duration) bool {
	tells := func(e *Error) bool { return e.Reason != reasonUnspecified || rejectionOf(e) != rejection{} }
	if o.err == nil || tells(err) || !tells(o.err) {
		o.err = err
	}
	if o.failed++; o.since.IsZero() {
		o.since = now
	}
	if o.failed < outageFailures || now.Sub(o.since) < after {
		return false
	}
	return o.notice.due(o.err)
}

// end ends the outage and tells whether it was reported.
func (o *outage) end() bool {
	reported := o.notice.given
	*o = outage{}
	return reported
}

// notice decides which causes of an outage are reported: the first one, and each
// kind of refusal by nodes, since waiting does not end a refusal. A kind is reported
// once in an outage: two nodes may refuse for different reasons, in turns.
//
// Example: connection refused is reported, no leader is not, wrong cluster is;
// connection refused and wrong cluster again are not.
type notice struct {
	given    bool
	reported []rejection
}

// due tells whether the cause has to be reported, and records that it was.
func (n *notice) due(err error) bool {
	r := rejectionOf(err)
	if n.given && (r == rejection{} || slices.Contains(n.reported, r)) {
		return false
	}
	n.given = true
	if r != (rejection{}) {
		n.reported = append(n.reported, r)
	}
	return true
}

// rejection is the kind of a refusal.
type rejection struct {
	reason Reason
	code   codes.Code
}

// rejectionOf is zero for an error that may be temporary, such as a failed connection.
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
