package httpjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// filled returns a message with a value in every field.
func filled(m protoreflect.Message) protoreflect.Message {
	switch m.Interface().(type) {
	case *durationpb.Duration:
		return durationpb.New(1500 * time.Millisecond).ProtoReflect()
	case *timestamppb.Timestamp:
		return timestamppb.New(time.Unix(1_700_000_000, 5)).ProtoReflect()
	}
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if one := fd.ContainingOneof(); one != nil && m.WhichOneof(one) != nil {
			continue
		}
		switch {
		case fd.IsMap():
			for _, k := range []string{"", "b", "a\"\\ü\u2028<"} {
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString(k).MapKey(), value(fd.MapValue(), nil))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range 2 {
				list.Append(value(fd, func() protoreflect.Message { return list.NewElement().Message() }))
			}
		default:
			m.Set(fd, value(fd, func() protoreflect.Message { return m.NewField(fd).Message() }))
		}
	}
	return m
}

func value(fd protoreflect.FieldDescriptor, message func() protoreflect.Message) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1<<32 - 1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1<<64 - 2)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text \"\\ü\x00\u2028<&>")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("\x01ab"))
	case protoreflect.MessageKind:
		return protoreflect.ValueOfMessage(filled(message()))
	}
	panic("no JSON for " + fd.FullName() + " of kind " + protoreflect.FullName(fd.Kind().String()))
}

// messages are those of the API, without values.
func messages(t testing.TB) (all []proto.Message) {
	t.Helper()
	list := (*registrypb.Member)(nil).ProtoReflect().Descriptor().ParentFile().Messages()
	for i := range list.Len() {
		m, err := protoregistry.GlobalTypes.FindMessageByName(list.Get(i).FullName())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m.New().Interface())
	}
	if len(all) < 50 {
		t.Fatalf("%d messages", len(all))
	}
	return all
}

// Every message of the API has a JSON that is read as the same message. Keys are the
// exception: they are text only when they are read.
func TestMessagesKeepTheirValues(t *testing.T) {
	for _, m := range messages(t) {
		for name, m := range map[string]proto.Message{"filled": filled(m.ProtoReflect().New()).Interface(), "empty": m} {
			data := httpjson.Append(nil, m)
			var members map[string]any
			if err := json.Unmarshal(data, &members); err != nil {
				t.Fatalf("%T, %s: %v in %s", m, name, err, data)
			}
			if name == "empty" || hasKey(m.ProtoReflect().Descriptor()) {
				continue
			}
			got := m.ProtoReflect().New().Interface()
			if err := httpjson.Decode(data, got, nil); err != nil {
				t.Errorf("%T: %v in %s", m, err, data)
			} else if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
				t.Errorf("%T: %s", m, diff)
			}
		}
	}
}

func hasKey(d protoreflect.MessageDescriptor) bool {
	for i := range d.Fields().Len() {
		if httpjson.IsKey(d.Fields().Get(i)) {
			return true
		}
	}
	return false
}

// What is read has one meaning, or is an error that names the field.
func TestDecode(t *testing.T) {
	for data, want := range map[string]struct {
		m     proto.Message
		field string
	}{
		`{"keys":["k","\u00fc"]}`:               {m: &registrypb.MatchManyRequest{Keys: [][]byte{[]byte("k"), []byte("ü")}}},
		`{"keys_base64":["/w=="],"n":2}`:        {m: &registrypb.MatchManyRequest{Keys: [][]byte{{0xff}}, N: 2}},
		`{"keys":["\ud83d\ude00"]}`:             {m: &registrypb.MatchManyRequest{Keys: [][]byte{[]byte("😀")}}},
		`{"keys":["\\ud83d"]}`:                  {m: &registrypb.MatchManyRequest{Keys: [][]byte{[]byte(`\ud83d`)}}},
		`{"keys":["a"],"keys_base64":["YQ=="]}`: {field: "keys_base64"},
		`{"keys_base64":["YR=="]}`:              {field: "keys_base64[0]"}, // bits that mean nothing
		`{"keys_base64":["YQ"]}`:                {field: "keys_base64[0]"},
		`{"keys":["\ud83d"]}`:                   {field: "body"},
		`{"keys":["\ude00\ud83d"]}`:             {field: "body"},
		`{"keys":["\\\ud83d"]}`:                 {field: "body"},
		`{"keys":[null]}`:                       {field: "keys[0]"},
		`{"keys":null}`:                         {field: "keys"},
		`{"n":-1}`:                              {field: "n"},
		`{"n":1e3}`:                             {field: "n"},
		`{"n":4294967296}`:                      {field: "n"},
		`{"n":null}`:                            {m: &registrypb.MatchManyRequest{}},
		`{"read":{"max_staleness":"1.5s"}}`:     {m: &registrypb.MatchManyRequest{Read: &registrypb.ReadOptions{MaxStaleness: durationpb.New(1500 * time.Millisecond)}}},
		`{"read":{"max_staleness":"1"}}`:        {field: "read.max_staleness"},
		`{"read":{"linearizable":"true"}}`:      {field: "read.linearizable"},
		`{"read":{"staleness":1}}`:              {field: "read.staleness"},
		`{"read":[]}`:                           {field: "read"},
		`{"keys":["k"]`:                         {field: "body"},
		`{"keys":["k"]}}`:                       {field: "body"},
		``:                                      {field: "body"},
		`null`:                                  {field: "body"},
		`{"\ud83d\ude00":1}`:                    {field: "😀"},
	} {
		got := &registrypb.MatchManyRequest{}
		err := httpjson.Decode([]byte(data), got, nil)
		bad, is := errors.AsType[*fsm.FieldError](err)
		switch {
		case want.field != "" && (!is || bad.Field != want.field):
			t.Errorf("%s: %v, want an error of %s", data, err, want.field)
		case want.m != nil && (err != nil || !proto.Equal(got, want.m)):
			t.Errorf("%s: %v, %v", data, got, err)
		}
	}
}

// FuzzDecode: what is accepted says the same when it is written and read again.
func FuzzDecode(f *testing.F) {
	read := []proto.Message{&registrypb.RegisterRequest{}, &registrypb.NewToken{}, &registrypb.WatchRequest{}}
	for _, m := range read {
		f.Add(httpjson.Append(nil, filled(m.ProtoReflect().New()).Interface()))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range read {
			m := m.ProtoReflect().New().Interface()
			if httpjson.Decode(data, m, nil) != nil {
				continue
			}
			again := m.ProtoReflect().New().Interface()
			if err := httpjson.Decode(httpjson.Append(nil, m), again, nil); err != nil || !proto.Equal(m, again) {
				t.Fatalf("%T of %q: %v; %v, then %v", m, data, err, m, again)
			}
		}
	})
}

// A list of objects is refused before it takes much more memory than its text.
func TestListsOfObjectsAreBounded(t *testing.T) {
	list := func(n int) []byte {
		return []byte(`{"registrations":[{}` + strings.Repeat(",{}", n-1) + `]}`)
	}
	got := &registrypb.RegisterManyRequest{}
	if err := httpjson.Decode(list(fsm.MaxBatch), got, nil); err != nil || len(got.Registrations) != fsm.MaxBatch {
		t.Errorf("%d: %d, %v", fsm.MaxBatch, len(got.Registrations), err)
	}
	err := httpjson.Decode(list(fsm.MaxBatch+1), got, nil)
	if bad, is := errors.AsType[*fsm.FieldError](err); !is || bad.Field != "registrations" {
		t.Errorf("one more: %v", err)
	}
}
