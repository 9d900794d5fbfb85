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
		Name:        "plot",
		Usage:       "draw a ring: on the terminal, or into a file",
		ArgsUsage:   "GROUP",
		Description: "A file that \"ring show -json\" wrote may stand for the group.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "o", Usage: "write to `FILE`.svg or FILE.png"},
			&cli.IntFlag{Name: "width", Usage: "columns of the terminal picture", Value: plot.DefaultWidth},
			&cli.IntFlag{Name: "bars", Usage: "most members to list; the others are summed up", Value: 20},
		),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "GROUP")
			if err != nil {
				return err
			}
			draw, err := plotFormat(c.String("o"))
			if err != nil {
				return err
			}
			r, err := loadRing(c, args[0])
			if err != nil {
				return err
			}
			if draw != nil {
				return plotFile(c.String("o"), r, draw)
			}
			return plot.Terminal(e.stdout, r, plot.Options{Width: c.Int("width"), Bars: c.Int("bars"), Color: useColor(e.stdout)})
		},
	}
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
