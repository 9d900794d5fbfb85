package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/docs"
)

// documentedLines are the lines that begin with the program's name, of all
// blocks, also of those that no test runs.
func documentedLines(t *testing.T) (lines []docs.Command) {
	t.Helper()
	files, err := docs.Files(repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		blocks, err := docs.Blocks(repository, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			for _, c := range b.Commands() {
				for line := range strings.Lines(c.Shell) {
					if strings.HasPrefix(line, "registry ") {
						lines = append(lines, docs.Command{Block: b, Shell: strings.TrimSpace(line)})
					}
				}
			}
		}
	}
	return lines
}

// shellWords splits a line as a shell does, as far as documents need it: quotes,
// and an end at a comment or a redirection.
func shellWords(line string) (words []string) {
	word, quote, begun := "", rune(0), false
	flush := func() {
		if begun {
			words = append(words, word)
		}
		word, begun = "", false
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word += string(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ':
			flush()
		case (c == '#' || c == '>' || c == '|') && !begun:
			return words
		case c == '>' && word == "2": // of stderr
			return words
		default:
			word, begun = word+string(c), true
		}
	}
	flush()
	return words
}

// parseOnly makes every command of the tree succeed without doing anything.
func parseOnly(commands []*cli.Command) {
	for _, c := range commands {
		if len(c.Subcommands) == 0 {
			c.Action = func(*cli.Context) error { return nil }
		}
		parseOnly(c.Subcommands)
	}
}

// Every command line in the documents has commands, flags and values that parse.
func TestDocumentedCommandsParse(t *testing.T) {
	lines := documentedLines(t)
	if len(lines) < 30 {
		t.Errorf("%d command lines", len(lines))
	}
	for _, line := range lines {
		if err := parses(t, shellWords(line.Shell)[1:]); err != nil {
			t.Errorf("%v: %s: %v", line.Block, line.Shell, err)
		}
	}
}

// parses gives arguments to the program's own parser.
func parses(t *testing.T, args []string) error {
	e := &env{stdin: strings.NewReader(""), stdout: new(lockedBuffer), stderr: new(lockedBuffer)}
	app := newApp(e)
	parseOnly(app.Commands)
	app.Action = func(*cli.Context) error { return nil }
	args, help, err := normalize(app, args)
	if err == nil && help == nil {
		err = app.RunContext(t.Context(), append([]string{app.Name}, args...))
	}
	return err
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string]string{
		`registry -bind=":7370" x`:    `["registry" "-bind=:7370" "x"]`,
		`registry groups -json >file`: `["registry" "groups" "-json"]`,
		`registry groups 2>&1 | cat`:  `["registry" "groups"]`,
		`registry dev # three nodes`:  `["registry" "dev"]`,
		`registry match web 'a b'`:    `["registry" "match" "web" "a b"]`,
	} {
		if got := fmt.Sprintf("%q", shellWords(line)); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}
