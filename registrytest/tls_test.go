package registrytest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
	"github.com/werbenhu/registry/rpc/peertls"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/storetest/logbuffer"
)

// startTLS starts a node whose client port has a certificate.
func startTLS(t *testing.T, files certs.Files, change func(*registry.Config)) *registry.Node {
	t.Helper()
	n := startNode(t, "n1", func(c *registry.Config) {
		c.Cert, c.Key = files.Cert, files.Key
		if change != nil {
			change(c)
		}
	})
	waitReady(t, n)
	return n
}

// source opens a client's files.
func source(t *testing.T, files certs.Files) *certs.Source {
	t.Helper()
	s, err := certs.Open(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A node says at its start that its certificate is not for the address that clients learn.
func TestCertificateForAnotherHost(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	for host, warns := range map[string]bool{"127.0.0.1": false, "node1.example": true} {
		log := new(logbuffer.Buffer)
		startTLS(t, ca.Issue(host, certs.Request{Server: true, Hosts: []string{host}}), func(c *registry.Config) {
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
		})
		if got := strings.Contains(log.String(), "clients refuse the certificate"); got != warns {
			t.Errorf("%s: warned %v:\n%s", host, got, log)
		}
	}
}

// callGRPC makes one call; its error says what went wrong with the connection.
func callGRPC(t *testing.T, addr string, config func() *tls.Config) error {
	t.Helper()
	var mu sync.Mutex
	var wrong error
	creds := certs.NewCredentials(config, func(_ string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if wrong == nil {
			wrong = err
		}
	})
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = registrypb.NewClusterClient(conn).Status(ctx, &registrypb.StatusRequest{})
	mu.Lock()
	defer mu.Unlock()
	if wrong != nil && err == nil {
		t.Errorf("the call succeeded, and its connection failed: %v", wrong)
	}
	return errors.Join(err, wrong)
}

// callHTTP gets a page over HTTP/1.1.
func callHTTP(t *testing.T, addr string, config func() *tls.Config, both bool) (*http.Response, error) {
	t.Helper()
	transport, url := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: both}, "http://"+addr+"/livez"
	if config != nil {
		transport.TLSClientConfig, url = config(), "https://"+addr+"/livez"
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return resp, err
}

// Which client gets an answer by which setting of the node, in gRPC and in HTTP/1.1.
func TestClientTLS(t *testing.T) {
	t.Parallel()
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	server := ca.Server("server")
	of := func(files certs.Files) func() *tls.Config {
		s := source(t, files)
		return func() *tls.Config { return s.Client("") }
	}
	foreign := other.Client("foreign")
	foreign.CA = ca.Path
	clients := map[string]func() *tls.Config{
		"plain":               nil,
		"no certificate":      of(certs.Files{CA: ca.Path}),
		"certificate":         of(ca.Client("client")),
		"wrong CA":            of(certs.Files{CA: other.Path}),
		"expired certificate": of(ca.Issue("expired", certs.Request{Client: true, Lifetime: -time.Minute})),
		"other CA's":          of(foreign),
		"server's":            of(server),
	}
	for name, c := range map[string]struct {
		change func(*registry.Config)
		opens  string // to these clients, and to no other
	}{
		"no TLS":          {func(c *registry.Config) { c.Cert, c.Key = "", "" }, "plain"},
		"TLS":             {nil, "no certificate, certificate, expired certificate, other CA's, server's"},
		"require":         {func(c *registry.Config) { c.ClientCA = ca.Path }, "certificate"},
		"verify-if-given": {func(c *registry.Config) { c.ClientCA, c.ClientAuth = ca.Path, registry.ClientAuthVerifyIfGiven }, "no certificate, certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			n := startTLS(t, server, c.change)
			refused := 0
			for client, config := range clients {
				want := false
				for opens := range strings.SplitSeq(c.opens, ", ") {
					want = want || opens == client
				}
				if err := callGRPC(t, n.Addr(), config); (err == nil) != want {
					t.Errorf("%s, gRPC: %v", client, err)
				} else if _, explained := errors.AsType[*certs.HandshakeError](err); !want && !explained {
					t.Errorf("%s, gRPC: not in words: %v", client, err)
				}
				if _, err := callHTTP(t, n.Addr(), config, false); (err == nil) != want {
					t.Errorf("%s, HTTP: %v", client, err)
				}
				if !want {
					refused += 2
				}
			}
			if config := clients["certificate"]; name != "no TLS" {
				metrics := scrapeTLS(t, n, config())
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				// The client may know of a refusal before the node has counted it.
				for deadline := time.Now().Add(registrytest.Patience); metrics["registry_tls_refused_total"] < float64(refused); <-tick.C {
					if time.Now().After(deadline) {
						t.Fatalf("%v connections were counted as refused, want at least %d", metrics["registry_tls_refused_total"], refused)
					}
					metrics = scrapeTLS(t, n, config())
				}
				if at := metrics[`registry_certificate_expiry_timestamp_seconds{file="cert"}`]; at < float64(time.Now().Unix()) {
					t.Errorf("the certificate expires at %v", at)
				}
			}
		})
	}
}

// scrapeTLS reads /metrics over TLS.
func scrapeTLS(t *testing.T, n *registry.Node, config *tls.Config) map[string]float64 {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}, Timeout: 10 * time.Second}
	resp, err := client.Get("https://" + n.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return samples(t, body)
}

