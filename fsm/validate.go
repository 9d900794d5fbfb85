package fsm

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

// Limits of what a command may hold.
const (
	MaxNameLength = 255
	MaxAddrLength = 255
	MaxMetaPairs  = 64
	MaxMetaBytes  = 8 << 10
	MaxKeyLength  = 4 << 10
	MaxBatch      = 1000
	MaxInstance   = 64

	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 10 * time.Second

	MinHold = time.Second
	MaxHold = 24 * time.Hour

	MaxTokens     = 10_000 // in the state
	MaxGrants     = 64     // of a token
	TokenIDSize   = 8
	TokenHashSize = 32
)

// Validate checks a command before it is proposed: every node can apply a valid
// one. Its errors are of type *[FieldError].
func Validate(cmd *fsmpb.Command) error {
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Register:
		return validateRegister(op.Register)
	case *fsmpb.Command_Deregister:
		return firstError(
			validateGroup(op.Deregister.Group),
			ValidateName("id", op.Deregister.Id),
			validateInstance(op.Deregister.Instance, 0),
			validateOwner(op.Deregister.Token))
	case *fsmpb.Command_SetGroup:
		params := ring.Params{VirtualNodes: int(op.SetGroup.VirtualNodes), Bound: int(op.SetGroup.Bound)}
		return firstError(validateGroup(op.SetGroup.Group), ValidateParams(params))
	case *fsmpb.Command_DeleteGroup:
		return validateGroup(op.DeleteGroup.Group)
	case *fsmpb.Command_UpdateMember:
		return validateUpdate(op.UpdateMember)
	case *fsmpb.Command_CreateToken:
		return validateCreate(op.CreateToken)
	case *fsmpb.Command_RotateToken:
		return firstError(
			validateTokenID("token id", op.RotateToken.Id),
			validateHash("hash", op.RotateToken.Hash),
			validateTime("previous_expires", op.RotateToken.PreviousExpiresMs))
	case *fsmpb.Command_RevokeToken:
		return validateTokenID("token id", op.RevokeToken.Id)
	case *fsmpb.Command_SetNode:
		return firstError(
			ValidateName("node id", op.SetNode.GetNode().GetId()),
			validateReachable("bind", op.SetNode.GetNode().GetBind()),
			validateReachable("addr", op.SetNode.GetNode().GetAddr()),
			validateText("version", op.SetNode.GetNode().GetVersion()),
			validateText("incarnation", op.SetNode.GetNode().GetIncarnation()),
			ValidateZone("zone", op.SetNode.GetNode().GetZone()))
	case *fsmpb.Command_RestorePart:
		if n := len(op.RestorePart.Data); n > MaxRestorePart {
			return &FieldError{Field: "data", Limit: fmt.Sprintf("at most %d bytes", MaxRestorePart), Got: fmt.Sprintf("%d bytes", n)}
		}
		return nil
	case *fsmpb.Command_RestoreBegin, *fsmpb.Command_RestoreEnd:
		return nil
	case *fsmpb.Command_SetFeatureLevel:
		return ValidateLevel(op.SetFeatureLevel.Level)
	case *fsmpb.Command_Expire, *fsmpb.Command_TermStart, *fsmpb.Command_RemoveNode, *fsmpb.Command_Check:
		return nil // made by nodes from the state
	}
	return &FieldError{Field: "command", Limit: "one that this version knows", Got: "none"}
}

func validateRegister(c *fsmpb.Register) error {
	return firstError(
		validateGroup(c.Group),
		ValidateName("id", c.Id),
		validateReachable("addr", c.Addr),
		validateWeight(c.Weight),
		validateTTL(c.TtlMs),
		validateInstance(c.Instance, 1),
		validateState(c.StatePlusOne, ring.Draining, "active or draining, for a registration"), // its process is running
		validateMeta(c.Meta),
		validateOwner(c.Token))
}

func validateUpdate(c *fsmpb.UpdateMember) error {
	err := firstError(
		validateGroup(c.Group),
		ValidateName("id", c.Id),
		validateInstance(c.Instance, 0),
		validateOwner(c.Token),
		validateWeight(cmp.Or(c.Weight, ring.MinWeight)), // 0: it stays
		validateState(c.StatePlusOne, ring.Held, "active, draining or held"),
		validateHold(c.HoldMs, c.StatePlusOne))
	if err == nil && c.Weight == 0 && c.StatePlusOne == 0 {
		return &FieldError{Field: "weight", Limit: "given, or else state: an update changes something", Got: "neither"}
	}
	return err
}

// validateHold compares milliseconds, as validateTTL does.
func validateHold(ms int64, statePlusOne uint32) error {
	switch {
	case ms == 0:
		return nil
	case ms < MinHold.Milliseconds() || ms > MaxHold.Milliseconds():
		return &FieldError{Field: "hold", Limit: "1s to 24h", Got: strconv.FormatInt(ms, 10) + "ms"}
	case statePlusOne != uint32(ring.Held)+1:
		return &FieldError{Field: "hold", Limit: "given with the state held", Got: "another state"}
	}
	return nil
}

