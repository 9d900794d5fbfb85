// Package ring is a consistent-hash ring: it assigns every key to one member of a set, evenly by
// weight, and moves as few keys as possible when the set changes. A Ring is immutable and safe for
// concurrent use; lookups take no lock and allocate nothing.
//
//	r, err := ring.New(ring.DefaultParams(), []ring.Member{{ID: "web-1", Weight: 1}, {ID: "web-2", Weight: 2}})
//	owner := r.Member(r.Match("user-id-1")).ID                            // always the same for the key
//	plan, err := ring.NewPlan(r, ring.Change{Leave: []string{"web-1"}})   // plan.Moved, plan.Moves
//
// The rest of this comment specifies the ring completely, so that other languages can implement it.
// The files in testdata/ring are test vectors for that.
//
// # Inputs
//
// The parameters are K = VirtualNodes, a power of two from 64 to 4096, and the bound B, 0 (off) or
// 1010 to 10000 per mille. A member has an id of 1 to 255 bytes, unique in the set, a weight from 1 to
// 1000, and a state: active, draining or held. The order in which members are given does not matter.
// All arithmetic is on integers. XXH64 is that of xxhash.com, with seed 0.
//
// # Points
//
// A draining member has no points. Any other member has K · weight points; number i = 0, 1, … has the hash
//
//	XXH64(id + "_" + decimal(i))
//
// Points are ordered by (hash, id, i): hashes as unsigned integers, ids by their bytes. Hence the
// points of a smaller weight are some of those of a larger one, and points depend on nothing but the
// id: neither on an address nor on the other members.
//
// # Owner
//
// The hash of a key is XXH64(key). Its point is the first one whose hash is at least the key's, or
// the first of all if there is none (the circle wraps). The point's member owns the key, unless a
// bound gave the arc to another (below). The arc of a point is the hashes it serves: those above the
// hash of the point before, up to and including its own. The first n owners of a key are its owner and
// then the members of the points from the key's own point on, clockwise, each member once.
//
// A held member owns keys like an active one. The caller sees the state and uses the fallback: the first
// of the key's first 64 owners that is not held (Serving).
//
// # Bound
//
// With B > 0 no member's part of the key space exceeds B per mille of its fair part. Let w be a
// member's weight and W the sum of the weights of members with points; the member's cap is
//
//	floor(2^64 · B · w / (1000 · W))
//
// The ring without a bound is changed in three steps:
//
//  1. Each member whose arcs sum to more than its cap sheds whole arcs of at least one hash, from
//     its point with the highest i downwards, until the sum is at most the cap.
//  2. The shed arcs of all members are sorted by XXH64 of the eight bytes, little endian, of their
//     point's hash. In this order, each goes to the member of the first point after its own,
//     clockwise, whose sum plus the arc is at most its cap; a point counts for its own member, also if
//     its arc was shed. At most 4096 points are looked at, and at most all other points.
//  3. If an arc finds no member, all arcs return and the excess doubles: B becomes 1000 + 2 · (B - 1000).
//     Then 1 and 2 start again, until every arc has an owner. Ring.Bound is the B that was kept.
//
// Step 3 is rare: only two or three members with few points and a bound close to 1000 need it.
//
// A bound costs movement, because a join changes every cap. With members of equal weight, the table
// gives the keys that one join moves ÷ the keys that the new member gets (1 without a bound), and the part
// of the key space that its plain owner does not own.
//
//	members   K=64  B=1100   K=256 B=1050   K=256 B=1100
//	    100   1.60  2.5 %    1.25  0.9 %    1.03  0.2 %
//	  1,000   2.44  2.1 %    1.89  0.9 %    1.15  0.2 %
//	 10,000   1.98  1.9 %    1.92  0.9 %    1.14  0.2 %
//
// # Fingerprint
//
// The fingerprint names the inputs: the members that have points, their numbers of points, and the
// parameters. All integers are little endian. Each member with points has the hash
//
//	XXH64(u8 length of the id, the id, u32 number of its points)
//
// and S is the sum of these hashes modulo 2^64. The fingerprint is XXH64 over the following 24 bytes:
//
//	u32  version of this specification: 1
//	u32  K
//	u32  B, the parameter, not the bound that was kept
//	u32  number of members with points
//	u64  S
//
// A draining member is not in it, nor is the difference between active and held. No value is special,
// 0 included. A change of any formula in this comment raises the version.
//
// S is a sum, so a change of a member subtracts its old hash and adds its new one (Inputs). That costs two
// hashes, whatever the number of members. So the fingerprint of a set is known before its ring is built.
//
// Rings with equal fingerprints send every key to the same id. The converse does not hold: K = 128 with
// a weight of 2 and K = 256 with a weight of 1 lead to the same points, and differ in their fingerprints.
//
// # Digest
//
// The digest is of the points, and shows whether two rings were built alike. It is XXH64 over the following
// bytes; all integers are little endian:
//
//	u32  number of members with points
//	     for each, in the byte order of ids:   u8 length of the id, the id
//	u32  number of points
//	     for each, in order:                   u64 hash, u32 index of the owner in the list above
//
// Neither the parameters nor the states are in it, but the points and owners that follow from them.
//
// # Example
//
// K = 64; webserver1, webserver2 and webserver3 have weight 1; the bound is off. Point 0 of
// webserver1 is XXH64("webserver1_0") = 0xcdd2b937187d1158. The lowest of the 192 points is number 11 of
// webserver3, 0x00aca3eba28bf098; the highest is number 43 of webserver3, 0xfcae4b17554ff9ad. The key
// user-id-1 has the hash 0xe6f0a419815a6c2f; the points around it are
//
//	0xe57778753c6ebe1c  webserver1, i = 1
//	0xe70adbfe61e459fe  webserver1, i = 57    the first that is at least the key's
//
// and so webserver1 owns it. For the fingerprint, webserver1 has the hash 0xd27e35d2f8192354, of the bytes
//
//	0a 77 65 62 73 65 72 76 65 72 31 40 00 00 00
//
// With 0xda152d32c9b2c3b8 of webserver2 and 0x91371844e70e981f of webserver3, S is 0x3dca7b4aa8da7f2b. The
// fingerprint is 0xb165142c2734d5c0, of the bytes
//
//	01 00 00 00  40 00 00 00  00 00 00 00  03 00 00 00  2b 7f da a8 4a 7b ca 3d
//
// and the digest is 0x63a9843e583371c6 (testdata/ring/three.json).
//
// # Relation to other rings
//
// The formula is the one of Envoy's ring_hash
// (source/extensions/load_balancing_policies/ring_hash/ring_hash_lb.cc) and of gRPC's
// (balancer/ringhash/ring.go in grpc-go). With the member's id as their hash key, equal weights, and a
// minimum ring size of K · members, not above the maximum, their rings have the same points.
//
// # Promises and limits
//
// Without a bound no key moves between two members that both stay as they are; with a bound a few
// do. The ring takes at most 9 bytes a point, and MaxPoints and MaxMembers limit it. Halving or doubling K
// moves about half of the keys.
//
// Fingerprint and digest find accidents, not forgery: ids can be chosen so that two sets share a
// fingerprint. Nor does XXH64 resist ids or keys that are chosen to collide: such ids can make the
// division uneven, but not wrong, and a lookup then takes the logarithm of the points.
package ring
