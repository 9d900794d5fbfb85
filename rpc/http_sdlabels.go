package rpc

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/httpjson"
)

// Labels of a target. Prometheus drops what begins with __ after relabelling.
const (
	labelPrefix         = "__meta_registry_"
	metadataLabelPrefix = labelPrefix + "metadata_"
)

// appendTarget appends a member as a target group of its own.
func appendTarget(b []byte, group string, m *fsm.Member) []byte {
	b = append(b, `{"targets":[`...)
	b = httpjson.AppendString(b, m.Addr)
	b = append(b, `],"labels":{`...)
	for _, label := range [...][2]string{{"group", group}, {"id", m.ID}, {"state", m.State.String()}} {
		b = append(b, `"`+labelPrefix+label[0]+`":`...)
		b = append(httpjson.AppendString(b, label[1]), ',')
	}
	b = append(b, `"`+labelPrefix+`weight":"`...)
	b = append(strconv.AppendUint(b, uint64(m.Weight), 10), '"')
	names := metadataLabels(m.Meta)
	for i, p := range m.Meta {
		b = append(b, `,"`+metadataLabelPrefix...)
		b = append(append(b, names[i]...), `":`...)
		b = httpjson.AppendString(b, p.Value)
	}
	return append(b, "}}"...)
}

// metadataLabels are the names of the labels of metadata, without their prefix. Of keys
// that become the same name, one that is that name has it, or else the first; the others
// get the suffixes _2, _3 and so on, without those that are taken.
//
// Example: a-b, a.b, a_b become a_b_2, a_b_3, a_b.
func metadataLabels(meta []fsm.Pair) []string {
	names, taken := make([]string, len(meta)), make(map[string]bool, len(meta))
	for i, p := range meta {
		if name := labelName(p.Key); name == p.Key {
			names[i], taken[name] = name, true
		}
	}
	for i, p := range meta {
		if names[i] != "" {
			continue
		}
		name := labelName(p.Key)
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s_%d", labelName(p.Key), n)
		}
		names[i], taken[name] = name, true
	}
	return names
}

// labelName is a key with an underscore for each character that no label may have.
func labelName(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return '_'
	}, key)
}
