package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

const (
	flagAllow   = "allow"
	flagName    = "name"
	flagExpires = "expires"
	flagOverlap = "overlap"
)

func tokenCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "token",
		Usage:    "give permissions to clients, and take them back",
		Category: categorySecurity,
		Subcommands: []*cli.Command{
			tokenInitCommand(e), tokenCreateCommand(e), tokenListCommand(e), tokenRotateCommand(e), tokenRevokeCommand(e), tokenSelfCommand(e), tokenRecoverCommand(e),
		},
	}
}

func tokenOutFlag() cli.Flag {
	return &cli.StringFlag{Name: flagOut, Usage: "write the token to this new file, with mode 0600, and not to stdout"}
}

func tokenInitCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "create the first token, with all rights, and print it",
		Description: "From then on, for ever, every call needs a token. It succeeds once in a cluster's life,\n" +
			"and the token is printed this once: nobody can read it afterwards.",
		Flags: clientFlags(&cli.StringFlag{Name: flagName, Usage: "the token's name", Value: "admin"}, tokenOutFlag()),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			return issueToken(e, c, func(ctx context.Context, client *sdk.Client) (string, error) {
				warnOfAlarms(ctx, e, client)
				return client.InitTokens(ctx, c.String(flagName))
			})
		},
	}
}

// warnOfAlarms says what is wrong with the nodes before their tokens are relied on: that
// a port is without TLS, for instance, where tokens can be read, or the bind port passed.
func warnOfAlarms(ctx context.Context, e *env, client *sdk.Client) {
	status, err := client.Status(ctx, "")
	if err != nil {
		return // the call that follows says so
	}
	for _, n := range status.Nodes {
		for _, alarm := range n.Alarms {
			fmt.Fprintf(e.stderr, "warning: %s: %s\n", n.ID, oneLine(alarm))
		}
	}
}

func tokenCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "create",
		Usage: "create a token and print it",
		Description: "RIGHTS are discover (read and watch groups), register (register members, and change\n" +
			"and deregister one's own), operate (change groups and all members), and admin\n" +
			"(nodes and tokens), separated by commas. With a PREFIX they are for the groups whose\n" +
			"names start with it, and otherwise for all. No right includes another. The token is\n" +
			"printed this once: nobody can read it afterwards.",
		Flags: clientFlags(
			&cli.StringFlag{Name: flagName, Usage: "the token's name, which no other has"},
			&cli.StringSliceFlag{Name: flagAllow, Usage: "`RIGHTS[:PREFIX]` of the token, such as discover,register:web-; repeatable"},
			&cli.DurationFlag{Name: flagExpires, Usage: "the token ends after that", DefaultText: "when it is revoked"},
			tokenOutFlag(),
		),
		Action: func(c *cli.Context) error { return tokenCreate(e, c) },
	}
}

func tokenCreate(e *env, c *cli.Context) error {
	if _, err := positional(c); err != nil {
		return err
	}
	if err := require(c, flagName); err != nil {
		return err
	}
	token := sdk.NewToken{Name: c.String(flagName)}
	for _, allow := range c.StringSlice(flagAllow) {
		names, prefix, _ := strings.Cut(allow, ":")
		rights, err := sdk.ParseRights(names)
		if err != nil {
			return usageErrorf("-%s %q: %w", flagAllow, allow, err)
		}
		token.Grants = append(token.Grants, sdk.Grant{Rights: rights, Prefix: prefix})
	}
	if len(token.Grants) == 0 {
		return usageErrorf("-%s is required: a token without rights is of no use", flagAllow)
	}
	if c.IsSet(flagExpires) {
		d := c.Duration(flagExpires)
		if d <= 0 {
			return usageErrorf("-%s is %v, want more than 0", flagExpires, d)
		}
		token.ExpiresAt = time.Now().Add(d)
	}
	return issueToken(e, c, func(ctx context.Context, client *sdk.Client) (string, error) {
		return client.CreateToken(ctx, token)
	})
}

func tokenRotateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rotate",
		Usage:     "give a token another secret and print it",
		ArgsUsage: "NAME",
		Description: "Its rights and registrations stay. During the overlap the old secret is valid too;\n" +
			"without one, the clients that still have it are refused at once.",
		Flags: clientFlags(
			&cli.DurationFlag{Name: flagOverlap, Usage: "how long the old secret stays valid, at most 24h", Value: 10 * time.Minute},
			tokenOutFlag(),
		),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "NAME")
			if err != nil {
				return err
			}
			return issueToken(e, c, func(ctx context.Context, client *sdk.Client) (string, error) {
				return client.RotateToken(ctx, args[0], c.Duration(flagOverlap))
			})
		},
	}
}

// issueToken prints the token that a call returns, alone on stdout, or writes it to the
// file of -out. The file is made before the call: a token without a place is lost.
func issueToken(e *env, c *cli.Context, call func(context.Context, *sdk.Client) (string, error)) error {
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	file, err := newTokenFile(c.String(flagOut))
	if err != nil {
		return err
	}
	var text string
	err = l.ask(c, func(ctx context.Context) (err error) {
		text, err = call(ctx, l.Client)
		return err
	})
	if text == "" {
		return errors.Join(err, file.discard())
	}
	if err != nil {
		err = (&exitError{code: exitCode(err), err: err}).withHint("the token may be valid: registry token self tells")
	}
	return errors.Join(err, file.keep(e.stdout, text))
}

