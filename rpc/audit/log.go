package audit

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Record is one line.
type Record struct {
	// Method is a call's, Tokens/Create for instance, an HTTP route, or handshake.
	Method string
	// Port is client or bind.
	Port string
	// Token and TokenID are the name and the id of the caller's valid token.
	Token, TokenID string
	// Presented is the id of a token that is not valid. Nothing proves it.
	Presented string
	// Subject and URI are of the certificate that the other end of the connection
	// showed: the client, or the node that forwarded the call.
	Subject, URI string
	// From is the client's address. Of a forwarded call it is the node's, unless a node
	// that has shown a certificate named the client's; then Via is the node's.
	From, Via string
	Forwarded bool

	Group, Member, TargetNode, TargetToken string
	// Grants are those of a token that is created.
	Grants    string
	RequestID []byte

	// Outcome is ok, the reason of an error, or its gRPC code.
	Outcome string
	Error   string
}

// OK is the outcome of an act without an error.
const OK = "ok"

// Messages of the lines.
const (
	msgAct     = "audit: act"
	msgRefused = "audit: refused"
	msgDropped = "audit: lines left out"
)

// Log is an audit log. A nil Log writes nothing. It is safe for concurrent use.
type Log struct {
	log   *slog.Logger
	limit limiter
}

// New returns a Log that writes to a logger. dropped is called for each line that is
// left out; nil: nobody is told.
func New(log *slog.Logger, dropped func()) *Log {
	l := &Log{log: log}
	l.limit = limiter{report: l.dropped, count: dropped}
	return l
}

// Act writes an administrative act that has an effect, or may have one.
func (l *Log) Act(r *Record) {
	if l != nil {
		l.write(msgAct, r)
	}
}

// Failed writes an administrative act without an effect, unless its source has had its
// share of lines.
func (l *Log) Failed(r *Record) { l.limited(msgAct, r) }

// Refused writes a refusal, unless its source has had its share of lines.
func (l *Log) Refused(r *Record) { l.limited(msgRefused, r) }

func (l *Log) limited(msg string, r *Record) {
	if l != nil && l.limit.pass(source(r.From)) {
		l.write(msg, r)
	}
}

// Close writes what is still to say of lines that were left out.
func (l *Log) Close() {
	if l != nil {
		l.limit.close()
	}
}

func (l *Log) write(msg string, r *Record) {
	attrs := make([]slog.Attr, 0, 20)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, clean(value)))
		}
	}
	add("method", r.Method)
	add("outcome", r.Outcome)
	add("error", r.Error)
	add("port", r.Port)
	add("from", r.From)
	if r.Forwarded {
		attrs = append(attrs, slog.Bool("forwarded", true))
	}
	add("via", r.Via)
	add("token", r.Token)
	add("token_id", r.TokenID)
	add("presented_token_id", r.Presented)
	add("certificate", r.Subject)
	add("certificate_uri", r.URI)
	add("group", r.Group)
	add("member", r.Member)
	add("target_node", r.TargetNode)
	add("target_token", r.TargetToken)
	add("grants", r.Grants)
	add("request_id", hex.EncodeToString(r.RequestID))
	l.log.LogAttrs(context.Background(), slog.LevelInfo, msg, attrs...)
}

func (l *Log) dropped(from string, n int) {
	l.log.LogAttrs(context.Background(), slog.LevelInfo, msgDropped, slog.String("from", from), slog.Int("count", n), slog.Duration("within", window))
}

// maxText bounds a value, in bytes: what is refused was not validated.
const maxText = 512

// tokenText is a token's text, or what is left of one.
var tokenText = regexp.MustCompile(`rgt_[A-Za-z0-9_-]+`)

// clean bounds a value and takes tokens out of it: one may be given where a name is
// wanted.
func clean(text string) string {
	cut := len(text) > maxText
	if cut {
		text = text[:maxText]
	}
	if strings.Contains(text, "rgt_") {
		text = tokenText.ReplaceAllString(text, "rgt_…")
	}
	if cut {
		text += "…"
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "�")
	}
	return text
}

// NewHandler returns a handler of an audit log's own: a JSON object on each line, with
// the time in UTC.
func NewHandler(w io.Writer) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.LevelKey:
			return slog.Attr{} // it is always the same
		case a.Key == slog.TimeKey:
			a.Value = slog.StringValue(a.Value.Time().UTC().Format(time.RFC3339Nano))
		case a.Value.Kind() == slog.KindDuration:
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}})
}
