package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

// pipeSize is what a connection of the tests buffers, so that what was written was read.
const pipeSize = 4096

// bounded serves any method by a handler, with the bounds of the client port.
func bounded(t *testing.T, handler grpc.StreamHandler) *bufconn.Listener {
	t.Helper()
	ln := bufconn.Listen(pipeSize)
	server := grpc.NewServer(append(connOptions(MaxClientStreams), grpc.UnknownServiceHandler(handler))...)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln
}

// hostile opens a connection with HTTP/2's preface.
func hostile(t *testing.T, ln *bufconn.Listener) net.Conn {
	t.Helper()
	conn, err := ln.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write(h2Frame([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 4, 0, 0, nil)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// h2Frame adds an HTTP/2 frame.
func h2Frame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// Kinds and flags of frames.
const (
	frameHeaders, frameReset, frameContinuation = 1, 3, 9
	endStream, endHeaders                       = 1, 4
)

// headers of a call, in HPACK without indexing.
func headers(contentType string) []byte {
	b := []byte("\x83\x86\x04\x04/x/y\x01\x01x\x0f\x10")
	return append(append(b, byte(len(contentType))), contentType...)
}

// writeAll writes what next returns, and returns how often that succeeded before an error.
func writeAll(conn net.Conn, most int, next func(i uint32) []byte) (n int, err error) {
	for i := range most {
		if err := conn.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return i, err
		}
		if _, err := conn.Write(next(uint32(i))); err != nil {
			return i, err
		}
	}
	return most, nil
}

// Streams that are opened and reset at once (CVE-2023-44487, GHSA-m425-mq94-257g) run no more
// handlers at a time than streams may be open.
func TestResetStreamsAreBounded(t *testing.T) {
	const streams = 3 * MaxClientStreams
	var running, peak, total atomic.Int64
	var once sync.Once
	full, release, all := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ln := bounded(t, func(any, grpc.ServerStream) error {
		n := running.Add(1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		if n == MaxClientStreams {
			once.Do(func() { close(full) }) // reached again, if a stream ends meanwhile
		}
		<-release
		running.Add(-1)
		if total.Add(1) == streams {
			close(all)
		}
		return nil
	})
	conn := hostile(t, ln)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	go func() {
		<-full
		close(release)
	}()
	n, err := writeAll(conn, streams, func(i uint32) []byte {
		return h2Frame(h2Frame(nil, frameHeaders, endHeaders, 2*i+1, headers("application/grpc")), frameReset, 0, 2*i+1, []byte{0, 0, 0, 8})
	})
	if err != nil {
		t.Fatalf("after %d streams: %v", n, err)
	}
	<-all
	if peak.Load() > MaxClientStreams {
		t.Errorf("%d handlers ran at a time, want at most %d", peak.Load(), MaxClientStreams)
	}
}

// A caller that makes the server answer and reads no answer is not read from any more
// (GHSA-hrxh-6v49-42gf): what the server holds for it is bounded.
func TestUnreadAnswersAreBounded(t *testing.T) {
	for name, next := range map[string]func(i uint32) []byte{
		"no gRPC": func(i uint32) []byte {
			return h2Frame(nil, frameHeaders, endHeaders|endStream, 2*i+1, headers("text/html"))
		},
		"SETTINGS":         func(uint32) []byte { return h2Frame(nil, 4, 0, 0, nil) },
		"PING":             func(uint32) []byte { return h2Frame(nil, 6, 0, 0, make([]byte, 8)) },
		"resets by errors": func(i uint32) []byte { return h2Frame(nil, frameHeaders, endHeaders|endStream, 2*i+1, []byte{0x84}) },
		"no gRPC, reset": func(i uint32) []byte {
			b := h2Frame(nil, frameHeaders, endHeaders, 2*i+1, headers("text/html"))
			return h2Frame(b, frameReset, 0, 2*i+1, []byte{0, 0, 0, 8})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ln := bounded(t, func(any, grpc.ServerStream) error { return nil })
			const most = 16 << 20 // gRPC queues 10,000, or closes the connection after a second, in which a fast machine sends a million
			n, err := writeAll(hostile(t, ln), most, next)
			if err == nil {
				t.Errorf("all %d frames were read", n)
			}
			t.Logf("%d frames: %v", n, err)
		})
	}
}

// Headers without end close the connection (CONTINUATION flood, CVE-2023-45288).
func TestHeadersWithoutEnd(t *testing.T) {
	ln := bounded(t, func(any, grpc.ServerStream) error { return nil })
	conn := hostile(t, ln)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	field := append([]byte("\x00\x01x\x7f\x81\x01"), strings.Repeat("y", 256)...)
	n, err := writeAll(conn, 4*MaxHeaders/len(field)+1, func(i uint32) []byte {
		if i == 0 {
			return h2Frame(nil, frameHeaders, endStream, 1, headers("application/grpc"))
		}
		return h2Frame(nil, frameContinuation, 0, 1, field)
	})
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d frames and no end, %v", n, err)
	}
}

// Too large headers of a call are refused with their limit, and too large messages.
func TestLargeHeadersAndMessages(t *testing.T) {
	ln := bounded(t, func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
			return err
		}
		return stream.SendMsg(new(emptypb.Empty))
	})
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return ln.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	call := func(header, message int) error {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("y", header))
		req := new(emptypb.Empty)
		req.ProtoReflect().SetUnknown(append([]byte{0x0a, byte(message&0x7f) | 0x80, byte(message>>7&0x7f) | 0x80, byte(message >> 14)}, make([]byte, message)...))
		return conn.Invoke(ctx, "/x/y", req, new(emptypb.Empty))
	}
	if err := call(MaxHeaders/2, MaxRequest/2); err != nil {
		t.Errorf("within the limits: %v", err)
	}
	if err := call(MaxHeaders, 0); err == nil || !strings.Contains(err.Error(), "32768") {
		t.Errorf("large headers: %v", err)
	}
	if err := call(0, MaxRequest+1); err == nil || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("a large message: %v", err)
	}
}
