package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

const (
	appName  = "registry"
	appUsage = "a replicated service registry that routes by consistent hashing"
)

// appHelp is the help of the whole program: the commands, not the node's flags.
const appHelp = `` + appName + ` - ` + appUsage + `

USAGE:
   registry COMMAND [flags] [arguments]
   registry [flags of serve]

` + appDescription + `

COMMANDS:{{range .VisibleCategories}}
   {{.Name}}:{{range .VisibleCommands}}
     {{.Name}}{{"\t"}}{{.Usage}}{{end}}{{end}}

"registry help COMMAND" shows the flags of a command.
`

const appDescription = `Without a command it runs a node, as "registry serve" does.
Clients find the cluster by -registries or REGISTRY_ADDRS (default 127.0.0.1:9800).
What the exit codes mean: "registry help exit-codes".

START HERE:
   registry dev                                                  three nodes on this machine
   registry register -group web -id web-1 -addr 127.0.0.1:8080   in another terminal
   registry match web user-1 user-2                              who owns these keys`

// nounHelp is the help of a command that only has commands.
const nounHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} COMMAND [flags] [arguments]
{{if .Description}}
{{.Description}}
{{end}}
COMMANDS:{{range .Subcommands}}
   {{.Name}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}{{"\t"}}{{.Usage}}{{end}}

"{{.HelpName}} COMMAND -help" shows the flags of a command.
`

func helpFlag() cli.Flag {
	return &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show this", DisableDefaultText: true}
}

func init() { cli.FlagStringer = flagText(cli.FlagStringer) }

// impossible are the defaults of flags that have none: no value is given, or no
// such value may be.
var impossible = strings.NewReplacer(" (default: 0)", "", " (default: 0s)", "", " (default: false)", "")

// flagText spells flags in the help as errors and documents do, with one dash.
func flagText(builtin cli.FlagStringFunc) cli.FlagStringFunc {
	return func(f cli.Flag) string {
		names, usage, _ := strings.Cut(builtin(f), "\t")
		return strings.ReplaceAll(names, "--", "-") + "\t" + impossible.Replace(usage)
	}
}

// printHelp shows the help of a command, or of the program when that is the
// program's root.
func printHelp(w io.Writer, app *cli.App, cmd *cli.Command) {
	switch {
	case cmd.CustomHelpTemplate != "":
		fmt.Fprint(w, cmd.CustomHelpTemplate)
	case cmd.Name == app.Name:
		cli.HelpPrinterCustom(w, appHelp, app, nil)
	case len(cmd.Subcommands) > 0:
		cli.HelpPrinterCustom(w, nounHelp, cmd, nil)
	default:
		cli.HelpPrinterCustom(w, cli.CommandHelpTemplate, cmd, nil)
	}
}

// helpCommand only makes "help" visible: normalize turns "help X" into "X -help".
func helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Category:  categoryProgram,
		Usage:     "show the help of a command, or of a topic (exit-codes)",
		ArgsUsage: "[COMMAND…]",
		Action:    func(*cli.Context) error { return nil },
	}
}

func exitCodesCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:               "exit-codes",
		Usage:              "show what the exit codes mean",
		Hidden:             true,
		CustomHelpTemplate: exitCodesText,
		Action: func(*cli.Context) error {
			_, err := io.WriteString(e.stdout, exitCodesText)
			return err
		},
	}
}
