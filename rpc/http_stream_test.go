package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store/portmux"
)

// streamBubble serves a watch of a group over HTTP in virtual time, which sends what
// the test sends to the channel. ended gets the error at its end.
func streamBubble(t *testing.T, buffer int, f func(t *testing.T, conn net.Conn, frames chan<- frame, ended <-chan error)) {
	var frames chan frame
	var ended chan error
	handler := func(_ any, stream grpc.ServerStream) error {
		err := func() error {
			if err := stream.RecvMsg(new(registrypb.WatchRequest)); err != nil {
				return err
			}
			for {
				select {
				case f := <-frames:
					if err := stream.SendMsg(f); err != nil {
						return err
					}
				case <-stream.Context().Done():
					return context.Cause(stream.Context())
				}
			}
		}()
		ended <- err
		return err
	}
	httpBubbleOf(t, buffer, func(h *httpServer) {
		frames, ended = make(chan frame), make(chan error, 1) // of the bubble
		h.http.Handler = &endpoint{apiRoute: apiRoute{"GET /v1/watch", registrypb.Registry_Watch_FullMethodName}, server: h.server, stream: handler, query: []string{"prefix"}}
	}, func(t *testing.T, conn net.Conn) { f(t, conn, frames, ended) })
}

func prefixWatch(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET /v1/watch?prefix= HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Error(err)
	}
}

func absenceFrame() frame {
	return encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: "web"}, Absence: &registrypb.GroupAbsence{Index: 7}})
}

// A watch goes on beyond the time that a request has, with a comment when there is no
// event, and ends with its connection.
func TestHTTPWatchStaysAlive(t *testing.T) {
	streamBubble(t, pipeSize, func(t *testing.T, conn net.Conn, frames chan<- frame, ended <-chan error) {
		start := time.Now()
		prefixWatch(t, conn)
		frames <- absenceFrame()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(resp.Body)
		until := func(want string) {
			t.Helper()
			for line := ""; line != want+"\n"; {
				if line, err = in.ReadString('\n'); err != nil {
					t.Fatalf("after %v: %v, want %q", time.Since(start), err, want)
				}
			}
		}
		until(`data: {"group":"web","index":7,"cluster_id":""}`)
		for time.Since(start) < 3*HTTPTimeout {
			until(": keep-alive")
		}
		if took := time.Since(start); took != 3*HTTPTimeout {
			t.Errorf("%v for %v of comments", took, 3*HTTPTimeout)
		}
		_ = conn.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		if took := time.Since(start); took != 3*HTTPTimeout {
			t.Errorf("the end of the connection was noticed after %v", took-3*HTTPTimeout)
		}
	})
}

// A watcher that does not read is not waited for, one that reads slowly is.
func TestHTTPWatchOfASlowReader(t *testing.T) {
	large := encode(&registrypb.WatchEvent{Event: &registrypb.WatchEvent_UnknownGroup{UnknownGroup: strings.Repeat("x", 4*takenAtOnce)}})
	t.Run("nothing", func(t *testing.T) {
		streamBubble(t, pipeSize, func(t *testing.T, conn net.Conn, frames chan<- frame, ended <-chan error) {
			start := time.Now()
			prefixWatch(t, conn)
			frames <- large
			if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("it ended with %v", err)
			}
			if took := time.Since(start); took != HTTPTimeout {
				t.Errorf("closed after %v, want %v", took, HTTPTimeout)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the connection: %v", err)
			}
		})
	})
	t.Run("enough", func(t *testing.T) {
		streamBubble(t, pipeSize, func(t *testing.T, conn net.Conn, frames chan<- frame, ended <-chan error) {
			prefixWatch(t, conn)
			frames <- large
			tick := time.NewTicker(HTTPTimeout / 2)
			defer tick.Stop()
			for taken := 0; taken < 4*takenAtOnce; {
				<-tick.C
				n, err := io.ReadFull(conn, make([]byte, takenAtOnce))
				if taken += n; err != nil {
					t.Fatalf("after %d bytes: %v", taken, err)
				}
			}
			select {
			case err := <-ended:
				t.Errorf("it ended with %v", err)
			case frames <- absenceFrame(): // the stream takes the next
			}
		})
	})
}

// A node takes so many watches over HTTP, and so many of one source.
func TestHTTPWatchesAreBounded(t *testing.T) {
	var h httpWatches
	addr := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	enter := func(ip string, n int) (leave []func()) {
		t.Helper()
		for range n {
			l, err := h.enter(addr(ip))
			if err != nil {
				t.Fatalf("%s: %v", ip, err)
			}
			leave = append(leave, l)
		}
		return leave
	}
	refused := func(ip string) {
		t.Helper()
		if _, err := h.enter(addr(ip)); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", ip, err)
		}
	}
	one := enter("192.0.2.1", maxHTTPWatchesSource)
	refused("192.0.2.1")
	local := enter("127.0.0.1", maxHTTPWatches-maxHTTPWatchesSource)
	for _, ip := range []string{"192.0.2.1", "192.0.2.2", "127.0.0.1"} {
		refused(ip)
	}
	one[0]()
	enter("192.0.2.2", 1)
	refused("192.0.2.2")
	for _, l := range append(one[1:], local...) {
		l()
	}
	if source, _ := portmux.Source(addr("192.0.2.2")); len(h.bySource) != 1 || h.bySource[source] != 1 || h.all != 1 {
		t.Errorf("%d are open: %v", h.all, h.bySource)
	}
}

// At the limit the answer names another node as the way out; HTTP knows it as 503.
func TestHTTPWatchBeyondTheLimit(t *testing.T) {
	httpBubbleOf(t, pipeSize, func(h *httpServer) { h.server.watches.all = maxHTTPWatches }, func(t *testing.T, conn net.Conn) {
		prefixWatch(t, conn)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), `"reason":"busy"`) {
			t.Errorf("%d %v %s, %v", resp.StatusCode, resp.Header, body, err)
		}
	})
}

// An event is made once for those that send it at the same time.
func TestEventsAreShared(t *testing.T) {
	f := absenceFrame()
	if a, b := f.asEvent(), f.asEvent(); a != b {
		t.Error("two events of one frame")
	}
}
