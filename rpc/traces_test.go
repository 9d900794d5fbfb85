package rpc

import (
	"strings"
	"testing"

	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// A method that there is not has no span: its name may be anything, and of any length.
func TestTraced(t *testing.T) {
	for method, want := range map[string]bool{
		registrypb.Registry_Register_FullMethodName:        true,
		registrypb.Cluster_Diagnose_FullMethodName:         true,
		registrypb.Tokens_Self_FullMethodName:              true,
		registrypb.Registry_Heartbeat_FullMethodName:       false,
		registrypb.Registry_HeartbeatStream_FullMethodName: false,
		registrypb.Registry_Watch_FullMethodName:           false,
		peerpb.Peer_Hello_FullMethodName:                   false,
		"/registry.v1.Registry/Nothing":                    false,
		"/registry.v1." + strings.Repeat("x", 20_000):      false,
		"/registry.v1.Registry/Register/":                  false,
		"":                                                 false,
	} {
		if got := Traced(method); got != want {
			t.Errorf("%.50s: %v", method, got)
		}
	}
}
