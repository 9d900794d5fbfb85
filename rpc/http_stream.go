package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Limits of a watch over HTTP.
const (
	// aliveTime is the time without an event after which a comment is sent: proxies
	// close what is silent for long.
	aliveTime = 15 * time.Second
	// takenAtOnce is what a reader has to take within HTTPTimeout.
	takenAtOnce = 64 << 10
)

// serveStream makes the call that a request is: the same message goes to the same
// handler as over gRPC, through the same chain. What it sends are server-sent events.
func (e *endpoint) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // the mux takes HEAD for GET: it would be answered without an end
		w.Header().Set("Allow", http.MethodGet)
		writeProblem(w, r, &httpError{http.StatusMethodNotAllowed, &fsm.FieldError{Field: "method", Limit: http.MethodGet, Got: r.Method}})
		return
	}
	leave, err := e.server.watches.enter(addrOf(r.Context()))
	if err != nil {
		writeProblem(w, r, err)
		return
	}
	defer leave()
	s := &eventStream{endpoint: e, w: w, r: r, control: http.NewResponseController(w)}
	s.ctx = callContext(r.Context(), w, r)
	s.alive = time.AfterFunc(aliveTime, s.keepAlive)
	s.end(e.server.calls.follow(e.on, s, &grpc.StreamServerInfo{FullMethod: e.method, IsServerStream: true}, e.stream))
}

// eventStream is the grpc.ServerStream of an HTTP request. Messages that are sent
// become events.
type eventStream struct {
	*endpoint
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	ctx     context.Context
	asked   bool // the request was received
	// cluster is that of the positions that the events' ids name; empty: events have
	// no ids, because the watch is not of one group.
	cluster string

	mu    sync.Mutex // guards the rest, and w: timers write, too
	begun bool       // the headers were sent
	ended bool
	alive *time.Timer
}

func (s *eventStream) Context() context.Context { return s.ctx }

func (s *eventStream) SetHeader(md metadata.MD) error {
	return answerHeader(s.w.Header()).SetHeader(md)
}

func (s *eventStream) SendHeader(md metadata.MD) error { return s.SetHeader(md) }

func (s *eventStream) SetTrailer(metadata.MD) {}

// RecvMsg receives the one request. Its errors are those of gRPC, for the chain.
func (s *eventStream) RecvMsg(m any) error {
	if s.asked {
		return io.EOF
	}
	s.asked = true
	req := m.(proto.Message)
	if err := s.parse(s.w, s.r, req); err != nil {
		return toStatus(err)
	}
	if watch, ok := req.(*registrypb.WatchRequest); ok {
		if err := resume(watch, s.r.Header.Values(lastEventID)); err != nil {
			return toStatus(err)
		}
		if _, one := watch.Target.(*registrypb.WatchRequest_Group); one {
			s.cluster = s.server.store.ClusterID()
		}
	}
	// The server's deadline is that of a request without an answer. With it, the end of
	// the connection would no longer be noticed.
	return toStatus(s.control.SetReadDeadline(time.Time{}))
}

// SendMsg sends a frame as an event.
func (s *eventStream) SendMsg(m any) error {
	ev := m.(frame).asEvent()
	defer runtime.KeepAlive(ev) // others send it, too
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(ev.id(s.cluster), ev.text)
}

// keepAlive sends a comment. If it cannot be sent, the request's context ends.
func (s *eventStream) keepAlive() {
	if !s.mu.TryLock() {
		return // something is written right now
	}
	defer s.mu.Unlock()
	if !s.ended {
		_ = s.writeLocked([]byte(": keep-alive\n\n"))
	}
}

// end ends the stream with its error: as the answer, or after events as the last one.
func (s *eventStream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.alive.Stop()
	switch {
	case err == nil || s.r.Context().Err() != nil: // nobody reads it
	case s.begun:
		_ = s.writeLocked(problemEvent(err)) // the connection closes, then
	default:
		writeProblem(s.w, s.r, err)
	}
}

// writeLocked writes and flushes. It waits for a reader that is behind, up to a limit.
func (s *eventStream) writeLocked(parts ...[]byte) error {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Accel-Buffering", "no") // nginx would collect events
		s.w.WriteHeader(http.StatusOK)
		parts = slices.Insert(parts, 0, []byte("retry: 1000\n\n"))
	}
	for _, part := range parts {
		for data := range slices.Chunk(part, takenAtOnce) {
			if err := s.takeLocked(data); err != nil {
				return err
			}
		}
	}
	if err := s.control.Flush(); err != nil {
		return sendError(err)
	}
	s.alive.Reset(aliveTime)
	return nil
}

func (s *eventStream) takeLocked(data []byte) error {
	err := s.control.SetWriteDeadline(time.Now().Add(HTTPTimeout))
	if err == nil {
		_, err = s.w.Write(data)
	}
	return sendError(err)
}

// sendError is the error of a stream whose reader is too slow, or gone.
func sendError(err error) error {
	if err == nil {
		return nil
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return status.Error(codes.DeadlineExceeded, fmt.Sprintf("the watcher did not take %d bytes within %v", takenAtOnce, HTTPTimeout))
	}
	return status.Error(codes.Canceled, err.Error())
}
