package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// frame is an encoded message: an event is encoded once for all watchers. It is a
// pointer, so that passing it as an any allocates nothing.
type frame = *encodedFrame

type encodedFrame struct{ data mem.BufferSlice }

func newFrame(data []byte) frame { return &encodedFrame{mem.BufferSlice{mem.SliceBuffer(data)}} }

// frameCodec is the protobuf codec, which also takes frames.
type frameCodec struct{ encoding.CodecV2 }

func newFrameCodec() encoding.CodecV2 { return frameCodec{encoding.GetCodecV2(proto.Name)} }

func (c frameCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(frame); ok {
		return f.data, nil // gRPC only reads it
	}
	return c.CodecV2.Marshal(v)
}
