package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

func killLeader(c *cluster) (fires []string, end func()) {
	leader, _ := c.leader()
	leader.kill()
	return []string{"RegistryNodeDown " + leader.addr}, func() { leader.start() }
}

// killFollowers leaves a leader that has lost its majority. Two nodes are down, too.
func killFollowers(c *cluster) (fires []string, end func()) {
	_, others := c.leader()
	fires = []string{"RegistryNoLeader"}
	for _, n := range others {
		n.kill()
		fires = append(fires, "RegistryNodeDown "+n.addr)
	}
	return fires, func() {
		for _, n := range others {
			n.start()
		}
	}
}

// useSmallDisk puts the data of the last node on a disk of 64 MiB. An empty log takes 17.
func useSmallDisk(c *cluster) {
	dir := c.nodes[len(c.nodes)-1].dir
	if err := os.Mkdir(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if out, err := exec.CommandContext(c.t.Context(), "mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "registry-e2e", dir).CombinedOutput(); err != nil {
		c.t.Skipf("no small disk: mount: %v: %s", err, out)
	}
	c.t.Cleanup(func() { // after the node's end
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			c.t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// fillDisk leaves less than -min-free-disk, and more than a node needs that goes on.
func fillDisk(c *cluster) (fires []string, end func()) {
	n := c.nodes[len(c.nodes)-1]
	filler := filepath.Join(n.dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 24<<20), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return []string{"RegistryDiskLow " + n.addr}, func() {
		if err := os.Remove(filler); err != nil {
			c.t.Fatal(err)
		}
	}
}

// rewriteMember changes a member's address in the log of a stopped follower, with both
// checksums of the entry. The node then applies another entry than the others, which only
// the comparison of the states can find, and replaces its state by itself. The others count
// the difference, too, if they ask the node before it has found it.
func rewriteMember(c *cluster) (fires []string, end func()) {
	leader, others := c.leader()
	created, st := keptMember(c.t, leader.addr), c.settled(3)
	n := others[0]
	n.kill()
	path := filepath.Join(n.dir, "raft.db")
	data, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	// An entry is 8, 2 (a version), 17, a checksum of 8 bytes, 26, a length, and the command.
	const before, after, head = "127.0.0.1:8080", "127.0.0.1:8081", 13
	from := bytes.LastIndex(data[:max(0, bytes.Index(data, []byte(before)))], []byte{8, 2, 17})
	if from < 0 {
		c.t.Fatal("the log has no entry with the address")
	}
	entry := data[from : from+head+int(data[from+head-1])]
	if sum := binary.LittleEndian.Uint64(entry[3:]); sum != xxhash.Sum64(entry[head:]) {
		c.t.Fatalf("not an entry with its checksum: %x", entry)
	}
	other := bytes.Replace(entry, []byte(before), []byte(after), 1)
	binary.LittleEndian.PutUint64(other[3:], xxhash.Sum64(other[head:]))
	// The log has a second checksum, with the entry's index, term and type.
	term := st.Term
	sum := func(entry []byte) []byte {
		head := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, created), term)
		return binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(append(append(head, 0), entry...)))
	}
	for !bytes.Contains(data, sum(entry)) {
		if term--; term == 0 {
			c.t.Fatalf("the log has no checksum of entry %d", created)
		}
	}
	data = bytes.ReplaceAll(bytes.ReplaceAll(data, sum(entry), sum(other)), entry, other)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	n.start()
	return []string{"RegistryReplicaDiffers " + n.addr, "RegistryReplicaDiffers"}, func() {
		n.says("state was reinstalled", patience)
		c.settled(3)
	}
}

// damageMemory changes a member's address in the memory of a follower. Its log is right, and
// so is the digest that it compares with the others': only the node itself can find it, when
// it verifies its records.
func damageMemory(c *cluster) (fires []string, end func()) {
	needSignal(c.t, sigStop, sigCont)
	leader, others := c.leader()
	keptMember(c.t, leader.addr)
	c.settled(3)
	n := others[0]
	proc := fmt.Sprintf("/proc/%d/", n.cmd.Process.Pid)
	mem, err := os.OpenFile(proc+"mem", os.O_RDWR, 0)
	if err != nil {
		c.t.Skipf("the memory of another process: %v", err)
	}
	defer mem.Close()
	n.send(sigStop) // what is found must not move
	eventually(c.t, patience, "the stop", func() error {
		if stat, err := os.ReadFile(proc + "stat"); err != nil || !bytes.Contains(stat, []byte(") T ")) {
			return fmt.Errorf("%s, %v", stat, err)
		}
		return nil
	})
	areas, err := os.ReadFile(proc + "maps")
	if err != nil {
		c.t.Fatal(err)
	}
	const before, after, large = "127.0.0.1:8080", "127.0.0.1:8081", 1 << 30 // the heap's areas are not larger
	found := 0
	for area := range strings.Lines(string(areas)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(area, "%x-%x %s", &from, &to, &mode); err != nil || mode != "rw-p" || to-from > large {
			continue
		}
		data := make([]byte, to-from)
		_, _ = mem.ReadAt(data, from) // not all can be read
		for i := bytes.Index(data, []byte(before)); i >= 0; i = bytes.Index(data, []byte(before)) {
			copy(data[i:], after)
			if _, err := mem.WriteAt([]byte(after), from+int64(i)); err != nil {
				c.t.Fatal(err)
			}
			found++
		}
	}
	if found == 0 {
		c.t.Fatalf("the memory has no %s", before)
	}
	n.send(sigCont)
	return []string{"RegistryReplicaDiffers " + n.addr}, func() {
		n.says("state was reinstalled", patience)
		if m := memberOf(c.t, n.addr, "kept", "web-1"); m.GetAddr() != before {
			c.t.Errorf("%s answers %v", n.id, m)
		}
	}
}

// silenceMembers registers members and has their heartbeats stop.
func silenceMembers(c *cluster) (fires []string, end func()) {
	h := newHerd(c.t, c, 1, 30, 5*time.Second)
	h.beating(0)
	h.kill(0, len(h.streams))
	return []string{"RegistryMassLoss"}, func() {
		ok(c.t, "group", "accept-loss", "-yes", "-registries", c.nodes[0].addr, "herd-0")
	}
}
