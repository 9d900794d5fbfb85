package rpc

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/werbenhu/registry/docs"
	"github.com/werbenhu/registry/rpc/registrypb"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

// comments are those of the reasons in the API's definition.
func reasonComments(t *testing.T) map[string]string {
	t.Helper()
	proto, err := os.ReadFile("registrypb/registry.proto")
	if err != nil {
		t.Fatal(err)
	}
	_, enum, _ := strings.Cut(string(proto), "enum Reason {")
	enum, _, _ = strings.Cut(enum, "}")
	comments, comment := make(map[string]string), ""
	value := regexp.MustCompile(`^(\w+) = \d+;`)
	for line := range strings.Lines(enum) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "// "); ok {
			comment = strings.TrimSpace(comment + " " + text)
		} else if m := value.FindStringSubmatch(line); m != nil {
			comments[m[1]], comment = comment, ""
		}
	}
	return comments
}

// sentinelName is the SDK's error of a reason: ErrUnknownGroup of UNKNOWN_GROUP.
func sentinelName(reason string) string {
	name := "Err"
	for word := range strings.SplitSeq(strings.ToLower(reason), "_") {
		name += strings.ToUpper(word[:1]) + word[1:]
	}
	return name
}

// TestDocumentedErrors: the reference has the reasons, codes and sentinels.
func TestDocumentedErrors(t *testing.T) {
	sdk, err := os.ReadFile("../sdk/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	comments := reasonComments(t)
	table := "| reason | gRPC code | HTTP | Go | |\n|---|---|---|---|---|\n"
	for _, i := range slices.Sorted(maps.Keys(registrypb.ErrorDetail_Reason_name)) {
		reason := registrypb.ErrorDetail_Reason(i)
		if reason == registrypb.ErrorDetail_UNSPECIFIED {
			continue
		}
		name := sentinelName(reason.String())
		if !strings.Contains(string(sdk), "\t"+name+" = errors.New(") {
			t.Errorf("the SDK has no %s", name)
		}
		meaning := strings.TrimSuffix(comments[reason.String()], ".")
		if meaning == "" { // the name says it
			meaning = strings.ReplaceAll(reason.String()[:1]+strings.ToLower(reason.String()[1:]), "_", " ")
		}
		if http.StatusText(httpCodes[reason]) == "" {
			t.Errorf("%v has no HTTP status code", reason)
		}
		table += fmt.Sprintf("| `%s` | `%s` | %d | `sdk.%s` | %s |\n", reason, codeOf(t, reason), httpCodes[reason], name, meaning)
	}
	if err := docs.Generated("..", "docs/reference/errors.md", "errors", table, *update); err != nil {
		t.Error(err)
	}
}

// codeOf is the one gRPC code that a reason travels under.
func codeOf(t *testing.T, reason registrypb.ErrorDetail_Reason) codes.Code {
	t.Helper()
	found := codes.OK
	for _, w := range wireErrors {
		if w.reason != reason {
			continue
		}
		if found != codes.OK && found != w.code {
			t.Errorf("%v travels under %v and %v", reason, found, w.code)
		}
		found = w.code
	}
	if found == codes.OK {
		t.Errorf("no error has the reason %v", reason)
	}
	return found
}

// TestDocumentedWatchLimits: the reference has the limits of this package.
func TestDocumentedWatchLimits(t *testing.T) {
	table := "| | limit |\n|---|---|\n"
	table += fmt.Sprintf("| progress interval | %v – %v; %v by default |\n", minProgress, maxProgress, defaultProgress)
	table += fmt.Sprintf("| members or groups in a page | 1 – %d,%03d, and as many as fit |\n", maxPage/1000, maxPage%1000)
	table += fmt.Sprintf("| groups that a watch of a prefix goes on from | %d,%03d |\n", maxKnown/1000, maxKnown%1000)
	table += fmt.Sprintf("| lists for Prometheus that a node sends at once | %d |\n", maxDiscoveries)
	table += fmt.Sprintf("| watches over HTTP | %d,%03d at one node, %d,%03d of one source; the node's own machine may have all |\n",
		maxHTTPWatches/1000, maxHTTPWatches%1000, maxHTTPWatchesSource/1000, maxHTTPWatchesSource%1000)
	table += fmt.Sprintf("| a watcher over HTTP | takes %d KiB within %v, or is closed; gets an event or a comment every %v |\n", takenAtOnce>>10, HTTPTimeout, aliveTime)
	if err := docs.Generated("..", "docs/reference/limits.md", "watches", table, *update); err != nil {
		t.Error(err)
	}
}
