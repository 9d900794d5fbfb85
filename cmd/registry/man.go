package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// manCommand prints the manual for packages.
func manCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:   "man",
		Usage:  "print the manual page registry(1)",
		Hidden: true,
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			page := &manual{}
			page.write(newApp(e))
			_, err := io.WriteString(e.stdout, page.String())
			return err
		},
	}
}

// leaves calls f for every command that does something.
func leaves(parent string, commands []*cli.Command, f func(name string, c *cli.Command)) {
	for _, c := range commands {
		switch name := parent + " " + c.Name; {
		case c.Hidden:
		case len(c.Subcommands) > 0:
			leaves(name, c.Subcommands, f)
		default:
			f(name, c)
		}
	}
}

// manual is a page of the manual, in roff.
type manual struct{ strings.Builder }

// roff escapes what is not a letter of text to roff.
var roff = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'")

// text writes lines as they are.
func (m *manual) text(text string) {
	m.WriteString(strings.TrimPrefix(roff.Replace("\n"+strings.TrimSpace(text)), "\n") + "\n")
}

// request writes a line for roff, whose arguments are quoted.
func (m *manual) request(name string, args ...string) {
	m.WriteString("." + name)
	for _, a := range args {
		m.WriteString(` "` + strings.ReplaceAll(roff.Replace(a), `"`, `""`) + `"`)
	}
	m.WriteString("\n")
}

// lines writes a text whose lines matter.
func (m *manual) lines(text string) {
	m.request("nf")
	m.text(text)
	m.request("fi")
}

func (m *manual) write(app *cli.App) {
	m.request("TH", strings.ToUpper(appName), "1", "", appName+" "+buildVersion())
	m.request("SH", "NAME")
	m.WriteString(appName + ` \- `)
	m.text(appUsage)
	m.request("SH", "SYNOPSIS")
	m.lines(appName + " COMMAND [flags] [arguments]\n" + appName + " [flags of serve]")
	m.request("SH", "DESCRIPTION")
	m.lines(appDescription)
	m.request("SH", "COMMANDS")
	m.text("Values in brackets are variables that stand in for flags.")
	leaves(appName, app.Commands, m.command)
	m.request("SH", "EXIT STATUS")
	m.lines(strings.TrimPrefix(exitCodesText, "EXIT CODES\n"))
	m.request("SH", "FILES")
	for _, f := range [][2]string{
		{"/etc/registry/registry.yaml", "the settings of the node that systemd runs: the flags of serve, without their dash"},
		{"/etc/default/registry", "variables for it, which come before the settings"},
		{"/var/lib/registry", "its state"},
	} {
		m.request("TP")
		m.request("I", f[0])
		m.text(f[1])
	}
}

func (m *manual) command(name string, c *cli.Command) {
	m.request("SS", strings.TrimSpace(name+" [flags] "+c.ArgsUsage))
	m.text(strings.ToUpper(c.Usage[:1]) + c.Usage[1:] + ".")
	if c.Description != "" {
		m.request("PP")
		m.lines(c.Description)
	}
	for _, f := range c.Flags {
		if f.Names()[0] == "help" {
			continue
		}
		names, usage, _ := strings.Cut(fmt.Sprint(f), "\t") // as the help has them
		m.request("TP")
		m.request("B", names)
		m.text(usage)
	}
}
