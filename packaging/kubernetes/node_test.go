package kubernetes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "registry")
	cmd := exec.CommandContext(t.Context(), "go", "-C", root, "build", "-o", binary, "./cmd/registry")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// files are those that the pods mount, in a directory in place of their root.
func files(t *testing.T, binary string) string {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"secret", "new", "-out", dir + "/secrets/nodes/secret"},
		{"tls", "init", "-dir", dir + "/ca"},
		{"tls", "issue", "-dir", dir + "/ca", "-server", "-host", "*.registry-nodes.default.svc,registry.default.svc,127.0.0.1", "-out", "node"},
	} {
		if err := os.MkdirAll(dir+"/secrets/nodes", 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	if err := os.MkdirAll(dir+"/secrets/tls", 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"/ca/node.crt": "/secrets/tls/tls.crt", "/ca/node.key": "/secrets/tls/tls.key"} {
		if err := os.Rename(dir+from, dir+to); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// arguments are those of the container in a pod, as kubelet makes them, with the
// mounted files below dir.
func arguments(c corev1.Container, pod, dir string) (args []string) {
	expand := strings.NewReplacer("$(POD)", pod, "$(NAMESPACE)", "default", "=/data/", "="+dir+"/data/", "=/secrets/", "="+dir+"/secrets/")
	for _, a := range c.Args {
		args = append(args, expand.Replace(a))
	}
	return args
}

func TestNodes(t *testing.T) {
	binary := build(t)
	dir := files(t, binary)
	t.Run("accept their flags", func(t *testing.T) { acceptFlags(t, binary, dir) })
	t.Run("answer the probes", func(t *testing.T) { answerProbes(t, binary, dir) })
}

// Each pod's node accepts its flags, and reads the files that are mounted.
func acceptFlags(t *testing.T, binary, dir string) {
	for name, over := range map[string]values{
		"defaults": nil,
		"all":      {"replicas": 5, "tls": values{"secret": "certificate"}, "flags": values{"log-format": "json", "snapshot-threshold": 1000000, "tls12": true}},
	} {
		t.Run(name, func(t *testing.T) {
			o := mustRender(t, over)
			c := o.set.Spec.Template.Spec.Containers[0]
			for i := range int(*o.set.Spec.Replicas) {
				pod := fmt.Sprintf("%s-%d", o.set.Name, i)
				cmd := exec.CommandContext(t.Context(), binary, append(arguments(c, pod, dir), "-check-config")...)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				// The node leaves itself out of those that it asks: one name, the same everywhere.
				own := fmt.Sprintf("%s.%s:7370", pod, o.set.Spec.ServiceName)
				if text := string(out); !strings.Contains(text, "bind-advertise: "+fmt.Sprintf("%q", own)) || strings.Count(text, own) < 2 {
					t.Errorf("%s is not the node's own name and among -registries:\n%s", own, text)
				}
			}
			if c.Env[0].Name != "POD" || c.Env[0].ValueFrom.FieldRef.FieldPath != "metadata.name" ||
				c.Env[1].Name != "NAMESPACE" || c.Env[1].ValueFrom.FieldRef.FieldPath != "metadata.namespace" {
				t.Errorf("variables: %+v", c.Env)
			}
		})
	}
}

// A node with the flags of its pod, but for the names, answers what the probes ask, and
// ends within the grace period.
func answerProbes(t *testing.T, binary, dir string) {
	o := mustRender(t, values{"replicas": 1})
	c := o.set.Spec.Template.Spec.Containers[0]
	args := arguments(c, "registry-0", dir)
	bind, addr := freeAddr(t), freeAddr(t)
	for i, a := range args {
		switch flag, _, _ := strings.Cut(a, "="); flag {
		case "-bind-advertise", "-registries": // the names are of the cluster
			args[i] = flag + "=" + bind
		case "-advertise":
			args[i] = flag + "=" + addr
		}
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, append(args, "-bind="+bind, "-addr="+addr)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		url := strings.ToLower(string(p.HTTPGet.Scheme)) + "://" + addr + p.HTTPGet.Path
		if err := answers(t.Context(), url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil || t.Failed() {
			t.Errorf("the node ended: %v\n%s", err, log.String())
		}
	case <-time.After(time.Duration(*o.set.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second):
		t.Error("the node does not end within the grace period")
	}
}

// answers waits until the URL answers 200. A page that is not there fails at once.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			if err = fmt.Errorf("status %s", resp.Status); resp.StatusCode == http.StatusNotFound {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}
