package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines collects what a Log writes.
type lines struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// take returns the lines and forgets them.
func (l *lines) take(t *testing.T) (records []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		r := make(map[string]any)
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		records = append(records, r)
	}
	l.all.Reset()
	return records
}

func newLog(t *testing.T) (l *Log, out *lines, dropped *int) {
	out, dropped = new(lines), new(int)
	l = New(slog.New(NewHandler(out)), func() { *dropped++ })
	t.Cleanup(l.Close)
	return l, out, dropped
}

func from(address string) *Record {
	return &Record{Method: "Registry/Match", From: address, Outcome: "UNAUTHENTICATED"}
}

// A source has its share of lines a minute, from whatever port, and one line says what
// was left out.
func TestSourceIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out, dropped := newLog(t)
		for i := range 1000 {
			l.Refused(from(fmt.Sprintf("10.0.0.1:%d", 1000+i)))
		}
		l.Failed(from("10.0.0.1:1"))
		l.Refused(from("10.0.0.2:1"))
		if n := len(out.take(t)); n != MaxLinesOfSource+1 || *dropped != 1001-MaxLinesOfSource {
			t.Errorf("%d lines, %d left out", n, *dropped)
		}
		time.Sleep(window)
		synctest.Wait()
		said := out.take(t)
		if len(said) != 1 || said[0]["msg"] != msgDropped || said[0]["from"] != "10.0.0.1" || said[0]["count"] != float64(*dropped) {
			t.Errorf("after a minute: %v", said)
		}
		l.Refused(from("10.0.0.1:1"))
		if n := len(out.take(t)); n != 1 {
			t.Errorf("%d lines in the next minute", n)
		}
	})
}

// Many sources do not write more than the limit of all, and one line for each that is
// told apart.
func TestAllSourcesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out, dropped := newLog(t)
		const sources, each = 5000, 3
		for range each {
			for i := range sources {
				l.Refused(from(fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)))
			}
		}
		n := len(out.take(t))
		if n > MaxLines || n < maxSources || *dropped != sources*each-n {
			t.Errorf("%d lines, %d left out", n, *dropped)
		}
		l.Close()
		said, told := out.take(t), 0
		for _, r := range said {
			told += int(r["count"].(float64))
		}
		if len(said) > maxSources+1 || told != *dropped {
			t.Errorf("%d lines tell of %d of %d", len(said), told, *dropped)
		}
	})
}

// What had an effect is always written.
func TestActsAreNotLimited(t *testing.T) {
	l, out, _ := newLog(t)
	for range 10 * MaxLines {
		l.Act(from("10.0.0.1:1"))
	}
	if n := len(out.take(t)); n != 10*MaxLines {
		t.Errorf("%d lines", n)
	}
}

func TestSource(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1:80":              "10.0.0.1",
		"[::ffff:10.0.0.1]:80":     "10.0.0.1",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"":                         "unknown",
		"@":                        "unknown",
	} {
		if got := source(address); got != want {
			t.Errorf("%q: %s, want %s", address, got, want)
		}
	}
}

// A token that is given where a name is wanted is not written, and a value that was not
// validated is bounded.
func TestValuesAreCleaned(t *testing.T) {
	l, out, _ := newLog(t)
	const token = "rgt_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJw"
	l.Refused(&Record{TargetToken: token, Group: strings.Repeat("x", maxText-20) + token, Error: "token \"" + token + "\" is unknown", Member: "\xff" + strings.Repeat("ü", 1<<20)})
	text := out.all.String()
	r := out.take(t)[0]
	if strings.Contains(text, token[4:12]) || r["target_token"] != "rgt_…" {
		t.Errorf("the token is there: %s", text)
	}
	if len(text) > 4*maxText {
		t.Errorf("%d bytes", len(text))
	}
}

// The fields have the names that the documentation has, and none is there without a
// value.
func TestFields(t *testing.T) {
	l, out, _ := newLog(t)
	l.Act(&Record{
		Method: "m", Port: "bind", Token: "t", TokenID: "i", Presented: "p", Subject: "s", URI: "u", From: "f", Via: "v", Forwarded: true,
		Group: "g", Member: "mm", TargetNode: "n", TargetToken: "tt", Grants: "gg", RequestID: []byte{0xab}, Outcome: OK, Error: "e",
	})
	l.Act(&Record{Method: "m"})
	got := out.take(t)
	want := map[string]any{
		"msg": msgAct, "method": "m", "port": "bind", "token": "t", "token_id": "i", "presented_token_id": "p", "certificate": "s",
		"certificate_uri": "u", "from": "f", "via": "v", "forwarded": true, "group": "g", "member": "mm", "target_node": "n",
		"target_token": "tt", "grants": "gg", "request_id": "ab", "outcome": "ok", "error": "e",
	}
	if at, err := time.Parse(time.RFC3339Nano, got[0]["time"].(string)); err != nil || at.Location() != time.UTC {
		t.Errorf("time %v, %v", got[0]["time"], err)
	}
	delete(got[0], "time")
	if fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got[0], want)
	}
	if len(got[1]) != 3 { // time and msg besides
		t.Errorf("%v", got[1])
	}
}

// A nil Log is one that nobody reads.
func TestNilLog(*testing.T) {
	var l *Log
	l.Act(from(""))
	l.Failed(from(""))
	l.Refused(from(""))
	l.Close()
}
