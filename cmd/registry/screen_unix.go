//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
)

// canReadKeys: a terminal can be told to pass each key on at once.
const canReadKeys = true

// screen is a terminal that shows frames and passes keys on.
type screen struct {
	in, out *os.File
	before  *unix.Termios // what the terminal was set to
	keys    chan byte     // closed when there are no more
	resized chan os.Signal
}

// Sequences that every terminal of today knows: the other screen, without a cursor and
// without breaking long lines; and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// openScreen takes the terminal until close. Ctrl-C remains a signal.
func openScreen(in, out *os.File) (*screen, error) {
	before, err := unix.IoctlGetTermios(int(in.Fd()), getTermios)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's settings: %w", err)
	}
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(in.Fd()), setTermios, &now); err != nil {
		return nil, fmt.Errorf("set the terminal: %w", err)
	}
	s := &screen{in: in, out: out, before: before, keys: make(chan byte), resized: make(chan os.Signal, 1)}
	signal.Notify(s.resized, unix.SIGWINCH)
	go s.read()
	_, err = io.WriteString(out, enterScreen)
	return s, err
}

// read passes keys on. A read cannot be broken off; it ends with the process.
func (s *screen) read() {
	defer close(s.keys)
	var key [1]byte
	for {
		if n, err := s.in.Read(key[:]); n == 0 || err != nil {
			return
		}
		s.keys <- key[0]
	}
}

func (s *screen) size() frameSize {
	w, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || w.Col == 0 || w.Row == 0 {
		return frameSize{80, 24}
	}
	return frameSize{int(w.Col), int(w.Row)}
}

// draw replaces what is on the screen, without clearing it first, which would flicker.
func (s *screen) draw(frame string) {
	text := strings.ReplaceAll(strings.TrimSuffix(frame, "\n"), "\n", "\x1b[K\r\n")
	_, _ = io.WriteString(s.out, "\x1b[H"+text+"\x1b[K\x1b[J") // the next read fails where the terminal has gone
}

// close gives the terminal back as it was.
func (s *screen) close() {
	signal.Stop(s.resized)
	_, _ = io.WriteString(s.out, leaveScreen)
	_ = unix.IoctlSetTermios(int(s.in.Fd()), setTermios, s.before)
}
