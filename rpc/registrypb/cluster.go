package registrypb

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// ClusterHeader is the metadata key of the cluster's name and id in every answer, and
// of the cluster that a request is for: its name, its id, or both. A node refuses a
// request for another cluster with the reason WRONG_CLUSTER. The value is that of
// ClusterRef.Encode.
const ClusterHeader = "registry-cluster"

// ClusterRef names a cluster. An empty part is unknown.
type ClusterRef struct {
	Name string
	ID   string // made when the cluster was formed: Receipt.cluster_id
}

// ParseClusterRef parses NAME, NAME/ID or /ID, without encoding; the parts may be
// empty, and have at most 255 bytes of UTF-8 each.
func ParseClusterRef(s string) (ClusterRef, error) {
	name, id, _ := strings.Cut(s, "/")
	return ClusterRef{Name: name, ID: id}.checked(s)
}

func (r ClusterRef) checked(s string) (ClusterRef, error) {
	if max(len(r.Name), len(r.ID)) > maxPart || !utf8.ValidString(r.Name+r.ID) || strings.Contains(r.Name+r.ID, "/") {
		return ClusterRef{}, fmt.Errorf("cluster %.600q, want NAME, NAME/ID or /ID, at most %d bytes of UTF-8 each", s, maxPart)
	}
	return r, nil
}

// maxPart is the limit on the names of clusters, in bytes; ids have 32.
const maxPart = 255

// String returns the form that ParseClusterRef parses.
func (r ClusterRef) String() string {
	if r.ID == "" {
		return r.Name
	}
	return r.Name + "/" + r.ID
}

// Encode is String with each part percent-encoded, because metadata is ASCII.
//
// Example: the cluster «prod ü» of id 3f0c is prod%20%C3%BC/3f0c.
func (r ClusterRef) Encode() string {
	return ClusterRef{Name: url.PathEscape(r.Name), ID: url.PathEscape(r.ID)}.String()
}

// DecodeClusterRef parses the form of Encode.
func DecodeClusterRef(s string) (ClusterRef, error) {
	name, id, _ := strings.Cut(s, "/")
	name, nameErr := url.PathUnescape(name)
	id, idErr := url.PathUnescape(id)
	if err := cmp.Or(nameErr, idErr); err != nil {
		return ClusterRef{}, fmt.Errorf("cluster %.600q: %w", s, err)
	}
	return ClusterRef{Name: name, ID: id}.checked(s)
}

// Differs reports whether the two name different clusters: a part that both know
// differs.
func (r ClusterRef) Differs(other ClusterRef) bool {
	return differ(r.Name, other.Name) || differ(r.ID, other.ID)
}

// Complete returns r with its unknown parts taken from the other.
func (r ClusterRef) Complete(other ClusterRef) ClusterRef {
	return ClusterRef{Name: cmp.Or(r.Name, other.Name), ID: cmp.Or(r.ID, other.ID)}
}

func differ(a, b string) bool { return a != "" && b != "" && a != b }
