package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/docs"
)

// repository is the root of the module.
const repository = "../.."

// TestDocumentedFlags: the reference is what the command definitions say.
func TestDocumentedFlags(t *testing.T) {
	app := newApp(&env{stdin: strings.NewReader(""), stdout: new(lockedBuffer), stderr: new(lockedBuffer)})
	var out strings.Builder
	overview := "| command | |\n|---|---|\n"
	leaves(appName, app.Commands, func(name string, c *cli.Command) {
		overview += fmt.Sprintf("| [`%s`](#%s) | %s |\n", name, strings.ReplaceAll(name, " ", "-"), cell(c.Usage))
		describe(&out, name, c)
	})
	for name, text := range map[string]string{
		"overview":   overview,
		"flags":      out.String(),
		"exit-codes": "```text\n" + strings.TrimPrefix(exitCodesText, "EXIT CODES\n") + "```",
	} {
		if err := docs.Generated(repository, "docs/reference/flags.md", name, text, *update); err != nil {
			t.Error(err)
		}
	}
}

// describe writes the section of a command.
func describe(out *strings.Builder, name string, c *cli.Command) {
	fmt.Fprintf(out, "## %s\n\n", name)
	if c.ArgsUsage != "" {
		fmt.Fprintf(out, "`%s [flags] %s`\n\n", name, c.ArgsUsage)
	}
	usage := strings.ToUpper(c.Usage[:1]) + c.Usage[1:]
	fmt.Fprintf(out, "%s.\n\n", usage)
	switch {
	case strings.Contains(c.Description, "\n "): // its lines matter
		fmt.Fprintf(out, "```text\n%s\n```\n\n", c.Description)
	case c.Description != "":
		fmt.Fprintf(out, "%s\n\n", c.Description)
	}
	flagTable(out, c)
}

func flagTable(out *strings.Builder, c *cli.Command) {
	head := "| flag | default | environment | |\n|---|---|---|---|\n"
	for _, f := range c.Flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" {
			continue
		}
		def := strings.Trim(d.GetDefaultText(), `"`)
		if _, isBool := f.(*cli.BoolFlag); isBool || impossible.Replace(" (default: "+def+")") == "" {
			def = ""
		}
		env := strings.Join(d.GetEnvVars(), ", ")
		fmt.Fprintf(out, "%s| `-%s` | %s | %s | %s |\n", head, f.Names()[0], code(def), code(env), cell(d.GetUsage()))
		head = ""
	}
	out.WriteString("\n")
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// cell makes a text fit into a table, also one with a placeholder in quotes.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s) }
