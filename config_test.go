package registry

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestValidateNamesTheFlag(t *testing.T) {
	ok := DefaultConfig()
	ok.ID = "n1"
	if err := ok.Validate(); err != nil {
		t.Fatalf("defaults with an id: %v", err)
	}
	for flag, change := range map[string]func(*Config){
		"-id":                 func(c *Config) { c.ID = "" },
		"-cluster":            func(c *Config) { c.Cluster = "a/b" },
		"-bind":               func(c *Config) { c.Bind = "7370" },
		"-addr":               func(c *Config) { c.Addr = ":99999" },
		"-bind-advertise":     func(c *Config) { c.BindAdvertise = "host" },
		"-advertise":          func(c *Config) { c.Advertise = "a b:80" },
		"-secret-file":        func(c *Config) { c.SecretFile, c.PeerCert, c.PeerKey, c.PeerCA = "s", "c", "k", "a" },
		"-peer-ca":            func(c *Config) { c.PeerCert, c.PeerKey = "c", "k" },
		"-key":                func(c *Config) { c.Cert, c.Key = "c", "-----BEGIN PRIVATE KEY-----" },
		"-registries":         func(c *Config) { c.Registries = []string{"10.0.0.1"} },
		"-bootstrap-expect":   func(c *Config) { c.BootstrapExpect = 3 },
		"-join-timeout":       func(c *Config) { c.JoinTimeout = 0 },
		"-read-replica":       func(c *Config) { c.ReadReplica, c.Restore = true, "state.snapshot" },
		"-election-timeout":   func(c *Config) { c.ElectionTimeout = time.Millisecond },
		"-remove-dead-after":  func(c *Config) { c.RemoveDeadAfter = 999 * time.Millisecond },
		"-delete-empty-after": func(c *Config) { c.DeleteEmptyAfter = -time.Second },
		"-zone":               func(c *Config) { c.Zone = "a/b" },
		"-min-voters":         func(c *Config) { c.MinVoters = 2 },
		"-snapshot-threshold": func(c *Config) { c.SnapshotThreshold = 10 },
		"-snapshot-interval":  func(c *Config) { c.SnapshotInterval = 100 * time.Millisecond },
	} {
		c := ok
		change(&c)
		if err := c.Validate(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), flag+":") {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}

func TestAdvertisedAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	machine := machineOf("eth0=10.0.0.5", "docker0!=172.17.0.1")
	for _, c := range []struct{ name, given, listen, want string }{
		{"given", "example.com:9800", ":9800", "example.com:9800"},
		{"from the listener", "", "127.0.0.1:9800", "127.0.0.1:9800"},
		{"port chosen by the system", "", "127.0.0.1:0", "127.0.0.1:" + port},
		{"no host", "", ":9800", "10.0.0.5:9800"},
		{"unspecified host", "0.0.0.0:9800", ":9800", "10.0.0.5:9800"},
		{"unspecified host of IPv6", "[::]:9800", ":9800", "10.0.0.5:9800"},
	} {
		got, err := advertised("-advertise", c.given, ln, c.listen, machine)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}
