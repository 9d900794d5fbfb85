package rpc

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// object is a JSON object.
type object = map[string]any

// apiComments are the comments of the API's definition, by Message.field and
// Service.Method.
func apiComments(t *testing.T) map[string]string {
	t.Helper()
	source, err := os.ReadFile("registrypb/registry.proto")
	if err != nil {
		t.Fatal(err)
	}
	comments, comment, in := make(map[string]string), "", ""
	scope, item := regexp.MustCompile(`^(?:message|service) (\w+) {`), regexp.MustCompile(`^  (?:rpc (\w+)\(|(?:optional |repeated )?[\w.<>, ]+ (\w+) = \d+;)`)
	for line := range strings.Lines(string(source)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "//"); ok {
			comment = strings.TrimSpace(comment + text)
			continue
		}
		if m := scope.FindStringSubmatch(line); m != nil {
			in = m[1]
		} else if m := item.FindStringSubmatch(line); m != nil && comment != "" {
			comments[in+"."+m[1]+m[2]] = comment
		}
		comment = ""
	}
	return comments
}

// schemas makes the schemas of messages.
type schemas struct {
	comments map[string]string
	all      object
}

// message returns a reference to a message's schema.
func (s *schemas) message(d protoreflect.MessageDescriptor) object {
	name := string(d.Name())
	if s.all[name] == nil {
		s.all[name] = object{} // for messages that have themselves
		s.all[name] = object{"type": "object", "properties": s.properties(d, nil)}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// properties are those with the names; nil: all.
func (s *schemas) properties(d protoreflect.MessageDescriptor, names []string) object {
	properties := object{}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		for _, name := range httpjson.Names(fd) {
			if names == nil || slices.Contains(names, name) {
				properties[name] = s.field(fd, name)
			}
		}
	}
	return properties
}

func (s *schemas) field(fd protoreflect.FieldDescriptor, name string) object {
	var o object
	switch {
	case fd.IsMap():
		o = object{"type": "object", "additionalProperties": s.value(fd.MapValue(), name)}
	case fd.IsList():
		o = object{"type": "array", "items": s.value(fd, name)}
	default:
		o = s.value(fd, name)
		if fd.HasPresence() {
			o = object{"anyOf": []any{o, object{"type": "null"}}}
		}
	}
	if c := s.comments[string(fd.Parent().Name())+"."+string(fd.Name())]; c != "" {
		o["description"] = c
	}
	return o
}

func (s *schemas) value(fd protoreflect.FieldDescriptor, name string) object {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return object{"type": "integer", "minimum": 0}
	case protoreflect.Fixed64Kind:
		return object{"type": "string", "pattern": "^[0-9a-f]{16}$"}
	case protoreflect.EnumKind:
		return object{"type": "string", "enum": httpjson.EnumNames(fd.Enum())}
	case protoreflect.BytesKind:
		if strings.HasSuffix(name, httpjson.Suffix) {
			return object{"type": "string", "contentEncoding": "base64"}
		} else if !httpjson.IsKey(fd) {
			return object{"type": "string", "pattern": "^([0-9a-f]{2})*$"}
		}
	case protoreflect.MessageKind:
		switch {
		case httpjson.IsObject(fd):
			return s.message(fd.Message())
		case httpjson.IsTime(fd):
			return object{"type": "string", "format": "date-time"}
		}
		return object{"type": "string", "examples": []any{"10s"}}
	}
	return object{"type": "string"}
}

