package peertls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Reason is why a connection was refused.
type Reason string

// All reasons.
const (
	Plain         Reason = "plain"          // it has no TLS
	Locked        Reason = "locked"         // it has TLS, and this node has none
	NoCertificate Reason = "no_certificate" // it showed none
	WrongName     Reason = "name"           // the certificate names no node of this cluster
	WrongUsage    Reason = "usage"          // the certificate is not for both ends of a connection
	Untrusted     Reason = "authority"      // another authority or secret
	Expired       Reason = "expired"        // or not valid yet
	Handshake     Reason = "handshake"      // it failed otherwise, or took too long
)

// Reasons are all values of Reason.
var Reasons = []Reason{Plain, Locked, NoCertificate, WrongName, WrongUsage, Untrusted, Expired, Handshake}

// Refusal is why a certificate was refused.
type Refusal struct {
	Reason Reason
	text   string
}

func (r *Refusal) Error() string { return r.text }

func refusal(why Reason, format string, args ...any) *Refusal {
	return &Refusal{why, fmt.Sprintf(format, args...)}
}

// reasonOf classifies the error of a handshake.
func reasonOf(err error) Reason {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Reason
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return Plain
	}
	return Handshake
}

// quiet is how long the refusals of a reason are only counted after one was logged.
const quiet = 10 * time.Second

// refusals logs and counts.
type refusals struct {
	log   *slog.Logger
	count func(Reason)

	mu   sync.Mutex // guards last
	last map[Reason]*logged
}

type logged struct {
	at      time.Time
	dropped int
}

// add logs and counts a refused connection. A caller that ended by itself, as a check
// of the port does, is no warning, and takes no other line's place.
func (r *refusals) add(msg string, peer net.Addr, err error) {
	why := reasonOf(err)
	defer r.count(why)
	if errors.Is(err, io.EOF) {
		r.log.Debug(msg, "peer", peer, "reason", why, "error", err)
	} else if dropped, ok := r.pass(why, time.Now()); ok {
		r.log.Warn(msg, "peer", peer, "reason", why, "error", err, "repeated", dropped)
	}
}

// Unlocked returns what a bind port without TLS does about nodes that have it: it logs
// and counts them.
func Unlocked(log *slog.Logger, count func(Reason)) func(from net.Addr) {
	r := &refusals{log: log, count: count, last: make(map[Reason]*logged)}
	return func(from net.Addr) {
		r.add("connection to the bind port refused", from, refusal(Locked, "the other node is locked, this one has no -secret-file"))
	}
}

// pass reports whether to log a refusal, and how many were not since the last.
func (r *refusals) pass(why Reason, now time.Time) (dropped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := r.last[why]; last != nil {
		if now.Sub(last.at) < quiet {
			last.dropped++
			return 0, false
		}
		dropped = last.dropped
	}
	r.last[why] = &logged{at: now}
	return dropped, true
}
