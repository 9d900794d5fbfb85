package packaging

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// command returns what it prints, without its warnings.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out, warnings strings.Builder
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &warnings
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, &out, &warnings)
	}
	return out.String()
}

// rpm asks a package, with a database of its own: the user's may be in use.
func rpm(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "rpm", append([]string{"--dbpath", t.TempDir()}, args...)...)
}

// Both packages have all files; that of Debian is installed, upgraded, removed and purged,
// and its node runs under systemd.
func TestPackages(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LC_ALL", "C") // for the words of dpkg and rpm
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
	deb, redHat := one("registry_1.2.3+4.gabcdef0*.deb"), one("registry-1.2.3+4.gabcdef0*.rpm")
	t.Run("the same bytes again", func(t *testing.T) {
		again := t.TempDir()
		t.Setenv("MANUAL", filepath.Join(again, "manual"))
		command(t, "./build", again)
		for _, file := range []string{deb, redHat} {
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
		check(t, rpm(t, "-qlp", redHat), "/usr/share/zsh/site-functions/_registry")
	})
	t.Run("the rpm is as the deb", func(t *testing.T) {
		need(t, "dpkg-deb")
		need(t, "rpm")
		sameFiles(t, deb, redHat)
		sameScripts(t, deb, redHat)
		rpm(t, "-K", "--nosignature", redHat)
		if needs := rpm(t, "-qp", "--requires", redHat); !strings.Contains(needs, "shadow-utils\n") {
			t.Errorf("for useradd: it needs %q", needs)
		}
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

// sameFiles compares the files, with mode, owner and size, and those of them that are
// settings, which an upgrade leaves alone.
func sameFiles(t *testing.T, deb, redHat string) {
	t.Helper()
	type file struct{ mode, owner, size string }
	inDeb, inRPM := make(map[string]file), make(map[string]file)
	for line := range strings.Lines(command(t, "dpkg-deb", "-c", deb)) {
		f := strings.Fields(line) // mode, owner, size, date, time, path
		path := strings.TrimPrefix(f[5], ".")
		path = strings.Replace(path, "/vendor-completions/", "/site-functions/", 1)
		inDeb[strings.TrimSuffix(path, "/")] = file{f[0], f[1], f[2]}
	}
	for path, f := range inDeb {
		if f.mode == "drwxr-xr-x" { // belongs to the system; a list of Red Hat lacks it
			delete(inDeb, path)
		}
	}
	var settings strings.Builder
	for line := range strings.Lines(rpm(t, "-qp", "--qf", `[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILESIZES} %{FILENAMES} %{FILEFLAGS:fflags}\n]`, redHat)) {
		f := strings.Fields(line)
		if inRPM[f[3]] = (file{f[0], f[1], f[2]}); f[0][0] == 'd' {
			inRPM[f[3]] = file{f[0], f[1], "0"}
		}
		if len(f) > 4 && f[4] == "cn" { // config(noreplace)
			settings.WriteString(f[3] + "\n")
		}
	}
	if !maps.Equal(inDeb, inRPM) {
		t.Errorf("the deb has\n%v\nand the rpm\n%v", inDeb, inRPM)
	}
	if want := command(t, "dpkg-deb", "-I", deb, "conffiles"); settings.String() != want {
		t.Errorf("the settings of the rpm are %q, of the deb %q", &settings, want)
	}
}

// sameScripts looks for the scripts, and for no others, in both packages.
func sameScripts(t *testing.T, deb, redHat string) {
	t.Helper()
	all := rpm(t, "-qp", "--scripts", redHat)
	if n := strings.Count(all, " scriptlet ("); n != 3 {
		t.Errorf("%d scripts in the rpm", n)
	}
	for file, names := range map[string]struct{ deb, rpm string }{
		"postinstall": {"postinst", "postinstall"}, "preremove": {"prerm", "preuninstall"}, "postremove": {"postrm", "postuninstall"},
	} {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want := names.rpm + " scriptlet (using /bin/sh):\n" + string(script); !strings.Contains(all, want) {
			t.Errorf("no %q in the scripts of the rpm:\n%s", want, all)
		}
		if got := command(t, "dpkg-deb", "-I", deb, names.deb); got != string(script) {
			t.Errorf("the %s of the deb is %q", names.deb, got)
		}
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
}
