package page

import (
	"cmp"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// picture is the ring as it is drawn.
const picture = "document.querySelector('.ring canvas').toDataURL()"

func (n *node) page(group string) string {
	if group == "" {
		return "http://" + n.addr + "/"
	}
	return "http://" + n.addr + "/#/groups/" + url.PathEscape(group)
}

// live is within what time a join must change the page.
const live = time.Second

// join is a member that the page's own JavaScript registered, and how long after the answer the page had it.
type join struct {
	ID string
	MS int64
}

// joins registers five members, one after the other. The time counts in the page until both its list and its picture
// have the member. A registration that fails, as without a leader, may still happen: the next id takes its place.
const joins = `(async () => {
	const end = performance.now() + 30_000, out = [];
	const text = (selector) => document.querySelector(selector).innerText;
	for (let i = 4; out.length < 5; i++) {
		const id = 'web-' + i, before = ` + picture + `;
		const missing = () => !text('.members .list').includes(id) || text('.ring-centre strong') !== text('.members .counts') || ` + picture + ` === before;
		const late = () => { if (performance.now() > end) throw new Error('the page does not have ' + id + ': ' + document.body.innerText); };
		late();
		const { ok } = await fetch('/v1/groups/web/members/' + id, { method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: '{"addr": "10.0.0.1:8080", "ttl": "1h"}' });
		const answered = performance.now();
		for (; ok && missing(); await new Promise(requestAnimationFrame)) late();
		if (ok) out.push({ id, ms: Math.round(performance.now() - answered) });
	}
	return out;
})()`

// TestGroup: a group is drawn, a member's join changes the list and the ring within a second and without a reload, the
// fingerprint that the browser computes is the node's, a key has the node's owner, and the slider goes back.
func TestGroup(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	leader, other := c.settled()
	for i := range 3 {
		leader.register("web", fmt.Sprintf("web-%d", i+1), nil)
	}
	p := open(t, other.page("web"), "status of 503", "status of 504") // a registration without a leader
	p.says(patience, ".facts.top", "✓")
	p.says(patience, ".members", "web-3")
	eval[bool](p, "window.loaded = true")

	joined := eval[[]join](p, joins)
	t.Logf("ms from the answer until the page had the member: %v", joined)
	if best := slices.MinFunc(joined, func(a, b join) int { return cmp.Compare(a.MS, b.MS) }); best.MS >= live.Milliseconds() {
		t.Errorf("the page had none of five members within %v", live)
	}
	p.says(patience, ".facts.top", "✓")
	p.says(patience, ".right .events", "joined at 10.0.0.1:8080")
	if !eval[bool](p, "window.loaded === true") {
		t.Error("the page was loaded again")
	}

	for _, key := range []string{"user-1", "user-42", "ключ", "<b>"} {
		var match struct{ Members []struct{ ID string } }
		must(t, other.call("GET", "/v1/groups/web/match?key="+url.QueryEscape(key), "", nil, &match))
		p.enter(".keybox input", key)
		p.says(patience, ".key-answer .owner", match.Members[0].ID)
	}

	p.enter(".whatif input[name=id]", "another")
	p.says(patience, ".said", "of the keys would move, which is the least for these shares")

	p.enter(".timeline input", "")
	p.press(kb.Home)
	p.says(patience, ".timeline", "changes ago")
	p.says(patience, "header .pill", "Paused")
	p.silent(patience, ".members .list", joined[0].ID)
	p.press(kb.End)
	p.says(patience, ".members .list", joined[0].ID)

	p.says(patience, ".digests", "Compare")
	eval[bool](p, "document.querySelector('.digests button').click() ?? true")
	p.until(patience, "document.querySelectorAll('.compared tbody tr').length === 4")
	if text := eval[string](p, "document.querySelector('.compared').innerText"); strings.Count(text, "✓") != 4 {
		t.Errorf("the nodes' rings are not the page's: %s", text)
	}
}

// TestLeader: the death of the leader is shown and gone again, and without a leader the page goes on and says so.
func TestLeader(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	leader, other := c.settled()
	leader.register("web", "web-1", nil)
	p := open(t, other.page(""))
	p.says(patience, ".look", "Nothing")
	p.says(patience, ".nodes", "leader")

	leader.kill()
	t.Logf("the death of the leader was shown after %v", p.says(patience, ".look", leader.id+" does not answer"))
	p.says(patience, ".events", "leads, term")
	leader.start()
	p.says(patience, ".look", "Nothing")

	c.settled()
	for _, n := range c.nodes {
		if n != other {
			n.kill()
		}
	}
	t.Logf("the lack of a leader was shown after %v", p.says(patience, "#banner", "no leader"))
	p.says(patience, ".view", "web")
	for _, n := range c.nodes {
		if n != other {
			n.start()
		}
	}
	p.until(patience, "document.querySelector('#banner').hidden")
	p.says(patience, ".look", "Nothing")
}

// TestNode: when the node of the page dies, the page says so, and goes on by itself when it is back.
func TestNode(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	leader, other := c.settled()
	leader.register("web", "web-1", nil)
	p := open(t, other.page("web"), "Failed to load resource: net::ERR", "status of 503") // Chromium says so of each call
	p.says(patience, ".members", "web-1")
	other.kill()
	p.says(patience, "#banner", "does not answer")
	p.says(patience, "header .pill", "Reconnecting")
	leader.register("web", "web-2", nil)
	other.start()
	p.until(patience, "document.querySelector('#banner').hidden")
	p.says(patience, ".members", "web-2")
	p.says(patience, "header .pill", "Live")
}

// TestTextStaysText: ids and metadata are never markup.
func TestTextStaysText(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	_, other := c.settled()
	const evil = `<img src=x onerror=window.stolen=1>`
	other.register(evil, evil, map[string]any{"meta": map[string]string{evil: evil}})
	p := open(t, other.page(""))
	p.says(patience, ".list-body", evil)
	eval[any](p, fmt.Sprintf("location.hash = '#/groups/' + encodeURIComponent(%q)", evil))
	p.says(patience, "h1", evil)
	p.says(patience, ".members .list", evil)
	eval[bool](p, "document.querySelector('.members [data-row]').click() ?? true")
	p.says(patience, ".detail", evil)
	p.enter(".keybox input", evil)
	p.says(patience, ".key-answer", evil)
	p.enter(".whatif input[name=id]", "<b>other</b>")
	p.says(patience, ".moves", "<b>other</b>")
	if eval[bool](p, "document.querySelectorAll('main img, main b b').length > 0 || 'stolen' in window") {
		t.Error("an id became markup")
	}
}

// TestKeyboard: every control is reached by the Tab key, in both views, and lists and the ring have their arrows.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	_, other := c.settled()
	for i := range 3 {
		other.register("web", fmt.Sprintf("web-%d", i+1), nil)
	}
	p := open(t, other.page(""))
	p.says(patience, ".list-body", "web")
	p.tabsThrough()
	eval[bool](p, "document.querySelector('.list').focus() ?? true")
	p.press(kb.Home)
	p.press(kb.Enter)
	p.says(patience, "h1", "web")
	p.says(patience, ".facts.top", "✓")
	p.tabsThrough()

	eval[bool](p, "document.querySelector('.ring canvas').focus() ?? true")
	p.press(kb.ArrowRight)
	p.until(patience, "document.activeElement.getAttribute('aria-valuetext').startsWith('web-1, ')")
	p.press(kb.Enter)
	p.says(patience, ".detail", "10.0.0.1:8080")
	const age = "[...document.querySelectorAll('.detail dt')].find((e) => e.textContent === 'Registered').nextSibling.innerText"
	before := eval[string](p, age)
	p.tabsThrough() // with the detail's controls
	// After two minutes the unit is a minute.
	p.until(3*patience, fmt.Sprintf("%s !== %q", age, before))
	eval[bool](p, "document.querySelector('.members .list').focus() ?? true")
	p.press(kb.End)
	p.press(kb.Enter)
	p.says(patience, ".detail h2", "web-3")
	if unnamed := eval[[]any](p, unnamedControls); len(unnamed) > 0 {
		t.Errorf("controls without a name for screen readers: %v", unnamed)
	}
}

