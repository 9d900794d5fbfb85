package release

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
)

const root = "../.."

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// goreleaser's own decoder, which refuses unknown keys, takes the file; and what the file
// names is there. "make release-dry-run" runs it.
func TestConfiguration(t *testing.T) {
	project, err := config.Load(filepath.Join(root, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if project.Version != 2 || len(project.Builds) != 1 || len(project.Archives) != 1 || len(project.SBOMs) != 1 {
		t.Fatalf("version %d, %d builds, %d archives, %d bills", project.Version, len(project.Builds), len(project.Archives), len(project.SBOMs))
	}
	build, archive, bill := project.Builds[0], project.Archives[0], project.SBOMs[0]

	// The program of the archive is that of the packages.
	script := read(t, "packaging/build")
	for _, want := range append(slices.Clone(build.Flags), build.Main, "CGO_ENABLED=0", "-s -w -X main.version=") {
		if !strings.Contains(script, want) {
			t.Errorf("packaging/build does not have %s", want)
		}
	}
	if !slices.Contains(build.Flags, "-trimpath") || build.ModTimestamp == "" || !strings.Contains(build.Ldflags[0], "-X main.version={{ .Version }}") {
		t.Errorf("the build is not reproducible: %v %v %q", build.Flags, build.Ldflags, build.ModTimestamp)
	}
	for _, f := range archive.Files {
		if f.Info.MTime != "{{ .CommitDate }}" {
			t.Errorf("%s has the time %q, not that of the commit", f.Source, f.Info.MTime)
		}
		// prepare makes what is in bin/release.
		if made := strings.HasPrefix(f.Source, "bin/release/"); !made {
			read(t, f.Source)
		}
	}
	if got, want := bill.Documents[0], archive.NameTemplate+".cdx.json"; got != want || bill.Artifacts != "binary" {
		t.Errorf("the bill of %s %s, want the one of the program in %s", bill.Artifacts, got, want)
	}
	for _, hook := range project.Before.Hooks {
		if info, err := os.Stat(filepath.Join(root, strings.Fields(hook)[0])); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("hook %s: %v", hook, err)
		}
	}
	repo := project.Release.GitHub
	if module := "module github.com/" + repo.Owner + "/" + repo.Name + "\n"; !strings.HasPrefix(read(t, "go.mod"), module) {
		t.Errorf("the release is of %s, which is not this module", module)
	}
	if !slices.Equal(project.Release.ExtraFiles, project.Checksum.ExtraFiles) {
		t.Error("the files without a checksum differ from those with one")
	}
	if !regexp.MustCompile(`(?m)^/dist/$`).MatchString(read(t, ".gitignore")) {
		t.Error(".gitignore does not have /dist/")
	}
}

func TestConfigurationIsStrict(t *testing.T) {
	text := strings.Replace(read(t, ".goreleaser.yaml"), "mod_timestamp:", "mod_timestamps:", 1)
	if _, err := config.LoadReader(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "mod_timestamps") {
		t.Errorf("an unknown key: %v", err)
	}
}