// What speaks both protocols, and what names none, gets pages; gRPC names its own.
func TestALPNOfTheClientPort(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	n := startTLS(t, ca.Server("server"), nil)
	s := source(t, certs.Files{CA: ca.Path})
	for name, both := range map[string]bool{"HTTP/2 and HTTP/1.1": true, "no ALPN": false} {
		resp, err := callHTTP(t, n.Addr(), func() *tls.Config { return s.Client("") }, both)
		if err != nil || resp.Proto != "HTTP/1.1" {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	resp, err := http.Get("http://" + n.Addr() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "speaks TLS") {
		t.Errorf("without TLS: %s, %q, %v", resp.Status, body, err)
	}
}

func TestTLS12IsRefusedUnlessConfigured(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	s := source(t, certs.Files{CA: ca.Path})
	old := func() *tls.Config {
		c := s.Client("")
		c.MaxVersion = tls.VersionTLS12
		return c
	}
	for _, accepts := range []bool{false, true} {
		n := startTLS(t, ca.Server("server"), func(c *registry.Config) { c.TLS12 = accepts })
		if err := callGRPC(t, n.Addr(), old); (err == nil) != accepts {
			t.Errorf("-tls12 %v, gRPC: %v", accepts, err)
		}
		if _, err := callHTTP(t, n.Addr(), old, false); (err == nil) != accepts {
			t.Errorf("-tls12 %v, HTTP: %v", accepts, err)
		}
	}
}

// replaceFile gives a file the contents of another.
func replaceFile(t *testing.T, path, by string) {
	t.Helper()
	data, err := os.ReadFile(by)
	if err != nil {
		t.Fatal(err)
	}
	certstest.Write(t, path, data)
}

// serial is the number of the certificate that a new connection is shown.
func serial(t *testing.T, addr string, config *tls.Config) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// New connections have the new certificate, by itself or by Reload; a file that cannot
// be used changes nothing and is counted.
func TestNewCertificateReachesNewConnections(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	files := ca.Server("server")
	n := startTLS(t, files, nil)
	config := source(t, certs.Files{CA: ca.Path}).Client("")
	replace := func(by certs.Files) {
		replaceFile(t, files.Key, by.Key)
		replaceFile(t, files.Cert, by.Cert)
	}
	first := serial(t, n.Addr(), config)
	replace(ca.Server("second"))
	n.Reload()
	second := serial(t, n.Addr(), config)
	if second == first {
		t.Error("Reload did not reach new connections")
	}
	certstest.Write(t, files.Cert, []byte("garbage"))
	n.Reload()
	if got := serial(t, n.Addr(), config); got != second {
		t.Errorf("a broken file: certificate %s, want %s", got, second)
	}
	if got := scrapeTLS(t, n, config)["registry_certificate_reload_failures_total"]; got < 1 {
		t.Errorf("%v failures were counted", got)
	}
	replace(ca.Server("third"))
	deadline := time.Now().Add(20 * time.Second)
	for serial(t, n.Addr(), config) == second {
		if time.Now().After(deadline) {
			t.Fatal("new files were not read by themselves")
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// A port without TLS that other machines reach is an alarm, a metric and a line in the
// log; one with TLS, or on loopback, is not.
func TestPlainPortsAreAlarms(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	files := ca.Server("server")
	secret := filepath.Join(t.TempDir(), "secret")
	certstest.Write(t, secret, []byte(peertls.NewSecret()))
	addr := func(c *registry.Config) { c.Addr, c.Advertise = ":0", "127.0.0.1:0" }
	bind := func(c *registry.Config) { c.Bind, c.BindAdvertise = ":0", "127.0.0.1:0" }
	for name, c := range map[string]struct {
		change func(*registry.Config)
		alarm  string // the port
		tls    bool
	}{
		"on loopback":            {change: func(*registry.Config) {}},
		"clients beyond":         {change: addr, alarm: "addr"},
		"clients beyond, by TLS": {change: func(c *registry.Config) { addr(c); c.Cert, c.Key = files.Cert, files.Key }, tls: true},
		"nodes beyond":           {change: bind, alarm: "bind"},
		"nodes beyond, locked":   {change: func(c *registry.Config) { bind(c); c.SecretFile = secret }},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			n := startNode(t, "n1", func(cfg *registry.Config) {
				c.change(cfg)
				cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			})
			waitReady(t, n)
			var options []sdk.Option
			var metrics map[string]float64
			if c.tls {
				config := source(t, certs.Files{CA: ca.Path}).Client("")
				options, metrics = []sdk.Option{sdk.WithTLS(config)}, scrapeTLS(t, n, config)
			} else {
				metrics = samples(t, scrape(t, n))
			}
			status, err := dialSDK(t, n.Addr(), options...).Status(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Close(); err != nil { // the log is whole then
				t.Error(err)
			}
			for _, port := range []string{"addr", "bind"} {
				want := port == c.alarm
				alarm := strings.Contains(strings.Join(status.Nodes[0].Alarms, "\n"), "-"+port+" listens on")
				metric := metrics[`registry_port_plain{port="`+port+`"}`] == 1
				logged := strings.Contains(log.String(), "flag=-"+port+" ")
				if alarm != want || metric != want || logged != want {
					t.Errorf("%s: alarm %v, metric %v, logged %v, want %v; alarms %q", port, alarm, metric, logged, want, status.Nodes[0].Alarms)
				}
			}
		})
	}
}

// A certificate that ends soon is an alarm, on either port, until another one is there.
func TestCertificatesThatEndAreAlarms(t *testing.T) {
	ca := certstest.NewCA(t)
	clients := ca.Issue("server", certs.Request{Server: true, Hosts: []string{"127.0.0.1"}, Lifetime: time.Minute})
	uri := certs.NodeURI(registry.DefaultConfig().Cluster, "n1")
	peers := ca.Issue("n1", certs.Request{URI: uri, Lifetime: time.Minute})
	n := startTLS(t, clients, func(c *registry.Config) { c.PeerCert, c.PeerKey, c.PeerCA = peers.Cert, peers.Key, peers.CA })
	config := source(t, certs.Files{CA: ca.Path}).Client("")
	client := dialSDK(t, n.Addr(), sdk.WithTLS(config))
	check := func(want ...string) {
		t.Helper()
		status, err := client.Status(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		alarms := status.Nodes[0].Alarms
		if len(alarms) != len(want) || scrapeTLS(t, n, config)["registry_alarms"] != float64(len(want)) {
			t.Fatalf("alarms %q, want %d", alarms, len(want))
		}
		for i, w := range want {
			if !strings.HasPrefix(alarms[i], w+" expires in ") {
				t.Errorf("alarm %q, want one of %s", alarms[i], w)
			}
		}
	}
	check("-cert "+clients.Cert, "-peer-cert "+peers.Cert)
	fresh := ca.Issue("n1-new", certs.Request{URI: uri})
	replaceFile(t, peers.Key, fresh.Key)
	replaceFile(t, peers.Cert, fresh.Cert)
	n.Reload()
	check("-cert " + clients.Cert)
}

// The expiry of a node's own certificate files for the bind port is a metric too.
func TestPeerCertificateExpiryIsAMetric(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	files := ca.Issue("n1", certs.Request{URI: certs.NodeURI(registry.DefaultConfig().Cluster, "n1"), Lifetime: 30 * time.Minute})
	n := startNode(t, "n1", func(c *registry.Config) { c.PeerCert, c.PeerKey, c.PeerCA = files.Cert, files.Key, files.CA })
	waitReady(t, n)
	metrics := samples(t, scrape(t, n))
	for file, lifetime := range map[string]time.Duration{"peer-cert": 30 * time.Minute, "peer-ca": time.Hour} {
		left := time.Until(time.Unix(int64(metrics[`registry_certificate_expiry_timestamp_seconds{file="`+file+`"}`]), 0))
		if left > lifetime || left < lifetime-5*time.Minute {
			t.Errorf("%s expires in %v, want %v", file, left, lifetime)
		}
	}
}