// controls are all that can be used now. The links in rows are not among them: Enter on a row does the same.
const controls = `[...document.querySelectorAll('a[href], button, input, select, [role=grid], [role=slider], [role=log]')].filter((e) => e.checkVisibility() && !e.disabled && !e.closest('.list-body'))`

const unnamedControls = controls + `.filter((e) => !(e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent.trim() || document.getElementById(e.getAttribute('aria-labelledby')))).map((e) => e.outerHTML)`

// tabsThrough presses Tab until the focus has been at every control, at most twice around:
// a control may appear meanwhile behind the focus, with an event or a revision.
func (p *tab) tabsThrough() {
	p.t.Helper()
	n := eval[int](p, "document.activeElement?.blur(); window.reached = new Set(); document.addEventListener('focusin', (e) => window.reached.add(e.target)); "+controls+".length")
	var missed []any
	for range 2*n + 4 {
		p.press(kb.Tab)
		if missed = eval[[]any](p, controls+".filter((e) => !window.reached.has(e)).map((e) => e.outerHTML)"); len(missed) == 0 {
			break
		}
	}
	if len(missed) > 0 || n < 5 {
		p.t.Errorf("%d controls, and Tab does not reach %v", n, missed)
	}
}

// TestTokens: the page asks for a token, keeps it for its tab, and sends it in a header and nowhere else.
func TestTokens(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	_, other := c.settled()
	other.register("web", "web-1", nil)
	other.register("secret", "secret-1", nil)
	dir := t.TempDir()
	admin, web := c.token("init", filepath.Join(dir, "admin")), ""
	web = c.token("create", filepath.Join(dir, "web"), "-token-file", filepath.Join(dir, "admin"), "-name", "web", "-allow", "discover:web")

	const unauthorized = "status of 401"
	p := open(t, other.page(""), unauthorized)
	p.until(patience, "document.querySelector('dialog').open")
	p.enter("dialog input", web+kb.Enter)
	p.says(patience, ".list-body", "web")
	p.says(patience, "#who", "web")
	if text := eval[string](p, "document.body.innerText"); strings.Contains(text, "secret") || strings.Contains(text, web) {
		t.Errorf("the page shows what it must not: %s", text)
	}
	if eval[string](p, "sessionStorage['registry-token']") != web || eval[bool](p, "localStorage.length > 0 || document.cookie !== ''") {
		t.Error("the token is not in the tab's storage alone")
	}
	p.mu.Lock()
	sent := 0
	for _, r := range p.requests {
		if strings.Contains(r.Request.URL, web[4:]) || strings.Contains(fmt.Sprint(r.Request.Headers["Referer"]), web[4:]) {
			t.Errorf("the token is in the URL or the referrer of %s", r.Request.URL)
		}
		if r.Request.Headers["Authorization"] == "Bearer "+web {
			sent++
		}
	}
	p.mu.Unlock()
	if sent == 0 {
		t.Error("no request has the token in its header")
	}

	second := p.another(other.page(""), unauthorized)
	second.until(patience, "document.querySelector('dialog').open")

	p.until(patience, "!document.querySelector('#forget').hidden")
	eval[bool](p, "document.querySelector('#forget').click() ?? true")
	p.until(patience, "document.querySelector('dialog').open && !sessionStorage['registry-token']")
	p.enter("dialog input", admin+kb.Enter)
	p.says(patience, ".list-body", "secret")
}

