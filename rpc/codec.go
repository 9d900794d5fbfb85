package rpc

import (
	"sync"
	"weak"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// frame is an encoded message: an event is encoded once for all watchers. It is a
// pointer, so that passing it as an any allocates nothing.
type frame = *encodedFrame

type encodedFrame struct {
	data mem.BufferSlice

	mu    sync.Mutex // guards event
	event weak.Pointer[event]
}

func newFrame(data []byte) frame {
	return &encodedFrame{data: mem.BufferSlice{mem.SliceBuffer(data)}}
}

// frameCodec is the protobuf codec, which also takes frames.
type frameCodec struct{ encoding.CodecV2 }

func newFrameCodec() encoding.CodecV2 { return frameCodec{encoding.GetCodecV2(proto.Name)} }

func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(frame); ok {
		return f.data, nil // gRPC only reads it
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal parses no more registrations than show that there are too many. An empty one
// takes two bytes of a request and a hundred times as much memory, before anything is
// known about the caller.
func (c frameCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, many := v.(*registrypb.RegisterManyRequest); many {
		all := data.Materialize()
		data = mem.BufferSlice{mem.SliceBuffer(all[:registrationsSize(all, fsm.MaxBatch+1)])}
	}
	return c.CodecV2.Unmarshal(data, v)
}

// registrationsSize is the size of a request up to its n-th registration, or of all of it.
func registrationsSize(request []byte, n int) (size int) {
	for n > 0 {
		field, _, length := protowire.ConsumeField(request[size:])
		if length < 0 {
			return len(request) // its end, or what the codec refuses
		}
		size += length
		if field == 1 {
			n--
		}
	}
	return size
}
