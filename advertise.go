package registry

import (
	"fmt"
	"net"
	"strings"
)

// advertised completes the address that others are told: of the flag if it
// was given, of the listener otherwise. A missing or unspecified host becomes
// the machine's one private address; a port of 0 becomes the listener's.
func advertised(flag, given string, ln net.Listener, listen string) (string, error) {
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
		if host, err = privateAddress(flag); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, port), nil
}

// privateAddress returns the machine's one private IPv4 address.
func privateAddress(flag string) (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("%w: %s: list the machine's addresses: %w", ErrConfig, flag, err)
	}
	var found []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsPrivate() && n.IP.To4() != nil {
			found = append(found, n.IP.String())
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("%w: %s: has no host, and this machine has no private address to advertise; set %s=HOST:PORT", ErrConfig, flag, flag)
	}
	return "", fmt.Errorf("%w: %s: has no host, and this machine has several private addresses (%s); set %s=HOST:PORT",
		ErrConfig, flag, strings.Join(found, ", "), flag)
}
