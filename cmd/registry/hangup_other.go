//go:build !unix

package main

import (
	"context"
	"os"
)

func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	return ctx, func() {} // no terminal hangs up
}

func hangups() (<-chan os.Signal, func()) { return nil, func() {} }
