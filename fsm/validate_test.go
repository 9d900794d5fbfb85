package fsm

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
)

func TestValidateName(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		ok       bool
	}{
		{"one letter", "a", true},
		{"letters of any script", "группа-组-ñ", true},
		{"a space inside", "a b", true},
		{"longest", strings.Repeat("x", 255), true},
		{"empty", "", false},
		{"one byte too long", strings.Repeat("x", 256), false},
		{"too long in bytes, not in letters", strings.Repeat("ж", 128), false},
		{"slash", "a/b", false},
		{"line feed", "a\nb", false},
		{"zero byte", "a\x00", false},
		{"delete", "a\x7f", false},
		{"no-break space", "a\u00a0b", false},
		{"direction override", "a\u202eb", false},
		{"not UTF-8", "a\xff", false},
		{"half a letter", "ж"[:1], false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkField(t, ValidateName("group", tc.in), "group", tc.ok)
		})
	}
}

// checkField wants no error, or a FieldError that names the field.
func checkField(t *testing.T, err error, field string, ok bool) {
	t.Helper()
	if ok {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var fe *FieldError
	if !errors.As(err, &fe) || !errors.Is(err, ErrInvalid) {
		t.Fatalf("got %v, want a FieldError", err)
	}
	if fe.Field != field || fe.Limit == "" || fe.Got == "" {
		t.Errorf("%+v, want it to name %q", fe, field)
	}
	if len(err.Error()) > 300 {
		t.Errorf("the message repeats what was given: %d bytes", len(err.Error()))
	}
}

func TestValidateAddr(t *testing.T) {
	for in, ok := range map[string]bool{
		"10.0.0.1:80": true, "host:1": true, "my-host.example.com:65535": true, "[::1]:80": true,
		"[2001:db8::1]:7370": true, "[fe80::1%eth0]:80": true, "under_score:80": true,
		strings.Repeat("h", 252) + ":80": true,
		"":                               false, "host": false, "host:": false, ":80": false, "host:0": false, "host:65536": false,
		"host:-1": false, "host:http": false, "host:80:81": false, "::1:80": false, "[::1]": false, "[]:80": false,
		"[::1:80": false, "ho st:80": false, "host/path:80": false, "user@host:80": false, "http://host:80": false,
		"hôst:80": false, "host\x00:80": false, "host\n:80": false, "h\xffst:80": false, "host:8\xff": false,
		"host: 80": false, "host:+80": false, "host?q:80": false, "host#f:80": false, `host"x:80`: false, "<b>:80": false,
		strings.Repeat("h", 253) + ":80": false,
	} {
		t.Run(in, func(t *testing.T) { checkField(t, ValidateAddr("addr", in), "addr", ok) })
	}
}

func TestValidateRegister(t *testing.T) {
	metaOf := func(n int, value string) (pairs []*fsmpb.Pair) {
		for i := range n {
			pairs = append(pairs, &fsmpb.Pair{Key: "k" + string(rune('A'+i)), Value: value})
		}
		return pairs
	}
	for _, tc := range []struct {
		name  string
		edit  func(*registration)
		field string // empty when it is allowed
	}{
		{name: "as it is", edit: func(*registration) {}},
		{name: "no group", edit: func(s *registration) { s.Group = "" }, field: "group"},
		{name: "no id", edit: func(s *registration) { s.Id = "" }, field: "id"},
		{name: "no addr", edit: func(s *registration) { s.Addr = "" }, field: "addr"},
		{name: "weight 0", edit: func(s *registration) { s.Weight = 0 }, field: "weight"},
		{name: "weight 1000", edit: func(s *registration) { s.Weight = 1000 }},
		{name: "weight 1001", edit: func(s *registration) { s.Weight = 1001 }, field: "weight"},
		{name: "largest weight", edit: func(s *registration) { s.Weight = math.MaxUint32 }, field: "weight"},
		{name: "ttl 1s", edit: func(s *registration) { s.TtlMs = 1000 }},
		{name: "ttl 999ms", edit: func(s *registration) { s.TtlMs = 999 }, field: "ttl"},
		{name: "ttl 24h", edit: func(s *registration) { s.TtlMs = 86_400_000 }},
		{name: "ttl 24h and 1ms", edit: func(s *registration) { s.TtlMs = 86_400_001 }, field: "ttl"},
		{name: "ttl 0", edit: func(s *registration) { s.TtlMs = 0 }, field: "ttl"},
		{name: "ttl below 0", edit: func(s *registration) { s.TtlMs = -10_000 }, field: "ttl"},
		// In nanoseconds this wraps around to 11.47 s.
		{name: "ttl that wraps around", edit: func(s *registration) { s.TtlMs = 18_446_744_085_179 }, field: "ttl"},
		{name: "largest ttl", edit: func(s *registration) { s.TtlMs = math.MaxInt64 }, field: "ttl"},
		{name: "no instance", edit: func(s *registration) { s.Instance = nil }, field: "instance"},
		{name: "longest instance", edit: func(s *registration) { s.Instance = make([]byte, 64) }},
		{name: "instance too long", edit: func(s *registration) { s.Instance = make([]byte, 65) }, field: "instance"},
		{name: "64 pairs", edit: func(s *registration) { s.Meta = metaOf(64, "") }},
		{name: "65 pairs", edit: func(s *registration) { s.Meta = metaOf(65, "") }, field: "meta"},
		{name: "8192 bytes", edit: func(s *registration) { s.Meta = metaOf(1, strings.Repeat("x", 8190)) }},
		{name: "8193 bytes", edit: func(s *registration) { s.Meta = metaOf(1, strings.Repeat("x", 8191)) }, field: "meta"},
		{name: "pairs out of order", edit: func(s *registration) { s.Meta = []*fsmpb.Pair{{Key: "b"}, {Key: "a"}} }, field: "meta"},
		{name: "a key twice", edit: func(s *registration) { s.Meta = []*fsmpb.Pair{{Key: "a"}, {Key: "a"}} }, field: "meta"},
		{name: "an empty key", edit: func(s *registration) { s.Meta = []*fsmpb.Pair{{Value: "v"}} }, field: "meta"},
		{name: "a key that is not UTF-8", edit: func(s *registration) { s.Meta = []*fsmpb.Pair{{Key: "\xff"}} }, field: "meta"},
		{name: "a value that is not UTF-8", edit: func(s *registration) { s.Meta = []*fsmpb.Pair{{Key: "k", Value: "\xff"}} }, field: "meta"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newRegistration("web", "a", "10.0.0.1:80", "one")
			tc.edit(s)
			checkField(t, Validate(register(s)), tc.field, tc.field == "")
		})
	}
}

