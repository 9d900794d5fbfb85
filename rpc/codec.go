package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// frame is a message that is encoded already: an event that many watchers get
// is encoded once. It is a pointer, so that handing it on allocates nothing.
type frame = *encodedFrame

type encodedFrame struct{ data mem.BufferSlice }

func newFrame(data []byte) frame { return &encodedFrame{mem.BufferSlice{mem.SliceBuffer(data)}} }

// frameCodec is the protobuf codec, but passes frames through.
type frameCodec struct{ encoding.CodecV2 }

func newFrameCodec() encoding.CodecV2 { return frameCodec{encoding.GetCodecV2(proto.Name)} }

func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(frame); ok {
		return f.data, nil // gRPC reads it only
	}
	return c.CodecV2.Marshal(v)
}
