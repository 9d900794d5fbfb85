package rpc

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/audit"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/muxcreds"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// forwardedForKey is the metadata key of the client's address in a forwarded call.
const forwardedForKey = "registry-forwarded-for"

// always is for methods whose every call is an administrative act.
func always(*call, any) bool { return true }

// onForeignMember reports whether a request is about the member of another token. Where
// no token owns the member, a request that names no instance is not by its process.
func onForeignMember(c *call, req any) bool {
	r := req.(interface {
		GetGroup() string
		GetId() string
		GetInstance() []byte
	})
	_, registers := req.(*registrypb.RegisterRequest)
	if caller := c.decision.Load().caller; caller.Token != nil {
		if m := memberOf(c.store.State(), r.GetGroup(), r.GetId()); m != nil && m.Token != "" {
			return m.Token != caller.Token.ID
		}
	}
	return !registers && len(r.GetInstance()) == 0
}

func memberOf(state *fsm.State, group, id string) *fsm.Member {
	if g := state.Group(group); g != nil {
		return g.Member(id)
	}
	return nil
}

func (c *call) isAct(req any) bool { return c.permission.act != nil && c.permission.act(c, req) }

// ended tells the audit log of a call that ended, and returns its error.
func (c *call) ended(ctx context.Context, req any, act bool, err error) error {
	if c.audit == nil || err == nil && !act {
		return err
	}
	code := status.Code(err)
	refused := code == codes.Unauthenticated || code == codes.PermissionDenied
	if !refused && !act {
		return err
	}
	reason := reasonOf(err)
	r := c.record(ctx, req)
	if r.Outcome = audit.OK; err != nil {
		r.Error = status.Convert(err).Message()
		if r.Outcome = code.String(); reason != registrypb.ErrorDetail_UNSPECIFIED {
			r.Outcome = reason.String()
		}
	}
	switch {
	case refused:
		c.audit.Refused(r)
	case reason == registrypb.ErrorDetail_NO_LEADER, reason == registrypb.ErrorDetail_NOT_READY:
		// Nobody decided about it, and it is repeated.
	case err != nil && (r.TokenID == "" || !mayHaveEffect(reason)):
		c.audit.Failed(r)
	default:
		c.audit.Act(r)
	}
	return err
}

// AuditRemoval tells the audit log that the node, as the leader, removed a dead voter by
// itself, or failed to.
func AuditRemoval(log *audit.Log, id string, err error) {
	r := &audit.Record{Method: "RemoveDead", TargetNode: id, Outcome: audit.OK}
	if err == nil {
		log.Act(r)
		return
	}
	err = toStatus(err)
	reason := reasonOf(err)
	r.Outcome, r.Error = reason.String(), status.Convert(err).Message()
	if mayHaveEffect(reason) {
		log.Act(r)
		return
	}
	log.Failed(r)
}

// mayHaveEffect reports whether an act that failed for that reason may have an effect.
func mayHaveEffect(reason registrypb.ErrorDetail_Reason) bool {
	return reason == registrypb.ErrorDetail_OUTCOME_UNKNOWN || reason == registrypb.ErrorDetail_UNSPECIFIED
}

// record says who makes a call, and what it is about.
func (c *call) record(ctx context.Context, req any) *audit.Record {
	r := &audit.Record{Method: methodName(c.method), Port: string(c.port)}
	_, r.Forwarded = forwardedTo(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		r.From = p.Addr.String()
		cert := muxcreds.Certificate(p)
		showed(r, cert)
		client := metadata.ValueFromIncomingContext(ctx, forwardedForKey)
		if r.Forwarded && cert != nil && len(client) == 1 { // a node says so
			r.From, r.Via = client[0], r.From
		}
	}
	c.who(r)
	about(r, req)
	return r
}

// methodName is Tokens/Create of /registry.v1.Tokens/Create.
func methodName(full string) string {
	return full[strings.LastIndexByte(full, '.')+1:]
}

// who names the caller's token. A refused call has no decision.
func (c *call) who(r *audit.Record) {
	var caller auth.Caller
	if d := c.decision.Load(); d != nil {
		caller = d.caller
	}
	if caller.Token == nil && len(c.headers) > 0 {
		caller, _ = auth.Identify(c.store.State(), c.headers, time.Now()) // or nobody
	}
	if t := caller.Token; t != nil {
		r.Token, r.TokenID = t.Name, hex.EncodeToString([]byte(t.ID))
		return
	}
	r.Presented = hex.EncodeToString([]byte(auth.Presented(c.headers)))
}

// showed sets what a certificate says.
func showed(r *audit.Record, cert *x509.Certificate) {
	if cert == nil {
		return
	}
	r.Subject = cert.Subject.String()
	if len(cert.URIs) > 0 {
		r.URI = cert.URIs[0].String()
	}
}

// about sets what a request names.
func about(r *audit.Record, req any) {
	if w, ok := req.(registrypb.Write); ok {
		r.RequestID = w.GetRequestId()
	}
	switch req := req.(type) {
	case *registrypb.JoinRequest:
		r.TargetNode = req.GetBind()
	case *peerpb.JoinRequest:
		r.TargetNode = req.GetId()
	case *registrypb.RemoveRequest:
		r.TargetNode = req.GetId()
	case *registrypb.LeaveRequest:
		r.TargetNode = req.GetId()
	case *registrypb.TransferRequest:
		r.TargetNode = req.GetId()
	case *peerpb.RecoverTokensRequest:
		r.TargetToken = req.GetName()
	case *registrypb.InitTokensRequest:
		r.TargetToken = req.GetToken().GetName()
	case *registrypb.CreateTokenRequest:
		r.TargetToken, r.Grants = req.GetToken().GetName(), grantsText(req.GetToken())
	case *registrypb.RotateTokenRequest:
		r.TargetToken = req.GetName()
	case *registrypb.RevokeTokenRequest:
		r.TargetToken = req.GetName()
	default:
		if of, ok := req.(interface{ GetGroup() string }); ok {
			r.Group = of.GetGroup()
		}
		if of, ok := req.(interface{ GetId() string }); ok {
			r.Member = of.GetId()
		}
	}
}

// grantsText is empty for a token that is not valid.
func grantsText(of *registrypb.NewToken) string {
	t, err := newToken(of)
	if err != nil {
		return ""
	}
	grants := make([]string, len(t.Grants))
	for i, g := range t.Grants {
		grants[i] = fsm.Grant{Rights: fsm.Right(g.Rights), Prefix: g.Prefix}.String()
	}
	return strings.Join(grants, " ")
}