func TestValidateOtherCommands(t *testing.T) {
	long := strings.Repeat("x", 256)
	node := func(edit func(*fsmpb.Node)) *fsmpb.Command {
		n := &fsmpb.Node{Id: "n1", Bind: "n1:1", Addr: "n1:2", Version: "v", Incarnation: "x"}
		edit(n)
		return setNode(n)
	}
	for _, tc := range []struct {
		name  string
		cmd   *fsmpb.Command
		field string
	}{
		{"nothing", &fsmpb.Command{}, "command"},
		{"deregister", deregister("web", "a", ""), ""},
		{"deregister without group", deregister("", "a", ""), "group"},
		{"deregister without id", deregister("web", "", ""), "id"},
		{"deregister by a long instance", deregister("web", "a", long), "instance"},
		{"group", setGroup("web", 64, 0, 0), ""},
		{"group without name", setGroup("", 64, 0, 0), "group"},
		{"63 virtual nodes", setGroup("web", 63, 0, 0), "virtual_nodes"},
		{"32 virtual nodes", setGroup("web", 32, 0, 0), "virtual_nodes"},
		{"96 virtual nodes", setGroup("web", 96, 0, 0), "virtual_nodes"},
		{"4096 virtual nodes", setGroup("web", 4096, 0, 0), ""},
		{"8192 virtual nodes", setGroup("web", 8192, 0, 0), "virtual_nodes"},
		{"no virtual nodes", setGroup("web", 0, 0, 0), "virtual_nodes"},
		{"most virtual nodes", setGroup("web", 1<<31, 0, 0), "virtual_nodes"},
		{"bound 1009", setGroup("web", 64, 1009, 0), "bound"},
		{"bound 1010", setGroup("web", 64, 1010, 0), ""},
		{"bound 10000", setGroup("web", 64, 10_000, 0), ""},
		{"bound 10001", setGroup("web", 64, 10_001, 0), "bound"},
		{"update of nothing", updateMember("web", "a", 0, 0), "weight"},
		{"deletion", deleteGroup("web", false, false, 0), ""},
		{"deletion without name", deleteGroup("", true, false, 0), "group"},
		{"registration in the nodes' group", register(newRegistration(NodesGroupName, "a", "10.0.0.1:80", "one")), "group"},
		{"deregistration in the nodes' group", deregister(NodesGroupName, "a", ""), "group"},
		{"update in the nodes' group", updateMember(NodesGroupName, "a", 2, 0), "group"},
		{"parameters of the nodes' group", setGroup(NodesGroupName, 64, 0, 0), "group"},
		{"deletion of the nodes' group", deleteGroup(NodesGroupName, true, false, 0), "group"},
		{"update without id", updateMember("web", "", 1, 0), "id"},
		{"update to weight 1001", updateMember("web", "a", 1001, 0), "weight"},
		{"update to held", updateMember("web", "a", 0, uint32(ring.Held)+1), ""},
		{"update to no state", updateMember("web", "a", 0, uint32(ring.Held)+2), "state"},
		{"hold of 1 s", hold("web", "a", 1000, ""), ""},
		{"hold of 24 h", hold("web", "a", 86_400_000, "one"), ""},
		{"hold of 999 ms", hold("web", "a", 999, ""), "hold"},
		{"hold of 24 h and 1 ms", hold("web", "a", 86_400_001, ""), "hold"},
		{"hold of a negative time", hold("web", "a", -1, ""), "hold"},
		{"hold that would wrap around as a duration", hold("web", "a", 1<<62, ""), "hold"},
		{"hold by a long instance", hold("web", "a", 1000, long), "instance"},
		{"hold of a draining member", &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
			Group: "web", Id: "a", StatePlusOne: uint32(ring.Draining) + 1, HoldMs: 1000,
		}}}, "hold"},
		{"hold without a state", &fsmpb.Command{Op: &fsmpb.Command_UpdateMember{UpdateMember: &fsmpb.UpdateMember{
			Group: "web", Id: "a", HoldMs: 1000,
		}}}, "hold"},
		{"register as draining", register(&registration{Group: "web", Id: "a", Addr: "a:1", Weight: 1, TtlMs: 1000, Instance: []byte("i"), StatePlusOne: uint32(ring.Draining) + 1}), ""},
		{"register as held", register(&registration{Group: "web", Id: "a", Addr: "a:1", Weight: 1, TtlMs: 1000, Instance: []byte("i"), StatePlusOne: uint32(ring.Held) + 1}), "state"},
		{"node", node(func(*fsmpb.Node) {}), ""},
		{"no node", setNode(nil), "node id"},
		{"node without id", node(func(n *fsmpb.Node) { n.Id = "" }), "node id"},
		{"node without bind", node(func(n *fsmpb.Node) { n.Bind = "" }), "bind"},
		{"node without addr", node(func(n *fsmpb.Node) { n.Addr = "x" }), "addr"},
		{"node that binds all addresses", node(func(n *fsmpb.Node) { n.Bind = "0.0.0.0:1" }), "bind"},
		{"node at all addresses", node(func(n *fsmpb.Node) { n.Addr = "[::]:2" }), "addr"},
		{"node of a long version", node(func(n *fsmpb.Node) { n.Version = long }), "version"},
		{"node of a version that is not UTF-8", node(func(n *fsmpb.Node) { n.Version = "\xff" }), "version"},
		{"node of a long incarnation", node(func(n *fsmpb.Node) { n.Incarnation = long }), "incarnation"},
		{"node of a zone", node(func(n *fsmpb.Node) { n.Zone = long[1:] }), ""},
		{"node of a long zone", node(func(n *fsmpb.Node) { n.Zone = long }), "zone"},
		{"node of a zone with a slash", node(func(n *fsmpb.Node) { n.Zone = "eu/1" }), "zone"},
		{"node of a zone of two lines", node(func(n *fsmpb.Node) { n.Zone = "eu\n1" }), "zone"},
		{"node of a zone that is not UTF-8", node(func(n *fsmpb.Node) { n.Zone = "\xff" }), "zone"},
		{"term start", termStart("n1"), ""},
		{"expiry", expire(1), ""},
		{"node removal", removeNode("n1"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) { checkField(t, Validate(tc.cmd), tc.field, tc.field == "") })
	}
}

func TestValidateKey(t *testing.T) {
	checkField(t, ValidateKey(nil), "key", true)
	checkField(t, ValidateKey(make([]byte, MaxKeyLength)), "key", true)
	checkField(t, ValidateKey(make([]byte, MaxKeyLength+1)), "key", false)
}
