package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// maxConfigFile is the size of a configuration file in bytes, which is held in memory.
const maxConfigFile = 1 << 20

// fileValue is the value of a key in a configuration file, as it would be given to the
// flag of that name.
type fileValue struct {
	text   string
	origin string // FILE:LINE
	wrong  bool   // stands in for a string; what is wrong was told
}

// configFile is what a configuration file says, by key.
type configFile map[string]fileValue

// readConfigFile reads a file with values for flags. It goes on past what is wrong with
// one key, and returns the rest with all errors. No path: a file without keys.
func readConfigFile(path string, flags []cli.Flag) (configFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usageErrorf("-%s: %w", flagConfig, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, usageErrorf("-%s: %w", flagConfig, err)
	}
	if len(data) > maxConfigFile {
		return nil, usageErrorf("-%s: %s has more than %d bytes", flagConfig, path, maxConfigFile)
	}
	return parseConfigFile(path, data, flags)
}

// parseConfigFile reads one YAML mapping:
//
//	id: node-1
//	registries: [10.0.0.2:7370, 10.0.0.3:7370]
func parseConfigFile(path string, data []byte, flags []cli.Flag) (configFile, error) {
	p := &fileParser{path: path, flags: make(map[string]cli.Flag), lines: make(map[string]int)}
	for _, f := range flags {
		if name := f.Names()[0]; isKey(name) {
			p.flags[name], p.keys = f, append(p.keys, name)
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, next yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF): // nothing but comments
		return nil, nil
	case err != nil:
		return nil, syntaxError(path, err)
	}
	if err := decoder.Decode(&next); err == nil {
		p.errorf(&next, "a second document, want one")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(path, err)
	}
	p.mapping(document.Content[0])
	return p.values, errors.Join(p.errs...) // values is nil without a mapping
}

// syntaxError gives an error of package yaml, "yaml: line 3: …", the form of the others.
func syntaxError(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if at, ok := strings.CutPrefix(text, "line "); ok {
		return usageErrorf("%s:%s", path, at)
	}
	return usageErrorf("%s: %s", path, text)
}

// fileParser collects what a file says, and what is wrong with it.
type fileParser struct {
	path   string
	flags  map[string]cli.Flag
	keys   []string       // of flags, in the order of the help
	lines  map[string]int // of the keys that were seen
	values configFile
	errs   []error
}

func (p *fileParser) origin(n *yaml.Node) string { return fmt.Sprintf("%s:%d", p.path, n.Line) }

func (p *fileParser) errorf(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, usageErrorf("%s: %s", p.origin(n), fmt.Sprintf(format, args...)))
}

func (p *fileParser) mapping(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null": // an empty document
		return
	case n.Kind != yaml.MappingNode:
		p.errorf(n, "the file is %s, want keys with values, such as id: node-1", kindOf(n))
		return
	}
	p.values = make(configFile)
	for i := 0; i+1 < len(n.Content); i += 2 {
		p.entry(n.Content[i], n.Content[i+1])
	}
}

func (p *fileParser) entry(key, value *yaml.Node) {
	name := key.Value
	f := p.flags[name]
	switch first, again := p.lines[name]; {
	case key.Kind != yaml.ScalarNode:
		p.errorf(key, "the key is %s, want a name", kindOf(key))
		return
	case again:
		p.errorf(key, "duplicate key %q, which line %d has", name, first)
		return
	}
	p.lines[name] = key.Line
	if f == nil {
		p.errorf(key, "unknown key %q%s", name, p.suggestion(name))
		return
	}
	text, err := valueText(f, value, p.origin(value)+": "+name)
	if err != nil {
		p.errs = append(p.errs, err)
	}
	if text != "" || err == nil {
		p.values[name] = fileValue{text, p.origin(value), err != nil}
	}
}

func (p *fileParser) suggestion(name string) string {
	if file := name + "-file"; slices.Contains(p.keys, file) {
		return fmt.Sprintf(": the %s itself does not go here, set %q to the name of its file", name, file)
	}
	if meant := didYouMean(name, p.keys); meant != "" {
		return "; " + strings.TrimSpace(meant)
	}
	return ""
}

// valueText is a value as the flag takes it. A value is of the flag's type, so that a
// reader of the file needs no rules of conversion. No message shows a string, which may be a
// secret in the wrong place. With the error of a string without quotes comes the string,
// so that one mistake is not told as two.
func valueText(f cli.Flag, n *yaml.Node, label string) (string, error) {
	want, tags := "a string", []string{"!!str"}
	switch f.(type) {
	case *cli.StringSliceFlag:
		return listText(n, label)
	case *cli.BoolFlag:
		want, tags = "true or false", []string{"!!bool"}
	case *cli.IntFlag, *cli.Uint64Flag:
		want, tags = "a whole number", []string{"!!int"}
	case *cli.DurationFlag:
		want, tags = "a duration such as 10s or 1m30s", []string{"!!str", "!!int", "!!float"} // checkValue asks for a unit
	case sizeFlag:
		want, tags = "a size such as 128MiB", []string{"!!str", "!!int"}
	}
	scalar := n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null"
	switch {
	case scalar && slices.Contains(tags, n.ShortTag()):
		if err := checkValue(f, label, n.Value); err != nil {
			return "", err
		}
		return n.Value, nil
	case scalar && want == "a string":
		return n.Value, usageErrorf("%s is %s, want a string: put it into quotes", label, kindOf(n))
	}
	return "", usageErrorf("%s is %s, want %s", label, kindOf(n), want)
}

// listText is a list as a flag takes it, with commas.
func listText(n *yaml.Node, label string) (string, error) {
	if n.Kind != yaml.SequenceNode {
		return "", usageErrorf("%s is %s, want a list such as [a, b]", label, kindOf(n))
	}
	var items []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.ShortTag() != "!!str" {
			return "", usageErrorf("%s has %s, want a list of strings", label, kindOf(item))
		}
		items = append(items, item.Value)
	}
	return strings.Join(items, ","), nil
}

// kindOf says what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch tag := n.ShortTag(); tag {
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!timestamp":
		return "a date"
	case "!!null":
		return "empty"
	default:
		return "of the type " + tag
	}
}
