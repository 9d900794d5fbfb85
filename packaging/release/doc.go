// Package release has the test of .goreleaser.yaml, and a module of its own for what
// makes a release: goreleaser, and cyclonedx-gomod, which lists what a program was
// built from. Together they link some hundred modules, the clients of clouds among
// them, which no other part needs and which take minutes to compile.
package release
