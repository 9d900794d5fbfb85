package registrypb

import "google.golang.org/protobuf/proto"

// Write is a request that takes effect at most once, however often it is sent: see
// "Deduplication of writes" in registry.proto.
type Write interface {
	proto.Message
	GetRequestId() []byte
	GetSince() uint64
	GetAgain() bool
	// SetAttempt sets these three fields.
	SetAttempt(requestID []byte, since uint64, again bool)
}

// SetAttempt implements Write.
func (x *RegisterRequest) SetAttempt(requestID []byte, since uint64, again bool) {
	x.RequestId, x.Since, x.Again = requestID, since, again
}

// SetAgain says of all registrations that the outcome of an earlier attempt is unknown.
func (x *RegisterManyRequest) SetAgain() {
	for _, r := range x.GetRegistrations() {
		r.Again = true
	}
}

// SetAttempt implements Write.
func (x *DeregisterRequest) SetAttempt(requestID []byte, since uint64, again bool) {
	x.RequestId, x.Since, x.Again = requestID, since, again
}

// SetAttempt implements Write.
func (x *UpdateMemberRequest) SetAttempt(requestID []byte, since uint64, again bool) {
	x.RequestId, x.Since, x.Again = requestID, since, again
}

// SetAttempt implements Write.
func (x *SetGroupRequest) SetAttempt(requestID []byte, since uint64, again bool) {
	x.RequestId, x.Since, x.Again = requestID, since, again
}

// SetAttempt implements Write.
func (x *DeleteGroupRequest) SetAttempt(requestID []byte, since uint64, again bool) {
	x.RequestId, x.Since, x.Again = requestID, since, again
}
