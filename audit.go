package registry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/werbenhu/registry/rpc/audit"
	"github.com/werbenhu/registry/store/portmux"
)

// AuditStderr is the [Config.AuditLog] that stands for standard error.
const AuditStderr = "-"

// openAudit opens the audit log.
func (n *Node) openAudit() error {
	log := n.cfg.Logger
	if n.cfg.AuditLog != "" {
		w, err := n.auditWriter()
		if err != nil {
			return fmt.Errorf("%w: -audit-log: %w", ErrConfig, err)
		}
		n.auditFile = w
		log = slog.New(audit.NewHandler(w)).With("node", n.cfg.ID)
	}
	n.audit = audit.New(log, n.metrics.Audit.Dropped.Inc)
	return nil
}

func (n *Node) auditWriter() (*audit.Writer, error) {
	if n.cfg.AuditLog == AuditStderr {
		return audit.To(os.Stderr, n.cfg.Logger, n.metrics.Audit.Failed.Inc), nil
	}
	return audit.Open(n.cfg.AuditLog, n.cfg.Logger, n.metrics.Audit.Failed.Inc)
}

func (n *Node) closeAudit() error {
	n.audit.Close()
	if n.auditFile == nil {
		return nil
	}
	return n.auditFile.Close()
}

// audited tells the audit log of the connections that a port's TLS refuses. A caller
// that sent nothing, as a check of the port does, is not one.
func (n *Node) audited(port string, t portmux.TLS) portmux.TLS {
	next := t.Refused
	t.Refused = func(from net.Addr, err error) {
		next(from, err)
		if !errors.Is(err, io.EOF) {
			n.audit.Refused(&audit.Record{Method: "handshake", Port: port, From: from.String(), Outcome: "TLS", Error: err.Error()})
		}
	}
	return t
}
