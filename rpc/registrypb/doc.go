// Package registrypb is the public API of the registry, generated from
// registry.proto, for the client port of any node. Package sdk
// calls it for Go programs, with failover, heartbeats and rings; other languages
// generate their own from the same file.
//
//	conn, err := grpc.NewClient("172.16.3.3:9800", grpc.WithTransportCredentials(insecure.NewCredentials()))
//	client := registrypb.NewRegistryClient(conn)
//	answer, err := client.Match(ctx, &registrypb.MatchRequest{Group: "web", Key: []byte("user-id-1")})
//	fmt.Println(answer.Members[0].Id, answer.Members[0].Addr)
//
// An error has an [ErrorDetail]; clients decide by its reason.
package registrypb
