package lease

import (
	"context"
	"log/slog"
)

// journal collects log records until a lock is released.
type journal []note

type note struct {
	level slog.Level
	msg   string
	args  []any
}

func (j *journal) Info(msg string, args ...any) { *j = append(*j, note{slog.LevelInfo, msg, args}) }
func (j *journal) Warn(msg string, args ...any) { *j = append(*j, note{slog.LevelWarn, msg, args}) }

func (j journal) write(log *slog.Logger) {
	for _, n := range j {
		log.Log(context.Background(), n.level, n.msg, n.args...)
	}
}
