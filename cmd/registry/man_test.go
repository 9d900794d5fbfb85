package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// The manual has every command and flag.
func TestManual(t *testing.T) {
	page := ok(t, "man")
	commands := 0
	leaves(appName, newApp(&env{}).Commands, func(name string, c *cli.Command) {
		commands++
		_, section, found := strings.Cut(page, `.SS "`+strings.ReplaceAll(name, "-", `\-`)+" ")
		if !found {
			t.Errorf("no %s", name)
		}
		section, _, _ = strings.Cut(section, "\n.S")
		for _, f := range c.Flags {
			flag := f.Names()[0]
			if flag != "help" && !strings.Contains(section, `.B "\-`+strings.ReplaceAll(flag, "-", `\-`)) {
				t.Errorf("%s: no -%s", name, flag)
			}
		}
	})
	if commands < 30 {
		t.Errorf("%d commands", commands)
	}
	for line := range strings.Lines(page) {
		request, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !strings.Contains(" .TH .SH .SS .TP .PP .B .I .nf .fi ", " "+request+" ") {
			t.Errorf("roff takes this for a request: %s", line)
		}
	}
	t.Run("groff", func(t *testing.T) {
		if _, err := exec.LookPath("groff"); err != nil {
			t.Skip(err)
		}
		cmd := exec.CommandContext(t.Context(), "groff", "-man", "-ww", "-z", "-Kutf8")
		cmd.Stdin = strings.NewReader(page)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil || said.Len() > 0 {
			t.Errorf("%v\n%s", err, &said)
		}
	})
}
