package fsm

import (
	"net"
	"net/netip"
	"strings"
)

// validateReachable checks an address that others dial.
func validateReachable(field, addr string) error {
	if err := ValidateAddr(field, addr); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(addr) // checked above
	if reachable(host) {
		return nil
	}
	return &FieldError{Field: field, Limit: "an address that others can dial, not 0.0.0.0, [::] or a multicast address", Got: shorten(addr)}
}

// reachable is false for hosts to listen on that cannot be dialled. "0" and "0.0"
// are 0.0.0.0 as well.
func reachable(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return strings.Trim(host, "0.") != ""
	}
	ip = ip.Unmap().WithZone("")
	return !ip.IsUnspecified() && !ip.IsMulticast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
