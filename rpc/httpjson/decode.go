package httpjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/werbenhu/registry/fsm"
)

// Set sets a field of the message, which is no object and no list, from text as it is
// in a path or a query.
func Set(m proto.Message, name, text string) error {
	r := m.ProtoReflect()
	fd := Field(r.Descriptor().Fields(), name)
	v, err := parse(name, name, fd, text)
	if err != nil {
		return err
	}
	return put(r, fd, name, v)
}

// put sets a field that is not set yet.
func put(r protoreflect.Message, fd protoreflect.FieldDescriptor, path string, v protoreflect.Value) error {
	if err := isFree(r, fd, path); err != nil {
		return err
	}
	r.Set(fd, v)
	return nil
}

// isFree checks that a field is not set yet, by another name or within its oneof.
func isFree(r protoreflect.Message, fd protoreflect.FieldDescriptor, path string) error {
	if one := fd.ContainingOneof(); one != nil && r.WhichOneof(one) != nil || IsKey(fd) && r.Has(fd) {
		return &fsm.FieldError{Field: path, Limit: "given once, under one name", Got: "another one, too"}
	}
	return nil
}

// Decode sets fields of the message from a JSON object. The names that it takes are
// given; those within it take all.
func Decode(data []byte, m proto.Message, names []string) error {
	if err := check(data); err != nil {
		return err
	}
	d := decoder{json.NewDecoder(bytes.NewReader(data))}
	d.UseNumber()
	return d.object("", d.next(), m.ProtoReflect(), names)
}

// check checks that the data are one JSON value whose strings are Unicode: otherwise
// the decoder would replace what is none.
func check(data []byte) error {
	var value json.RawMessage
	switch err := json.Unmarshal(data, &value); {
	case err != nil:
		return &fsm.FieldError{Field: "body", Limit: "one JSON object", Got: err.Error()}
	case !utf8.Valid(data) || loneSurrogate(data):
		return &fsm.FieldError{Field: "body", Limit: "JSON in UTF-8", Got: "a string that is no Unicode"}
	}
	return nil
}

// loneSurrogate reports whether valid JSON has an escape \uD800 to \uDFFF that is not
// one of a pair.
func loneSurrogate(data []byte) bool {
	unit := func(at int) rune {
		if at+6 > len(data) || data[at] != '\\' || data[at+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(data[at+2:at+6]), 16, 16)
		return rune(n)
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		if r := unit(i); utf16.IsSurrogate(r) {
			if utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError {
				return true
			}
			i += 6
		}
		i++ // the escaped character
	}
	return false
}

// decoder reads valid JSON, so its tokens come without errors.
type decoder struct{ *json.Decoder }

func (d decoder) next() json.Token {
	t, err := d.Token()
	if err != nil {
		panic(fmt.Errorf("httpjson: valid JSON: %w", err))
	}
	return t
}

// object reads an object, which begins with the token t, into a message; no names: it
// takes all.
func (d decoder) object(path string, t json.Token, m protoreflect.Message, names []string) error {
	if t != json.Delim('{') {
		return typeError(path, "an object", t)
	}
	return d.members(path, func(name, path string) error {
		fd := Field(m.Descriptor().Fields(), name)
		if fd == nil || names != nil && !slices.Contains(names, name) {
			return Unknown(path, takes(m.Descriptor(), names))
		}
		return d.field(path, name, m, fd)
	})
}

// members reads the members of an object, up to its end. A name is there once.
func (d decoder) members(path string, member func(name, path string) error) error {
	seen := make(map[string]bool)
	for d.More() {
		name := d.next().(string)
		at := strings.TrimPrefix(path+"."+name, ".")
		if seen[name] {
			return &fsm.FieldError{Field: shorten(at), Limit: "given once", Got: "it twice"}
		}
		seen[name] = true
		if err := member(name, at); err != nil {
			return err
		}
	}
	d.next()
	return nil
}

