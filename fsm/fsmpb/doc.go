// Package fsmpb is what the log and the snapshots hold, generated from fsm.proto.
// Its messages are written to disk, so they are read by all later versions. The
// public API is package registrypb.
//
//	data, err := fsm.Encode(&fsmpb.Command{Op: &fsmpb.Command_Check{Check: &fsmpb.Check{}}})
package fsmpb
