package rpc

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/store"
)

func TestAttemptCrossesTheHop(t *testing.T) {
	for _, a := range []store.Attempt{
		{Call: []byte{0, 1, 255}, Since: 7, Again: true},
		{Call: []byte("0123456789ab"), Since: 1 << 63},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(callKey, attemptText(a)))
		if got := forwardedAttempt(ctx); !cmp.Equal(got, a) {
			t.Errorf("sent %+v, read %+v", a, got)
		}
	}
	for _, text := range []string{"", "x", "ab", "ab 1", "ab x true", "ab -1 true"} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(callKey, text))
		if got := forwardedAttempt(ctx); !cmp.Equal(got, store.Attempt{}) {
			t.Errorf("%q: read %+v", text, got)
		}
	}
}
