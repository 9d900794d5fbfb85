//go:build linux

package main

import (
	"regexp"
	"slices"
)

var mutants = slices.Concat(protections, syncs)

// protections are the protections that are switched off, one at a time, and what
// must notice it. Old is the code that protects, New what stands there instead.
//
// A mutant without Kinds says in its Note what was tried. "Closed window" means
// that the fault needs an order of events that nothing from outside brings about
// within a reasonable number of runs; the test makes that order.
var protections = []Mutant{
	// Leases and leadership.
	{
		Name: "expiry-term", Off: "an expiry counts only in the term of the leader that decided it",
		Edits: []Edit{{"fsm/members.go", "if c.Term != b.term {", "if false {"}},
		Tests: []Test{{"fsm", "TestExpire"}},
		Note:  "Closed window: a proposal has to wait in the leader's queue while it loses leadership and gains it again. Tried: transfers and stop-leaders, 3 runs each.",
	},
	{
		Name: "expiry-epoch", Off: "an expiry that a registration overtook is void",
		Edits: []Edit{{"fsm/members.go", "m.LeaseID != l.LeaseId || m.Epoch != l.Epoch {", "m.LeaseID != l.LeaseId {"}},
		Kinds: []string{"late-refresh"}, Runs: 4, Says: regexp.MustCompile("told that it is lost"),
		Tests: []Test{{"fsm", "TestExpire"}},
		Note:  "The load's members are registered once each; the kind was made for this.",
	},
	{
		Name: "read-check", Off: "a linearizable read waits until a quorum confirmed the leader",
		Edits: []Edit{{"store/read.go", "return l.confirm.wait(ctx)", "return s.raft.CommitIndex(), l.ctx.Err()"}},
		Kinds: []string{"deposed-leader", "stop-leaders"}, Runs: 4, Says: regexp.MustCompile("no order explains|a linearizable read at"),
		Tests: []Test{{"store", "TestDeposedLeaderAcknowledgesNothing"}},
	},
	{
		Name: "beat-check", Off: "a heartbeat is acknowledged only after a quorum confirmed the leader",
		Edits: []Edit{{"store/write.go", "if _, err := l.confirm.wait(ctx); err != nil {", "if err := ctx.Err(); err != nil {"}},
		Kinds: []string{"last-beat"}, Runs: 4, Says: regexp.MustCompile("^leases|before the end of its lease"),
		Tests: []Test{{"store", "TestDeposedLeaderAcknowledgesNothing"}},
	},
	{
		Name: "stall-grace", Off: "a leader that stood still reads waiting heartbeats before it expires",
		Edits: []Edit{{"store/leader.go", "\t\t\ts.leases.Grace(pauseGrace)\n", ""}},
		Kinds: []string{"stop-all-one-leader"}, Runs: 8, Says: regexp.MustCompile("^leases"),
		Note: "TestGrace is about the table alone and does not notice that nobody calls it.",
	},
	{
		Name: "full-ttl", Off: "a new leader gives every lease its full TTL",
		Edits: []Edit{{"store/lease/table.go", "t.fillLocked(machine.State())\n", "t.fillLocked(machine.State())\n\tfor _, l := range t.byID {\n\t\tl.deadline.Store(t.now())\n\t\tt.enqueueLocked(l)\n\t}\n"}},
		Kinds: []string{"transfers"}, Runs: 2, Says: regexp.MustCompile("^leases"),
		Tests: []Test{{"store", "TestLeaderChangeGivesTheFullTTL"}},
	},
	{
		Name: "dedup", Off: "a write that is attempted again takes effect once",
		Edits: []Edit{{"store/dedup.go", "if record, ok := d.applied[i].records[id]; ok {", "if record, ok := d.applied[i].records[id]; ok && false {"}},
		Kinds: []string{"kill-amid-updates", "stop-leaders"}, Runs: 6, Says: regexp.MustCompile("no order explains|^ledger"),
		Tests: []Test{{"store", "TestRequestTakesEffectOnce"}},
	},
	{
		Name: "request-id", Off: "the attempts of one call at several nodes have one request id",
		Edits: []Edit{{"rpc/write.go", "if _, forwarded := forwardedTo(ctx); forwarded || len(req.GetRequestId()) > 0 {", "if _, forwarded := forwardedTo(ctx); forwarded {"}},
		Tests: []Test{{"registrytest", "TestRepeatAtAnotherNodeTakesEffectOnce"}},
		Note:  "The faults' clients ask through the API and repeat nothing at another node; the test makes the order of events.",
	},

	// Raft and its transport.
	{
		Name: "pre-vote", Off: "who cannot win does not stand for election",
		Edits: []Edit{{"store/store.go", "c.NoLegacyTelemetry = true\n", "c.NoLegacyTelemetry = true\n\tc.PreVoteDisabled = true\n"}},
		Kinds: []string{"quiet-return"}, Runs: 2, Says: regexp.MustCompile("raised its term"),
		Tests: []Test{{"store", "TestCutOffNodeKeepsItsTerm"}},
	},
	{
		Name: "heartbeat-handler", Off: "heartbeats change raft's state on its main loop alone: raft's own handler instead",
		Edits: []Edit{{"store/rafttransport/transport.go", "handler := t.heartbeat\n", "handler := rafts\n"}},
		Tests: []Test{{"store", "TestNewerHeartbeatDuringAWrite"}},
		Note:  "Closed window: a newer leader's heartbeat has to come while the old one's main loop takes an entry. Tried: nemesis, 3 runs; stop-leaders, 15 runs.",
	},
	{
		Name: "early-answer", Off: "raft gets the answers to entries that it is writing after the write",
		Edits: []Edit{{"store/rafttransport/early.go", "lastOf(req) <= p.feed.written.Load()", "lastOf(req) > 0"}},
		Tests: []Test{{"store/rafttransport", "TestAnswersWaitForTheWrite"}},
		Note:  "Closed window: a pipeline has to end between an early answer and the end of the leader's write. No kind was tried. TestCrashPoints does not find it: raft counts the answer, and commits on the goroutine that still writes.",
	},
	{
		Name: "early-configuration", Off: "a change of the configuration is sent after the leader wrote it",
		Edits: []Edit{{"store/rafttransport/early.go", "if l.Type != raft.LogCommand {", "if l.Type > raft.LogConfiguration {"}},
		Tests: []Test{{"store/rafttransport", "TestEntriesAreSentBeforeTheyAreWritten"}},
		Note:  "Closed window: an answer has to be counted between the leader's write and the new configuration, as raft's own order allows, too. No kind was tried, and TestCrashPoints does not find it.",
	},
	{
		Name: "early-previous", Off: "entries that are sent before the leader wrote them follow the entry before them",
		Edits: []Edit{{"store/rafttransport/early.go", "\treq.Entries = logs\n", "\treq.Entries = logs\n\treq.PrevLogTerm--\n"}},
		Tests: []Test{{"store/rafttransport", "TestEntriesAreSentBeforeTheyAreWritten"}, {"store", "TestCrashPoints"}},
		Note:  "Followers refuse the entries, and raft sends them after the write: it costs time alone.",
	},
	{
		Name: "commit-limit", Off: "a message commits no more than it proves",
		Edits: []Edit{{"store/rafttransport/transport.go", "limitCommit(rpc.Command)", "_ = limitCommit"}},
		Tests: []Test{{"store", "TestFormerLeadersEntryIsNotCommitted"}},
		Note:  "Closed window: a leader has to commit an entry in the pause before it sends again to a deposed one. No kind was tried.",
	},
	{
		Name: "commit-cap", Off: "a notice of a commit goes no further than the entries that were sent",
		Edits: []Edit{{"store/rafttransport/commits.go", "max(p.notified, min(index, req.PrevLogEntry))", "max(p.notified, index)"}},
		Tests: []Test{{"store/rafttransport", "TestCommitIsAnnounced"}},
		Note:  "Closed window: a follower has to keep a deposed leader's entries behind those that a new leader's pipeline sent. Tried: partition-leader and nemesis, 3 runs each.",
	},
	{
		Name: "commit-term", Off: "a commit index is passed on only in the term that it was found in",
		Edits: []Edit{{"store/rafttransport/commits.go", "return index, (*s).CurrentTerm() == term", "return index, true"}},
		Tests: []Test{{"store/rafttransport", "TestCommitIsAnnounced"}},
		Note:  "Closed window: a deposed leader has to learn of a newer commit before its pipelines end. Tried: stop-leaders and nemesis, 3 runs each.",
	},
	{
		Name: "handshake", Off: "a node answers raft calls of its own cluster alone",
		Edits: []Edit{{"store/rafttransport/handshake.go", "if string(id) == own {", "if own == own {"}},
		Kinds: []string{"wiped-silent"}, Runs: 3, Says: regexp.MustCompile("nobody took it in"),
		Tests: []Test{{"store/rafttransport", "TestRaftCallsOfAnotherClusterAreRefused"}},
	},
	{
		Name: "hang-detection", Off: "a write to the disk that hangs ends the node",
		Edits: []Edit{{"store/raftlog/watchdog.go", "\t\tw.hangs()\n", ""}},
		Kinds: []string{"hanging-sync-follower"}, Runs: 1, Says: regexp.MustCompile("does not say|not within"),
		Tests: []Test{{"store/raftlog", "TestHungWriteIsFatal"}},
	},

	// Membership.
	{
		Name: "wiped-refusal", Off: "a node whose data directory is another is refused under its old id",
		Edits: []Edit{{"store/membership.go", "if n.Incarnation == known.Incarnation {", "if true {"}},
		Kinds: []string{"wiped-node"}, Runs: 2, Says: regexp.MustCompile("was wiped"),
		Tests: []Test{{"store", "TestWipedNodeIsRefused"}},
	},
	{
		Name: "old-configuration", Off: "a node votes for one that its old configuration does not know",
		Edits: []Edit{{"store/rafttransport/candidate.go", "\tmembers := node.Members()\n", "\tvar members []raft.Server // none\n"}},
		Kinds: []string{"member-changes"}, Runs: 1, Says: regexp.MustCompile("two of three voters"),
		Tests: []Test{{"store", "TestNodeElectsALeaderOutsideItsConfiguration"}},
	},
	{
		Name: "change-majority", Off: "a change of members is refused while those that there would be lack a majority",
		Edits: []Edit{{"store/awaitvoters.go", "enough := voters-len(missing) > voters/2", "enough := voters > 0"}},
		Kinds: []string{"member-changes"}, Runs: 1, Says: regexp.MustCompile("want a refusal"),
		Tests: []Test{{"store", "TestRemovalThatLeavesNoMajorityIsRefused"}},
	},
	{
		Name: "dead-voters-left", Off: "a dead voter is removed only while enough voters are left",
		Edits: []Edit{{"store/deadvoters.go", "case left < r.minVoters:", "case false:"}},
		Tests: []Test{{"store", "TestRemovalRules"}},
		Note:  "No kind removes dead voters; TestDeadVoterIsRemoved in tests/e2e does.",
	},
	{
		Name: "dead-voters-pause", Off: "a leader whose process was paused removes no voter for that",
		Edits: []Edit{{"store/deadvoters.go", "\t\tw.since = now // this process was paused\n", ""}},
		Tests: []Test{{"store", "TestPausedLeaderCountsAnew"}},
		Note:  "No kind removes dead voters.",
	},
	{
		Name: "dead-voters-again", Off: "a dead voter is asked once more while no other change of members is under way",
		Edits: []Edit{{"store/deadvoters.go", "\tplan := s.checkVoters(l, w)\n\tif", "\tplan := s.DeadVoters()\n\tif"}},
		Tests: []Test{{"store", "TestVoterReturnsBeforeItsRemoval"}},
		Note:  "No kind removes dead voters.",
	},
	{
		Name: "after-snapshot", Off: "a node whose log went beyond a snapshot that it was sent follows",
		Edits: []Edit{{"store/rafttransport/transport.go", "\t\tt.continueAfterSnapshot(node, rpc.Command)\n", ""}},
		Tests: []Test{{"store", "TestNodeWithAConflictingTailFollows"}},
		Note:  "The kinds cannot make a tail that is longer than what the least threshold keeps in the log.",
	},
	{
		Name: "stale-commits", Off: "a node that answers alone after its start shows committed entries only",
		Edits: []Edit{{"store/stale.go", "if err := s.fsm.replay(s.logs, s.commits.Last().Index)", "last, _ := s.logs.LastIndex()\n\tif err := s.fsm.replay(s.logs, last)"}},
		Kinds: []string{"cold-start-alone"}, Runs: 2, Says: regexp.MustCompile("never committed|state is wrong"),
		Tests: []Test{{"store", "TestStaleStartShowsNothingUncommitted"}},
	},
	{
		Name: "follows", Off: "a node that does not follow is not ready",
		Edits: []Edit{{"store/integrity.go", "cmp.Or(s.Diverged(), s.follow.err())", "cmp.Or(s.Diverged())"}},
		Tests: []Test{{"store", "TestNodeThatDoesNotFollowIsNotReady"}},
		Note:  "No kind keeps a node from applying what it stores.",
	},
	{
		Name: "data-identity", Off: "a data directory belongs to one node",
		Edits: []Edit{{"store/datadir.go", "if have.ID != id {", "if false {"}},
		Kinds: []string{"foreign-data"}, Runs: 2, Says: regexp.MustCompile("on the data of|belongs to node"),
		Tests: []Test{{"store", "TestDataDirThatIsNotThisNodes"}},
	},
	{
		Name: "peer-identity", Off: "a node answers only questions that are for it",
		Edits: []Edit{{"store/identity.go", "if id != \"\" && id != s.cfg.ID {", "if false {"}},
		Tests: []Test{{"store", "TestCallsForOtherNodes"}},
		Note:  "Closed window: two nodes of one cluster have to change addresses within the time of one question. Tried: moved-node, 3 runs.",
	},
	{
		Name: "ready", Off: "a node answers nothing before it has caught up since its start",
		Edits: []Edit{{"store/read.go", "if s.catchUp(ctx) == nil {", "if true || s.catchUp(ctx) == nil {"}},
		Kinds: []string{"restart-alone"}, Runs: 2, Says: regexp.MustCompile("started alone"),
		Tests: []Test{{"store", "TestRestartedNodeIsNotReadyAlone"}},
	},

	// What is on disk.
	{
		Name: "page-walk", Off: "the log's pages are checked before bbolt reads them",
		Edits: []Edit{{"store/raftlog/verify.go", "if err != nil || info.Size() == 0 {", "if err != nil || info.Size() >= 0 {"}},
		Kinds: []string{"damaged-log"}, Runs: 6, Says: regexp.MustCompile("exit code|does not say|goes on"),
		Tests: []Test{{"store", "TestAnyByteMayChange"}},
	},
	{
		Name: "raft-tail", Off: "the tail tells of a log that was cut off or set back",
		Edits: []Edit{{"store/raftlog/tail.go", "return t.at", "return tailMark{}"}},
		Kinds: []string{"damaged-log"}, Runs: 8, Says: regexp.MustCompile("exit code|does not say|goes on"),
		Tests: []Test{{"store", "TestDamagedLogIsRefusedAndTheAdviceWorks"}},
	},
	{
		Name: "segment-walk", Off: "every batch of the newest segment has its checksum",
		Edits: []Edit{{"store/walfile/walfile.go", "case valid && w.frame > 0:", "case false:"}},
		Tests: []Test{{"store", "TestDamagedLogIsRefusedAndTheAdviceWorks"}},
		Note:  "Closed window: raft.tail finds what this finds, unless a power cut lost the end of it too: no kind does both.",
	},
	{
		Name: "segment-list", Off: "the list of segments is not older than the segments",
		Edits: []Edit{{"store/raftlog/wal.go", "if id >= state.NextSegmentID {", "if false {"}},
		Tests: []Test{{"store", "TestDamagedLogIsRefusedAndTheAdviceWorks"}},
		Note:  "Closed window: as for segment-walk.",
	},
	{
		Name: "unfinished-write", Off: "what a crash left at the end of the log is cleared",
		Edits: []Edit{{"store/raftlog/wal.go", "cleared, err := clearFrom(f, found.End, size)", "cleared, err := int64(0), error(nil)"}},
		Tests: []Test{{"store/raftlog", "TestWALClearsAnUnfinishedWrite"}},
		Note:  "Closed window: the node has to be killed within the write that fills a segment. Tried: power-cut-all, 7 runs.",
	},
	{
		Name: "full-segment", Off: "a segment that was full at the end of the node gets its successor",
		Edits: []Edit{{"store/raftlog/wal.go", "return l.finishSeal(state, found, last)", "return nil"}},
		Tests: []Test{{"store/raftlog", "TestWALFinishesAFullSegment"}},
		Note:  "Closed window: the node has to be killed in the milliseconds between two segments. Tried: power-cut-all, 7 runs.",
	},
	{
		Name: "entry-checksums", Off: "every log entry has a checksum",
		Edits: []Edit{{"store/raftlog/checksum.go", "case len(l.Extensions) != 8 || binary.LittleEndian.Uint64(l.Extensions) != entrySum(l):", "case len(l.Extensions) != 8:"}},
		Kinds: []string{"damaged-entries"}, Runs: 2, Says: regexp.MustCompile("exit code|does not say|goes on"),
		Tests: []Test{{"store", "TestDamagedEntryEndsTheNodeThatReadsIt"}},
	},
	{
		Name: "snapshot-checksum", Off: "a start reads the snapshots whole",
		Edits: []Edit{{"store/raftlog/snapshots.go", "bad := s.readWhole(meta)", "bad := error(nil)"}},
		Kinds: []string{"damaged-snapshot"}, Runs: 6, Says: regexp.MustCompile("does not say that a snapshot is damaged"),
		Tests: []Test{{"store", "TestDamagedNewestSnapshotIsNotNeeded"}},
	},
	{
		Name: "snapshot-meta", Off: "raft's notes of a snapshot have a checksum",
		Edits: []Edit{{"store/raftlog/snapshots.go", "if err == nil && string(sum) != metaSum(meta) {", "if err == nil && len(sum) == 0 {"}},
		Tests: []Test{{"store", "TestAnyByteMayChange"}},
		Note:  "The index that changed-snapshot-meta changes is found by the snapshot's name, too.",
	},

	// Rings.
	{
		Name: "receipt-ring", Off: "a receipt names the ring that answered, not the group's newest revision",
		Edits: []Edit{{"rpc/read.go", "Revision: a.view.Revision, Fingerprint: a.view.Fingerprint,", "Revision: a.group.Revision, Fingerprint: a.group.Fingerprint(),"}},
		Tests: []Test{{"registrytest", "TestReceiptNamesTheRingThatAnswered"}},
		Note:  "The load matches without the owner's receipt being compared with members of that revision; the test does that.",
	},
	{
		Name: "fingerprint-weight", Off: "a fingerprint has the members' numbers of points",
		Edits: []Edit{{"ring/fingerprint.go", "binary.LittleEndian.AppendUint32(b, uint32(points))", "binary.LittleEndian.AppendUint32(b, 1)"}},
		Tests: []Test{{"ring", "TestFingerprintHasTheWeight"}},
		Note:  "All nodes and clients leave the weight out alike, so that no two of them differ.",
	},
	{
		Name: "ring-age", Off: "a local ring is confirmed when it is published, not when its state came",
		Edits: []Edit{{"sdk/ring.go", "!r.staleness.confirmState(received, asOf)", "!r.staleness.confirmState(received*0, asOf)"}},
		Tests: []Test{{"sdk", "TestAgeCountsThePublishedRing"}},
		Note:  "The load has no local rings; TestReceiptsUnderPartitionAndChurn has them under faults.",
	},
	{
		Name: "stale-ring", Off: "a ring that is behind its group answers for a limited time",
		Edits: []Edit{{"fsm/rings/cache.go", "return st, st.Delay <= max(StaleLimit, time.Duration(e.buildTime.Load()))", "return st, true"}},
		Tests: []Test{{"fsm/rings", "TestStaleRingHasALimit"}},
		Note:  "From outside it takes builds that are slower than a second.",
	},

	// The locked bind port.
	{
		Name: "peer-signature", Off: "a node's certificate is signed by the cluster's secret",
		Edits: []Edit{{"rpc/peertls/trust.go", "if len(rest) == 0 && leaf.CheckSignatureFrom(a.cert) == nil {", "if a != nil {"}},
		Tests: []Test{{"rpc/peertls", "TestUnknownPeersAreRefused"}},
		Note:  "In all kinds of faults every node has the secret.",
	},
	{
		Name: "peer-id", Off: "a node joins under the id in its certificate",
		Edits: []Edit{{"rpc/peers.go", "if err := p.identity.Check(end, id); err != nil {", "if err := p.identity.Check(end, id); false {"}},
		Tests: []Test{{"registrytest", "TestForgedJoin"}},
		Note:  "No fault is a node that lies.",
	},
	{
		Name: "secret-gone", Off: "connections of a secret that is gone are closed",
		Edits: []Edit{{"rpc/peertls/identity.go", "if _, err := t.verify(c.chain); err != nil {", "if false {"}},
		Tests: []Test{{"rpc/peertls", "TestConnectionsOfAGoneSecret"}},
		Note:  "No fault replaces the secret.",
	},

	// Snapshot files and their restoration.
	{
		Name: "file-checksums", Off: "a part of a snapshot file has its checksum",
		Edits: []Edit{{"fsm/backup/read.go", "sum != binary.LittleEndian.Uint64(head[5:]) {", "sum == 1 {"}},
		Tests: []Test{{"fsm/backup", "TestEveryByteCounts"}},
		Note:  noRestore,
	},
	{
		Name: "file-digest", Off: "the state of a snapshot file has the header's digest",
		Edits: []Edit{{"fsm/backup/read.go", "if h.Digest != s.Digest() {", "if false {"}, {"fsm/backup/read.go", "if want := headerOf(s, h); !proto.Equal(want, h) {", "if want := headerOf(s, h); false {"}},
		Tests: []Test{{"fsm/backup", "TestRightChecksumsAreNotEnough"}},
		Note:  noRestore,
	},
	{
		Name: "restore-epoch", Off: "an expiry from before a restoration is void",
		Edits: []Edit{{"fsm/replace.go", "m.Epoch, m.ModifiedIndex = r.index, r.index", "m.ModifiedIndex = r.index"}},
		Tests: []Test{{"fsm", "TestEarlierExpiryDoesNotReachRestoredLeases"}},
		Note:  noRestore,
	},
	{
		Name: "restore-leases", Off: "leases of another cluster's snapshot get ids of this one",
		Edits: []Edit{{"fsm/replace.go", "m.CreatedIndex, m.LeaseID = r.index, r.batch.newLease()", "m.CreatedIndex = r.index"}},
		Tests: []Test{{"fsm", "TestRestoreOfAnotherLog"}},
		Note:  noRestore,
	},
	{
		Name: "restore-held", Off: "a process that has an id gets it back after a restoration",
		Edits: []Edit{{"fsm/replace.go", "has != nil && has.Instance != m.Instance {", "has != nil && has.Instance == \"\" {"}},
		Tests: []Test{{"fsm", "TestRestoreLeavesTheIDToItsProcess"}},
		Note:  noRestore,
	},
	{
		Name: "restore-fences", Off: "a member that is restored is not fenced",
		Edits: []Edit{{"fsm/replace.go", "\t\tr.batch.unfence(from.Name, m)\n", ""}},
		Tests: []Test{{"fsm", "TestRestoredMemberIsNotFenced"}},
		Note:  noRestore,
	},
	{
		Name: "restore-tokens", Off: "a snapshot without tokens does not turn them off",
		Edits: []Edit{{"fsm/replace.go", "if s.TokensOn() && !from.TokensOn() {", "if false {"}},
		Tests: []Test{{"fsm", "TestRestoreThatIsRefused"}, {"registrytest", "TestRestoreIsRefused"}},
		Note:  noRestore,
	},
	{
		Name: "restore-index", Off: "the index of a restoration has the restored state for everybody",
		Edits: []Edit{{"fsm/machine.go", "if cmd.GetRestoreEnd() != nil && i > 0 {", "if false {"}},
		Tests: []Test{{"fsm", "TestRestoreInTheMiddleOfABatch"}},
		Note:  noRestore,
	},
	{
		Name: "restore-staged", Off: "a restoration ends with its leader",
		Edits: []Edit{{"fsm/admin.go", "\tb.dropStaged()", "\t_ = b.dropStaged"}},
		Tests: []Test{{"fsm", "TestNothingOfARestorationShowsBeforeItsEnd"}, {"store", "TestRestoreEndsWithItsLeader"}},
		Note:  noRestore,
	},
	{
		Name: "restore-unfinished", Off: "a node whose data directory is not wholly restored does not start",
		Edits: []Edit{{"store/restorefile.go", "case ident.restoring() && s.cfg.Restore == \"\":", "case false:"}},
		Tests: []Test{{"store", "TestUnfinishedNewCluster"}},
		Note:  noRestore,
	},
	{
		Name: "recover-once", Off: "a recovery ends once: the next start does not empty the log again",
		Edits: []Edit{{"store/recover.go", "\tnext.Recovering = \"\"\n", ""}},
		Tests: []Test{{"store", "TestRecoveryIsWholeAtEveryStep"}},
		Note:  noRecovery,
	},
	{
		Name: "recover-id", Off: "a recovered cluster has an id of its own",
		Edits: []Edit{{"store/recover.go", "next.ClusterID, next.Recovering = recoveredID(next.ClusterID), id", "next.Recovering = id"}},
		Tests: []Test{{"store", "TestOldMajorityDoesNotMixWithTheRecoveredCluster"}},
		Note:  noRecovery,
	},
	{
		Name: "recover-gap", Off: "a recovered cluster gives out no index that the lost nodes may have given out",
		Edits: []Edit{{"store/recover.go", "index, term := r.LastIndex+recoveryGap,", "index, term := r.LastIndex+1,"}},
		Tests: []Test{{"store", "TestRecoveryIsWholeAtEveryStep"}},
		Note:  noRecovery,
	},

	// A wrong state. The node skips one entry of the log.
	{
		Name: "wrong-state", Off: "nothing: a node skips an entry, and the consistency check must find and mend it",
		Edits: []Edit{skipsAnEntry, importsOS},
		Kinds: []string{"consistency-check"}, Runs: 2, Says: regexp.MustCompile("its rings are the others' since then"),
	},
	{
		Name: "wrong-state-unwatched", Off: "the consistency check, and a node skips an entry: clients must notice",
		Edits: []Edit{skipsAnEntry, importsOS, {"store/integrity.go", "if s.cfg.CheckInterval < 0 {", "if true {"}},
		Kinds: []string{"consistency-check"}, Runs: 2, Says: regexp.MustCompile("^(digests|views|linearizable|ledger|watch)"),
		Tests: []Test{{"store", "TestWrongStateIsFoundAndReinstalled"}},
	},
}

// noRestore is why no kind finds a mutant of a restoration.
const noRestore = "No kind saves or restores a snapshot; TestSnapshotKills does so with processes that are killed."

// noRecovery is the same of a recovery.
const noRecovery = "No kind recovers a cluster; TestLostQuorum does so with processes, and kills recoveries."

var (
	skipsAnEntry = Edit{"store/machine.go", "if l.Type == raft.LogCommand {\n\t\te.Data = l.Data\n", "if l.Type == raft.LogCommand && (l.Index != 300 || !slices.Contains(os.Args, \"-id=n2\")) {\n\t\te.Data = l.Data\n"}
	importsOS    = Edit{"store/machine.go", "\t\"io\"\n\t\"sync\"\n", "\t\"io\"\n\t\"os\"\n\t\"slices\"\n\t\"sync\"\n"}
)
