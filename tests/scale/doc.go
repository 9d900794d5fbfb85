// Command scale fills three nodes with members and measures what each number of members
// costs: memory of a node, size of a snapshot, and the time to fill, save, restart and join.
//
//	go -C tests run ./scale -members 1000000 -groups 10000
//
// It fills fresh nodes for each pair of -members and -groups. With -beat it then lets that
// many of the leases beat at a TTL of 10 s, and measures the leader's processor time.
package main
