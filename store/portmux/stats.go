package portmux

// Stats are counts of a port's connections.
type Stats struct {
	// Connections are open, with those that are pending.
	Connections int
	// Pending are those whose protocol is not known yet, or whose TLS handshake runs.
	Pending int
	// Full counts the connections that were closed at the port's limit.
	Full uint64
	// Crowded counts those that were closed at the limit of their source.
	Crowded uint64
	// Late counts those that sent no first bytes, or did no TLS handshake, in SniffTimeout.
	Late uint64
}

// Stats returns the counts as they are.
func (m *Mux) Stats() Stats {
	m.mu.Lock()
	pending := len(m.sniffing)
	m.mu.Unlock()
	l := m.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Connections: l.size, Pending: pending, Full: l.full, Crowded: l.crowded, Late: m.late.Load()}
}
