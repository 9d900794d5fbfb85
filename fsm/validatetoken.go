package fsm

import (
	"fmt"
	"strconv"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// validateCreate refuses a first token that could not create others: nothing else
// could either, because it turns tokens on for ever.
func validateCreate(c *fsmpb.CreateToken) error {
	if err := validateToken(c.Token); err != nil {
		return err
	}
	if c.First && !newToken(c.Token).lastingAdmin() {
		return &FieldError{Field: "grants", Limit: "with the right admin and without an expiry, for the first token", Got: "another"}
	}
	return nil
}

// validateToken checks what a creator sets.
func validateToken(t *fsmpb.Token) error {
	return firstError(
		validateTokenID("token id", t.GetId()),
		ValidateName("name", t.GetName()),
		validateHash("hash", t.GetHash()),
		validateTime("expires", t.GetExpiresMs()),
		validateGrants(t.GetGrants()))
}

func validateGrants(grants []*fsmpb.Grant) error {
	if n := len(grants); n < 1 || n > MaxGrants {
		return &FieldError{Field: "grants", Limit: fmt.Sprintf("1 to %d", MaxGrants), Got: strconv.Itoa(n)}
	}
	for _, g := range grants {
		if err := validateGrant(g); err != nil {
			return err
		}
	}
	return nil
}

func validateGrant(g *fsmpb.Grant) error {
	switch {
	case g.Rights == 0 || g.Rights > uint32(allRights):
		return &FieldError{Field: "rights", Limit: "one or several of " + allRights.String(), Got: strconv.FormatUint(uint64(g.Rights), 10)}
	case g.Prefix == "":
		return nil
	case Right(g.Rights)&Admin != 0:
		return &FieldError{Field: "prefix", Limit: "empty with the right admin, which is about no group", Got: shorten(g.Prefix)}
	}
	return ValidateName("prefix", g.Prefix)
}

// validateOwner checks the caller's token id, which may be empty.
func validateOwner(id []byte) error {
	if len(id) == 0 {
		return nil
	}
	return validateTokenID("token", id)
}

func validateTokenID(field string, id []byte) error { return validateSize(field, id, TokenIDSize) }

func validateHash(field string, hash []byte) error { return validateSize(field, hash, TokenHashSize) }

func validateSize(field string, b []byte, size int) error {
	if len(b) != size {
		return &FieldError{Field: field, Limit: fmt.Sprintf("exactly %d bytes", size), Got: fmt.Sprintf("%d bytes", len(b))}
	}
	return nil
}

func validateTime(field string, ms int64) error {
	if ms < 0 {
		return &FieldError{Field: field, Limit: "a time after 1970, or 0", Got: strconv.FormatInt(ms, 10) + "ms"}
	}
	return nil
}
