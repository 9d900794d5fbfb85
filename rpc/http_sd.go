package rpc

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// discoveryRoute lists members as Prometheus's http_sd wants them. It is no method of
// the API: the form of the answer is Prometheus's, and it has no pages.
const discoveryRoute = "GET /v1/sd/prometheus"

// maxDiscoveries bounds the answers of discoveryRoute that are being written. There is
// no bound on their size, so each is encoded while it is sent.
const maxDiscoveries = 8

// serveDiscovery adds discoveryRoute.
func (h *httpServer) serveDiscovery(mux *http.ServeMux) {
	h.routes = append(h.routes, discoveryRoute)
	turns := make(chan struct{}, maxDiscoveries)
	mux.HandleFunc(discoveryRoute, func(w http.ResponseWriter, r *http.Request) {
		t, err := h.server.discover(w, r)
		if err == nil {
			select {
			case turns <- struct{}{}:
				defer func() { <-turns }()
				t.write(w, r)
				return
			default:
				err = &fullError{"lists of targets", maxDiscoveries}
			}
		}
		writeProblem(w, r, err)
	})
}

// discover makes the call of a request, through the chain of all calls.
func (s *Server) discover(w http.ResponseWriter, r *http.Request) (*targets, error) {
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	req, err := parseDiscovery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	t, err := s.calls.call(callContext(ctx, w, r), req, &grpc.UnaryServerInfo{FullMethod: discoveryRoute}, func(ctx context.Context, req any) (any, error) {
		t, err := s.targets(ctx, req)
		return t, toStatus(err)
	})
	if err != nil {
		return nil, err
	}
	return t.(*targets), nil
}

// parseDiscovery reads the query: a group is a MembersRequest, a prefix or nothing a
// GroupsRequest.
func parseDiscovery(query string) (proto.Message, error) {
	values, err := url.ParseQuery(query)
	e := &endpoint{query: []string{"prefix"}}
	var req proto.Message = &registrypb.GroupsRequest{}
	if err == nil && values.Has("group") {
		if values.Has("prefix") {
			return nil, &fsm.FieldError{Field: "prefix", Limit: "absent where there is a group", Got: fmt.Sprintf("%.64q", values.Get("prefix"))}
		}
		e.query[0], req = "group", &registrypb.MembersRequest{}
	}
	for i := range readOptions.Fields().Len() {
		e.query = append(e.query, string(readOptions.Fields().Get(i).Name()))
	}
	return req, e.parseQuery(query, req)
}

// ofTargets demands what the list of the members, or of the groups, demands.
func ofTargets(req any) []auth.Need {
	if of, ok := req.(*registrypb.MembersRequest); ok {
		return ofGroup(fsm.Discover, of.GetGroup())
	}
	return onPrefix(req)
}

// targets are the members of groups of one state.
type targets struct {
	receipt *registrypb.Receipt
	groups  func(yield func(*fsm.Group) bool)
}

func (s *Server) targets(ctx context.Context, req any) (*targets, error) {
	var err error
	named, ofGroup := req.(*registrypb.MembersRequest)
	prefix := ""
	if ofGroup {
		err = fsm.ValidateName("group", named.GetGroup())
	} else if prefix = req.(*registrypb.GroupsRequest).GetPrefix(); len(prefix) > fsm.MaxNameLength {
		err = prefixTooLong(prefix)
	}
	if err != nil {
		return nil, err
	}
	state, err := s.state(ctx, req.(interface {
		GetRead() *registrypb.ReadOptions
	}).GetRead())
	if err != nil {
		return nil, err
	}
	if !ofGroup {
		return &targets{s.receipt(state, nil), withPrefix(state.State, prefix)}, nil
	}
	g := state.GroupToRead(named.GetGroup())
	if g == nil { // an empty list would drop the targets of a misspelt name
		return nil, fmt.Errorf("%w: %q", fsm.ErrUnknownGroup, named.GetGroup())
	}
	return &targets{s.receipt(state, g), slices.Values([]*fsm.Group{g})}, nil
}

func withPrefix(state *fsm.State, prefix string) func(yield func(*fsm.Group) bool) {
	return func(yield func(*fsm.Group) bool) {
		for g := range state.GroupsFrom(prefix) {
			if !strings.HasPrefix(g.Name, prefix) || !yield(g) {
				return
			}
		}
	}
}

// write answers with the whole list. If the caller does not take it in time, the answer
// ends within a chunk, and the caller knows that it is not whole.
func (t *targets) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	setReceipt(h, &registrypb.MembersResponse{Receipt: t.receipt})
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Encoding")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(HTTPTimeout))
	var out io.Writer = w
	if acceptsGzip(r.Header.Values("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
		defer func() { _ = z.Close() }()               // the error is that of a closed connection
		out = z
	}
	buffered := bufio.NewWriterSize(out, 32<<10)
	if t.encode(buffered) == nil {
		_ = buffered.Flush()
	}
}

// encode writes the list as JSON.
func (t *targets) encode(w *bufio.Writer) error {
	var line []byte
	separator := byte('[')
	for g := range t.groups {
		for m := range g.Members {
			line = appendTarget(append(line[:0], separator), g.Name, m)
			line = append(line, '\n')
			if _, err := w.Write(line); err != nil {
				return err
			}
			separator = ','
		}
	}
	if separator == '[' {
		_ = w.WriteByte('[') // the next write has the error
	}
	_, err := w.WriteString("]\n")
	return err
}
