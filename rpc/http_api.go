package rpc

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/muxcreds"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// apiTimeout bounds a call over HTTP, which has no deadline of its own.
const apiTimeout = 30 * time.Second

// serveAPI adds the routes of the API. Their permissions are those of the methods.
func (h *httpServer) serveAPI(mux *http.ServeMux) {
	for _, r := range apiRoutes {
		h.routes = append(h.routes, r.pattern)
		mux.Handle(r.pattern, h.server.newEndpoint(r))
	}
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) { noRoute(mux, w, r) })
}

// ServeHTTP makes the call that a request is: the same message goes to the same handler
// as over gRPC, through the same chain.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.stream != nil {
		e.serveStream(w, r)
		return
	}
	r, end := e.server.traces.request(r, e)
	code := http.StatusOK
	defer func() { end(code) }()
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	ctx = callContext(ctx, w, r)
	secret := ""
	answer, err := e.unary(e.on, ctx, func(req any) error {
		err := e.parse(w, r, req.(proto.Message))
		secret = makeSecret(req.(proto.Message))
		return err
	}, e.server.calls.call)
	if err == nil {
		err = writeAnswer(w, r, answer.(proto.Message), secret)
	}
	if err != nil {
		code = problemOf(err).code
		writeProblem(w, r, err)
	}
}

// withPeer keeps in the context of a connection what gRPC's handlers know of theirs:
// the address and the certificate.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	p := &peer.Peer{Addr: c.RemoteAddr()}
	if _, info, err := (muxcreds.Finished{}).ServerHandshake(c); err == nil {
		p.AuthInfo = info
	}
	return peer.NewContext(ctx, p)
}

// callContext is the context of a call, with the headers that the chain reads and
// writes.
func callContext(ctx context.Context, w http.ResponseWriter, r *http.Request) context.Context {
	md := metadata.MD{}
	for _, key := range []string{registrypb.AuthorizationHeader, registrypb.ClusterHeader} {
		md.Append(key, r.Header.Values(key)...)
	}
	return grpc.NewContextWithServerTransportStream(metadata.NewIncomingContext(ctx, md), answerHeader(w.Header()))
}

// answerHeader takes the headers of an answer.
type answerHeader http.Header

func (h answerHeader) Method() string { return "" }

func (h answerHeader) SetHeader(md metadata.MD) error {
	for key, values := range md {
		http.Header(h)[http.CanonicalHeaderKey(key)] = values
	}
	return nil
}

func (h answerHeader) SendHeader(md metadata.MD) error { return h.SetHeader(md) }

func (h answerHeader) SetTrailer(metadata.MD) error { return nil }

// parse fills the call's message from path, query and body. It refuses every name that
// it does not know: a misspelt one must not be ignored.
func (e *endpoint) parse(w http.ResponseWriter, r *http.Request, req proto.Message) error {
	for _, name := range e.path {
		if err := httpjson.Set(req, name, r.PathValue(name)); err != nil {
			return err
		}
	}
	if err := e.parseQuery(r.URL.RawQuery, req); err != nil {
		return err
	}
	data, err := readBody(w, r)
	switch {
	case err != nil:
		return err
	case e.body == nil && len(data) > 0:
		return &fsm.FieldError{Field: "body", Limit: "empty for this method", Got: fmt.Sprintf("%d bytes", len(data))}
	case e.body == nil:
		return nil
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &httpError{http.StatusUnsupportedMediaType, &fsm.FieldError{
			Field: "Content-Type", Limit: "application/json", Got: fmt.Sprintf("%.64q", r.Header.Get("Content-Type")),
		}}
	}
	if len(data) == 0 {
		return nil
	}
	return httpjson.Decode(data, bodyOf(req), e.body)
}

func (e *endpoint) parseQuery(query string, req proto.Message) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return &fsm.FieldError{Field: "query", Limit: "name=value pairs, percent-encoded", Got: err.Error()}
	}
	for name, given := range values {
		if !slices.Contains(e.query, name) {
			return httpjson.Unknown(name, e.query)
		}
		if len(given) > 1 {
			return &fsm.FieldError{Field: name, Limit: "given once", Got: fmt.Sprintf("it %d times", len(given))}
		}
		if err := httpjson.Set(target(req, name), name, given[0]); err != nil {
			return err
		}
	}
	return nil
}

// readBody reads at most MaxRequest bytes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequest))
	if err == nil {
		return data, nil
	}
	code, got := http.StatusBadRequest, err.Error()
	if httpTooLarge(err) {
		code, got = http.StatusRequestEntityTooLarge, "more"
	}
	return nil, &httpError{code, &fsm.FieldError{Field: "body", Limit: fmt.Sprintf("at most %d bytes, and complete", MaxRequest), Got: got}}
}

// noRoute answers a request that no route takes.
func noRoute(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := *r
		other.Method = method
		if _, pattern := mux.Handler(&other); pattern != "/v1/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		writeProblem(w, r, &httpError{http.StatusNotFound, &fsm.FieldError{Field: "path", Limit: "one of those in /v1/openapi.json", Got: fmt.Sprintf("%.64q", r.URL.Path)}})
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeProblem(w, r, &httpError{http.StatusMethodNotAllowed, &fsm.FieldError{Field: "method", Limit: "one of " + strings.Join(allowed, ", "), Got: fmt.Sprintf("%.16q", r.Method)}})
}

// cleanPaths refuses paths of the API that are not clean. The mux would redirect the
// caller of /v1/groups/web/members/.. to another resource.
func cleanPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; strings.HasPrefix(p, "/v1/") && path.Clean(p) != p {
			writeProblem(w, r, &httpError{http.StatusNotFound, &fsm.FieldError{Field: "path", Limit: "without empty parts, . and ..", Got: fmt.Sprintf("%.64q", p)}})
			return
		}
		next.ServeHTTP(w, r)
	})
}
