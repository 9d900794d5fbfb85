package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// SIGHUP lets a node open the file of its audit log again, and does not end it.
func TestHangupOpensTheAuditLogAgain(t *testing.T) {
	port := freePorts(t, 2)
	file := filepath.Join(t.TempDir(), "audit.log")
	p := startProcess(t, "serve", "-id", "n1", "-bind", local(port), "-addr", local(port+1), "-data-dir", filepath.Join(t.TempDir(), "n1"), "-audit-log", file)
	awaitMetric(t, local(port+1), "registry_ready 1")
	hangUp(t, p, file)
	ok(t, "group", "set", "-registries", local(port+1), "web")
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), `"msg":"audit: act"`) != 1 || !strings.Contains(string(text), `"group":"web"`) {
		t.Errorf("%s, %v", text, err)
	}
	p.stop()
}

// hangUp sends SIGHUP to a node and waits until it handles it: the file of its audit log is
// there again.
func hangUp(t *testing.T, p *process, auditLog string) {
	t.Helper()
	if err := os.Rename(auditLog, auditLog+".1"); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if _, err := os.Stat(auditLog); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
