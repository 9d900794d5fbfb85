package grpcring

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

type contextKey struct{}

// WithKey sets the key of the calls made with the context; an empty key is none.
// The key is not sent: put it into the metadata as well if the server needs it and
// the request does not contain it.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, contextKey{}, key)
}

// keyOf returns the key of a call; empty if it has none.
func (c *config) keyOf(ctx context.Context) string {
	if key, _ := ctx.Value(contextKey{}).(string); key != "" || c.KeyHeader == "" {
		return key
	}
	switch values := metadata.ValueFromOutgoingContext(ctx, c.KeyHeader); len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	default:
		return strings.Join(values, ",")
	}
}
