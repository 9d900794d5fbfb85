package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completeFlag, as the last argument, asks for what may follow the others. The
// shell scripts below pass the words before the cursor, and the word at the
// cursor if it starts with "-".
const completeFlag = "--generate-bash-completion"

// printCompletions prints, one a line, what may follow args.
func printCompletions(w io.Writer, app *cli.App, args []string) {
	if len(args) > 0 && args[0] == "help" {
		args = args[1:]
	}
	_, cmd, rest, err := descend(rootOf(app), args)
	if err != nil || slices.Contains(rest, "--") {
		return
	}
	if n := len(rest); n > 0 && strings.HasPrefix(rest[n-1], "-") {
		printFlagNames(w, cmd, rest[n-1])
		return
	}
	if cmd.Name == "completion" {
		fmt.Fprintln(w, "bash\nzsh\nfish")
	}
	for _, sub := range cmd.Subcommands {
		if !sub.Hidden {
			fmt.Fprintln(w, sub.Name)
		}
	}
}

// printFlagNames prints the flags with as many dashes as were typed.
func printFlagNames(w io.Writer, cmd *cli.Command, typed string) {
	dashes := "-"
	if strings.HasPrefix(typed, "--") {
		dashes = "--"
	}
	for _, f := range cmd.Flags {
		if name := dashes + f.Names()[0]; strings.HasPrefix(name, typed) {
			fmt.Fprintln(w, name)
		}
	}
}

var completionScripts = map[string]string{
	"bash": `_registry() {
  local cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ $cur == -* ]] && words+=("$cur")
  COMPREPLY=($(compgen -W "$("${words[@]}" ` + completeFlag + ` 2>/dev/null)" -- "$cur"))
}
complete -o default -F _registry registry
`,
	"zsh": `#compdef registry
_registry() {
  local -a line replies
  line=("${(@)words[1,CURRENT-1]}")
  [[ ${words[CURRENT]} == -* ]] && line+=("${words[CURRENT]}")
  replies=("${(@f)$("${(@)line}" ` + completeFlag + ` 2>/dev/null)}")
  if [[ -n ${replies[1]} ]]; then compadd -a replies; else _files; fi
}
compdef _registry registry
`,
	"fish": `function __registry_complete
  set -l line (commandline -opc)
  set -l cur (commandline -ct)
  string match -q -- '-*' $cur; and set -a line $cur
  $line ` + completeFlag + ` 2>/dev/null
end
complete -c registry -f -a '(__registry_complete)'
`,
}

func completionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Category:  categoryProgram,
		Usage:     "print a completion script for bash, zsh or fish",
		ArgsUsage: "bash|zsh|fish",
		Description: "   bash:  source <(registry completion bash)\n" +
			"   zsh:   source <(registry completion zsh)\n" +
			"   fish:  registry completion fish | source",
		Action: func(c *cli.Context) error {
			args, err := positional(c, "SHELL")
			if err != nil {
				return err
			}
			script, ok := completionScripts[args[0]]
			if !ok {
				return usageErrorf("no completion for %q, want bash, zsh or fish", args[0])
			}
			_, err = io.WriteString(e.stdout, script)
			return err
		},
	}
}
