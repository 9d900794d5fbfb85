package fsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// A snapshot is a stream of length-delimited fsmpb.SnapshotRecord messages: a
// header, each group followed by its members, the nodes, the fences, and a
// trailer with the number of records, a checksum of their bytes and the
// state's digest. Groups, members and nodes come in the order of their names,
// so equal states have equal snapshots.

// snapshotVersion is the version that is written and read. Version 1 bounded the
// points of all rings together.
const snapshotVersion = 2

// maxSnapshotRecord bounds a record that is read; a member with full metadata is
// far smaller.
const maxSnapshotRecord = 64 << 10

// ErrCorruptSnapshot is the error of every snapshot that cannot be read.
var ErrCorruptSnapshot = errors.New("corrupt snapshot")

// WriteSnapshot streams the state to w.
func (s *State) WriteSnapshot(w io.Writer) error {
	sw := &snapshotWriter{buf: bufio.NewWriterSize(w, 1<<16), sum: xxhash.New()}
	sw.header(&fsmpb.SnapshotHeader{Version: snapshotVersion, Index: s.index, Term: s.term, Leader: s.leader, NodesRevision: &s.nodesRevision})
	for g := range s.Groups {
		sw.group(g)
		for m := range g.Members {
			sw.member(m)
		}
	}
	for n := range s.Nodes {
		sw.node(n)
	}
	s.fences.byAge.Root().Walk(func(_ []byte, f *Fence) bool {
		sw.fence(f)
		return sw.err != nil
	})
	sw.trailer(s.digest)
	if sw.err != nil {
		return fmt.Errorf("write snapshot: %w", sw.err)
	}
	return nil
}

type snapshotWriter struct {
	buf     *bufio.Writer
	sum     *xxhash.Digest
	records uint64
	err     error // the first one; later calls do nothing
}

func (w *snapshotWriter) write(r *fsmpb.SnapshotRecord) {
	if w.err != nil {
		return
	}
	_, w.err = protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}.
		MarshalTo(io.MultiWriter(w.buf, w.sum), r)
	w.records++
}

func (w *snapshotWriter) header(h *fsmpb.SnapshotHeader) {
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Header{Header: h}})
}

func (w *snapshotWriter) group(g *Group) {
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Group{Group: &fsmpb.Group{
		Name: g.Name, VirtualNodes: uint32(g.Params.VirtualNodes), Bound: uint32(g.Params.Bound), Revision: g.Revision,
	}}})
}

func (w *snapshotWriter) member(m *Member) {
	out := &fsmpb.Member{
		Id: m.ID, Addr: m.Addr, Weight: m.Weight, State: uint32(m.State), Instance: []byte(m.Instance),
		LeaseId: m.LeaseID, Epoch: m.Epoch, TtlMs: m.TTL.Milliseconds(),
		CreatedIndex: m.CreatedIndex, ModifiedIndex: m.ModifiedIndex, RegisteredMs: m.RegisteredMS,
		HoldMs: m.Hold.Milliseconds(),
	}
	for _, p := range m.Meta {
		out.Meta = append(out.Meta, &fsmpb.Pair{Key: p.Key, Value: p.Value})
	}
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Member{Member: out}})
}

func (w *snapshotWriter) node(n *Node) {
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Node{Node: &fsmpb.Node{
		Id: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version, Incarnation: n.Incarnation, Nonvoter: n.Nonvoter,
	}}})
}

func (w *snapshotWriter) fence(f *Fence) {
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Fence{Fence: &fsmpb.Fence{
		Group: f.Group, Id: f.ID, Instance: []byte(f.Instance), Index: f.Index,
	}}})
}

func (w *snapshotWriter) trailer(digest uint64) {
	t := &fsmpb.SnapshotTrailer{Records: w.records, Checksum: w.sum.Sum64(), Digest: digest}
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Trailer{Trailer: t}})
	if w.err == nil {
		w.err = w.buf.Flush()
	}
}
