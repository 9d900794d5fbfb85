package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm"
)

const (
	flagLogLevel  = "log-level"
	flagLogFormat = "log-format"
)

func logFlags(level string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: flagLogLevel, Usage: "debug, info, warn or error", EnvVars: []string{"REGISTRY_LOG_LEVEL"}, Value: level},
		&cli.StringFlag{Name: flagLogFormat, Usage: "text or json", EnvVars: []string{"REGISTRY_LOG_FORMAT"}, Value: "text"},
	}
}

// newLogger returns the logger that the log flags ask for. Its level can be changed.
func newLogger(c *cli.Context, w io.Writer) (log *slog.Logger, level *slog.LevelVar, err error) {
	level = new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.String(flagLogLevel))); err != nil {
		return nil, nil, fieldUsage(c, flagLogLevel, "debug, info, warn or error")
	}
	switch c.String(flagLogFormat) {
	case "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), level, nil
	case "text":
		return slog.New(newTextHandler(w, level)), level, nil
	default:
		return nil, nil, fieldUsage(c, flagLogFormat, "text or json")
	}
}

func fieldUsage(c *cli.Context, flag, want string) error {
	return usageErrorf("%w", &fsm.FieldError{Field: "-" + flag, Limit: want, Got: strconv.Quote(c.String(flag))})
}

// textHandler writes records for people:
//
//	15:04:05.000 INFO  leader elected term=2 node=a
//
// The attributes are written by slog.TextHandler into buf.
type textHandler struct {
	out   *lockedWriter
	attrs slog.Handler
	buf   *bytes.Buffer // guarded by out.mu
	color bool
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// noMessage stands in for the message while the attributes are written, so
// that a caller's own attribute named "msg" is told apart from it.
const noMessage = "\x00"

func newTextHandler(w io.Writer, level slog.Leveler) *textHandler {
	buf := new(bytes.Buffer)
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: dropBuiltin}
	return &textHandler{out: &lockedWriter{w: w}, attrs: slog.NewTextHandler(buf, opts), buf: buf, color: useColor(w)}
}

// dropBuiltin removes the level and the message, which textHandler writes itself.
func dropBuiltin(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	_, isLevel := a.Value.Any().(slog.Level)
	if (a.Key == slog.LevelKey && isLevel) || (a.Key == slog.MessageKey && a.Value.String() == noMessage) {
		return slog.Attr{}
	}
	return a
}

func (h *textHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.attrs.Enabled(ctx, l) }

func (h *textHandler) Handle(ctx context.Context, r slog.Record) error {
	bare := slog.NewRecord(time.Time{}, r.Level, noMessage, 0) // no time: the handler writes none
	r.Attrs(func(a slog.Attr) bool { bare.AddAttrs(a); return true })
	return h.write(ctx, r, bare)
}

func (h *textHandler) write(ctx context.Context, r, bare slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.buf.Reset()
	if err := h.attrs.Handle(ctx, bare); err != nil {
		return err
	}
	line := fmt.Sprintf("%s %s %s", r.Time.Format("15:04:05.000"), h.level(r.Level), oneLine(r.Message))
	if attrs := strings.TrimSpace(h.buf.String()); attrs != "" {
		line += " " + attrs
	}
	_, err := io.WriteString(h.out.w, line+"\n")
	return err
}

func (h *textHandler) level(l slog.Level) string {
	text := fmt.Sprintf("%-5s", l)
	switch {
	case !h.color:
		return text
	case l >= slog.LevelError:
		return red(text)
	case l >= slog.LevelWarn:
		return yellow(text)
	}
	return dim(text)
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = h.attrs.WithAttrs(attrs)
	return &c
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.attrs = h.attrs.WithGroup(name)
	return &c
}

// quietHandler drops everything once quiet is set, unless the level is debug:
// whoever asked for that wants all of it.
type quietHandler struct {
	slog.Handler
	quiet *atomic.Bool
}

func (h *quietHandler) Enabled(ctx context.Context, l slog.Level) bool {
	if h.quiet.Load() && !h.Handler.Enabled(ctx, slog.LevelDebug) {
		return false
	}
	return h.Handler.Enabled(ctx, l)
}

func (h *quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quietHandler{h.Handler.WithAttrs(attrs), h.quiet}
}

func (h *quietHandler) WithGroup(name string) slog.Handler {
	return &quietHandler{h.Handler.WithGroup(name), h.quiet}
}
