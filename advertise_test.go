package registry

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// machineOf has interfaces written as "eth0=203.0.113.5", or "docker0!=172.17.0.1"
// for an inner one.
func machineOf(interfaces ...string) machine {
	return func() (out []netInterface, err error) {
		for _, text := range interfaces {
			name, ips, _ := strings.Cut(text, "=")
			i := netInterface{name: strings.TrimSuffix(name, "!"), inner: strings.HasSuffix(name, "!")}
			for _, ip := range strings.Split(ips, ",") {
				i.ips = append(i.ips, net.ParseIP(ip))
			}
			out = append(out, i)
		}
		return out, nil
	}
}

// The address that is advertised without being named is the one private address
// that others may reach, or none.
func TestPrivateAddress(t *testing.T) {
	const docker = "docker0!=172.17.0.1"
	for _, tt := range []struct {
		name    string
		machine machine
		want    string
		says    []string // of the error
	}{
		{"one", machineOf("lo=127.0.0.1,::1", "eth0=10.0.0.5,fe80::1"), "10.0.0.5", nil},
		{"one beside Docker", machineOf("eth0=10.0.0.5", docker, "br-1f2e!=172.18.0.1"), "10.0.0.5", nil},
		{"in a container", machineOf("eth0=172.17.0.2"), "172.17.0.2", nil},
		{"public and Docker", machineOf("eth0=203.0.113.5", docker), "", []string{"no private address", "172.17.0.1 of docker0"}},
		{"public alone", machineOf("eth0=203.0.113.5"), "", []string{"no private address"}},
		{"IPv6 alone", machineOf("eth0=fd00::5"), "", []string{"no private address"}},
		{"none", machineOf(), "", []string{"no private address"}},
		{"two", machineOf("eth0=10.0.0.5", "eth1=192.168.1.5", docker), "", []string{"10.0.0.5, 192.168.1.5", "172.17.0.1 of docker0"}},
	} {
		got, err := tt.machine.privateAddress("-advertise")
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
		for _, says := range append(tt.says, "set -advertise=HOST:PORT") {
			if err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), says)) {
				t.Errorf("%s: %v does not say %q", tt.name, err, says)
			}
		}
	}
}

func TestInnerInterfaces(t *testing.T) {
	for name, want := range map[string]bool{
		"docker0": true, "br-5c1f9d": true, "virbr0": true, "cni0": true, "vethab12": true, "podman1": true,
		"eth0": false, "ens5": false, "enp0s31f6": false, "wlan0": false, "bond0": false, "lo": false,
	} {
		if got := innerInterface(name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}
