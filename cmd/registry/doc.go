// Command registry is the server and the command line of the registry: one
// binary, a node when started without a subcommand, a client otherwise.
//
// The package is laid out by noun: serve.go and dev.go run nodes, by
// the settings of settings.go and configfile.go; member.go, group.go, watch.go, match.go, ring_*.go and cluster.go talk to them through one
// client helper (client.go). Everything below main runs in-process: run takes its
// arguments and streams and returns an exit code, so that tests need no binary.
//
// Data goes to stdout and diagnostics to stderr. Exit codes are listed in
// exit.go and printed by "registry help exit-codes".
package main
