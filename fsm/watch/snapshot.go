package watch

import (
	"sync"
	"weak"

	"github.com/werbenhu/registry/fsm"
)

// Snapshot is a whole group at an applied index. It is sent in pieces, because memory
// may not have room for a large group twice.
type Snapshot struct {
	Group *fsm.Group
	Index uint64

	mu     sync.Mutex // guards pieces
	pieces map[string]weak.Pointer[Piece]
}

// Piece is a range of the members of a snapshot. It is kept while a watcher holds it:
// watchers that send a snapshot at the same time share its pieces.
//
//	members  a b c d e
//	pieces   after "": a b, more · after "b": c d, more · after "d": e
type Piece struct {
	Snapshot *Snapshot
	After    string // id of the member before the first; empty: none

	// Set by the encode function of Snapshot.Piece.
	Encoded any
	End     string // id of its last member
	More    bool   // another piece follows, after End

	encoded sync.Once
}

// Piece returns the piece that begins after a member. encode sets Encoded, End and
// More; it is called once for all that hold the piece at the same time, and has to
// end equal pieces at the same member.
func (s *Snapshot) Piece(after string, encode func(*Piece)) *Piece {
	p := s.piece(after)
	p.encoded.Do(func() { encode(p) })
	return p
}

func (s *Snapshot) piece(after string) *Piece {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pieces[after].Value(); p != nil {
		return p
	}
	if s.pieces == nil {
		s.pieces = make(map[string]weak.Pointer[Piece])
	}
	p := &Piece{Snapshot: s, After: after}
	s.pieces[after] = weak.Make(p)
	return p
}
