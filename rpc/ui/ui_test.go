package ui

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/werbenhu/registry/sdk/js"
)

// page is the handler behind its routes, as a node has it.
func page() http.Handler {
	mux := http.NewServeMux()
	for _, pattern := range Patterns {
		mux.Handle(pattern, Handler())
	}
	return mux
}

func do(method, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	page().ServeHTTP(w, r)
	return w
}

// paths are all that the page consists of.
func paths() []string {
	all := []string{"/"}
	for name := range load() {
		if name != index {
			all = append(all, "/ui/"+name)
		}
	}
	return all
}

func TestHeaders(t *testing.T) {
	for _, path := range paths() {
		w := do("GET", path, nil)
		if w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %d bytes", path, w.Code, w.Body.Len())
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if cookies := w.Result().Cookies(); len(cookies) > 0 {
			t.Errorf("%s sets %v", path, cookies)
		}
	}
	for path, want := range map[string]string{
		"/": "text/html; charset=utf-8", "/ui/main.js": "text/javascript; charset=utf-8", "/ui/ring.js": "text/javascript; charset=utf-8",
		"/ui/style.css": "text/css; charset=utf-8", "/ui/icon.svg": "image/svg+xml",
	} {
		if got := do("GET", path, nil).Header().Get("Content-Type"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// The policy allows nothing that the page does not use.
func TestPolicy(t *testing.T) {
	for _, want := range []string{"script-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy+";", "; "+want+";") {
			t.Errorf("%q is missing", want)
		}
	}
	for _, directive := range strings.Split(policy, "; ") {
		name, value, _ := strings.Cut(directive, " ")
		switch value {
		case "'none'", "'self'":
		default:
			if directive != "require-trusted-types-for 'script'" && directive != "trusted-types worker" {
				t.Errorf("%s: %s", name, value)
			}
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") {
		t.Error("what is not listed is allowed")
	}
}

// A browser asks each time and gets a body only if the file changed.
func TestCaching(t *testing.T) {
	for _, path := range paths() {
		first := do("GET", path, nil)
		tag := first.Header().Get("ETag")
		if len(tag) < 10 || first.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: ETag %q, Cache-Control %q", path, tag, first.Header().Get("Cache-Control"))
		}
		again := do("GET", path, http.Header{"If-None-Match": {tag}})
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("%s: %d, %d bytes for its own tag", path, again.Code, again.Body.Len())
		}
		if other := do("GET", path, http.Header{"If-None-Match": {`"other"`}}); other.Code != 200 {
			t.Errorf("%s: %d for another tag", path, other.Code)
		}
	}
}

func TestNothingElse(t *testing.T) {
	for path, want := range map[string]int{
		"/index.html": 404, "/ui": 404, "/ui/": 404, "/ui/index.html": 404, "/ui/none.js": 404, "/ui/static/main.js": 404, "/ui/main.js/": 404,
		"/ui/..%2fui.go": 404, "/ui/%2e%2e": 404, "/ui/package.json": 404, "/ui/embed.go": 404, "/favicon.ico": 404, "/main.js": 404, "/nothing": 404,
	} {
		if w := do("GET", path, nil); w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		for _, path := range []string{"/", "/ui/main.js"} {
			if w := do(method, path, nil); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if w := do("HEAD", "/", nil); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("HEAD /: %d, %d bytes", w.Code, w.Body.Len())
	}
}

var (
	address  = regexp.MustCompile(`https?://[^\s"']+`)
	imported = regexp.MustCompile(`(?m)^(?:import|export)\b[^'"]*from\s+'([^']+)'`)
	markup   = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function\(|\bstyle="|\bon[a-z]+="`)
)

// The page loads nothing from elsewhere, all that it imports is there, and it makes no markup of text.
func TestFilesStandAlone(t *testing.T) {
	files := load()
	for name, f := range files {
		text := string(f.content)
		for _, url := range address.FindAllString(text, -1) {
			if url != "http://www.w3.org/2000/svg" { // the name of a namespace
				t.Errorf("%s names %s", name, url)
			}
		}
		for _, m := range imported.FindAllStringSubmatch(text, -1) {
			if _, ok := files[strings.TrimPrefix(m[1], "./")]; !ok || !strings.HasPrefix(m[1], "./") {
				t.Errorf("%s imports %s, which is not served", name, m[1])
			}
		}
		if found := markup.FindString(text); found != "" {
			t.Errorf("%s has %s", name, found)
		}
	}
}

// The page's ring is that of the JavaScript SDK, byte for byte.
func TestRingIsTheSDKs(t *testing.T) {
	files := load()
	for _, name := range []string{"ring.js", "xxh64.js"} {
		want, err := fs.ReadFile(js.FS, name)
		if err != nil || string(files[name].content) != string(want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}
