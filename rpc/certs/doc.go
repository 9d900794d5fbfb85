// Package certs reads and makes the certificate files of TLS. A [Source] reads a
// certificate, its key and the certificates of authorities, and reads them again when
// they change. A [Server] and [NewCredentials] are the two ends of a connection, and
// an [Authority] issues certificates.
//
//	source, err := certs.Open(certs.Files{Cert: "node.crt", Key: "node.key"}, logger)
//	server := certs.NewServer(source, certs.ServerOptions{})
//	conn := tls.Server(accepted, server.Config()) // with the files of this moment
//
// Files that cannot be used change nothing: the ones before stay in use.
package certs
