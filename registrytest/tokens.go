package registrytest

import (
	"context"
	"fmt"

	"github.com/werbenhu/registry/sdk"
)

// initTokens turns tokens on. Every node has applied that when it returns.
func (c *Cluster) initTokens() {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	token, err := c.client.InitTokens(ctx, "first")
	c.check("WithTokens", err)
	c.check("WithTokens", c.client.Close())
	c.token = token
	c.client = c.Dial()
	c.awaitToken(ctx)
}

// Token creates a token with those grants, which every node that runs knows. It needs
// WithTokens.
func (c *Cluster) Token(grants ...sdk.Grant) string {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	c.tokens++
	token, err := c.client.CreateToken(ctx, sdk.NewToken{Name: fmt.Sprintf("token-%d", c.tokens), Grants: grants})
	c.check("Token", err)
	c.awaitToken(ctx)
	return token
}

// awaitToken waits until every node that runs has applied the tokens that exist.
func (c *Cluster) awaitToken(ctx context.Context) {
	c.t.Helper()
	var r sdk.Receipt
	_, err := c.client.Tokens(ctx, sdk.Linearizable(), sdk.WithReceipt(&r))
	c.check("Token", err)
	c.WaitIndex(r.Index)
}
