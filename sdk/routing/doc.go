// Package routing sends HTTP requests to the member that owns their key, and lets
// a service refuse, over HTTP and gRPC, what is not for it.
//
// A [Transport], or a proxy around it ([NewProxy]), sends each request by an
// [sdk.Ring], with a [Route] that names the ring's revision. An [Owner] in the
// service compares the route with the service's own ring, and answers 421 with the
// owner's address where the router's ring was out of date; the transport then
// sends the request there. Package grpcring does the router's part for gRPC.
package routing
