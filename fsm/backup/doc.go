// Package backup writes and reads snapshot files: the whole state of a cluster at one
// index of its log, for people to keep.
//
// # Format
//
// A file is the line "registry snapshot" and parts. Each part is
//
//	1 byte   kind: H the header, S a piece of the state, E the end
//	4 bytes  length of the data, little endian, at most 1 MiB
//	8 bytes  XXH64, little endian, of kind, number of the part (8 bytes), length and data
//	data
//
// The first part is the header (fsmpb.BackupHeader), which has the format's version and
// the digest of the state. The data of the pieces, one after the other, is the stream of
// records of package fsm, which raft's snapshots have, too, with a checksum and a digest
// of its own. The end has no data. Nothing follows it.
//
// # Promises
//
// Read refuses a file in which a byte was changed, or that was cut off or continued, and
// says where. It holds no more than one part and the state in memory. What it accepts has
// the digest that the header names, and values within the limits of the API.
//
// A file has what the state has: addresses, metadata, and the hashes of tokens. The
// checksums find accidents. They are no protection against forgery.
package backup
