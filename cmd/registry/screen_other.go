//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import (
	"errors"
	"os"
)

// canReadKeys: here top prints one frame.
const canReadKeys = false

type screen struct {
	keys    chan byte
	resized chan os.Signal
}

func openScreen(_, _ *os.File) (*screen, error) {
	return nil, errors.New("top has no live view on this system")
}

func (s *screen) size() frameSize { return frameSize{} }
func (s *screen) draw(string)     {}
func (s *screen) close()          {}
