package rpc

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// apiRoute is a call of the API over HTTP. The wildcards of its pattern are fields of the
// request. Of the other fields, those of read are parameters of the query; the rest is in
// the body of a POST, PUT or PATCH, or also in the query.
type apiRoute struct {
	pattern string
	method  string // gRPC's full name
}

// apiRoutes has every method of the API but those that stream heartbeats, snapshots and
// diagnoses.
var apiRoutes = []apiRoute{
	{"GET /v1/groups", registrypb.Registry_Groups_FullMethodName},
	{"PUT /v1/groups/{group}", registrypb.Registry_SetGroup_FullMethodName},
	{"DELETE /v1/groups/{group}", registrypb.Registry_DeleteGroup_FullMethodName},
	{"GET /v1/groups/{group}/members", registrypb.Registry_Members_FullMethodName},
	{"PUT /v1/groups/{group}/members/{id}", registrypb.Registry_Register_FullMethodName},
	{"PATCH /v1/groups/{group}/members/{id}", registrypb.Registry_UpdateMember_FullMethodName},
	{"DELETE /v1/groups/{group}/members/{id}", registrypb.Registry_Deregister_FullMethodName},
	{"GET /v1/groups/{group}/match", registrypb.Registry_Match_FullMethodName},
	{"POST /v1/groups/{group}/match", registrypb.Registry_MatchMany_FullMethodName},
	{"GET /v1/groups/{group}/guard", registrypb.Registry_Guard_FullMethodName},
	{"POST /v1/groups/{group}/accept-loss", registrypb.Registry_AcceptLoss_FullMethodName},
	{"POST /v1/register", registrypb.Registry_RegisterMany_FullMethodName},
	{"POST /v1/heartbeat", registrypb.Registry_Heartbeat_FullMethodName},
	{"GET /v1/index", registrypb.Registry_Index_FullMethodName},
	{"GET /v1/watch", registrypb.Registry_Watch_FullMethodName},

	{"GET /v1/cluster", registrypb.Cluster_Status_FullMethodName},
	{"POST /v1/cluster/join", registrypb.Cluster_Join_FullMethodName},
	{"POST /v1/cluster/feature-level", registrypb.Cluster_RaiseFeatureLevel_FullMethodName},
	{"POST /v1/cluster/transfer", registrypb.Cluster_Transfer_FullMethodName},
	{"DELETE /v1/cluster/nodes/{id}", registrypb.Cluster_Remove_FullMethodName},
	{"POST /v1/cluster/nodes/{id}/leave", registrypb.Cluster_Leave_FullMethodName},

	{"GET /v1/tokens", registrypb.Tokens_List_FullMethodName},
	{"POST /v1/tokens", registrypb.Tokens_Create_FullMethodName},
	{"DELETE /v1/tokens/{name}", registrypb.Tokens_Revoke_FullMethodName},
	{"POST /v1/tokens/{name}/rotate", registrypb.Tokens_Rotate_FullMethodName},
	{"POST /v1/tokens/init", registrypb.Tokens_Init_FullMethodName},
	{"GET /v1/tokens/self", registrypb.Tokens_Self_FullMethodName},
}

// endpoint is a route with what it takes and calls.
type endpoint struct {
	apiRoute
	server *Server
	on     any // the service's implementation
	unary  grpc.MethodHandler
	stream grpc.StreamHandler // of a stream of events; one of both is nil

	path  []string // the pattern's wildcards
	query []string // the query's parameters
	body  []string // the body's members; nil: the route takes no body
}

var wildcard = regexp.MustCompile(`{(\w+)}`)

// newEndpoint finds a route's handler and splits its request's fields. It panics for a
// route that cannot be served: the routes are constant.
func (s *Server) newEndpoint(r apiRoute) *endpoint {
	e := &endpoint{apiRoute: r, server: s}
	for _, service := range []struct {
		desc *grpc.ServiceDesc
		on   any
	}{
		{&registrypb.Registry_ServiceDesc, s},
		{&registrypb.Cluster_ServiceDesc, s},
		{&registrypb.Tokens_ServiceDesc, tokensServer{Server: s}},
	} {
		for _, m := range service.desc.Methods {
			if r.method == "/"+service.desc.ServiceName+"/"+m.MethodName {
				e.on, e.unary = service.on, m.Handler
			}
		}
		for _, m := range service.desc.Streams {
			if r.method == "/"+service.desc.ServiceName+"/"+m.StreamName {
				e.on, e.stream = service.on, m.Handler
			}
		}
	}
	if e.on == nil {
		panic(fmt.Sprintf("rpc: no method %s", r.method))
	}
	e.split(methodOf(r.method).Input())
	return e
}

// methodOf is the descriptor of a method of the API.
func methodOf(full string) protoreflect.MethodDescriptor {
	name := protoreflect.FullName(strings.ReplaceAll(full[1:], "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		panic(fmt.Errorf("rpc: %s: %w", full, err))
	}
	return d.(protoreflect.MethodDescriptor)
}

// split decides where each field of the request comes from.
func (e *endpoint) split(request protoreflect.MessageDescriptor) {
	for _, m := range wildcard.FindAllStringSubmatch(e.pattern, -1) {
		e.path = append(e.path, m[1])
	}
	verb, _, _ := strings.Cut(e.pattern, " ")
	if verb == "POST" || verb == "PUT" || verb == "PATCH" {
		e.body = []string{}
	}
	fields := request.Fields()
	if token := fields.ByName("token"); token != nil { // see bodyOf
		fields = token.Message().Fields()
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case slices.Contains(e.path, string(fd.Name())):
		case isRead(fd):
			for j := range fd.Message().Fields().Len() {
				e.query = append(e.query, string(fd.Message().Fields().Get(j).Name()))
			}
		case e.body != nil:
			e.body = append(e.body, httpjson.Names(fd)...)
		case !fd.IsList() && !fd.IsMap() && !httpjson.IsObject(fd):
			e.query = append(e.query, httpjson.Names(fd)...)
		}
	}
}

var readOptions = (*registrypb.ReadOptions)(nil).ProtoReflect().Descriptor()

func isRead(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && fd.Message().FullName() == readOptions.FullName()
}

// target returns the message that a parameter is a field of: the request, or its read
// options, which are set then.
func target(req proto.Message, name string) proto.Message {
	r := req.ProtoReflect()
	fd := r.Descriptor().Fields().ByName("read")
	if fd == nil || !isRead(fd) || readOptions.Fields().ByName(protoreflect.Name(name)) == nil {
		return req
	}
	return r.Mutable(fd).Message().Interface()
}
