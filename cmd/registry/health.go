package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func healthCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "health",
		Usage:    "ask a node whether it is ready; exit 0 if it is, 5 if not, 4 if it is of another cluster",
		Category: categoryNode,
		Description: "For container health checks. With several addresses all must be ready. A node is\n" +
			"ready when it has caught up with its cluster since its start; it then answers\n" +
			"reads also while no leader is known, and says how old they are.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagAddr, Usage: "client address of the node", EnvVars: []string{"REGISTRY_ADDR"}},
			&cli.StringSliceFlag{Name: flagRegistries, Usage: "the same, comma separated", EnvVars: []string{"REGISTRY_ADDRS"}, Value: cli.NewStringSlice(defaultClientAddr)},
			&cli.StringFlag{Name: flagCluster, Usage: "NAME or NAME/ID of the cluster that the node must be of", EnvVars: []string{"REGISTRY_CLUSTER"}},
			&cli.DurationFlag{Name: flagTimeout, Usage: "give up after that", EnvVars: []string{"REGISTRY_TIMEOUT"}, Value: 5 * time.Second},
			jsonFlag(),
		},
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
	defer newReach(addrs).sayAfter(time.Second, e.stderr, c.Duration(flagTimeout))()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration(flagTimeout))
	defer cancel()
	ctx, err := forCluster(ctx, c.String(flagCluster))
	if err != nil {
		return err
	}
	answers := make([]healthJSON, len(addrs))
	var errs []error
	code := exitUnavailable
	for i, addr := range addrs {
		answers[i] = checkHealth(ctx, addr)
		if answers[i].Status == statusWrongCluster {
			code = exitConflict
		}
		if answers[i].Status != "serving" {
			errs = append(errs, fmt.Errorf("%s is %s%s", addr, answers[i].Status, prefixed(": ", answers[i].Error)))
		}
	}
	if err := c.Context.Err(); err != nil {
		return err // stopped, which says nothing of the nodes
	}
	if err := printHealth(e, c, answers); err != nil {
		return err
	}
	if len(errs) > 0 {
		return &exitError{code: code, err: errors.Join(errs...)}
	}
	return nil
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

// checkHealth asks the standard gRPC health service for the node as a whole.
func checkHealth(ctx context.Context, addr string) healthJSON {
	out := healthJSON{Addr: addr, Status: "unreachable"}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		out.Error = err.Error()
		return out
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		out.Error = status.Convert(err).Message()
		if isWrongCluster(err) {
			out.Status = statusWrongCluster
		}
		return out
	}
	out.Status = strings.ToLower(answer.GetStatus().String())
	return out
}

// prefixed returns s after prefix, or nothing if s is empty.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
