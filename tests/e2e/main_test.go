package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/tests/source"
)

// Set by TestMain.
var (
	binDir string // registry, webservice, gateway
	logDir string // one file for each process
)

// noise is what a busy machine of two cores may add to a promised bound
// until the process in question, and the one that watches it, get to run.
const noise = 1500 * time.Millisecond

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	for _, v := range os.Environ() { // flags read the environment
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "REGISTRY_") {
			os.Unsetenv(name)
		}
	}
	dir, err := os.MkdirTemp("", "registry-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binDir, logDir = filepath.Join(dir, "bin"), filepath.Join(dir, "logs")
	if raceEnabled {
		os.Setenv("GORACE", "atexit_sleep_ms=20") // a second, by default
	}
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = os.RemoveAll(dir)
		return 1
	}
	if err := makeKeys(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = os.RemoveAll(dir)
		return 1
	}
	code := m.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, "logs of all processes:", logDir)
		dir = binDir
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

func build() error {
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return err
	}
	args := []string{"build", "-buildvcs=false", "-o", binDir + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	args = append(args, "./cmd/registry", "./examples/webservice", "./examples/gateway")
	cmd, err := source.Go(context.Background(), args...)
	if err != nil {
		return err
	}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	if testing.Verbose() {
		fmt.Printf("programs built in %v\n", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func program(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(binDir, name)
}
