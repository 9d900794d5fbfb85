package rpc

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/store/storetest"
)

// An invalid readiness probe is refused: it might find a node ready that is not.
func TestMaxLag(t *testing.T) {
	for query, want := range map[string]struct {
		limit time.Duration
		asked bool
		bad   string // field
	}{
		"":                      {},
		"max_lag=10s":           {limit: 10 * time.Second, asked: true},
		"max_lag=0s":            {asked: true},
		"max_lag=":              {bad: "max_lag"},
		"max_lag":               {bad: "max_lag"},
		"max_lag=10":            {bad: "max_lag"},
		"max_lag=-1s":           {bad: "max_lag"},
		"max_lag=1h&max_lag=1s": {bad: "query"},
		"maxlag=10s":            {bad: "query"},
		"max_lag=10s&other=1":   {bad: "query"},
		"max_lag=10s;":          {bad: "query"}, // net/url drops such a pair
		"max_lag=%zz":           {bad: "query"},
	} {
		limit, asked, err := maxLag(query)
		var field *fsm.FieldError
		if bad := errors.As(err, &field); bad != (want.bad != "") || bad && field.Field != want.bad {
			t.Errorf("%q: %v, want an error of %q", query, err, want.bad)
		} else if !bad && (limit != want.limit || asked != want.asked) {
			t.Errorf("%q: %v, %t, want %v, %t", query, limit, asked, want.limit, want.asked)
		}
	}
	for _, query := range []string{"max_lag=", "%"} {
		if _, _, err := maxLag(query + strings.Repeat("x", 60_000)); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q…: an error of %d bytes", query, len(err.Error()))
		}
	}
}

func TestLivezOfANodeThatIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := storetest.New(t).Open("a")
		h := &httpServer{server: &Server{store: n.Store}}
		for _, want := range []int{http.StatusOK, http.StatusServiceUnavailable} {
			w := httptest.NewRecorder()
			if h.livez(w, nil); w.Code != want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, want)
			}
			n.Stop()
		}
	})
}
