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

// WithKeyHeader takes the key of a call that has none by WithKey from its
// outgoing metadata. Unlike that, it allocates for each call.
func WithKeyHeader(name string) Option { return func(o *options) { o.policy.KeyHeader = name } }

// Keyless says what becomes of calls without a key.
type Keyless string

const (
	// Refuse fails them. It is the default.
	Refuse Keyless = "refuse"
	// Spread sends them to the active members that are connected, in turn, and
	// connects one more member for each such call until all are.
	Spread Keyless = "spread"
)

// WithKeyless says what becomes of calls without a key.
func WithKeyless(k Keyless) Option { return func(o *options) { o.policy.Keyless = k } }

// WithFallbacks is how many next owners may get a call when the owner is
// unreachable: 0 to 63, 1 by default. One that is held is passed over anyway.
func WithFallbacks(n int) Option { return func(o *options) { o.policy.Fallbacks = n } }

// WithoutRoute keeps the routing.Route out of the calls' metadata.
func WithoutRoute() Option { return func(o *options) { o.policy.Route = false } }

// WithServiceConfig adds the rest of a service config, as JSON: retry policies
// and timeouts, for instance. If it has a loadBalancingConfig, that counts, and
// not the options above.
func WithServiceConfig(json string) Option { return func(o *options) { o.serviceConfig = json } }

// WithRing uses a ring that is there already for its group. It remains the
// caller's: calls fail once it is closed.
func WithRing(r *sdk.Ring) Option { return func(o *options) { o.rings[r.Group()] = r } }

// WithRingOptions asks f for the options of each group's ring: a maximum age,
// or a copy on disk, which has to be another file for each group.
func WithRingOptions(f func(group string) []sdk.RingOption) Option {
	return func(o *options) { o.ringOptions = f }
}

// fullServiceConfig returns the service config with the policy in it.
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
