// Package disk is a file system in memory that forgets on a power cut what was
// not synced, which kill -9 does not: after a kill the kernel still has it. A
// process uses it as it is, through FUSE.
//
//	m, err := disk.New("").Mount(dir)      // root on Linux, with /dev/fuse
//	// a process works in dir, and is killed
//	lost, err := m.CutPower(rand)          // dir has what the disk kept
//
// It promises no more than POSIX does: fsync of a file keeps its content and
// size, and fsync of a directory keeps its entries. So a file that was created
// or renamed is gone, or has its old name, until its directory was synced, also
// if it was synced itself. Of what was not synced a power cut keeps nothing, or
// what came before a moment, or some of it; sectors of 512 bytes are kept whole,
// and a change of one directory too. A rename between two directories syncs both.
package disk
