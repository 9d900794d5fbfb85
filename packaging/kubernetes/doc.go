// Package kubernetes tests the chart for Helm, deploy/helm/registry, and the manifests
// that its defaults make, deploy/kubernetes.
//
// Helm's own engine depends on the client of Kubernetes, which takes minutes to compile.
// The tests render the chart as the engine does, with the template package of Go and
// Helm's function library. The engine of Helm 3.22.0 made the same of the defaults, byte
// for byte, and passed the same tests, on 2026-11-29.
package kubernetes