// tokenFile is the file of -out; nil: there is none.
type tokenFile struct{ *os.File }

func newTokenFile(path string) (*tokenFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, (&exitError{code: exitFailure, err: err}).withHint("nothing was done: choose another name")
	}
	if err != nil {
		return nil, err
	}
	return &tokenFile{f}, nil
}

func (f *tokenFile) discard() error {
	if f == nil {
		return nil
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// keep writes the token to the file, and to stdout if there is no file or it fails.
func (f *tokenFile) keep(stdout io.Writer, text string) error {
	line := text + "\n"
	if f == nil {
		_, err := io.WriteString(stdout, line)
		return err
	}
	_, err := f.WriteString(line)
	if err = errors.Join(err, f.Close()); err != nil {
		_, failed := io.WriteString(stdout, line)
		return errors.Join(err, failed)
	}
	_, err = fmt.Fprintf(stdout, "wrote %s\n", f.Name())
	return err
}

func tokenListCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the tokens: names, rights and ends, and nothing that could be used",
		Flags: readFlags(),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				tokens, err := client.Tokens(ctx, readOptions(c, new(sdk.Receipt))...)
				if err != nil {
					return err
				}
				if len(tokens) == 0 {
					fmt.Fprintln(e.stderr, "tokens are off: everybody may do everything; registry token init turns them on")
				}
				return printTokens(e, c, tokens)
			})
		},
	}
}

func tokenSelfCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "self",
		Usage: "show one's own token: what it allows, and when it ends",
		Flags: clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			if _, err := positional(c); err != nil {
				return err
			}
			return withClient(c, func(ctx context.Context, client *sdk.Client) error {
				token, err := client.Self(ctx)
				if err != nil {
					return err
				}
				if c.Bool(flagJSON) {
					return writeJSON(e.stdout, toTokenJSON(token))
				}
				return printTokens(e, c, []sdk.Token{token})
			})
		},
	}
}

func tokenRevokeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "end a token",
		ArgsUsage: "NAME",
		Description: "Its calls are refused and its streams end at once; its members go when their leases\n" +
			"end. The last token that has the right admin and does not expire cannot be revoked.\n" +
			"It says what the token allows, " + confirmRule,
		Flags: clientFlags(yesFlag(), jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "NAME")
			if err != nil {
				return err
			}
			return change(c, func(l *link) error { return confirmRevoke(e, c, l, args[0]) }, func(ctx context.Context, l *link) error {
				if err := l.RevokeToken(ctx, args[0]); err != nil {
					return err
				}
				return printDone(e, c, map[string]any{"name": args[0]}, "token %s revoked", args[0])
			})
		},
	}
}

// confirmRevoke says what the token's holders would lose.
func confirmRevoke(e *env, c *cli.Context, l *link, name string) error {
	if c.Bool("yes") {
		return nil
	}
	var tokens []sdk.Token
	err := l.ask(c, func(ctx context.Context) (err error) {
		tokens, err = l.Tokens(ctx, sdk.Linearizable())
		return err
	})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(tokens, func(t sdk.Token) bool { return t.Name == name })
	if i < 0 {
		return nil // the call says so
	}
	return confirm(e, c, fmt.Sprintf("clients with the token %s would lose for good what it allows: %s", printable(name), allows(tokens[i])))
}

type grantJSON struct {
	Rights []string `json:"rights"`
	Prefix string   `json:"prefix"`
}

type tokenJSON struct {
	Name          string      `json:"name"`
	ID            string      `json:"id"`
	Grants        []grantJSON `json:"grants"`
	ExpiresAt     *time.Time  `json:"expires_at"` // null: it does not
	CreatedAt     *time.Time  `json:"created_at"`
	PreviousUntil *time.Time  `json:"previous_until"` // the end of an overlap
}

func toTokenJSON(t sdk.Token) tokenJSON {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	out := tokenJSON{
		Name: t.Name, ID: t.ID, Grants: []grantJSON{},
		ExpiresAt: at(t.ExpiresAt), CreatedAt: at(t.CreatedAt), PreviousUntil: at(t.PreviousUntil),
	}
	for _, g := range t.Grants {
		out.Grants = append(out.Grants, grantJSON{strings.Split(g.Rights.String(), ","), g.Prefix})
	}
	return out
}

func printTokens(e *env, c *cli.Context, tokens []sdk.Token) error {
	if c.Bool(flagJSON) {
		out := make([]tokenJSON, len(tokens))
		for i, t := range tokens {
			out[i] = toTokenJSON(t)
		}
		return writeJSON(e.stdout, out)
	}
	table := newTable(e.stdout, "NAME", "ALLOW", "EXPIRES", "OLD SECRET UNTIL", "ID")
	for _, t := range tokens {
		table.row(t.Name, allows(t), timeText(t.ExpiresAt), timeText(t.PreviousUntil), t.ID)
	}
	return table.flush()
}

// allows is what a token allows, as -allow takes it.
func allows(t sdk.Token) string {
	all := make([]string, len(t.Grants))
	for i, g := range t.Grants {
		all[i] = g.String()
	}
	return strings.Join(all, " ")
}

// timeText is empty for no time.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
