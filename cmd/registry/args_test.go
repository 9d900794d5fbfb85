package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/werbenhu/registry/rpc/registrypb"
)

func TestNormalize(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"flags of serve without a command", "-bind=:7370 -id service-1", "-bind=:7370 -id service-1"},
		{"flags after arguments", "match web -n 2 user-1 --json", "match -n 2 --json -- web user-1"},
		{"stdin", "match web -", "match -- web -"},
		{"a key that looks like a flag", "match web -- -n", "match -- web -n"},
		{"a key that is a command", "match web help", "match -- web help"},
		{"help of a nested command", "help ring show", "help of registry ring show"},
		{"help wins over bad arguments", "ring show a b c -nope -h", "help of registry ring show"},
		{"help of the program", "-h", "help of registry"},
		{"a command to run", "register -group g -id i -addr a -- sh -c exit", "register -group g -id i -addr a -- sh -c exit"},
		{"version flag", "--version", "version"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, help, err := normalize(newApp(&env{}), strings.Fields(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if help != nil {
				got = strings.Fields("help of " + help.HelpName)
			}
			if diff := cmp.Diff(strings.Fields(tt.want), append([]string{}, got...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestUsageErrors: every way to type something wrong exits with 2, says what
// was wrong and prints nothing on stdout.
func TestUsageErrors(t *testing.T) {
	tests := []struct {
		name, args string
		says       []string
	}{
		{"unknown command", "membrs web", []string{`unknown command "membrs"`, `did you mean "members"?`}},
		{"unknown subcommand", "ring stat web", []string{`registry: ring: unknown command "stat"`, `"stats"`}},
		{"unknown help topic", "help nope", []string{`unknown command "nope"`}},
		{"a command one level down", "status", []string{`did you mean "cluster status"?`}},
		{"another command one level down", "get", []string{`did you mean "group get"?`}},
		{"a word that is like nothing", "frob", []string{"unknown command \"frob\"\n  see registry -help"}},
		{"a letter that is like nothing", "members -l web", []string{"unknown flag -l\n  usage: registry members [flags] GROUP\n  see registry members -help"}},
		{"a letter that is missing", "wacth web", []string{`did you mean "watch"?`}},
		{"no time of a hold", "member hold -group g -id i", []string{"-for is required"}},
		{"hold below the limit", "member hold -group g -id i -for 100ms", []string{"-for is 100ms, want 1s to 24h"}},
		{"hold above the limit", "member hold -group g -id i -for 25h", []string{"-for is 25h0m0s, want 1s to 24h"}},
		{"staleness that no node has", "members web -max-staleness -1s", []string{"-max-staleness is -1s, want more than 0"}},
		{"no staleness at all", "members web -max-staleness 0s", []string{"-max-staleness is 0s, want more than 0"}},
		{"missing subcommand", "ring", []string{"registry: ring needs a command: stats, show", "\n  see registry ring -help\n"}},
		{"missing subcommand of group", "group", []string{"group needs a command: get, set, delete or accept-loss\n  see registry group -help\n"}},
		{"missing subcommand of member", "member", []string{"member needs a command", "\n  see registry member -help\n"}},
		{"missing subcommand of cluster", "cluster", []string{"cluster needs a command", "\n  see registry cluster -help\n"}},
		{"missing subcommand of bench", "bench", []string{"bench needs a command", "\n  see registry bench -help\n"}},
		{"unknown flag of serve", "-bnd :1", []string{"registry: unknown flag -bnd", `"-bind"`}},
		{"unknown flag", "members -jsn web", []string{"registry: members: unknown flag -jsn", `"-json"`}},
		{"flag before the command", "-addr :1 members web", []string{"come after its name: registry members -addr :1"}},
		{"bad flag value", "members -timeout soon web", []string{`-timeout is "soon", want a duration such as 10s or 1m30s`, "registry members -help"}},
		{"duration without a unit", "register -group g -id i -addr h:1 -ttl 5", []string{"registry: -ttl 5: a duration needs a unit, such as 5s\n  see registry register -help"}},
		{"duration without a unit after =", "serve -id a --join-timeout=1.5", []string{"-join-timeout 1.5: a duration needs a unit, such as 1.5s"}},
		{"duration of a hold without a unit", "member hold -group g -id i -for 30", []string{"-for 30: a duration needs a unit, such as 30s"}},
		{"duration of bench without a unit", "bench match -duration 5", []string{"-duration 5: a duration needs a unit, such as 5s"}},
		{"no number", "match -n two web k", []string{`-n is "two", want a whole number`}},
		{"no whole number", "bench match -callers 1.5", []string{`-callers is "1.5", want a whole number`}},
		{"no index", "match -at-least -1 web k", []string{`-at-least is "-1", want a whole number, 0 or more`}},
		{"neither true nor false", "groups -json=maybe", []string{`-json is "maybe", want true or false`}},
		{"zero timeout", "members -timeout 0s web", []string{"-timeout is 0s"}},
		{"missing value", "members web -timeout", []string{"-timeout needs a value\n  see registry members -help"}},
		{"missing id", "", []string{"-id is required"}},
		{"missing id of serve", "serve -bind :1", []string{"-id is required"}},
		{"id that is no directory", "serve -id ..", []string{"set -data-dir"}},
		{"bad log level", "serve -id a -log-level loud", []string{`-log-level: must be debug, info, warn or error, got "loud"`}},
		{"bad log format", "serve -id a -log-format xml", []string{`-log-format: must be text or json, got "xml"`}},
		{"argument to serve", "serve -id a b", []string{`unexpected argument "b"`}},
		{"bad address", "members -registries nowhere web", []string{`"nowhere"`}},
		{"no address", "members -registries , web", []string{"-registries names no address"}},
		{"missing group", "members", []string{"GROUP is missing"}},
		{"too many groups", "members a b", []string{`unexpected argument "b"`}},
		{"missing key", "match web", []string{"KEY is missing"}},
		{"no owners wanted", "match -n 0 web k", []string{"-n is 0"}},
		{"watch of nothing", "watch", []string{"GROUP is missing"}},
		{"watch of two groups", "watch a b", []string{`unexpected argument "b"`}},
		{"watch of two prefixes", "watch -prefix a b", []string{`unexpected argument "b"`}},
		{"no events wanted", "watch web -n 0", []string{"-n is 0"}},
		{"register without a group", "register -id i -addr h:1", []string{"-group is required"}},
		{"register without an id", "register -group g -addr h:1", []string{"-id is required"}},
		{"register without an address", "register -group g -id i", []string{"-addr is required"}},
		{"command without --", "register -group g -id i -addr h:1 sleep 1", []string{`unexpected argument "sleep"`, "after --"}},
		{"bad metadata", "register -group g -id i -addr h:1 -meta zone", []string{`-meta is "zone"`}},
		{"metadata twice", "register -group g -id i -addr h:1 -meta a=1 -meta a=2", []string{`"a" twice`}},
		{"weight 0", "register -group g -id i -addr h:1 -weight 0", []string{"-weight is 0"}},
		{"TTL 0", "register -group g -id i -addr h:1 -ttl 0s", []string{"-ttl is 0s"}},
		{"deregister without an id", "deregister -group g", []string{"-id is required"}},
		{"nothing to set", "member set -group g -id i", []string{"nothing to set"}},
		{"bad state", "member set -group g -id i -state asleep", []string{`-state is "asleep"`}},
		{"nothing to plan", "ring plan web", []string{"no change to plan"}},
		{"bad limit", "ring plan web -leave a -max-moved lots", []string{`-max-moved is "lots", want 0% to 100%, such as 5% or 0.25%, with at most 12 decimals`}},
		{"limit without a unit", "ring plan web -leave a -max-moved 5", []string{`registry: -max-moved is "5", want 0% to 100%`}},
		{"a hold without a time", "member set -group g -id i -state held", []string{"-state held and -for are given together"}},
		{"a time without a hold", "member set -group g -id i -state draining -for 1m", []string{"-state held and -for are given together"}},
		{"a weight with a time", "member set -group g -id i -weight 2 -for 1m", []string{"-state held and -for are given together"}},
		{"a time of a hold below the limit", "member set -group g -id i -state held -for 1ms", []string{"-for is 1ms, want 1s to 24h"}},
		{"bad weight", "ring plan web -weight a", []string{`-weight is "a"`}},
		{"weight above the limit", "ring plan web -join a:1001", []string{"1001"}},
		{"bad plot", "ring plot web -o ring.gif", []string{`"ring.gif"`}},
		{"bad bound", "group set web -bound tight", []string{`-bound is "tight"`}},
		{"bound below the limit", "group set web -bound 0.5", []string{`-bound is "0.5", want off, or 1.01 to 10 fair shares with at most three decimals`}},
		{"bound above the limit", "ring plan web -bound 11", []string{`-bound is "11", want off, or 1.01 to 10 fair shares`}},
		{"bound with four decimals", "group set web -bound 1.1001", []string{`-bound is "1.1001", want off, or 1.01 to 10 fair shares`}},
		{"virtual nodes no power of two", "group set web -virtual-nodes 100", []string{"-virtual-nodes is 100, want a power of two, 64 to 4096"}},
		{"unknown shell", "completion tcsh", []string{`"tcsh"`}},
		{"no time for health", "health -timeout 0s", []string{"-timeout is 0s"}},
		{"dev ports that overlap", "dev -bind-port 9798", []string{"-bind-port is 9798 and -addr-port is 9800, want 3 ports in a row from each"}},
		{"dev port out of range", "dev -addr-port 65535", []string{"-addr-port is 65535"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := execute(t, t.Context(), "", strings.Fields(tt.args)...)
			if r.code != exitUsage || r.stdout != "" {
				t.Errorf("exit code %d, stdout %q", r.code, r.stdout)
			}
			if strings.HasPrefix(r.stderr, "registry: registry") {
				t.Errorf("it says its name twice:\n%s", r.stderr)
			}
			for _, s := range tt.says {
				if !strings.Contains(r.stderr, s) {
					t.Errorf("stderr does not say %q:\n%s", s, r.stderr)
				}
			}
		})
	}
}

// TestBadEnvironment: a value of a variable is checked like that of its flag, and
// help needs none.
func TestBadEnvironment(t *testing.T) {
	for _, tt := range []struct{ name, value, args, says string }{
		{"REGISTRY_TIMEOUT", "5", "members web", "REGISTRY_TIMEOUT 5: a duration needs a unit, such as 5s"},
		{"REGISTRY_TIMEOUT", "soon", "health", `REGISTRY_TIMEOUT is "soon", want a duration such as 10s or 1m30s`},
		{"REGISTRY_BOOTSTRAP_EXPECT", "three", "serve -id a", `REGISTRY_BOOTSTRAP_EXPECT is "three", want a whole number`},
		{"REGISTRY_WAIT", "maybe", "-id a", `REGISTRY_WAIT is "maybe", want true or false`},
		{"REGISTRY_JOIN_TIMEOUT", "5", "members web", "REGISTRY_JOIN_TIMEOUT 5: a duration needs a unit, such as 5s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			if r := execute(t, t.Context(), "", strings.Fields(tt.args)...); r.code != exitUsage || !strings.Contains(r.stderr, "registry: "+tt.says) {
				t.Errorf("%s: %+v", tt.args, r)
			}
			ok(t, "help", "members")
		})
	}
}

// TestUsageLine: who gives an argument where a flag is wanted, or the reverse, is
// shown the usage.
func TestUsageLine(t *testing.T) {
	for args, usage := range map[string]string{
		"register web web-1 127.0.0.1:8080":   "registry register [flags] -group GROUP -id ID -addr ADDR [-- CMD ARGS…]",
		"register -group web -id web-1":       "registry register [flags] -group GROUP -id ID -addr ADDR [-- CMD ARGS…]",
		"deregister web web-1":                "registry deregister [flags] -group GROUP -id ID",
		"deregister -group web -id web-1 now": "registry deregister [flags] -group GROUP -id ID",
		"member set web web-1 -weight 2":      "registry member set [flags] -group GROUP -id ID",
		"member drain web web-1":              "registry member drain [flags] -group GROUP -id ID",
		"member resume -group web -id a b":    "registry member resume [flags] -group GROUP -id ID",
		"member hold web web-1":               "registry member hold [flags] -group GROUP -id ID -for TIME",
		"migrate-log data wal":                "registry migrate-log [flags] -data-dir DIR -to LOG",
		"serve service-1":                     "registry serve [flags] -id ID",
		"members -group web":                  "registry members [flags] GROUP",
		"group get -group web":                "registry group get [flags] GROUP",
		"group delete web now":                "registry group delete [flags] GROUP",
		"match -group web user-1":             "registry match [flags] GROUP KEY…",
		"match -key user-1 web":               "registry match [flags] GROUP KEY…",
		"watch -group web":                    "registry watch [flags] GROUP | -prefix [PREFIX]",
		"watch a b":                           "registry watch [flags] GROUP | -prefix [PREFIX]",
		"ring stats -group web":               "registry ring stats [flags] GROUP",
		"ring locate web":                     "registry ring locate [flags] GROUP KEY…",
		"ring diff web":                       "registry ring diff [flags] A B",
		"cluster join -bind 10.0.0.1:7370":    "registry cluster join [flags] BIND",
		"cluster remove -id n2":               "registry cluster remove [flags] NODE",
		"cluster transfer n1 n2":              "registry cluster transfer [flags] [NODE]",
		"cluster status n1":                   "registry cluster status [flags]",
		"bench match web":                     "registry bench match [flags]",
		"health 127.0.0.1:9800":               "registry health [flags]",
		"dev 9800":                            "registry dev [flags]",
		"groups web":                          "registry groups [flags]",
	} {
		r := execute(t, t.Context(), "", strings.Fields(args)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, "\n  usage: "+usage+"\n") {
			t.Errorf("%s: exit code %d, no usage of %q in\n%s", args, r.code, usage, r.stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	golden(t, "help.txt", ok(t, "help"))
	golden(t, "help-exit-codes.txt", ok(t, "help", "exit-codes"))
	golden(t, "help-match.txt", ok(t, "match", "-help"))
	golden(t, "help-watch.txt", ok(t, "help", "watch"))
	golden(t, "help-serve.txt", ok(t, "serve", "-h"))
	golden(t, "help-ring.txt", ok(t, "help", "ring"))
	if ok(t, "-h") != ok(t, "help") || ok(t, "exit-codes") != ok(t, "help", "exit-codes") {
		t.Error("two ways to one topic differ")
	}
}

// TestCompletion: the last word is the one at the cursor.
func TestCompletion(t *testing.T) {
	f := withWeb(t)
	f.nodes = []*registrypb.NodeStatus{{Id: "n1"}, {Id: "n2"}}
	tests := []struct {
		name, args, typed string
		want              string
	}{
		{"commands", "", "me", "members member"},
		{"subcommands", "ring", "st", "stats"},
		{"flags with one dash", "match", "-j", "-json"},
		{"flags of watch", "watch", "-f", "-fingerprints"},
		{"flags with two dashes", "serve", "--bi", "--bind --bind-advertise"},
		{"two dashes alone", "version", "--", "--json --help"},
		{"no flag twice", "version -json", "-", "-help"},
		{"a repeatable flag twice", "ring plan web -leave web-1", "-le", "-leave"},
		{"logs", "migrate-log -to", "", "wal boltdb"},
		{"a log", "serve -log-store", "w", "wal"},
		{"shells", "completion", "", "bash zsh fish"},
		{"nothing after --", "register --", "", ""},
		{"help", "help ring", "d", "digest diff"},
		{"a group after its flag", "register -group", "", "web"},
		{"a group after =", "register", "-group=w", "-group=web"},
		{"a group", "members", "", "web"},
		{"no second group", "members web", "", ""},
		{"a group after flags", "match -n 2 -json", "w", "web"},
		{"a group of diff", "ring diff web", "", "web"},
		{"members of the group", "deregister -group web -id", "web-", "web-1 web-2 web-3"},
		{"members of the group in a plan", "ring plan web -drain", "", "web-1 web-2 web-3"},
		{"nodes", "cluster remove", "n", "n1 n2"},
		{"a state", "member set -state", "d", "draining"},
		{"a way to ask for certificates", "serve -client-auth", "", "require verify-if-given"},
		{"a prefix", "groups -prefix", "w", "web"},
		{"flags that it needs", "deregister", "", "-group -id"},
		{"flags that it still needs", "register -group web", "", "-id -addr"},
		{"all flags after a dash", "token list", "--json", "--json"},
		{"no names for a node", "serve -id", "", ""},
		{"no cluster", "members -registries " + free(t), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Fields(ok(t, append(strings.Fields(tt.args), tt.typed, completeFlag)...))
			want := strings.Fields(tt.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if !strings.Contains(ok(t, "completion", shell), completeFlag) {
			t.Errorf("script for %s", shell)
		}
	}
}

// TestFlagsInHelp: one dash, as everywhere else, and no default that is none.
func TestFlagsInHelp(t *testing.T) {
	for _, args := range []string{"help serve", "help register", "help member set", "help match", "help watch", "help group set"} {
		out := ok(t, strings.Fields(args)...)
		for _, bad := range []string{" --", "(default: 0)", "(default: 0s)", "(default: false)"} {
			if strings.Contains(out, bad) {
				t.Errorf("%s has %q:\n%s", args, bad, out)
			}
		}
	}
}
