// Package e2e runs the registry and its examples as processes and does to them
// what users and machines do: it starts, signals, kills and stops them, takes
// their ports and directories, and sends them bad input. It has tests only.
//
//	go -C tests test -v ./e2e            (-short: shorter phases)
//
// The programs are built once, with the race detector when the tests have it.
// Every process is in a group of its own, is ended by its pid when its test
// ends, and is checked then for panics and data races; its log is printed, and
// kept, when the test failed.
//
// Every node has a secret. Clusters have TLS on their client ports and tokens, too,
// unless their test says why not.
//
// A SIGKILL leaves the page cache alone: what is not on disk survives it. That
// acknowledged writes are on disk is for the store's own tests to show.
package e2e
