// Raft, all of Figure 2, in one file: servers that elect a leader, keep a replicated log and serve
// a key-value store from it, over UDP, with files that survive kill -9. Put Figure 2 of the Raft
// paper (Ongaro and Ousterhout, extended version) beside this file and read both. To see it run,
// type go run . and then set x 1, get x, kill 1, start 1, logs, help.
//
// Part I is Figure 2 with the reasons: inputs go into Step and effects come out of it, without any
// socket, file, goroutine or clock. Part II adds clients, Part III the machine around the
// algorithm. Parts I and II are the first half of an evening. Part IV, the laboratory, can be
// skipped without loss, and so can every call of tell and count: they narrate and change nothing.
//
//	I    1 State · 2 Messages · 3 The log · 4 Step · 5 Elections · 6 Replication · 7 Commit, apply
//	II   8 The state machine · 9 Exactly once · 10 Linearizable reads
//	III  11 Disk · 12 Network · 13 The loop
//	IV   14 Narration and the terminal · 15 Console · 16 Experiments · 17 Cluster and main
//
// The rules of Figure 2, in our words. Each tag stands in square brackets on the line that carries
// its rule out (grep -n '\[AE3\]' raft.go). Below are ours: sessions (§8), reads (§8; Ongaro's
// thesis, 6.4), CheckQuorum and the disk; last, where we depart (NOTES.md defends it), as in (D5).
//
//	Persist  term, vote and log are on disk before anything that depends on them is answered
//	All1     apply what is committed, in order
//	All2     a higher term in any message: adopt it and become a follower
//	Fol1     answer candidates and leaders
//	Fol2     an election timeout without a current leader or a granted vote: become a candidate
//	Cand1    begin a new term, vote for oneself, restart the timer, ask everybody
//	Cand2    votes from a majority: become the leader
//	Cand3    an AppendEntries of this term: somebody else has won, so follow
//	Cand4    the election timed out: begin another
//	Lead1    send AppendEntries to all at once when elected, and whenever idle
//	Lead2    a client's command: append it, and answer after applying it
//	Lead3    a follower lacks entries: send them from nextIndex on
//	Lead3a   it succeeded: raise nextIndex and matchIndex
//	Lead3b   it did not match: lower nextIndex and try again
//	Lead4    commit what a majority stores, if it is of the current term
//	RV1      refuse a vote to an older term
//	RV2      one vote per term, and only for a log at least as up to date
//	AE1      refuse entries from an older term
//	AE2      refuse entries unless the one before them matches
//	AE3      delete an entry that conflicts, and all that follow it
//	AE4      append what is not in the log yet
//	AE5      follow leaderCommit, up to the last new entry
//
//	SE1      a repeat of what this leader has appended and not yet applied is not appended again
//	SE2      a serial that was applied gets the stored answer and changes nothing
//	SE3      sessions are state machine state, the same on every server
//	RD1      no read is answered before an entry of the leader's own term is committed
//	RD2      a read notes the commitIndex at its arrival
//	RD3      a majority answers an AppendEntries that was sent after the read arrived
//	RD4      a read is answered once what it noted is applied
//	CQ1      a leader that no majority answers for an election timeout steps down
//	CQ2      a candidate that no majority answers repeats its request, and the term stays
//	DK1      a file begins with its format, its server and the members of the cluster
//	DK2      an entry's record replaces every earlier entry at its index and above
//	DK3      a torn tail is cut off: nobody was told of it
//	DK4      other damage may have destroyed a promise: the server does not start
//	DK5      a failed write or fsync stops the server
//	DK6      a file that somebody else removed, replaced or wrote to stops the server
//
//	D1  messages are one-way datagrams, so a reply says what it confirms or refuses
//	D2  votes are a set of servers, because a datagram may arrive twice
//	D3  a leader's first entry is empty (§8)
//	D4  the entries of one AppendEntries are bounded by what a datagram carries
//	D5  a refusal says where the conflict begins, so nextIndex skips whole terms (§5.3)
//	D6  a leader sends AppendEntries before its own fsync (thesis 10.2.1)
//	D7  the standing rules run once per batch of inputs
//	D8  a server without a majority steps down, and begins one new term at most [CQ1] [CQ2]
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"
)

// PART I. THE ALGORITHM ===========================================================================
// ---- 1. State -----------------------------------------------------------------------------------
// The first box of Figure 2, in its order and with its names, then what we need besides. At the end
// stand the only two functions that change currentTerm, votedFor and log of a running server. Each
// emits the record for the disk (chapter 11) itself, so nobody can forget to persist. Each asserts
// what Figure 3 guarantees: must stops the server when that does not hold (chapter 13).

// none is the paper's null; servers are numbered from 1.
const none = 0

// role is one of the three states of Figure 4.
type role int

const (
	follower role = iota
	candidate
	leader
)

// entry is one place of the log: a command and the term in which a leader received it. Client and
// Serial name the request (chapter 9). A leader's first entry has only a term (D3).
type entry struct {
	Term    int
	Client  string
	Serial  int
	Command string
}

// persistent is the persistent state on all servers, which a restarted server finds on its disk.
type persistent struct {
	currentTerm int      // latest term this server has seen; never falls
	votedFor    int      // candidate that received its vote in currentTerm, or none
	log         []*entry // log[0] is a sentinel of term 0, so the first index is 1
}

// server is one Raft server. Its life is calls of Step (chapter 4).
type server struct {
	persistent

	// Volatile state on all servers.
	commitIndex int // highest index known to be committed; never falls
	lastApplied int // highest index applied to the state machine

	// Volatile state on leaders, made anew at each election.
	nextIndex  map[int]int // by follower: the next index to send to it
	matchIndex map[int]int // by follower: the highest index known to be stored there

	// The rest is ours.
	id       int
	peers    []int // the other servers, ascending; no rule ranges over a map, whose order is random
	role     role
	leaderID int          // whom clients are sent to, or none
	votes    map[int]bool // candidate: by voter, yes or no; without an answer, no key (D2)

	now         int        // the clock, in ticks
	electionDue int        // follower, candidate: the tick of the election timeout
	rand        *rand.Rand // draws election timeouts, nothing else

	progress map[int]*progress // leader: what is on its way to each follower (chapter 6)
	seq      int               // leader: number of the last AppendEntries, to whomever it went

	clients      // Part II
	noopOff bool // an experiment without D3
	voice        // narration (chapter 14)
	out     Output
}

// Timeouts in ticks; at 10 ms each, the paper's 150 to 300 ms. Two lost heartbeats rarely matter.
const (
	heartbeatTicks   = 5
	electionTicksMin = 15
	electionTicksMax = 30
)

// newServer makes a follower. commitIndex begins at 0: a leader must tell it what is committed.
func newServer(id int, peers []int, state persistent, r *rand.Rand) *server {
	m := machine{values: map[string]string{}, sessions: map[string]session{}}
	s := &server{id: id, peers: peers, persistent: state, rand: r,
		clients: clients{machine: m}, voice: voice{fired: map[string]int{}}}
	s.resetElectionTimer()
	return s
}

// setTermAndVote alone changes currentTerm and votedFor. One record holds both: no crash splits it.
func (s *server) setTermAndVote(term, votedFor int) {
	newVote := term == s.currentTerm && s.votedFor == none
	must(term > s.currentTerm || newVote, "terms never fall, and there is one vote per term")
	s.currentTerm, s.votedFor = term, votedFor
	record := fmt.Sprintf("term %d vote %d", term, votedFor)
	s.out.Persist = append(s.out.Persist, record) // [Persist]
	s.count("Persist")
}

// store is the only function that changes the log: the entries take the places from index on, and
// whatever stood there or behind is gone. The disk needs no record of the cut [DK2].
func (s *server) store(index int, entries ...*entry) {
	must(index > s.commitIndex, "no committed entry is replaced (State Machine Safety)")
	must(index > s.lastIndex() || s.role != leader, "no leader cuts its log (Leader Append-Only)")
	must(index <= s.lastIndex()+1, "a log has no gaps")
	if index <= s.lastIndex() {
		s.tell(1, "AE3", "deletes #%d to #%d, which conflict", index, s.lastIndex())
	}
	s.log = s.log[:index]
	for _, e := range entries {
		s.out.Persist = append(s.out.Persist, strconv.Itoa(len(s.log))+" "+e.String()) // [Persist]
		s.log = append(s.log, e)
	}
	s.count("Persist")
}

// ---- 2. Messages --------------------------------------------------------------------------------
// One struct per box of Figure 2, in the figure's order and spelling, in an envelope that says from
// whom, to whom and in which term. The paper's RPCs are pairs of one-way messages here (D1). Any of
// them may be lost, late, doubled or overtaken, so a reply repeats what it is about.

// Message is what one server sends to another. Exactly one of the bodies is set.
type Message struct {
	From int `json:"from,omitempty"`
	To   int `json:"to,omitempty"`
	Term int `json:"term,omitempty"` // the sender's currentTerm
	At   int `json:"at,omitempty"`   // Lamport clock of the narration (chapter 14)

	RequestVote        *requestVote        `json:"requestVote,omitempty"`
	RequestVoteReply   *requestVoteReply   `json:"requestVoteReply,omitempty"`
	AppendEntries      *appendEntries      `json:"appendEntries,omitempty"`
	AppendEntriesReply *appendEntriesReply `json:"appendEntriesReply,omitempty"`
}

type requestVote struct {
	CandidateID  int `json:"candidateId"`
	LastLogIndex int `json:"lastLogIndex"` // index of the candidate's last entry (§5.4)
	LastLogTerm  int `json:"lastLogTerm"`  // and its term
}

type requestVoteReply struct {
	VoteGranted bool `json:"voteGranted"`
}

type appendEntries struct {
	LeaderID     int      `json:"leaderId"`     // so that followers can redirect clients
	PrevLogIndex int      `json:"prevLogIndex"` // index of the entry right before the new ones
	PrevLogTerm  int      `json:"prevLogTerm"`  // and its term
	Entries      []*entry `json:"entries"`      // none in a heartbeat; each is text (chapter 8)
	LeaderCommit int      `json:"leaderCommit"` // the leader's commitIndex
	Seq          int      `json:"seq"`          // number of this message within the reign (D1)
}

// appendEntriesReply repeats the seq of what it answers. MatchIndex, up to which the logs agree,
// is not Figure 2's. A refusal by [AE1] answers an earlier reign: seq is 0, all else is empty.
type appendEntriesReply struct {
	Success    bool `json:"success"`
	MatchIndex int  `json:"matchIndex,omitempty"`
	Seq        int  `json:"seq,omitempty"`

	// A refusal by [AE2] says what it refuses and where the leader should try again (D5).
	PrevLogIndex  int `json:"prevLogIndex,omitempty"`
	ConflictTerm  int `json:"conflictTerm,omitempty"`  // of the follower's entry there; 0: none
	ConflictIndex int `json:"conflictIndex,omitempty"` // its first index of that term, or its end
}

// ---- 3. The log ---------------------------------------------------------------------------------
// What searches, compares or copies the log is here. The sentinel at index 0 has term 0
// and matches everywhere, so an empty log is not a special case.

func (s *server) lastIndex() int { return len(s.log) - 1 }
func (s *server) lastTerm() int  { return s.log[s.lastIndex()].Term }

// matches reports whether the log has an entry of this term at index. If so, everything before it
// is the same as in any other log that has this entry (Log Matching).
func (s *server) matches(index, term int) bool {
	return index <= s.lastIndex() && s.log[index].Term == term
}

// upToDate compares last entries (§5.4.1): the later term wins, of equal terms the longer log.
func (s *server) upToDate(lastLogIndex, lastLogTerm int) bool {
	return lastLogTerm > s.lastTerm() ||
		lastLogTerm == s.lastTerm() && lastLogIndex >= s.lastIndex()
}

// firstIndexOf finds the first index whose term is at least term, or lastIndex+1: terms never fall.
func (s *server) firstIndexOf(term int) int {
	return sort.Search(len(s.log), func(index int) bool { return s.log[index].Term >= term })
}

// batch copies the entries from index on that fit into limit bytes (D4), at least one if there are
// any. It must be a copy: the log may be cut before whoever keeps the Output sends the message.
func (s *server) batch(index, limit int) []*entry {
	end := index
	for size := 0; end <= s.lastIndex(); end++ {
		if size += s.log[end].size(); size > limit && end > index {
			break
		}
	}
	return slices.Clone(s.log[index:end])
}

