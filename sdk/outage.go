package sdk

import "time"

// outage is a time in which no node gave a stream that was of use: one on which
// the whole state came, which is when a node says how fresh it is.
type outage struct {
	since  time.Time // of the first failure; zero while there is none
	failed int
	told   bool
	err    *Error // the last that gave a reason, or else the last
}

// troubleFailures is how often a stream fails, besides the time that passes,
// before there is an event.
const troubleFailures = 3

// fail tells whether the outage has to be told.
func (o *outage) fail(err *Error, now time.Time, after time.Duration) bool {
	if o.err == nil || err.Reason != ReasonUnspecified || o.err.Reason == ReasonUnspecified {
		o.err = err
	}
	if o.failed++; o.since.IsZero() {
		o.since = now
	}
	if o.told || o.failed < troubleFailures || now.Sub(o.since) < after {
		return false
	}
	o.told = true
	return true
}

// end tells whether an outage that was told is over.
func (o *outage) end() bool {
	told := o.told
	*o = outage{}
	return told
}
