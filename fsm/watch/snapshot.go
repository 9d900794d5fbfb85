package watch

import (
	"sync"
	"weak"

	"github.com/werbenhu/registry/fsm"
)

// Snapshot is a group as a whole, at one applied index. It is sent in pieces: a
// group may be larger than memory has room for twice.
type Snapshot struct {
	Group *fsm.Group
	Index uint64

	mu     sync.Mutex // guards pieces
	pieces map[string]weak.Pointer[Piece]
}

// Piece is some members of a snapshot that follow each other. It is kept for as
// long as somebody holds it: those who send a snapshot at one time share its pieces.
//
//	members  a b c d e
//	pieces   after "": a b, more · after "b": c d, more · after "d": e
type Piece struct {
	Snapshot *Snapshot
	After    string // id of the member before the first; empty: none

	// What the function that was given to Snapshot.Piece made of it.
	Encoded any
	End     string // id of its last member
	More    bool   // another piece follows, after End

	encoded sync.Once
}

// Piece returns the piece that begins after a member. encode sets Encoded, End
// and More; it is called once for those who hold the piece at one time, and has to
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
