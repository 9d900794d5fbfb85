package rpc

import (
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// A time that is no valid timestamp would end the token at another time, or make the
// list of tokens unreadable as JSON.
func TestExpiryIsAValidTimestamp(t *testing.T) {
	for name, at := range map[string]*timestamppb.Timestamp{
		"1969":                        {Seconds: -1},
		"the year 10000":              {Seconds: 253402300800},
		"0.384 s after an overflow":   {Seconds: 18446744073709552},
		"the last second":             {Seconds: math.MaxInt64},
		"more than a second of nanos": {Seconds: 4e9, Nanos: 1e9},
		"negative nanos":              {Seconds: 4e9, Nanos: -1},
	} {
		var field *fsm.FieldError
		if _, err := newToken(&registrypb.NewToken{ExpiresAt: at}); !errors.As(err, &field) || field.Field != "expires_at" {
			t.Errorf("%s: %v", name, err)
		}
	}
	last := &timestamppb.Timestamp{Seconds: 253402300799}
	if got, err := newToken(&registrypb.NewToken{ExpiresAt: last}); err != nil || got.ExpiresMs != last.Seconds*1000 {
		t.Errorf("the last valid second: %v, %v", got, err)
	}
}
