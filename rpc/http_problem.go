package rpc

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// httpCodes has the HTTP status code of each reason.
var httpCodes = map[registrypb.ErrorDetail_Reason]int{
	registrypb.ErrorDetail_INVALID_ARGUMENT:  http.StatusBadRequest,
	registrypb.ErrorDetail_UNAUTHENTICATED:   http.StatusUnauthorized,
	registrypb.ErrorDetail_PERMISSION_DENIED: http.StatusForbidden,
	registrypb.ErrorDetail_NOT_OWNER:         http.StatusForbidden,
	registrypb.ErrorDetail_UNKNOWN_GROUP:     http.StatusNotFound,
	registrypb.ErrorDetail_UNKNOWN_MEMBER:    http.StatusNotFound,
	registrypb.ErrorDetail_UNKNOWN_NODE:      http.StatusNotFound,
	registrypb.ErrorDetail_UNKNOWN_TOKEN:     http.StatusNotFound,
	registrypb.ErrorDetail_EMPTY_GROUP:       http.StatusConflict,
	registrypb.ErrorDetail_GROUP_NOT_EMPTY:   http.StatusConflict,
	registrypb.ErrorDetail_CONFLICT:          http.StatusConflict,
	registrypb.ErrorDetail_FENCED:            http.StatusConflict,
	registrypb.ErrorDetail_MEMBERSHIP:        http.StatusConflict,
	registrypb.ErrorDetail_TOKENS_OFF:        http.StatusConflict,
	registrypb.ErrorDetail_LAST_ADMIN:        http.StatusConflict,
	registrypb.ErrorDetail_FEATURE_LEVEL:     http.StatusConflict,
	registrypb.ErrorDetail_REVISION_MISMATCH: http.StatusPreconditionFailed,
	registrypb.ErrorDetail_WRONG_CLUSTER:     http.StatusMisdirectedRequest,
	registrypb.ErrorDetail_NO_LEADER:         http.StatusServiceUnavailable,
	registrypb.ErrorDetail_NOT_READY:         http.StatusServiceUnavailable,
	registrypb.ErrorDetail_STALE:             http.StatusServiceUnavailable,
	registrypb.ErrorDetail_BUSY:              http.StatusServiceUnavailable,
	registrypb.ErrorDetail_OUTCOME_UNKNOWN:   http.StatusGatewayTimeout,
	registrypb.ErrorDetail_EXHAUSTED:         http.StatusInsufficientStorage,
}

// httpError is an error with a status code that no reason has.
type httpError struct {
	code int
	error
}

func (e *httpError) Unwrap() error { return e.error }

// problem is an error as it is in an answer.
type problem struct {
	code                         int
	reason, field, limit, detail string
	leases                       []uint64 // of a heartbeat, that belong to other tokens
}

func problemOf(err error) problem {
	err, own := toStatus(err), httpCode(err)
	detail := detailOf(err)
	p := problem{
		code: own, reason: strings.ToLower(detail.GetReason().String()),
		field: detail.GetField(), limit: detail.GetLimit(), detail: status.Convert(err).Message(),
		leases: detail.GetLeaseIds(),
	}
	if p.code == 0 {
		p.code = httpCodes[detail.GetReason()]
	}
	if p.code == http.StatusUnauthorized && p.field == registrypb.AuthorizationHeader { // an auth.LimitedError
		p.code = http.StatusTooManyRequests
	}
	if p.code == 0 {
		p.code = codeWithoutReason(status.Code(err))
	}
	return p
}

// httpCode is that of an httpError, or 0.
func httpCode(err error) int {
	if e, ok := errors.AsType[*httpError](err); ok {
		return e.code
	}
	return 0
}

func codeWithoutReason(code codes.Code) int {
	switch code {
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded, codes.Canceled:
		return http.StatusGatewayTimeout
	case codes.Unimplemented: // by a leader of an earlier version
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// json is the problem as RFC 9457 has it.
func (p problem) json() []byte {
	b := append([]byte(`{"title":`), httpjson.AppendString(nil, http.StatusText(p.code))...)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(p.code), 10)
	for _, member := range [][2]string{{"detail", p.detail}, {"reason", p.reason}, {"field", p.field}, {"limit", p.limit}} {
		b = append(b, `,"`+member[0]+`":`...)
		b = httpjson.AppendString(b, member[1])
	}
	for i, id := range p.leases {
		if b = append(b, ','); i == 0 {
			b = append(b, `"lease_ids":[`...)
		}
		b = strconv.AppendUint(b, id, 10)
	}
	if len(p.leases) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

// setHeaders says how to authenticate, or when to try again.
func (p problem) setHeaders(h http.Header) {
	switch p.code {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(int(auth.FailureWindow/time.Second)))
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
}

// writeProblem answers with an error.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	p.setHeaders(w.Header())
	writeJSON(w, r, "application/problem+json", p.code, p.json())
}
