package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry/docs"
)

// TestDocumentation runs the commands of every document, in their order, in a
// folder of the document's own. What is locked is what the document locks.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s", tool)
		}
	}
	files, err := docs.Files(repository)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range files {
		blocks, err := docs.Blocks(repository, file)
		if err != nil {
			t.Fatal(err)
		}
		blocks = slices.DeleteFunc(blocks, func(b docs.Block) bool {
			reason, not := b.NotRun()
			if not && reason == "" {
				t.Errorf("%v: no reason why it is not run", b)
			}
			return not || len(b.Commands()) == 0
		})
		if len(blocks) == 0 {
			continue
		}
		ran += len(blocks)
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			r := newReader(t, blocks)
			for _, b := range blocks {
				for _, c := range b.Commands() {
					r.follow(c)
				}
			}
		})
	}
	if ran < 20 {
		t.Errorf("%d blocks", ran)
	}
}

// reader does what a document says, with free ports in place of the document's.
type reader struct {
	t        *testing.T
	dir      string
	env      []string
	to, from *strings.Replacer // ports of the document → free ones, and back
	started  int
}

var port = regexp.MustCompile(`:(\d{4,5})\b`)

// newReader finds a free port for each of the document's; those that "registry
// dev" takes are in rows.
func newReader(t *testing.T, blocks []docs.Block) *reader {
	r := &reader{t: t, dir: t.TempDir()}
	tmp := t.TempDir()
	wanted := []string{"7370", "7371", "7372", "9800", "9801", "9802"}
	for _, b := range blocks {
		for _, m := range port.FindAllStringSubmatch(b.Text, -1) {
			if !slices.Contains(wanted, m[1]) {
				wanted = append(wanted, m[1])
			}
		}
	}
	to, from := []string(nil), []string{tmp, "/tmp"}
	for i, p := range freePorts(t, len(wanted)) {
		to = append(to, ":"+wanted[i], fmt.Sprint(":", p))
		from = append(from, fmt.Sprint(":", p), ":"+wanted[i])
	}
	r.to, r.from = strings.NewReplacer(to...), strings.NewReplacer(from...)
	r.env = []string{
		"PATH=" + binDir + ":" + os.Getenv("PATH"), "TMPDIR=" + tmp, "REGISTRY_ADDRS=" + r.to.Replace("127.0.0.1:9800"),
		"REGISTRY_SECRET_FILE=", // that of TestMain: nodes of a document have the secret that it gives them
	}
	r.checkout("go.mod", "go.sum", "examples", "sdk", "ring", "rpc/certs", "rpc/registrypb")
	return r
}

// checkout copies what the examples are built from.
func (r *reader) checkout(names ...string) {
	r.t.Helper()
	for _, name := range names {
		from, to := filepath.Join(repository, name), filepath.Join(r.dir, name)
		info, err := os.Stat(from)
		if err == nil && info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else if err == nil {
			var data []byte
			if data, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, data, 0o644)
			}
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// shell is a command of the document as it is run.
func (r *reader) shell(c docs.Command) string {
	line := r.to.Replace(c.Shell)
	if line == "registry dev" {
		p := func(doc string) string { return strings.TrimPrefix(r.to.Replace(":"+doc), ":") }
		line += " -bind-port " + p("7370") + " -addr-port " + p("9800")
	}
	return line
}

// follow runs a command until it has printed what the document says. One that
// comes too early for what was started before is run again.
func (r *reader) follow(c docs.Command) {
	r.t.Helper()
	r.started++
	run := command{name: fmt.Sprint("command-", r.started), path: "/bin/sh", args: []string{"-ec", r.shell(c)}, dir: r.dir, env: r.env}
	if c.KeepsRunning() {
		p := start(r.t, run)
		eventually(r.t, patience, fmt.Sprintf("%v: %s", c.Block, c.Shell), func() error {
			if p.hasEnded() {
				r.t.Fatalf("%v: %s ended with exit code %d:\n%s", c.Block, c.Shell, p.code, p.log.tail(20))
			}
			return r.shows(c, p.log.text())
		})
		return
	}
	eventually(r.t, patience, fmt.Sprintf("%v: %s", c.Block, c.Shell), func() error {
		p := start(r.t, run)
		if code := p.ends(6 * patience); code != 0 { // it may compile
			return fmt.Errorf("exit code %d:\n%s", code, p.log.tail(20))
		}
		return r.shows(c, p.log.text())
	})
}

var (
	spaces     = regexp.MustCompile(` +`)
	registries = regexp.MustCompile(` -registries 127\.0\.0\.1:9800,\S+`) // dev's hints have it, for other ports
	waits      = regexp.MustCompile(`(?m)^registry: no answer yet, trying for .*\n`)
)

// shows compares what was printed with the document: "…" stands for anything. A command
// that waited for a busy machine is not run again for that: some work only once.
func (r *reader) shows(c docs.Command, printed string) error {
	if c.Output == "" {
		return nil
	}
	printed = waits.ReplaceAllString(registries.ReplaceAllString(r.from.Replace(printed), ""), "")
	have, want := lines(printed), lines(c.Output)
	for i, line := range want {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
		if i >= len(have) || !regexp.MustCompile("^"+pattern+"$").MatchString(have[i]) {
			return fmt.Errorf("%v: %s: line %d is not %q:\n%s", c.Block, c.Shell, i+1, line, printed)
		}
	}
	if !c.KeepsRunning() && len(have) > len(want) {
		return fmt.Errorf("%v: %s: prints more:\n%s", c.Block, c.Shell, printed)
	}
	return nil
}

// lines without empty ones, a run of spaces as one.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(spaces.ReplaceAllString(line, " ")); line != "" {
			all = append(all, line)
		}
	}
	return all
}
