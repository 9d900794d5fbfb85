package fsm

import "testing"

// What a process listens on is not where others reach it.
func TestRegisteredAddressesAreReachable(t *testing.T) {
	for addr, ok := range map[string]bool{
		"10.0.0.1:80": true, "[fd00::1]:80": true, "web-1:80": true, "127.0.0.1:80": true, "0.example:80": true, "[fe80::1%eth0]:80": true,
		"0.0.0.0:80": false, "[::]:80": false, "[::ffff:0.0.0.0]:80": false, "0:80": false, "0.0:80": false, "[::%eth0]:80": false,
		"224.0.0.1:80": false, "[ff02::1]:80": false, "255.255.255.255:80": false, "10.0.0.1:0": false, ":80": false,
	} {
		t.Run(addr, func(t *testing.T) {
			checkField(t, Validate(register(newRegistration("web", "a", addr, "one"))), "addr", ok)
		})
	}
}
