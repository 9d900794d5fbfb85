package rpc

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/werbenhu/registry/fsm"
)

// page is the room of an answer for a list.
type page struct {
	limits Limits
	paged  bool // the caller takes pages
	count  int  // most elements
	room   int  // bytes left
	taken  int
}

func (s *Server) page(size uint32, token string) (page, error) {
	if size > maxPage {
		return page{}, &fsm.FieldError{Field: "page_size", Limit: fmt.Sprintf("at most %d", maxPage), Got: fmt.Sprint(size)}
	}
	p := page{limits: s.limits, paged: size > 0 || token != "", count: math.MaxInt, room: s.limits.Answer - messageHead}
	if size > 0 {
		p.count = int(size)
	}
	if p.paged {
		p.room = s.limits.Piece - messageHead
	}
	return p, nil
}

// take takes the room of one more element; false if the page is full. The first
// element always fits.
func (p *page) take(size int) bool {
	if p.taken > 0 && (p.count == p.taken || size > p.room) {
		return false
	}
	p.room -= size
	p.taken++
	return true
}

// full returns the error for a caller that takes no pages.
func (p *page) full() error {
	if p.paged {
		return nil
	}
	return p.limits.tooLarge("page_size", fmt.Sprintf("set (1 to %d) where the whole list is more than", maxPage), "0")
}

// memberToken is the token of the next page of a group: the revision, and the member
// that the page begins after.
func memberToken(g *fsm.Group, after string) string {
	return fmt.Sprintf("%d/%x/%s", g.Revision, g.Fingerprint(), after)
}

func parseMemberToken(token string) (revision, fingerprint uint64, after string, err error) {
	parts := strings.SplitN(token, "/", 3)
	if len(parts) == 3 {
		var err1, err2 error
		revision, err1 = strconv.ParseUint(parts[0], 10, 64)
		fingerprint, err2 = strconv.ParseUint(parts[1], 16, 64)
		if err1 == nil && err2 == nil {
			return revision, fingerprint, parts[2], nil
		}
	}
	return 0, 0, "", &fsm.FieldError{Field: "page_token", Limit: "the next_page_token of an answer", Got: strconv.Quote(token[:min(len(token), 48)])}
}

// Bounds of the revisions that a node keeps for clients that read page by page. A
// revision shares with the next what did not change.
const (
	pagedGroups = 64               // the least recently used is evicted
	pagedFor    = 30 * time.Second // after the last page
)

// errPageExpired: a page_token names a revision that is neither current nor kept.
var errPageExpired = fmt.Errorf("%w, and the node no longer has that of page_token: start over with the first page", fsm.ErrRevisionMismatch)

// groupRead is a group as it was read from a state.
type groupRead struct {
	group *fsm.Group
	index uint64        // applied
	lag   time.Duration // how old the state is
}

// pages keeps the revisions of which pages were read and others may follow.
type pages struct {
	mu    sync.Mutex    // guards the rest
	kept  []*pagedGroup // the least recently used first
	timer *time.Timer   // nil while nothing is kept
}

type pagedGroup struct {
	groupRead // lag: when it was read
	read      time.Time
	used      time.Time
}

// keep adds a revision, or notes that it is in use.
func (p *pages) keep(g groupRead) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	k := p.useLocked(g.group.Name, g.group.Revision, g.group.Fingerprint(), now)
	if k == nil {
		k = &pagedGroup{groupRead: g, read: now, used: now}
		p.kept = append(p.kept, k)
	}
	if k.index < g.index { // it was current for longer
		k.groupRead, k.read = g, now
	}
	if len(p.kept) > pagedGroups {
		p.kept = slices.Delete(p.kept, 0, 1)
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(pagedFor, p.expire)
	}
}

// useLocked returns a revision that is kept, as the most recently used, or nil.
func (p *pages) useLocked(name string, revision, fingerprint uint64, now time.Time) *pagedGroup {
	for i, k := range p.kept {
		if k.group.Name == name && k.group.Revision == revision && k.group.Fingerprint() == fingerprint {
			k.used = now
			p.kept = append(slices.Delete(p.kept, i, i+1), k)
			return k
		}
	}
	return nil
}

// at returns a revision that is kept. Its lag is as if the group had changed right
// after it was read.
func (p *pages) at(name string, revision, fingerprint uint64) (g groupRead, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	k := p.useLocked(name, revision, fingerprint, now)
	if k == nil {
		return groupRead{}, false
	}
	return groupRead{k.group, k.index, k.lag + now.Sub(k.read)}, true
}

func (p *pages) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	for len(p.kept) > 0 && time.Since(p.kept[0].used) >= pagedFor {
		p.kept = slices.Delete(p.kept, 0, 1)
	}
	if len(p.kept) > 0 {
		p.timer = time.AfterFunc(pagedFor-time.Since(p.kept[0].used), p.expire)
	}
}

// forget drops all: the node stops, or its state is wrong.
func (p *pages) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// pageOf returns the group at the revision of the page, and the member that the page
// begins after.
func (s *Server) pageOf(state freshState, name, token string) (g groupRead, after string, err error) {
	g = groupRead{state.GroupToRead(name), state.Index(), state.lag}
	if token == "" {
		if g.group == nil {
			err = fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, name)
		}
		return g, "", err
	}
	revision, fingerprint, after, err := parseMemberToken(token)
	if err != nil || g.group != nil && g.group.Revision == revision && g.group.Fingerprint() == fingerprint {
		return g, after, err
	}
	g, ok := s.pages.at(name, revision, fingerprint)
	if !ok {
		err = fmt.Errorf("%w: group %q, revision %d", errPageExpired, name, revision)
	}
	return g, after, err
}
