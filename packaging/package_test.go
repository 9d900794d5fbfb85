package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Both packages have all files; that of Debian is installed, upgraded, removed and purged,
// and its node runs under systemd.
func TestPackages(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("VERSION", "v1.2.3-4-gabcdef0")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	command(t, "./build", dir)
	one := func(pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		return found[0]
	}
	deb, rpm := one("registry_1.2.3+4.gabcdef0*.deb"), one("registry-1.2.3+4.gabcdef0*.rpm")
	t.Run("the same bytes again", func(t *testing.T) {
		again := t.TempDir()
		t.Setenv("MANUAL", filepath.Join(again, "manual"))
		command(t, "./build", again)
		for _, file := range []string{deb, rpm} {
			first, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			second, err := os.ReadFile(filepath.Join(again, filepath.Base(file)))
			if err != nil || !bytes.Equal(first, second) {
				t.Errorf("%s has other bytes: %v", filepath.Base(file), err)
			}
		}
		for _, file := range []string{"registry.1.gz", "completions/registry.bash", "completions/_registry", "completions/registry.fish"} {
			if info, err := os.Stat(filepath.Join(again, "manual", file)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", file, err)
			}
		}
	})
	files := []string{
		"/usr/bin/registry", "/usr/lib/systemd/system/registry.service", "/etc/registry/registry.yaml", "/etc/default/registry",
		"/usr/share/man/man1/registry.1.gz", "/usr/share/bash-completion/completions/registry",
		"/usr/share/fish/vendor_completions.d/registry.fish", "/usr/share/doc/registry/copyright",
	}
	check := func(t *testing.T, list, zsh string) {
		for _, f := range append(files, zsh) {
			if !strings.Contains(list, f+"\n") {
				t.Errorf("no %s in\n%s", f, list)
			}
		}
	}
	t.Run("files of the deb", func(t *testing.T) {
		need(t, "dpkg-deb")
		check(t, command(t, "dpkg-deb", "-c", deb), "/usr/share/zsh/vendor-completions/_registry")
	})
	t.Run("files of the rpm", func(t *testing.T) {
		need(t, "rpm")
		check(t, command(t, "rpm", "-qlp", rpm), "/usr/share/zsh/site-functions/_registry")
	})
	t.Run("life of the deb", func(t *testing.T) {
		need(t, "dpkg")
		onThisSystem(t, []string{"--mount", "--net"}, "testdata/life", t.TempDir(), deb)
	})
	t.Run("the deb under systemd", func(t *testing.T) {
		need(t, "dpkg")
		need(t, "systemd-nspawn")
		onThisSystem(t, []string{"--mount"}, "testdata/boot", t.TempDir(), deb)
	})
}

// onThisSystem runs a script in namespaces, where its changes do not last.
func onThisSystem(t *testing.T, namespaces []string, script ...string) {
	t.Helper()
	need(t, "unshare")
	if os.Geteuid() != 0 {
		t.Skip("only root can mount and chroot")
	}
	run := func(program ...string) ([]byte, error) {
		return exec.CommandContext(t.Context(), "unshare", append(slices.Clone(namespaces), program...)...).CombinedOutput()
	}
	if out, err := run("true"); err != nil {
		t.Skipf("no namespaces: %v: %s", err, out)
	}
	out, err := run(append([]string{"sh"}, script...)...)
	if failed, ok := err.(*exec.ExitError); ok && failed.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
}
