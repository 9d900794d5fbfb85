package grpcring

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc/serviceconfig"
)

// maxFallbacks is how many owners the ring finds without allocating.
const maxFallbacks = 63

// config is the policy's part of a service config. It never changes.
type config struct {
	serviceconfig.LoadBalancingConfig `json:"-"`

	KeyHeader string  `json:"keyHeader,omitempty"`
	Keyless   Keyless `json:"keyless"`
	Fallbacks int     `json:"fallbacks"`
	Route     bool    `json:"route"`
}

func defaultConfig() config { return config{Keyless: Refuse, Fallbacks: 1, Route: true} }

// parseConfig reads a policy's config. Unknown fields are ignored, as gRPC asks
// of every policy.
func parseConfig(b json.RawMessage) (*config, error) {
	c := defaultConfig()
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("grpcring: %s: %w", Name, err)
	}
	c.KeyHeader = strings.ToLower(c.KeyHeader)
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("grpcring: %s: %w", Name, err)
	}
	return &c, nil
}

func (c *config) validate() error {
	switch {
	case c.Keyless != Refuse && c.Keyless != Spread:
		return fmt.Errorf("keyless is %q, not %q or %q", c.Keyless, Refuse, Spread)
	case c.Fallbacks < 0 || c.Fallbacks > maxFallbacks:
		return fmt.Errorf("fallbacks is %d, not in 0–%d", c.Fallbacks, maxFallbacks)
	case strings.HasSuffix(c.KeyHeader, "-bin") || strings.HasPrefix(c.KeyHeader, "grpc-"):
		return fmt.Errorf("keyHeader %q: a name must not end with -bin or begin with grpc-", c.KeyHeader)
	}
	for _, r := range c.KeyHeader {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r) {
			return fmt.Errorf("keyHeader %q is not a valid metadata name", c.KeyHeader)
		}
	}
	return nil
}
