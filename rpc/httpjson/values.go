package httpjson

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/fsm"
)

// Suffix is that of the name which takes a key of any bytes.
const Suffix = "_base64"

// IsKey reports whether a field is a key or a list of keys.
func IsKey(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.BytesKind && (fd.Name() == "key" || fd.Name() == "keys")
}

// Field returns the field that a name stands for, or nil.
func Field(fields protoreflect.FieldDescriptors, name string) protoreflect.FieldDescriptor {
	if fd := fields.ByName(protoreflect.Name(name)); fd != nil {
		return fd
	}
	if key, ok := strings.CutSuffix(name, Suffix); ok {
		if fd := fields.ByName(protoreflect.Name(key)); fd != nil && IsKey(fd) {
			return fd
		}
	}
	return nil
}

// Names returns the names that stand for a field.
func Names(fd protoreflect.FieldDescriptor) []string {
	if name := string(fd.Name()); IsKey(fd) {
		return []string{name, name + Suffix}
	}
	return []string{string(fd.Name())}
}

// The messages that are one value in JSON.
var (
	durationName  = (*durationpb.Duration)(nil).ProtoReflect().Descriptor().FullName()
	timestampName = (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor().FullName()
)

// IsDuration and IsTime report what a field holds.
func IsDuration(fd protoreflect.FieldDescriptor) bool { return is(fd, durationName) }

// IsTime is described there.
func IsTime(fd protoreflect.FieldDescriptor) bool { return is(fd, timestampName) }

func is(fd protoreflect.FieldDescriptor, message protoreflect.FullName) bool {
	return fd.Kind() == protoreflect.MessageKind && fd.Message().FullName() == message
}

// IsObject reports whether an element of the field is a JSON object.
func IsObject(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.MessageKind && !IsDuration(fd) && !IsTime(fd)
}

// EnumName is the name of an enum's value. A value that this version does not know is
// the zero value.
func EnumName(enum protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	value := enum.Values().ByNumber(n)
	if value == nil {
		value = enum.Values().ByNumber(0)
	}
	return strings.ToLower(strings.TrimPrefix(string(value.Name()), enumPrefix(enum)))
}

// enumPrefix is that of the values: MEMBER_STATE_ of MemberState.
func enumPrefix(enum protoreflect.EnumDescriptor) string {
	var b strings.Builder
	for i, r := range string(enum.Name()) {
		if i > 0 && 'A' <= r && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String()) + "_"
}

// EnumNames are the names of an enum's values.
func EnumNames(enum protoreflect.EnumDescriptor) (names []string) {
	for i := range enum.Values().Len() {
		names = append(names, EnumName(enum, enum.Values().Get(i).Number()))
	}
	return names
}

// wanted says what a value of the field must be.
func wanted(fd protoreflect.FieldDescriptor, name string) string {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.Uint32Kind:
		return "an integer, 0 to 4294967295"
	case protoreflect.Uint64Kind:
		return "an integer, 0 to 18446744073709551615"
	case protoreflect.Fixed64Kind:
		return "16 hex digits"
	case protoreflect.EnumKind:
		return "one of " + strings.Join(EnumNames(fd.Enum()), ", ")
	case protoreflect.StringKind:
		return "text in UTF-8"
	case protoreflect.BytesKind:
		switch {
		case !IsKey(fd):
			return "hex digits, two for each byte"
		case strings.HasSuffix(name, Suffix):
			return "base64 with padding"
		}
		return "text"
	}
	if IsDuration(fd) {
		return "a duration, for instance 10s"
	}
	return "a time as in RFC 3339, for instance 2030-01-02T15:04:05Z"
}

// parse parses the text of one value of a field that is no object. The name decides
// how a key is written; the path is that of errors.
func parse(path, name string, fd protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	if v, ok := parseValue(name, fd, text); ok {
		return v, nil
	}
	return protoreflect.Value{}, fieldError(path, wanted(fd, name), text)
}

func parseValue(name string, fd protoreflect.FieldDescriptor, text string) (v protoreflect.Value, ok bool) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(text == "true"), text == "true" || text == "false"
	case protoreflect.Uint32Kind:
		n, err := strconv.ParseUint(text, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err == nil
	case protoreflect.Uint64Kind:
		n, err := strconv.ParseUint(text, 10, 64)
		return protoreflect.ValueOfUint64(n), err == nil
	case protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(text, 16, 64)
		return protoreflect.ValueOfUint64(n), err == nil && len(text) == 16
	case protoreflect.EnumKind:
		for i := range fd.Enum().Values().Len() {
			n := fd.Enum().Values().Get(i).Number()
			if EnumName(fd.Enum(), n) == text {
				return protoreflect.ValueOfEnum(n), true
			}
		}
		return v, false
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text), utf8.ValidString(text)
	case protoreflect.BytesKind:
		data, err := parseBytes(name, fd, text)
		return protoreflect.ValueOfBytes(data), err == nil
	}
	m, ok := parseTime(fd, text)
	return protoreflect.ValueOfMessage(m.ProtoReflect()), ok
}

func parseBytes(name string, fd protoreflect.FieldDescriptor, text string) ([]byte, error) {
	switch {
	case !IsKey(fd):
		return hex.DecodeString(text)
	case strings.HasSuffix(name, Suffix):
		return base64.StdEncoding.Strict().DecodeString(text)
	}
	return []byte(text), nil
}

func parseTime(fd protoreflect.FieldDescriptor, text string) (proto.Message, bool) {
	if IsDuration(fd) {
		d, err := time.ParseDuration(text)
		return durationpb.New(d), err == nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return timestamppb.New(t), err == nil && timestamppb.New(t).IsValid()
}

// fieldError is the error of a value; the value is shortened.
func fieldError(field, limit, got string) error {
	return &fsm.FieldError{Field: field, Limit: limit, Got: fmt.Sprintf("%.64q", got)}
}
