package ring

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Share is an exact part of the key space, in units of 2^-64: Hi·2^64 + Lo of them. Hi is 1 for the
// whole key space, and then Lo is 0.
type Share struct{ Hi, Lo uint64 }

// ErrShare: a text is not a share.
var ErrShare = errors.New("ring: invalid share")

// Add returns s + t, which must be at most the whole key space.
func (s Share) Add(t Share) Share {
	lo, carry := bits.Add64(s.Lo, t.Lo, 0)
	return Share{s.Hi + t.Hi + carry, lo}
}

// Cmp compares two shares: -1, 0 or 1.
func (s Share) Cmp(t Share) int {
	switch {
	case s == t:
		return 0
	case s.Hi < t.Hi || s.Hi == t.Hi && s.Lo < t.Lo:
		return -1
	}
	return 1
}

// Parts returns the share in n-ths of the whole, rounded down: Parts(1000) is in per mille.
func (s Share) Parts(n uint64) uint64 {
	hi, _ := bits.Mul64(s.Lo, n)
	return hi + s.Hi*n
}

// String returns the share in per cent with six decimals, rounded down: "1.562500%".
func (s Share) String() string {
	const million = 1_000_000
	p := s.Parts(100 * million)
	return fmt.Sprintf("%d.%06d%%", p/million, p%million)
}

// Percent returns the share in per cent with two decimals, to the nearest: "1.56%". It is for people.
func (s Share) Percent() string {
	p := (s.Parts(2*100*100) + 1) / 2
	return fmt.Sprintf("%d.%02d%%", p/100, p%100)
}

// ParseShare reads a decimal number of per cent from 0 to 100 with at most twelve decimals, such as
// "5%" or "0.25%". The share is rounded up. Errors wrap ErrShare.
func ParseShare(text string) (Share, error) {
	const decimals, unit = 12, 1_000_000_000_000
	number, ok := strings.CutSuffix(text, "%")
	whole, fraction, dotted := strings.Cut(number, ".")
	if !ok || whole == "" || dotted && fraction == "" || len(fraction) > decimals {
		return Share{}, fmt.Errorf("%w: %q, want per cent such as 5%% or 0.25%%, with at most %d decimals", ErrShare, text, decimals)
	}
	n, err := strconv.ParseUint(whole, 10, 8)
	f, err2 := strconv.ParseUint(fraction+strings.Repeat("0", decimals-len(fraction)), 10, 64)
	if err != nil || err2 != nil || n > 100 || n == 100 && f > 0 {
		return Share{}, fmt.Errorf("%w: %q, want 0%% to 100%%", ErrShare, text)
	}
	if n == 100 {
		return Share{Hi: 1}, nil
	}
	q, rest := bits.Div64(n*unit+f, 0, 100*unit)
	if rest > 0 {
		q++
	}
	return Share{Lo: q}, nil
}

type shareJSON struct {
	Percent string `json:"percent"`
	Units   string `json:"units"` // of 2^-64, hexadecimal
}

// MarshalJSON writes the share twice: in per cent for people, and exactly, in hexadecimal units of 2^-64.
func (s Share) MarshalJSON() ([]byte, error) {
	units := fmt.Sprintf("0x%016x", s.Lo)
	if s.Hi > 0 {
		units = "0x10000000000000000"
	}
	return json.Marshal(shareJSON{s.String(), units})
}

// UnmarshalJSON reads what MarshalJSON writes; the units count. Errors wrap ErrShare.
func (s *Share) UnmarshalJSON(data []byte) error {
	var v shareJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrShare, err)
	}
	if v.Units == "0x10000000000000000" {
		*s = Share{Hi: 1}
		return nil
	}
	digits, ok := strings.CutPrefix(v.Units, "0x")
	n, err := strconv.ParseUint(digits, 16, 64)
	if !ok || err != nil {
		return fmt.Errorf("%w: units %q, want 0x and up to 16 hexadecimal digits", ErrShare, v.Units)
	}
	*s = Share{Lo: n}
	return nil
}

// fairShare returns floor(2^64 · scale · weight / (1000 · total)), or ok = false if that is 2^64 or more.
func fairShare(scale, weight, total uint64) (share uint64, ok bool) {
	if scale*weight >= 1000*total {
		return 0, false
	}
	share, _ = bits.Div64(scale*weight, 0, 1000*total)
	return share, true
}

// minus returns s - t, or 0 if t is larger.
func (s Share) minus(t Share) Share {
	if s.Cmp(t) <= 0 {
		return Share{}
	}
	lo, borrow := bits.Sub64(s.Lo, t.Lo, 0)
	return Share{s.Hi - t.Hi - borrow, lo}
}
