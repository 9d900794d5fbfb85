package sdk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// ErrDiskCopy: the copy of a ring on disk is damaged, too old, or of another group
// or cluster. It is not used.
var ErrDiskCopy = errors.New("registry: unusable copy of the ring")

// The file, all integers little endian:
//
//	8 bytes   "RINGCPY2"
//	i64       when a node last confirmed the ring, in nanoseconds of Unix time;
//	          0 if none had
//	u32       length of the group
//	          the group: a GroupSnapshot, with fingerprint and cluster
//	32 bytes  SHA-256 of all before
//
// Trailing data and other versions are refused.
const (
	copyMagic  = "RINGCPY2"
	copyMagic1 = "RINGCPY1" // its fingerprint was a digest of the points
	copyHead   = len(copyMagic) + 8 + 4
	copyMaxLen = 256 << 20
	// copySkew is how far in the future a copy may be: clocks are set back.
	copySkew = 5 * time.Second
	// copyPause is the least time between two writes.
	copyPause = time.Second
)

// diskCopy is a ring from disk.
type diskCopy struct {
	view   *View
	inputs *inputs
	asOf   time.Time // zero if no node had confirmed the ring
}

func encodeCopy(v *View, asOf time.Time) ([]byte, error) {
	s := &registrypb.GroupSnapshot{
		Group: v.group, Revision: v.revision, Index: v.index, Fingerprint: v.fingerprint, ClusterId: v.cluster,
		Config: &registrypb.GroupConfig{
			VirtualNodes: uint32(v.ring.Params().VirtualNodes), Bound: uint32(v.ring.Params().Bound),
		},
	}
	for _, m := range v.members {
		s.Members = append(s.Members, memberToProto(m))
	}
	body, err := proto.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(body) > copyMaxLen {
		return nil, fmt.Errorf("a ring of %d bytes is too large for a copy on disk, want at most %d", len(body), copyMaxLen)
	}
	out := append(make([]byte, 0, copyHead+len(body)+sha256.Size), copyMagic...)
	at := int64(0)
	if !asOf.IsZero() {
		at = asOf.UnixNano()
	}
	out = binary.LittleEndian.AppendUint64(out, uint64(at))
	out = binary.LittleEndian.AppendUint32(out, uint32(len(body)))
	out = append(out, body...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

// decodeCopy refuses anything that encodeCopy does not make.
func decodeCopy(group string, data []byte) (*diskCopy, error) {
	if bytes.HasPrefix(data, []byte(copyMagic1)) {
		return nil, fmt.Errorf("%w: version 1: its fingerprint had another meaning", ErrDiskCopy)
	}
	if len(data) < copyHead+sha256.Size || string(data[:len(copyMagic)]) != copyMagic {
		return nil, fmt.Errorf("%w: not a copy of a ring, or of an unknown version", ErrDiskCopy)
	}
	end := len(data) - sha256.Size
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, fmt.Errorf("%w: damaged: checksum differs", ErrDiskCopy)
	}
	at := int64(binary.LittleEndian.Uint64(data[len(copyMagic):]))
	body := data[copyHead:end]
	if int(binary.LittleEndian.Uint32(data[copyHead-4:])) != len(body) {
		return nil, fmt.Errorf("%w: damaged: length differs", ErrDiskCopy)
	}
	s := &registrypb.GroupSnapshot{}
	if err := proto.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("%w: damaged: %w", ErrDiskCopy, err)
	}
	if s.GetGroup() != group {
		return nil, fmt.Errorf("%w: it is of group %q, not %q", ErrDiskCopy, s.GetGroup(), group)
	}
	st := &step{
		reset: true, revision: s.GetRevision(), index: s.GetIndex(), fingerprint: s.GetFingerprint(), cluster: s.GetClusterId(),
		params: paramsFromProto(s.GetConfig()), put: sortedMembers(s.GetMembers()),
	}
	in, err := inputsOf(st.params, st.put)
	if err == nil {
		err = in.check(st.revision, st.fingerprint)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDiskCopy, err)
	}
	built, err := ring.New(st.params, ringMembers(st.put))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDiskCopy, err)
	}
	c := &diskCopy{inputs: in, view: newView(group, state{
		revision: st.revision, index: st.index, fingerprint: st.fingerprint, cluster: st.cluster, params: st.params,
	}, st.put, built)}
	if at != 0 {
		c.asOf = time.Unix(0, at)
	}
	return c, nil
}

