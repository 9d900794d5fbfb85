package grpcring_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/grpcring"
)

// Every user is served by the member that owns the user.
func Example() {
	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800") // any registry nodes
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	conn, err := grpc.NewClient("registry:///webservice-group",
		grpc.WithResolvers(grpcring.NewBuilder(client)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy()) // members are reached directly, whatever HTTPS_PROXY says
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	ctx := grpcring.WithKey(context.Background(), "user-id-1")
	reply, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.GetStatus())
}

// The key comes from a header that the servers need anyway, calls without one go
// to any member, rings that are a minute out of touch are not used, and a call
// that an routing.Owner refused is sent again, by the ring as it is then.
func ExampleNewBuilder() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	builder := grpcring.NewBuilder(client,
		grpcring.WithKeyHeader("x-user-id"),
		grpcring.WithKeyless(grpcring.Spread),
		grpcring.WithFallbacks(2),
		grpcring.WithRingOptions(func(group string) []sdk.RingOption {
			return []sdk.RingOption{sdk.WithMaxAge(time.Minute), sdk.WithDiskCopy("/var/lib/gateway/" + group)}
		}),
		grpcring.WithServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {
			"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 3,
			"retryableStatusCodes": ["FAILED_PRECONDITION"]}}]}`))
	conn, err := grpc.NewClient("registry:///webservice-group",
		grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}
