package rpc

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/metrics"
)

// httpBubble serves HTTP in virtual time.
func httpBubble(t *testing.T, buffer int, f func(t *testing.T, conn net.Conn)) {
	httpBubbleOf(t, buffer, func(*httpServer) {}, f)
}

// httpBubbleOf serves it by a server with a change.
func httpBubbleOf(t *testing.T, buffer int, change func(*httpServer), f func(t *testing.T, conn net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{metrics: metrics.New(), sessions: auth.NewSessions(), failures: auth.NewFailures()}
		h := newHTTPServer(s, nil)
		change(h)
		ln := bufconn.Listen(buffer)
		served := make(chan error, 1)
		go func() { served <- h.serve(ln) }()
		conn, err := ln.Dial()
		if err != nil {
			t.Fatal(err)
		}
		f(t, conn)
		_ = conn.Close()
		if err := h.close(); err != nil {
			t.Error(err)
		}
		_ = ln.Close()
		<-served
	})
}

// closedAfter expects the server to close the connection at that time.
func closedAfter(t *testing.T, conn io.Reader, start time.Time, want time.Duration) {
	t.Helper()
	_, _ = io.Copy(io.Discard, conn)
	if took := time.Since(start); took != want {
		t.Errorf("closed after %v, want %v", took, want)
	}
}

// Slow callers of HTTP lose their connection (CVE-2020-7219).
func TestSlowHTTP(t *testing.T) {
	t.Run("half the headers", func(t *testing.T) {
		httpBubble(t, pipeSize, func(t *testing.T, conn net.Conn) {
			start := time.Now()
			_, _ = io.WriteString(conn, "GET /ui/icon.svg HTTP/1.1\r\nHost: ")
			closedAfter(t, conn, start, HTTPHeaderTimeout)
		})
	})
	t.Run("a byte a second", func(t *testing.T) {
		httpBubble(t, pipeSize, func(t *testing.T, conn net.Conn) {
			start, ended := time.Now(), make(chan struct{})
			go func() {
				defer close(ended)
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for range tick.C {
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
				}
			}()
			closedAfter(t, conn, start, HTTPHeaderTimeout)
			_ = conn.Close()
			<-ended
		})
	})
	t.Run("no next request", func(t *testing.T) {
		httpBubble(t, pipeSize, func(t *testing.T, conn net.Conn) {
			start := time.Now()
			_, _ = io.WriteString(conn, "GET /ui/icon.svg HTTP/1.1\r\nHost: x\r\n\r\n")
			closedAfter(t, conn, start, HTTPIdleTime)
		})
	})
	t.Run("an answer that is not read", func(t *testing.T) {
		httpBubble(t, 64, func(t *testing.T, conn net.Conn) {
			start := time.Now()
			_, _ = io.WriteString(conn, "GET /ui/icon.svg HTTP/1.1\r\nHost: x\r\n\r\n")
			for { // until the server has closed it
				if _, err := conn.Write([]byte("x")); err != nil {
					break
				}
			}
			if took := time.Since(start); took > HTTPTimeout+time.Second {
				t.Errorf("closed after %v, want %v", took, HTTPTimeout)
			}
		})
	})
}

// A body is not read, whatever its length says (CVE-2025-11374), and large headers are
// refused.
func TestLargeHTTPRequests(t *testing.T) {
	for name, tc := range map[string]struct {
		request string
		code    int
		most    int // bytes that are taken of the body
	}{
		"a length of 1 TiB": {"GET /ui/icon.svg HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n", http.StatusOK, 1 << 20},
		"chunks without end": {"POST /ui/icon.svg HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n",
			http.StatusMethodNotAllowed, 1 << 20},
		"headers": {"GET /ui/icon.svg HTTP/1.1\r\nHost: x\r\nX: ", http.StatusRequestHeaderFieldsTooLarge, 2 * MaxHTTPHeaders},
	} {
		t.Run(name, func(t *testing.T) {
			httpBubble(t, pipeSize, func(t *testing.T, conn net.Conn) {
				written := make(chan int)
				go func() {
					_, _ = io.WriteString(conn, tc.request)
					n, err := 0, error(nil)
					for more := []byte(strings.Repeat("x", 1024)); err == nil && n < 8<<20; n += len(more) {
						_, err = conn.Write(more)
					}
					written <- n
				}()
				in := bufio.NewReader(conn)
				resp, err := http.ReadResponse(in, nil)
				if err != nil || resp.StatusCode != tc.code {
					t.Errorf("%v, %v, want code %d", resp, err, tc.code)
				}
				_, _ = io.Copy(io.Discard, in)
				_ = conn.Close()
				if n := <-written; n > tc.most {
					t.Errorf("%d bytes were taken, want at most %d", n, tc.most)
				}
			})
		})
	}
}