// ---- 4. Step ------------------------------------------------------------------------------------
// Step is the whole interface of the algorithm, except for experiments (Part IV): inputs go in,
// effects come out, and inside there is only arithmetic. Handlers record what a message says. Then
// Figure 2's standing rules run, each with its own guard. Their order matters: what is committed is
// applied, what is applied is read, and replicate comes last, to send what the others decided.

// tick is one beat of the clock. The algorithm does not know how long that takes.
type tick struct{}

// Output lists effects in the order in which the host performs them (chapter 13).
type Output struct {
	Trace   []string  //    Narration is not an effect.
	Early   []Message // 1. A leader's AppendEntries leave first, since they promise nothing (D6).
	Persist []string  // 2. Records are on the disk before anything below leaves.
	Send    []Message // 3. All other messages leave.
	Reply   []reply   // 4. Clients hear their answers.
}

// Step takes inputs in their order, at most one tick among them, and returns the effects of all of
// them together. A caller that hands over all that is waiting pays for one fsync (D7).
func (s *server) Step(inputs ...any) Output {
	for _, in := range inputs {
		switch in := in.(type) {
		case tick:
			s.now++
		case *Message:
			s.receive(in)
		case *request:
			s.submit(in)
		}
	}
	s.electionTimeout()    // [Fol2] [Cand4] [CQ2]
	s.winElection()        // [Cand2]
	s.stepDown()           // [CQ1]
	s.advanceCommitIndex() // [Lead4]
	s.applyCommitted()     // [All1]
	s.serveReads()         // [RD3] [RD4]
	s.replicate()          // [Lead1] [Lead3]

	out := s.out
	s.out = Output{}
	return out
}

// receive takes one message. Its term comes first, whatever the body is. Adopting a higher term
// does not restart the election timer: whoever sent it may not be able to win.
func (s *server) receive(m *Message) {
	s.hear(m)
	if m.Term > s.currentTerm { // [All2]
		s.setTermAndVote(m.Term, none)
		s.becomeFollower()
		s.tell(1, "All2", "term %d, seen at S%d", m.Term, m.From)
	}
	s.count("Fol1")
	switch { // [Fol1] in every role; each handler looks at role and term itself
	case m.RequestVote != nil:
		s.onRequestVote(m.From, m.Term, m.RequestVote)
	case m.RequestVoteReply != nil:
		s.onRequestVoteReply(m.From, m.Term, m.RequestVoteReply)
	case m.AppendEntries != nil:
		s.onAppendEntries(m.From, m.Term, m.AppendEntries)
	case m.AppendEntriesReply != nil:
		s.onAppendEntriesReply(m.From, m.Term, m.AppendEntriesReply)
	}
}

// send puts a message into the Output, with the term of this moment. tag is the rule behind it.
func (s *server) send(tag string, to int, m Message) {
	m.From, m.To, m.Term = s.id, to, s.currentTerm
	m.At = s.tellSent(tag, &m)
	if m.AppendEntries != nil {
		s.out.Early = append(s.out.Early, m)
	} else {
		s.out.Send = append(s.out.Send, m)
	}
}

// majorityReached returns the highest value that a majority has reached. own is this server's.
func (s *server) majorityReached(own int, of func(peer int) int) int {
	values := []int{own}
	for _, p := range s.peers {
		values = append(values, of(p))
	}
	slices.Sort(values)
	return values[len(values)-s.majority()] // this value and those behind it are a majority
}

// majority is the smallest number of servers such that any two sets of that many share one.
func (s *server) majority() int { return (len(s.peers)+1)/2 + 1 }

// ---- 5. Elections (§5.2, §5.4.1) ----------------------------------------------------------------
// From silence to a leader: the timeout, the candidate, the voter, the count. Two things make it
// safe. A server votes once per term, so one term never has two leaders. And it votes only for a
// log at least as up to date as its own, so every leader has every committed entry.

func (s *server) electionTimeout() {
	if s.role == leader || s.now < s.electionDue {
		return
	}
	// Without an answer from a majority, a new term could not be won either, but it would depose
	// the leader that others may have. So a server that hears nobody repeats its request (D8).
	if s.role == candidate && len(s.votes) < s.majority() { // [CQ2]
		s.resetElectionTimer()
		s.tell(1, "CQ2", "%d of %d answered, asks again", len(s.votes), len(s.peers)+1)
		s.requestVotes()
		return
	}
	s.tell(1, [...]string{"Fol2", "Cand4"}[s.role], "election timeout, leader %s", name(s.leaderID))
	s.becomeCandidate() // [Fol2] [Cand4]
}

// resetElectionTimer draws a new timeout. Only three events restart a running one: an AppendEntries
// of the current leader, a vote granted, and votes asked for. A leader has no timer running, so it
// starts one when it becomes a follower. The spread keeps candidates from splitting every vote.
func (s *server) resetElectionTimer() {
	s.electionDue = s.now + electionTicksMin + s.rand.IntN(electionTicksMax-electionTicksMin+1)
}

// becomeFollower keeps the vote, which is given once per term whatever the role is. A leader that
// falls forgets who waits: their commands may yet be applied, and the clients ask again.
func (s *server) becomeFollower() {
	if s.role == leader {
		s.resetElectionTimer()
		s.waiting, s.reads = nil, nil
	}
	s.role, s.leaderID = follower, none
}

func (s *server) becomeCandidate() {
	s.setTermAndVote(s.currentTerm+1, s.id) // [Cand1]
	s.role, s.leaderID = candidate, none
	s.votes = map[int]bool{s.id: true}
	s.resetElectionTimer()
	s.tell(1, "Cand1", "votes for itself, needs %d of %d votes", s.majority(), len(s.peers)+1)
	s.requestVotes()
}

func (s *server) requestVotes() {
	for _, p := range s.peers {
		s.send("Cand1", p, Message{RequestVote: &requestVote{
			CandidateID: s.id, LastLogIndex: s.lastIndex(), LastLogTerm: s.lastTerm()}})
	}
}

// onRequestVote is the receiver's half of the figure's box. After [All2], term <= currentTerm.
func (s *server) onRequestVote(from, term int, rv *requestVote) {
	if term < s.currentTerm { // [RV1]
		s.send("RV1", from, Message{RequestVoteReply: &requestVoteReply{}})
		return
	}
	granted := (s.votedFor == none || s.votedFor == rv.CandidateID) && // [RV2] one vote per term,
		s.upToDate(rv.LastLogIndex, rv.LastLogTerm) // and only for a log at least as up to date
	// A repeated yes restarts no timer: a candidate that hears none, asking on, would silence all.
	if granted && s.votedFor == none {
		s.setTermAndVote(term, rv.CandidateID)
		s.resetElectionTimer() // [Fol2]
	}
	s.send("RV2", from, Message{RequestVoteReply: &requestVoteReply{VoteGranted: granted}})
}

// onRequestVoteReply records a yes, or a no, which only [CQ2] counts. Either may come twice (D2).
func (s *server) onRequestVoteReply(from, term int, r *requestVoteReply) {
	if s.role == candidate && term == s.currentTerm {
		s.votes[from] = s.votes[from] || r.VoteGranted
	}
}

func (s *server) winElection() {
	if s.role == candidate && len(s.voters()) >= s.majority() { // [Cand2]
		s.becomeLeader()
		s.tell(1, "Cand2", "elected by %s", list(s.voters()))
	}
}

// voters lists the servers that have granted their vote.
func (s *server) voters() []int {
	everybody := append([]int{s.id}, s.peers...)
	return slices.DeleteFunc(everybody, func(id int) bool { return !s.votes[id] })
}

// becomeLeader begins a reign. It assumes that all logs equal its own, and refusals correct it. Its
// first entry is empty (D3): one of its own term commits what earlier leaders left [Lead4].
func (s *server) becomeLeader() {
	s.role, s.leaderID = leader, s.id
	s.seq, s.roundSeq, s.waiting = 0, 0, map[string]*request{} // chapters 9, 10
	s.nextIndex, s.matchIndex, s.progress = map[int]int{}, map[int]int{}, map[int]*progress{}
	for _, p := range s.peers {
		s.nextIndex[p], s.matchIndex[p] = s.lastIndex()+1, 0
		// The first heartbeat is due at once [Lead1], and the patience of [CQ1] begins now.
		s.progress[p] = &progress{heartbeatDue: s.now, heardAt: s.now, limit: maxBatch}
	}
	if !s.noopOff {
		s.store(s.lastIndex()+1, &entry{Term: s.currentTerm})
	}
}

// stepDown ends the reign of a leader that no majority answers: others may do better. It keeps its
// term and its vote. Its next election timeout begins a new term, so it never leads a term twice.
func (s *server) stepDown() {
	if s.role != leader {
		return
	}
	heardAt := s.majorityReached(s.now, func(p int) int { return s.progress[p].heardAt })
	if s.now-heardAt >= electionTicksMax { // [CQ1]
		s.becomeFollower()
		s.tell(1, "CQ1", "no majority has answered for %d ticks, steps down", s.now-heardAt)
	}
}

// ---- 6. Replication (§5.3) ----------------------------------------------------------------------
// A follower accepts entries only behind an entry that matches, so by induction its log equals the
// leader's up to there. For each follower at most one AppendEntries with entries is unanswered, and
// nextIndex and matchIndex change on replies only, as in Figure 2.

// appendCommand takes a client's command, which chapter 9 has found to be new.
func (s *server) appendCommand(r *request) {
	s.store(s.lastIndex()+1, &entry{s.currentTerm, r.Client, r.Serial, r.Command}) // [Lead2]
	s.waiting[r.Client] = r
	s.tell(2, "Lead2", "#%d %s", s.lastIndex(), r.Command)
}

// progress is what a leader knows about the way to one follower.
type progress struct {
	heartbeatDue int // tick of the next AppendEntries, even if there is nothing to send
	heardAt      int // tick of the latest reply [CQ1]
	answeredSeq  int // highest seq that it has answered [RD3]

	// The message whose entries are unanswered: its seq or 0, its tick, its last index.
	unansweredSeq, unansweredAt, unansweredIndex int

	limit int // bytes of entries in one message, from minBatch to maxBatch (chapter 8)
}

// replicate is the only sender of AppendEntries.
func (s *server) replicate() {
	if s.role != leader {
		return
	}
	for _, p := range s.peers {
		w, prev := s.progress[p], s.nextIndex[p]-1
		tag, entries := "Lead1", []*entry{}
		if s.lastIndex() > prev && w.unansweredSeq == 0 { // [Lead3]
			tag, entries = "Lead3", s.batch(prev+1, w.limit)
			w.unansweredSeq, w.unansweredAt, w.unansweredIndex = s.seq+1, s.now, prev+len(entries)
		} else if s.now < w.heartbeatDue && !s.roundDue { // [Lead1], and chapter 10
			continue
		}
		s.seq++
		w.heartbeatDue = s.now + heartbeatTicks
		s.send(tag, p, Message{AppendEntries: &appendEntries{LeaderID: s.id, Seq: s.seq,
			PrevLogIndex: prev, PrevLogTerm: s.log[prev].Term,
			Entries: entries, LeaderCommit: s.commitIndex}})
	}
	s.roundDue = false
}

// onAppendEntries is the receiver's half of the figure's box. After [All2], term <= currentTerm.
func (s *server) onAppendEntries(from, term int, ae *appendEntries) {
	if term < s.currentTerm { // [AE1]
		s.send("AE1", from, Message{AppendEntriesReply: &appendEntriesReply{}})
		return
	}
	s.follow(ae.LeaderID)

	prev := ae.PrevLogIndex
	if !s.matches(prev, ae.PrevLogTerm) { // [AE2]
		s.send("AE2", from, Message{AppendEntriesReply: s.refusal(prev, ae.Seq)})
		return
	}
	for i, e := range ae.Entries {
		index := prev + 1 + i
		// Only a real conflict deletes anything. A late, shorter AppendEntries is not a conflict,
		// and cutting the log to its length would erase entries that this server has confirmed.
		if !s.matches(index, e.Term) {
			s.store(index, ae.Entries[i:]...) // [AE3] [AE4]
			break
		}
	}
	// commitIndex stops at the last *new* entry: what follows it in our log was not compared with
	// the leader's and may conflict. Datagrams overtake each other, and commitIndex never falls.
	lastNew := prev + len(ae.Entries)
	if n := min(ae.LeaderCommit, lastNew); n > s.commitIndex { // [AE5]
		s.commitIndex = n
		s.tell(1, "AE5", "commit %d, says S%d", n, from)
	}
	s.send("AE4", from, Message{AppendEntriesReply: &appendEntriesReply{
		Success: true, MatchIndex: lastNew, Seq: ae.Seq}})
}

