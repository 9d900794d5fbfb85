// Package peertls is the TLS of the bind port: nodes of one cluster accept each
// other, and nobody else. Every connection is TLS 1.3, and both ends show a
// certificate that names the node and its cluster in one URI:
//
//	registry://CLUSTER/node/ID
//
// The trust comes from a secret that all nodes have, or from certificate files.
//
// # Secret
//
// Each node derives the same authority from the secret and the cluster's name, and
// issues itself a certificate at each start. Nothing is stored or exchanged. The seed
// of the authority's Ed25519 key (RFC 8032) is
//
//	HKDF-SHA256(secret, salt: none, info: "registry peer authority v1\n" + CLUSTER, 32 bytes)
//
// A node's certificate is signed by that key. It has one URI, the key usage
// digitalSignature, and the extended key usages serverAuth and clientAuth. Dates are
// not judged, so a wrong clock locks no node out. A file of two secrets accepts
// certificates by both, and issues by the first: see [ParseSecrets].
//
// # Certificate files
//
// The certificate of a node has a URI as above, or the SPIFFE id
//
//	spiffe://TRUST-DOMAIN/registry/CLUSTER/node/ID
//
// and both extended key usages. All nodes of a cluster use the same form, and the same
// trust domain. Here dates are judged. A certificate without such a URI, a client's for
// instance, is refused, also if the authority signed it.
//
// # Not promised
//
// Nodes trust each other: one that has the secret, or a certificate, can do all that a
// node can. The secret alone cannot take one node's trust away: replace it on all
// others.
package peertls