// takes are the names that an object takes.
func takes(m protoreflect.MessageDescriptor, names []string) []string {
	if names != nil {
		return names
	}
	for i := range m.Fields().Len() {
		names = append(names, Names(m.Fields().Get(i))...)
	}
	return names
}

// Unknown is the error of an unknown name.
func Unknown(name string, known []string) error {
	limit := "absent: nothing is known here"
	if len(known) > 0 {
		limit = "one of " + strings.Join(known, ", ")
	}
	return &fsm.FieldError{Field: shorten(name), Limit: limit, Got: "an unknown name"}
}

func shorten(name string) string { return fmt.Sprintf("%.64s", name) }

func (d decoder) field(path, name string, m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
	switch {
	case fd.IsMap():
		return d.mapOf(path, m.Mutable(fd).Map(), fd)
	case fd.IsList():
		return d.list(path, name, m, fd)
	}
	t := d.next()
	if t == nil {
		return nil // unset
	}
	if IsObject(fd) {
		if err := isFree(m, fd, path); err != nil {
			return err
		}
		return d.object(path, t, m.Mutable(fd).Message(), nil)
	}
	v, err := scalar(path, name, fd, t)
	if err != nil {
		return err
	}
	return put(m, fd, path, v)
}

func (d decoder) list(path, name string, m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
	if t := d.next(); t != json.Delim('[') {
		return typeError(path, "a list", t)
	}
	list := m.NewField(fd).List()
	for d.More() {
		at := fmt.Sprintf("%s[%d]", path, list.Len())
		if IsObject(fd) {
			if list.Len() == fsm.MaxBatch { // an empty object takes much more memory than text
				return &fsm.FieldError{Field: shorten(path), Limit: fmt.Sprintf("at most %d", fsm.MaxBatch), Got: "more"}
			}
			if err := d.object(at, d.next(), list.AppendMutable().Message(), nil); err != nil {
				return err
			}
			continue
		}
		v, err := scalar(at, name, fd, d.next())
		if err != nil {
			return err
		}
		list.Append(v)
	}
	d.next()
	return put(m, fd, path, protoreflect.ValueOfList(list))
}

func (d decoder) mapOf(path string, to protoreflect.Map, fd protoreflect.FieldDescriptor) error {
	if t := d.next(); t != json.Delim('{') {
		return typeError(path, "an object", t)
	}
	return d.members(path, func(name, path string) error {
		v, err := scalar(path, name, fd.MapValue(), d.next())
		if err != nil {
			return err
		}
		to.Set(protoreflect.ValueOfString(name).MapKey(), v)
		return nil
	})
}

// scalar parses a token, which must have the JSON type of the field.
func scalar(path, name string, fd protoreflect.FieldDescriptor, t json.Token) (protoreflect.Value, error) {
	switch t := t.(type) {
	case bool:
		if fd.Kind() == protoreflect.BoolKind {
			return protoreflect.ValueOfBool(t), nil
		}
	case json.Number:
		if IsNumber(fd) {
			return parse(path, name, fd, t.String())
		}
	case string:
		if fd.Kind() != protoreflect.BoolKind && !IsNumber(fd) {
			return parse(path, name, fd, t)
		}
	}
	return protoreflect.Value{}, typeError(path, wanted(fd, name), t)
}

// IsNumber reports whether a value of the field is a JSON number.
func IsNumber(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.Uint32Kind || fd.Kind() == protoreflect.Uint64Kind
}

// typeError is the error of a token of another type.
func typeError(path, limit string, t json.Token) error {
	if path == "" {
		path = "body"
	}
	got := "null"
	switch t.(type) {
	case bool:
		got = "a boolean"
	case json.Number:
		got = "a number"
	case string:
		got = "a string"
	case json.Delim:
		got = "an object or a list"
	}
	return &fsm.FieldError{Field: shorten(path), Limit: limit, Got: got}
}
