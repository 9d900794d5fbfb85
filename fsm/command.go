package fsm

import (
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/werbenhu/registry/fsm/fsmpb"
)

// envelopeVersion is what Encode writes and the only one that decode accepts.
// Version 1 bounded the points of all rings together, so its log would be
// applied to another state.
const envelopeVersion = 2

// Encode puts a command into the envelope of a log entry.
func Encode(cmd *fsmpb.Command) ([]byte, error) {
	payload, err := proto.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	data, err := proto.Marshal(&fsmpb.Entry{
		Version:  envelopeVersion,
		Checksum: xxhash.Sum64(payload),
		Payload:  payload,
	})
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	return data, nil
}

var (
	errVersion  = errors.New("envelope has an unknown version")
	errChecksum = errors.New("checksum mismatch")
	errCommand  = errors.New("unknown command")
)

// CheckEntry checks the envelope of a log entry. Apply panics at a damaged one.
func CheckEntry(data []byte) error {
	_, err := open(data)
	return err
}

// open returns what is in an envelope.
func open(data []byte) (payload []byte, err error) {
	var entry fsmpb.Entry
	if err := proto.Unmarshal(data, &entry); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if entry.Version != envelopeVersion {
		return nil, fmt.Errorf("%w: %d", errVersion, entry.Version)
	}
	if got := xxhash.Sum64(entry.Payload); got != entry.Checksum {
		return nil, fmt.Errorf("%w: entry says %016x, payload has %016x", errChecksum, entry.Checksum, got)
	}
	return entry.Payload, nil
}

func decode(data []byte) (*fsmpb.Command, error) {
	payload, err := open(data)
	if err != nil {
		return nil, err
	}
	var cmd fsmpb.Command
	if err := proto.Unmarshal(payload, &cmd); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if cmd.Op == nil {
		return nil, errCommand
	}
	return &cmd, nil
}

// TurnsTokensOn reports whether a log entry may create the first token.
func TurnsTokensOn(data []byte) bool {
	cmd, err := decode(data)
	return err != nil || cmd.GetCreateToken() != nil || cmd.GetRestoreEnd() != nil
}
