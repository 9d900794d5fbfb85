package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/registrytest"
	"github.com/werbenhu/registry/sdk"
)

func start(t *testing.T, name string) *registrytest.Cluster {
	return registrytest.Start(t, registrytest.WithNodes(1), registrytest.WithConfig(func(c *registry.Config) { c.Cluster = name }))
}

func ask(t *testing.T, url, group string) string {
	t.Helper()
	resp, err := http.Get(url + "/owner?key=user-id-1&group=" + group)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body)))
}

func TestGroupsOfTwoClusters(t *testing.T) {
	eu, us := start(t, "eu"), start(t, "us")
	all, err := dial("eu="+eu.Addrs()+" us="+us.Addrs(), "billing-=eu billing-us-=us", sdk.WithAttemptTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = all.close() })
	srv := httptest.NewServer(all)
	t.Cleanup(srv.Close)

	groups := map[string]string{"billing-1": "eu", "billing-us-1": "us", "billing": ""}
	used := map[string]bool{}
	for i := range 20 {
		groups[fmt.Sprint("web-", i)] = ""
	}
	for group, want := range groups {
		in := all.of(group)
		if want != "" && in.name != want {
			t.Errorf("%s is in %s, want %s", group, in.name, want)
		}
		if want == "" {
			used[in.name] = true
		}
		if _, err := in.client.Register(t.Context(), sdk.Service{Group: group, ID: "a", Addr: "10.0.0.1:80"}); err != nil {
			t.Fatal(err)
		}
		if got, want := ask(t, srv.URL, group), fmt.Sprintf(`200 {"addr":"10.0.0.1:80","cluster":"%s","id":"a"}`, in.name); got != want {
			t.Errorf("%s: got %s, want %s", group, got, want)
		}
		other := map[string]*registrytest.Cluster{"eu": us, "us": eu}[in.name]
		if _, err := other.Client().Members(t.Context(), group); err == nil {
			t.Errorf("%s is in both clusters", group)
		}
	}
	if len(used) != 2 {
		t.Errorf("groups that the table does not name are all in %v", used)
	}
	if got := ask(t, srv.URL, "nobody"); !strings.HasPrefix(got, "404 ") {
		t.Errorf("an unknown group: %s", got)
	}
	if got := ask(t, srv.URL, ""); !strings.HasPrefix(got, "400 ") {
		t.Errorf("no group: %s", got)
	}
	us.Stop(0) // the groups of the other cluster are still answered
	if got := ask(t, srv.URL, "billing-us-1"); !strings.HasPrefix(got, "502 us: ") {
		t.Errorf("a cluster is down: %s", got)
	}
	if got := ask(t, srv.URL, "billing-1"); !strings.HasPrefix(got, "200 ") {
		t.Errorf("the other cluster is down: %s", got)
	}
}

// A third cluster takes groups; none moves between the first two.
func TestAnotherClusterMovesLittle(t *testing.T) {
	open := func(list string) *clusters {
		all, err := dial(list, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = all.close() })
		return all
	}
	two, three := open("a=127.0.0.1:1 b=127.0.0.1:2"), open("a=127.0.0.1:1 b=127.0.0.1:2 c=127.0.0.1:3")
	for i := range 1000 {
		group := fmt.Sprint("web-", i)
		if before, now := two.of(group).name, three.of(group).name; now != before && now != "c" {
			t.Errorf("%s moves from %s to %s", group, before, now)
		}
	}
}

// The addresses of another cluster are refused, not used.
func TestWrongCluster(t *testing.T) {
	eu := start(t, "eu")
	all, err := dial("us="+eu.Addrs(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = all.close() })
	srv := httptest.NewServer(all)
	t.Cleanup(srv.Close)
	if got := ask(t, srv.URL, "web"); !strings.HasPrefix(got, "502 us: ") {
		t.Error(got)
	}
}

func TestBadSettings(t *testing.T) {
	for name, c := range map[string]struct{ clusters, table, says string }{
		"no cluster":        {"", "", "at least one"},
		"no addresses":      {"eu", "", "NAME=ADDRS"},
		"a name twice":      {"eu=127.0.0.1:1 eu=127.0.0.1:2", "", "each name once"},
		"not an address":    {"eu=nowhere", "", "cluster eu"},
		"an unknown name":   {"eu=127.0.0.1:1", "web-=us", "PREFIX=NAME"},
		"an empty prefix":   {"eu=127.0.0.1:1", "=eu", "PREFIX=NAME"},
		"a prefix, no name": {"eu=127.0.0.1:1", "web-", "PREFIX=NAME"},
	} {
		err := run(t.Context(), c.clusters, c.table, "127.0.0.1:0", nil)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.says)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, "eu=127.0.0.1:1", "web-=eu", "127.0.0.1:0", nil); err != nil {
		t.Errorf("stopped: %v", err)
	}
}
