package rpc

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// gzipFrom is the size of a body from which on it is compressed.
const gzipFrom = 1 << 10

// writeAnswer answers with a message, and with its receipt in headers. The secret is that
// of a new token, or empty.
func writeAnswer(w http.ResponseWriter, r *http.Request, m proto.Message, secret string) error {
	setReceipt(w.Header(), m)
	if members, ok := m.(*registrypb.MembersResponse); ok {
		// Weak, because the body has the receipt, too.
		tag := fmt.Sprintf(`W/"%d-%016x"`, members.GetReceipt().GetRevision(), members.GetReceipt().GetFingerprint())
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "no-cache")
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	body := httpjson.Append(nil, m)
	if secret != "" {
		var err error
		if body, err = appendSecret(body, m, secret); err != nil {
			return err
		}
	}
	writeJSON(w, r, "application/json", http.StatusOK, body)
	return nil
}

// matches reports whether a list of entity tags has the tag, by weak comparison.
func matches(lists []string, tag string) bool {
	for _, list := range lists {
		for given := range strings.SplitSeq(list, ",") {
			given = strings.TrimSpace(given)
			if given == "*" || strings.TrimPrefix(given, "W/") == strings.TrimPrefix(tag, "W/") {
				return true
			}
		}
	}
	return false
}

// setReceipt sets the headers of an answer's receipt; of an answer without one, those of
// its index and revision.
func setReceipt(h http.Header, m proto.Message) {
	if with, ok := m.(interface{ GetReceipt() *registrypb.Receipt }); ok {
		r := with.GetReceipt()
		h.Set("Registry-Index", strconv.FormatUint(r.GetIndex(), 10))
		h.Set("Registry-Lag", r.GetLag().AsDuration().String())
		h.Set("Registry-Node", url.PathEscape(r.GetNode()))
		if r.GetRevision() != 0 { // of a group
			h.Set("Registry-Revision", strconv.FormatUint(r.GetRevision(), 10))
			h.Set("Registry-Fingerprint", fmt.Sprintf("%016x", r.GetFingerprint()))
		}
		return
	}
	if with, ok := m.(interface{ GetIndex() uint64 }); ok {
		h.Set("Registry-Index", strconv.FormatUint(with.GetIndex(), 10))
	}
	if with, ok := m.(interface{ GetRevision() uint64 }); ok {
		h.Set("Registry-Revision", strconv.FormatUint(with.GetRevision(), 10))
	}
}

// writeJSON writes a body, which ends with a newline.
func writeJSON(w http.ResponseWriter, r *http.Request, media string, code int, body []byte) {
	body = append(body, '\n')
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	if len(body) > gzipFrom && acceptsGzip(r.Header.Values("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body = zip(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	// The server's deadline began with the call. An error is that of a closed connection.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(HTTPTimeout))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

func zip(body []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is valid
	_, _ = z.Write(body)                            // to memory
	_ = z.Close()
	return b.Bytes()
}

// acceptsGzip reports whether a caller accepts gzip by name.
func acceptsGzip(lists []string) bool {
	for _, list := range lists {
		for coding := range strings.SplitSeq(list, ",") {
			name, q, _ := strings.Cut(coding, ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q = strings.TrimPrefix(strings.ReplaceAll(q, " ", ""), "q=")
				weight, err := strconv.ParseFloat(q, 64)
				return q == "" || err == nil && weight > 0
			}
		}
	}
	return false
}

func httpTooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
