package registry

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// advertised completes the address that others are told: of the flag if it
// was given, of the listener otherwise. A missing or unspecified host becomes
// the machine's one private address; a port of 0 becomes the listener's.
func advertised(flag, given string, ln net.Listener, listen string, machine machine) (string, error) {
	if given == "" {
		given = listen
	}
	host, port, err := net.SplitHostPort(given)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrConfig, flag, err)
	}
	if port == "0" {
		_, port, err = net.SplitHostPort(ln.Addr().String())
		if err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrConfig, flag, err)
		}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = machine.privateAddress(flag); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, port), nil
}

// machine lists the interfaces of the machine that the node runs on.
type machine func() ([]netInterface, error)

// netInterface is a network interface with its addresses.
type netInterface struct {
	name  string
	inner bool // a bridge, or of containers and virtual machines on this machine
	ips   []net.IP
}

// privateAddress returns the machine's one private IPv4 address. One of an inner
// interface is never taken: a machine with a public address and Docker would tell
// the other nodes that it is 172.17.0.1, which nobody else reaches.
func (m machine) privateAddress(flag string) (string, error) {
	interfaces, err := m()
	if err != nil {
		return "", fmt.Errorf("%w: %s: list the machine's addresses: %w", ErrConfig, flag, err)
	}
	var found, passedOver []string
	for _, i := range interfaces {
		for _, ip := range i.ips {
			switch {
			case !ip.IsPrivate() || ip.To4() == nil:
			case i.inner:
				passedOver = append(passedOver, fmt.Sprintf("%s of %s", ip, i.name))
			default:
				found = append(found, ip.String())
			}
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	has := fmt.Sprintf("several private addresses (%s)", strings.Join(found, ", "))
	if len(found) == 0 {
		has = "no private address to advertise"
	}
	if len(passedOver) > 0 {
		has += fmt.Sprintf(", not counting bridges and what containers and virtual machines use (%s)", strings.Join(passedOver, ", "))
	}
	return "", fmt.Errorf("%w: %s: has no host, and this machine has %s; set %s=HOST:PORT", ErrConfig, flag, has, flag)
}

// thisMachine is the machine of this process. An interface that goes away
// meanwhile has no addresses.
func thisMachine() ([]netInterface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []netInterface
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		n := netInterface{name: i.Name, inner: innerInterface(i.Name)}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok {
				n.ips = append(n.ips, ip.IP)
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// innerNames are how Docker, podman, libvirt, LXD, VMware, VirtualBox, and the
// networks of Kubernetes name the machine's own end of theirs: for interfaces that
// are no bridges, and for systems that do not tell.
var innerNames = []string{"docker", "br-", "podman", "cni", "virbr", "lxcbr", "lxdbr", "veth", "vmnet", "vboxnet", "flannel", "cali", "cilium", "kube-", "weave"}

func innerInterface(name string) bool {
	for _, prefix := range innerNames {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "bridge")) // Linux alone has it
	return err == nil
}
