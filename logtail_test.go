package registry

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func TestLogTailIsBounded(t *testing.T) {
	tail := new(logTail)
	var level slog.LevelVar
	log := tail.with(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: &level})).With("node", "n1"))
	log.Debug("hidden")
	level.Set(slog.LevelDebug)
	log.With("by", "test").WithGroup("g").Debug("shown", "k", "v")
	if got := string(tail.text()); !strings.HasSuffix(got, "level=DEBUG msg=shown by=test g.k=v\n") || strings.Contains(got, "hidden") {
		t.Errorf("%q", got)
	}
	for i := range 3 * tailLines {
		log.Info("line", "i", i)
	}
	if got := tail.text(); bytes.Count(got, []byte("\n")) != tailLines || !bytes.HasSuffix(got, []byte("i=2999\n")) || len(got) != tail.size {
		t.Errorf("%d lines, %d bytes of %d", bytes.Count(got, []byte("\n")), len(got), tail.size)
	}
	for range 2 * tailBytes / tailLine {
		log.Info(strings.Repeat("x", 2*tailLine))
	}
	if got := tail.text(); len(got) > tailBytes || len(got) < tailBytes-tailLine || !bytes.HasSuffix(got, []byte("x\n")) {
		t.Errorf("%d bytes", len(got))
	}
}
