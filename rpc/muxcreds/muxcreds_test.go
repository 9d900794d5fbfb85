package muxcreds_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/werbenhu/registry/rpc/muxcreds"
	"github.com/werbenhu/registry/store/portmux"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// certificate is a self-signed one. The tests verify none.
func certificate(t *testing.T, serial int64) tls.Certificate {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(serial)}, &x509.Certificate{}, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// health answers each call with the serial number of the caller's certificate.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	seen chan *x509.Certificate
}

func (h *health) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	p, _ := peer.FromContext(ctx)
	h.seen <- muxcreds.Certificate(p)
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

// serve returns the address of a gRPC server behind a mux.
func serve(t *testing.T, h *health, with *portmux.TLS) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := portmux.New(ln, 10)
	if with != nil {
		mux.TLS(*with)
	}
	route := mux.Route(portmux.Protocol{Prefix: "PRI ", ALPN: "h2"})
	server := grpc.NewServer(grpc.Creds(muxcreds.Finished{}))
	grpc_health_v1.RegisterHealthServer(server, h)
	served := make(chan error, 2)
	go func() { served <- server.Serve(route) }()
	go func() { served <- mux.Serve() }()
	t.Cleanup(func() {
		server.Stop()
		if err := mux.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			<-served
		}
	})
	return ln.Addr().String()
}

// seen is the certificate that a call by these credentials shows.
func seen(t *testing.T, h *health, addr string, creds credentials.TransportCredentials) *x509.Certificate {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(c).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	return <-h.seen
}

func TestHandlersSeeTheCertificate(t *testing.T) {
	h := &health{seen: make(chan *x509.Certificate, 1)}
	own, callers := certificate(t, 1), certificate(t, 77)
	addr := serve(t, h, &portmux.TLS{Config: func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"h2"}, ClientAuth: tls.RequestClientCert}
	}})
	with := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{callers}})
	if c := seen(t, h, addr, with); c == nil || c.SerialNumber.Int64() != 77 {
		t.Errorf("the handler sees %v", c)
	}
	if c := seen(t, h, addr, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})); c != nil {
		t.Errorf("the handler sees %v of a caller without a certificate", c)
	}
}

func TestWithoutTLS(t *testing.T) {
	h := &health{seen: make(chan *x509.Certificate, 1)}
	if c := seen(t, h, serve(t, h, nil), insecure.NewCredentials()); c != nil {
		t.Errorf("the handler sees %v", c)
	}
}

// A connection whose handshake nobody has done reaches no handler.
func TestUnfinishedHandshake(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	if _, _, err := (muxcreds.Finished{}).ServerHandshake(tls.Server(there, &tls.Config{})); err == nil {
		t.Error("accepted")
	}
}
