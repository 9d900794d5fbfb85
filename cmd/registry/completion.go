package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

var completionScripts = map[string]string{
	// readline completes only what follows the last "=" or ":". The names come
	// from a cluster, so they are quoted, and compgen, which would expand them,
	// does not get to see them.
	"bash": `_registry() {
  local line=${COMP_LINE:0:COMP_POINT} cur= words reply
  read -ra words <<<"$line"
  if [[ $line != *[[:space:]] ]]; then
    cur=${words[${#words[@]}-1]}
    unset "words[${#words[@]}-1]"
  fi
  words[0]=${words[0]/#\~/$HOME}
  local kept=${cur%"${cur##*[=:]}"}
  COMPREPLY=()
  while IFS= read -r reply; do
    printf -v reply %q "${reply#"$kept"}"
    COMPREPLY+=("$reply")
  done < <("${words[@]}" "$cur" ` + completeFlag + ` 2>/dev/null)
}
complete -o default -F _registry registry
`,
	"zsh": `#compdef registry
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_registry() {
  local -a line replies
  line=("${(@Q)words[1,CURRENT-1]}")
  line[1]=${line[1]/#\~/$HOME}
  replies=("${(@f)$("${(@)line}" "${(Q)PREFIX}" ` + completeFlag + ` 2>/dev/null)}")
  if [[ -n ${replies[1]} ]]; then compadd -a replies; else _files; fi
}
if [[ ${funcstack[1]} == _registry ]]; then _registry; else compdef _registry registry; fi
`,
	"fish": `function __registry_complete
  set -l line (commandline -opc)
  $line (commandline -ct | string collect --allow-empty) ` + completeFlag + ` 2>/dev/null
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