// token runs a command of tokens that writes to a file, and returns the token.
func (c *cluster) token(command, file string, args ...string) string {
	c.t.Helper()
	args = append([]string{"token", command, "-registries", c.nodes[0].addr, "-out", file}, args...)
	if out, err := exec.Command(registry, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return readToken(c.t, file)
}

// TestMany: 10,000 members are drawn as bundles, and the list has elements for those in view only.
func TestMany(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	leader, other := c.settled()
	leader.registerMany("many", 10_000)
	p := open(t, other.page("many"))
	p.says(patience, ".caption", "2,560,000 points of 10,000 members")
	p.says(patience, ".facts.top", "✓")
	p.prefers("prefers-reduced-motion", "reduce")
	eval[bool](p, "document.querySelector('.members .list').focus() ?? true")
	p.press(kb.End)
	p.says(patience, ".members .list", "many-9999")
	if rows := eval[int](p, "document.querySelectorAll('.members [data-row]').length"); rows > 60 {
		t.Errorf("%d rows have elements", rows)
	}
	p.enter(".members input[type=search]", "many-0042")
	p.says(patience, ".members .counts", "1 of 10,000")
	leader.register("many", "more", nil)
	t.Logf("the ring had the new member after %v", p.says(patience, ".caption", "of 10,001 members"))
}

// TestAbsence: an empty group and one that does not exist say so, and the latter appears.
func TestAbsence(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	c := startCluster(t)
	_, other := c.settled()
	other.write("PUT", "/v1/groups/empty", map[string]any{"config": map[string]any{"virtual_nodes": 256}})
	p := open(t, other.page("empty"))
	p.says(patience, ".attention", "No members")
	eval[any](p, "location.hash = '#/groups/later'")
	p.says(patience, ".empty-state", "no such group")
	other.register("later", "later-1", nil)
	p.says(patience, ".members", "later-1")
	eval[any](p, "location.hash = '#/'")
	p.says(patience, ".look", "empty has no members")
}