func validateState(plusOne uint32, last ring.State, limit string) error {
	if plusOne > uint32(last)+1 {
		return &FieldError{Field: "state", Limit: limit, Got: strconv.Itoa(int(plusOne) - 1)}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ValidateName checks a group, member or node name: 1–255 bytes of printable
// UTF-8 without a slash.
func ValidateName(field, name string) error {
	const limit = "1 to 255 bytes of printable UTF-8 without '/'"
	switch {
	case name == "":
		return &FieldError{Field: field, Limit: limit, Got: "an empty string"}
	case len(name) > MaxNameLength:
		return &FieldError{Field: field, Limit: limit, Got: fmt.Sprintf("%d bytes", len(name))}
	case !utf8.ValidString(name):
		return &FieldError{Field: field, Limit: limit, Got: "bytes that are not UTF-8"}
	}
	for _, c := range name {
		if c == '/' || !unicode.IsPrint(c) {
			return &FieldError{Field: field, Limit: limit, Got: shorten(name)}
		}
	}
	return nil
}

// ValidateZone checks the name of a failure zone: a name as of [ValidateName], or empty
// for none.
func ValidateZone(field, zone string) error {
	if zone == "" {
		return nil
	}
	return ValidateName(field, zone)
}

// validateText checks a text for display, which may be empty.
func validateText(field, text string) error {
	if len(text) > MaxNameLength || !utf8.ValidString(text) {
		return &FieldError{Field: field, Limit: "at most 255 bytes of UTF-8", Got: shorten(text)}
	}
	return nil
}

// ValidateAddr checks host:port with a host and a port from 1 to 65535.
func ValidateAddr(field, addr string) error {
	const limit = "host:port of at most 255 bytes, port 1 to 65535"
	if len(addr) > MaxAddrLength {
		return &FieldError{Field: field, Limit: limit, Got: fmt.Sprintf("%d bytes", len(addr))}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || strings.ContainsFunc(host, notHost) {
		return &FieldError{Field: field, Limit: limit, Got: shorten(addr)}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return &FieldError{Field: field, Limit: limit, Got: shorten(addr)}
	}
	return nil
}

func notHost(c rune) bool {
	return c > unicode.MaxASCII || !unicode.IsPrint(c) || strings.ContainsRune(` /\@?#"'<>`, c)
}

func validateWeight(w uint32) error {
	if w < ring.MinWeight || w > ring.MaxWeight {
		return &FieldError{Field: "weight", Limit: fmt.Sprintf("%d to %d", ring.MinWeight, ring.MaxWeight), Got: strconv.Itoa(int(w))}
	}
	return nil
}

// validateTTL compares milliseconds: a large number would overflow a Duration and
// might be valid then.
func validateTTL(ms int64) error {
	if ms < MinTTL.Milliseconds() || ms > MaxTTL.Milliseconds() {
		return &FieldError{Field: "ttl", Limit: "1s to 24h", Got: strconv.FormatInt(ms, 10) + "ms"}
	}
	return nil
}

func validateInstance(instance []byte, atLeast int) error {
	if len(instance) < atLeast || len(instance) > MaxInstance {
		return &FieldError{Field: "instance", Limit: fmt.Sprintf("%d to %d bytes", atLeast, MaxInstance), Got: fmt.Sprintf("%d bytes", len(instance))}
	}
	return nil
}

func validateMeta(meta []*fsmpb.Pair) error {
	if len(meta) > MaxMetaPairs {
		return &FieldError{Field: "meta", Limit: "at most 64 pairs", Got: strconv.Itoa(len(meta))}
	}
	size := 0
	for i, p := range meta {
		size += len(p.Key) + len(p.Value)
		switch {
		case p.Key == "":
			return &FieldError{Field: "meta", Limit: "pairs with a key", Got: "an empty key"}
		case !utf8.ValidString(p.Key) || !utf8.ValidString(p.Value):
			return &FieldError{Field: "meta", Limit: "UTF-8", Got: shorten(p.Key)}
		case i > 0 && meta[i-1].Key >= p.Key:
			return &FieldError{Field: "meta", Limit: "distinct keys in order", Got: shorten(p.Key)}
		}
	}
	if size > MaxMetaBytes {
		return &FieldError{Field: "meta", Limit: "at most 8192 bytes in all", Got: fmt.Sprintf("%d bytes", size)}
	}
	return nil
}

// ValidateParams checks a group's ring parameters.
func ValidateParams(p ring.Params) error {
	if p.VirtualNodes < ring.MinVirtualNodes || p.VirtualNodes > ring.MaxVirtualNodes || p.VirtualNodes&(p.VirtualNodes-1) != 0 {
		return &FieldError{
			Field: "virtual_nodes", Got: strconv.Itoa(p.VirtualNodes),
			Limit: fmt.Sprintf("a power of two, %d to %d", ring.MinVirtualNodes, ring.MaxVirtualNodes),
		}
	}
	if p.Bound != 0 && (p.Bound < ring.MinBound || p.Bound > ring.MaxBound) {
		return &FieldError{
			Field: "bound", Got: strconv.Itoa(p.Bound),
			Limit: fmt.Sprintf("0 (off), or %d to %d per mille", ring.MinBound, ring.MaxBound),
		}
	}
	return nil
}

// ValidateKey checks a key to match: 0 to 4096 bytes, any.
func ValidateKey(key []byte) error {
	if len(key) > MaxKeyLength {
		return &FieldError{Field: "key", Limit: "at most 4096 bytes", Got: fmt.Sprintf("%d bytes", len(key))}
	}
	return nil
}

// shorten quotes a value, cut to a length that fits a message.
func shorten(s string) string {
	if len(s) > 48 {
		return strconv.Quote(s[:48]) + "…"
	}
	return strconv.Quote(s)
}
