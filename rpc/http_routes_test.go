package rpc

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// Every method of the API has a route, but those whose streams are not of events:
// heartbeats, and the bytes of snapshots.
func TestEveryMethodHasARoute(t *testing.T) {
	routed := make(map[string]bool)
	for _, r := range apiRoutes {
		routed[r.method] = true
	}
	for _, service := range []grpc.ServiceDesc{registrypb.Registry_ServiceDesc, registrypb.Cluster_ServiceDesc, registrypb.Tokens_ServiceDesc} {
		for _, m := range service.Methods {
			if full := "/" + service.ServiceName + "/" + m.MethodName; !routed[full] {
				t.Errorf("%s has no route", full)
			}
		}
		for _, m := range service.Streams {
			if full := "/" + service.ServiceName + "/" + m.StreamName; routed[full] != (full == registrypb.Registry_Watch_FullMethodName) {
				t.Errorf("%s has a route: %t", full, routed[full])
			}
		}
	}
}

// Every field of a request comes from the path, the query or the body, but for those
// that HTTP has no place for.
func TestEveryFieldHasAPlace(t *testing.T) {
	for _, r := range apiRoutes {
		e := new(Server).newEndpoint(r)
		known := strings.Join(append(append(append([]string{}, e.path...), e.query...), e.body...), " ") + " "
		fields := methodOf(r.method).Input().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			for _, name := range httpjson.Names(fd) {
				if !strings.Contains(known, name+" ") && !isRead(fd) && name != "token" && fd.FullName() != "registry.v1.WatchRequest.known" {
					t.Errorf("%s: no place for %s", r.pattern, fd.FullName())
				}
			}
		}
	}
}

func pathValue(name, group, id string) string {
	if name == "group" {
		return group
	}
	return id
}

func messageOf(e *endpoint) proto.Message {
	m, err := protoregistry.GlobalTypes.FindMessageByName(methodOf(e.method).Input().FullName())
	if err != nil {
		panic(err)
	}
	return m.New().Interface()
}

// FuzzRequest: no request is a panic, and no query or body changes what the path says.
func FuzzRequest(f *testing.F) {
	var endpoints []*endpoint
	for _, r := range apiRoutes {
		endpoints = append(endpoints, new(Server).newEndpoint(r))
	}
	f.Add("web", "a", "key=k&n=2&linearizable=true", []byte(`{"addr":"h:1"}`))
	f.Add("ü", "%", "key_base64=%2Fw%3D%3D&max_staleness=1s", []byte(`{"keys":["a"],"n":1}`))
	f.Fuzz(func(t *testing.T, group, id, query string, body []byte) {
		for _, e := range endpoints {
			r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.URL.RawQuery = query
			for _, name := range e.path {
				r.SetPathValue(name, pathValue(name, group, id))
			}
			if e.body == nil {
				r.Body = httptest.NewRequest("GET", "/", nil).Body
			}
			req := messageOf(e)
			if e.parse(httptest.NewRecorder(), r, req) != nil {
				continue
			}
			for _, name := range e.path {
				want := pathValue(name, group, id)
				fd := req.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
				if got := req.ProtoReflect().Get(fd).String(); got != want {
					t.Fatalf("%s: %s is %q, want %q", e.pattern, name, got, want)
				}
			}
		}
	})
}
