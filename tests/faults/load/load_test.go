package load

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/tests/faults/check"
)

// TestOutcome: what is not surely without effect is unknown.
func TestOutcome(t *testing.T) {
	with := func(code codes.Code, reason registrypb.ErrorDetail_Reason) error {
		st, err := status.New(code, "").WithDetails(&registrypb.ErrorDetail{Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	tests := map[string]struct {
		err  error
		want check.Outcome
	}{
		"none":                 {nil, check.OK},
		"no leader":            {with(codes.Unavailable, registrypb.ErrorDetail_NO_LEADER), check.Failed},
		"not ready":            {with(codes.Unavailable, registrypb.ErrorDetail_NOT_READY), check.Failed},
		"conflict":             {with(codes.AlreadyExists, registrypb.ErrorDetail_CONFLICT), check.Conflict},
		"absent":               {with(codes.NotFound, registrypb.ErrorDetail_UNKNOWN_MEMBER), check.Absent},
		"outcome unknown":      {with(codes.Unknown, registrypb.ErrorDetail_OUTCOME_UNKNOWN), check.Unknown},
		"fenced":               {with(codes.FailedPrecondition, registrypb.ErrorDetail_FENCED), check.Unknown},
		"connection lost":      {status.Error(codes.Unavailable, "EOF"), check.Unknown},
		"nobody answered":      {status.Error(codes.DeadlineExceeded, ""), check.Unknown},
		"not even a status":    {errors.New("EOF"), check.Unknown},
		"a reason to come":     {with(codes.Internal, 99), check.Unknown},
		"a code that misleads": {with(codes.FailedPrecondition, registrypb.ErrorDetail_UNSPECIFIED), check.Unknown},
	}
	for name, tt := range tests {
		if got := Outcome(tt.err); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
