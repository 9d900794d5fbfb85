package ring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Errors of saved rings.
var (
	// ErrSaved: the data is not a saved ring.
	ErrSaved = errors.New("ring: invalid saved ring")
	// ErrFingerprint: the members and parameters are not those that were saved.
	ErrFingerprint = errors.New("ring: fingerprint differs")
	// ErrDigest: the ring built of the saved members has other points or owners than the saved ring.
	ErrDigest = errors.New("ring: digest differs")
)

// Saved has the inputs of a ring, and the fingerprint and the digest that it must have when it is
// rebuilt.
type Saved struct {
	Params      Params   `json:"params"`
	Members     []Member `json:"members"`
	Fingerprint Hex64    `json:"fingerprint"`
	Digest      Hex64    `json:"digest"`
}

// Save returns the ring's inputs, fingerprint and digest.
func (r *Ring) Save() Saved {
	return Saved{Params: r.params, Members: r.Members(), Fingerprint: Hex64(r.Fingerprint()), Digest: Hex64(r.Digest())}
}

// Ring builds the saved ring. Errors are those of New, ErrFingerprint and ErrDigest.
func (s Saved) Ring() (*Ring, error) {
	r, err := New(s.Params, s.Members)
	if err != nil {
		return nil, err
	}
	if got := Hex64(r.Fingerprint()); got != s.Fingerprint {
		return nil, fmt.Errorf("%w: members and parameters have %v, saved %v", ErrFingerprint, got, s.Fingerprint)
	}
	if got := Hex64(r.Digest()); got != s.Digest {
		return nil, fmt.Errorf("%w: built %v, saved %v", ErrDigest, got, s.Digest)
	}
	return r, nil
}

// ParseSaved reads the JSON of a Saved and builds its ring. Unknown fields and trailing data are
// errors. Errors wrap ErrSaved, or are those of Saved.Ring.
func ParseSaved(data []byte) (*Ring, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var s Saved
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSaved, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: data after the ring", ErrSaved)
	}
	return s.Ring()
}