// tooOld refuses a copy by its age.
func (c *diskCopy) tooOld(limit time.Duration) error {
	if c.asOf.After(time.Now().Add(copySkew)) {
		return fmt.Errorf("%w: its time %s is in the future, so its age is not known", ErrDiskCopy, c.asOf.Format(time.RFC3339))
	}
	if age := ageOf(c.asOf); limit > 0 && age > limit {
		return fmt.Errorf("%w: its age is %s, at most %s is allowed", ErrDiskCopy, age.Round(time.Second), limit)
	}
	return nil
}

func readCopy(group, path string) (*diskCopy, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > copyMaxLen+4096 {
		return nil, fmt.Errorf("%w: file of %d bytes", ErrDiskCopy, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeCopy(group, data)
}

// loadCopy reads the copy before the first answer. Its revision becomes the minimum
// even if the copy is too old to serve: a node that is behind it needs the leader's
// confirmation.
func (r *Ring) loadCopy() error {
	if r.opts.path == "" {
		return nil
	}
	c, err := readCopy(r.group, r.opts.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = r.c.identity.checkCopy(c.view.cluster, false)
	}
	if err == nil {
		r.track.minimum = groupVersion{c.view.revision, c.view.fingerprint, c.view.cluster}
		err = c.tooOld(r.opts.copyMaxAge)
	}
	if err == nil { // only a copy that is used sets the client's cluster
		err = r.c.identity.checkCopy(c.view.cluster, true)
	}
	if err != nil {
		r.c.cfg.logger.Warn("the copy of the ring on disk is not used", "group", r.group, "path", r.opts.path, "error", err)
		return err
	}
	r.copied = c
	return nil
}

// useCopy serves the copy if there is no newer state.
func (r *Ring) useCopy() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.copied == nil || r.latest != nil || r.received > 0 || r.missing || r.ctx.Err() != nil {
		return
	}
	if err := r.copied.tooOld(r.opts.copyMaxAge); err != nil {
		return // its age has exceeded the limit since
	}
	r.stats.FromDisk = true
	if !r.copied.asOf.IsZero() {
		// Converted to this process's monotonic clock.
		r.copied.asOf = time.Now().Add(-ageOf(r.copied.asOf))
		r.staleness.confirm(r.copied.asOf)
	}
	r.setLatestLocked(r.copied.view)
	r.checkAgeLocked()
	r.c.cfg.logger.Warn("no node answers: the ring is the copy on disk",
		"group", r.group, "revision", r.copied.view.revision, "age", r.Age().Round(time.Second))
}

// copyLoop writes the copy after changes and when the ring was confirmed.
func (r *Ring) copyLoop() {
	var written *View
	var at time.Time
	write := func(force bool) {
		v, asOf := r.newest()
		if v == nil || v == written && (!force && asOf.Sub(at) < r.opts.copyEvery || asOf.Equal(at)) {
			return
		}
		if err := writeCopy(r.opts.path, v, asOf); err != nil {
			r.c.cfg.logger.Error("the copy of the ring cannot be written", "group", r.group, "path", r.opts.path, "error", err)
			r.mu.Lock()
			r.stats.DiskErrors++
			r.mu.Unlock()
			return
		}
		written, at = v, asOf
	}
	for {
		select {
		case <-r.ctx.Done():
			write(true)
			return
		case <-r.dirty:
		}
		write(false)
		r.c.pause(r.ctx, copyPause)
	}
}

// newest returns the ring to copy: nil before a node has answered.
func (r *Ring) newest() (*View, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.latest == nil || r.copied != nil && r.latest == r.copied.view && r.staleness.since().Equal(r.copied.asOf) {
		return nil, time.Time{}
	}
	return r.latest, r.staleness.since()
}

// writeCopy replaces the file atomically: after a crash there is the old copy or the
// new one.
func writeCopy(path string, v *View, asOf time.Time) (err error) {
	data, err := encodeCopy(v, asOf)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // may be closed already
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // renamed; some systems cannot open directories
	}
	defer d.Close()
	_ = d.Sync() // nor sync them
	return nil
}

func memberToProto(m Member) *registrypb.Member {
	out := &registrypb.Member{
		Id: m.ID, Addr: m.Addr, Weight: uint32(m.Weight), Meta: m.Meta, State: stateToProto(m.State),
		Ttl: durationpb.New(m.TTL), CreatedIndex: m.CreatedIndex, ModifiedIndex: m.ModifiedIndex,
	}
	if m.Hold > 0 {
		out.Hold = durationpb.New(m.Hold)
	}
	if !m.RegisteredAt.IsZero() {
		out.RegisteredAt = timestamppb.New(m.RegisteredAt)
	}
	return out
}
