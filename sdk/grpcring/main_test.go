package grpcring_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/sdk/internal/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testContext = sdktest.Context
	eventually  = sdktest.Eventually
)
