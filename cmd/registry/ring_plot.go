package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/ring/plot"
)

func ringPlotCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "plot",
		Usage:     "draw a ring: on the terminal, or into a file",
		ArgsUsage: "GROUP",
		Description: "A file that \"ring show -json\" wrote may stand for the group. With -json the figures\n" +
			"of all members are printed, and who owns each part of the circle.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "o", Usage: "write to `FILE`.svg or FILE.png"},
			&cli.IntFlag{Name: "width", Usage: "columns of the terminal picture", Value: plot.DefaultWidth},
			&cli.IntFlag{Name: "bars", Usage: "most members to list; the others are summed up", Value: 20},
			jsonFlag(),
		),
		Action: func(c *cli.Context) error { return ringPlot(e, c) },
	}
}

func ringPlot(e *env, c *cli.Context) error {
	args, err := positional(c, "GROUP")
	if err != nil {
		return err
	}
	draw, err := plotFormat(c.String("o"))
	if err != nil {
		return err
	}
	options := plot.Options{Width: c.Int("width"), Bars: c.Int("bars"), Color: useColor(e.stdout)}
	if err := options.Validate(); err != nil {
		return err
	}
	r, err := loadRing(c, args[0])
	if err != nil {
		return err
	}
	if draw != nil {
		if err := plotFile(c.String("o"), r, draw); err != nil {
			return err
		}
	}
	switch {
	case c.Bool(flagJSON):
		return writeJSON(e.stdout, toPlotJSON(r, c.String("o"), options))
	case draw != nil:
		return nil
	}
	return plot.Terminal(e.stdout, r, options)
}

// plotJSON is what a picture shows.
type plotJSON struct {
	File string `json:"file"` // that was written; empty without -o
	figuresJSON
	Circle []string `json:"circle"` // who owns most of each of equal parts of the key space
}

func toPlotJSON(r *ring.Ring, file string, o plot.Options) plotJSON {
	out := plotJSON{File: file, figuresJSON: figuresOf(r), Circle: []string{}}
	for _, m := range plot.Sample(r, o.Parts()) {
		owner := ""
		if m >= 0 {
			owner = r.Member(m).ID
		}
		out.Circle = append(out.Circle, owner)
	}
	return out
}

// plotFormat returns what draws a file of that name; nil for no name.
func plotFormat(file string) (func(io.Writer, *ring.Ring) error, error) {
	switch strings.ToLower(filepath.Ext(file)) {
	case ".svg":
		return plot.SVG, nil
	case ".png":
		return plot.PNG, nil
	}
	if file == "" {
		return nil, nil
	}
	return nil, usageErrorf("-o is %q, want a name that ends in .svg or .png", file)
}

func plotFile(path string, r *ring.Ring, draw func(io.Writer, *ring.Ring) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("-o: %w", err)
	}
	return errors.Join(draw(f, r), f.Close())
}
