package fsm

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

// Restore replaces the state by a snapshot's. The new state is published when it
// is complete; on an error the old one stays.
func (m *Machine) Restore(r io.Reader) error {
	next, err := ReadSnapshot(r)
	if err != nil {
		return err
	}
	m.Install(next)
	return nil
}

// Install replaces the state by one that ReadSnapshot returned. Like Apply, it
// is called by one goroutine at a time.
func (m *Machine) Install(next *State) {
	m.forgetMarks()
	m.replace(next)
}

// ReadSnapshot reads a snapshot. Its errors are [ErrCorruptSnapshot].
func ReadSnapshot(r io.Reader) (*State, error) {
	sr := &snapshotReader{in: &hashingReader{r: bufio.NewReaderSize(r, 1<<16), sum: xxhash.New()}}
	sr.batch = newBatch(newState(), new(metas))
	for !sr.done {
		if err := sr.next(); err != nil {
			return nil, fmt.Errorf("%w: record %d: %w", ErrCorruptSnapshot, sr.records, err)
		}
	}
	if _, err := sr.in.ReadByte(); err != io.EOF {
		return nil, fmt.Errorf("%w: data after the trailer", ErrCorruptSnapshot)
	}
	s, _ := sr.batch.finish()
	if s.digest != sr.digest {
		return nil, fmt.Errorf("%w: state has digest %016x, trailer says %016x", ErrCorruptSnapshot, s.digest, sr.digest)
	}
	return s, nil
}

// hashingReader hashes what is read, for the check of the trailer.
type hashingReader struct {
	r   *bufio.Reader
	sum *xxhash.Digest
}

func (h *hashingReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	_, _ = h.sum.Write(p[:n]) // a hash never fails
	return n, err
}

func (h *hashingReader) ReadByte() (byte, error) {
	c, err := h.r.ReadByte()
	if err == nil {
		_, _ = h.sum.Write([]byte{c})
	}
	return c, err
}

type snapshotReader struct {
	in      *hashingReader
	batch   *batch
	group   *openGroup
	records uint64
	nodes   uint64 // revision of the nodes
	tokens  uint64 // revision of the tokens
	digest  uint64
	done    bool
}

func (r *snapshotReader) next() error {
	before := r.in.sum.Sum64()
	var rec fsmpb.SnapshotRecord
	if err := (protodelim.UnmarshalOptions{MaxSize: maxSnapshotRecord}).UnmarshalFrom(r.in, &rec); err != nil {
		if err == io.EOF {
			return io.ErrUnexpectedEOF // a snapshot ends with its trailer
		}
		return err
	}
	if _, isHeader := rec.Record.(*fsmpb.SnapshotRecord_Header); isHeader != (r.records == 0) {
		return fmt.Errorf("header is not the first record")
	}
	r.records++
	switch v := rec.Record.(type) {
	case *fsmpb.SnapshotRecord_Header:
		return r.header(v.Header)
	case *fsmpb.SnapshotRecord_Group:
		return r.openGroup(v.Group)
	case *fsmpb.SnapshotRecord_Member:
		return r.member(v.Member)
	case *fsmpb.SnapshotRecord_Node:
		r.batch.setNode(v.Node)
		return nil
	case *fsmpb.SnapshotRecord_Fence:
		r.batch.index = v.Fence.Index
		r.batch.fence(v.Fence.Group, v.Fence.Id, string(v.Fence.Instance))
		return nil
	case *fsmpb.SnapshotRecord_Token:
		return r.token(v.Token)
	case *fsmpb.SnapshotRecord_Staged:
		if r.batch.next.staged == nil {
			return fmt.Errorf("a staged part of no restoration")
		}
		r.batch.addPart(v.Staged.Data)
		return nil
	case *fsmpb.SnapshotRecord_Trailer:
		return r.trailer(v.Trailer, before)
	}
	return fmt.Errorf("unknown record")
}

