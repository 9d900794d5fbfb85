package peertls

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/certs"
)

// Limits of a secret file.
const (
	MinSecret  = 32      // bytes that a line decodes to
	MaxSecrets = 2       // of a file
	maxFile    = 4 << 10 // bytes
)

// NewSecret returns a line of a secret file: base64 of 32 random bytes.
func NewSecret() string {
	secret := make([]byte, MinSecret)
	_, _ = rand.Read(secret) // never fails
	return base64.StdEncoding.EncodeToString(secret)
}

// ParseSecrets reads a secret file: one or two secrets, one per line, each base64
// (RFC 4648, section 4) of 32 bytes or more. Empty lines and spaces around a secret do
// not count. A node issues its certificate by the first secret, and accepts those by
// both. So a new secret reaches a running cluster in three steps, each on all nodes
// before the next: old and new, new and old, new.
func ParseSecrets(data []byte) ([][]byte, error) {
	if len(data) > maxFile {
		return nil, fileError("at most 4096 bytes", fmt.Sprintf("%d", len(data)))
	}
	var secrets [][]byte
	for n, line := range bytes.Split(data, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		secret, err := base64.StdEncoding.Strict().DecodeString(string(line))
		if err != nil { // without the error, which may show a part of the secret
			return nil, fileError("base64", fmt.Sprintf("something else in line %d", n+1))
		}
		if len(secret) < MinSecret {
			return nil, fileError(fmt.Sprintf("at least %d bytes a secret", MinSecret), fmt.Sprintf("%d in line %d", len(secret), n+1))
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) < 1 || len(secrets) > MaxSecrets {
		return nil, fileError("one or two secrets", fmt.Sprintf("%d", len(secrets)))
	}
	if len(secrets) == 2 && bytes.Equal(secrets[0], secrets[1]) {
		return nil, fileError("two different secrets", "the same twice")
	}
	return secrets, nil
}

// readSecretFile returns the contents of a secret file that is private: its group may
// read it, and others may not.
func readSecretFile(path string) ([]byte, error) {
	data, err := certs.ReadPrivate(path, maxFile)
	if wide, ok := errors.AsType[*certs.ModeError](err); ok {
		return nil, fileError(certs.PrivateModes, fmt.Sprintf("%04o for %s", wide.Mode, path))
	}
	if err != nil {
		return nil, fmt.Errorf("-secret-file: %w", err)
	}
	return data, nil
}

func fileError(limit, got string) error {
	return &fsm.FieldError{Field: "-secret-file", Limit: limit, Got: got}
}
