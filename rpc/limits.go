package rpc

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
)

// Limits of messages, in bytes. A member takes at most 10 KiB of one, a group 320
// bytes; a group has at most 1,048,576 members (ring.MaxMembers), a cluster
// 2,097,152 (fsm.MaxTotalMembers) in 100,000 groups (fsm.MaxGroups).
//
//	answer                   largest under these limits         what bounds it
//	Register and the other
//	writes, Heartbeat,
//	Guard                    11 KiB: 1,000 lost leases
//	RegisterMany             1 MiB: 1,000 failures              the names in them
//	Members                  10 GiB: a group's members          MaxAnswer, or refused with the field page_size
//	Members, a page          1 MiB                              MaxPiece
//	Groups                   31 MiB: all groups                 MaxAnswer, or refused with the field page_size
//	Groups, a page           1 MiB                              MaxPiece
//	Match                    10 MiB: 1,000 owners               MaxAnswer, or refused with the field n
//	MatchMany                1 GiB: 100,000 owners              MaxAnswer, or refused with the field keys or n
//	Watch, snapshot          10 GiB: a group's members          MaxPiece; MaxAnswer without pieces
//	Watch, delta             as a snapshot: entries that are    MaxPiece; MaxAnswer without pieces
//	                         applied together make one
//	Watch, groups            31 MiB: all groups                 MaxPiece; MaxAnswer without pieces
//	Watch, nodes; Status     1.3 KiB a node, and its alarms     nothing: 1,000 nodes are 1.3 MiB
//	between nodes: writes    as above, with what clients sent   MaxRequest
//	between nodes: Check     20 KiB: 64 rings
//	between nodes: State     64 KiB                             chunks (stateChunk)
//	raft: entries            11 KiB a registration, 560 KiB an  1,024 entries a message; raft's streams
//	                         expiry of 1,000 leases             have no limit of messages
//	snapshot, on disk and
//	between nodes            11 KiB a record: a member          records of 64 KiB; raft streams the file
//
// In the SDK the copy of a ring on disk is at most 256 MiB, and a ring of more has
// none, which is logged and counted (RingStats.DiskErrors).
const (
	// MaxRequest bounds one request.
	MaxRequest = 1 << 20
	// MaxAnswer bounds one message of an answer: the default limit of gRPC's clients.
	MaxAnswer = 4 << 20
	// MaxPiece bounds pages, and the pieces of events.
	MaxPiece = 1 << 20
)

// maxPage bounds page_size.
const maxPage = 10_000

// messageHead is more than the size of an answer without its list.
const messageHead = 1 << 10

// Limits are MaxAnswer, MaxPiece, MaxStreams, MaxCalls and RequestTime where they are
// zero. Tests set smaller ones. One element of a list always fits into MaxPiece.
type Limits struct {
	Answer, Piece  int // of messages that are sent, in bytes
	Streams, Calls int // of clients
	RequestTime    time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Answer == 0 {
		l.Answer = MaxAnswer
	}
	if l.Piece == 0 {
		l.Piece = MaxPiece
	}
	if l.Streams == 0 {
		l.Streams = MaxStreams
	}
	if l.Calls == 0 {
		l.Calls = MaxCalls
	}
	if l.RequestTime == 0 {
		l.RequestTime = RequestTime
	}
	return l
}

// tooLarge refuses a call whose answer would be larger than the limit.
func (l Limits) tooLarge(field, limit, got string) error {
	return &fsm.FieldError{Field: field, Limit: fmt.Sprintf("%s %d bytes", limit, l.Answer), Got: got}
}

const answerLimit = "so small that the answer is at most" // of n, and of the number of keys

// memberSize is an upper bound of a member's size in a message.
func memberSize(m *fsm.Member) int {
	size := 128 + len(m.ID) + len(m.Addr)
	for _, p := range m.Meta {
		size += 16 + len(p.Key) + len(p.Value)
	}
	return size
}

func groupSize(g *fsm.Group) int { return 64 + len(g.Name) }

func nameSize(name string) int { return 8 + len(name) }

// fitting returns the number of first elements that fit into room, at least one if
// there are any, and subtracts their sizes.
func fitting[T any](list []T, size func(T) int, room *int) (n int) {
	for ; n < len(list); n++ {
		need := size(list[n])
		if n > 0 && need > *room {
			break
		}
		*room -= need
	}
	return n
}

// moreOf returns the field more of a piece: nil for an event in one message.
func moreOf(first, more bool) *bool {
	if first && !more {
		return nil
	}
	return proto.Bool(more)
}
