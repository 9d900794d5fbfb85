package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/werbenhu/registry/sdk"
)

// topView is what top shows.
type topView struct {
	prefix    string
	status    sdk.Status
	statusErr error // of the last question; the status is then older
	groups    map[string]*topGroup
	failing   error // why the watch gets nothing
}

// topGroup is a group as the watch has it.
type topGroup struct {
	name     string
	members  map[string]sdk.State
	revision uint64
	changed  time.Time // of the last change that was seen; zero: none was
}

// count is the number of members in a state.
func (g *topGroup) count(state sdk.State) (n int) {
	for _, s := range g.members {
		if s == state {
			n++
		}
	}
	return n
}

// attention ranks groups: those that need a look come first.
func (g *topGroup) attention() int {
	switch {
	case g.count(sdk.StateActive) == 0:
		return 0
	case g.count(sdk.StateActive) < len(g.members):
		return 1
	}
	return 2
}

// apply changes what is shown by an event.
func (v *topView) apply(ev sdk.GroupEvent, now time.Time) {
	switch {
	case ev.Err != nil || ev.Recovered:
		v.failing = ev.Err
		return
	case ev.Unknown:
		delete(v.groups, ev.Group)
		return
	}
	g := v.groups[ev.Group]
	if g == nil {
		g = &topGroup{name: ev.Group, members: map[string]sdk.State{}}
		v.groups[ev.Group] = g
	}
	if ev.Reset {
		clear(g.members)
	}
	for _, id := range ev.Removed {
		delete(g.members, id)
	}
	for _, m := range ev.Put {
		g.members[m.ID] = m.State
	}
	if g.revision = ev.Revision; ev.From != 0 {
		g.changed = now
	}
}

func (v *topView) takeStatus(s topStatus) {
	if v.statusErr = s.err; s.err == nil {
		v.status = s.status
	}
}

// frameSize is the room of a screen; zero: there is no bound.
type frameSize struct{ columns, rows int }

// topLine is a line of a frame and how it is coloured.
type topLine struct {
	text  string
	style func(string) string // nil: not at all
}

// frame is the whole screen as text. Lines that do not fit are cut off, of the groups
// those that need a look last are left out, and the number of those is said.
func (v *topView) frame(size frameSize, now time.Time, color bool) string {
	head := append(v.headLines(now), v.nodeLines()...)
	groups := v.groupLines(now)
	if room := size.rows - len(head) - 1; size.rows > 0 && len(groups) > max(room, 1) {
		kept := max(room-1, 1)
		groups = append(groups[:kept:kept], topLine{fmt.Sprintf("and %s more", count(len(groups)-kept, "group", "groups")), dim})
	}
	lines := append(head, groups...)
	if size.rows > 0 {
		lines = append(lines[:min(len(lines), size.rows-1)], topLine{"q quits", dim})
	}
	var out strings.Builder
	for _, l := range lines {
		if runes := []rune(l.text); size.columns > 0 && len(runes) > size.columns {
			l.text = string(runes[:size.columns])
		}
		if color && l.style != nil {
			l.text = l.style(l.text)
		}
		out.WriteString(l.text + "\n")
	}
	return out.String()
}

func (v *topView) headLines(now time.Time) []topLine {
	members := 0
	for _, g := range v.groups {
		members += len(g.members)
	}
	of := ""
	if v.prefix != "" {
		of = " of " + printable(v.prefix) + "*"
	}
	lines := []topLine{{fmt.Sprintf("cluster %s  leader %s  term %d  %s%s  %s  %s", v.status.Cluster, cmp.Or(v.status.Leader, "none"), v.status.Term,
		count(len(v.groups), "group", "groups"), of, count(members, "member", "members"), now.Format(time.TimeOnly)), bold}}
	if why := noLeader(v.status); why != "" {
		lines = append(lines, topLine{why, red})
	}
	for what, err := range map[string]error{"status": v.statusErr, "watch": v.failing} {
		if err != nil {
			lines = append(lines, topLine{fmt.Sprintf("the %s gets no answer: %s", what, oneLine(plain(err))), red})
		}
	}
	slices.SortFunc(lines[1:], func(a, b topLine) int { return cmp.Compare(a.text, b.text) })
	return append(lines, topLine{})
}

func (v *topView) nodeLines() []topLine {
	var rows [][]any
	var styles []func(string) string
	for _, n := range v.status.Nodes {
		style := func(s string) string { return s }
		switch {
		case n.Role == "" || len(n.Alarms) > 0:
			style = red
		case !n.Ready:
			style = yellow
		}
		styles = append(styles, style)
		if n.Role == "" {
			rows = append(rows, []any{n.ID, roleText(n), "", "", "", ""})
			continue
		}
		rows = append(rows, []any{n.ID, n.Role, n.AppliedIndex, lagText(n.Lag.Round(time.Millisecond)), n.Ready, n.Version})
	}
	lines := tableLines([]string{"NODE", "ROLE", "APPLIED", "LAG", "READY", "VERSION"}, rows, styles)
	var wrong bytes.Buffer
	printNodeErrors(&wrong, v.status.Nodes)
	for text := range strings.Lines(wrong.String()) {
		if text = strings.TrimSpace(text); text != "" {
			lines = append(lines, topLine{text, red})
		}
	}
	return append(lines, topLine{})
}

func (v *topView) groupLines(now time.Time) []topLine {
	groups := slices.SortedFunc(maps.Values(v.groups), func(a, b *topGroup) int {
		return cmp.Or(cmp.Compare(a.attention(), b.attention()), cmp.Compare(a.name, b.name))
	})
	var rows [][]any
	var styles []func(string) string
	for _, g := range groups {
		changed := ""
		if !g.changed.IsZero() {
			changed = now.Sub(g.changed).Round(time.Second).String() + " ago"
		}
		rows = append(rows, []any{g.name, len(g.members), g.count(sdk.StateActive), g.count(sdk.StateDraining), g.count(sdk.StateHeld), g.revision, changed})
		styles = append(styles, []func(string) string{red, yellow, nil}[g.attention()])
	}
	return tableLines([]string{"GROUP", "MEMBERS", "ACTIVE", "DRAINING", "HELD", "REVISION", "CHANGED"}, rows, styles)
}

// tableLines are the lines of a table, each with the style of its row.
func tableLines(columns []string, rows [][]any, styles []func(string) string) (lines []topLine) {
	var out bytes.Buffer
	t := newTable(&out, columns...)
	for _, r := range rows {
		t.row(r...)
	}
	_ = t.flush() // to memory
	for i, text := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
		style := dim
		if i > 0 {
			style = styles[i-1]
		}
		lines = append(lines, topLine{strings.TrimRight(text, " "), style})
	}
	return lines
}
