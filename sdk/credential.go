package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// credential is what the client shows to nodes: its token, or nothing. A token from a
// file is read again at the first call after credentialAge, and after a node refused
// it. The token is in no error and in no line of the log.
type credential struct {
	file string // empty: the token does not change
	log  *slog.Logger

	header atomic.Pointer[string] // the value of the authorization header; nil: no token
	due    atomic.Int64           // when to read the file, in Unix nanoseconds

	mu   sync.Mutex // guards last; held while the file is read
	last string     // the last content, or the error of the last read
}

// credentialAge is how long the content of a token's file is used before it is read
// again.
const credentialAge = time.Second

// maxTokenFile bounds what is read of a token's file.
const maxTokenFile = 4 << 10

func openCredential(c *config) (*credential, error) {
	cred := &credential{file: c.tokenFile, log: c.logger}
	text := c.token
	if cred.file != "" {
		var err error
		if text, err = readToken(cred.file); err != nil {
			return nil, invalid("dial", "token file", "a readable file", err.Error())
		}
		cred.last = text
		cred.due.Store(time.Now().Add(credentialAge).UnixNano())
	}
	if text == "" && cred.file == "" {
		return cred, nil
	}
	if err := cred.set(text); err != nil {
		field := "token"
		if cred.file != "" {
			field = "token file"
		}
		return nil, invalid("dial", field, registrypb.ErrToken.Error(), err.Error())
	}
	return cred, nil
}

// ReadTokenFile reads the file of a token as WithTokenFile does: a regular file that others
// cannot read, as its mode says (0600, 0400, 0640 or 0440), with a token and space around it.
func ReadTokenFile(path string) (string, error) {
	text, err := readToken(path)
	if err == nil {
		if _, _, err = registrypb.ParseToken(text); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return text, err
}

func readToken(path string) (string, error) {
	if _, _, err := registrypb.ParseToken(path); err == nil {
		return "", errors.New("a token itself") // which is not to be shown
	}
	data, err := certs.ReadPrivate(path, maxTokenFile)
	if err == nil && len(data) > maxTokenFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxTokenFile)
	}
	return strings.TrimSpace(string(data)), err
}

func (c *credential) set(text string) error {
	if _, _, err := registrypb.ParseToken(text); err != nil {
		if c.file != "" {
			err = fmt.Errorf("%s: %w", c.file, err)
		}
		return err
	}
	header := "Bearer " + text
	c.header.Store(&header)
	return nil
}

// refresh reads the file if that is due. A file that cannot be used is logged once, and
// the token stays.
func (c *credential) refresh() {
	if now := time.Now(); c.file == "" || now.UnixNano() < c.due.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.UnixNano() < c.due.Load() {
		return // another call has read it meanwhile
	}
	c.due.Store(now.Add(credentialAge).UnixNano())
	text, err := readToken(c.file)
	read := text
	if err != nil {
		read = err.Error()
	}
	if read == c.last {
		return
	}
	c.last = read
	if err == nil {
		err = c.set(text)
	}
	if err != nil {
		c.log.Error("token file cannot be used, the token before stays in use", "file", c.file, "error", err)
		return
	}
	c.log.Info("token file was read again", "file", c.file)
}

// refused makes the next call read the file: its token may have been replaced.
func (c *credential) refused() { c.due.Store(0) }

// GetRequestMetadata is of credentials.PerRPCCredentials.
func (c *credential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	c.refresh()
	header := c.header.Load()
	if header == nil {
		return nil, nil
	}
	return map[string]string{registrypb.AuthorizationHeader: *header}, nil
}

// RequireTransportSecurity is of credentials.PerRPCCredentials. A cluster without TLS
// may have tokens.
func (c *credential) RequireTransportSecurity() bool { return false }

// tokenRefused reports whether a node refused a call because of the token.
func tokenRefused(err error) bool {
	return errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrPermissionDenied) || errors.Is(err, ErrNotOwner)
}
