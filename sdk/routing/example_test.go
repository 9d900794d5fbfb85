package routing_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/sdk/routing"
)

// A gateway sends each HTTP request to the owner of its user.
func ExampleNewProxy() {
	client, err := sdk.Dial("172.16.3.3:9800,172.16.3.4:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ring, err := client.Ring(context.Background(), "webservice-group",
		sdk.WithDiskCopy("/var/lib/gateway/ring"), sdk.WithDiskCopyMaxAge(24*time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(":8000", routing.NewProxy(&routing.Transport{
		Ring: ring, Key: routing.FirstKey(routing.KeyFromHeader("X-User-ID"), routing.KeyFromCookie("user")), Fallbacks: 1,
	})))
}

// A service that owns its users' data does not serve one that a router sent by
// an older ring.
func ExampleOwner() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	if _, err := client.Register(ctx, sdk.Service{Group: "webservice-group", ID: "webserver1", Addr: "10.0.0.5:8080"}); err != nil {
		log.Fatal(err)
	}
	ring, err := client.Ring(ctx, "webservice-group", sdk.WithMaxAge(15*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	owner := routing.NewOwner(ring, "webserver1")
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	go func() {
		log.Fatal(http.ListenAndServe(":8080", owner.Handler(routing.KeyFromHeader("X-User-ID"), handler)))
	}()

	byUser := routing.KeyFromMetadata("x-user-id")
	grpc.NewServer(
		grpc.UnaryInterceptor(owner.UnaryInterceptor(func(ctx context.Context, _ any) string { return byUser(ctx) })),
		grpc.StreamInterceptor(owner.StreamInterceptor(byUser)),
	)
}

// A router without a ring of its own sends the receipt of its answer along, over
// HTTP and gRPC, and learns from the owner that it was out of date.
func ExampleRoute() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	var receipt sdk.Receipt
	m, err := client.Match(ctx, "webservice-group", "user-id-1", sdk.WithReceipt(&receipt))
	if err != nil {
		log.Fatal(err)
	}
	route := routing.OfReceipt("webservice-group", receipt)

	req, _ := http.NewRequest(http.MethodGet, "http://"+m.Serving().Addr+"/", nil)
	req.Header.Set("X-User-ID", "user-id-1")
	route.SetHeader(req.Header)
	direct := &http.Client{Transport: &http.Transport{}} // http.DefaultClient asks the environment's proxy
	if resp, err := direct.Do(req); err == nil {
		if wrong := routing.Misdirected(resp); wrong != nil {
			fmt.Println("ask", wrong.Owner.Addr, "instead")
		}
		_ = resp.Body.Close()
	}

	conn, err := grpc.NewClient(m.Serving().Addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx = metadata.AppendToOutgoingContext(route.Outgoing(ctx), "x-user-id", "user-id-1")
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if wrong := routing.MisdirectedCall(err); wrong != nil {
		fmt.Println("ask", wrong.Owner.Addr, "instead")
	}
}

// The revision by which a request was accepted is a fencing token: stored beside
// the data, it keeps a former owner that knows no better from writing after the
// next one.
func ExampleOwner_Accept() {
	client, err := sdk.Dial("127.0.0.1:9800")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ring, err := client.Ring(context.Background(), "webservice-group")
	if err != nil {
		log.Fatal(err)
	}
	owner := routing.NewOwner(ring, "webserver1")
	var db *sql.DB
	http.HandleFunc("PUT /cart/{user}", func(w http.ResponseWriter, r *http.Request) {
		route, err := routing.RouteFromHeader(r.Header)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		user := r.PathValue("user")
		at, err := owner.Accept(r.Context(), route, user)
		if err != nil {
			http.Error(w, err.Error(), http.StatusMisdirectedRequest)
			return
		}
		_, err = db.ExecContext(r.Context(), "UPDATE carts SET items = ?, revision = ? WHERE user = ? AND revision <= ?",
			r.FormValue("items"), at.Revision, user, at.Revision)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}
