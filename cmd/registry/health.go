package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/werbenhu/registry/sdk"
)

func healthCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "health",
		Usage:    "ask a node whether it is ready; exit 0 if it is, 5 if not, 4 if it is of another cluster",
		Category: categoryNode,
		Description: "For container health checks. With several addresses all must be ready. A node is\n" +
			"ready when it has caught up with its cluster since its start; it then answers\n" +
			"reads also while no leader is known, and says how old they are.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: flagAddr, Usage: "client address of the node", EnvVars: []string{"REGISTRY_ADDR"}},
			&cli.StringSliceFlag{Name: flagRegistries, Usage: "the same, comma separated", EnvVars: []string{"REGISTRY_ADDRS"}, Value: cli.NewStringSlice(defaultClientAddr)},
			&cli.StringFlag{Name: flagCluster, Usage: "NAME or NAME/ID of the cluster that the node must be of", EnvVars: []string{"REGISTRY_CLUSTER"}},
			&cli.DurationFlag{Name: flagTimeout, Usage: "give up after that", EnvVars: []string{"REGISTRY_TIMEOUT"}, Value: 5 * time.Second},
			jsonFlag(),
		}, tlsFlags()...),
		Action: func(c *cli.Context) error { return health(e, c) },
	}
}

type healthJSON struct {
	Addr   string `json:"addr"`
	Status string `json:"status"` // serving, not_serving, wrong_cluster, unknown or unreachable
	Error  string `json:"error"`
}

const statusWrongCluster = "wrong_cluster"

func health(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	addrs := list(c, flagRegistries)
	if a := c.String(flagAddr); a != "" {
		addrs = []string{a}
	}
	if d := c.Duration(flagTimeout); d <= 0 {
		return usageErrorf("-%s is %v, want more than 0", flagTimeout, d)
	}
	reach := newReach(addrs)
	reach.hintUnless(c, flagAddr, flagRegistries)
	if err := reach.secure(c.String); err != nil {
		return err
	}
	defer reach.sayAfter(time.Second, e.stderr, c.Duration(flagTimeout))()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	ctx, err := forCluster(ctx, c.String(flagCluster))
	if err != nil {
		return err
	}
	answers := make([]healthJSON, len(addrs))
	var wrong []error
	for i, addr := range addrs {
		var err error
		if answers[i], err = checkHealth(ctx, reach, addr); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := c.Context.Err(); err != nil {
		return err // stopped, which says nothing of the nodes
	}
	if err := printHealth(e, c, answers); err != nil {
		return err
	}
	return unhealthy(wrong, reach)
}

// unhealthy is one error of those of the nodes, a line for each.
func unhealthy(wrong []error, reach *reach) error {
	if len(wrong) == 0 {
		return nil
	}
	lines := make([]string, len(wrong))
	for i, err := range wrong {
		lines[i] = err.Error()
	}
	failed := &exitError{code: exitUnavailable, err: errors.New(strings.Join(lines, "\n  "))}
	if other := slices.IndexFunc(wrong, func(err error) bool { return errors.Is(err, sdk.ErrWrongCluster) }); other >= 0 {
		failed.code, failed.hint = exitConflict, hintOf(wrong[other])
	} else if refused, _ := reach.state(); !refused.IsZero() {
		failed.hint = reach.advice()
	}
	return failed
}

func printHealth(e *env, c *cli.Context, answers []healthJSON) error {
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, answers)
	}
	for _, a := range answers {
		fmt.Fprintf(e.stdout, "%s %s\n", a.Addr, a.Status)
	}
	return nil
}

// checkHealth asks the standard gRPC health service for the node as a whole. The
// error says why it is not serving.
func checkHealth(ctx context.Context, reach *reach, addr string) (healthJSON, error) {
	out := healthJSON{Addr: addr, Status: "unreachable"}
	conn, err := dialDirect(addr, reach)
	if err != nil {
		out.Error = err.Error()
		return out, fmt.Errorf("%s: %w", addr, err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if failed, ok := errors.AsType[callError](err); ok {
		out.Error = failed.as.Message
		if errors.Is(err, sdk.ErrWrongCluster) {
			out.Status = statusWrongCluster
		}
		return out, err
	}
	out.Status = strings.ToLower(answer.GetStatus().String())
	if out.Status != "serving" {
		err = fmt.Errorf("%s is %s", addr, out.Status)
	}
	return out, err
}
