package raftlog

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// after lets virtual time pass.
func after(d time.Duration) { <-time.After(d) }
