package main

import (
	"bytes"
	"log/slog"
	"regexp"
	"sync/atomic"
	"testing"
)

func TestTextLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newTextHandler(&out, slog.LevelInfo))
	log.Debug("not shown")
	log.With("node", "a").WithGroup("raft").Info("leader elected", "term", 2, "level", "high", "msg", "own")
	log.Warn("two\nlines", "error", "a b")
	want := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} INFO  leader elected node=a raft\.term=2 raft\.level=high raft\.msg=own
\d\d:\d\d:\d\d\.\d{3} WARN  two lines error="a b"
$`)
	if !want.Match(out.Bytes()) {
		t.Errorf("%s", out.Bytes())
	}
}

func TestQuietLog(t *testing.T) {
	for level, want := range map[slog.Level]bool{slog.LevelInfo: false, slog.LevelDebug: true} {
		var out bytes.Buffer
		var quiet atomic.Bool
		log := slog.New(&quietHandler{newTextHandler(&out, level), &quiet}).With("node", "a")
		quiet.Store(true)
		log.Error("the others are gone")
		if got := out.Len() > 0; got != want {
			t.Errorf("at level %v: %q", level, out.Bytes())
		}
	}
}
