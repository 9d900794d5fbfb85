//go:build race

package rpc_test

import "time"

// streamsEndWithin is longer with the race detector.
const streamsEndWithin = 10 * time.Second
