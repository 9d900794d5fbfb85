package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/werbenhu/registry/sdk/js"
)

// Patterns are the routes of the page: the document, and the files that it loads.
var Patterns = []string{"GET /{$}", "GET /ui/{file}"}

//go:embed static
var static embed.FS

// index is the document, which has a path of its own.
const index = "index.html"

// types are the content types of what the page consists of. A table of its own, because that of package
// mime depends on the machine.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// policy allows the page its own files, and the node's API. Scripts cannot make markup of text: there
// is no trusted type but the address of the worker.
const policy = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types worker"

// headers are those of every answer.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Cache-Control":                "no-cache", // and an ETag: a browser asks, and a new version is used at once
}

// file is one of the page.
type file struct {
	name, media, tag string
	content          []byte
}

// Handler serves the page, at its Patterns.
func Handler() http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("file")
		if r.URL.Path == "/" {
			name = index
		}
		f, ok := files[name]
		if !ok || name == index && r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		for key, value := range headers {
			w.Header().Set(key, value)
		}
		w.Header().Set("Content-Type", f.media)
		w.Header().Set("ETag", f.tag)
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
	})
}

// load returns the embedded files by name. They are constant, so what is wrong with them is a panic.
func load() map[string]file {
	files := map[string]file{}
	own, err := fs.Sub(static, "static")
	if err != nil {
		panic(err)
	}
	for _, from := range []fs.FS{own, js.FS} {
		names, err := fs.Glob(from, "*")
		if err != nil {
			panic(err)
		}
		for _, name := range names {
			if _, twice := files[name]; twice {
				panic("ui: two files " + name)
			}
			files[name] = read(from, name)
		}
	}
	return files
}

func read(from fs.FS, name string) file {
	content, err := fs.ReadFile(from, name)
	media := types[path.Ext(name)]
	if err != nil || media == "" {
		panic(fmt.Errorf("ui: %s of type %q: %w", name, media, err))
	}
	sum := sha256.Sum256(content)
	return file{name, media, fmt.Sprintf(`"%x"`, sum[:16]), content}
}
