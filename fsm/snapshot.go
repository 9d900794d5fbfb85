package fsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// A snapshot is a stream of length-delimited fsmpb.SnapshotRecord messages: a
// header, each group followed by its members, the nodes, the fences, the tokens, the
// staged parts of a restoration, and a trailer with the number of records, a checksum of their bytes and the
// state's digest. Groups, members and nodes come in the order of their names, tokens of
// their ids, so equal states have equal snapshots.

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
	sw.header(&fsmpb.SnapshotHeader{Version: snapshotVersion, Index: s.index, Term: s.term, Leader: s.leader, NodesRevision: &s.nodesRevision, TokensRevision: s.tokensRevision, RestoredLeases: s.restoredLeases, StagedId: s.stagedID(), FeatureLevel: s.level})
	for g := range s.Groups {
		sw.group(g)
		for m := range g.Members {
			sw.member(m)
		}
	}
	for n := range s.Nodes {
		sw.node(n)
	}
	s.fences.byAge.Scan(func(_ string, f *Fence) bool {
		sw.fence(f)
		return sw.err == nil
	})
	for t := range s.Tokens {
		sw.token(t)
	}
	if s.staged != nil {
		for _, data := range s.staged.parts {
			sw.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Staged{Staged: &fsmpb.StagedPart{Data: data}}})
		}
	}
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

	// Reused by every member: without that, a snapshot of 100,000 members leaves a
	// million objects to the garbage collector, which writes then wait for.
	scratch []byte
	record  *fsmpb.SnapshotRecord
	out     *fsmpb.Member
}

func (w *snapshotWriter) write(r *fsmpb.SnapshotRecord) {
	if w.err != nil {
		return
	}
	size := proto.Size(r)
	w.scratch = protowire.AppendVarint(w.scratch[:0], uint64(size))
	if w.scratch, w.err = (proto.MarshalOptions{Deterministic: true, UseCachedSize: true}).MarshalAppend(w.scratch, r); w.err != nil {
		return
	}
	_, _ = w.sum.Write(w.scratch) // a hash never fails
	_, w.err = w.buf.Write(w.scratch)
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
	if w.out == nil {
		w.out = &fsmpb.Member{}
		w.record = &fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Member{Member: w.out}}
	}
	out := w.out
	out.Id, out.Addr, out.Weight, out.State = m.ID, m.Addr, m.Weight, uint32(m.State)
	out.Instance, out.Token = append(out.Instance[:0], m.Instance...), append(out.Token[:0], m.Token...)
	out.LeaseId, out.Epoch, out.TtlMs, out.HoldMs = m.LeaseID, m.Epoch, m.TTL.Milliseconds(), m.Hold.Milliseconds()
	out.CreatedIndex, out.ModifiedIndex, out.RegisteredMs = m.CreatedIndex, m.ModifiedIndex, m.RegisteredMS
	out.Meta = setPairs(out.Meta, m.Meta)
	w.write(w.record)
}

// setPairs fills a list of messages again.
func setPairs(out []*fsmpb.Pair, from []Pair) []*fsmpb.Pair {
	for len(out) < len(from) {
		out = append(out, &fsmpb.Pair{})
	}
	for i, p := range from {
		out[i].Key, out[i].Value = p.Key, p.Value
	}
	return out[:len(from)]
}

func (w *snapshotWriter) node(n *Node) {
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Node{Node: &fsmpb.Node{
		Id: n.ID, Bind: n.Bind, Addr: n.Addr, Version: n.Version, Incarnation: n.Incarnation, Nonvoter: n.Nonvoter, Zone: n.Zone,
	}}})
}

func (w *snapshotWriter) fence(f *Fence) {
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Fence{Fence: &fsmpb.Fence{
		Group: f.Group, Id: f.ID, Instance: []byte(f.Instance), Index: f.Index,
	}}})
}

func (w *snapshotWriter) token(t *Token) {
	out := &fsmpb.Token{
		Id: []byte(t.ID), Name: t.Name, Hash: t.Hash[:], ExpiresMs: t.ExpiresMS, CreatedMs: t.CreatedMS,
		PreviousExpiresMs: t.PreviousExpiresMS, CreatedIndex: t.CreatedIndex, ModifiedIndex: t.ModifiedIndex,
	}
	if t.PreviousExpiresMS != 0 {
		out.PreviousHash = t.PreviousHash[:]
	}
	for _, g := range t.Grants {
		out.Grants = append(out.Grants, &fsmpb.Grant{Rights: uint32(g.Rights), Prefix: g.Prefix})
	}
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Token{Token: out}})
}

func (w *snapshotWriter) trailer(digest uint64) {
	t := &fsmpb.SnapshotTrailer{Records: w.records, Checksum: w.sum.Sum64(), Digest: digest}
	w.write(&fsmpb.SnapshotRecord{Record: &fsmpb.SnapshotRecord_Trailer{Trailer: t}})
	if w.err == nil {
		w.err = w.buf.Flush()
	}
}
