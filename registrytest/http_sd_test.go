package registrytest_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/fsm"
)

// targetsOf reads a list as Prometheus does, and returns the labels by target.
func targetsOf(t *testing.T, a httpAnswer) map[string]map[string]string {
	t.Helper()
	var list []struct {
		Targets []string
		Labels  map[string]string
	}
	if got := a.header.Get("Content-Type"); a.code != http.StatusOK || got != "application/json" {
		t.Fatalf("%d, %s: %s", a.code, got, a.text)
	}
	if err := json.Unmarshal([]byte(a.text), &list); err != nil {
		t.Fatalf("%v in %s", err, a.text)
	}
	all := make(map[string]map[string]string)
	for _, l := range list {
		for _, target := range l.Targets {
			all[target] = l.Labels
		}
	}
	return all
}

// Members are targets, of a group, of a prefix or of all groups, with what is known of
// them as labels.
func TestPrometheusDiscovery(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	put := func(member, body string) (index string) {
		t.Helper()
		a := c.http(t, 0, c.admin, "PUT /v1/groups/"+member, body)
		if a.code != http.StatusOK {
			t.Fatalf("%d %s", a.code, a.text)
		}
		return a.header.Get("Registry-Index")
	}
	put("web-1/members/a", `{"addr":"10.0.0.1:80","weight":3,"state":"draining","ttl":"1h","meta":{"zone":"a \"b\"","a-b":"1","a.b":"2"}}`)
	put("web-2/members/b", `{"addr":"10.0.0.2:80","ttl":"1h"}`)
	put("db/members/c", `{"addr":"10.0.0.3:80","ttl":"1h"}`)
	at := "min_index=" + put("web-none", "{}")

	want := map[string]string{
		"__meta_registry_group": "web-1", "__meta_registry_id": "a", "__meta_registry_state": "draining", "__meta_registry_weight": "3",
		"__meta_registry_metadata_zone": `a "b"`, "__meta_registry_metadata_a_b": "1", "__meta_registry_metadata_a_b_2": "2",
	}
	if got := targetsOf(t, c.http(t, 1, c.admin, "GET /v1/sd/prometheus?group=web-1&"+at, "")); len(got) != 1 || !maps.Equal(got["10.0.0.1:80"], want) {
		t.Errorf("%v, want %v", got, want)
	}
	for query, targets := range map[string][]string{
		"":                  {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"},
		"prefix=web-":       {"10.0.0.1:80", "10.0.0.2:80"},
		"prefix=":           {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"},
		"prefix=x":          nil,
		"group=web-none":    nil, // which exists
		"linearizable=true": {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"},
	} {
		a := c.http(t, 2, c.admin, "GET /v1/sd/prometheus?"+query+"&"+at, "")
		if got := slices.Sorted(maps.Keys(targetsOf(t, a))); !slices.Equal(got, targets) {
			t.Errorf("%q: %q, want %q", query, got, targets)
		}
		if a.header.Get("Registry-Index") == "" || a.header.Get("Registry-Node") != "n3" || a.header.Get("Registry-Cluster") == "" {
			t.Errorf("%q: headers %v", query, a.header)
		}
	}
	nodes := targetsOf(t, c.http(t, 0, c.admin, "GET /v1/sd/prometheus?group="+fsm.NodesGroupName, ""))
	for i, n := range c.nodes {
		if labels := nodes[n.Addr()]; labels["__meta_registry_id"] != c.nodes[i].ID() || len(nodes) != 3 {
			t.Errorf("the nodes: %v", nodes)
		}
	}
	zipped := c.http(t, 0, c.admin, "GET /v1/sd/prometheus", "", "Accept-Encoding", "gzip")
	z, err := gzip.NewReader(strings.NewReader(zipped.text))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || !strings.HasPrefix(string(plain), `[{"targets":["10.0.0.3:80"]`) {
		t.Errorf("compressed: %s, %v", plain, err)
	}
}

// What cannot be answered with the whole list is an error, with which Prometheus keeps
// the targets that it has.
func TestPrometheusDiscoveryErrors(t *testing.T) {
	t.Parallel()
	c := newTokenCluster(t)
	leader := c.http(t, 0, c.admin, "GET /v1/cluster", "").body["leader"]
	follower := slices.IndexFunc(c.nodes, func(n *registry.Node) bool { return n.ID() != leader })
	web := c.grant(t, "web", nil, may("web-", rightDiscover))
	register := c.grant(t, "register", nil, may("", rightRegister))
	for _, row := range []struct {
		name, token, query string
		code               int
		reason, field      string
	}{
		{"no token", "", "", 401, "unauthenticated", ""},
		{"no right", register, "group=web-1", 403, "permission_denied", "group"},
		{"all groups, with a right on some", web, "", 403, "permission_denied", "prefix"},
		{"a shorter prefix", web, "prefix=web", 403, "permission_denied", "prefix"},
		{"another group", web, "group=db", 403, "permission_denied", "group"},
		{"its prefix", web, "prefix=web-", 200, "", ""},
		{"its group, which does not exist", web, "group=web-1", 404, "unknown_group", ""},
		{"group and prefix", c.admin, "group=a&prefix=b", 400, "invalid_argument", "prefix"},
		{"no group", c.admin, "group=", 400, "invalid_argument", "group"},
		{"no group's name", c.admin, "group=a/b", 400, "invalid_argument", "group"},
		{"a long prefix", c.admin, "prefix=" + strings.Repeat("x", 256), 400, "invalid_argument", "prefix"},
		{"two groups", c.admin, "group=a&group=b", 400, "invalid_argument", "group"},
		{"a misspelt name", c.admin, "grp=a", 400, "invalid_argument", "grp"},
		{"a broken query", c.admin, "group=%zz", 400, "invalid_argument", "query"},
		{"pages", c.admin, "group=a&page_size=1", 400, "invalid_argument", "page_size"},
		{"too stale", c.admin, "max_staleness=0s", 503, "stale", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := c.http(t, follower, row.token, "GET /v1/sd/prometheus?"+row.query, "")
			if reason, field := a.problem(); a.code != row.code || reason != row.reason || row.field != "" && field != row.field {
				t.Errorf("%d %s, want %d %s %s", a.code, a.text, row.code, row.reason, row.field)
			}
			if (a.code == 503) != (a.header.Get("Retry-After") != "") {
				t.Errorf("%d, Retry-After %q", a.code, a.header.Get("Retry-After"))
			}
		})
	}
}
