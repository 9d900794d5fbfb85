package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

const unitFile = repository + "/deploy/systemd/registry.service"

// systemdAnalyze runs it on the unit, which starts the test binary here.
func systemdAnalyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "registry.service")
	text := strings.ReplaceAll(readFile(t, unitFile), "/usr/bin/registry", self)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", append(args, path)...).CombinedOutput()
	if strings.Contains(string(out), "unrecognized option") {
		t.Skipf("an old systemd: %s", out)
	}
	if err != nil {
		t.Errorf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUnitIsValid(t *testing.T) {
	if out := systemdAnalyze(t, "verify", "--man=no"); out != "" {
		t.Error(out)
	}
}

// systemd's measure of what a service may do, from 0 to 10. What is left is the network.
func TestUnitIsConfined(t *testing.T) {
	out := systemdAnalyze(t, "security", "--offline=true", "--no-pager", "--threshold=15")
	t.Log(regexp.MustCompile(`Overall .*`).FindString(out))
}

// What the unit says of the program is so.
func TestUnitFitsTheProgram(t *testing.T) {
	unit := readFile(t, unitFile)
	start := regexp.MustCompile(`(?m)^ExecStart=\S+/registry (.*)$`).FindStringSubmatch(unit)
	if start == nil {
		t.Fatal("no command")
	}
	if err := parses(t, strings.Fields(start[1])); err != nil {
		t.Errorf("%s: %v", start[1], err)
	}
	knowVariables(t, `(?m)^Environment=([A-Z_]+)=`, unit)
	if !strings.Contains(unit, "\nType=notify\n") || !strings.Contains(unit, "\nWatchdogSec=") {
		t.Error("no readiness, or no watchdog")
	}
}

// The packages' settings are valid, also those that are comments.
func TestPackagedSettings(t *testing.T) {
	settings := readFile(t, repository+"/packaging/registry.yaml")
	for _, text := range []string{settings, regexp.MustCompile(`(?m)^#([a-z-]+:)`).ReplaceAllString(settings, "$1")} {
		path := filepath.Join(t.TempDir(), "registry.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		values, err := readConfigFile(path, serveFlags())
		if err != nil || values[flagDataDir].text != "/var/lib/registry" {
			t.Errorf("%v: %+v", err, values)
		}
	}
	knowVariables(t, `(?m)^#?([A-Z_]+)=`, readFile(t, repository+"/packaging/registry.default"))
}

// knowVariables wants the names that a pattern finds to be variables of serve.
func knowVariables(t *testing.T, pattern, text string) {
	t.Helper()
	found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
	for _, m := range found {
		if !slices.ContainsFunc(serveFlags(), func(f cli.Flag) bool { return variable(f.Names()[0]) == m[1] }) {
			t.Errorf("serve does not know %s", m[1])
		}
	}
	if len(found) == 0 {
		t.Errorf("no %s", pattern)
	}
}
