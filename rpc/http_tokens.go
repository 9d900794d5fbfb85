package rpc

import (
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/rpc/httpjson"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// bodyOf is the message that the body of a request fills: of a token to be created the
// token, else the request.
func bodyOf(req proto.Message) proto.Message {
	var token **registrypb.NewToken
	switch req := req.(type) {
	case *registrypb.InitTokensRequest:
		token = &req.Token
	case *registrypb.CreateTokenRequest:
		token = &req.Token
	default:
		return req
	}
	if *token == nil {
		*token = &registrypb.NewToken{}
	}
	return *token
}

// makeSecret makes the secret of a token for a caller that sent no hash of its own. The
// text has a wrong id: see secretOf.
func makeSecret(req proto.Message) (text string) {
	var id, hash []byte
	switch body := bodyOf(req).(type) {
	case *registrypb.NewToken:
		if len(body.Id) == 0 && len(body.Hash) == 0 {
			text, id, hash = registrypb.MakeToken()
			body.Id, body.Hash = id, hash
		}
	case *registrypb.RotateTokenRequest:
		if len(body.Hash) == 0 {
			text, _, body.Hash = registrypb.MakeToken()
		}
	}
	return text
}

// appendSecret appends the text of a token to the JSON of an answer, for the only time.
// A token that is rotated keeps its id, which the answer has.
func appendSecret(answer []byte, m proto.Message, text string) ([]byte, error) {
	id, err := hex.DecodeString(m.(interface{ GetToken() *registrypb.Token }).GetToken().GetId())
	if err == nil {
		text, err = registrypb.WithTokenID(text, id)
	}
	if err != nil {
		return nil, fmt.Errorf("the token of the answer: %w", err)
	}
	answer = append(answer[:len(answer)-1], `,"secret":`...)
	return append(httpjson.AppendString(answer, text), '}'), nil
}
