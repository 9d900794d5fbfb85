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

// page says how much of a list an answer has room for.
type page struct {
	limits Limits
	paged  bool // the caller takes pages
	count  int  // elements that there is room for yet
	room   int  // bytes
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

// take makes room for one more element; false when the page is full. The first
// element always fits.
func (p *page) take(size int) bool {
	if p.taken > 0 && (p.count == p.taken || size > p.room) {
		return false
	}
	p.room -= size
	p.taken++
	return true
}

// full is the error of a list that is too large for a caller who takes no pages.
func (p *page) full() error {
	if p.paged {
		return nil
	}
	return p.limits.tooLarge("page_size", fmt.Sprintf("set (1 to %d) where the whole list is more than", maxPage), "0")
}

// memberToken names the next page of a group: what comes after a member, at a revision.
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

// Bounds of the revisions that a node remembers for those who read page by page.
// A group shares with its next revision what did not change.
const (
	pagedGroups = 64
	pagedFor    = 30 * time.Second // after the last page
)

// pages remembers groups as they were when a page of them was read.
type pages struct {
	mu    sync.Mutex    // guards the rest
	kept  []*pagedGroup // the least recently used first
	timer *time.Timer   // nil while nothing is kept
}

type pagedGroup struct {
	group *fsm.Group
	index uint64 // applied, with the group as it is here
	used  time.Time
}

// keep remembers a group, read at an applied index.
func (p *pages) keep(g *fsm.Group, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.takeLocked(g.Name, g.Revision, g.Fingerprint())
	if k == nil {
		k = &pagedGroup{group: g, index: index}
	}
	k.used = time.Now()
	if p.kept = append(p.kept, k); len(p.kept) > pagedGroups {
		p.kept = slices.Delete(p.kept, 0, 1)
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(pagedFor, p.expire)
	}
}

// takeLocked returns what is kept, and keeps it no more; nil without it.
func (p *pages) takeLocked(name string, revision, fingerprint uint64) *pagedGroup {
	for i, k := range p.kept {
		if k.group.Name == name && k.group.Revision == revision && k.group.Fingerprint() == fingerprint {
			p.kept = slices.Delete(p.kept, i, i+1)
			return k
		}
	}
	return nil
}

// at returns a group as it was at a revision, or nil.
func (p *pages) at(name string, revision, fingerprint uint64) (*fsm.Group, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.takeLocked(name, revision, fingerprint)
	if k == nil {
		return nil, 0
	}
	k.used = time.Now()
	p.kept = append(p.kept, k)
	return k.group, k.index
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

// forget drops all: the node stops, or its state turned out to be wrong.
func (p *pages) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// pageOf returns the group that a page is of, the applied index that it was read
// at, and the member that the page begins after.
func (s *Server) pageOf(state *fsm.State, name, token string) (g *fsm.Group, index uint64, after string, err error) {
	g = state.GroupToRead(name)
	if token == "" {
		if g == nil {
			err = fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, name)
		}
		return g, state.Index(), "", err
	}
	revision, fingerprint, after, err := parseMemberToken(token)
	if err != nil {
		return nil, 0, "", err
	}
	if g != nil && g.Revision == revision && g.Fingerprint() == fingerprint {
		return g, state.Index(), after, nil
	}
	if g, index = s.pages.at(name, revision, fingerprint); g == nil {
		return nil, 0, "", fmt.Errorf("%w: %q is not at %d any more, which the page is of: start over with the first page", fsm.ErrRevisionMismatch, name, revision)
	}
	return g, index, after, nil
}