func (r *snapshotReader) header(h *fsmpb.SnapshotHeader) error {
	if h.Version != snapshotVersion {
		return fmt.Errorf("format version is %d, this program reads %d", h.Version, snapshotVersion)
	}
	if h.FeatureLevel > NewestLevel {
		return tooNew(h.FeatureLevel)
	}
	r.batch.setLevel(h.FeatureLevel)
	r.batch.next.index, r.batch.next.term, r.batch.next.leader = h.Index, h.Term, h.Leader
	if h.Term != 0 {
		r.batch.next.digest += termDigest(h.Term, h.Leader)
	}
	r.tokens = h.TokensRevision
	r.batch.next.restoredLeases = h.RestoredLeases
	r.batch.next.digest += leasesDigest(h.RestoredLeases)
	if h.StagedId != 0 {
		r.batch.next.staged = &staged{id: h.StagedId}
	}
	if r.nodes = h.Index; h.NodesRevision != nil { // 0.1.0 did not write it
		r.nodes = *h.NodesRevision
	}
	return nil
}

func (r *snapshotReader) openGroup(in *fsmpb.Group) error {
	if r.batch.group(in.Name) != nil {
		return fmt.Errorf("group %q twice", in.Name)
	}
	g, err := r.batch.createGroup(in.Name)
	if err != nil {
		return err
	}
	g.Params = ring.Params{VirtualNodes: int(in.VirtualNodes), Bound: int(in.Bound)}
	if err := g.Params.Validate(); err != nil {
		return fmt.Errorf("group %q: %w", in.Name, err)
	}
	g.Revision = in.Revision
	r.group = g
	return nil
}

func (r *snapshotReader) member(in *fsmpb.Member) error {
	if r.group == nil {
		return fmt.Errorf("member %q before any group", in.Id)
	}
	m := &Member{
		ID: in.Id, Addr: in.Addr, Weight: in.Weight, Meta: r.batch.metas.pairs(in.Meta), State: ring.State(in.State),
		Instance: string(in.Instance), LeaseID: in.LeaseId, Epoch: in.Epoch,
		TTL:          time.Duration(in.TtlMs) * time.Millisecond,
		CreatedIndex: in.CreatedIndex, ModifiedIndex: in.ModifiedIndex, RegisteredMS: in.RegisteredMs,
		Hold: time.Duration(in.HoldMs) * time.Millisecond, Token: string(in.Token),
	}
	if err := (ring.Member{ID: m.ID, Weight: int(m.Weight), State: m.State}).Validate(); err != nil {
		return err // building the ring would panic
	}
	if err := r.batch.roomFor(r.group, nil, uint64(m.Weight)); err != nil {
		return err
	}
	r.batch.set(r.group, m)
	return nil
}

// token checks what Validate checked before the log: the state has hashes of a fixed
// length, and a name that two tokens had would lose one of them.
func (r *snapshotReader) token(in *fsmpb.Token) error {
	if err := validateToken(in); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	t := newToken(in)
	if r.batch.next.Token(t.ID) != nil || r.batch.next.TokenNamed(t.Name) != nil {
		return fmt.Errorf("token %q twice", t.Name)
	}
	if in.PreviousExpiresMs != 0 {
		if err := validateHash("previous_hash", in.PreviousHash); err != nil {
			return fmt.Errorf("token %q: %w", t.Name, err)
		}
		copy(t.PreviousHash[:], in.PreviousHash)
		t.PreviousExpiresMS = in.PreviousExpiresMs
	}
	t.CreatedMS, t.CreatedIndex, t.ModifiedIndex = in.CreatedMs, in.CreatedIndex, in.ModifiedIndex
	r.batch.putToken(t)
	return nil
}

func (r *snapshotReader) trailer(t *fsmpb.SnapshotTrailer, sum uint64) error {
	if t.Records != r.records-1 {
		return fmt.Errorf("trailer counts %d records, %d were read", t.Records, r.records-1)
	}
	if t.Checksum != sum {
		return fmt.Errorf("trailer has checksum %016x, the records have %016x", t.Checksum, sum)
	}
	r.batch.next.nodesRevision, r.batch.next.tokensRevision = r.nodes, r.tokens
	r.digest, r.done = t.Digest, true
	return nil
}
