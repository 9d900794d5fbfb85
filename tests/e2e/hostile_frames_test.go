package e2e

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
)

// A hostile frame is what is written to a fresh connection.
type hostileFrame struct {
	name string
	make func(r *rand.Rand, cluster string) []byte
}

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// onBind are for the port of the nodes, onClients for that of the clients.
func onBind() []hostileFrame {
	return append(http2Frames(),
		hostileFrame{"wrong handshake", func(r *rand.Rand, id string) []byte { return append([]byte("R"), noise32(r, len(id))...) }},
		hostileFrame{"half a handshake", func(r *rand.Rand, id string) []byte { return []byte("R" + id[:r.IntN(len(id))]) }},
		hostileFrame{"garbage after the handshake", func(r *rand.Rand, id string) []byte { return append([]byte("R"+id), noise32(r, 1+r.IntN(4096))...) }},
		hostileFrame{"mutated message", func(r *rand.Rand, id string) []byte {
			m := raftMessage(r)
			for range 1 + r.IntN(8) {
				m[r.IntN(len(m))] = byte(r.Uint32())
			}
			return append([]byte("R"+id), m...)
		}},
		hostileFrame{"truncated message", func(r *rand.Rand, id string) []byte {
			m := raftMessage(r)
			return append([]byte("R"+id), m[:r.IntN(len(m))]...)
		}},
		hostileFrame{"giant length", func(r *rand.Rand, id string) []byte {
			giant := [][]byte{{0xdd}, {0xc6}, {0xdb}, {0xdf}}[r.IntN(4)] // array, bytes, string, map
			m := append([]byte{byte(r.IntN(5)), 0x81, 0xa7}, "Entries"...)
			return append(append(append([]byte("R"+id), m...), giant...), 0xff, 0xff, 0xff, 0xff, 1, 2, 3)
		}})
}

func onClients() []hostileFrame {
	return append(http2Frames(),
		hostileFrame{"noise", func(r *rand.Rand, _ string) []byte { return noise32(r, 1+r.IntN(2048)) }},
		hostileFrame{"half a request", func(r *rand.Rand, _ string) []byte {
			const request = "GET /v1/groups HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n"
			return []byte(request[:1+r.IntN(len(request)-1)])
		}},
		hostileFrame{"request of noise", func(r *rand.Rand, _ string) []byte {
			return append([]byte("POST /v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"), noise32(r, 100)...)
		}},
		hostileFrame{"long line", func(*rand.Rand, string) []byte { return []byte("GET /" + strings.Repeat("x", 100<<10)) }})
}

// http2Frames are for both ports.
func http2Frames() []hostileFrame {
	return []hostileFrame{
		{"frames of noise", func(r *rand.Rand, _ string) []byte {
			b := []byte(http2Preface)
			for range 1 + r.IntN(20) {
				b = frame(b, byte(r.IntN(12)), byte(r.Uint32()), r.Uint32()>>1, noise32(r, r.IntN(64)))
			}
			return b
		}},
		{"SETTINGS flood", func(*rand.Rand, string) []byte {
			b := []byte(http2Preface)
			for range 500 {
				b = frame(b, 4, 0, 0, []byte{0, 4, 0, 0, 0xff, 0xff})
			}
			return b
		}},
		{"HEADERS flood", func(r *rand.Rand, _ string) []byte {
			b := frame([]byte(http2Preface), 4, 0, 0, nil)
			for i := range uint32(500) {
				b = frame(b, 1, 4, 2*i+1, noise32(r, 32))
			}
			return b
		}},
		{"streams that are reset", func(*rand.Rand, string) []byte {
			b := frame([]byte(http2Preface), 4, 0, 0, nil)
			for i := range uint32(500) {
				b = frame(b, 1, 5, 2*i+1, []byte{0x83, 0x86, 0x84})
				b = frame(b, 3, 0, 2*i+1, []byte{0, 0, 0, 8})
			}
			return b
		}},
		{"giant frame", func(*rand.Rand, string) []byte {
			return append([]byte(http2Preface), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1)
		}},
	}
}

// frame adds an HTTP/2 frame.
func frame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

func noise32(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// raftMessage is a well-formed message of an old term, in msgpack.
func raftMessage(r *rand.Rand) []byte {
	var b bytes.Buffer
	b.WriteByte(byte(r.IntN(5)))
	fields := []string{"Term", "PrevLogEntry", "PrevLogTerm", "LeaderCommitIndex", "LastLogIndex", "LastLogTerm", "Size"}
	b.WriteByte(0x80 | byte(len(fields)+2))
	name := func(s string) {
		b.WriteByte(0xa0 | byte(len(s)))
		b.WriteString(s)
	}
	for _, f := range fields {
		name(f)
		b.WriteByte(byte(r.IntN(2))) // a small number
	}
	name("Leader")
	b.Write([]byte{0xc4, 3, 'n', ':', '1'})
	name("RPCHeader")
	b.WriteByte(0x81)
	name("ProtocolVersion")
	b.WriteByte(3)
	return b.Bytes()
}
