//go:build !race

package rpc_test

import "time"

const streamsEndWithin = time.Second
