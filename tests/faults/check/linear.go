package check

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind says what an operation does.
type Kind string

// The operations of a history.
const (
	Register   Kind = "register"   // a fresh instance takes the id
	Update     Kind = "update"     // of the weight
	Deregister Kind = "deregister" // whoever holds the id
	Read       Kind = "read"       // linearizable, of the whole group
)

// Outcome is what the client learnt of an operation.
type Outcome string

// Outcomes. Conflict and Absent tell something about the state; Failed and
// Unknown do not.
const (
	OK       Outcome = "ok"
	Failed   Outcome = "failed"   // it had no effect
	Unknown  Outcome = "unknown"  // it may have an effect, now or later
	Conflict Outcome = "conflict" // another instance holds the id at another address
	Absent   Outcome = "absent"   // the member is not there
)

// Member is what readers see of a member.
type Member struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Weight uint32 `json:"weight"`
}

// Op is one call of a client.
type Op struct {
	Client   int           `json:"client"`
	Node     string        `json:"node"`
	Group    string        `json:"group"`
	Kind     Kind          `json:"kind"`
	Member   Member        `json:"member,omitzero"` // what a write is about
	TakeOver bool          `json:"take_over,omitzero"`
	Call     time.Duration `json:"call"`
	Return   time.Duration `json:"return"`
	Outcome  Outcome       `json:"outcome"`
	Removed  bool          `json:"removed,omitzero"` // a deregistration's answer
	Members  []Member      `json:"members,omitempty"`
	Error    string        `json:"error,omitempty"`
}

func (o Op) String() string {
	what := fmt.Sprintf("%s %s", o.Kind, o.Member.ID)
	switch o.Kind {
	case Register:
		what = fmt.Sprintf("%s %s at %s, weight %d", o.Kind, o.Member.ID, o.Member.Addr, o.Member.Weight)
		if o.TakeOver {
			what += ", take over"
		}
	case Update:
		what += fmt.Sprintf(" weight %d", o.Member.Weight)
	case Read:
		return fmt.Sprintf("read at %s: %s %v", o.Node, o.Outcome, o.Members)
	}
	return fmt.Sprintf("%s at %s: %s", what, o.Node, o.Outcome)
}

// MaxMembers bounds the ids of one group in a history.
const MaxMembers = 6

// slots is the state of a group; comparable, so that the checker can remember
// where it has been. A slot without an address is free.
type slots [MaxMembers]slot

type slot struct {
	addr   string
	weight uint32
}

// call is an operation with its id's place in the state.
type call struct {
	Op
	at   int
	read slots
}

var hashSeed = maphash.MakeSeed()

var model = porcupine.Model{
	Init: func() any { return slots{} },
	Step: func(state, input, _ any) (bool, any) {
		s := state.(slots)
		ok := s.step(input.(*call))
		return ok, s
	},
	Hash:              func(state any) uint64 { return maphash.Comparable(hashSeed, state.(slots)) },
	DescribeOperation: func(input, _ any) string { return input.(*call).String() },
	DescribeState:     func(state any) string { return fmt.Sprint(state) },
}

// step says whether the operation can have this outcome here, and what it does.
func (s *slots) step(c *call) bool {
	if c.Kind == Read {
		return *s == c.read
	}
	held := s[c.at]
	free := held.addr == ""
	switch c.Outcome {
	case Conflict:
		return c.Kind == Register && !c.TakeOver && !free && held.addr != c.Member.Addr
	case Absent:
		return c.Kind == Update && free
	case OK, Unknown:
	default:
		return false
	}
	can := true
	switch c.Kind {
	case Register:
		if can = free || c.TakeOver || held.addr == c.Member.Addr; can {
			s[c.at] = slot{c.Member.Addr, c.Member.Weight}
		}
	case Update:
		if can = !free; can {
			s[c.at].weight = c.Member.Weight
		}
	case Deregister:
		can = c.Removed == !free
		s[c.at] = slot{}
	}
	return can || c.Outcome == Unknown
}

// Linearizable looks for an order of each group's operations that explains
// every answer. An operation of unknown outcome may take effect at any time
// after its call, or never. Every group starts empty. A group that cannot be
// decided in time counts as a violation: it was not shown to be right.
func Linearizable(history []Op, timeout time.Duration) (violations []Violation, drawings map[string]Drawing) {
	drawings = make(map[string]Drawing)
	groups := make(map[string][]Op)
	for _, op := range history {
		groups[op.Group] = append(groups[op.Group], op)
	}
	for group, ops := range groups {
		calls, err := toCalls(ops)
		if err != nil {
			violations = append(violations, violation("linearizable", "group %s: %v", group, err))
			continue
		}
		result, info := porcupine.CheckOperationsVerbose(model, calls, timeout)
		switch result {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			violations = append(violations, violation("linearizable", "group %s: undecided after %v, %d operations", group, timeout, len(calls)))
		default:
			violations = append(violations, violation("linearizable", "group %s: no order explains %d operations", group, len(calls)))
		}
		drawings[group] = func(w io.Writer) error { return porcupine.Visualize(model, info, w) }
	}
	slices.SortFunc(violations, func(a, b Violation) int { return cmp.Compare(a.Text, b.Text) })
	return violations, drawings
}

// Drawing writes a group's history and its best partial order as a page of HTML.
type Drawing func(io.Writer) error

// toCalls leaves out what tells nothing: failed calls, and reads without an answer.
func toCalls(ops []Op) ([]porcupine.Operation, error) {
	place := make(map[string]int)
	at := func(id string) (int, error) {
		i, known := place[id]
		if !known {
			if i = len(place); i == MaxMembers {
				return 0, fmt.Errorf("more than %d ids", MaxMembers)
			}
			place[id] = i
		}
		return i, nil
	}
	var calls []porcupine.Operation
	for _, op := range ops {
		if op.Outcome == Failed || op.Kind == Read && op.Outcome != OK {
			continue
		}
		c := &call{Op: op}
		var err error
		for _, m := range op.Members {
			var i int
			if i, err = at(m.ID); err != nil {
				return nil, err
			}
			c.read[i] = slot{m.Addr, m.Weight}
		}
		if op.Kind != Read {
			if c.at, err = at(op.Member.ID); err != nil {
				return nil, err
			}
		}
		end := int64(op.Return)
		if op.Outcome == Unknown {
			end = math.MaxInt64
		}
		calls = append(calls, porcupine.Operation{ClientId: op.Client, Input: c, Call: int64(op.Call), Return: end})
	}
	return calls, nil
}
