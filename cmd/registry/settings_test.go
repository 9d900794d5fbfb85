package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/rpc/peertls"
)

// writeConfig writes a configuration file and returns its path.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// inForce is what -check-config prints for a key: the value, and where it comes from.
func inForce(t *testing.T, output, key string) string {
	t.Helper()
	for line := range strings.Lines(output) {
		if value, ok := strings.CutPrefix(line, key+": "); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	t.Fatalf("no key %q:\n%s", key, output)
	return ""
}

// The command line wins over the environment, that over the file, that over the default.
func TestPrecedence(t *testing.T) {
	for _, tc := range []struct {
		key, absent                  string // and its default
		inFile, inEnv, onCommandLine string
		fromFile, fromEnv, given     string // as printed
	}{
		{"cluster", `"registry"`, "east", "west", "north", `"east"`, `"west"`, `"north"`},
		{"wait", "false", "true", "false", "true", "true", "false", "true"},
		{"join-timeout", "30s", "40s", "50000ms", "60s", "40s", "50s", "1m0s"},
		{"bootstrap-expect", "0", "0x1", "0", "1", "1", "0", "1"},
		{"snapshot-threshold", "16384", "1000", "2000", "3000", "1000", "2000", "3000"},
		{"min-free-disk", `"128MiB"`, "0", "1GiB", "2GiB", `"0"`, `"1GiB"`, `"2GiB"`},
		{"registries", "[]", "[a:1, b:2]", "c:3,d:4", "e:5", `["a:1", "b:2"]`, `["c:3", "d:4"]`, `["e:5"]`},
		{"zone", `""`, "east", "west", "north", `"east"`, `"west"`, `"north"`},
		{"data-dir", `"registry-data/n1"`, "/a", "/b", "/c", `"/a"`, `"/b"`, `"/c"`},
	} {
		t.Run(tc.key, func(t *testing.T) {
			file, name := writeConfig(t, tc.key+": "+tc.inFile+"\n"), variable(tc.key)
			check := func(want, origin string, args ...string) {
				t.Helper()
				got := inForce(t, ok(t, append([]string{"serve", "-id", "n1", "-check-config"}, args...)...), tc.key)
				if got != want+" # "+origin {
					t.Errorf("got %s, want %s # %s", got, want, origin)
				}
			}
			withFile, given := []string{"-config", file}, "-"+tc.key+"="+tc.onCommandLine
			check(tc.absent, "default")
			check(tc.fromFile, file+":1", withFile...)
			check(tc.given, fromCommandLine, append(withFile, given)...)
			t.Setenv(name, tc.inEnv)
			check(tc.fromEnv, name)
			check(tc.fromEnv, name, withFile...)
			check(tc.given, fromCommandLine, append(withFile, given)...)
			t.Setenv(name, "") // counts as not set
			check(tc.absent, "default")
			check(tc.fromFile, file+":1", withFile...)
			check(tc.given, fromCommandLine, append(withFile, given)...)
		})
	}
}

func TestConfigFileOfTheEnvironment(t *testing.T) {
	file := writeConfig(t, "id: n1\n")
	t.Setenv("REGISTRY_CONFIG", file)
	t.Setenv("REGISTRY_CHECK_CONFIG", "true")
	if got := inForce(t, ok(t), "id"); got != `"n1" # `+file+":1" {
		t.Errorf("got %s", got)
	}
}

// All that is wrong is told, at once, with its place.
func TestEnvironmentIsRefused(t *testing.T) {
	t.Setenv("REGISTRY_ADDR", "nowhere")
	r := execute(t, t.Context(), "", "serve", "-config", writeConfig(t, "bind: \"7370\"\n"), "-cluster", "a/b")
	if r.code != exitUsage {
		t.Errorf("exit code %d", r.code)
	}
	for _, want := range []string{"-id is required", "registry.yaml:1: -bind: must be host:port", "REGISTRY_ADDR: -addr: must be host:port", "\n-cluster: must be"} {
		if strings.Count(r.stderr, want) != 1 {
			t.Errorf("not once %q:\n%s", want, r.stderr)
		}
	}
	t.Setenv("REGISTRY_WAIT", "maybe")
	t.Setenv("REGISTRY_JOIN_TIMEOUT", "4")
	want := "registry: REGISTRY_WAIT is \"maybe\", want true or false\nREGISTRY_JOIN_TIMEOUT 4: a duration needs a unit, such as 4s\n"
	if r := execute(t, t.Context(), "", "serve"); r.code != exitUsage || r.stderr != want {
		t.Errorf("%+v", r)
	}
}

func TestConfigFileIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "id: a\ndata_dir: b", `FILE:2: unknown key "data_dir"; did you mean "data-dir"?`},
		{"key with a dash", "id: a\n-bind: :1", `FILE:2: unknown key "-bind"; did you mean "bind"?`},
		{"key that is like nothing", "id: a\nfrobnicate: 1", `FILE:2: unknown key "frobnicate"`},
		{"key of the command line only", "id: a\ncheck-config: true", `FILE:2: unknown key "check-config"`},
		{"another file", "id: a\nconfig: b", `FILE:2: unknown key "config"`},
		{"inlined secret", "id: a\nsecret: hush", `FILE:2: unknown key "secret": the secret itself does not go here, set "secret-file" to the name of its file`},
		{"token", "id: a\ntoken: hush", `FILE:2: unknown key "token"`},
		{"duplicate key", "id: a\nbind: :1\nbind: :1", `FILE:3: duplicate key "bind", which line 2 has`},
		{"number for a string", "id: 5", `FILE:1: id is a number, want a string: put it into quotes`},
		{"number for an address", "id: a\nbind: 7370", `FILE:2: bind is a number, want a string: put it into quotes`},
		{"boolean for a string", "id: a\ncluster: true", `FILE:2: cluster is a boolean, want a string: put it into quotes`},
		{"list for a string", "id: a\ncluster: [b]", `FILE:2: cluster is a list, want a string`},
		{"nothing for a string", "id: a\ncluster:", `FILE:2: cluster is empty, want a string`},
		{"alias", "id: &a a\ncluster: *a", `FILE:2: cluster is an alias, want a string`},
		{"string for a boolean", "id: a\nwait: \"true\"", `FILE:2: wait is a string, want true or false`},
		{"word of YAML 1.1 for a boolean", "id: a\nwait: yes", `FILE:2: wait is a string, want true or false`},
		{"string for an integer", "id: a\nbootstrap-expect: \"3\"", `FILE:2: bootstrap-expect is a string, want a whole number`},
		{"fraction for an integer", "id: a\nbootstrap-expect: 1.5", `FILE:2: bootstrap-expect is a number, want a whole number`},
		{"integer below zero", "id: a\nsnapshot-threshold: -1", `FILE:2: snapshot-threshold is "-1", want a whole number, 0 or more`},
		{"duration without a unit", "id: a\njoin-timeout: 30", `FILE:2: join-timeout 30: a duration needs a unit, such as 30s`},
		{"no duration", "id: a\njoin-timeout: soon", `FILE:2: join-timeout is "soon", want a duration such as 10s or 1m30s`},
		{"no size", "id: a\nring-memory: big", `FILE:2: -ring-memory: must be a size such as 128MiB or 2GiB, or 0, got "big"`},
		{"string for a list", "id: a\nregistries: b:1", `FILE:2: registries is a string, want a list such as [a, b]`},
		{"number in a list", "id: a\nregistries: [b:1, 2]", `FILE:2: registries has a number, want a list of strings`},
		{"value outside its limits", "id: a\n\nelection-timeout: 1ms", `FILE:3: -election-timeout: must be 50ms to 1m, got 1ms`},
		{"zone that is no name", "id: a\nzone: eu/1", `FILE:2: -zone: must be 1 to 255 bytes of printable UTF-8 without '/', got "eu/1"`},
		{"word that is not one of a few", "id: a\nlog-level: loud", `FILE:2: -log-level: must be debug, info, warn or error, got "loud"`},
		{"several", "id: a\nwait: 1\nbnd: b\naddr: c", "FILE:2: wait is a number, want true or false\nFILE:3: unknown key \"bnd\"; did you mean \"bind\"?\n" +
			`FILE:4: -addr: must be host:port or :port, port 0 to 65535, got "c"`},
		{"no mapping", "- id", "FILE:1: the file is a list, want keys with values, such as id: node-1"},
		{"key that is no name", "id: a\n[b]: c", "FILE:2: the key is a list, want a name"},
		{"merge", "id: a\n<<: {cluster: b}", `FILE:2: unknown key "<<"`},
		{"two documents", "id: a\n---\ncluster: b", "FILE:2: a second document, want one"},
		{"no YAML", "id: a\ncluster: [", "FILE:2: did not find expected node content"},
		{"too large", strings.Repeat("#", maxConfigFile+1), "-config: FILE has more than 1048576 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := writeConfig(t, tc.text)
			ended, end := context.WithCancel(t.Context()) // a node that starts all the same ends at once
			end()
			for _, more := range [][]string{nil, {"-check-config"}} {
				r := execute(t, ended, "", append([]string{"serve", "-config", path}, more...)...)
				if r.code != exitUsage || r.stdout != "" {
					t.Errorf("exit code %d, stdout %q", r.code, r.stdout)
				}
				if diff := cmp.Diff("registry: "+tc.want+"\n", strings.ReplaceAll(r.stderr, path, "FILE")); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	if r := execute(t, t.Context(), "", "serve", "-config", "nowhere.yaml"); r.code != exitUsage || !strings.Contains(r.stderr, "-config: open nowhere.yaml: ") {
		t.Errorf("%+v", r)
	}
}

// What -check-config prints is a configuration file with the same values.
func TestCheckConfigPrintsAConfigFile(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, "# of node 1\nid: n1\nbind: \":7371\"\nregistries: [a:1, b:2]\ndata-dir: \"/a \\\"b\\\"\\t\\u00e9\"\njoin-timeout: 1m\nwait: true\nlog-level: warn\n")
	printed := ok(t, "-check-config", "-config", file, "-log-format", "json")
	golden(t, "check_config.txt", strings.ReplaceAll(printed, file, "registry.yaml"))
	again := ok(t, "-check-config", "-config", writeConfig(t, printed))
	values := func(text string) (all []string) {
		for line := range strings.Lines(text) {
			value, _, _ := strings.Cut(line, "  #")
			all = append(all, strings.TrimSpace(value))
		}
		return all
	}
	if diff := cmp.Diff(values(printed), values(again)); diff != "" {
		t.Error(diff)
	}
	for name, empty := range map[string]string{"nothing": "", "a comment": "# nothing", "a document": "---\n"} {
		if got := inForce(t, ok(t, "-check-config", "-id", "n1", "-config", writeConfig(t, empty)), "bind"); got != `":7370" # default` {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// -check-config reads the files of secrets and certificates, and prints their names only.
func TestCheckConfigReadsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	secret := peertls.NewSecret()
	if err := os.WriteFile(at("secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := devCertificates(dir); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(at("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(secretFile, key string) result {
		return execute(t, t.Context(), "", "-check-config", "-id", "n1", "-secret-file", secretFile, "-cert", at("server.crt"), "-key", key)
	}
	for _, tc := range []struct {
		name, secretFile, key string
		code                  int
		says                  []string
	}{
		{"usable", at("secret"), at("server.key"), exitOK, []string{fmt.Sprintf("secret-file: %q", at("secret"))}},
		{"missing", at("no-secret"), at("no-key"), exitUsage, []string{"no-secret: no such file", "no-key: no such file"}},
		{"of no use", at("server.crt"), at("ca.key"), exitUsage, []string{"-secret-file", "-key"}},
		{"contents", secret, string(key), exitUsage, []string{"-secret-file: must be the name of a file, got its contents", "-key: must be the name of a file"}},
	} {
		r := check(tc.secretFile, tc.key)
		all := r.stdout + r.stderr
		if r.code != tc.code {
			t.Errorf("%s: exit code %d", tc.name, r.code)
		}
		for _, s := range tc.says {
			if !strings.Contains(all, s) {
				t.Errorf("%s: no %q in %s", tc.name, s, all)
			}
		}
		if strings.Contains(all, secret) || strings.Contains(all, "PRIVATE KEY") {
			t.Errorf("%s: shows a secret: %s", tc.name, all)
		}
	}
}

// The variables of serve follow one rule, and so do those of clients, with the exceptions
// below: a client's value must not be taken from a node's variable, or a node's from a client's.
func TestVariables(t *testing.T) {
	t.Parallel()
	exceptions := map[string]string{flagRegistries: "REGISTRY_ADDRS", flagCert: "REGISTRY_CLIENT_CERT", flagKey: "REGISTRY_CLIENT_KEY"}
	connection := []string{flagRegistries, flagCluster, flagTimeout, flagCA, flagCert, flagKey, flagServerName, flagTokenFile}
	app := newApp(&env{})
	leaves(appName, app.Commands, func(command string, c *cli.Command) {
		isServe := c.Name == "serve"
		isClient := slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return f.Names()[0] == flagTimeout })
		for _, f := range c.Flags {
			name := f.Names()[0]
			want := []string{variable(name)}
			if other := exceptions[name]; other != "" && !isServe {
				want = []string{other}
			}
			got := f.(cli.DocGenerationFlag).GetEnvVars()
			needed := name != "help" && (isServe || isClient && slices.Contains(connection, name))
			if !slices.Equal(got, want) && (needed || len(got) > 0) {
				t.Errorf("%s -%s: %v, want %v", command, name, got, want)
			}
		}
	})
}

func TestConfigIsReadAgain(t *testing.T) {
	t.Parallel()
	const (
		before = "id: n1\nbind: \":1\"\njoin-timeout: 10s\n"
		again  = "INFO  configuration file read again file=FILE log-level=INFO\n"
		reject = "ERROR configuration file refused, the values in force stay file=FILE error="
	)
	for _, tc := range []struct{ name, after, want string }{
		{"the same values", "join-timeout: 10000ms\nbind: \":1\"\nid: n1\n", again},
		{"a value that the command line gives", before + "addr: :2\n", again},
		{"the log level", before + "log-level: debug\n", strings.Replace(again, "INFO\n", "DEBUG\n", 1) + "DEBUG detail\n"},
		{"a value, another that is new, and one that is gone", "id: n2\nbind: \":1\"\nregistries: [a:1]\n",
			again + "WARN  changes in the configuration file need a restart file=FILE keys=id,registries,join-timeout\n"},
		{"mistakes", before + "bnd: x\nadvertise: x\nlog-level: debug\n", reject + `"FILE:4: unknown key \"bnd\"; did you mean \"bind\"?\nFILE:5: -advertise: must be host:port or :port, port 0 to 65535, got \"x\""` + "\n"},
		{"no YAML", "[", reject + `"FILE:1: did not find expected node content"` + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			file, stderr := writeConfig(t, before), new(lockedBuffer)
			e := &env{stdout: new(lockedBuffer), stderr: stderr}
			app := newApp(e)
			app.Command("serve").Action = func(c *cli.Context) error {
				s, cfg, err := configure(e, c)
				if err != nil {
					return err
				}
				if err := os.WriteFile(file, []byte(tc.after), 0o600); err != nil {
					return err
				}
				s.reread(e, c, cfg.Logger)
				cfg.Logger.Debug("detail")
				return nil
			}
			if err := app.RunContext(t.Context(), []string{appName, "serve", "-config", file, "-addr", ":1"}); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for line := range strings.Lines(strings.ReplaceAll(stderr.String(), file, "FILE")) {
				got.WriteString(line[len("15:04:05.000 "):])
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// SIGHUP lets a node read its configuration file again, and does not end it.
func TestHangupReadsTheConfigurationAgain(t *testing.T) {
	port, dir := freePorts(t, 2), t.TempDir()
	audit := filepath.Join(dir, "audit.log")
	text := fmt.Sprintf("id: n1\nbind: %s\naddr: %s\ndata-dir: %q\naudit-log: %q\n", local(port), local(port+1), filepath.Join(dir, "n1"), audit)
	file := writeConfig(t, text)
	p := startProcess(t, "serve", "-config", file)
	awaitMetric(t, local(port+1), "registry_ready 1")
	if err := os.WriteFile(file, []byte(text+"wait: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp(t, p, audit)
	p.stop()
	if log := p.log.String(); !strings.Contains(log, "need a restart") || !strings.Contains(log, "keys=wait\n") {
		t.Errorf("the log does not name the key:\n%s", log)
	}
}

// FuzzConfigFile: any file gives values that the flags take, or errors that name it.
func FuzzConfigFile(f *testing.F) {
	for _, text := range []string{"", "id: a", "registries: [a, b]", "id: &a b\ncluster: *a", "<<: {id: a}", "a: [", "---\n---\n", "? [a]\n: b", "wait: !!bool \"x\"", "join-timeout: 1"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		flags := serveFlags()
		values, err := parseConfigFile("FILE", data, flags)
		if err != nil && !strings.HasPrefix(err.Error(), "FILE:") {
			t.Errorf("%q: %v", data, err)
		}
		set := flag.NewFlagSet("", flag.ContinueOnError)
		for _, f := range flags {
			setVariables(f)
			if err := f.Apply(set); err != nil {
				t.Fatal(err)
			}
		}
		for name, v := range values {
			if err := set.Set(name, v.text); err != nil {
				t.Errorf("%q: %v", data, err)
			}
		}
	})
}
