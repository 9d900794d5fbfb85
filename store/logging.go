package store

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger passes raft's log to slog, with the levels of raftRules. Of raft's
// warnings and errors that repeat, for example while a peer is down, it passes one
// per repeatEvery.
type raftLogger struct {
	out    *slog.Logger
	name   string
	args   []any
	repeat *repeats
}

func newRaftLogger(out *slog.Logger) hclog.Logger {
	return &raftLogger{out: out.With("component", "raft"), repeat: newRepeats()}
}

const (
	repeatEvery = time.Minute
	maxRepeats  = 256 // distinct messages; above that all are forgotten
)

// repeats limits the rate of repeated messages.
type repeats struct {
	restarts atomic.Int32 // of the current election

	mu   sync.Mutex // guards last
	last map[string]*repeated
}

func newRepeats() *repeats { return &repeats{last: make(map[string]*repeated)} }

type repeated struct {
	at      time.Time
	dropped int
}

// pass reports whether to pass a message, and how many with the same key were dropped
// since the last one.
func (r *repeats) pass(key string, now time.Time) (dropped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seen := r.last[key]; seen != nil {
		if now.Sub(seen.at) < repeatEvery {
			seen.dropped++
			return 0, false
		}
		dropped = seen.dropped
	} else if len(r.last) >= maxRepeats {
		clear(r.last)
	}
	r.last[key] = &repeated{at: now}
	return dropped, true
}

// repeatKey is the text of a message with the peer that it is about.
func repeatKey(msg string, args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		if name, _ := args[i].(string); name == "peer" || name == "target" {
			return msg + fmt.Sprint(args[i+1])
		}
	}
	return msg
}

var slogLevels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelError,
}

// snakeCase rewrites raft's keys, such as last-leader-addr, to the form of all other keys.
var snakeCase = strings.NewReplacer("-", "_", " ", "_", "votesNeeded", "votes_needed", "baseIndex", "base_index")

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	at, known := slogLevels[l.repeat.levelOf(level, msg, args)]
	if !known {
		return // hclog.Off, hclog.NoLevel
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		} else if name, ok := a.(string); ok && i%2 == 0 {
			args[i] = snakeCase.Replace(name)
		}
	}
	if level >= hclog.Warn { // the level that raft gave: such messages repeat whatever level they are passed at
		dropped, ok := l.repeat.pass(at.String()+repeatKey(msg, args), time.Now())
		if !ok {
			return
		}
		if dropped > 0 {
			args = append(args, "repeated", dropped)
		}
	}
	l.out.Log(context.Background(), at, msg, args...)
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level slog.Level) bool {
	return l.out.Enabled(context.Background(), level)
}

func (l *raftLogger) IsTrace() bool { return l.enabled(slogLevels[hclog.Trace]) }
func (l *raftLogger) IsDebug() bool { return l.enabled(slog.LevelDebug) }
func (l *raftLogger) IsInfo() bool  { return l.enabled(slog.LevelInfo) }
func (l *raftLogger) IsWarn() bool  { return l.enabled(slog.LevelWarn) }
func (l *raftLogger) IsError() bool { return l.enabled(slog.LevelError) }

func (l *raftLogger) ImpliedArgs() []any { return l.args }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{out: l.out.With(args...), name: l.name, repeat: l.repeat, args: append(l.args[:len(l.args):len(l.args)], args...)}
}

func (l *raftLogger) Name() string { return l.name }

func (l *raftLogger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + name) }

func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{out: l.out, name: name, args: l.args, repeat: l.repeat}
}

// SetLevel does nothing: the slog handler has the level.
func (l *raftLogger) SetLevel(hclog.Level) {}

func (l *raftLogger) GetLevel() hclog.Level { return hclog.NoLevel }

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.out.Handler(), slog.LevelInfo)
}

func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
