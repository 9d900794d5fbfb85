package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Files are the documents below the root of the module, with paths relative to it.
func Files(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	for i, f := range files {
		if rel, rerr := filepath.Rel(root, f); rerr == nil {
			files[i] = filepath.ToSlash(rel)
		}
	}
	slices.Sort(files)
	return files, err
}

// Block is a fenced block of a document.
type Block struct {
	File string // relative to the root
	Line int    // of the opening fence, from 1
	Lang string // sh, console, go, text
	Note string // the comment in the line above: <!-- Note -->
	Text string
}

// String names the block in a test's message.
func (b Block) String() string { return fmt.Sprintf("%s:%d", b.File, b.Line) }

// NotRun is true of a block whose commands are only parsed, and returns why.
func (b Block) NotRun() (reason string, ok bool) { return strings.CutPrefix(b.Note, "not run: ") }

// KeepsRunning is true of a block whose commands run until the document's end.
func (b Block) KeepsRunning() bool { return b.Note == "keeps running" }

var note = regexp.MustCompile(`^<!-- (.*) -->$`)

// Blocks returns the fenced blocks of a document in order.
func Blocks(root, file string) (blocks []Block, err error) {
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return nil, err
	}
	var open *Block
	above := ""
	for i, line := range strings.Split(string(data), "\n") {
		lang, fence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && fence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.Text += line + "\n"
		case fence:
			open = &Block{File: file, Line: i + 1, Lang: lang}
			if m := note.FindStringSubmatch(above); m != nil {
				open.Note = m[1]
			}
		}
		above = line
	}
	if open != nil {
		return nil, fmt.Errorf("%v: the block has no end", open)
	}
	return blocks, nil
}

// Command is a command line and, in a console block, what it prints.
type Command struct {
	Block
	Shell  string // one line, without the prompt
	Output string
}

// Commands are those of a console block, one for each line that begins with a
// prompt, or the whole of a sh block. Other blocks have none.
func (b Block) Commands() (commands []Command) {
	switch b.Lang {
	case "sh":
		return []Command{{Block: b, Shell: b.Text}}
	case "console":
		for line := range strings.Lines(b.Text) {
			if shell, ok := strings.CutPrefix(line, "$ "); ok {
				commands = append(commands, Command{Block: b, Shell: strings.TrimSuffix(shell, "\n")})
			} else if n := len(commands); n > 0 {
				commands[n-1].Output += line
			}
		}
	}
	return commands
}