// operation describes a route.
func (s *schemas) operation(e *endpoint) object {
	method := methodOf(e.method)
	parameters, request := []any{}, method.Input()
	for _, name := range e.path {
		parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, name := range e.query {
		fd := httpjson.Field(request.Fields(), name)
		if fd == nil {
			fd = httpjson.Field(readOptions.Fields(), name)
		}
		parameters = append(parameters, object{
			"name": name, "in": "query", "schema": s.value(fd, name), "description": s.comments[string(fd.Parent().Name())+"."+string(fd.Name())],
		})
	}
	answer, media := s.message(method.Output()), "application/json"
	if e.stream != nil {
		parameters = append(parameters, object{"name": lastEventID, "in": "header", "schema": object{"type": "string"},
			"description": "The id of the last event: the watch goes on after it. It takes the place of revision, fingerprint and cluster_id."})
		answer, media = s.events(method.Output()), "text/event-stream"
	}
	if token := request.Fields().ByName("token"); token != nil {
		request = token.Message()
	}
	if slices.Contains(e.body, "hash") {
		answer = object{"allOf": []any{answer}, "properties": object{"secret": object{"type": "string", "description": "The token, unless the request has a hash. It is shown here only."}}}
	}
	service := string(method.Parent().Name())
	op := object{
		"operationId": service + "." + string(method.Name()), "tags": []any{service},
		"description": s.comments[service+"."+string(method.Name())], "parameters": parameters,
		"responses": object{
			"200":     object{"description": "The answer.", "content": object{media: object{"schema": answer}}},
			"default": object{"$ref": "#/components/responses/Problem"},
		},
	}
	if e.body != nil {
		body := object{"type": "object", "properties": s.properties(request, e.body), "additionalProperties": false}
		op["requestBody"] = object{"content": object{"application/json": object{"schema": body}}}
	}
	return op
}

// events describes a stream. The names of its events are those of the fields of a oneof,
// and the data of an event are in JSON what the field is.
func (s *schemas) events(d protoreflect.MessageDescriptor) object {
	data := object{"error": object{"$ref": "#/components/schemas/Problem"}}
	fields := d.Oneofs().Get(0).Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Message() != nil {
			data[string(fd.Name())] = s.message(fd.Message())
			continue
		}
		absence := d.Fields().ByName("absence").Message()
		data[string(fd.Name())] = object{"allOf": []any{s.message(absence)}, "properties": object{"group": object{"type": "string"}}}
	}
	return object{"type": "string", "description": "Server-sent events. x-events has the JSON in the data of each event, by its name.", "x-events": data}
}

// problemResponse describes an error.
func (s *schemas) problemResponse() object {
	var reasons []string
	for reason := range httpCodes {
		reasons = append(reasons, strings.ToLower(reason.String()))
	}
	slices.Sort(reasons)
	text := object{"type": "string"}
	s.all["Problem"] = object{"type": "object", "properties": object{
		"title": text, "status": object{"type": "integer"}, "detail": text,
		"reason": object{"type": "string", "examples": reasons}, "field": text, "limit": text,
		"lease_ids": object{
			"type": "array", "items": object{"type": "integer"}, "description": "Of a heartbeat that is not_owner: leases of other tokens, at most 100.",
		},
	}}
	problem := object{"schema": object{"$ref": "#/components/schemas/Problem"}}
	return object{"description": "An error: decide by its reason.", "content": object{"application/problem+json": problem}}
}

// TestDocumentedOpenAPI: the document is that of the routes and messages.
func TestDocumentedOpenAPI(t *testing.T) {
	s, paths := &schemas{comments: apiComments(t), all: object{}}, object{}
	for _, r := range apiRoutes {
		verb, path, _ := strings.Cut(r.pattern, " ")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(verb)] = s.operation(new(Server).newEndpoint(r))
	}
	_, discovery, _ := strings.Cut(discoveryRoute, " ")
	paths[discovery] = object{"get": s.discovery()}
	want, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{"title": "registry", "version": "1", "description": "Integers may be above 2^53 in theory: log indexes count up from 1. " +
			"The caller's token goes into the header Authorization, as Bearer."},
		"paths": paths,
		"components": object{
			"responses": object{"Problem": s.problemResponse()}, "schemas": s.all,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}},
		},
		"security": []any{object{"token": []any{}}, object{}},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.json", append(want, '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(bytes.TrimSpace(openAPI), want) {
		t.Error("openapi.json is not what the routes and messages make: run the test with -update")
	}
	for _, known := range []string{registrypb.Registry_Match_FullMethodName, registrypb.Cluster_Join_FullMethodName} {
		service, method, _ := strings.Cut(known[len("/registry.v1."):], "/")
		if s.comments[service+"."+method] == "" {
			t.Errorf("no comment of %s", known)
		}
	}
}
