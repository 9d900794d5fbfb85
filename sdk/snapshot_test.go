package sdk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
)

type (
	saveStream    = grpc.ServerStreamingServer[registrypb.SaveSnapshotResponse]
	restoreStream = grpc.ClientStreamingServer[registrypb.RestoreSnapshotRequest, registrypb.RestoreSnapshotResponse]
)

// SaveSnapshot gives the hook its stream.
func (n *fakeNode) SaveSnapshot(_ *registrypb.SaveSnapshotRequest, stream saveStream) error {
	return n.enter(stream.Context(), "SaveSnapshot", stream)
}

// RestoreSnapshot gives the hook the whole file.
func (n *fakeNode) RestoreSnapshot(stream restoreStream) error {
	var file []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		file = append(file, m.GetData()...)
	}
	if err := n.enter(stream.Context(), "RestoreSnapshot", file); err != nil {
		return err
	}
	return stream.SendAndClose(&registrypb.RestoreSnapshotResponse{Index: 500, Groups: 1, Members: 2, Tokens: 3, LeasesKept: true})
}

// sending is a node that sends a file and then returns err.
func sending(err error, data ...string) func(context.Context, string, any) error {
	return func(_ context.Context, method string, req any) error {
		if method != "SaveSnapshot" {
			return nil
		}
		for _, d := range data {
			if serr := req.(saveStream).Send(&registrypb.SaveSnapshotResponse{Data: []byte(d), Receipt: &registrypb.Receipt{Index: 7}}); serr != nil {
				return serr
			}
		}
		return err
	}
}

// A node that has sent nothing is replaced by another; one that has sent a part is not,
// because no other node has the rest of its file.
func TestSaveSnapshotTriesNodesUntilDataCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone := status.Error(codes.Unavailable, "the node stops")
		cl := newFakeCluster(t, 2)
		cl.nodes[0].script(sending(gone))
		cl.nodes[1].script(sending(nil, "first ", "second"))
		c := cl.client(cl.target())
		var out bytes.Buffer
		var r Receipt
		if n, err := c.SaveSnapshot(t.Context(), &out, Linearizable(), WithReceipt(&r)); err != nil || out.String() != "first second" || n != 12 || r.Index != 7 {
			t.Errorf("%d bytes, %q, %+v, %v", n, &out, r, err)
		}
		cl.nodes[0].script(sending(gone, "half"))
		cl.nodes[1].script(sending(gone, "half"))
		out.Reset()
		if _, err := c.SaveSnapshot(t.Context(), &out); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the node stops") || out.String() != "half" {
			t.Errorf("%q, %v", &out, err)
		}
	})
}

func TestSaveSnapshotReportsTheWritersError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		cl.nodes[0].script(sending(nil, "data"))
		if _, err := cl.client(cl.target()).SaveSnapshot(t.Context(), fullDisk{}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%v", err)
		}
	})
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// A save lasts as long as data comes, and no longer.
func TestSaveSnapshotEndsWhenNothingComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 1)
		cl.nodes[0].script(func(ctx context.Context, method string, req any) error {
			if method != "SaveSnapshot" {
				return nil
			}
			if err := sending(nil, "data")(ctx, method, req); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		var out bytes.Buffer
		began := time.Now()
		_, err := cl.client(cl.target(), WithCallTimeout(200*time.Millisecond)).SaveSnapshot(t.Context(), &out)
		if !errors.Is(err, ErrUnavailable) || out.String() != "data" || time.Since(began) < 200*time.Millisecond {
			t.Errorf("%q after %v: %v", &out, time.Since(began), err)
		}
	})
}

// A node that refused the file is replaced by another, which gets it from its beginning.
// An unknown outcome is reported and not repeated.
func TestRestoreSnapshot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newFakeCluster(t, 2)
		file := strings.Repeat("0123456789", restoreChunk/4)
		var got []string
		answer := func(err error) func(context.Context, string, any) error {
			return func(_ context.Context, method string, req any) error {
				if method != "RestoreSnapshot" {
					return nil
				}
				got = append(got, string(req.([]byte)))
				return err
			}
		}
		cl.nodes[0].script(answer(because(registrypb.ErrorDetail_NO_LEADER)))
		cl.nodes[1].script(answer(nil))
		c := cl.client(cl.target())
		r, err := c.RestoreSnapshot(t.Context(), strings.NewReader(file))
		if err != nil || r != (Restored{Index: 500, Groups: 1, Members: 2, Tokens: 3, LeasesKept: true}) {
			t.Errorf("%+v, %v", r, err)
		}
		for i, f := range got {
			if f != file {
				t.Errorf("attempt %d got %d bytes of %d", i, len(f), len(file))
			}
		}
		if c.seen.Load() != 500 {
			t.Errorf("the next read may be of an index before: %d", c.seen.Load())
		}
		got = nil
		for _, n := range cl.nodes {
			n.script(answer(because(registrypb.ErrorDetail_OUTCOME_UNKNOWN)))
		}
		if _, err := c.RestoreSnapshot(t.Context(), strings.NewReader(file)); !errors.Is(err, ErrOutcomeUnknown) || len(got) != 1 {
			t.Errorf("%d attempts: %v", len(got), err)
		}
		if _, err := c.RestoreSnapshot(t.Context(), brokenFile{strings.NewReader(file)}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v", err)
		}
	})
}

// brokenFile cannot be read.
type brokenFile struct{ io.ReadSeeker }

func (brokenFile) Read([]byte) (int, error) {
	return 0, errors.Join(errors.New("read error"), io.ErrUnexpectedEOF)
}
