package page

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// browser is the path of a Chromium, or empty.
func browser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// tab is a page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	console  []string // messages
	requests []network.EventRequestWillBeSent
}

// open shows an address of a node in a new browser. When the test ends, the tab must have made requests to
// the nodes only, and its console must be empty but for messages that have one of the texts.
func open(t *testing.T, address string, allowed ...string) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser()), chromedp.WindowSize(1280, 900))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses root
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	return newTab(t, allocator, address, allowed)
}

// another opens a further tab of the same browser.
func (p *tab) another(address string, allowed ...string) *tab {
	p.t.Helper()
	return newTab(p.t, p.ctx, address, allowed)
}

func newTab(t *testing.T, parent context.Context, address string, allowed []string) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(parent)
	t.Cleanup(stop)
	p := &tab{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return // the tab is closed
			}
			p.mu.Lock()
			p.console = append(p.console, fmt.Sprint(m))
			p.mu.Unlock()
		}
	}()
	must(t, chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*network.EventRequestWillBeSent); ok {
			p.mu.Lock()
			p.requests = append(p.requests, *e)
			p.mu.Unlock()
		}
	}))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.Navigate(address)))
	host := hostOf(t, address)
	t.Cleanup(func() { p.check(host, allowed) })
	return p
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	must(t, err)
	return u.Host
}

// check fails the test for what the tab must not have done.
func (p *tab) check(host string, allowed []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.console {
		if !slices.ContainsFunc(allowed, func(text string) bool { return strings.Contains(m, text) }) {
			p.t.Errorf("console: %s", m)
		}
	}
	if len(p.requests) == 0 {
		p.t.Error("no request was seen")
	}
	for _, r := range p.requests {
		if h := hostOf(p.t, r.Request.URL); h != host {
			p.t.Errorf("a request to %s", r.Request.URL)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eval is the value of an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to be true, and returns how long that took.
func (p *tab) until(within time.Duration, expression string) time.Duration {
	p.t.Helper()
	return eventually(p.t, within, expression, func() error {
		if !eval[bool](p, expression) {
			return fmt.Errorf("the page says: %.600s", eval[string](p, "document.body.innerText"))
		}
		return nil
	})
}

// says waits for a text in an element.
func (p *tab) says(within time.Duration, selector, text string) time.Duration {
	p.t.Helper()
	return p.until(within, fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q) ?? false", selector, text))
}

// silent waits for a text to be gone from an element.
func (p *tab) silent(within time.Duration, selector, text string) {
	p.t.Helper()
	p.until(within, fmt.Sprintf("!document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

// enter types into a field.
func (p *tab) enter(selector, text string) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf("{ const e = document.querySelector(%q); e.focus(); e.select?.(); true }", selector))
	p.press(text)
}

// press presses keys on what has the focus.
func (p *tab) press(keys string) {
	p.t.Helper()
	must(p.t, chromedp.Do(p.ctx, chromedp.KeyEvent(keys)))
}

// prefers sets a media feature.
func (p *tab) prefers(name, value string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: name, Value: value}}})
	must(p.t, err)
}

func needBrowser(t *testing.T) {
	t.Helper()
	if browser() == "" {
		t.Skip("there is no Chromium (Debian: chromium)")
	}
}
