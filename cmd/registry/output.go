package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/urfave/cli/v2"
)

// writeJSON prints one JSON value, indented.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeJSONLine prints one JSON value on one line, in one write.
func writeJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// jsonArray prints the elements of an array as they come, as writeJSON would.
type jsonArray struct {
	w      *bufio.Writer
	indent string // of the line that the array begins in
	count  int
}

func newJSONArray(w io.Writer, indent string) *jsonArray {
	return &jsonArray{w: bufio.NewWriter(w), indent: indent}
}

func (a *jsonArray) add(v any) error {
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false)
	enc.SetIndent(a.indent+"  ", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	sep := ","
	if a.count == 0 {
		sep = "["
	}
	a.count++
	a.w.WriteString(sep + "\n  " + a.indent)
	_, err := a.w.Write(bytes.TrimSpace(data.Bytes()))
	return err
}

// close ends the array, which is valid JSON also when the elements ended early,
// and leaves the end of the line to the caller.
func (a *jsonArray) close() error {
	end := "\n" + a.indent + "]"
	if a.count == 0 {
		end = "[]"
	}
	a.w.WriteString(end)
	return a.w.Flush()
}

// printDone says what a change became: a sentence on stderr, or JSON on stdout.
func printDone(e *env, c *cli.Context, v any, format string, args ...any) error {
	if c.Bool(flagJSON) {
		return writeJSON(e.stdout, v)
	}
	_, err := fmt.Fprintf(e.stderr, format+"\n", args...)
	return err
}

// hex64 is a digest or fingerprint: 16 lower-case hex digits.
type hex64 uint64

func (h hex64) String() string { return fmt.Sprintf("%016x", uint64(h)) }

// MarshalText makes it a JSON string.
func (h hex64) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *hex64) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != 16 {
		return fmt.Errorf("%q is not a fingerprint of 16 hex digits", text)
	}
	*h = hex64(v)
	return nil
}

// table prints rows in aligned columns.
type table struct {
	w   *tabwriter.Writer
	out *bufio.Writer // tabwriter writes cell by cell
}

// newTable starts a table with its header, or without one if no column is named.
func newTable(w io.Writer, columns ...string) *table {
	out := bufio.NewWriter(w)
	t := &table{w: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0), out: out}
	if len(columns) > 0 {
		fmt.Fprintln(t.w, strings.Join(columns, "\t"))
	}
	return t
}

func (t *table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		if text[i] = printable(fmt.Sprint(c)); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

func (t *table) blank() { fmt.Fprintln(t.w) }

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	return t.out.Flush()
}

// printable quotes text that would disturb a terminal or a table.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// oneLine is printable without the quotes: for text that is trusted.
func oneLine(s string) string {
	q := strconv.Quote(s)
	if q[1:len(q)-1] == s {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// pairs prints metadata in the order of its keys.
func pairs(m map[string]string) string {
	out := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		if v == "" || strings.ContainsAny(v, " \"=") {
			v = strconv.Quote(v)
		}
		out = append(out, k+"="+v)
	}
	return strings.Join(out, " ")
}

// count is a number of things in words: "1 member", "2 members".
func count(n int, one, many string) string { return fmt.Sprintf("%d %s", n, plural(n, one, many)) }

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// isTerminal reports whether v is a terminal: a character device other than
// the null device.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// useColor follows no-color.org: never when NO_COLOR is set, and only on a terminal.
func useColor(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

func red(s string) string    { return "\x1b[31m" + s + "\x1b[0m" }
func yellow(s string) string { return "\x1b[33m" + s + "\x1b[0m" }
func bold(s string) string   { return "\x1b[1m" + s + "\x1b[0m" }
func dim(s string) string    { return "\x1b[2m" + s + "\x1b[0m" }
