//go:build !unix

package main

import "context"

func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	return ctx, func() {} // no terminal hangs up
}