// follow accepts the sender of a current AppendEntries as the leader, even if [AE2] refuses it.
func (s *server) follow(leaderID int) {
	must(s.role != leader, "a term has at most one leader (Election Safety)")
	s.resetElectionTimer() // [Fol2]
	if s.leaderID != leaderID {
		rule := [...]string{"Fol1", "Cand3"}[s.role]
		s.becomeFollower() // [Cand3]
		s.leaderID = leaderID
		s.tell(1, rule, "follows S%d", leaderID)
	}
}

// refusal says where to try again (D5): behind our last entry, or at the first of the conflicting
// term, since a leader that lacks one entry of a term often lacks more of them.
func (s *server) refusal(prev, seq int) *appendEntriesReply {
	r := &appendEntriesReply{Seq: seq, PrevLogIndex: prev, ConflictIndex: s.lastIndex() + 1}
	if prev <= s.lastIndex() {
		r.ConflictTerm = s.log[prev].Term
		r.ConflictIndex = s.firstIndexOf(r.ConflictTerm)
	}
	return r
}

// onAppendEntriesReply learns what a follower stores. A reply of another term is about the log of
// another reign, and one without a number answers a message of an earlier reign [AE1].
func (s *server) onAppendEntriesReply(from, term int, r *appendEntriesReply) {
	if s.role != leader || term != s.currentTerm || r.Seq == 0 ||
		r.Seq > s.seq || r.MatchIndex > s.lastIndex() { // answers what was never sent
		return
	}
	// 1. Any reply proves that the follower is there and in our term.
	w := s.progress[from]
	w.heardAt = s.now
	w.answeredSeq = max(w.answeredSeq, r.Seq)

	// 2. A success counts for what it confirms, and matchIndex never falls, since replies overtake
	// each other. A refusal counts only if it refuses what would be sent now. When one arrives
	// twice, the first lowers nextIndex, say from 10 to 7, and the second, about #9, is too late.
	if r.Success { // [Lead3a]
		s.matchIndex[from] = max(s.matchIndex[from], r.MatchIndex)
		s.nextIndex[from] = max(s.nextIndex[from], s.matchIndex[from]+1)
		s.count("Lead3a")
	} else if prev := r.PrevLogIndex; prev == s.nextIndex[from]-1 && prev > s.matchIndex[from] {
		s.nextIndex[from] = max(s.matchIndex[from]+1, s.tryAgainAt(r)) // [Lead3b]
		s.tell(1, "Lead3b", "S%d lacks #%d, nextIndex %d", from, prev, s.nextIndex[from])
	}

	// 3. It settles the unanswered entries if it answers their message, or a later one once they
	// are a heartbeat old: then we take them for lost, and no longer for overtaken.
	old := s.now-w.unansweredAt >= heartbeatTicks
	if w.unansweredSeq == 0 || r.Seq < w.unansweredSeq || r.Seq > w.unansweredSeq && !old {
		return
	}
	w.unansweredSeq = 0

	// 4. Some networks lose every datagram above a size. If a later message was answered and the
	// entries are missing, the next batch has half the bytes. The limit rises slowly: doubling it
	// would lose every other batch. Confessed: an entry too large for the network is sent for ever.
	if r.Success && s.matchIndex[from] < w.unansweredIndex {
		w.limit = max(minBatch, w.limit/2)
	} else if r.Success {
		w.limit = min(maxBatch, w.limit+w.limit/8)
	}
}

// tryAgainAt reads a refusal (D5). If the leader has entries of the conflicting term, the logs may
// agree up to the last of them; otherwise all of that term must go.
func (s *server) tryAgainAt(r *appendEntriesReply) int {
	next := r.ConflictIndex
	if after := s.firstIndexOf(r.ConflictTerm + 1); s.log[after-1].Term == r.ConflictTerm {
		next = max(next, after)
	}
	return min(next, r.PrevLogIndex) // lower than before in any case
}

// ---- 7. Commit and apply (§5.3, §5.4.2) ---------------------------------------------------------
// An entry is committed when no future leader can lack it. Then it is applied and answered.

// advanceCommitIndex finds Figure 2's N. The leader may count entries that are not on its own disk
// yet (D6): no follower confirms them before the next Step, and by then they are there.
func (s *server) advanceCommitIndex() {
	if s.role != leader {
		return
	}
	n := s.majorityReached(s.lastIndex(), func(p int) int { return s.matchIndex[p] })
	// An entry of an older term may be on a majority and still be overwritten (Figure 8). One of
	// this term cannot, and it commits all entries before it.
	if n > s.commitIndex && s.log[n].Term == s.currentTerm { // [Lead4]
		s.commitIndex = n
		s.tell(1, "Lead4", "commit %d: a majority has #%dt%d of my term", n, n, s.currentTerm)
	}
}

// applyCommitted applies at most maxApply entries per Step. All servers apply the same entries in
// the same order, and the outcome depends on nothing else, so all state machines are equal.
func (s *server) applyCommitted() {
	for n := 0; n < maxApply && s.lastApplied < s.commitIndex; n++ { // [All1]
		s.lastApplied++
		e := s.log[s.lastApplied]
		a, ok := s.machine.apply(e) // chapter 9
		s.answerWaiting(e, a, ok)   // the second half of [Lead2]
		s.count("All1")
	}
}

// PART II. CLIENTS ================================================================================
// ---- 8. The state machine -----------------------------------------------------------------------
// A key-value store. A command is one line of text, the same in a client's datagram, in the log, on
// the disk and on the console. It is checked before it enters a log and has the same outcome on
// every server. A new command: a case in parse and its error, one in execute, a row in chapter 15.

// answer is the outcome of a command. A server's error is final, unless it is errNotLeader.
type answer struct {
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

const errNotLeader = "not the leader"

// Bounds, mostly bytes. JSON at most doubles printable text, so a command fits a datagram (D4).
const (
	maxDatagram = 65_507            // what UDP over IPv4 carries
	maxBatch    = maxDatagram - 512 // entries in a message; 512 bytes hold all that is around them
	minBatch    = 512               // a message is not made smaller than this
	maxCommand  = 16 << 10          // so no value is longer, and each fits a reply
	maxKey      = 256
	maxApply    = 5_000   // entries applied in one Step, so that a long log stops no clock
	maxInputs   = 4096    // inputs of one Step, so that answers do not wait for ever
	maxNumber   = 1 << 52 // of any number in a Message, so that no arithmetic overflows
)

// machine is the state machine: a function of the log and of nothing else.
type machine struct {
	values   map[string]string
	sessions map[string]session // by client (chapter 9)
}

// operation is a command, taken apart. It depends on the verb which fields count.
type operation struct {
	verb, key, value, old string
	n                     int64
}

// parse takes a command apart. Its error is for the client to read.
func parse(command string) (op operation, err error) {
	verb, rest := cutWord(command)
	key, rest := cutWord(rest)
	op = operation{verb: verb, key: key, value: rest}
	needs, fits := "KEY", rest == ""
	switch verb {
	case "get", "del":
	case "set":
		needs, fits = "KEY VALUE", rest != ""
	case "cas":
		op.old, op.value = cutWord(rest)
		needs, fits = "KEY OLD NEW", op.value != "" && !strings.Contains(op.value, " ")
	case "incr":
		op.n, err = strconv.ParseInt(cmp.Or(rest, "1"), 10, 64)
		needs, fits = "KEY [N]", !strings.Contains(rest, " ")
	default:
		needs = ""
	}
	switch {
	case len(command) > maxCommand || len(key) > maxKey:
		err = fmt.Errorf("a command has at most %d bytes, and a key %d", maxCommand, maxKey)
	case !printable(command):
		err = errors.New("a command is one line of printable UTF-8 text")
	case needs == "":
		err = fmt.Errorf("no such command %s; use set, get, del, incr or cas", quote(verb))
	case key == "" || !fits:
		err = fmt.Errorf("%s needs %s", verb, needs)
	case err != nil:
		err = fmt.Errorf("%s is not a number of 64 bits", quote(rest))
	}
	return op, err
}

// printable reports whether all of text shows. U+FFFD is what encoding/json makes of broken UTF-8.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool {
		return !unicode.IsPrint(c) || c == unicode.ReplacementChar
	})
}

// cutWord splits a line behind its first word and trims the rest.
func cutWord(line string) (word, rest string) {
	word, rest, _ = strings.Cut(strings.Trim(line, " "), " ")
	return word, strings.Trim(rest, " ")
}

// quote shows the beginning of a text in an error message, which stays under 1,000 bytes.
func quote(text string) string { return fmt.Sprintf("%.80q", text) }

func (m *machine) get(key string) string { return cmp.Or(m.values[key], "(none)") }

// execute carries out a write. An answer with an error has changed nothing.
func (m *machine) execute(command string) answer {
	op, _ := parse(command)                            // it was checked before it entered the log
	found, result, wrong := m.values[op.key], "ok", "" // no value is empty
	switch op.verb {
	case "del":
		delete(m.values, op.key)
		return answer{Result: choose(found != "", "ok", "(none)")}
	case "cas":
		if found != op.old {
			wrong = "not " + quote(op.old)
		}
	case "incr":
		old, err := strconv.ParseInt(cmp.Or(found, "0"), 10, 64)
		sum := old + op.n
		if err != nil {
			wrong = "not a number of 64 bits"
		} else if (sum > old) != (op.n > 0) {
			wrong = fmt.Sprintf("and adding %d would overflow", op.n)
		}
		op.value = strconv.FormatInt(sum, 10)
		result = op.value
	}
	if wrong != "" {
		is := choose(found == "", "(none)", quote(found))
		return failure("%s is %s, %s; nothing changed", op.key, is, wrong)
	}
	m.values[op.key] = op.value
	return answer{Result: result}
}

func failure(text string, args ...any) answer { return answer{Error: fmt.Sprintf(text, args...)} }

// String is an entry on disk and wire: its term, or term, client, serial, command: 5 c 3 del x.
func (e *entry) String() string {
	if e.Client == "" {
		return strconv.Itoa(e.Term)
	}
	return strconv.Itoa(e.Term) + " " + e.Client + " " + strconv.Itoa(e.Serial) + " " + e.Command
}

func (e *entry) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText, for encoding/json, takes exactly what String writes for a leader's entries.
func (e *entry) UnmarshalText(text []byte) (err error) {
	words := strings.SplitN(string(text), " ", 4)
	*e = entry{}
	e.Term, err = parseNumber(words[0], 1, maxNumber)
	if len(words) == 1 || err != nil {
		return err
	}
	if len(words) == 4 && validClient(words[1]) {
		serial, err := parseNumber(words[2], 1, 1<<63-1)
		op, wrong := parse(words[3])
		e.Client, e.Serial, e.Command = words[1], serial, words[3]
		if err == nil && wrong == nil && op.verb != "get" {
			return nil
		}
	}
	return fmt.Errorf("%.40q is not an entry", text)
}

