// Package composetest runs docker-compose.yml on a real Docker engine: three
// nodes form a cluster, nodes are killed and come back with other IPs, and the
// cluster goes on. It does so in short with docker-compose.locked.yml too. It is outside of "go test ./..."; run it with
//
//	go test -v ./.ci/composetest
//
// It needs an engine and docker compose, of either version, and skips without.
// No image is pulled: .ci/image builds them. Project, ports and image tags are
// of its own, so it runs beside a cluster that is up, and it leaves nothing.
package composetest
