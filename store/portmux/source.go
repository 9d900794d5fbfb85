package portmux

import (
	"net"
	"net/netip"
)

// Source is what connections are counted by: the caller's IP address, or the /64
// network of a public IPv6 address, because a single host may have all addresses of
// one. An address that is not of IP is a source itself. local reports whether it is
// this machine's.
func Source(addr net.Addr) (name string, local bool) {
	if addr == nil {
		return "", false
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return addr.String(), false
	}
	ip := ap.Addr().Unmap()
	if ip.Is6() && ip.IsGlobalUnicast() && !ip.IsPrivate() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String(), false
		}
	}
	return ip.String(), ip.IsLoopback()
}
