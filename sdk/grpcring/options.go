package grpcring

import (
	"encoding/json"
	"fmt"

	"github.com/werbenhu/registry/sdk"
)

// Option changes how a builder's connections work.
type Option func(*options)

type options struct {
	policy        config
	serviceConfig string
	rings         map[string]*sdk.Ring
	ringOptions   func(group string) []sdk.RingOption
}

// WithKeyHeader takes the key from a call's outgoing metadata where WithKey set
// none. Unlike WithKey it allocates for each call.
func WithKeyHeader(name string) Option { return func(o *options) { o.policy.KeyHeader = name } }

// Keyless is the treatment of calls without a key.
type Keyless string

const (
	// Refuse fails them. It is the default.
	Refuse Keyless = "refuse"
	// Spread sends them to the connected active members by round robin, and connects
	// one more member at each such call until all are connected.
	Spread Keyless = "spread"
)

// WithKeyless sets the treatment of calls without a key.
func WithKeyless(k Keyless) Option { return func(o *options) { o.policy.Keyless = k } }

// WithFallbacks sets how many next owners may get a call when the owner is
// unreachable: 0 to 63, 1 by default. Held members are not counted.
func WithFallbacks(n int) Option { return func(o *options) { o.policy.Fallbacks = n } }

// WithoutRoute keeps the routing.Route out of the calls' metadata.
func WithoutRoute() Option { return func(o *options) { o.policy.Route = false } }

// WithServiceConfig adds the rest of a service config, as JSON: retry policies
// and timeouts, for instance. A loadBalancingConfig in it replaces the options
// above.
func WithServiceConfig(json string) Option { return func(o *options) { o.serviceConfig = json } }

// WithRing uses an existing ring for its group. The caller owns it: calls fail once
// it is closed.
func WithRing(r *sdk.Ring) Option { return func(o *options) { o.rings[r.Group()] = r } }

// WithRingOptions sets a function that returns the options of each group's ring: a
// maximum age, or a copy on disk in a file of its own for each group.
func WithRingOptions(f func(group string) []sdk.RingOption) Option {
	return func(o *options) { o.ringOptions = f }
}

// fullServiceConfig returns the service config with the policy.
func (o *options) fullServiceConfig() (string, error) {
	full := map[string]any{}
	if o.serviceConfig != "" {
		if err := json.Unmarshal([]byte(o.serviceConfig), &full); err != nil {
			return "", fmt.Errorf("grpcring: service config: %w", err)
		}
	}
	if full == nil { // the JSON null
		full = map[string]any{}
	}
	if full["loadBalancingConfig"] == nil {
		full["loadBalancingConfig"] = []any{map[string]any{Name: o.policy}}
	}
	b, err := json.Marshal(full)
	if err != nil {
		return "", fmt.Errorf("grpcring: service config: %w", err)
	}
	return string(b), nil
}