// size is the bytes of an entry in a message: as JSON escapes it, in quotes and with a comma.
func (e *entry) size() int {
	text := e.String()
	return len(text) + 3 + strings.Count(text, `"`) + strings.Count(text, `\`)
}

// parseNumber reads a number as strconv.Itoa writes it: no sign, no leading zero.
func parseNumber(word string, low, high int) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < low || n > high || word[0] < '1' && word != "0" {
		return 0, fmt.Errorf("%s is not a number from %d to %d", quote(word), low, high)
	}
	return n, nil
}

// ---- 9. Exactly once (§8) -----------------------------------------------------------------------
// A client that gets no answer cannot know whether its command was lost or only the answer. It must
// ask again, and the command must not be carried out twice. So a write carries the client's name
// and a serial, and the state machine remembers each client's latest serial with its answer. An
// older serial gets no answer at all: its client has moved on. All this is decided when an entry is
// applied, so it is the same on every server; the leader's check (isRepeat) only saves an entry.
// Sessions live as long as the log, so no repeat is ever taken for something new.

// request is a client's command on its way into Step.
type request struct {
	Client  string         `json:"client,omitempty"` // 1 to 64 ASCII characters, no spaces
	Serial  int            `json:"serial"`           // rises with each of the client's writes
	Command string         `json:"command"`          // "set x 1"
	to      netip.AddrPort // where the client waits; Step only hands it back
}

// reply answers a request. With errNotLeader it says whom to ask, if known; the host adds where.
type reply struct {
	to     netip.AddrPort
	Client string `json:"client,omitempty"`
	Serial int    `json:"serial"`
	answer
	Leader  int            `json:"leader,omitempty"`
	Address netip.AddrPort `json:"address,omitzero"`
}

// clients is what a server keeps for its clients, besides the log.
type clients struct {
	machine  machine             // the key-value store
	waiting  map[string]*request // leader: writes that are not applied yet, by client
	reads    []read              // leader: reads to be answered (chapter 10)
	roundDue bool                // leader: a round of AppendEntries must go out for them
	roundSeq int                 // leader: seq when the last round began
}

func (s *server) submit(r *request) {
	op, err := parse(r.Command)
	switch {
	case err != nil:
		s.respond(r, failure("%v", err), none)
	case s.role != leader:
		s.respond(r, answer{Error: errNotLeader}, s.leaderID)
	case op.verb == "get":
		s.read(r) // chapter 10
	case !s.isRepeat(r):
		s.appendCommand(r) // chapter 6
	}
}

func (s *server) respond(r *request, a answer, leader int) {
	s.out.Reply = append(s.out.Reply, reply{to: r.to, Client: r.Client, Serial: r.Serial,
		answer: a, Leader: leader})
}

type session struct {
	serial int
	answer answer
}

// apply applies one committed entry. An empty one and an outdated serial have no answer, so !ok.
func (m *machine) apply(e *entry) (a answer, ok bool) {
	done := m.sessions[e.Client]
	if e.Serial > done.serial {
		done = session{e.Serial, m.execute(e.Command)}
		m.sessions[e.Client] = done // [SE3]
	}
	return done.answer, e.Client != "" && e.Serial == done.serial // [SE2]
}

// isRepeat reports whether a write has been seen, and answers it if it was applied. What an earlier
// leader appended and this one has not applied is appended again, and [SE2] makes that harmless.
func (s *server) isRepeat(r *request) bool {
	w, done := s.waiting[r.Client], s.machine.sessions[r.Client]
	switch {
	case w != nil && r.Serial <= w.Serial: // [SE1]
		if r.Serial == w.Serial {
			s.waiting[r.Client] = r // it may come from another address
		}
		s.count("SE1")
	case r.Serial == done.serial: // [SE2]
		s.respond(r, done.answer, none)
		s.tell(2, "SE2", "client %s repeats serial %d", r.Client, r.Serial)
	default:
		return r.Serial < done.serial
	}
	return true
}

// answerWaiting goes by client and serial: what an earlier leader appended may be applied first.
func (s *server) answerWaiting(e *entry, a answer, ok bool) {
	if w := s.waiting[e.Client]; w != nil && ok && w.Serial == e.Serial {
		delete(s.waiting, e.Client)
		s.respond(w, a, none)
		s.count("SE3")
	}
}

// ---- 10. Linearizable reads (§8; thesis 6.4) ----------------------------------------------------
// A read could go through the log like a write. It need not: it is enough to know that this server
// was still the leader after the read arrived, and to answer from a state that is new enough. One
// round, in which seq counts the messages to all followers together:
//
//	seq is 12            a read arrives; a majority must answer a number above 12
//	13 to S2, 14 to S3   the round; more reads arrive, note 14 and share the next round
//	S3 answers 14        S3 and this server are two of three: the read is answered
//
// With -noop=false and no write in the term [RD1] is never met, and reads wait for ever.

type read struct {
	*request
	index    int // lastApplied must reach this
	afterSeq int // a majority must answer an AppendEntries with a higher number
}

// read notes what the read must wait for. It replaces a waiting read of the same client.
func (s *server) read(r *request) {
	// Until an entry of this term is committed, the read waits for the first one.
	index := max(s.commitIndex, s.firstIndexOf(s.currentTerm)) // [RD1] [RD2]
	s.count("RD1")
	s.count("RD2")
	s.reads = slices.DeleteFunc(s.reads, func(old read) bool { return old.Client == r.Client })
	s.reads = append(s.reads, read{r, index, s.seq})
}

// serveReads answers the reads that may be answered, in order, and begins a round for the others.
func (s *server) serveReads() {
	if s.role != leader || len(s.reads) == 0 {
		return
	}
	// A majority has answered this number, or a higher one. This server needs no message.
	confirmed := s.majorityReached(s.seq+1, func(p int) int { return s.progress[p].answeredSeq })
	for len(s.reads) > 0 {
		r := s.reads[0]
		if r.afterSeq >= confirmed || r.index > s.lastApplied { // [RD3] [RD4]
			break
		}
		op, _ := parse(r.Command)
		s.respond(r.request, answer{Result: s.machine.get(op.key)}, none)
		s.tell(2, "RD4", "client %s reads at #%d", r.Client, s.lastApplied)
		s.reads = s.reads[1:]
	}
	// One round at a time: reads that arrive meanwhile share the next one. A round is over when a
	// majority has answered a number above roundSeq.
	if len(s.reads) > 0 && s.reads[0].afterSeq >= confirmed && confirmed > s.roundSeq {
		s.roundDue, s.roundSeq = true, s.seq
		s.count("RD3")
	}
}

// PART III. THE MACHINE ===========================================================================
// ---- 11. Disk -----------------------------------------------------------------------------------
// One append-only text file per server, one record per line. No record is ever rewritten, so cat
// shows a server's whole life, and a crash can only hurt the end. Each line begins with eight hex
// digits, the CRC-32 of the rest. The third of these is entry 2, of term 1:
//
//	c5815957 raft.go 2 server 1 of 1,2,3
//	72bf82c4 term 1 vote 2
//	78ac0d46 2 1 c6decc60aee2d61a0 1 set x 1
//
// The first names the members, because quorums must never depend on what somebody types [DK1]. Four
// gaps are confessed. Members are compared in one folder only. A flipped bit in the last line looks
// like a torn tail. A power failure that loses the middle of a batch looks like damage: no start. A
// file that is gone at a start looks like a new server, which may vote twice in a term.

func appendLine(b []byte, record string) []byte {
	return fmt.Appendf(b, "%08x %s\n", crc32.ChecksumIEEE([]byte(record)), record)
}

// intact returns the record of a line, or "" if the checksum is wrong.
func intact(line []byte) string {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) < 10 || string(line[:9]) != fmt.Sprintf("%08x ", crc32.ChecksumIEEE(line[9:])) {
		return ""
	}
	return string(line[9:])
}

// replay reads a file that must begin with first. It returns the persistent state and how many
// bytes of data are good; the rest is a torn tail. The error names the line.
func replay(data []byte, first string) (p persistent, good int, err error) {
	p.log = []*entry{{}}
	isIntact := func(line []byte) bool { return intact(line) != "" }
	lines := bytes.SplitAfter(data, []byte("\n"))
	if !bytes.HasPrefix(appendLine(nil, first), lines[0]) { // half a header is a torn tail, too
		begin := cmp.Or(intact(lines[0]), string(lines[0]))
		return p, 0, fmt.Errorf("line 1: not ours, or damaged: begins with %s, not %s",
			quote(begin), quote(first))
	}
	for i, line := range lines[:len(lines)-1] { // behind the last newline: nothing, or a torn tail
		record := intact(line)
		switch {
		case record == "" && slices.ContainsFunc(lines[i+1:], isIntact): // [DK4]
			err = errors.New("damaged before intact lines; promises may be lost: do not start it")
		case record == "":
			return p, good, nil // [DK3]
		case i > 0:
			err = p.replayRecord(record)
		}
		if err != nil {
			return p, good, fmt.Errorf("line %d: %w", i+1, err)
		}
		good += len(line)
	}
	return p, good, nil
}

// replayRecord carries one record out, unless it cannot follow the others [DK4].
func (p *persistent) replayRecord(record string) error {
	last := len(p.log) - 1
	if strings.HasPrefix(record, "term ") {
		var term, vote int
		fmt.Sscanf(record, "term %d vote %d", &term, &vote)
		changed := term == p.currentTerm && p.votedFor != none && vote != p.votedFor
		if record == fmt.Sprintf("term %d vote %d", term, vote) && vote >= 0 && !changed &&
			term >= max(1, p.currentTerm) {
			p.currentTerm, p.votedFor = term, vote
			return nil
		}
	} else {
		e := new(entry)
		word, text, _ := strings.Cut(record, " ")
		index, gap := parseNumber(word, 1, last+1)
		if gap == nil && e.UnmarshalText([]byte(text)) == nil &&
			between(p.log[index-1].Term, e.Term, p.currentTerm) {
			p.log = append(p.log[:index], e) // [DK2]
			return nil
		}
	}
	return fmt.Errorf("%s cannot follow term %d vote %d and entry %d of term %d",
		quote(record), p.currentTerm, p.votedFor, last, p.log[last].Term)
}

type disk struct {
	name string
	file *os.File
	size int64 // as this server left it [DK6]
}

// oneCluster fails if a file in the folder belongs to other members. With -n 3 in one terminal and
// -n 5 in another there would be two majorities [DK1].
func oneCluster(dir, members string) error {
	names, _ := filepath.Glob(filepath.Join(dir, "server-*.log"))
	for _, name := range names {
		file, _ := os.Open(name)
		line, _ := bufio.NewReader(file).ReadBytes('\n')
		file.Close()
		if _, theirs, whole := strings.Cut(intact(line), " of "); whole && theirs != members {
			return fmt.Errorf("%s line 1: this server belongs to the cluster %s, not %s; "+
				"Raft needs §6 to change that", name, theirs, members)
		}
	}
	return nil
}

// openDisk opens or creates server id's file and replays it. torn counts the bytes cut off.
func openDisk(dir string, id int, members []int) (d *disk, p persistent, torn int, err error) {
	d = &disk{name: filepath.Join(dir, fmt.Sprintf("server-%d.log", id))}
	if err = cmp.Or(oneCluster(dir, list(members)), os.MkdirAll(dir, 0o755)); err != nil {
		return
	}
	d.file, err = os.OpenFile(d.name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	data, unreadable := os.ReadFile(d.name)
	if err = cmp.Or(err, unreadable); err != nil {
		return
	}
	first := fmt.Sprintf("raft.go 2 server %d of %s", id, list(members))
	p, good, err := replay(data, first)
	if err != nil {
		return d, p, 0, fmt.Errorf("%s %w", d.name, err)
	}
	torn, d.size = len(data)-good, int64(len(data))
	if err = d.check(); err == nil && torn > 0 { // else another process may be writing
		err = os.Truncate(d.name, int64(good)) // [DK3]
		d.size = int64(good)
	}
	if err == nil && good == 0 {
		err = d.append([]string{first}) // [DK1]
	}
	// An old file is synced, too: whoever wrote it may have died before its own fsync.
	return d, p, torn, cmp.Or(err, d.file.Sync(), syncFolders(d.name))
}

// append writes records and returns when they are on the disk, or an error, after which nothing is
// known about the file: the kernel may have dropped the pages, and another fsync would lie [DK5].
func (d *disk) append(records []string) error {
	if len(records) == 0 {
		return nil
	}
	var lines []byte
	for _, record := range records {
		lines = appendLine(lines, record)
	}
	err := d.check()
	if err == nil {
		_, err = d.file.Write(lines)
	}
	d.size += int64(len(lines))
	return cmp.Or(err, d.file.Sync()) // the first error counts
}

// check fails unless the name still leads to our file, as we left it: else we may write in vain.
func (d *disk) check() error {
	named, err := os.Stat(d.name)
	ours, _ := d.file.Stat()
	if err != nil || !os.SameFile(named, ours) || named.Size() != d.size { // [DK6]
		return cmp.Or(err, fmt.Errorf("somebody else replaced %s or wrote to it", d.name))
	}
	return nil
}

// syncFolders makes a new file's name durable: its folder, and those above, which may be new, too.
// Only a failing or full disk is an error: some folders are not ours, some systems sync none.
func syncFolders(name string) error {
	for dir := filepath.Dir(name); dir != name; name, dir = dir, filepath.Dir(dir) {
		folder, _ := os.Open(dir) // if that fails, so does Sync
		err := folder.Sync()
		folder.Close()
		if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}

// ---- 12. Network --------------------------------------------------------------------------------
// One JSON object per datagram. What no honest server could send is dropped and counted, so that
// Parts I and II check only against their state. Between servers, the sender's address must be the
// one that is configured for its number. Clients and consoles may write from anywhere:
//
//	→ {"clientRequest":{"client":"c7","serial":1,"command":"incr n"}}
//	← {"clientReply":{"client":"c7","serial":1,"result":"1"}}
//	→ {"console":{"serial":7,"command":"peek x"}}
//	← {"consoleReply":{"serial":7,"result":"1"}}
//
// The result for logs is itself JSON: {"head":"S1 F t2 ","last":1,"cells":{"1":"(1 x=1)"},…}

type addressMap map[int]netip.AddrPort

func (a addressMap) ids() []int { return slices.Sorted(maps.Keys(a)) }

type datagram struct {
	Message
	ClientRequest *request     `json:"clientRequest,omitempty"`
	ClientReply   *reply       `json:"clientReply,omitempty"`
	Console       *consoleLine `json:"console,omitempty"`
	ConsoleReply  *reply       `json:"consoleReply,omitempty"`
}

// consoleLine is a command for the server itself. It has no client.
type consoleLine request

// encode writes a datagram. HTML escapes are off: they would make six bytes of one "<".
func encode(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	must(encoder.Encode(v) == nil, "what we send can be written as JSON")
	return b.Bytes()
}

// decode reads a datagram for server self and returns an input for the loop.
func decode(data []byte, from netip.AddrPort, self int, addresses addressMap) (any, error) {
	var d datagram
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("not one of our JSON objects: %w", err)
	}
	bodies := 0
	for _, is := range []bool{d.RequestVote != nil, d.RequestVoteReply != nil,
		d.AppendEntries != nil, d.AppendEntriesReply != nil,
		d.ClientRequest != nil, d.Console != nil} {
		if is {
			bodies++
		}
	}
	switch r, m := d.ClientRequest, &d.Message; {
	case bodies != 1:
		return nil, fmt.Errorf("%d bodies that a server can take, instead of one", bodies)
	case d.Console != nil:
		d.Console.to = from
		return d.Console, nil
	case r != nil && (!validClient(r.Client) || r.Serial < 1):
		return nil, errors.New("a client has 1 to 64 characters, and a serial is 1 or more")
	case r != nil:
		r.to = from
		return r, nil
	case m.To != self:
		return nil, fmt.Errorf("for S%d, and this is S%d", m.To, self)
	case !addresses[m.From].IsValid():
		return nil, fmt.Errorf("from S%d, not among our servers %s", m.From, list(addresses.ids()))
	case m.From == self || addresses[m.From] != from:
		return nil, fmt.Errorf("from S%d, but not from its address %v", m.From, addresses[m.From])
	case !between(1, m.Term, maxNumber) || !between(0, m.At, maxNumber) || !m.possible():
		return nil, fmt.Errorf("no honest server sends %.200s", bytes.TrimSpace(encode(m)))
	}
	return &d.Message, nil
}

func validClient(client string) bool {
	outside := func(c rune) bool { return c <= ' ' || c > '~' }
	return client != "" && len(client) <= 64 && !strings.ContainsFunc(client, outside)
}

// possible reports whether a server that follows the rules may have sent this body in this term.
func (m *Message) possible() bool {
	switch rv, ae, r := m.RequestVote, m.AppendEntries, m.AppendEntriesReply; {
	case rv != nil:
		return rv.CandidateID == m.From && m.mayName(rv.LastLogIndex, rv.LastLogTerm)
	case ae != nil:
		term := max(1, ae.PrevLogTerm)
		for _, e := range ae.Entries { // terms never fall along a log, and none is of the future
			if e == nil || e.Term < term || e.Term > m.Term {
				return false
			}
			term = e.Term
		}
		return ae.LeaderID == m.From && m.mayName(ae.PrevLogIndex, ae.PrevLogTerm) &&
			between(0, ae.LeaderCommit, maxNumber) && between(1, ae.Seq, maxNumber)
	case r == nil || *r == appendEntriesReply{}: // a vote, or [AE1]
		return true
	case r.Success:
		return *r == appendEntriesReply{Success: true, MatchIndex: r.MatchIndex, Seq: r.Seq} &&
			between(0, r.MatchIndex, maxNumber-1) && between(1, r.Seq, maxNumber)
	default:
		return r.MatchIndex == 0 && between(1, r.Seq, maxNumber) && r.PrevLogIndex < maxNumber &&
			between(1, r.ConflictIndex, r.PrevLogIndex) && between(0, r.ConflictTerm, m.Term)
	}
}

// mayName reports whether a sender in m's term may have an entry of this term at index.
func (m *Message) mayName(index, term int) bool {
	return between(0, index, maxNumber-1) && between(0, term, m.Term) && (index == 0) == (term == 0)
}

func between(low, n, high int) bool { return low <= n && n <= high }

// choose is an if in an expression. Both values are computed.
func choose[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}

// ---- 13. The loop -------------------------------------------------------------------------------
// One goroutine owns the server and everything around it, so nothing here needs a lock. Two others
// put datagrams and ticks into its channel. The loop takes all that waits, steps it at once, and
// performs the effects: what arrives while the disk is busy is the next batch and shares one fsync.

// host is a running server: the algorithm and the machine around it.
type host struct {
	server    *server
	disk      *disk
	conn      *net.UDPConn
	addresses addressMap
	inputs    chan any      // for Step, or a *consoleLine, or why a datagram was dropped
	tick      time.Duration // the length of one
	screen    *screen
	faults    faults    // chapter 16
	untold    int       // datagrams that were dropped or not sent since toldAt
	toldAt    time.Time // when a complaint was told last
}

// turn waits for something, unless there is more to apply, and takes all that waits into one Step.
func (h *host) turn() {
	var inputs []any
	if h.server.lastApplied == h.server.commitIndex {
		inputs = h.take(inputs, <-h.inputs)
	}
	for len(h.inputs) > 0 && len(inputs) < maxInputs {
		inputs = h.take(inputs, <-h.inputs)
	}
	h.step(inputs...)
}

// take sorts what came out of the channel: what concerns the algorithm waits for the Step.
func (h *host) take(inputs []any, in any) []any {
	switch in := in.(type) {
	case *consoleLine:
		h.step(inputs...)   // what came before
		h.answerConsole(in) // chapter 15
		return nil
	case error:
		h.complain("dropped", in)
		return inputs
	case tick: // one per Step: after a pause, what waits is heard before the election times out
		if h.faults.clockOff || slices.Contains(inputs, any(in)) {
			return inputs
		}
	case *Message:
		if h.keepsOut(in) { // chapter 16
			return inputs
		}
	}
	return append(inputs, in)
}

func (h *host) step(inputs ...any) { h.perform(h.server.Step(inputs...)) }

// perform is where the rule Persist can be seen. Every effect of a Step passes through here, so the
// order of these lines is the proof: what depends on a record leaves after the record is on disk.
func (h *host) perform(out Output) {
	h.send(out.Early)                                  // D6
	if err := h.disk.append(out.Persist); err != nil { // [Persist] [DK5]
		fatal("%v; this server stops and has answered nothing since; mend that and start it", err)
	}
	h.send(out.Send)
	for _, r := range out.Reply {
		r.Address = h.addresses[r.Leader] // the zero address, if there is no leader
		h.write(encode(datagram{ClientReply: &r}), r.to)
	}
	h.narrate(append(out.Trace, h.server.out.Trace...)) // the Step, then what befell its messages
	h.server.out.Trace = nil
}

func (h *host) send(messages []Message) {
	for i := range messages {
		m := &messages[i]
		if data := encode(m); !h.disturbs(m, data) { // chapter 16
			h.write(data, h.addresses[m.To])
		}
	}
}

// write sends a datagram. An error is told, because it is not loss: retrying may not help.
func (h *host) write(data []byte, to netip.AddrPort) {
	if _, err := h.conn.WriteToUDPAddrPort(data, to); err != nil {
		h.complain("not sent", err)
	}
}

func (h *host) complain(what string, err error) {
	h.untold++
	if time.Since(h.toldAt) >= time.Second { // a flood must not flood the screen
		h.server.tell(1, "fault", "%d %s: %v", h.untold, what, err)
		h.untold, h.toldAt = 0, time.Now()
	}
}

// readClock puts ticks into the channel. While that is full, ticks are lost, and time stands still.
func (h *host) readClock() {
	for range time.Tick(h.tick) {
		h.inputs <- tick{}
	}
}

func (h *host) readDatagrams(self int) {
	buf := make([]byte, maxDatagram+1)
	for {
		var in any
		n, from, err := h.conn.ReadFromUDPAddrPort(buf)
		if err == nil { // else some systems report that an earlier datagram found nobody
			in, err = decode(buf[:n], from, self, h.addresses)
		}
		if err != nil {
			in = fmt.Errorf("%w (%v)", err, from)
		}
		h.inputs <- in
	}
}

// must stops the server before a broken invariant spreads: it is a bug or a forged message.
func must(holds bool, invariant string) {
	if !holds {
		panic(invariant)
	}
}

// fatal ends the process with one line, or after a second if the terminal does not take it. When
// the loop calls it, the loop stands still meanwhile, so nothing is answered.
func fatal(format string, args ...any) {
	time.AfterFunc(time.Second, func() { os.Exit(1) })
	prompt := os.Getenv(inCluster) == "true" // the cluster's prompt is on this line: wipe it
	fmt.Fprintf(os.Stderr, choose(prompt, wipe, "")+"error: "+format+"\n", args...)
	os.Exit(1)
}

// PART IV. THE LABORATORY =========================================================================
// ---- 14. Narration and the terminal -------------------------------------------------------------
// One line per event: Lamport number, server, role (F, C or L), term, the rule's tag, text. Every
// message carries its sender's Lamport number, so sort -n over the narration of all servers is one
// causal story. #3t2 is entry 3, of term 2. Level 1 tells of roles, terms, commits, refusals,
// faults and the disk; 2 also of messages; 3 also of idle heartbeats.

// voice is what a server needs to narrate. Nothing else depends on it.
type voice struct {
	watch     int            // level, 0 to 3
	lamport   int            // rises with every tell, shown or not
	confirmed int            // matchIndex of the last success sent: the same again is idle
	fired     map[string]int // how often each rule has
}

// ruleTags lists the rules that fire while a server runs. Their words are in the package comment.
const ruleTags = "Persist All1 All2 Fol1 Fol2 Cand1 Cand2 Cand3 Cand4 Lead1 Lead2 Lead3 Lead3a " +
	"Lead3b Lead4 RV1 RV2 AE1 AE2 AE3 AE4 AE5 SE1 SE2 SE3 RD1 RD2 RD3 RD4 CQ1 CQ2"

const width = 79        // columns of narration and answers; 4 less where "S1: " may come first
const wipe = "\r\x1b[K" // a control sequence: clear the line

func (s *server) count(tag string) { s.fired[tag]++ }

// tell notes that a rule fired, or what else has happened, and narrates it.
func (s *server) tell(level int, tag, format string, args ...any) {
	s.count(tag)
	s.lamport++
	if level <= s.watch {
		line := fmt.Sprintf("%5d S%d %c t%-2d %-7s %s", s.lamport, s.id, "FCL"[s.role],
			s.currentTerm, tag, fmt.Sprintf(format, args...))
		s.out.Trace = append(s.out.Trace, clip(line, width))
	}
}

// tellSent narrates a message with the rule that sends it, and returns its Lamport number.
func (s *server) tellSent(tag string, m *Message) (lamport int) {
	more, w := "", s.progress[m.To]
	if vote := m.RequestVoteReply; vote != nil && !vote.VoteGranted {
		more = fmt.Sprintf(": voted %s, last #%dt%d", name(s.votedFor), s.lastIndex(), s.lastTerm())
	} else if ae := m.AppendEntries; ae != nil && len(ae.Entries) == 0 && w.unansweredSeq > 0 {
		more = fmt.Sprintf(" (up to #%d unanswered)", w.unansweredIndex)
	}
	s.tell(s.level(m), tag, "->S%d %v%s", m.To, m, more)
	if r := m.AppendEntriesReply; r != nil && r.Success {
		s.confirmed = r.MatchIndex
	}
	return s.lamport
}

func (s *server) hear(m *Message) {
	s.lamport = max(s.lamport, min(m.At, maxNumber/2)) // beyond maxNumber, ours would be dropped
	s.tell(max(2, s.level(m)), "heard", "<-S%d t%d %v", m.From, m.Term, m)
}

// level is 1 for refusals, 3 for heartbeats and answers without news, 2 for any other message.
func (s *server) level(m *Message) int {
	known := choose(s.role == leader, s.matchIndex[m.From], s.confirmed)
	switch vote, ae, r := m.RequestVoteReply, m.AppendEntries, m.AppendEntriesReply; {
	case vote != nil && !vote.VoteGranted || r != nil && !r.Success:
		return 1
	case ae != nil && len(ae.Entries) == 0 || r != nil && r.MatchIndex == known:
		return 3
	}
	return 2
}

func (m *Message) String() string {
	switch rv, ae, r := m.RequestVote, m.AppendEntries, m.AppendEntriesReply; {
	case rv != nil:
		return fmt.Sprintf("RequestVote last #%dt%d", rv.LastLogIndex, rv.LastLogTerm)
	case ae != nil:
		entries, n := "", len(ae.Entries)
		if n > 0 {
			entries = fmt.Sprintf("#%dt%d", ae.PrevLogIndex+1, ae.Entries[0].Term)
		}
		if n > 1 {
			entries += fmt.Sprintf("..#%dt%d", ae.PrevLogIndex+n, ae.Entries[n-1].Term)
		}
		return fmt.Sprintf("AppendEntries prev=#%dt%d [%s] commit=%d",
			ae.PrevLogIndex, ae.PrevLogTerm, entries, ae.LeaderCommit)
	case r == nil:
		return fmt.Sprintf("VoteReply granted=%v", m.RequestVoteReply.VoteGranted)
	case r.Success:
		return fmt.Sprintf("AppendReply ok match=%d", r.MatchIndex)
	case r.Seq == 0:
		return "AppendReply refused: that term is over"
	case r.ConflictTerm == 0:
		return fmt.Sprintf("AppendReply refused prev=%d: log ends before #%d",
			r.PrevLogIndex, r.ConflictIndex)
	default:
		return fmt.Sprintf("AppendReply refused prev=%d: t%d begins at #%d",
			r.PrevLogIndex, r.ConflictTerm, r.ConflictIndex)
	}
}

func (r role) String() string { return [...]string{"follower", "candidate", "leader"}[r] }

func name(id int) string { return choose(id == none, "none", fmt.Sprintf("S%d", id)) }

// list is a list of servers as files and commands have it: 1,2,3.
func list(ids []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ids), "[]"), " ", ",")
}

// clip shortens text to a number of columns. Only an ASCII character is sure to take one: else ?.
func clip(text string, columns int) string {
	text = regexp.MustCompile("[^ -~]").ReplaceAllString(text, "?")
	if len(text) > columns {
		return text[:columns-2] + ".."
	}
	return text
}

// narrate never waits for the terminal. What that does not take (Ctrl-S!) is dropped and counted.
func (h *host) narrate(lines []string) {
	if s := h.server; h.screen.people { // not in a cluster: there, its console has the prompt
		h.screen.prompt.Store(fmt.Sprintf("S%d %c%d%v> ",
			s.id, "FCL"[s.role], s.currentTerm, &h.faults))
	}
	for _, line := range lines {
		select {
		case h.screen.lines <- line:
		default:
			h.screen.missed.Add(1)
		}
	}
}

// screen is the terminal: answers go to stdout, all else to stderr, above a prompt if people type.
type screen struct {
	lines     chan string  // narration on its way to stderr
	missed    atomic.Int64 // lines that found no room there
	out, err  io.Writer
	format    string       // of a line of narration: its color
	people    bool         // a person types into this process
	prompting atomic.Bool  // a prompt stands below, ours or that of the cluster's console
	prompt    atomic.Value // what stands below narration, a string
}

func openScreen(o options) *screen {
	sc := &screen{lines: make(chan string, 1000), out: os.Stdout, err: os.Stderr, format: "%s\n"}
	terminal := isTerminal(os.Stderr)
	sc.people = terminal && isTerminal(os.Stdin) && len(o.args) == 0
	sc.prompting.Store(sc.people || os.Getenv(inCluster) == "true")
	sc.prompt.Store("raft> ")
	if terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		sc.format = fmt.Sprintf("\x1b[%dm%%s\x1b[0m\n", 31+(o.id-1)%6)
	}
	go sc.run()
	return sc
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 // /dev/null counts, too
}

func (sc *screen) run() {
	for line := range sc.lines {
		sc.show(fmt.Sprintf(sc.format, line))
		if len(sc.lines) == 0 && sc.missed.Load() > 0 {
			from, _, _ := strings.Cut(line, " t") // Lamport number, server and role
			sc.show(fmt.Sprintf("%s %d lines not shown\n", from, sc.missed.Swap(0)))
		}
	}
}

// show writes to stderr, above the prompt.
func (sc *screen) show(text string) {
	if sc.prompting.Load() {
		text = wipe + text + sc.prompt.Load().(string)
	}
	io.WriteString(sc.err, text)
}

// ---- 15. Console --------------------------------------------------------------------------------
// The console is a client, also of the server whose terminal it shares. What concerns the data
// (set, get, …) it sends to the leader in the client's form; what concerns servers, to their loops.

type command struct {
	name, args, help, by string // by: carried out by leader (as a client), servers or console
}

var commands = []command{
	{"help", "", "list the commands", "console"},
	{"status", "", "role, term, vote, leader, log, timer, faults", "servers"},
	{"logs", "", "draw all logs", "console"},
	{"rules", "", "how often each rule has fired", "servers"},
	{"set", "KEY VALUE", "write; answered once it is applied", "leader"},
	{"get", "KEY", "linearizable read, without a log entry", "leader"},
	{"del", "KEY", "delete", "leader"},
	{"incr", "KEY [N]", "add N, or 1", "leader"},
	{"cas", "KEY OLD NEW", "set to NEW if it is OLD", "leader"},
	{"peek", "KEY", "read a server's own table, perhaps stale", "servers"},
	{"timeout", "", "end the election timeout now", "servers"},
	{"beat", "", "leader: let a heartbeat interval pass now", "servers"},
	{"tick", "off|on|N", "stop the clock, let it run, let N pass", "servers"},
	{"cut", "WHOM [vote|append]", "cut the wires to 2,3 or all", "servers"},
	{"heal", "", "end cuts and noise", "servers"},
	{"noise", "PERCENT", "lose, double, delay what is sent", "servers"},
	{"hold", "", "queue arriving messages; again: list them", "servers"},
	{"release", "[N]", "handle N, or all and queue no more", "servers"},
	{"kill", "WHOM", "kill -9 a server's process (go run .)", "console"},
	{"start", "WHOM", "start it again", "console"},
	{"watch", "LEVEL", "0 silence, 1 roles, 2 messages, 3 all", "servers"},
	{"quit", "", "leave, and end the servers of this terminal", "console"},
}

// findCommand finds the row for a line, and splits and counts its arguments.
func findCommand(line string) (command, []string, error) {
	verb, rest := cutWord(line)
	args := strings.Fields(rest)
	for _, c := range commands {
		most := len(strings.Fields(c.args))
		least := most - strings.Count(c.args, "[")
		switch {
		case c.name == verb && c.by == "leader":
			_, err := parse(line)
			return c, nil, err
		case c.name == verb && (!between(least, len(args), most) || len(line) > maxCommand):
			return c, nil, fmt.Errorf("%s needs %s", verb, cmp.Or(c.args, "no argument"))
		case c.name == verb:
			return c, append(args, "", ""), nil
		case strings.EqualFold(c.name, verb) || c.name == "quit" && verb == "exit":
			return c, nil, fmt.Errorf("no such command %s; did you mean %s?", quote(verb), c.name)
		}
	}
	return command{}, nil, fmt.Errorf("no such command %s; help lists them", quote(verb))
}

// parseServers reads a list such as 2,3 or S2 or all. With an error it returns none, not some.
func parseServers(word string, all []int) (ids []int, err error) {
	if word == "all" {
		return all, nil
	}
	for _, w := range strings.Split(word, ",") {
		id, _ := strconv.Atoi(strings.TrimPrefix(w, "S"))
		if !slices.Contains(all, id) {
			return nil, fmt.Errorf("there is no server %s; there are %s", quote(w), list(all))
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// answerConsole runs a console's line in the loop and answers it. Other machines may not command.
func (h *host) answerConsole(l *consoleLine) {
	r := &reply{Serial: l.Serial}
	cmd, args, err := findCommand(l.Command)
	switch from := l.to.Addr(); {
	case !from.IsLoopback() && from != h.addresses[h.server.id].Addr():
		err = fmt.Errorf("only its own machine commands S%d, not %v", h.server.id, from)
	case err == nil && cmd.by != "servers" && cmd.name != "logs": // logs asks, too
		err = fmt.Errorf("%s is not a command for servers", cmd.name)
	case err == nil:
		r.Result, err = h.obey(cmd.name, args)
	}
	if err != nil {
		r.answer = failure("%v", err)
	}
	h.step() // sends what the command made due, and refreshes the prompt
	h.write(encode(datagram{ConsoleReply: r}), l.to)
}

func (h *host) obey(verb string, args []string) (text string, err error) {
	s, arg, term, n := h.server, args[0], h.server.currentTerm, 0
	switch verb {
	case "status":
		return h.status(), nil
	case "rules":
		return s.rules(), nil
	case "logs":
		return string(encode(s.viewLog())), nil
	case "peek":
		return s.machine.get(arg), nil
	case "timeout":
		s.electionDue = s.now // a leader has no timer
		if h.step(); s.role == candidate && s.currentTerm == term {
			return fmt.Sprintf("asks again in t%d", term), nil // [CQ2]
		}
	case "beat":
		for _, w := range s.progress { // the interval passes for what is unanswered, too
			w.heartbeatDue, w.unansweredAt = s.now, w.unansweredAt-heartbeatTicks
		}
	case "tick":
		if arg == "on" || arg == "off" {
			h.faults.clockOff = arg == "off"
		} else if _, err = parseNumber(arg, 1, 1000); err == nil {
			h.step(tick{}) // the console sends N such lines
		}
	case "cut":
		err = h.cutWires(arg, cmp.Or(args[1], "all"))
	case "heal":
		h.faults.cut, h.faults.noise = map[int]string{}, 0
	case "noise":
		if n, err = parseNumber(arg, 0, 100); err == nil {
			h.faults.noise = n
		}
	case "watch":
		if n, err = parseNumber(arg, 0, 3); err == nil {
			s.watch = n
		}
	case "hold":
		return h.faults.hold(), nil
	case "release":
		err = h.release(arg)
	}
	return "ok", err
}

func (h *host) status() string {
	s := h.server
	due := s.electionDue
	if s.role == leader { // until it steps down [CQ1]
		heardAt := func(p int) int { return s.progress[p].heardAt }
		due = s.majorityReached(s.now, heardAt) + electionTicksMax
	}
	text := fmt.Sprintf("S%d %s t%d, voted %s, leader %s, log %d commit %d timer %d applied %d",
		s.id, s.role, s.currentTerm, name(s.votedFor), name(s.leaderID),
		s.lastIndex(), s.commitIndex, due-s.now, s.lastApplied)
	return strings.TrimSpace(clip(text, width-4) + "\n" + strings.TrimSpace(h.faults.String()))
}

func (s *server) rules() (text string) {
	for row := range slices.Chunk(strings.Fields(ruleTags), 4) {
		for _, tag := range row {
			text += fmt.Sprintf("%-18s", fmt.Sprintf("%s:%d", tag, s.fired[tag]))
		}
		text = strings.TrimSpace(text) + "\n"
	}
	return strings.TrimSpace(text)
}

// logView is the end of a server's log, as logs draws it.
type logView struct {
	Head  string         `json:"head"`
	Last  int            `json:"last"`
	Cells map[int]string `json:"cells"` // by index, up to Last, at most maxCells
	Knows string         `json:"knows"` // of a leader: what it knows of the others
}

// viewLog shows each entry with its term and command, [committed] or (not).
func (s *server) viewLog() *logView {
	v := &logView{Last: s.lastIndex(), Cells: map[int]string{},
		Head: fmt.Sprintf("S%d %c t%d ", s.id, "FCL"[s.role], s.currentTerm)}
	if s.role == leader && len(s.peers) > 0 {
		known := fmt.Sprintf("S%d: match %v next %v", s.id, s.matchIndex, s.nextIndex)
		v.Knows = "\n" + clip(strings.ReplaceAll(known, "map", ""), width)
	}
	for index := max(1, v.Last-maxCells+1); index <= v.Last; index++ {
		e, brackets := s.log[index], choose(index <= s.commitIndex, "[%s]", "(%s)")
		text := strings.TrimSpace(fmt.Sprintf("%d %s", e.Term, e.Command))
		if op, _ := parse(e.Command); op.verb == "set" {
			text = fmt.Sprintf("%d %s=%s", e.Term, op.key, op.value)
		}
		v.Cells[index] = fmt.Sprintf(brackets, clip(text, 14))
	}
	return v
}

// drawLogs draws logs under one ruler: the newest entries that fit, and of the 5 before, the terms.
func drawLogs(views []*logView, columns int) string {
	last := 0
	for _, v := range views {
		last = max(last, v.Last)
	}
	for newest := max(1, last-columns/3); ; newest++ { // no cell takes less than 3 columns
		text := new(strings.Builder)
		table := tabwriter.NewWriter(text, 0, 0, 0, ' ', 0) // aligns what stands between tabs
		first := max(1, newest-5)
		for i := first; i <= last; i++ {
			fmt.Fprint(table, "\t ", i)
		}
		for _, v := range views {
			fmt.Fprint(table, "\t\n", v.Head)
			for i := first; i <= last; i++ {
				cell := v.Cells[i]
				if term, _, more := strings.Cut(cell, " "); more && i < newest {
					cell = term + cell[len(cell)-1:]
				}
				fmt.Fprint(table, "\t", cell)
			}
		}
		fmt.Fprint(table, "\t")
		table.Flush()
		if newest == last+5 || strings.Index(text.String(), "\n") <= columns {
			return text.String()
		}
	}
}

type console struct {
	self      int               // the server whose terminal this is, or none
	processes map[int]*exec.Cmd // of a cluster's servers, unless killed; or nil
	addresses addressMap        // also those that a redirect has named
	ids       []int             // of the servers in our list
	conn      *net.UDPConn
	screen    *screen
	patience  time.Duration // for the outcome of a client's command
	client    string
	serial    int  // of the last line to anybody
	leader    int  // whom to ask first
	failed    bool // some command did
	over      bool // quit was asked for
}

const (
	resendAfter = 200 * time.Millisecond // until a client's command is sent again
	aftermath   = 30 * time.Millisecond  // for the messages that a command sets off
	maxCells    = 200                    // entries that logs draws
	unknown     = "unknown: no answer in time; is it running? A write may still happen"
)

func newConsole(o options, screen *screen) *console {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		fatal("no socket for the console: %v", err)
	}
	ids := o.addresses.ids()
	return &console{self: o.id, addresses: maps.Clone(o.addresses), ids: ids, conn: conn,
		screen: screen, patience: min(max(2*time.Second, 200*o.tick), 10*time.Second),
		// Random, so that two consoles never share a session.
		client: fmt.Sprintf("c%016x", rand.Uint64()), leader: cmp.Or(o.id, ids[0])}
}

// readLines runs what comes in until it ends or somebody quits.
func (c *console) readLines(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20) // bytes of a line
	for c.screen.show(""); !c.over && lines.Scan(); c.screen.show("") {
		c.runLine(strings.TrimPrefix(lines.Text(), "\ufeff")) // some editors begin a file with it
	}
	if err := lines.Err(); err != nil {
		c.print("", failure("input ends here: %v", err))
	}
	if c.screen.prompting.Swap(false) {
		io.WriteString(c.screen.err, wipe)
	}
}

// runLine runs a line. As words of their own, ; separates commands and # begins a comment.
func (c *console) runLine(line string) {
	if !printable(line) {
		c.print("", failure("not printable text, nothing done (rlwrap gives you history)"))
		return
	}
	line, _, _ = strings.Cut(" "+line+" ", " # ")
	for command := ""; line != "" && !c.over; {
		command, line, _ = strings.Cut(" "+line+" ", " ; ")
		if command = strings.Trim(command, " "); command != "" {
			c.exec(command)
		}
	}
}

// exec runs one command: here, as a client, at our own server, or at those that @2,3 names.
func (c *console) exec(line string) {
	whom, ids, wrong := "", c.ids, error(nil)
	if strings.HasPrefix(line, "@") { // @2,3 LINE
		whom, line = cutWord(line[1:])
		ids, wrong = parseServers(whom, c.ids)
	}
	cmd, args, err := findCommand(line)
	switch err = cmp.Or(wrong, err); {
	case err != nil:
		c.print("", failure("%v", err))
	case whom != "" && (cmd.by == "console" || cmd.by == "leader" && len(ids) > 1):
		c.print("", failure("%s is not for @%s; say it without", cmd.name, whom))
	case cmd.by == "console":
		c.print("", c.here(cmd.name, args[0]))
	case cmd.by == "leader" && whom == "":
		c.print("", c.asClient(line))
	case whom == "" && c.self != none: // its own server
		c.print("", c.runAt([]int{c.self}, line)[c.self])
	default:
		answers := c.runAt(ids, line)
		for _, id := range ids {
			c.print(name(id)+": ", answers[id])
		}
	}
	if cmd.by != "leader" || whom != "" {
		time.Sleep(aftermath) // so that the next command sees what this one set off
	}
}

func (c *console) print(prefix string, a answer) {
	text := cmp.Or(a.Error, a.Result)
	c.failed = c.failed || a.Error != ""
	if a.Error != "" && a.Error != unknown {
		text = "error: " + text
	}
	text = prefix + strings.ReplaceAll(text, "\n", "\n"+prefix)
	if c.screen.prompting.Load() && isTerminal(os.Stdout) {
		text = wipe + text
	}
	fmt.Fprintln(c.screen.out, text)
}

// say makes a datagram of a line: for servers or, in the client's form, for the leader.
func (c *console) say(line string) datagram {
	c.serial++
	if cmd, _, _ := findCommand(line); cmd.by == "leader" {
		return datagram{ClientRequest: &request{Client: c.client, Serial: c.serial, Command: line}}
	}
	return datagram{Console: &consoleLine{Serial: c.serial, Command: line}}
}

// runAt has servers run a line, once, since what is not answered may have been run. For tick N it
// sends the line N times, and in between the servers go on with everything else.
func (c *console) runAt(ids []int, line string) map[int]answer {
	answers, running, times, d := map[int]answer{}, []int{}, 1, c.say(line)
	patience := choose(d.Console != nil, time.Second, 600*time.Millisecond)
	for _, id := range ids {
		if d.Console != nil && c.processes != nil && c.processes[id] == nil {
			answers[id] = answer{Result: "killed"}
		} else {
			running = append(running, id)
		}
	}
	fmt.Sscanf(line, "tick %d", &times) // the server checks N
	for n := 0; n < max(1, times) && len(running) > 0; n++ {
		came := c.ask(running, d, patience)
		for _, id := range running {
			switch r := came[id]; {
			case r == nil:
				answers[id] = failure(unknown)
			case r.Error == errNotLeader:
				answers[id] = failure("%s, which is %s", errNotLeader, name(r.Leader))
			default:
				answers[id] = r.answer
			}
		}
		running = slices.DeleteFunc(running, func(p int) bool { return answers[p].Result != "ok" })
		time.Sleep(10 * time.Millisecond) // from tick to tick
		d = c.say(line)
	}
	return answers
}

// ask sends a datagram to servers. It returns the replies with its serial that come in time.
func (c *console) ask(ids []int, d datagram, patience time.Duration) map[int]*reply {
	for _, id := range ids {
		c.conn.WriteToUDPAddrPort(encode(d), c.addresses[id])
	}
	buf, until, came := make([]byte, maxDatagram+1), time.Now().Add(patience), map[int]*reply{}
	c.conn.SetReadDeadline(until)
	for len(came) < len(ids) && time.Now().Before(until) {
		var got datagram
		n, from, _ := c.conn.ReadFromUDPAddrPort(buf) // some systems report a dead server here
		json.Unmarshal(buf[:n], &got)
		r := cmp.Or(got.ClientReply, got.ConsoleReply)
		sender := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		for id, address := range c.addresses {
			if r != nil && r.Serial == c.serial && sender == address {
				came[id] = r
			}
		}
	}
	return came
}

// asClient asks the leader, wherever it is, until it answers. Repeats are safe [SE1] [SE2].
func (c *console) asClient(line string) answer {
	id, d := c.leader, c.say(line)
	outcome := failure("no server leads, nothing was done; try status, or again later")
	for until := time.Now().Add(c.patience); time.Now().Before(until); {
		var r *reply
		for from, came := range c.ask([]int{id}, d, resendAfter) {
			id, r = from, came // it may come late, from the server asked before
		}
		next := c.ids[(slices.Index(c.ids, id)+1)%len(c.ids)]
		switch {
		case r == nil: // the request was lost, or the answer, or the server
			outcome, id = failure(unknown), next
		case r.Error != errNotLeader:
			c.leader = id
			return r.answer
		default:
			time.Sleep(5 * time.Millisecond) // maybe nobody leads yet
			id = cmp.Or(r.Leader, next)
			if r.Leader != none && r.Address != c.addresses[id] {
				c.screen.show(fmt.Sprintf("leader S%d at %v is not in our list\n", id, r.Address))
				c.addresses[id] = r.Address
			}
		}
	}
	return outcome
}

func (c *console) here(verb, arg string) answer {
	switch verb {
	case "help":
		text := "@2 LINE, @2,3 LINE and @all LINE run a line at other servers.\n" +
			"As words of their own, ; separates commands and # begins a comment."
		for _, cmd := range commands {
			text += fmt.Sprintf("\n%-8s%-19s%s", cmd.name, cmd.args, cmd.help)
		}
		return answer{Result: text}
	case "quit":
		c.over = true
		return answer{Result: "bye"}
	case "logs":
		return c.logs()
	case "kill", "start":
		if err := c.change(arg, verb); err != nil {
			return failure("%v", err)
		}
	}
	return answer{Result: "ok"}
}

func (c *console) logs() answer {
	wide, _ := strconv.Atoi(os.Getenv("COLUMNS"))
	columns := max(40, cmp.Or(wide, width+1)-1)
	answers, below := c.runAt(c.ids, "logs"), ""
	var views []*logView
	for _, id := range c.ids {
		v, a := new(logView), answers[id]
		if json.Unmarshal([]byte(a.Result), v) == nil {
			views, below = append(views, v), below+v.Knows
		} else {
			below += fmt.Sprintf("\nS%d: %s", id, cmp.Or(a.Error, a.Result))
		}
	}
	c.failed = c.failed || len(views) == 0
	return answer{Result: strings.TrimPrefix(drawLogs(views, columns)+below, "\n")}
}

// ---- 16. Experiments ----------------------------------------------------------------------------
// What a learner does to the wires and the clock of a running server. Faults act on real datagrams,
// but only on those between servers: clients and consoles do not feel them.

// faults are what this server suffers on purpose.
type faults struct {
	cut      map[int]string // by server: "vote", "append" or "all" messages, in both directions
	noise    int            // percent of the messages that are lost, doubled, delayed
	clockOff bool
	held     []*Message // that have arrived and wait; nil if hold is off
}

// cuts reports whether the wire to or from another server is cut for this message.
func (f *faults) cuts(other int, m *Message) bool {
	kind := choose(m.RequestVote != nil || m.RequestVoteReply != nil, "vote", "append")
	return f.cut[other] == "all" || f.cut[other] == kind
}

// keepsOut reports whether a message that has arrived must not be handled now.
func (h *host) keepsOut(m *Message) bool {
	f := &h.faults
	if f.cuts(m.From, m) {
		h.server.lamport = max(h.server.lamport, min(m.At, maxNumber/2)) // as hear does
		h.tellLost(m, "x<", m.From, "cut")
		return true
	}
	if f.held != nil {
		f.held = append(f.held, m)
	}
	return f.held != nil
}

// disturbs makes a message suffer, and reports whether the caller must not send it.
func (h *host) disturbs(m *Message, data []byte) bool {
	noisy := func() bool { return rand.IntN(100) < h.faults.noise }
	cut := h.faults.cuts(m.To, m)
	if cut || noisy() {
		h.tellLost(m, "x>", m.To, choose(cut, "cut", "lost"))
		return true
	}
	if noisy() {
		h.write(data, h.addresses[m.To]) // the first of two
	}
	late := noisy()
	if late { // without h.write, which belongs to the loop
		delay := h.tick * time.Duration(1+rand.IntN(10))
		time.AfterFunc(delay, func() { h.conn.WriteToUDPAddrPort(data, h.addresses[m.To]) })
	}
	return late
}

// tellLost narrates a message that a fault has swallowed; heartbeats only at level 3.
func (h *host) tellLost(m *Message, arrow string, other int, why string) {
	level := choose(h.server.level(m) == 3, 3, 1)
	h.server.tell(level, "fault", "%sS%d %v (%s)", arrow, other, m, why)
}

// String lists the faults that are on, for status and for the prompt.
func (f *faults) String() (text string) {
	for _, id := range slices.Sorted(maps.Keys(f.cut)) {
		text += strings.TrimSuffix(fmt.Sprintf(" cut:%d-%s", id, f.cut[id]), "-all")
	}
	if f.noise > 0 {
		text += fmt.Sprintf(" noise:%d", f.noise)
	}
	if f.held != nil {
		text += fmt.Sprintf(" hold:%d", len(f.held))
	}
	if f.clockOff {
		text += " tick:off"
	}
	return text
}

func (h *host) cutWires(word, kind string) error {
	if kind != "all" && kind != "vote" && kind != "append" {
		return fmt.Errorf("cut WHOM [vote|append], not %s", quote(kind))
	}
	ids, err := parseServers(word, h.addresses.ids())
	for _, id := range ids {
		h.faults.cut[id] = kind
	}
	delete(h.faults.cut, h.server.id) // it does nothing to oneself
	return err
}

// hold queues the messages that arrive from now on, or lists them.
func (f *faults) hold() (text string) {
	f.held = append([]*Message{}, f.held...) // not nil any more
	for i, m := range f.held[:min(len(f.held), 500)] {
		text += "\n" + clip(fmt.Sprintf("%d. <-S%d t%d %v", i+1, m.From, m.Term, m), width-4)
	}
	return cmp.Or(strings.TrimPrefix(text, "\n"), "ok")
}

// release handles held messages one by one, so that each shows what it does.
func (h *host) release(arg string) (err error) {
	f, held := &h.faults, h.faults.held
	n := len(held)
	if arg != "" {
		n, err = parseNumber(arg, 1, maxInputs)
	}
	n, f.held = min(n, len(held)), nil // nil: else take would queue them again
	for _, m := range held[:n] {
		h.step(h.take(nil, m)...)
	}
	if arg != "" {
		f.held = held[n:]
	}
	return err
}

// ---- 17. Cluster and main -----------------------------------------------------------------------
// Without -id, this process is only a console, and every server a process of its own, which it
// starts and kills. A server leaves when its parent's pipe ends, so none outlives the cluster.

type options struct {
	id, watch    int
	dir          string
	tick         time.Duration
	noop, client bool
	addresses    addressMap
	args         []string // one command for the running cluster
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(2)
	}
	if o.id != none && !o.client && len(o.args) == 0 {
		runServer(o) // never returns
	}
	runConsole(o)
}

func parseOptions(args []string) (o options, err error) {
	flags, help := flag.NewFlagSet("raft", flag.ContinueOnError), new(strings.Builder)
	flags.DurationVar(&o.tick, "tick", 10*time.Millisecond, "a tick; with 1m, time stands still")
	n := flags.Int("n", 3, "servers 1 to `N` on 127.0.0.1:9001 and up")
	peers := flags.String("peers", "", "the servers, instead of -n: `1=HOST:PORT,2=...`")
	flags.IntVar(&o.id, "id", none, "run only server `ID`, with its console")
	flags.StringVar(&o.dir, "dir", "data", "where the files are")
	flags.IntVar(&o.watch, "watch", 1, "narration level, `0..3`")
	flags.BoolVar(&o.noop, "noop", true, "leaders begin with an empty entry")
	flags.BoolVar(&o.client, "client", false, "only a console, for commands on stdin")
	flags.SetOutput(help)
	if err = flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Print("Raft in one file: a cluster, or with a command, like get x, a client.\n", help)
		os.Exit(0)
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	o.args = flags.Args()
	switch {
	case err != nil:
		return o, fmt.Errorf("%w; -h lists the flags, and a tick has a unit, as in -tick 10ms", err)
	case given["n"] && given["peers"]:
		return o, errors.New("-n and -peers both say who the servers are; give one of them")
	case o.tick < time.Millisecond || o.tick > time.Minute || !between(0, o.watch, 3) ||
		!between(1, *n, 99):
		return o, errors.New("-n is from 1 to 99, -tick from 1ms to 1m, -watch from 0 to 3")
	}
	for id := 1; id <= *n && !given["peers"]; id++ {
		*peers = strings.TrimPrefix(fmt.Sprintf("%s,%d=127.0.0.1:%d", *peers, id, 9000+id), ",")
	}
	o.addresses, err = parsePeers(*peers)
	if err == nil && given["id"] && !o.addresses[o.id].IsValid() {
		err = fmt.Errorf("-id %d is not among the servers %s", o.id, *peers)
	}
	return o, err
}

func parsePeers(peers string) (addressMap, error) {
	addresses, taken := addressMap{}, map[netip.AddrPort]bool{}
	var first netip.Addr
	for _, peer := range strings.Split(peers, ",") {
		word, hostPort, _ := strings.Cut(peer, "=")
		id, noID := parseNumber(word, 1, maxNumber)
		resolved, noAddress := net.ResolveUDPAddr("udp", hostPort)
		ip := resolved.AddrPort().Addr().Unmap()
		address := netip.AddrPortFrom(ip, resolved.AddrPort().Port())
		first = cmp.Or(first, ip)
		switch {
		case noAddress != nil:
			return nil, fmt.Errorf("-peers: %s: %v", quote(peer), noAddress)
		case noID != nil || !ip.IsValid() || ip.IsUnspecified() || address.Port() == 0:
			return nil, fmt.Errorf("-peers: %s is not ID=HOST:PORT, IDs from 1 on", quote(peer))
		case addresses[id].IsValid() || taken[address]:
			return nil, fmt.Errorf("-peers: number or address of %s is there twice", quote(peer))
		case first.Is4() != ip.Is4() || first.IsLoopback() != ip.IsLoopback():
			return nil, fmt.Errorf("-peers: %v and %v cannot meet; all must be IPv4, or all "+
				"IPv6, and all loopback, or none", first, ip)
		}
		addresses[id], taken[address] = address, true
	}
	return addresses, nil
}

// leave ends a console's process: status 1 if a command failed, but 0 if a person typed.
func (c *console) leave() {
	time.Sleep(aftermath) // for the last narration
	os.Exit(choose(c.failed && !c.screen.people, 1, 0))
}

// runConsole runs one command, or a session; that has its own cluster, unless -client is given.
func runConsole(o options) {
	c := newConsole(o, openScreen(o))
	for i, arg := range o.args {
		value := i > 1 && slices.Contains(o.args[:i-1], "set") // may have spaces, which Join keeps
		if !value && !slices.Equal(strings.Fields(arg), []string{arg}) {
			c.print("", failure("argument %s is not one word; nothing done", quote(arg)))
			c.leave()
		}
	}
	if len(o.args) > 0 {
		c.exec(strings.Join(o.args, " "))
		c.leave()
	}
	if !o.client {
		c.processes = map[int]*exec.Cmd{}
		if err := c.change("all", "start"); errors.As(err, new(*exec.ExitError)) {
			os.Exit(1) // the server has said why
		} else if err != nil {
			fatal("%v", err)
		}
	}
	c.readLines(os.Stdin)
	for id := range c.processes {
		c.kill(id)
	}
	c.leave()
}

// runServer takes the port before it opens the file: another server of this number may be running.
func runServer(o options) {
	// One goroutine does the work. A second processor for the reader costs more in waking each
	// other up than it gains: with it, 64 clients get three quarters of the writes (two cores).
	runtime.GOMAXPROCS(1)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(o.addresses[o.id]))
	if err != nil {
		fatal("server %d cannot have its address (%v); is it running already?", o.id, err)
	}
	conn.SetReadBuffer(8 << 20) // as much of this as the system grants
	conn.SetWriteBuffer(1 << 20)
	ids := o.addresses.ids()
	disk, state, torn, err := openDisk(o.dir, o.id, ids)
	if err != nil {
		fatal("%v", err)
	}
	peers := slices.DeleteFunc(ids, func(id int) bool { return id == o.id })
	s := newServer(o.id, peers, state, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	s.watch, s.noopOff = o.watch, !o.noop
	h := &host{server: s, disk: disk, conn: conn, addresses: o.addresses, screen: openScreen(o),
		inputs: make(chan any, maxInputs), tick: o.tick,
		faults: faults{cut: map[int]string{}}}
	if torn > 0 {
		s.tell(1, "DK3", "%s ends in a torn write, %d bytes cut off", disk.name, torn)
	}
	h.step() // narrates that, and has the first prompt show the term
	go h.readDatagrams(o.id)
	go h.readClock()
	go h.readConsole(o)
	for {
		h.turn()
	}
}

// readConsole reads stdin. In a cluster the parent holds the other end, and we end when it ends.
func (h *host) readConsole(o options) {
	if os.Getenv(inCluster) != "" {
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	c := newConsole(o, h.screen)
	c.readLines(os.Stdin)
	if c.over {
		c.leave()
	}
	if c.screen.people {
		c.screen.show(fmt.Sprintf("Input has ended; S%d runs on, and Ctrl-C ends it.\n", o.id))
	}
}

// inCluster is set for a cluster's servers: "true" if a person types there, so a prompt is shown.
const inCluster = "RAFT_IN_CLUSTER"

// change kills servers, if all of them run, or starts servers, if none of them does.
func (c *console) change(whom, verb string) error {
	ids, err := parseServers(whom, c.ids)
	if c.processes == nil {
		return errors.New("kill and start need the terminal of a cluster (go run .)")
	}
	for _, id := range ids {
		runs := c.processes[id] != nil &&
			(verb == "kill" || c.runAt([]int{id}, "status")[id].Error == "")
		if runs != (verb == "kill") {
			return fmt.Errorf("server %d %s; nothing was done", id,
				choose(runs, "is running", "is not running"))
		}
	}
	for _, id := range ids {
		if verb == "kill" {
			c.kill(id)
		} else if err == nil { // if it runs and was too busy to answer, it keeps its port
			err = c.start(id)
		}
	}
	return err
}

func (c *console) start(id int) error {
	self, _ := os.Executable() // if there is none, Start says so
	cmd := exec.Command(self, append([]string{"-id", strconv.Itoa(id)}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%v", inCluster, c.screen.people))
	cmd.Stderr = os.Stderr
	_, err1 := cmd.StdinPipe() // it ends when this process does
	stdout, err2 := cmd.StdoutPipe()
	err := cmp.Or(err1, err2, cmd.Start())
	if err == nil && !bufio.NewScanner(stdout).Scan() { // it ended before it was ready
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("server %d does not start: %w", id, err)
	}
	c.processes[id] = cmd
	return nil
}

// kill ends a server's process. It may have ended by itself.
func (c *console) kill(id int) {
	if cmd := c.processes[id]; cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
		delete(c.processes, id)
	}
}
