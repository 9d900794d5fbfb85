// Package packaging has the packages for Debian and Red Hat, and a module of its own
// for nfpm, which builds them, and for the tests of the manifests for Kubernetes.
package packaging
