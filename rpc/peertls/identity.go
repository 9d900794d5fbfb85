package peertls

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/muxcreds"
)

// Config configures the TLS of a node's bind port, by SecretFile or by all three of
// Files.
type Config struct {
	Cluster, ID string
	SecretFile  string
	Files       certs.Files
	// Protocols are those of ALPN on the bind port.
	Protocols []string
	Logger    *slog.Logger
	// Refused is called for each refused connection, and Unusable when changed files
	// cannot be used, both concurrently.
	Refused  func(Reason)
	Unusable func()
}

// Identity is what a node shows on bind ports, and whom it accepts there. It is safe
// for concurrent use.
type Identity struct {
	cfg     Config
	refused refusals
	trust   atomic.Pointer[trust]

	reload sync.Mutex                               // held during a Reload, which reads files; guards load
	load   func() (changed bool, _ *trust, _ error) // reads the files, and tells whether they have changed

	files *certs.Source // nil with a secret

	mu    sync.Mutex // guards conns, and the trust that they were verified by
	conns map[*conn]struct{}
}

// Open reads the files.
func Open(cfg Config) (*Identity, error) {
	i := &Identity{cfg: cfg, conns: make(map[*conn]struct{})}
	i.refused = refusals{log: cfg.Logger, count: cfg.Refused, last: make(map[Reason]*logged)}
	if cfg.SecretFile != "" {
		i.load = i.secretLoader()
	} else {
		source, err := certs.Open(cfg.Files, cfg.Logger)
		if err != nil {
			return nil, fmt.Errorf("-peer-cert, -peer-key, -peer-ca: %w", err)
		}
		i.files = source
		i.load = i.fileLoader(source)
	}
	_, t, err := i.load()
	if err != nil {
		return nil, err
	}
	i.trust.Store(t)
	return i, nil
}

// Files has the certificate files; nil with a secret.
func (i *Identity) Files() *certs.Source { return i.files }

// secretLoader reads the secret file.
func (i *Identity) secretLoader() func() (bool, *trust, error) {
	last := "nothing"
	return func() (bool, *trust, error) {
		data, err := readSecretFile(i.cfg.SecretFile)
		now := string(data)
		if err != nil {
			now = err.Error()
		}
		if now == last {
			return false, nil, nil
		}
		last = now
		if err != nil {
			return true, nil, err
		}
		secrets, err := ParseSecrets(data)
		if err != nil {
			return true, nil, err
		}
		t, err := bySecrets(secrets, i.cfg.Cluster, i.cfg.ID)
		return true, t, err
	}
}

// fileLoader reads the certificate files. A source keeps the last files that it could
// read.
func (i *Identity) fileLoader(source *certs.Source) func() (bool, *trust, error) {
	var last *certs.Set
	var failures uint64
	return func() (bool, *trust, error) {
		source.Reload()
		if n := source.Failures(); n != failures {
			failures = n
			i.cfg.Unusable() // the source has logged it
		}
		set := source.Set()
		if set == last {
			return false, nil, nil
		}
		last = set
		t, err := byFiles(set.Certificate, set.Pool, i.cfg.Cluster, i.cfg.ID)
		if err != nil {
			return true, nil, fmt.Errorf("-peer-cert %s: %w", i.cfg.Files.Cert, err)
		}
		return true, t, nil
	}
}

// Reload reads the files. If they have changed, connections that would be refused from
// now on are closed. If they cannot be used, that is logged and counted, and nothing
// changes.
func (i *Identity) Reload() {
	i.reload.Lock()
	defer i.reload.Unlock()
	changed, t, err := i.load()
	switch {
	case err != nil:
		i.cfg.Unusable()
		i.cfg.Logger.Error("the files for the bind port cannot be used, what was read before stays in use", "error", err)
	case changed:
		i.cfg.Logger.Info("the files for the bind port were read again", "closed", i.replace(t))
	}
}

// replace sets the trust and closes the connections that it refuses.
func (i *Identity) replace(t *trust) (closed int) {
	i.mu.Lock()
	i.trust.Store(t)
	var gone []*conn
	for c := range i.conns {
		if _, err := t.verify(c.chain); err != nil {
			gone = append(gone, c)
		}
	}
	i.mu.Unlock()
	for _, c := range gone {
		_ = c.Close() // its reader sees the error
	}
	return len(gone)
}

// pollInterval is how often Follow reads the files.
const pollInterval = time.Second

// Follow reloads when the files change, until ctx ends.
func (i *Identity) Follow(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			i.Reload()
		case <-ctx.Done():
			return
		}
	}
}

// Check checks that the other end of a connection, which was accepted, is the node of
// that id.
func (i *Identity) Check(end *peer.Peer, id string) error {
	c := muxcreds.Certificate(end)
	if c == nil {
		return refusal(NoCertificate, "it showed no certificate")
	}
	named, err := i.trust.Load().idOf(c)
	if err == nil && named != id {
		err = refusal(WrongName, "the certificate is for node %q, not for %q", named, id)
	}
	if err != nil {
		i.refused.add("node refused", end.Addr, err)
	}
	return err
}
