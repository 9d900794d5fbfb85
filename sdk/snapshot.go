package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// restoreChunk is the size of one message of a file.
const restoreChunk = 256 << 10

// restoreWait is how long the leader may take for a file that it has: longer than its
// own limit.
const restoreWait = 5 * time.Minute

// Restored is the result of RestoreSnapshot.
type Restored struct {
	// Index is the log index of the restored state, and the revision of all its groups.
	Index                   uint64
	Groups, Members, Tokens int
	// LeasesKept: the file is of this cluster, and processes that run keep their
	// registrations. Otherwise they have to register again.
	LeasesKept bool
}

// SaveSnapshot writes a snapshot file to w: the state of the whole cluster at one index.
// It needs the right admin. Without options the file has every write acknowledged
// before; with MaxStaleness for instance a node writes its own state, also without a
// leader. The file is whole only if the error is nil.
//
// ctx bounds the call. It also ends when no data comes for the client's call timeout.
// Another node is tried only as long as nothing was written.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer, opts ...ReadOption) (size int64, err error) {
	const op = "save snapshot"
	if err := c.open(); err != nil {
		return 0, err
	}
	if len(opts) == 0 {
		opts = []ReadOption{Linearizable()}
	}
	o := readOptionsOf(opts)
	ctx, idle := c.whileMoving(ctx)
	defer idle.stop()
	var broken error
	err = c.do(ctx, op, saveKind, func(ctx context.Context, a *attempt) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := a.cluster().SaveSnapshot(ctx, &registrypb.SaveSnapshotRequest{Read: o.proto(0, false)}, a.opts...)
		if err != nil {
			return err
		}
		size, err = receiveFile(stream, w, idle, o.receipt)
		if _, own := errors.AsType[*writeError](err); own {
			cancel()
			_, _ = stream.Recv() // waits until gRPC has let go of the call's options
		}
		if size > 0 {
			broken, err = err, nil // no other node can continue the file
		}
		return err
	})
	if broken != nil {
		err = broken
		if _, own := errors.AsType[*writeError](broken); !own {
			err = errorFromStatus(op, broken)
		}
	}
	return size, err
}

// receiveFile writes what a stream sends.
func receiveFile(stream grpc.ServerStreamingClient[registrypb.SaveSnapshotResponse], w io.Writer, idle *idleTimer, receipt *Receipt) (size int64, err error) {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		if len(m.GetData()) > 0 { // a node that sends no more than a receipt and fails may do so for ever
			idle.moved()
		}
		if r := m.GetReceipt(); r != nil && receipt != nil {
			*receipt = receiptFromProto(r)
		}
		size += int64(len(m.GetData()))
		if _, err := w.Write(m.GetData()); err != nil {
			return size, &writeError{err}
		}
	}
}

// writeError is an error of the caller's writer.
type writeError struct{ err error }

func (e *writeError) Error() string { return fmt.Sprintf("save snapshot: %v", e.err) }
func (e *writeError) Unwrap() error { return e.err }

// RestoreSnapshot replaces the groups, members and tokens of the cluster by those of a
// file of SaveSnapshot, at one index of the log. Nodes stay. It needs the right admin.
// A file that is damaged, or cannot be restored, is ErrInvalidArgument and changes
// nothing.
//
// Watches and rings follow by themselves: the revision of every group rises. Every lease
// gets its full TTL. With a file of this cluster, processes keep the registrations that
// the file has, and register again those that it lacks.
//
// After ErrOutcomeUnknown the file was restored wholly or not at all, and the call may be
// repeated. ctx bounds the call, which is given to another node as long as a node
// refused it.
func (c *Client) RestoreSnapshot(ctx context.Context, file io.ReadSeeker) (Restored, error) {
	const op = "restore snapshot"
	if err := c.open(); err != nil {
		return Restored{}, err
	}
	ctx, idle := c.whileMoving(ctx)
	defer idle.stop()
	var resp *registrypb.RestoreSnapshotResponse
	var unread error // of the file
	err := c.do(ctx, op, restoreKind, func(ctx context.Context, a *attempt) error {
		if _, unread = file.Seek(0, io.SeekStart); unread != nil {
			return nil
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := a.cluster().RestoreSnapshot(ctx, a.opts...)
		if err != nil {
			return err
		}
		if unread = sendFile(stream, file, idle); unread != nil {
			cancel()
			_, _ = stream.CloseAndRecv() // waits until gRPC has let go of the call's options
			return nil
		}
		idle.allow(restoreWait)
		resp, err = stream.CloseAndRecv()
		return err
	})
	switch {
	case err != nil:
		return Restored{}, err
	case unread != nil:
		return Restored{}, fmt.Errorf("%s: %w", op, unread)
	}
	c.observe(resp.GetIndex())
	return Restored{
		Index: resp.GetIndex(), LeasesKept: resp.GetLeasesKept(),
		Groups: int(resp.GetGroups()), Members: int(resp.GetMembers()), Tokens: int(resp.GetTokens()),
	}, nil
}

// sendFile returns errors of the file only; that of the stream comes with its answer.
func sendFile(stream grpc.ClientStreamingClient[registrypb.RestoreSnapshotRequest, registrypb.RestoreSnapshotResponse], file io.Reader, idle *idleTimer) error {
	for {
		data := make([]byte, restoreChunk) // gRPC may use a message after Send returned
		n, err := io.ReadFull(file, data)
		if n > 0 && stream.Send(&registrypb.RestoreSnapshotRequest{Data: data[:n]}) != nil {
			return nil
		}
		idle.moved()
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}

// idleTimer ends a context when nothing has moved for a while.
type idleTimer struct {
	timer  *time.Timer
	limit  time.Duration
	cancel context.CancelFunc
}

// whileMoving returns a context that ends when nothing moves for the call timeout.
func (c *Client) whileMoving(ctx context.Context) (context.Context, *idleTimer) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := c.cfg.callTimeout
	t := &idleTimer{limit: limit, cancel: func() { cancel(nil) }}
	t.timer = time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
	return movingContext{ctx}, t
}

// movingContext says that it ran out of time, and not that it was cancelled.
type movingContext struct{ context.Context }

func (c movingContext) Err() error {
	err := c.Context.Err()
	if err != nil && errors.Is(context.Cause(c.Context), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

func (t *idleTimer) moved() { t.timer.Reset(t.limit) }

// allow lets nothing move for that long, once.
func (t *idleTimer) allow(d time.Duration) { t.timer.Reset(d) }

func (t *idleTimer) stop() {
	t.timer.Stop()
	t.cancel()
}
