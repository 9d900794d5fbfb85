package certs

import (
	"crypto/tls"
	"sync/atomic"
)

// ServerOptions say what a server asks of its clients.
type ServerOptions struct {
	// ClientAuth is what is asked of a client's certificate, which is verified by
	// the Source's authorities.
	ClientAuth tls.ClientAuthType
	// TLS12 also accepts TLS 1.2.
	TLS12 bool
	// Protocols are those of ALPN. A client that names none of them is refused, and
	// one that does not use ALPN is not.
	Protocols []string
}

// Server makes the TLS configuration of a port.
type Server struct {
	source  *Source
	options ServerOptions
	last    atomic.Pointer[serverConfig]
}

type serverConfig struct {
	set    *Set
	config *tls.Config
}

// NewServer returns the server of a source with a certificate.
func NewServer(source *Source, options ServerOptions) *Server {
	return &Server{source: source, options: options}
}

// Config is the configuration of new connections. It is another one after a reload,
// so that no session of before is resumed then.
func (s *Server) Config() *tls.Config {
	set := s.source.Set()
	if last := s.last.Load(); last != nil && last.set == set {
		return last.config
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{*set.Certificate},
		ClientAuth:   s.options.ClientAuth,
		ClientCAs:    set.Pool,
		NextProtos:   s.options.Protocols,
		MinVersion:   tls.VersionTLS13,
	}
	if s.options.TLS12 {
		config.MinVersion = tls.VersionTLS12
	}
	s.last.Store(&serverConfig{set, config})
	return config
}
