package store_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/werbenhu/registry/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.Overlap()
	goleak.VerifyTestMain(m)
}
