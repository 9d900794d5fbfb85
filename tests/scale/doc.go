// Command scale fills three nodes with members and measures what each number of members
// costs: memory of a node, size of a snapshot, and the time to fill, save, restart and join.
//
//	go -C tests run ./scale -members 1000000 -groups 10000
//
// With -saves, it registers at the leader in rounds, without and beside saves of snapshots
// by the command from another node, and restores the last file.
//
// It fills fresh nodes for each pair of -members and -groups. At a limit the row has as many
// members as were taken, and the limit. With -beat, clients of the SDK then take that many
// members over, with leases of a TTL of 10 s. The program measures the leader's processor
// time while they beat, kills the leader, and measures the time until each lease was renewed
// by a heartbeat that was sent after that. If one is lost, the run fails.
package main
