package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/sdk"
)

// Limits of one request. The cluster takes 1,000 keys and 1 MiB.
const (
	batchKeys  = 1000
	batchBytes = 512 << 10
	maxKey     = 4 << 10
)

// matchJSON is the answer for one key.
type matchJSON struct {
	Group       string       `json:"group"`
	Key         string       `json:"key"`
	Member      memberJSON   `json:"member"`
	Fallback    *memberJSON  `json:"fallback"`          // null unless the owner is held
	Members     []memberJSON `json:"members,omitempty"` // with -n
	Index       uint64       `json:"index"`
	Revision    uint64       `json:"revision"`
	Fingerprint hex64        `json:"fingerprint"`
}

func matchCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "match",
		Usage:     "show which member owns a key",
		ArgsUsage: "GROUP KEY…",
		Category:  categoryService,
		Description: "With - as the key, keys are read from stdin, one a line, and answered as they\n" +
			"come. With -n N the first N distinct owners are shown: the second is where the\n" +
			"key goes when the first one leaves. For an owner that is held for a restart the\n" +
			"fallback is shown, which serves its keys.",
		Flags: readFlags(
			&cli.IntFlag{Name: "n", Usage: "how many distinct owners", Value: 1},
		),
		Action: func(c *cli.Context) error { return match(e, c) },
	}
}

func match(e *env, c *cli.Context) error {
	args, err := positional(c, "GROUP", "KEY…")
	if err != nil {
		return err
	}
	if c.Int("n") < 1 {
		return usageErrorf("-n is %d, want at least 1", c.Int("n"))
	}
	client, err := dialLink(c)
	if err != nil {
		return err
	}
	defer client.Close()
	m := newMatcher(e, c, client, args[0])
	if len(args) == 2 && args[1] == "-" {
		err = m.stream(e.stdin)
	} else {
		err = m.all(args[1:])
	}
	return errors.Join(err, m.out.close(err != nil))
}

// matcher answers keys in batches and prints the answers.
type matcher struct {
	c      *cli.Context
	client *link
	group  string
	n      int
	out    matchPrinter
}

func newMatcher(e *env, c *cli.Context, client *link, group string) *matcher {
	m := &matcher{c: c, client: client, group: group, n: c.Int("n")}
	if c.Bool(flagJSON) {
		m.out = &matchJSONPrinter{out: e.stdout, array: newJSONArray(e.stdout, ""), withAll: c.IsSet("n"), group: group}
	} else {
		m.out = &matchTablePrinter{w: e.stdout}
	}
	return m
}

// all answers keys that are already known.
func (m *matcher) all(keys []string) error {
	for len(keys) > 0 {
		n, size := 0, 0
		for n < min(len(keys), batchKeys) && (n == 0 || size+len(keys[n]) <= batchBytes) {
			size += len(keys[n])
			n++
		}
		if err := m.batch(keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// stream answers keys from r, one a line. What has arrived is answered before
// more is waited for.
func (m *matcher) stream(r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var keys []string
	for size, line := 0, 1; ; line++ {
		key, err := readKey(in, line)
		if err != nil && err != io.EOF {
			return errors.Join(m.all(keys), err)
		}
		if err == nil {
			keys, size = append(keys, key), size+len(key)
		}
		if err == io.EOF || len(keys) == batchKeys || size > batchBytes/2 || !lineBuffered(in) {
			if failed := m.all(keys); failed != nil || err == io.EOF {
				return failed
			}
			keys, size = keys[:0], 0
		}
	}
}

// readKey returns the next line without its end, and io.EOF after the last.
func readKey(in *bufio.Reader, line int) (string, error) {
	data, err := in.ReadSlice('\n')
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("read keys from stdin: %w", err)
	}
	if err == io.EOF && len(data) == 0 {
		return "", io.EOF
	}
	key := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if len(key) > maxKey {
		return "", usageErrorf("stdin, line %d: key of more than %d bytes", line, maxKey)
	}
	return key, nil
}

func lineBuffered(in *bufio.Reader) bool {
	data, _ := in.Peek(in.Buffered())
	return bytes.IndexByte(data, '\n') >= 0
}

// batch answers keys that fit one request.
func (m *matcher) batch(keys []string) error {
	var receipt sdk.Receipt
	var owners [][]sdk.Member
	err := m.client.ask(m.c, func(ctx context.Context) (err error) {
		owners, err = m.client.MatchManyN(ctx, m.group, keys, m.n, readOptions(m.c, &receipt)...)
		return err
	})
	if err != nil {
		return err
	}
	if len(owners) != len(keys) || len(owners[0]) == 0 {
		return fmt.Errorf("the answer has %s for %s", count(len(owners), "owner", "owners"), count(len(keys), "key", "keys"))
	}
	return m.out.print(keys, owners, receipt)
}

type matchPrinter interface {
	print(keys []string, owners [][]sdk.Member, receipt sdk.Receipt) error
	close(failed bool) error
}

type matchJSONPrinter struct {
	out     io.Writer
	array   *jsonArray
	group   string
	withAll bool
}

func (p *matchJSONPrinter) print(keys []string, owners [][]sdk.Member, receipt sdk.Receipt) error {
	for i, key := range keys {
		answer := matchJSON{
			Group: p.group, Key: key, Member: toMemberJSON(owners[i][0]),
			Index: receipt.Index, Revision: receipt.Revision, Fingerprint: hex64(receipt.Fingerprint),
		}
		if f := owners[i][0].Fallback; f != nil {
			fallback := toMemberJSON(*f)
			answer.Fallback = &fallback
		}
		if p.withAll {
			answer.Members = toMembersJSON(owners[i])
		}
		if err := p.array.add(answer); err != nil {
			return err
		}
	}
	return p.array.w.Flush()
}

// close ends the array. When nothing was answered because of an error there is
// none: an empty one would be an answer.
func (p *matchJSONPrinter) close(failed bool) error {
	if failed && p.array.count == 0 {
		return nil
	}
	if err := p.array.close(); err != nil {
		return err
	}
	_, err := io.WriteString(p.out, "\n")
	return err
}

type matchTablePrinter struct {
	w      io.Writer
	headed bool
}

func (p *matchTablePrinter) print(keys []string, owners [][]sdk.Member, _ sdk.Receipt) error {
	t := newTable(p.w)
	if !p.headed {
		t = newTable(p.w, "KEY", "OWNER", "ADDR", "STATE")
		p.headed = true
	}
	for i, key := range keys {
		for rank, m := range owners[i] {
			if rank > 0 {
				key = "  then"
			}
			state := m.State.String()
			if f := m.Fallback; f != nil {
				state += ", fallback " + f.ID + " at " + f.Addr
			}
			t.row(key, m.ID, m.Addr, state)
		}
	}
	return t.flush()
}

func (p *matchTablePrinter) close(bool) error { return nil }
