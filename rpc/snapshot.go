package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/backup"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// maxSavePause bounds the pause after one message of a snapshot.
const maxSavePause = 10 * time.Millisecond

// paced pauses after each message for as long as it took to make and send, up to
// maxSavePause, so that a save leaves the processors to writes for half of the time.
func paced(send chunkWriter) chunkWriter {
	resumed := time.Now()
	return func(data []byte) error {
		err := send(data)
		time.Sleep(min(time.Since(resumed), maxSavePause))
		resumed = time.Now()
		return err
	}
}

// SaveSnapshot implements the public service. It holds a reference to one state, which
// later entries do not change, so nobody waits for it.
func (s *Server) SaveSnapshot(req *registrypb.SaveSnapshotRequest, stream grpc.ServerStreamingServer[registrypb.SaveSnapshotResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer s.whileServing(cancel)()
	state, err := s.state(ctx, req.GetRead())
	if err == nil {
		err = state.Verify(ctx) // corrupted memory must not reach the file
	}
	if err != nil {
		return toStatus(err)
	}
	receipt := s.receipt(state, nil)
	out := bufio.NewWriterSize(paced(func(data []byte) error {
		if ctx.Err() != nil { // the token was revoked, for instance
			return context.Cause(ctx)
		}
		m := &registrypb.SaveSnapshotResponse{Data: data, Receipt: receipt}
		receipt = nil // it is in the first message
		return stream.Send(m)
	}), stateChunk)
	if err := backup.Write(out, state.State, s.store.About()); err != nil {
		return toStatus(err)
	}
	return toStatus(out.Flush())
}

type restoreStream = grpc.ClientStreamingServer[registrypb.RestoreSnapshotRequest, registrypb.RestoreSnapshotResponse]

// RestoreSnapshot implements the public service: here on the leader, or by one hop. It
// does not retry: the file can be read once.
func (s *Server) RestoreSnapshot(stream restoreStream) error {
	first, err := stream.Recv() // decides about the caller
	if errors.Is(err, io.EOF) {
		return toStatus(notAFile(io.ErrUnexpectedEOF))
	}
	if err != nil {
		return err
	}
	resp, err := s.restoreSnapshot(stream.Context(), &upload{stream: stream, left: first.GetData()})
	if err != nil {
		return toStatus(err)
	}
	return stream.SendAndClose(resp)
}

func (s *Server) restoreSnapshot(ctx context.Context, file *upload) (*registrypb.RestoreSnapshotResponse, error) {
	cluster, forwarded := forwardedTo(ctx)
	if forwarded {
		if err := s.store.IsTarget("", cluster); err != nil {
			return nil, err
		}
	}
	err := callOf(ctx).asLeader(ctx)
	switch {
	case err != nil && (forwarded || !errors.Is(err, store.ErrNotLeader)):
		return nil, err
	case err == nil && (forwarded || s.store.IsLeader()):
		return s.restoreHere(ctx, file)
	}
	leader, _ := s.store.Leader()
	return s.forwardRestore(ctx, leader, file)
}

func (s *Server) restoreHere(ctx context.Context, upload *upload) (*registrypb.RestoreSnapshotResponse, error) {
	file, err := backup.Read(upload)
	if err != nil {
		return nil, notAFile(err)
	}
	restored, err := s.store.Restore(ctx, file)
	if err != nil {
		return nil, err
	}
	return &registrypb.RestoreSnapshotResponse{
		Index: restored.Index, LeasesKept: restored.LeasesKept,
		Groups: file.Header.Groups, Members: file.Header.Members, Tokens: file.Header.Tokens,
	}, nil
}

// notAFile turns an error about a file into one about a field of the request.
func notAFile(err error) error {
	if errors.Is(err, backup.ErrDamaged) || errors.Is(err, backup.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &fsm.FieldError{Field: "data", Limit: "a whole snapshot file", Got: fmt.Sprintf("one that cannot be restored: %v", err)}
	}
	return err
}

// forwardRestore passes the file on. When it was sent, the end of this call does not end
// the leader's: the restored tokens may lack the caller's.
func (s *Server) forwardRestore(ctx context.Context, leader string, file *upload) (*registrypb.RestoreSnapshotResponse, error) {
	if leader == "" || leader == s.store.Self().Bind {
		return nil, fmt.Errorf("%w: none is known", store.ErrNotLeader)
	}
	conn, err := s.peers.conn(leader)
	if err != nil {
		return nil, err
	}
	hop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	sent := context.AfterFunc(ctx, cancel)
	out, err := registrypb.NewClusterClient(conn).RestoreSnapshot(forwarding(hop, s.store.ClusterID()))
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be reached: %w", store.ErrNotLeader, stripStatus(err))
	}
	for data, err := file.next(); err != io.EOF; data, err = file.next() {
		if err != nil {
			return nil, err
		}
		if out.Send(&registrypb.RestoreSnapshotRequest{Data: data}) != nil {
			break // CloseAndRecv has the reason
		}
	}
	sent()
	return out.CloseAndRecv()
}

// upload is the file of a RestoreSnapshot.
type upload struct {
	stream restoreStream
	left   []byte
}

// next returns the next bytes, or io.EOF after the last.
func (u *upload) next() ([]byte, error) {
	if data := u.left; len(data) > 0 {
		u.left = nil
		return data, nil
	}
	m, err := u.stream.Recv()
	return m.GetData(), err
}

func (u *upload) Read(p []byte) (int, error) {
	data, err := u.next()
	if err != nil {
		return 0, err
	}
	n := copy(p, data)
	u.left = data[n:]
	return n, nil
}
