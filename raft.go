// Raft, all of it, in one file: servers that elect a leader, keep a replicated
// log, and serve a key-value store from it, over UDP, with files that survive
// kill -9.
//
// Put Figure 2 of the Raft paper (Ongaro and Ousterhout, "In Search of an
// Understandable Consensus Algorithm", extended version) beside this file and
// read from here to the end. Then run it:
//
//	go run .                three servers and a console in this terminal
//	set x 1                 … typed there; then: get x, logs, kill 1, get x, start 1
//
// # How to read it
//
// Part I is Figure 2, with the reasons. It knows no socket, file, goroutine or
// clock: inputs go into Step, effects come out of it. A reader may stop at its
// end and has read all of Raft's core. Where a later part needs a hook in an
// earlier one, the hook is one line that names its chapter; skip it. Skip also
// tell, say, count and their like: they narrate, and change nothing.
//
//	I    The algorithm   1 State · 2 Messages · 3 The log · 4 Step · 5 Elections
//	                     6 Replication · 7 Commit and apply
//	II   Clients         8 The state machine · 9 Exactly once · 10 Linearizable reads
//	III  The machine     11 Disk · 12 Network · 13 The loop
//	IV   The laboratory  14 Narration · 15 Console · 16 Experiments
//	                     17 Cluster and main
//
// # The rules
//
// Figure 2, numbered, in our words. Each tag stands in square brackets on the
// line that carries the rule out: grep -n '\[AE3\]' raft.go. The narration of a
// running server prints the same tags.
//
//	Persist  currentTerm, votedFor and log are on disk before anything that
//	         depends on them is answered
//	All1     committed entries are applied, in order, one by one
//	All2     a higher term in any message: adopt it, become follower
//	Fol1     answer candidates and leaders
//	Fol2     a whole election timeout without a current leader and without
//	         granting a vote: become candidate
//	Cand1    new term, vote for oneself, restart the timer, ask everybody
//	Cand2    votes from a majority: become leader
//	Cand3    AppendEntries of this term: another one won, follow it
//	Cand4    the election timed out: start the next
//	Lead1    AppendEntries to all at once on election, then whenever idle
//	Lead2    a client's command: append it, answer after applying it
//	Lead3    a follower lacks entries: send them from nextIndex on
//	Lead3a   it succeeded: raise nextIndex and matchIndex
//	Lead3b   it did not match: lower nextIndex, send again
//	Lead4    commit what a majority stores, if it is of the current term
//	RV1      refuse a vote to an older term
//	RV2      one vote a term, and only for a log at least as up to date
//	AE1      refuse entries from an older term
//	AE2      refuse unless the entry before the new ones matches
//	AE3      an entry that conflicts: drop it and all that follow
//	AE4      append what is not in the log yet
//	AE5      follow leaderCommit, up to the last new entry
//
// SE1.. (sessions), RD1.. (reads) and DK1.. (disk) are ours; chapters 9, 10 and 11
// define them.
//
// # Where it departs from the figure
//
// Each for a reason that NOTES.md defends:
//
//	D1  messages are one-way datagrams, not RPCs: a reply says what it confirms or
//	    refuses, counts only in its own term, and what stays unanswered is sent again
//	D2  votes are a set of servers, because a datagram may arrive twice
//	D3  a leader's first entry is empty (§8), or older entries and reads would wait; it
//	    travels in what would be the first heartbeat
//	D4  the entries of one AppendEntries are bounded by what a datagram carries
//	D5  a refusal says where the conflict begins, so nextIndex skips a term at a
//	    time (§5.3)
//	D6  nextIndex moves when entries are sent, not when they are confirmed, and is
//	    taken back on a refusal or on silence (Ongaro's thesis, 10.2.1)
//	D7  a leader's AppendEntries may leave before its own fsync (thesis 10.2.1)
//	D8  a candidate repeats its RequestVote while it waits
//	D9  the standing rules run once after each batch of inputs, not after each input
//
// # Errors
//
// There are three kinds. Expected ones (a datagram lost, late, twice, malformed; a
// request to a server that does not lead) are no errors: drop or answer, the
// protocol repeats itself. The operator's are answered in one line of text, and
// nothing changes. Impossible or fatal ones (a broken invariant, a failed write or
// fsync) stop the process at once, with one line that says what happened.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"container/list"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

// =============================================================================
// PART I. THE ALGORITHM
// =============================================================================

// ---- 1. State ---------------------------------------------------------------
//
// The first box of Figure 2, in its order and with its names, then what we need
// besides. At the end of the chapter stand the only two functions that change
// currentTerm, votedFor and log. Each writes the matching record, a line for the disk
// (chapter 11), in the same place, so that nobody can forget to persist.

// none stands where the paper says null; servers are numbered from 1.
const none = 0

// role is one of the three states of Figure 4.
type role int

const (
	follower role = iota
	candidate
	leader
)

// entry is one place of the log: a command and the term in which a leader
// received it. The command of a leader's first entry is empty (D3). Client and
// Serial say who asked; chapter 9 needs them to apply each command once.
type entry struct {
	Term    int    `json:"term"`
	Client  string `json:"client,omitempty"`
	Serial  int    `json:"serial,omitempty"`
	Command string `json:"command,omitempty"`
}

// server is one Raft server. All of its life is calls of Step.
type server struct {
	// Persistent state on all servers: on disk before anybody hears of it [Persist].
	currentTerm int      // latest term seen, 0 at first, never falls
	votedFor    int      // who got this server's vote in currentTerm, or none
	log         sequence // entries (chapter 3); at(0) is a sentinel of term 0, the first index is 1

	// Volatile state on all servers.
	commitIndex int // highest entry known to be committed, never falls
	lastApplied int // highest entry applied to the state machine

	// Volatile state on leaders, made anew after each election.
	nextIndex  map[int]int // for each other server, the next entry to send to it
	matchIndex map[int]int // … and the highest entry known to be stored there

	// Ours, from here on.
	id       int   // this server
	peers    []int // the others, ascending; maps are read in this order, never ranged over
	role     role
	leaderID int          // whom clients are sent to, or none
	votes    map[int]bool // a candidate's votes, by voter (D2)

	// Time is a counter: tick advances now, every timeout is counted in ticks.
	now         int
	electionDue int        // not a leader: when to start an election [Fol2] [Cand4]
	askAgainDue int        // candidate: when to repeat RequestVote (D8)
	rand        *rand.Rand // draws election timeouts, nothing else

	// The leader's view of the wire (chapter 6).
	seq      int           // number of the last AppendEntries sent, to whomever
	progress map[int]*wire // for each other server

	// For chapters 8 to 10.
	machine     machine           // the key-value store and its sessions
	waiting     map[string]waiter // leader: whom to answer, by client
	held        []held            // requests that wait for a leader
	heardLeader int               // tick of the last word from a leader
	reads       []read            // leader: gets that wait
	asked       int               // leader: seq before the last round of questions for them

	voice      // narration (chapter 14)
	laboratory // what experiments may change about the algorithm (chapter 16)
	out        Output
}

// Timeouts in ticks. With the default tick of 10 ms they are the paper's 150 to
// 300 ms, and a heartbeat often enough that one may be lost, and mostly more.
const (
	heartbeatTicks   = 5
	electionTicksMin = 15
	electionTicksMax = 30
)

// newServer makes server id of a cluster of id and peers, a follower with the
// persistent state that chapter 11 read from disk: hardState is currentTerm and votedFor
// (zero, and no entries, for a new server). Everything volatile begins at zero: a server
// does not know what is committed until a leader tells it.
func newServer(id int, peers []int, hard hardState, log []entry, r *rand.Rand) *server {
	s := &server{
		id: id, peers: peers, rand: r,
		currentTerm: hard.Term, votedFor: hard.VotedFor,
		machine: newMachine(),
		voice:   voice{fired: map[string]int{}},
	}
	s.log.append(entry{})
	for _, e := range log {
		s.log.append(e)
	}
	s.resetElectionTimer()
	return s
}

// setTermAndVote is the only function that changes currentTerm and votedFor. They
// are one record: a crash between a new term and its vote would leave a vote that
// belongs to another term.
func (s *server) setTermAndVote(term, votedFor int) {
	must(term > s.currentTerm || term == s.currentTerm && s.votedFor == none,
		"terms never fall, and one vote a term")
	s.currentTerm, s.votedFor = term, votedFor
	s.count("Persist")
	s.out.Persist = append(s.out.Persist, record{hard: &hardState{term, votedFor}}) // [Persist]
}

// store is the only function that changes the log: entries take the places from
// index on, and whatever stood there or after them is gone. The disk needs no
// record for the cut: an entry's record replaces all from its index on.
func (s *server) store(index int, entries ...entry) {
	must(index > s.commitIndex, "a committed entry is never replaced (State Machine Safety)")
	must(index > s.lastIndex() || s.role != leader,
		"a leader never replaces its own entries (Leader Append-Only)")
	must(index <= s.lastIndex()+1, "a log has no gaps")
	s.count("Persist")
	s.log.cut(index)
	for _, e := range entries { // [Persist]
		s.out.Persist = append(s.out.Persist, record{index: s.lastIndex() + 1, entry: e})
		s.log.append(e)
	}
}

// must stops the process when what can never happen has happened: going on would
// only spread the damage. Each use names the invariant, of Figure 3 where it can.
func must(cond bool, invariant string) {
	if !cond {
		panic(brokenInvariant(invariant))
	}
}

type brokenInvariant string

// ---- 2. Messages ------------------------------------------------------------
//
// One struct for each box of Figure 2, in the figure's order and spelling, in an
// envelope that says from whom, to whom and in which term. The paper's RPCs are
// pairs of one-way messages here (D1): any of them may be lost, late, doubled or
// overtaken, so a reply repeats what it is about.

// Message is what one server sends to another; exactly one body is set.
type Message struct {
	From int `json:"from,omitempty"`
	To   int `json:"to,omitempty"`
	Term int `json:"term,omitempty"` // the sender's currentTerm [All2]
	At   int `json:"at,omitempty"`   // Lamport clock of the narration (chapter 14)

	RequestVote        *requestVote        `json:"requestVote,omitempty"`
	RequestVoteReply   *requestVoteReply   `json:"requestVoteReply,omitempty"`
	AppendEntries      *appendEntries      `json:"appendEntries,omitempty"`
	AppendEntriesReply *appendEntriesReply `json:"appendEntriesReply,omitempty"`
}

type requestVote struct {
	CandidateID  int `json:"candidateId"`  // who asks for the vote
	LastLogIndex int `json:"lastLogIndex"` // of the candidate's last entry (§5.4)
	LastLogTerm  int `json:"lastLogTerm"`
}

type requestVoteReply struct {
	VoteGranted bool `json:"voteGranted"`
}

type appendEntries struct {
	LeaderID     int     `json:"leaderId"`     // so that followers can redirect clients
	PrevLogIndex int     `json:"prevLogIndex"` // of the entry right before the new ones
	PrevLogTerm  int     `json:"prevLogTerm"`
	Entries      []entry `json:"entries"`       // none in a heartbeat, several for speed
	LeaderCommit int     `json:"leaderCommit"`  // the leader's commitIndex
	Seq          int     `json:"seq,omitempty"` // number of this message, echoed by its reply (D1)
}

type appendEntriesReply struct {
	Success    bool `json:"success"`
	MatchIndex int  `json:"matchIndex"`    // success: the last entry that is known to match (D1)
	Seq        int  `json:"seq,omitempty"` // of the AppendEntries this answers

	// A refusal of [AE2] says what it refuses and where to try again (D5).
	PrevLogIndex  int `json:"prevLogIndex,omitempty"`
	ConflictTerm  int `json:"conflictTerm,omitempty"`  // of the entry that does not match, or 0
	ConflictIndex int `json:"conflictIndex,omitempty"` // first index of that term, or lastIndex+1
}

// refusesTerm tells a refusal of [AE1] from one of [AE2], whose PrevLogIndex is never 0,
// since every log matches there.
func (r *appendEntriesReply) refusesTerm() bool { return !r.Success && r.PrevLogIndex == 0 }

// ---- 3. The log -------------------------------------------------------------
//
// Every index computation of Part I goes through these few functions. The sentinel
// at index 0 has term 0 and matches everywhere, so an empty log is no special case.

func (s *server) lastIndex() int { return s.log.length - 1 }

func (s *server) lastTerm() int { return s.log.at(s.lastIndex()).Term }

// matches tells whether the log has an entry of this term at index. By the Log
// Matching Property everything before it is then the same as in any other log that
// has this entry.
func (s *server) matches(index, term int) bool {
	return index <= s.lastIndex() && s.log.at(index).Term == term
}

// upToDate compares a candidate's last entry with ours (§5.4.1): the later term
// wins, and of equal terms the longer log.
func (s *server) upToDate(lastLogTerm, lastLogIndex int) bool {
	if lastLogTerm != s.lastTerm() {
		return lastLogTerm > s.lastTerm()
	}
	return lastLogIndex >= s.lastIndex()
}

// firstIndexOf is the first index whose term is at least term. Terms never fall
// along a log, so a binary search will do; lastIndex+1 when there is none.
func (s *server) firstIndexOf(term int) int {
	return sort.Search(s.log.length, func(index int) bool { return s.log.at(index).Term >= term })
}

// batch is what one AppendEntries can carry from index on: as many entries as fit
// into a datagram (D4). One always fits: chapter 8 refuses larger commands. maxBatchBytes is
// from there, too, and size, an entry's bytes, from chapter 12.
func (s *server) batch(index int) []entry {
	n := 0
	for size := 0; index+n <= s.lastIndex(); n++ {
		size += s.log.at(index + n).size()
		if n > 0 && (size > maxBatchBytes || n == s.batchLimit) { // chapter 16
			break
		}
	}
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = *s.log.at(index + i)
	}
	return entries
}

// sequence is a log in memory: a slice in pieces. A plain slice is copied when it has to
// grow, and a million entries take as long as an election timeout.
type sequence struct {
	pieces [][]entry
	length int
}

const pieceLength = 4096 // entries

func (l *sequence) at(index int) *entry { return &l.pieces[index/pieceLength][index%pieceLength] }

func (l *sequence) append(e entry) {
	last := l.length / pieceLength
	if last == len(l.pieces) {
		l.pieces = append(l.pieces, nil)
	}
	l.pieces[last] = append(l.pieces[last], e)
	l.length++
}

// cut keeps the first entries, so many.
func (l *sequence) cut(length int) {
	if length >= l.length {
		return
	}
	last := length / pieceLength
	l.pieces = l.pieces[:last+1]
	l.pieces[last] = l.pieces[last][:length%pieceLength]
	l.length = length
}

// ---- 4. Step ----------------------------------------------------------------
//
// Step is the whole interface of the algorithm: inputs go in, effects come out, and
// nothing happens inside but arithmetic. Handlers only record what an input says.
// Then Figure 2's standing rules run, once (D9), in an order in which each one's
// consequences are seen by those after it.

// input is what can happen to a server: a tick, a *Message or a *request.
type input any

// tick is one beat of the clock. How long it takes, only chapter 13 knows.
type tick struct{}

// Output lists effects in the order in which the shell performs them (chapter 13).
// Everything before Persist promises nothing about this server's disk; everything
// after it may.
type Output struct {
	Trace   []string  //    narration of what follows; no effect
	Early   []Message // 1. a leader's AppendEntries leave at once (D7);
	Persist []record  // 2. records are on disk, fsynced, before
	Send    []Message // 3. any other message leaves this process, or
	Reply   []reply   // 4. any client hears an answer
}

// Step digests inputs in their order and returns the effects of all of them
// together. Whoever calls it with all that is waiting gets one fsync for the lot, and as few
// AppendEntries as can carry it.
func (s *server) Step(inputs ...input) Output {
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
	s.serveHeld()          // chapter 9
	s.electionTimeout()    // [Fol2] [Cand4]
	s.repeatRequestVote()  // D8
	s.winElection()        // [Cand2]
	s.advanceCommitIndex() // [Lead4]
	s.applyCommitted()     // [All1]
	s.serveReads()         // chapter 10
	s.takeBackLost()       // D6
	s.replicate()          // [Lead3]
	s.heartbeat()          // [Lead1]

	out := s.out
	s.out = Output{}
	return out
}

// receive takes one message. The term comes first, whatever the body is.
func (s *server) receive(m *Message) {
	s.hear(m) // chapter 14
	if m.Term > s.currentTerm {
		s.tell(1, "All2", "term %d -> %d, S%d has seen a newer one", s.currentTerm, m.Term, m.From)
		s.setTermAndVote(m.Term, none) // [All2]
		s.becomeFollower(none)
	}
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

// send puts a message into the Output, with the term of this moment.
func (s *server) send(to int, m Message) {
	m.From, m.To, m.Term = s.id, to, s.currentTerm
	m.At = s.stamp() // chapter 14
	if m.AppendEntries != nil {
		s.out.Early = append(s.out.Early, m)
	} else {
		s.out.Send = append(s.out.Send, m)
	}
}

// ---- 5. Elections (§5.2, §5.4.1) ---------------------------------------------
//
// From silence to a leader: the timeout, the candidate, the voter, the count. Two
// things make it safe. A server votes once a term, so two majorities cannot elect
// two leaders in one term. And it votes only for a log at least as up to date as
// its own, so a leader has every committed entry.

// electionTimeout starts an election when nobody led for too long.
func (s *server) electionTimeout() {
	if s.role == leader || s.now < s.electionDue || s.hasWon() {
		return
	}
	if s.role == follower { // [Fol2]
		s.tell(1, "Fol2", "election timeout: %s", s.silence())
	} else { // [Cand4] Nobody won, perhaps because of a split vote.
		s.tell(1, "Cand4", "nobody won term %d, the election starts over", s.currentTerm)
	}
	s.becomeCandidate()
}

// resetElectionTimer draws a new timeout. Where one is running, only three events may
// restart it: word from the current leader, a vote granted, an election started. A new
// server and a leader that steps down have none, and start one. Random spread keeps
// candidates from splitting the vote for ever.
func (s *server) resetElectionTimer() {
	s.electionDue = s.now + electionTicksMin + s.rand.IntN(electionTicksMax-electionTicksMin+1)
}

// becomeFollower keeps the vote: within a term it is given once, whatever the role.
// It also keeps a running election timer, because hearing of a higher term is no word
// from a leader; a leader had none running and starts one.
func (s *server) becomeFollower(leaderID int) {
	if s.role == leader {
		s.say(1, "All2", "no longer leader")
		s.resetElectionTimer()
		s.endReign() // chapters 9 and 10
	}
	s.role = follower
	s.leaderID = leaderID
}

// becomeCandidate starts an election.
func (s *server) becomeCandidate() {
	s.setTermAndVote(s.currentTerm+1, s.id) // [Cand1]
	s.role = candidate
	s.leaderID = none
	s.votes = map[int]bool{s.id: true}
	s.resetElectionTimer()
	s.tell(1, "Cand1", "term %d -> %d, vote for self, need %d of %d votes",
		s.currentTerm-1, s.currentTerm, s.majority(), len(s.peers)+1)
	s.requestVotes()
}

// requestVotes asks all who have not granted their vote yet.
func (s *server) requestVotes() {
	for _, p := range s.peers {
		if s.votes[p] {
			continue
		}
		s.tellSent(2, "Cand1", p, "RequestVote last=%v", s.lastRef())
		s.send(p, Message{RequestVote: &requestVote{
			CandidateID: s.id, LastLogIndex: s.lastIndex(), LastLogTerm: s.lastTerm()}})
	}
	s.askAgainDue = s.now + heartbeatTicks
}

// repeatRequestVote asks again while the election runs (D8): a lost datagram should
// not cost a whole election. A voter that has granted grants again, but only the first
// time restarts its timer: a candidate that cannot hear must not keep it waiting.
func (s *server) repeatRequestVote() {
	if s.role == candidate && s.now >= s.askAgainDue {
		s.requestVotes()
	}
}

// onRequestVote is the receiver half of Figure 2's RequestVote box.
func (s *server) onRequestVote(from, term int, rv *requestVote) {
	granted := term == s.currentTerm && // [RV1]
		(s.votedFor == none || s.votedFor == rv.CandidateID) && // [RV2] one vote a term,
		s.upToDate(rv.LastLogTerm, rv.LastLogIndex) // … and only for such a log
	s.tellVote(from, term, rv, granted)
	if granted && s.votedFor == none {
		s.setTermAndVote(term, rv.CandidateID)
		s.resetElectionTimer() // [Fol2]
	}
	s.send(from, Message{RequestVoteReply: &requestVoteReply{VoteGranted: granted}})
}

// onRequestVoteReply records a vote. One of an earlier election of ours does not
// count in this one, and one that arrives twice counts once (D2).
func (s *server) onRequestVoteReply(from, term int, r *requestVoteReply) {
	if s.role == candidate && term == s.currentTerm && r.VoteGranted {
		s.votes[from] = true
	}
}

// winElection counts the votes.
func (s *server) winElection() {
	if s.hasWon() { // [Cand2]
		s.tell(1, "Cand2", "%s are %d of %d, elected", s.voters(), len(s.votes), len(s.peers)+1)
		s.becomeLeader()
	}
}

func (s *server) hasWon() bool { return s.role == candidate && len(s.votes) >= s.majority() }

// majority is the smallest number of servers such that any two sets of that many share
// one.
func (s *server) majority() int { return (len(s.peers)+1)/2 + 1 }

// becomeLeader begins a reign. The leader assumes that every log equals its own and
// lets refusals correct it. Its first entry is empty (D3): only an entry of its own
// term lets it commit what earlier leaders left [Lead4].
func (s *server) becomeLeader() {
	s.role = leader
	s.leaderID = s.id
	s.nextIndex, s.matchIndex = map[int]int{}, map[int]int{}
	s.progress = map[int]*wire{}
	for _, p := range s.peers {
		s.nextIndex[p] = s.lastIndex() + 1
		s.matchIndex[p] = 0
		s.progress[p] = &wire{due: s.now, probing: true} // [Lead1] at once
	}
	s.asked = -1    // chapter 10
	if !s.noopOff { // chapter 16
		s.store(s.lastIndex()+1, entry{Term: s.currentTerm})
	}
}

// ---- 6. Replication (§5.3) ---------------------------------------------------
//
// How the leader's log reaches the others: sending, the receiver's box, the reply.
// The receiver accepts entries only behind an entry that matches, which makes the
// logs equal up to there by induction. The sender keeps a few AppendEntries in the
// air at once (D6); a reply echoes the number of what it answers, so it is known how old
// it is.

// wire is what a leader knows about the way to one follower.
type wire struct {
	flying  []flight // AppendEntries with entries that nobody has confirmed, oldest first
	due     int      // the tick of the next heartbeat [Lead1]
	heard   int      // highest seq that this follower has answered
	repair  int      // seq of the last message sent before nextIndex was taken back
	probing bool     // not heard from lately: one AppendEntries at a time, until it answers
	heardAt int      // the tick of its last answer, for chapter 15
}

// flight is one AppendEntries with entries, on its way.
type flight struct {
	first, last int // indexes of its entries
	sent        int // tick
}

// maxFlights bounds what is on its way to one follower, so that the receive buffer there
// mostly holds it. What it does not hold is lost, and sent again.
const maxFlights = 8

// submit takes a client's request, with which replication begins.
func (s *server) submit(r *request) {
	switch {
	case s.answeredMalformed(r): // chapter 8
	case s.role != leader:
		s.redirect(r) // chapter 9
	case r.isRead():
		s.read(r) // chapter 10
	case s.answeredRepeat(r): // chapter 9
	default:
		s.tellCommand(r)
		s.store(s.lastIndex()+1, entry{s.currentTerm, r.Client, r.Serial, r.Command}) // [Lead2]
		s.await(r)                                                                    // chapter 9
	}
}

// replicate sends what followers lack.
func (s *server) replicate() {
	if s.role != leader {
		return
	}
	for _, p := range s.peers {
		w := s.progress[p]
		for s.nextIndex[p] <= s.lastIndex() && len(w.flying) < w.window() { // [Lead3]
			s.sendAppendEntries(p)
		}
	}
}

func (w *wire) window() int {
	if w.probing {
		return 1
	}
	return maxFlights
}

// heartbeat keeps followers from starting elections while there is nothing to say.
func (s *server) heartbeat() {
	if s.role != leader {
		return
	}
	for _, p := range s.peers {
		if s.now >= s.progress[p].due { // [Lead1]
			s.sendAppendEntries(p)
		}
	}
}

// sendAppendEntries sends p what begins at its nextIndex: as much as fits, or
// nothing, which is a heartbeat.
func (s *server) sendAppendEntries(p int) {
	w, next := s.progress[p], s.nextIndex[p]
	var entries []entry
	if len(w.flying) < w.window() {
		entries = s.batch(next)
	}
	s.seq++
	w.due = s.now + heartbeatTicks
	if len(entries) > 0 {
		s.nextIndex[p] += len(entries) // D6
		w.flying = append(w.flying, flight{next, next + len(entries) - 1, s.now})
	}
	ae := &appendEntries{
		LeaderID:     s.id,
		PrevLogIndex: next - 1,
		PrevLogTerm:  s.log.at(next - 1).Term,
		Entries:      entries,
		LeaderCommit: s.commitIndex,
		Seq:          s.seq,
	}
	s.tellAppend(p, ae)
	s.send(p, Message{AppendEntries: ae})
}

// takeBackLost notices silence (D6): entries that stayed unconfirmed for a heartbeat
// interval count as lost and are sent again, but one datagram at a time, since the
// follower may be dead.
func (s *server) takeBackLost() {
	if s.role != leader {
		return
	}
	for _, p := range s.peers {
		w := s.progress[p]
		if len(w.flying) > 0 && s.now-w.flying[0].sent >= heartbeatTicks {
			// Part of it may be confirmed.
			s.nextIndex[p] = max(s.matchIndex[p]+1, w.flying[0].first)
			w.flying, w.probing, w.repair = nil, true, s.seq
		}
	}
}

// onAppendEntries is the receiver half of Figure 2's AppendEntries box. [All2] has
// run, so term is never above currentTerm here.
func (s *server) onAppendEntries(from, term int, ae *appendEntries) {
	if term < s.currentTerm { // [AE1]
		s.refuse(from, "AE1", appendEntriesReply{Seq: ae.Seq},
			"t%d is over, this is t%d", term, s.currentTerm)
		return
	}
	s.follow(ae.LeaderID)

	prev := ae.PrevLogIndex
	if !s.matches(prev, ae.PrevLogTerm) { // [AE2]
		s.refuse(from, "AE2", s.conflictReply(prev, ae.Seq), "no %v here", ref{prev, ae.PrevLogTerm})
		return
	}
	for i, e := range ae.Entries {
		index := prev + 1 + i
		if s.matches(index, e.Term) {
			continue
		}
		// Cut only at a real conflict. A late, shorter AppendEntries is no conflict, and
		// cutting to its length would erase entries that this server has already confirmed.
		if index <= s.lastIndex() {
			s.tell(1, "AE3", "%v conflicts with %v, cut from there",
				s.refAt(index), ref{index, e.Term})
		}
		s.store(index, ae.Entries[i:]...) // [AE3] cuts, [AE4] appends
		s.count("AE4")
		break
	}
	// The last *new* entry bounds it: what follows that in our log is unchecked and may
	// conflict. Datagrams overtake each other, and commitIndex never falls.
	lastNew := prev + len(ae.Entries)
	if n := min(ae.LeaderCommit, lastNew); n > s.commitIndex { // [AE5]
		s.tell(1, "AE5", "commit %d -> %d, says leader S%d", s.commitIndex, n, from)
		s.commitIndex = n
	}
	s.tellAppended(from, len(ae.Entries), lastNew)
	s.send(from, Message{AppendEntriesReply: &appendEntriesReply{
		Success: true, MatchIndex: lastNew, Seq: ae.Seq}})
}

// follow accepts the sender of a current AppendEntries as the leader. It restarts
// the timer even when the entries are refused below: the leader is alive.
func (s *server) follow(leaderID int) {
	must(s.role != leader, "at most one leader a term (Election Safety)")
	if s.role == candidate {
		s.tell(1, "Cand3", "S%d has won term %d", leaderID, s.currentTerm)
	} else if s.leaderID != leaderID {
		s.say(1, "Fol1", "S%d leads term %d", leaderID, s.currentTerm)
	}
	s.becomeFollower(leaderID) // [Cand3]
	s.resetElectionTimer()     // [Fol2]
	s.heardLeader = s.now      // chapter 9
}

// refuse answers an AppendEntries that was not accepted.
func (s *server) refuse(to int, tag string, r appendEntriesReply, format string, args ...any) {
	s.count(tag)
	s.tellSent(1, tag, to, "AppendReply refused: "+format, args...)
	s.send(to, Message{AppendEntriesReply: &r})
}

// conflictReply says where the leader should try again (D5): at the first entry of the
// conflicting term, since a leader that lacks one entry of a term often lacks more
// of them; or behind our last entry, where we have nothing at all.
func (s *server) conflictReply(index, seq int) appendEntriesReply {
	r := appendEntriesReply{Seq: seq, PrevLogIndex: index, ConflictIndex: s.lastIndex() + 1}
	if index <= s.lastIndex() {
		r.ConflictTerm = s.log.at(index).Term
		r.ConflictIndex = s.firstIndexOf(r.ConflictTerm)
	}
	return r
}

// onAppendEntriesReply learns what a follower stores. A reply of another term speaks
// of another reign's log. Only a success moves matchIndex, only to what the reply
// itself confirms, and only upwards: replies overtake each other.
func (s *server) onAppendEntriesReply(from, term int, r *appendEntriesReply) {
	if s.role != leader || term != s.currentTerm {
		return
	}
	if r.Seq > s.seq || r.MatchIndex > s.lastIndex() {
		return // no honest answer: of what was never sent, or of more than there is
	}
	// A refusal of [AE1] has the term of now, but answers a message of an earlier reign,
	// perhaps of ours before a crash: its number says nothing about this one.
	if r.refusesTerm() {
		return
	}
	w := s.progress[from]
	w.heard = max(w.heard, r.Seq) // chapter 10 counts these
	w.heardAt, w.probing = s.now, false
	if r.Success { // [Lead3a]
		s.matchIndex[from] = max(s.matchIndex[from], r.MatchIndex)
		s.nextIndex[from] = max(s.nextIndex[from], s.matchIndex[from]+1)
		w.landed(s.matchIndex[from])
		s.count("Lead3a")
		return
	}
	// What is confirmed stays confirmed, so nextIndex never falls to matchIndex. When one
	// AppendEntries is lost, all that follow it are refused. The first refusal takes nextIndex
	// back; the others, of messages sent before that repair, are old news while the entries
	// are on their way again, unless they ask for an earlier one.
	next := max(s.matchIndex[from]+1, min(s.tryAgainAt(r), s.nextIndex[from]))
	if r.Seq <= w.repair && len(w.flying) > 0 && next >= w.flying[0].first {
		return
	}
	s.tell(1, "Lead3b", "S%d refused, nextIndex back to %d", from, next)
	s.nextIndex[from] = next // [Lead3b]
	w.flying, w.repair = nil, s.seq
}

// tryAgainAt reads a refusal (D5). If the leader has entries of the conflicting term,
// the logs may agree up to the last of them; if not, that whole term goes.
func (s *server) tryAgainAt(r *appendEntriesReply) int {
	next := r.ConflictIndex
	if r.ConflictTerm > 0 {
		if after := s.firstIndexOf(r.ConflictTerm + 1); s.log.at(after-1).Term == r.ConflictTerm {
			next = after
		}
	}
	return min(next, r.PrevLogIndex) // what was refused need not be asked again
}

// landed forgets the flights that a confirmation up to index covers.
func (w *wire) landed(index int) {
	n := 0
	for n < len(w.flying) && w.flying[n].last <= index {
		n++
	}
	w.flying = w.flying[n:]
}

// ---- 7. Commit and apply (§5.3, §5.4.2) ---------------------------------------
//
// An entry is committed when no future leader can lack it. Then it may be applied,
// and then its client hears of it.

// advanceCommitIndex finds the N of Figure 2: the highest index that a majority
// stores. The leader counts its own log: all of it is on the disk before the next Step, the
// first that can see an answer to what was just sent (D7). (A cluster of one commits at once,
// but its client hears of it after the fsync, like all.)
func (s *server) advanceCommitIndex() {
	if s.role != leader {
		return
	}
	n := s.majorityHas(s.lastIndex(), func(p int) int { return s.matchIndex[p] })
	// An entry of an older term may be on a majority and still be overwritten (Figure 8).
	// One of this term cannot, and it commits all before it.
	if n > s.commitIndex && s.log.at(n).Term == s.currentTerm { // [Lead4]
		s.tell(1, "Lead4", "commit %d -> %d: %v is on a majority and t%d is my term",
			s.commitIndex, n, s.refAt(n), s.currentTerm)
		s.commitIndex = n
	}
}

// majorityHas is the highest number that a majority has reached: own is where this
// server is, of tells where the others are.
func (s *server) majorityHas(own int, of func(p int) int) int {
	reached := make([]int, 0, 9) // on the stack, for a cluster of this size
	reached = append(reached, own)
	for _, p := range s.peers {
		reached = append(reached, of(p))
	}
	slices.Sort(reached)
	return reached[len(reached)-s.majority()] // this one and the larger ones are a majority
}

// maxApply bounds the entries applied in one Step, so that a server with a long log
// to catch up on still answers its peers, and its clock ticks, in between.
const maxApply = 5_000

// applyCommitted applies what is committed. All servers apply the same entries in
// the same order, and apply is a function of nothing else: so all have equal state.
func (s *server) applyCommitted() {
	if s.behind() {
		s.count("All1")
	}
	for n := 0; s.behind() && n < maxApply; n++ { // [All1]
		s.lastApplied++
		e := s.log.at(s.lastApplied)
		answer, ok := s.machine.apply(e) // chapters 8 and 9
		s.answerWaiting(e, answer, ok)   // the second half of [Lead2]
	}
}

// behind tells whether entries wait to be applied: Step has work without an input.
func (s *server) behind() bool { return s.lastApplied < s.commitIndex }

// =============================================================================
// PART II. CLIENTS
// =============================================================================

// ---- 8. The state machine -----------------------------------------------------
//
// A key-value store. Its commands are lines of text, the same in a client's
// datagram, in the log and on the console. A command is checked before it enters the
// log, so that what is in a log can be applied, and has one outcome everywhere.

// request is a client's command on its way into Step.
type request struct {
	Client  string `json:"client"`  // 1 to 64 printable ASCII characters, no blanks
	Serial  int    `json:"serial"`  // counts the client's writes: 1, 2, 3, …
	Command string `json:"command"` // set, get, del, incr or cas

	to netip.AddrPort // where the client waits; Step only hands it back
}

// reply answers a request. leader is set, if known, when err is errNotLeader.
type reply struct {
	to     netip.AddrPort
	client string
	serial int
	answer
	leader int
}

// answer is the outcome of a command: a result or an error. An error is final and certain,
// except for errNotLeader, which only says: ask elsewhere.
type answer struct {
	result string
	err    string
}

const errNotLeader = "not the leader"

// Bounds, in bytes. A command must fit into one AppendEntries and its answer into one
// reply, both of them one datagram (D4).
const (
	maxDatagram   = 65_507            // what UDP over IPv4 carries
	maxBatchBytes = maxDatagram - 512 // the rest is for what stands around the entries
	maxKey        = 256
	maxCommand    = 32 << 10
	maxClient     = 64
)

// machine is the state machine: a function of the log, and of nothing else.
type machine struct {
	values   map[string]string
	sessions map[string]*list.Element // of *session, by client (chapter 9)
	recent   *list.List               // the sessions, least recently used first
}

func newMachine() machine {
	return machine{
		values:   map[string]string{},
		sessions: map[string]*list.Element{},
		recent:   list.New(),
	}
}

// get is the answer of the command get.
func (m *machine) get(key string) string {
	value, ok := m.values[key]
	if !ok {
		return "(none)"
	}
	return display(value)
}

// execute carries out a write. An answer with an error has changed nothing.
func (m *machine) execute(command string) answer {
	op, err := parseOperation(command)
	if err != nil {
		return answer{err: err.Error()}
	}
	found, ok := m.values[op.key]
	if !ok {
		op.key = strings.Clone(op.key) // off the log: keys close together are found faster
	}
	switch op.verb {
	case "set":
		m.values[op.key] = op.value
	case "del":
		if !ok {
			return answer{result: "(none)"}
		}
		delete(m.values, op.key)
	case "cas":
		if ok && found == op.old {
			m.values[op.key] = op.value
			break
		}
		is := "(none)"
		if ok {
			is = quoteFound(found)
		}
		return answer{err: fmt.Sprintf("%s is %s, not %s; nothing changed",
			clip(display(op.key), 300), is, quoteFound(op.old))}
	case "incr":
		return m.incr(op.key, found, ok, op.n)
	}
	return answer{result: "ok"}
}

func (m *machine) incr(key, found string, ok bool, n int64) answer {
	var old int64
	if ok {
		var err error
		if old, err = strconv.ParseInt(found, 10, 64); err != nil {
			return answer{err: fmt.Sprintf("%s is %s, not a number of 64 bits; nothing changed",
				clip(display(key), 300), quoteFound(found))}
		}
	}
	sum := old + n
	if (sum > old) != (n > 0) {
		return answer{err: fmt.Sprintf("%s is %d, adding %d would overflow; nothing changed",
			clip(display(key), 300), old, n)}
	}
	m.values[key] = strconv.FormatInt(sum, 10)
	return answer{result: m.values[key]}
}

// answeredMalformed answers what no log will ever hold, and tells whether it did. That is
// final in any role: nothing about it depends on the log.
func (s *server) answeredMalformed(r *request) bool {
	op, err := parseOperation(r.Command)
	if err == nil {
		err = tooLarge(r, op)
	}
	if err != nil {
		s.answer(r, answer{err: err.Error()})
	}
	return err != nil
}

func tooLarge(r *request, op operation) error {
	if len(r.Command) > maxCommand {
		return fmt.Errorf("the command has %d bytes, the limit is %d", len(r.Command), maxCommand)
	}
	if len(r.Command) < maxBatchBytes/8 {
		return nil // no escape makes more than six bytes of one
	}
	e := entry{Client: r.Client, Serial: r.Serial, Command: r.Command}
	if e.size() > maxBatchBytes || jsonSize(display(op.value)) > maxBatchBytes {
		return fmt.Errorf("the command would not fit into a datagram of %d bytes "+
			"once its escapes are written out", maxDatagram)
	}
	return nil
}

func (r *request) isRead() bool {
	verb, _, _ := nextWord(r.Command)
	return verb == "get"
}

func (s *server) answer(r *request, a answer) {
	s.out.Reply = append(s.out.Reply,
		reply{to: r.to, client: r.Client, serial: r.Serial, answer: a})
}

// operation is a command, taken apart. What a verb does not use stays empty.
type operation struct {
	verb, key, old, value string
	n                     int64 // incr
}

// parseOperation takes a command apart. Its error is the client's to read.
func parseOperation(command string) (op operation, err error) {
	if !utf8.ValidString(command) {
		return op, errors.New("the command is not valid UTF-8")
	}
	if strings.IndexByte(command, '\n') >= 0 || strings.IndexByte(command, '\r') >= 0 {
		return op, errors.New(`a command is one line; ` +
			`write "...\n..." for a value with a line break`)
	}
	verb, rest, err := nextWord(command)
	if err != nil {
		return op, err
	}
	op.verb = verb
	switch verb {
	case "get", "del":
		err = takeWords(verb, "KEY", rest, &op.key)
	case "set":
		err = takeText(verb, "KEY VALUE", rest, &op.value, &op.key)
	case "cas":
		err = takeText(verb, "KEY OLD NEW", rest, &op.value, &op.key, &op.old)
	case "incr":
		n := "1"
		if err = takeWords(verb, "KEY", rest, &op.key); err != nil {
			err = takeWords(verb, "KEY or KEY N", rest, &op.key, &n)
		}
		if err == nil {
			if op.n, err = strconv.ParseInt(n, 10, 64); err != nil {
				err = fmt.Errorf("incr adds a decimal number of 64 bits, not %s", clipQuote(n))
			}
		}
	case "":
		err = errors.New("an empty command; try set, get, del, incr or cas")
	default:
		err = fmt.Errorf("no such command %s; there are set, get, del, incr and cas",
			clipQuote(verb))
	}
	switch {
	case err != nil:
	case op.key == "" || len(op.key) > maxKey:
		err = fmt.Errorf("a key has 1 to %d bytes, not %d", maxKey, len(op.key))
	case !utf8.ValidString(op.key) || !utf8.ValidString(op.old) || !utf8.ValidString(op.value):
		err = errors.New("keys and values are valid UTF-8, also after their escapes")
	}
	return op, err
}

// nextWord splits the first word off line: up to a blank, or a Go string in double
// quotes.
func nextWord(line string) (word, rest string, err error) {
	for line != "" && isBlank(line[0]) {
		line = line[1:]
	}
	if !strings.HasPrefix(line, `"`) {
		end := 0
		for end < len(line) && !isBlank(line[end]) {
			end++
		}
		return line[:end], line[end:], nil
	}
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return "", "", errors.New("an unfinished quote, or an escape that Go does not know")
	}
	if rest = line[len(quoted):]; rest != "" && !isBlank(rest[0]) {
		return "", "", fmt.Errorf("text right after a closing quote: %s", clipQuote(rest))
	}
	word, err = strconv.Unquote(quoted)
	return word, rest, err
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// takeWords splits line into exactly the words wanted.
func takeWords(verb, usage, line string, words ...*string) error {
	got := 0
	for ; strings.Trim(line, " \t") != ""; got++ {
		word, rest, err := nextWord(line)
		if err != nil {
			return err
		}
		if got < len(words) {
			*words[got] = word
		}
		line = rest
	}
	if got != len(words) {
		return wrongCount(verb, usage, got)
	}
	return nil
}

// takeText is takeWords with a last argument that runs to the end of the line, unless
// it is quoted.
func takeText(verb, usage, line string, text *string, words ...*string) (err error) {
	for got := range words {
		if strings.Trim(line, " \t") == "" {
			return wrongCount(verb, usage, got)
		}
		if *words[got], line, err = nextWord(line); err != nil {
			return err
		}
	}
	line = strings.Trim(line, " \t")
	if line == "" {
		return wrongCount(verb, usage, len(words))
	}
	if line[0] != '"' {
		*text = line
		return nil
	}
	rest := ""
	if *text, rest, err = nextWord(line); err == nil && rest != "" {
		err = fmt.Errorf("text after the closing quote: %s", clipQuote(rest))
	}
	return err
}

func wrongCount(verb, usage string, got int) error {
	plural := "s"
	if got == 1 {
		plural = ""
	}
	return fmt.Errorf("%s needs %s (got %d word%s)", verb, usage, got, plural)
}

// clipQuote quotes text for an error message, which stays under 1,000 bytes whatever
// the text is.
func clipQuote(text string) string {
	q := strconv.QuoteToASCII(text[:min(len(text), 301)])
	if len(q) > 300 {
		q = q[:296] + `..."`
	}
	return q
}

// display is a value as answers show it: as it is, or quoted when a character in it
// would not print.
func display(value string) string {
	for _, c := range value[plain(value):] { // chapter 12
		if !strconv.IsPrint(c) {
			return strconv.Quote(value)
		}
	}
	return value
}

// quoteFound is a value inside an error message, which is always quoted there.
func quoteFound(value string) string {
	if len(value) <= 300 {
		if q := strconv.Quote(value); len(q) <= 300 {
			return q
		}
	}
	return clipQuote(value)
}

// ---- 9. Exactly once (§8) ------------------------------------------------------
//
// A client that gets no answer cannot know whether its command was lost or only the
// answer, so it must ask again, and its command must not be carried out twice.
//
//	SE1  every write carries its client and serial; a repeat of one that is in the
//	     leader's log and not applied yet is not appended again (§8)
//	SE2  a serial that was applied gets the stored answer and changes nothing (§8);
//	     only the newest answer is kept, so an older serial is not answered at all
//	SE3  sessions are state machine state: serial 1 opens one, the least recently used
//	     of too many goes, in log order, never by a local clock (thesis 6.3)
//	SE4  a serial above 1 without a session is refused, since nobody knows any more
//	     whether it was carried out (thesis 6.3); serial 1 always passes for new
//
// What is carried out is decided when an entry is applied, so it is the same everywhere;
// the leader's look before it appends only saves an entry.

// maxSessions is the window of exactly-once, in clients.
const maxSessions = 10_000

// session is what the state machine remembers of a client.
type session struct {
	client string
	serial int
	answer answer
}

// apply applies one committed entry. It returns ok=false where there is no answer to
// give: an empty entry (D3), or a serial older than the newest [SE2].
func (m *machine) apply(e *entry) (a answer, ok bool) {
	if e.Client == "" {
		return answer{}, false
	}
	element := m.sessions[e.Client]
	if element == nil {
		if e.Serial > 1 { // [SE4]
			return answer{err: fmt.Sprintf("no session for client %s: "+
				"it was forgotten, and with it what became of serial %d; "+
				"begin again with serial 1, under a new name", e.Client, e.Serial)}, true
		}
		element = m.recent.PushBack(&session{client: e.Client})
		m.sessions[e.Client] = element
		if m.recent.Len() > maxSessions { // [SE3]
			delete(m.sessions, m.recent.Remove(m.recent.Front()).(*session).client)
		}
	}
	m.recent.MoveToBack(element)
	s := element.Value.(*session)
	if e.Serial <= s.serial { // [SE2]
		return s.answer, e.Serial == s.serial
	}
	s.serial, s.answer = e.Serial, m.execute(e.Command)
	return s.answer, true
}

// waiter is a write that is in the leader's log and not yet applied.
type waiter struct {
	serial int
	to     netip.AddrPort // the zero address: nobody has asked this leader yet
}

// answeredRepeat deals with a write that was seen before, and tells whether it was.
func (s *server) answeredRepeat(r *request) bool {
	if s.waiting == nil {
		s.awaitUnapplied()
	}
	if w, ok := s.waiting[r.Client]; ok && r.Serial <= w.serial { // [SE1]
		s.count("SE1")
		if r.Serial == w.serial {
			s.await(r)
		}
		return true
	}
	if element := s.machine.sessions[r.Client]; element != nil {
		done := element.Value.(*session)
		if r.Serial == done.serial { // [SE2]
			s.tell(2, "SE2", "client %s repeats serial %d, the stored answer", r.Client, r.Serial)
			s.answer(r, done.answer)
		}
		return r.Serial <= done.serial
	}
	return false
}

// await remembers whom to answer when the entry just appended is applied.
func (s *server) await(r *request) { s.waiting[r.Client] = waiter{r.Serial, r.to} }

// awaitUnapplied looks for what earlier leaders left in the log and is not applied yet: it
// must not be appended a second time. A reign's first write calls it, and not the election,
// which should be quick.
func (s *server) awaitUnapplied() {
	s.waiting = map[string]waiter{}
	for index := s.lastApplied + 1; index <= s.lastIndex(); index++ {
		if e := s.log.at(index); e.Client != "" {
			s.waiting[e.Client] = waiter{serial: e.Serial}
		}
	}
}

// answerWaiting answers the client of an entry that was just applied. It goes by
// client and serial, not by index: another leader's entry may stand there by now.
func (s *server) answerWaiting(e *entry, a answer, ok bool) {
	w, waits := s.waiting[e.Client]
	if !waits || w.serial != e.Serial {
		return
	}
	delete(s.waiting, e.Client)
	if ok && w.to.IsValid() {
		s.out.Reply = append(s.out.Reply,
			reply{to: w.to, client: e.Client, serial: e.Serial, answer: a})
	}
}

// held is a request that waits for the end of an election.
type held struct {
	*request
	until int // tick
}

// maxHeld bounds them; whoever finds no room is redirected at once, to nobody.
const maxHeld = 4096

// redirect sends a client to the leader. While there seems to be none, the request waits a
// little for the end of the election: asking around would not be faster. A redirect appends
// nothing; an earlier sending of the same request may still be committed.
func (s *server) redirect(r *request) {
	if s.leaderless() && len(s.held) < maxHeld {
		s.held = append(s.held, held{r, s.now + electionTicksMin})
		return
	}
	s.out.Reply = append(s.out.Reply, reply{to: r.to, client: r.Client, serial: r.Serial,
		answer: answer{err: errNotLeader}, leader: s.leaderID})
}

// leaderless tells whether a heartbeat is overdue.
func (s *server) leaderless() bool {
	return s.role != leader && (s.leaderID == none || s.now-s.heardLeader > heartbeatTicks)
}

// serveHeld serves the requests that waited, as the leader or by sending them there, or
// tells those who have waited long enough that no leader is known.
func (s *server) serveHeld() {
	if s.leaderless() {
		n := 0
		for n < len(s.held) && s.now >= s.held[n].until {
			r := s.held[n]
			s.answer(r.request, answer{err: errNotLeader})
			n++
		}
		s.held = s.held[n:]
		return
	}
	for _, r := range s.held {
		s.submit(r.request)
	}
	s.held = nil
}

// endReign forgets who waits. They get no answer: their commands may yet be applied, under
// another leader, and they will ask again.
func (s *server) endReign() { s.waiting, s.reads = nil, nil }

// ---- 10. Linearizable reads (§8; thesis 6.4) -------------------------------------
//
// A read could go through the log like a write. It need not: it is enough to know that
// this server is still the leader, and to answer from a state that is new enough.
//
//	RD1  no read is answered before the leader has committed an entry of its own term:
//	     only then does it know what is committed (§8)
//	RD2  a read notes the commitIndex at its arrival: what was committed before is seen
//	RD3  a majority answers an AppendEntries that was sent after the read arrived, so no
//	     newer leader had been elected when it did; many reads share a round
//	RD4  it is answered once lastApplied has reached what it noted

// read is a get that waits.
type read struct {
	*request
	index int // lastApplied must reach this [RD1] [RD2]
	after int // a majority must answer an AppendEntries numbered higher [RD3]
	since int // tick of its arrival
}

// readPatience is how long an isolated leader keeps reads, in ticks. A client that got
// no answer asks again, so forgetting one does no harm.
const readPatience = 4 * electionTicksMax

func (s *server) read(r *request) {
	// [RD1] [RD2] The first entry of this term lies at or below commitIndex once it is
	// committed; until then the read waits for it.
	index := max(s.commitIndex, s.firstIndexOf(s.currentTerm))
	if s.count("RD2"); index > s.commitIndex {
		s.count("RD1")
	}
	s.reads = append(s.reads, read{r, index, s.seq, s.now})
}

// serveReads answers the reads that may be answered, and asks the others: am I still the
// leader?
func (s *server) serveReads() {
	if s.role != leader || len(s.reads) == 0 {
		return
	}
	confirmed, n := s.confirmed(), 0
	for ; n < len(s.reads); n++ {
		r := s.reads[n]
		if s.now-r.since > readPatience {
			continue
		}
		if r.after >= confirmed || r.index > s.lastApplied { // [RD3] [RD4]
			break
		}
		op, _ := parseOperation(r.Command)
		s.tell(2, "RD4", "client %s: read at %d, no entry needed", r.Client, s.lastApplied)
		s.answer(r.request, answer{result: s.machine.get(op.key)})
	}
	s.reads = s.reads[n:]
	// One round at a time: reads that arrive meanwhile share the next one.
	if len(s.reads) > 0 && s.reads[0].after >= confirmed && s.asked < confirmed {
		s.count("RD3")
		s.asked = s.seq
		for _, p := range s.peers {
			s.sendAppendEntries(p)
		}
	}
}

// confirmed is the highest AppendEntries number such that a majority has answered that
// or a later one. This server needs no answer from itself.
func (s *server) confirmed() int {
	return s.majorityHas(math.MaxInt, func(p int) int { return s.progress[p].heard })
}

// =============================================================================
// PART III. THE MACHINE
// =============================================================================

// ---- 11. Disk ------------------------------------------------------------------
//
// One append-only text file a server, one record a line: eight hexadecimal digits of
// CRC-32 over the JSON, a blank, the JSON. No record is ever rewritten, so cat shows a
// server's whole life, and a crash can only hurt the end. A file in steady use ends in
// blanks, room for the next records (flush).
//
//	DK1  the first record names the format and the server
//	DK2  an entry's record replaces every earlier entry at its index and above
//	DK3  a torn tail, the last write cut anywhere, is cut off: nobody was told of it
//	DK4  damage before an intact record may be more than a crash: the server may have
//	     promised what is lost, and refuses to start
//	DK5  a failed write or fsync stops the server: the kernel may have dropped the
//	     page, and a second fsync would lie about it

const diskFormat = "raft.go 1"

// hardState is currentTerm and votedFor, one record (Figure 2, persistent state).
type hardState struct {
	Term     int `json:"term"`
	VotedFor int `json:"votedFor"`
}

// record is one line of the file: hard state, or the entry at index.
type record struct {
	hard  *hardState
	index int
	entry entry
}

// diskRecord is how encoding/json reads a line, whichever kind it is.
type diskRecord struct {
	Format   string `json:"format"`
	Server   int    `json:"server"`
	VotedFor *int   `json:"votedFor"`
	Index    int    `json:"index"`
	entry
}

// appendRecord appends the line of r to b.
func appendRecord(b []byte, r record) []byte {
	if r.hard != nil {
		return appendLine(b, fmt.Appendf(nil, `{"term":%d,"votedFor":%d}`,
			r.hard.Term, r.hard.VotedFor))
	}
	start := len(b)
	b = append(b, "00000000 {\"index\":"...)
	b = strconv.AppendInt(b, int64(r.index), 10)
	b = append(b, ',')
	b = r.entry.appendFields(b)
	sealLine(b[start:])
	return append(b, '\n')
}

func appendLine(b, json []byte) []byte {
	start := len(b)
	b = append(b, "00000000 "...)
	b = append(b, json...)
	sealLine(b[start:])
	return append(b, '\n')
}

// header is the first line of server id's file [DK1].
func header(id int) []byte {
	return appendLine(nil, fmt.Appendf(nil, `{"format":%q,"server":%d}`, diskFormat, id))
}

// sealLine writes the checksum of a line into its first eight bytes.
func sealLine(line []byte) {
	sum := checksum(line[9:])
	copy(line, sum[:])
}

// checksum is the CRC-32 of data, in hexadecimal digits.
func checksum(data []byte) (digits [8]byte) {
	sum := crc32.ChecksumIEEE(data)
	for i := 7; i >= 0; i-- {
		digits[i] = "0123456789abcdef"[sum&15]
		sum >>= 4
	}
	return digits
}

// unsealLine returns the JSON of a line without its newline, or nil if the checksum is
// not that of the rest.
func unsealLine(line []byte) []byte {
	if len(line) < 10 || line[8] != ' ' || checksum(line[9:]) != [8]byte(line[:8]) {
		return nil
	}
	return line[9:]
}

// replay reads what server id wrote: its persistent state, and how many bytes of data
// are good. Bytes behind those are blanks, or a torn tail [DK3]. The error names a line.
func replay(data []byte, id int) (hard hardState, log []entry, good int, err error) {
	log = make([]entry, 0, bytes.Count(data, []byte{'\n'})) // there may be a million
	for line := 1; good < len(data); line++ {
		end := bytes.IndexByte(data[good:], '\n')
		var text []byte
		if end >= 0 {
			text = unsealLine(data[good : good+end])
		}
		if text == nil {
			if line == 1 && !bytes.HasPrefix(header(id), trimRoom(data)) { // [DK1]
				return hard, log, 0, errors.New("line 1: this is no file of this program, " +
					"or its first line is damaged")
			}
			if holdsRecord(data[good:]) { // [DK4]
				err = fmt.Errorf("line %d: damaged, but intact records follow; "+
					"this server may have promised what is lost, "+
					"so do not start it with this file", line)
			}
			return hard, log, good, err
		}
		if err = replayRecord(string(text), line, id, &hard, &log); err != nil {
			return hard, log, good, fmt.Errorf("line %d: %w", line, err)
		}
		good += end + 1
	}
	return hard, log, good, nil
}

// replayRecord carries one record out, or says why it does not fit behind the others.
func replayRecord(text string, line, id int, hard *hardState, log *[]entry) error {
	r, ok := readEntryRecord(text)
	if !ok {
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return fmt.Errorf("no record: %w", err)
		}
	}
	switch {
	case line == 1 && r.Format != diskFormat: // [DK1]
		return fmt.Errorf("the format is %q, this program writes %q", r.Format, diskFormat)
	case line == 1 && r.Server != id:
		return fmt.Errorf("this is the file of server %d, not of server %d", r.Server, id)
	case line == 1:
	case r.Index > 0:
		return replayEntry(r, hard.Term, log)
	case r.VotedFor == nil:
		return errors.New("neither hard state nor an entry")
	case r.Term < hard.Term:
		return fmt.Errorf("the term falls from %d to %d", hard.Term, r.Term)
	case r.Term == hard.Term && hard.VotedFor != none && *r.VotedFor != hard.VotedFor:
		return fmt.Errorf("the vote in term %d changes from S%d to S%d",
			r.Term, hard.VotedFor, *r.VotedFor)
	default:
		*hard = hardState{r.Term, *r.VotedFor}
	}
	return nil
}

// readEntryRecord reads an entry as appendRecord writes it, quickly: a server that starts
// may have a million of them. ok is false for what encoding/json must read.
func readEntryRecord(text string) (r diskRecord, ok bool) {
	m := mirror{rest: text}
	r.Index = m.number(`{"index":`)
	m.must(",")
	if !m.failed {
		r.entry = m.fields() // chapter 12
	}
	if m.failed || m.rest != "" {
		return diskRecord{}, false
	}
	return r, true
}

func replayEntry(r diskRecord, currentTerm int, log *[]entry) error {
	if r.Index > len(*log)+1 {
		return fmt.Errorf("entry %d follows entry %d, there is a gap", r.Index, len(*log))
	}
	before := 1
	if r.Index > 1 {
		before = (*log)[r.Index-2].Term
	}
	if r.Term < before || r.Term > currentTerm {
		return fmt.Errorf("entry %d has term %d, outside %d to %d",
			r.Index, r.Term, before, currentTerm)
	}
	*log = append((*log)[:r.Index-1], r.entry) // [DK2]
	return nil
}

// holdsRecord tells whether an intact record begins anywhere in data, be it in the
// middle of a line, as when the newline before it is what was damaged. A record at the
// very end that lacks only its newline is a torn one.
func holdsRecord(data []byte) bool {
	data = trimRoom(data)
	for at := 0; ; at++ {
		// Inside a JSON string the quote would be escaped.
		brace := bytes.Index(data[at:], []byte(`{"`))
		if brace < 0 {
			return false
		}
		at += brace
		if at < 9 || data[at-1] != ' ' ||
			strings.Trim(string(data[at-9:at-1]), "0123456789abcdef") != "" {
			continue
		}
		// A record's JSON holds no raw newline, so it ends where a JSON value ends.
		decoder := json.NewDecoder(bytes.NewReader(data[at:]))
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			continue
		}
		end := at + int(decoder.InputOffset())
		if end < len(data) && unsealLine(data[at-9:end]) != nil {
			return true
		}
	}
}

// trimRoom takes off what may stand behind the last record: the blanks of flush, and the
// zeros of a file system that made the file longer before it wrote the blocks.
func trimRoom(data []byte) []byte { return bytes.TrimRight(data, " \x00") }

// disk is a server's file.
type disk struct {
	file  *os.File
	end   int64 // behind the last record
	size  int64 // of the file; between end and size it is blank
	idle  int   // ticks since the last write
	buf   []byte
	syncs int // how often it was synced, for status
}

// openDisk opens or creates the file of server id in dir and replays it. The note says
// what was cut off, if anything.
func openDisk(dir string, id int) (d *disk, hard hardState, log []entry, note string, err error) {
	dir = filepath.Clean(dir)
	if err = makeDir(dir); err != nil {
		return
	}
	name := filepath.Join(dir, fmt.Sprintf("server-%d.log", id))
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	data, err := os.ReadFile(name)
	if err != nil {
		return
	}
	hard, log, good, err := replay(data, id)
	if err != nil {
		err = fmt.Errorf("%s %w", name, err)
		return
	}
	if good < len(data) { // [DK3]
		if torn := len(bytes.TrimRight(data[good:], " ")); torn > 0 {
			note = fmt.Sprintf("%s ends in a torn write, %d bytes cut off", name, torn)
		}
		if !endsIn(file, good, data[good:]) {
			err = fmt.Errorf("%s: %w", name, errTwoOwners)
			return
		}
		if err = file.Truncate(int64(good)); err != nil {
			return
		}
	}
	d = &disk{file: file, end: int64(good), size: int64(good)}
	if good == 0 { // a new server [DK1]
		d.buf = header(id)
	}
	// Also when it is not new: whoever wrote this may have died before its own sync.
	err = errors.Join(d.flush(), syncDir(dir))
	return
}

// append writes records and returns when they are on the disk, or an error after which
// nothing is known about the file [DK5].
func (d *disk) append(records []record) error {
	if len(records) == 0 {
		return nil
	}
	d.buf = d.buf[:0]
	for _, r := range records {
		d.buf = appendRecord(d.buf, r)
	}
	return d.flush()
}

// A sync is much quicker where the file does not grow: then only data is written, and not
// the file system's own books. So a file that is no longer small grows ahead of its
// records, by an eighth of its length, in blanks.
const (
	smallFile = 64 << 10  // bytes; up to here a file never holds blanks
	maxAhead  = 256 << 10 // bytes of blanks, at most
	restTicks = 100       // ticks without a write, until the blanks are given back
)

// flush writes buf behind the last record, and returns when it is on the disk.
func (d *disk) flush() error {
	at, end := d.end, d.end+int64(len(d.buf))
	if end > d.size && end > smallFile && d.idle < restTicks {
		d.buf = append(d.buf, bytes.Repeat([]byte{' '}, int(min(end/8, maxAhead)))...)
	}
	if err := d.checkLength(); err != nil {
		return err
	}
	if _, err := d.file.WriteAt(d.buf, at); err != nil {
		return err
	}
	d.end, d.size, d.idle = end, max(d.size, at+int64(len(d.buf))), 0
	d.syncs++
	return d.file.Sync()
}

// checkLength fails where somebody else has written to the file: a port has one owner, but two
// clusters on different ports may have been given the same folder.
func (d *disk) checkLength() error {
	info, err := d.file.Stat()
	if err == nil && info.Size() != d.size {
		err = errTwoOwners
	}
	return err
}

var errTwoOwners = errors.New("somebody else writes to it, " +
	"perhaps another cluster with the same folder")

// endsIn tells whether a file still ends in tail, from a place on: what looked like blanks when
// a start read it may be another owner's records by now.
func endsIn(file *os.File, at int, tail []byte) bool {
	now, err := io.ReadAll(io.NewSectionReader(file, int64(at), math.MaxInt64-int64(at)))
	return err == nil && bytes.Equal(now, tail)
}

// tick gives the blanks back when nothing was written for a while, so that a file at rest
// is plain text for cat and tail. That may fail; blanks do no harm.
func (d *disk) tick() {
	if d.idle++; d.idle != restTicks || d.size == d.end || d.checkLength() != nil {
		return
	}
	if d.file.Truncate(d.end) == nil {
		d.size = d.end
	}
}

// makeDir makes a folder, where it is missing, and those above it, and their names durable.
func makeDir(dir string) error {
	above := filepath.Dir(dir)
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrNotExist) && above != dir {
		err = errors.Join(makeDir(above), os.Mkdir(dir, 0o755))
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if synced := syncDir(above); err == nil || !errors.Is(synced, os.ErrPermission) {
		return synced
	}
	return nil // it was there, in a folder that is not ours to open
}

// syncDir makes the names in a folder durable. Windows cannot, and need not.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ---- 12. Network ----------------------------------------------------------------
//
// One JSON object a datagram. What is not exactly such an object, or not from the
// address that its sender has in our list, is dropped and counted; nothing else happens.
// The hot datagrams (a client's request and its answer, AppendEntries and its answer) are
// written and read by hand, because encoding/json would be half of the work; a fuzz test
// holds both to its reading.

// datagram is anything that travels: a Message between servers, or one of the others.
type datagram struct {
	Message
	ClientRequest *request      `json:"clientRequest,omitempty"`
	ClientReply   *clientReply  `json:"clientReply,omitempty"`
	Console       *consoleLine  `json:"console,omitempty"`
	ConsoleReply  *consoleReply `json:"consoleReply,omitempty"`
}

// clientReply is a reply on the wire: a result or an error.
type clientReply struct {
	Client  string  `json:"client"`
	Serial  int     `json:"serial"`
	Result  *string `json:"result,omitempty"`
	Error   string  `json:"error,omitempty"`
	Leader  int     `json:"leader,omitempty"` // with errNotLeader, if known,
	Address string  `json:"address,omitempty"`
}

// appendFields appends e in JSON, without the opening brace.
func (e *entry) appendFields(b []byte) []byte {
	b = append(b, `"term":`...)
	b = strconv.AppendInt(b, int64(e.Term), 10)
	if e.Client != "" {
		b = append(b, `,"client":`...)
		b = appendJSON(b, e.Client)
		b = append(b, `,"serial":`...)
		b = strconv.AppendInt(b, int64(e.Serial), 10)
		b = append(b, `,"command":`...)
		b = appendJSON(b, e.Command)
	}
	return append(b, '}')
}

// size is how many bytes e takes in an AppendEntries, at most.
func (e *entry) size() int {
	return len(`{"term":,"client":,"serial":,"command":},`) + 2*20 +
		jsonSize(e.Client) + jsonSize(e.Command)
}

// appendJSON appends s as a JSON string.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for {
		n := plain(s)
		b = append(b, s[:n]...)
		if n == len(s) {
			return append(b, '"')
		}
		switch c := s[n]; {
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', '0'+c>>4, "0123456789abcdef"[c&15])
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
		s = s[n+1:]
	}
}

// jsonSize is the length of what appendJSON appends.
func jsonSize(s string) int {
	size := len(s) + 2
	for i := plain(s); i < len(s); i += 1 + plain(s[i+1:]) {
		if c := s[i]; c < ' ' {
			size += 5
		} else if c == '"' || c == '\\' {
			size++
		}
	}
	return size
}

// plain counts the bytes at the start of s that stand in JSON, and on a screen, as they are:
// printable ASCII but for the quote and the backslash. Values may be long, and this looks at
// every byte several times on its way, so it takes eight at once: each line of the condition
// sets the highest bit of the bytes that are what its remark says (and by a carry perhaps of
// the next one, where that changes nothing any more).
func plain(s string) (n int) {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; n+8 <= len(s); n += 8 {
		x := uint64(s[n]) | uint64(s[n+1])<<8 | uint64(s[n+2])<<16 | uint64(s[n+3])<<24 |
			uint64(s[n+4])<<32 | uint64(s[n+5])<<40 | uint64(s[n+6])<<48 | uint64(s[n+7])<<56
		if (x|(x+ones)| // above '~'
			(x-' '*ones)| // below ' '
			((x^'"'*ones)-ones)| // equal, so 0 minus 1
			((x^'\\'*ones)-ones))&high != 0 {
			break
		}
	}
	for n < len(s) && ' ' <= s[n] && s[n] <= '~' && s[n] != '"' && s[n] != '\\' {
		n++
	}
	return n
}

// appendMessage appends the datagram of m.
func appendMessage(b []byte, m *Message) []byte {
	ae, r := m.AppendEntries, m.AppendEntriesReply
	if ae == nil && (r == nil || !r.Success) {
		return appendAny(b, m)
	}
	b = fmt.Appendf(b, `{"from":%d,"to":%d,"term":%d,"at":%d,`, m.From, m.To, m.Term, m.At)
	if r != nil {
		return fmt.Appendf(b, `"appendEntriesReply":{"success":true,"matchIndex":%d,"seq":%d}}`+"\n",
			r.MatchIndex, r.Seq)
	}
	b = fmt.Appendf(b, `"appendEntries":{"leaderId":%d,"prevLogIndex":%d,"prevLogTerm":%d,"entries":[`,
		ae.LeaderID, ae.PrevLogIndex, ae.PrevLogTerm)
	for i := range ae.Entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		b = ae.Entries[i].appendFields(b)
	}
	return fmt.Appendf(b, `],"leaderCommit":%d,"seq":%d}}`+"\n", ae.LeaderCommit, ae.Seq)
}

// appendReply appends the datagram of r; address is the leader's, as far as known.
func appendReply(b []byte, r *reply, address string) []byte {
	b = append(b, `{"clientReply":{"client":`...)
	b = appendJSON(b, r.client)
	b = append(b, `,"serial":`...)
	b = strconv.AppendInt(b, int64(r.serial), 10)
	if r.err == "" {
		b = append(b, `,"result":`...)
		b = appendJSON(b, r.result)
	} else {
		b = append(b, `,"error":`...)
		b = appendJSON(b, r.err)
	}
	if address != "" {
		b = fmt.Appendf(b, `,"leader":%d,"address":%q`, r.leader, address)
	}
	return append(b, "}}\n"...)
}

// appendAny appends a datagram that is not worth writing by hand.
func appendAny(b []byte, v any) []byte {
	out := bytes.NewBuffer(b)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false) // it would make six bytes of one "<", and a datagram is small
	must(encoder.Encode(v) == nil, "what we send can be written as JSON")
	return out.Bytes()
}

// mirror reads what the writers above have written, and nothing else: the same parts in
// the same order, plain characters only. What it cannot read, encoding/json can.
type mirror struct {
	rest   string
	failed bool
}

// literal takes exactly text, if it comes next.
func (r *mirror) literal(text string) bool {
	rest, ok := strings.CutPrefix(r.rest, text)
	if ok {
		r.rest = rest
	}
	return ok
}

// must takes exactly text.
func (r *mirror) must(text string) {
	if !r.literal(text) {
		r.failed = true
	}
}

// number takes a number of at most 18 digits.
func (r *mirror) number(before string) (n int) {
	r.must(before)
	i := 0
	for i < len(r.rest) && i <= 18 && '0' <= r.rest[i] && r.rest[i] <= '9' {
		n = 10*n + int(r.rest[i]-'0')
		i++
	}
	if i == 0 || i > 18 || i > 1 && r.rest[0] == '0' {
		r.failed = true
	}
	r.rest = r.rest[i:]
	return n
}

// text takes a string without escapes. It shares the memory of the datagram.
func (r *mirror) text(before string) (s string) {
	r.must(before)
	r.must(`"`)
	n := plain(r.rest)
	s, r.rest = r.rest[:n], r.rest[n:]
	r.must(`"`)
	return s
}

// fields takes what appendFields appends.
func (r *mirror) fields() (e entry) {
	e.Term = r.number(`"term":`)
	if r.literal(`,"client":`) {
		e.Client = r.text("")
		e.Serial = r.number(`,"serial":`)
		e.Command = r.text(`,"command":`)
	}
	r.must("}")
	return e
}

// readRequest reads a client's request, the datagram that comes by the ten thousand a
// second, or nothing.
func readRequest(data string) *request {
	r := mirror{rest: data}
	q := &request{Client: r.text(`{"clientRequest":{"client":`),
		Serial: r.number(`,"serial":`), Command: r.text(`,"command":`)}
	return ifWhole(&r, q)
}

// readMessage reads an AppendEntries, which may hold hundreds of entries, or the answer to
// one that was accepted, or nothing.
func readMessage(data string) *Message {
	r := mirror{rest: data}
	m := &Message{From: r.number(`{"from":`), To: r.number(`,"to":`),
		Term: r.number(`,"term":`), At: r.number(`,"at":`)}
	switch {
	case r.literal(`,"appendEntries":`):
		m.AppendEntries = r.appendEntries()
	case r.literal(`,"appendEntriesReply":{"success":true`):
		m.AppendEntriesReply = &appendEntriesReply{Success: true,
			MatchIndex: r.number(`,"matchIndex":`), Seq: r.number(`,"seq":`)}
	default:
		return nil
	}
	return ifWhole(&r, m)
}

func (r *mirror) appendEntries() *appendEntries {
	ae := &appendEntries{LeaderID: r.number(`{"leaderId":`),
		PrevLogIndex: r.number(`,"prevLogIndex":`), PrevLogTerm: r.number(`,"prevLogTerm":`)}
	r.must(`,"entries":[`)
	ae.Entries = make([]entry, 0, len(r.rest)/100)
	for more := r.literal("{"); more && !r.failed; more = r.literal(",{") {
		ae.Entries = append(ae.Entries, r.fields())
	}
	ae.LeaderCommit, ae.Seq = r.number(`],"leaderCommit":`), r.number(`,"seq":`)
	return ae
}

// ifWhole is v if the datagram ends here, and nil if it was not what the reader expected.
func ifWhole[T any](r *mirror, v *T) *T {
	r.must("}}")
	r.literal("\n")
	if r.failed || r.rest != "" {
		return nil
	}
	return v
}

// readJSON reads any datagram, or says why it is none.
func readJSON(data []byte, fromServer bool) (d *datagram, drop string) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := checkForm(decoder, "datagram", fromServer); err != nil {
		return nil, "not one of our JSON objects: " + err.Error()
	}
	if len(bytes.TrimLeft(data[decoder.InputOffset():], " \t\r\n")) > 0 {
		return nil, "more than one JSON object"
	}
	d = &datagram{}
	if err := json.Unmarshal(data, d); err != nil {
		return nil, "not one of our JSON objects: " + err.Error()
	}
	return d, ""
}

// formOf lists the names in each kind of object, with a question mark behind those that
// may be missing. Only a server's datagram may hold a server's message.
func formOf(object string, fromServer bool) string {
	switch object {
	case "datagram":
		if !fromServer {
			return "clientRequest? console?"
		}
		return "clientRequest? console? from? to? term? at? " +
			"requestVote? requestVoteReply? appendEntries? appendEntriesReply?"
	case "requestVote":
		return "candidateId lastLogIndex lastLogTerm"
	case "requestVoteReply":
		return "voteGranted"
	case "appendEntries":
		return "leaderId prevLogIndex prevLogTerm entries leaderCommit seq?"
	case "entry":
		return "term client? serial? command?"
	case "appendEntriesReply":
		return "success matchIndex seq? prevLogIndex? conflictTerm? conflictIndex?"
	case "clientRequest":
		return "client serial command"
	case "console":
		return "id line"
	}
	return "" // no object
}

// checkForm reads one value and fails at the first thing that is not in our form.
// encoding/json alone is too kind: it takes a name in any case, twice or not at all, and
// null for anything.
func checkForm(d *json.Decoder, name string, fromServer bool) error {
	token, err := d.Token()
	form := formOf(name, fromServer)
	switch {
	case err != nil:
		return err
	case name == "entries" && token == json.Delim('['):
		for d.More() {
			if err := checkForm(d, "entry", fromServer); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	case form != "" && token == json.Delim('{'):
		return checkNames(d, strings.Fields(form), fromServer)
	}
	if token == nil {
		return fmt.Errorf("null for %s", name)
	}
	if _, bracket := token.(json.Delim); bracket || form != "" || name == "entries" {
		return fmt.Errorf("%v is no %s", token, name)
	}
	return nil
}

// checkNames reads the rest of an object that holds these names.
func checkNames(d *json.Decoder, names []string, fromServer bool) error {
	missing := slices.Clone(names)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		i := slices.IndexFunc(missing, func(m string) bool {
			return strings.TrimSuffix(m, "?") == name
		})
		if i < 0 {
			return fmt.Errorf("what is %s here, or here again?", clipQuote(name))
		}
		missing = slices.Delete(missing, i, i+1)
		if err := checkForm(d, name, fromServer); err != nil {
			return err
		}
	}
	for _, name := range missing {
		if !strings.HasSuffix(name, "?") {
			return fmt.Errorf("no %s", name)
		}
	}
	_, err := d.Token() // the closing bracket
	return err
}

// decode reads a datagram that came from an address. It returns what the loop takes as
// an input, or a reason to drop it. addresses are the servers', by id; self is ours.
func decode(data []byte, from netip.AddrPort, self int,
	addresses map[int]netip.AddrPort) (in any, drop string) {

	text := string(data) // what is read shares its memory
	if r := readRequest(text); r != nil {
		return checkRequest(r, data, from)
	}
	if m := readMessage(text); m != nil {
		return checkMessage(m, data, from, self, addresses)
	}
	d, drop := readJSON(data, isServer(from, addresses))
	switch {
	case drop != "":
		return nil, drop
	case d.bodies() != 1:
		return nil, "not exactly one body"
	case (d.ClientRequest != nil || d.Console != nil) && d.Message != Message{}:
		return nil, "a client, but it says what only servers say"
	case d.ClientRequest != nil:
		return checkRequest(d.ClientRequest, data, from)
	case d.Console != nil && !from.Addr().IsLoopback():
		return nil, "a console command from another machine"
	case d.Console != nil:
		d.Console.from = from
		return d.Console, ""
	}
	return checkMessage(&d.Message, data, from, self, addresses)
}

// checkRequest is the part of a request's form that decides whether it is answered at all.
func checkRequest(r *request, data []byte, from netip.AddrPort) (in any, drop string) {
	if !validClient(r.Client) || r.Serial < 1 {
		return nil, "a client request out of range"
	}
	if !utf8.Valid(data) || replaced(r.Command, data) {
		r.Command = "\xff" // chapter 8 refuses it
	}
	r.to = from
	return r, ""
}

func isServer(address netip.AddrPort, addresses map[int]netip.AddrPort) bool {
	for _, a := range addresses {
		if a == address {
			return true
		}
	}
	return false
}

// bodies counts what a server may be sent.
func (d *datagram) bodies() (n int) {
	for _, is := range []bool{d.RequestVote != nil, d.RequestVoteReply != nil,
		d.AppendEntries != nil, d.AppendEntriesReply != nil,
		d.ClientRequest != nil, d.Console != nil} {
		if is {
			n++
		}
	}
	return n
}

// replaced tells whether encoding/json has put U+FFFD where the sender had something that
// is no character, such as half a surrogate pair.
func replaced(command string, data []byte) bool {
	n := strings.Count(command, "\ufffd")
	if n == 0 {
		return false
	}
	// An escaped backslash begins no escape.
	data = bytes.ReplaceAll(bytes.ToLower(data), []byte(`\\`), nil)
	return n > bytes.Count(data, []byte("\ufffd"))+bytes.Count(data, []byte(`\ufffd`))
}

// validClient: see request.
func validClient(client string) bool {
	for i := 0; i < len(client); i++ {
		if client[i] <= ' ' || client[i] > '~' {
			return false
		}
	}
	return len(client) >= 1 && len(client) <= maxClient
}

// maxNumber bounds every number in a Message, so that no arithmetic on it overflows.
const maxNumber = 1 << 52

// checkMessage holds a Message against what any honest server would send.
func checkMessage(m *Message, data []byte, from netip.AddrPort, self int,
	addresses map[int]netip.AddrPort) (any, string) {

	address, known := addresses[m.From]
	switch {
	case !utf8.Valid(data):
		return nil, "not UTF-8"
	case m.To != self:
		return nil, fmt.Sprintf("for S%d", m.To)
	case !known || m.From == self || address != from:
		return nil, fmt.Sprintf("says S%d, but that is not its address", m.From)
	case m.Term < 1 || m.Term > maxNumber || m.At < 0 || !inRange(m):
		return nil, "a number out of range"
	}
	return m, ""
}

func inRange(m *Message) bool {
	small := func(numbers ...int) bool {
		return slices.Min(numbers) >= 0 && slices.Max(numbers) < maxNumber
	}
	position := func(index, term int) bool {
		return small(index, term) && term <= m.Term && (index == 0) == (term == 0)
	}
	switch {
	case m.RequestVote != nil:
		r := m.RequestVote
		return r.CandidateID == m.From && position(r.LastLogIndex, r.LastLogTerm)
	case m.AppendEntries != nil:
		r := m.AppendEntries
		if r.LeaderID != m.From || !position(r.PrevLogIndex, r.PrevLogTerm) ||
			!small(r.LeaderCommit, r.Seq) || r.Entries == nil {
			return false
		}
		term := max(1, r.PrevLogTerm)
		for i := range r.Entries { // terms never fall along a log, and none is of the future
			e := &r.Entries[i]
			empty := e.Client == "" && e.Serial == 0 && e.Command == ""
			asked := validClient(e.Client) && e.Serial >= 1
			if e.Term < term || e.Term > m.Term || !empty && !asked {
				return false
			}
			term = e.Term
		}
	case m.AppendEntriesReply != nil:
		r := m.AppendEntriesReply
		return small(r.MatchIndex, r.Seq, r.PrevLogIndex, r.ConflictTerm, r.ConflictIndex)
	}
	return true
}

// ---- 13. The loop ---------------------------------------------------------------
//
// One goroutine owns the server and everything around it, so there is no lock around
// either. Two readers, of datagrams and of console lines, only put inputs into its channel.
// The loop takes what is already waiting, steps it all, and performs once: many commands
// share one fsync. A write that finds others on their way waits for them, and is stepped
// after the rest (stepGathered). In between, the loop sleeps until something arrives or is
// due (clock).

// shell is a running server: the algorithm, and the machine around it.
type shell struct {
	server    *server
	dir       string
	disk      *disk
	conn      *net.UDPConn
	addresses map[int]netip.AddrPort // of all servers
	inputs    chan any               // input, *consoleLine or dropped
	clock     clock
	alarm     *time.Timer      // rings when the clock's sleep is over
	gathered  []input          // writes that wait for those before them,
	late      <-chan time.Time // … but not longer than this
	screen    *screen
	dropped   drops
	faults    faults // chapter 16
	leaving   bool
	sent      int // datagrams, for status
	buf       []byte
}

// maxWaiting bounds the inputs that are stepped at once, so that answers do not wait for ever.
const maxWaiting = 4096

// run is the life of a server. A tick in which something is due is acted on after the datagrams
// that arrived before it, or a busy server would depose a leader whose heartbeat waits in its
// queue.
func (sh *shell) run() {
	defer sh.stopOnBrokenInvariant()
	always := make(chan bool)
	close(always)
	var inputs []input
	for {
		var first any      // the input that woke the loop,
		var late bool      // … or the queue has waited long enough
		var work chan bool // nil: sleep until something happens
		if sh.server.behind() && !sh.faults.crashed {
			work = always // there are entries to apply meanwhile
		}
		sh.alarm.Reset(sh.clock.set(time.Now(), sh.sleepTicks())) // until something is due
		select {
		case first = <-sh.inputs:
		case <-sh.alarm.C:
		case <-sh.late:
			late = true
		case <-work:
		}
		inputs = inputs[:0]
		quiet, ticked := sh.clock.passed(time.Now())
		for range quiet { // it slept through them before it was woken
			inputs = sh.tick(inputs)
		}
		if first != nil {
			inputs = sh.take(inputs, first)
		}
		inputs = sh.takeWaiting(inputs)
		if ticked {
			inputs = sh.tick(inputs)
		}
		sh.step(inputs...)
		sh.stepGathered(late)
		sh.reportDrops()
	}
}

// takeWaiting takes what else is in the channel.
func (sh *shell) takeWaiting(inputs []input) []input {
	for len(inputs) < maxWaiting {
		select {
		case in := <-sh.inputs:
			inputs = sh.take(inputs, in)
		default:
			return inputs
		}
	}
	return inputs
}

// take sorts one thing from the channel: what concerns the algorithm waits for the Step,
// the rest is dealt with at once.
func (sh *shell) take(inputs []input, in any) []input {
	switch in := in.(type) {
	case *consoleLine:
		sh.step(inputs...) // what came before; only writes that gather are overtaken
		in.answer(sh, sh.execute(in.Line))
		return inputs[:0]
	case dropped:
		sh.dropped.add(in)
		return inputs
	case *Message:
		if sh.keepsOut(in) {
			return inputs
		}
	case *request: // a write waits while others are on their way
		if sh.server.uncommitted() > 0 && !in.isRead() && !sh.faults.crashed {
			if len(sh.gathered) == 0 {
				sh.late = time.After(gatherFor)
			}
			sh.gathered = append(sh.gathered, in)
			return inputs
		}
	}
	return append(inputs, in)
}

func (sh *shell) tick(inputs []input) []input {
	sh.faults.ticks++
	sh.disk.tick()
	sh.sendDelayed()
	if sh.faults.frozen {
		return inputs
	}
	return append(inputs, tick{})
}

// stepGathered lets the writes in that wait for those before them. While a batch is on its way,
// the next one gathers here, to share one fsync. It goes when it is as large as what is on its
// way: to wait longer would leave the disks idle. If something was lost, it goes after gatherFor.
func (sh *shell) stepGathered(late bool) {
	if len(sh.gathered) > 0 && (late || len(sh.gathered) >= sh.server.uncommitted()) {
		sh.step(sh.gathered...)
		clear(sh.gathered)
		sh.gathered, sh.late = sh.gathered[:0], nil
	}
}

// gatherFor is no number of ticks: in slow motion nobody should wait for minutes.
const gatherFor = 10 * time.Millisecond

// uncommitted counts the entries that a leader has on their way to a majority.
func (s *server) uncommitted() int {
	if s.role != leader {
		return 0
	}
	return s.lastIndex() - s.commitIndex
}

// step is one turn: digest, then perform. A crashed server hears nothing.
func (sh *shell) step(inputs ...input) {
	if !sh.faults.crashed {
		sh.perform(sh.server.Step(inputs...))
	}
	sh.setPrompt()
}

// perform is where the rule Persist can be seen. Whatever a Step returns passes through
// here, so the order of these lines is the proof: what depends on a record leaves after
// the record is on the disk.
func (sh *shell) perform(out Output) {
	sh.screen.narrate(out.Trace)
	for i := range out.Early { // D7: requests of a leader promise nothing about its disk
		sh.send(&out.Early[i])
	}
	err := sh.disk.append(out.Persist) // [Persist]
	if err != nil {                    // [DK5]
		sh.fatal("%s: %v; nothing was answered since. "+
			"See to the disk and the folder, then start this server again", sh.disk.file.Name(), err)
	}
	for i := range out.Send {
		sh.send(&out.Send[i])
	}
	for i := range out.Reply {
		sh.reply(&out.Reply[i])
	}
}

// send sends a Message. An error is the same as a loss, and those are expected.
func (sh *shell) send(m *Message) {
	sh.buf = appendMessage(sh.buf[:0], m)
	for range sh.copies(m) { // one, unless an experiment wants it otherwise
		sh.conn.WriteToUDPAddrPort(sh.buf, sh.addresses[m.To])
		sh.sent++
	}
}

func (sh *shell) reply(r *reply) {
	address := ""
	if r.leader != none {
		address = sh.addresses[r.leader].String()
	}
	sh.buf = appendReply(sh.buf[:0], r, address)
	sh.conn.WriteToUDPAddrPort(sh.buf, r.to)
	sh.sent++
}

// readDatagrams decodes what arrives and puts it into the channel, nothing else.
func (sh *shell) readDatagrams(self int) {
	buf := make([]byte, maxDatagram+1)
	for {
		n, from, err := sh.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			continue // some systems report here that an earlier datagram found nobody
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		in, drop := decode(buf[:n], from, self, sh.addresses)
		if drop != "" {
			in = dropped{from, drop}
		}
		sh.inputs <- in
	}
}

// clock makes ticks out of time. It lets the loop sleep through those in which nothing is
// due: a computer that is woken a hundred times a second for nothing gets no rest.
type clock struct {
	length time.Duration // of a tick
	start  time.Time     // of the tick that is running
	sleep  int           // how many ticks the loop wants to sleep
}

// maxSleep bounds that: a stop shorter than a sleep counts as sleep, and must not look like an
// election timeout. Followers are woken by heartbeats before.
const maxSleep = 2 * heartbeatTicks

// set begins a sleep of so many ticks, and tells how long that is from now. However long the
// loop was busy before, it counts as one tick at most: the heartbeats that came meanwhile
// still wait to be read.
func (c *clock) set(now time.Time, sleep int) time.Duration {
	c.sleep = sleep
	if now.Sub(c.start) > c.length {
		c.start = now.Add(-c.length)
	}
	return c.start.Add(time.Duration(sleep) * c.length).Sub(now)
}

// passed counts the ticks since then: those in which nothing was due, and whether the last
// one has come, in which something may be. Whoever overslept was late, or was stopped, and has
// not read yet what arrived meanwhile: the tick in which something is due is still to come,
// unless it is the only one.
func (c *clock) passed(now time.Time) (quiet int, ticked bool) {
	n := int(now.Sub(c.start) / c.length)
	if n > c.sleep {
		c.start = now
		return max(0, c.sleep-2), true
	}
	c.start = c.start.Add(time.Duration(n) * c.length)
	return min(n, c.sleep-1), n == c.sleep
}

// sleepTicks is how many ticks may pass until something is due, if nothing arrives.
func (sh *shell) sleepTicks() int {
	f := &sh.faults
	switch {
	case len(f.delayed) > 0 || sh.dropped.fresh > 0:
		return 1
	case f.frozen || f.crashed:
		return maxSleep
	}
	return max(1, min(sh.server.due()-sh.server.now, maxSleep))
}

// due is the next tick in which the clock alone may give this server something to do.
func (s *server) due() int {
	due := s.electionDue
	switch {
	case len(s.held) > 0 || len(s.reads) > 0: // chapters 9 and 10 look at each tick
		return s.now + 1
	case s.role == candidate:
		due = min(due, s.askAgainDue)
	case s.role == leader:
		due = math.MaxInt
		for _, p := range s.peers {
			w := s.progress[p]
			if due = min(due, w.due); len(w.flying) > 0 {
				due = min(due, w.flying[0].sent+heartbeatTicks)
			}
		}
	}
	return due
}

// dropped is a datagram that decode refused.
type dropped struct {
	from netip.AddrPort
	why  string
}

// drops counts them. They are narrated once a second at most, so that a flood of
// garbage does not flood the screen.
type drops struct {
	all   int
	fresh int // since the last report
	last  dropped
	told  time.Time // when they were reported
}

func (d *drops) add(in dropped) {
	d.all++
	d.fresh++
	d.last = in
}

func (sh *shell) reportDrops() {
	d := &sh.dropped
	if d.fresh == 0 || time.Since(d.told) < time.Second {
		return
	}
	sh.tellFault(1, "", fmt.Sprintf("dropped %d: %s, from %v", d.fresh, d.last.why, d.last.from))
	d.fresh, d.told = 0, time.Now()
}

// fatal ends the process with one line: the third kind of errors.
func fatal(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "error: "+format+"\n", args...)
	os.Exit(1)
}

// fatal is the same, below what the screen still has to show.
func (sh *shell) fatal(format string, args ...any) {
	sh.screen.end()
	sh.screen.flush()
	fatal(format, args...)
}

func (sh *shell) stopOnBrokenInvariant() {
	switch r := recover().(type) {
	case nil:
	case brokenInvariant:
		sh.fatal("broken invariant: %s; this is a bug or a forged message, "+
			"and the server stops before it spreads", string(r))
	default:
		panic(r)
	}
}

// =============================================================================
// PART IV. THE LABORATORY
// =============================================================================

// ---- 14. Narration ---------------------------------------------------------------
//
// One line for each rule that fires, with its tag, in fixed columns:
//
//	lamport server role term @tick arrow text [Tag]
//
// Every message carries its sender's Lamport number, so sort -n over the narration of all
// servers is one causal story. Level 1 tells of roles, terms, commits, refusals, faults
// and the disk; 2 also of messages; 3 also of idle heartbeats.

// voice is what a server needs to narrate. It changes nothing but Output.Trace.
type voice struct {
	watch   int            // level, 0 to 3
	color   bool           // paint the lines, one color a server
	lamport int            // rises with every line and message
	fired   map[string]int // how often each rule did
}

// maxWidth is where a line is cut off.
const maxWidth = 100

// count notes that a rule fired where a line about it would be too much.
func (s *server) count(tag string) { s.fired[tag]++ }

// tell counts a rule that fired and narrates it.
func (s *server) tell(level int, tag, format string, args ...any) {
	s.count(tag)
	s.say(level, tag, format, args...)
}

// say narrates something that happened here.
func (s *server) say(level int, tag, format string, args ...any) {
	if level > s.watch {
		return
	}
	s.lamport++
	s.write(s.lamport, "", fmt.Sprintf(format, args...), tag)
}

// tellSent narrates a message that send will stamp next.
func (s *server) tellSent(level int, tag string, to int, format string, args ...any) {
	if level <= s.watch {
		s.write(s.lamport+1, fmt.Sprintf("->S%d", to), fmt.Sprintf(format, args...), tag)
	}
}

// tellVote says why a vote was granted or refused.
func (s *server) tellVote(to, term int, rv *requestVote, granted bool) {
	tag, why, last := "RV2", "", ref{rv.LastLogIndex, rv.LastLogTerm}
	switch {
	case granted:
		why = fmt.Sprintf("%v is no older than my %v", last, s.lastRef())
	case term < s.currentTerm:
		tag, why = "RV1", fmt.Sprintf("t%d is over, this is t%d", term, s.currentTerm)
	case s.votedFor != none && s.votedFor != rv.CandidateID:
		why = fmt.Sprintf("my vote in t%d is S%d's", term, s.votedFor)
	default:
		why = fmt.Sprintf("my last %v is newer than %v", s.lastRef(), last)
	}
	s.count(tag)
	if granted {
		s.tellSent(2, tag, to, "VoteReply granted: %s", why)
	} else {
		s.tellSent(1, tag, to, "VoteReply refused: %s", why)
	}
}

func (s *server) tellAppend(to int, ae *appendEntries) {
	if len(ae.Entries) == 0 {
		s.count("Lead1")
		s.tellSent(3, "Lead1", to, "AppendEntries prev=%v [] commit=%d",
			ref{ae.PrevLogIndex, ae.PrevLogTerm}, ae.LeaderCommit)
		return
	}
	s.count("Lead3")
	s.tellSent(2, "Lead3", to, "AppendEntries prev=%v [%v] commit=%d",
		ref{ae.PrevLogIndex, ae.PrevLogTerm}, carried{ae}, ae.LeaderCommit)
}

func (s *server) tellAppended(to, n, match int) {
	s.count("Fol1")
	if n == 0 {
		s.tellSent(3, "Fol1", to, "AppendReply ok match=%d", match)
	} else {
		s.tellSent(2, "AE4", to, "AppendReply ok match=%d", match)
	}
}

func (s *server) tellCommand(r *request) {
	if s.count("Lead2"); s.watch >= 2 {
		s.say(2, "Lead2", "client %s: append %v, answer after applying",
			r.Client, ref{s.lastIndex() + 1, s.currentTerm})
	}
}

// stamp is the Lamport number of the message that is being sent.
func (s *server) stamp() int {
	s.lamport++
	return s.lamport
}

// hear narrates a message that came in.
func (s *server) hear(m *Message) {
	s.merge(m.At)
	s.lamport++
	if s.watch < 2 || s.watch == 2 && s.idle(m) {
		return
	}
	tag := "Fol1"
	switch {
	case m.RequestVoteReply != nil:
		tag = "Cand2"
	case m.AppendEntriesReply != nil && m.AppendEntriesReply.Success:
		tag = "Lead3a"
	case m.AppendEntriesReply != nil:
		tag = "Lead3b"
	}
	s.write(s.lamport, fmt.Sprintf("<-S%d", m.From), fmt.Sprintf("t%d %s", m.Term, m.text()), tag)
}

// merge keeps our Lamport number above a sender's.
func (s *server) merge(at int) { s.lamport = max(s.lamport, min(at, maxNumber)) }

// idle tells heartbeats and their answers from messages that say something.
func (s *server) idle(m *Message) bool {
	if r := m.AppendEntriesReply; r != nil {
		return r.Success && s.role == leader && r.MatchIndex <= s.matchIndex[m.From]
	}
	return m.AppendEntries != nil && len(m.AppendEntries.Entries) == 0
}

// String is a Message in one line.
func (m *Message) String() string {
	return fmt.Sprintf("S%d->S%d t%d %s", m.From, m.To, m.Term, m.text())
}

// text is what a Message says.
func (m *Message) text() string {
	switch {
	case m.RequestVote != nil:
		rv := m.RequestVote
		return fmt.Sprintf("RequestVote last=%v", ref{rv.LastLogIndex, rv.LastLogTerm})
	case m.RequestVoteReply != nil && m.RequestVoteReply.VoteGranted:
		return "VoteReply granted"
	case m.RequestVoteReply != nil:
		return "VoteReply refused"
	case m.AppendEntries != nil:
		ae := m.AppendEntries
		return fmt.Sprintf("AppendEntries prev=%v [%v] commit=%d",
			ref{ae.PrevLogIndex, ae.PrevLogTerm}, carried{ae}, ae.LeaderCommit)
	case m.AppendEntriesReply.Success:
		return fmt.Sprintf("AppendReply ok match=%d", m.AppendEntriesReply.MatchIndex)
	}
	return "AppendReply refused"
}

// write appends one line to the Output.
func (s *server) write(lamport int, arrow, text, tag string) {
	if strings.ToLower(tag) != tag {
		tag = "[" + tag + "]" // a rule; what is no rule (fault, disk) stands bare
	}
	head := fmt.Sprintf("%5d S%d %-9v t%-2d @%-4d %-4s ",
		lamport, s.id, s.role, s.currentTerm, s.now, arrow)
	room := max(20, maxWidth-len(head)-1-len(tag))
	text = strings.Map(asciiOnly, text)
	if len(text) > room {
		text = text[:room-3] + "..."
	}
	line := head + fmt.Sprintf("%-*s %s", min(room, 58), text, tag)
	if s.color {
		bold := ""
		if s.role == leader {
			bold = "1;"
		}
		line = fmt.Sprintf("\x1b[%s%dm%s\x1b[0m", bold, 31+(s.id-1)%6, line)
	}
	s.out.Trace = append(s.out.Trace, line)
}

func asciiOnly(c rune) rune {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

func (r role) String() string { return [...]string{"follower", "candidate", "leader"}[r] }

// ref names a place of a log in the narration: #3t2 is entry 3, of term 2.
type ref struct{ index, term int }

func (r ref) String() string { return fmt.Sprintf("#%dt%d", r.index, r.term) }

func (s *server) refAt(index int) ref { return ref{index, s.log.at(index).Term} }

func (s *server) lastRef() ref { return s.refAt(s.lastIndex()) }

// carried lists the entries of an AppendEntries: up to three one by one, more as a range.
type carried struct{ *appendEntries }

func (c carried) String() string {
	n := len(c.Entries)
	at := func(i int) string { return ref{c.PrevLogIndex + 1 + i, c.Entries[i].Term}.String() }
	if n > 3 {
		return at(0) + ".." + at(n-1)
	}
	var refs []string
	for i := range n {
		refs = append(refs, at(i))
	}
	return strings.Join(refs, " ")
}

// silence says what a follower missed when its election timeout ended.
func (s *server) silence() string {
	if s.leaderID == none {
		return fmt.Sprintf("no leader known in t%d", s.currentTerm)
	}
	return fmt.Sprintf("nothing from leader S%d in time", s.leaderID)
}

// voters lists who voted for this candidate.
func (s *server) voters() string {
	var names []string
	for _, id := range s.everybody() {
		if s.votes[id] {
			names = append(names, fmt.Sprintf("S%d", id))
		}
	}
	return strings.Join(names, " ")
}

func (s *server) everybody() []int {
	all := append([]int{s.id}, s.peers...)
	slices.Sort(all)
	return all
}

// rule is one row of the book that explain reads from.
type rule struct{ tag, section, words, without string }

func ruleBook() []rule { return append(countedRules(), uncountedRules()...) }

// countedRules are those of which rules can tell whether they fired: somebody counts them.
func countedRules() []rule {
	return append(figure2Rules(), []rule{
		{"RD1", "§8", "no read before the leader has committed an entry of its own term.",
			"a new leader does not know what is committed, and misses it."},
		{"RD2", "§8, thesis 6.4", "a read notes the commitIndex at its arrival.",
			"nobody knows how much must be applied before it is answered."},
		{"RD3", "§8, thesis 6.4", "a read waits until a majority has answered an AppendEntries " +
			"sent after it arrived.",
			"a deposed leader answers with the past."},
		{"RD4", "§8, thesis 6.4", "a read waits until what was committed at its arrival is " +
			"applied.",
			"a read misses a write that was answered before it."},
		{"SE1", "§8", "a repeat of what is in the leader's log and not applied yet " +
			"is not appended again.",
			"each impatient client fills the log with entries that change nothing."},
		{"SE2", "§8, thesis 6.3", "a serial that was applied gets the stored answer and " +
			"changes nothing.",
			"a retry is carried out twice."},
	}...)
}

func uncountedRules() []rule {
	return []rule{
		{"SE3", "§8, thesis 6.3", "sessions are state machine state, and go in log order, " +
			"the least recently used first.",
			"a retry is carried out on one server and not on another."},
		{"SE4", "§8, thesis 6.3", "a serial above 1 without a session is refused.",
			"a retry that outlives its session is carried out twice."},
		{"DK1", "ours, chapter 11", "the first record of a file names the format and the server.",
			"a server takes another one's file for its own, and votes again."},
		{"DK2", "ours, chapter 11", "an entry's record replaces all from its index on.",
			"entries that were cut come back after a restart."},
		{"DK3", "ours, chapter 11", "a torn tail is cut off, since nobody was told of it.",
			"a crash in the middle of a write keeps the server down for ever."},
		{"DK4", "ours, chapter 11", "a server with damage before an intact record does not start.",
			"it forgets what it promised, a vote or an entry."},
		{"DK5", "ours, chapter 11", "a failed write or fsync stops the server.",
			"the next fsync may succeed without the page, and the server confirms what is lost."},
	}
}

func figure2Rules() []rule {
	return []rule{
		{"Persist", "Figure 2, State", "term, vote and log reach the disk before anything that " +
			"depends on them is answered.",
			"a restarted server votes twice in a term, or lacks an entry that it had confirmed."},
		{"All1", "Figure 2, All Servers", "committed entries are applied in order, one by one.",
			"state machines differ."},
		{"All2", "§5.1", "whoever sees a higher term adopts it and becomes a follower.",
			"an old leader never learns that it is one no more."},
		{"Fol1", "§5.2", "a follower answers candidates and leaders.",
			"nobody can win an election or commit anything."},
		{"Fol2", "§5.2", "a follower that hears from no leader and grants no vote for an " +
			"election timeout becomes a candidate.",
			"a dead leader is never replaced."},
		{"Cand1", "§5.2", "a candidate begins a new term, votes for itself, restarts its timer " +
			"and asks everybody.",
			"no election."},
		{"Cand2", "§5.2", "a candidate with votes from a majority leads.",
			"with fewer votes, two candidates could win one term."},
		{"Cand3", "§5.2", "a candidate that hears AppendEntries of its own term follows their " +
			"sender.",
			"it would depose a leader that it could follow."},
		{"Cand4", "§5.2", "a candidate whose election times out starts another.",
			"a split vote stops the cluster for ever."},
		{"Lead1", "§5.2", "a leader sends AppendEntries to all at once, and whenever it is idle.",
			"followers start elections under a living leader."},
		{"Lead2", "§5.3", "a leader appends a client's command and answers after applying it.",
			"clients are told of writes that are lost."},
		{"Lead3", "§5.3", "a leader sends a follower what it lacks, from nextIndex on.",
			"logs never become equal."},
		{"Lead3a", "§5.3", "a success raises nextIndex and matchIndex, to what the reply confirms.",
			"entries count as stored where they are not."},
		{"Lead3b", "§5.3", "a refusal lowers nextIndex, and the leader tries again.",
			"a follower with a conflict stays behind for ever."},
		{"Lead4", "§5.4.2, Figure 8", "a leader commits what a majority stores, if it is of " +
			"its own term; what is before it goes along.",
			"an entry that counted as committed is overwritten (Figure 8 (d))."},
		{"RV1", "§5.1", "no vote for a candidate of an older term.",
			"elections that are over elect leaders."},
		{"RV2", "§5.2, §5.4.1", "one vote a term, and only for a log at least as up to date as " +
			"one's own.",
			"two leaders in a term, or a leader without committed entries."},
		{"AE1", "§5.1", "entries from an older term are refused.",
			"a deposed leader overwrites its successor's entries."},
		{"AE2", "§5.3", "entries are refused unless the one before them matches.",
			"logs have holes, and equal entries with different pasts."},
		{"AE3", "§5.3", "an entry that conflicts goes, with all behind it; without a conflict, " +
			"nothing goes.",
			"a late AppendEntries erases confirmed entries."},
		{"AE4", "§5.3", "entries that are not in the log are appended.",
			"nothing is replicated, or a doubled datagram is stored twice."},
		{"AE5", "§5.3", "commitIndex follows leaderCommit, up to the last new entry.",
			"a follower applies entries of its own that nobody has checked."},
	}
}

// screen owns the terminal: one goroutine writes answers to stdout and everything else to
// stderr, so that nothing comes between two lines.
type screen struct {
	jobs     chan func()
	out, err io.Writer // for answers, and for everything else
	ask      bool      // a person sits there: show prompts

	text    string // the prompt
	showing bool
}

func newScreen(people bool) *screen {
	sc := &screen{jobs: make(chan func(), 1024), out: os.Stdout, err: os.Stderr,
		ask: people, text: "raft> "}
	go func() {
		for job := range sc.jobs {
			job()
		}
	}()
	return sc
}

// flush returns when everything so far is written.
func (sc *screen) flush() {
	done := make(chan bool)
	sc.jobs <- func() { close(done) }
	<-done
}

// answer prints a command's answer, at once.
func (sc *screen) answer(text string) {
	sc.jobs <- func() { io.WriteString(sc.out, text+"\n") }
	sc.flush()
}

// narrate prints lines. Where a prompt shows, it moves down below them.
func (sc *screen) narrate(lines []string) {
	if len(lines) == 0 {
		return
	}
	sc.jobs <- func() {
		text := strings.Join(lines, "\n") + "\n"
		if sc.showing {
			text = "\r\x1b[K" + text + sc.text
		}
		io.WriteString(sc.err, text)
	}
}

// end ends the line that a prompt stands on; there will be no other.
func (sc *screen) end() {
	if sc.ask {
		sc.jobs <- func() {
			sc.showing = false
			io.WriteString(sc.err, "\n")
		}
	}
}

func (sc *screen) note(line string) { sc.narrate([]string{line}) }

// prompt shows the prompt, or notes that a line was entered behind it.
func (sc *screen) prompt(show bool) {
	if !sc.ask {
		return
	}
	sc.jobs <- func() {
		if sc.showing = show; show {
			io.WriteString(sc.err, sc.text)
		}
	}
}

// setPrompt changes the prompt, also one that is showing.
func (sc *screen) setPrompt(text string) {
	sc.jobs <- func() {
		if sc.text == text {
			return
		}
		sc.text = text
		if sc.showing {
			io.WriteString(sc.err, "\r\x1b[K"+text)
		}
	}
}

// ---- 15. Console -----------------------------------------------------------------
//
// The console is a client. What concerns the data (set, get, …) it sends to the leader
// in the client form of chapter 12, and repeats until there is an answer; what concerns
// one server (status, log, …) it sends to that server's loop. One table holds every
// command, its arguments, its help and its function.

// command is one row of the table. Exactly one of the functions is set: onServer runs in
// the loop of a server, here runs in the console.
type command struct {
	name, args, help string
	onServer         func(sh *shell, args []string) string
	here             func(c *console, args []string) string
}

// commands is the table. help, the errors and the list in NOTES.md come from it.
func commands() []command {
	return []command{
		{"help", "[COMMAND]", "list the commands, or explain one", nil, (*console).help},
		{"status", "", "role, term, vote, leader, commit, clock, faults", (*shell).status, nil},
		{"log", "[FROM]", "this server's log; [..] committed, (..) not yet", (*shell).logText, nil},
		{"logs", "", "every server's log under one ruler", nil, (*console).logs},
		{"peers", "", "leader only: nextIndex, matchIndex, last reply", (*shell).peersText, nil},
		{"set", "KEY VALUE...", "write; answered once it is applied", nil, nil},
		{"get", "KEY", "linearizable read, without a log entry", nil, nil},
		{"del", "KEY", "delete", nil, nil},
		{"cas", "KEY OLD NEW...", "set to NEW if it is OLD", nil, nil},
		{"incr", "KEY [N]", "add N, or 1", nil, nil},
		{"peek", "KEY", "read this server's own table, maybe stale", (*shell).peek, nil},
		{"freeze", "", "stop this server's clock; messages still flow", (*shell).freeze, nil},
		{"thaw", "", "let the clock run again", (*shell).thaw, nil},
		{"tick", "[N]", "while frozen, let N ticks pass, or 1", (*shell).tickBy, nil},
		{"timeout", "", "end the election timeout now: a real election", (*shell).timeout, nil},
		{"beat", "", "leader only: send the heartbeats now", (*shell).beat, nil},
		{"hold", "", "queue arriving messages", (*shell).hold, nil},
		{"inbox", "", "list the queued messages", (*shell).inbox, nil},
		{"step", "[N]", "handle the first N queued messages, or 1", (*shell).stepHeld, nil},
		{"release", "", "handle all queued messages, queue no more", (*shell).release, nil},
		{"cut", "WHOM... [vote|append]", "drop messages to and from servers, or all",
			(*shell).cutWires, nil},
		{"part", "GROUP GROUP...", "the cuts that make groups such as 1,2 3,4,5", nil, (*console).part},
		{"heal", "[WHOM...]", "undo cut; without WHOM also loss, delay and dup", (*shell).heal, nil},
		{"loss", "PERCENT", "lose what this server sends", (*shell).setLoss, nil},
		{"dup", "PERCENT", "double what this server sends", (*shell).setDup, nil},
		{"delay", "LOW [HIGH]", "delay what this server sends, in ticks", (*shell).setDelay, nil},
		{"crash", "", "forget all but the file, and go deaf", (*shell).crash, nil},
		{"restart", "", "read the file and rejoin", (*shell).restart, nil},
		{"file", "", "the end of the file, as it is on disk", (*shell).fileText, nil},
		{"check", "", "hold all servers against Figure 3", nil, (*console).check},
		{"rules", "", "which rules fired here, and which never did", (*shell).rules, nil},
		{"explain", "RULE", "a rule in plain words, and what happens without", nil, (*console).explain},
		{"watch", "LEVEL", "0 silence, 1 roles, 2 messages, 3 heartbeats", (*shell).setWatch, nil},
		{"noop", "on|off", "whether a leader begins with an empty entry", (*shell).setNoop, nil},
		{"batch", "N", "entries in one AppendEntries, at most; 0: as fit", (*shell).setBatch, nil},
		{"send", "JSON...", "put any message on the wire, even a lie", (*shell).sendRaw, nil},
		{"view", "FROM", "for programs: state and log from FROM on, as JSON", (*shell).view, nil},
		{"kill", "N", "cluster only: kill -9 server N", nil, (*console).kill},
		{"start", "N", "cluster only: start server N again", nil, (*console).start},
		{"quit", "", "leave; files stay", (*shell).quit, nil},
	}
}

// arguments splits what follows a command's name, and counts it against the table:
// [..] may be missing, and what ends in ... may be more.
func (c command) arguments(line string) (words []string, err error) {
	_, line, _ = nextWord(line)
	if c.args == "JSON..." { // it has quotes of its own
		return []string{line}, nil
	}
	for strings.Trim(line, " \t") != "" {
		word := ""
		if word, line, err = nextWord(line); err != nil {
			return nil, err
		}
		words = append(words, word)
	}
	wanted := strings.Fields(c.args)
	least, most := 0, len(wanted)
	for _, arg := range wanted {
		if arg[0] != '[' {
			least++
		}
		if strings.Contains(arg, "...") {
			most = math.MaxInt
		}
	}
	if len(words) < least || len(words) > most {
		return nil, wrongCount(c.name, cmp.Or(c.args, "no argument"), len(words))
	}
	return words, nil
}

// findCommand finds a row by its name, or suggests the one with the most letters in common.
func findCommand(name string) (command, error) {
	near, most := "", 1
	for _, c := range commands() {
		if c.name == name {
			return c, nil
		}
		n := 0
		for n < min(len(name), len(c.name)) && name[n] == c.name[n] {
			n++
		}
		if n > most {
			near, most = c.name, n
		}
	}
	if near != "" {
		return command{}, fmt.Errorf("no such command %s; did you mean %q?", clipQuote(name), near)
	}
	return command{}, fmt.Errorf("no such command %s; help lists them", clipQuote(name))
}

// consoleLine is a command for one server's loop, from its own console or, over UDP, from
// another one on this machine.
type consoleLine struct {
	ID   int    `json:"id"` // echoed by the reply
	Line string `json:"line"`

	from  netip.AddrPort
	local chan<- string // set: the console is in this process
}

type consoleReply struct {
	ID   int    `json:"id"`
	Text string `json:"text"`
}

// answer answers where the line came from. What does not fit into a datagram is cut.
func (l *consoleLine) answer(sh *shell, text string) {
	if l.local != nil {
		l.local <- text
	} else {
		whole := len(text)
		for jsonSize(text) > maxBatchBytes {
			text = strings.ToValidUTF8(text[:len(text)/2], "")
		}
		if len(text) < whole {
			text += " ... (cut)"
		}
		d := datagram{ConsoleReply: &consoleReply{l.ID, text}}
		sh.conn.WriteToUDPAddrPort(appendAny(nil, d), l.from)
	}
	if sh.leaving {
		sh.screen.flush()
		os.Exit(0)
	}
}

// needLife are the commands that a crashed server refuses, setOff those whose answer the
// console holds back until the messages that they set off have arrived.
const (
	needLife = " log peers peek tick timeout beat step release rules noop batch crash "
	setOff   = " timeout beat tick step release restart send "
)

// execute runs a server's command in its loop.
func (sh *shell) execute(line string) string {
	name, _, _ := nextWord(line)
	c, err := findCommand(name)
	if err != nil {
		return "error: " + err.Error()
	}
	args, err := c.arguments(line)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case c.onServer == nil:
		return fmt.Sprintf("error: %s is a console's command, not a server's", c.name)
	case sh.faults.crashed && strings.Contains(needLife, " "+name+" "):
		return fmt.Sprintf("error: S%d is crashed; try restart", sh.server.id)
	}
	return c.onServer(sh, args)
}

func (sh *shell) status([]string) string {
	s, f := sh.server, &sh.faults
	if f.crashed {
		return fmt.Sprintf("S%d crashed\n%s\n%s", s.id, sh.onDisk(), f)
	}
	timer := fmt.Sprintf("election in %d", s.electionDue-s.now)
	if s.role == leader {
		next := heartbeatTicks
		for _, p := range s.peers {
			next = min(next, s.progress[p].due-s.now)
		}
		timer = fmt.Sprintf("heartbeat in %d", next)
	}
	frozen := ""
	if f.frozen {
		frozen = "frozen at "
	}
	return fmt.Sprintf("S%d %v t%d, voted %s, leader %s\n"+
		"log %d entries, last %v; commit %d, applied %d\n"+
		"clock %s@%d; %s\n"+
		"%s\n"+
		"since start %d fsyncs, %d datagrams sent; %d dropped as foreign or malformed",
		s.id, s.role, s.currentTerm, name(s.votedFor), name(s.leaderID),
		s.lastIndex(), s.lastRef(), s.commitIndex, s.lastApplied,
		frozen, s.now, timer,
		f.String()+s.laboratory.String(),
		sh.disk.syncs, sh.sent, sh.dropped.all)
}

// prompt shows what a person should know before typing: server, role, term, and every
// state that surprises.
func (sh *shell) prompt() string {
	s, f := sh.server, &sh.faults
	if f.crashed {
		return fmt.Sprintf("S%d CRASHED> ", s.id)
	}
	text := fmt.Sprintf("S%d %s%d", s.id, strings.ToUpper(s.role.String()[:1]), s.currentTerm)
	if f.frozen {
		text += " FROZEN"
	}
	for i, id := range slices.Sorted(maps.Keys(f.cut)) {
		text += []string{" cut:", ","}[min(i, 1)] + strconv.Itoa(id)
	}
	if f.holding {
		text += fmt.Sprintf(" hold:%d", len(f.held))
	}
	if f.loss+f.dup+f.delay+f.more > 0 {
		text += " BADNET"
	}
	if s.laboratory != (laboratory{}) {
		text += " ODD"
	}
	return text + "> "
}

func (sh *shell) setPrompt() {
	if sh.screen.ask {
		sh.screen.setPrompt(sh.prompt()) // chapter 14
	}
}

// name is a server as people see it.
func name(id int) string {
	if id == none {
		return "none"
	}
	return fmt.Sprintf("S%d", id)
}

// number reads a console argument.
func number(word string, low, high int) (int, error) {
	n, err := strconv.Atoi(word)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("error: %s is not a number from %d to %d", clipQuote(word), low, high)
	}
	return n, nil
}

// logText shows at most 200 entries from FROM on, or the last 20.
func (sh *shell) logText(args []string) string {
	s := sh.server
	from := max(1, s.lastIndex()-19)
	if len(args) > 0 {
		var err error
		if from, err = number(args[0], 1, max(1, s.lastIndex())); err != nil {
			return err.Error()
		}
	}
	to := min(s.lastIndex(), from+199)
	var b strings.Builder
	fmt.Fprintf(&b, "entries %d to %d of %d, commit %d", from, to, s.lastIndex(), s.commitIndex)
	if s.lastIndex() == 0 {
		return "empty"
	}
	for index := from; index <= to; index++ {
		e := *s.log.at(index)
		text := fmt.Sprintf("%v %s %s/%d", s.refAt(index), e.Command, e.Client, e.Serial)
		if e.Client == "" {
			text = fmt.Sprintf("%v empty, the first of its leader", s.refAt(index))
		}
		open, shut := brackets(index <= s.commitIndex)
		fmt.Fprintf(&b, "\n%s%s%s", open, strings.Map(asciiOnly, clip(text, 90)), shut)
	}
	return b.String()
}

func brackets(committed bool) (open, shut string) {
	if committed {
		return "[", "]"
	}
	return "(", ")"
}

// clip shortens text to a width in bytes, but not in the middle of a character.
func clip(text string, width int) string {
	if len(text) > width {
		return strings.ToValidUTF8(text[:width-3], "") + "..."
	}
	return text
}

func (sh *shell) peersText([]string) string {
	s := sh.server
	if s.role != leader {
		return fmt.Sprintf("error: S%d is a %v; the leader is %s", s.id, s.role, name(s.leaderID))
	}
	var lines []string
	for _, p := range s.peers {
		last := "no reply yet"
		if w := s.progress[p]; w.heard > 0 {
			last = fmt.Sprintf("last reply %d ticks ago", s.now-w.heardAt)
		}
		lines = append(lines, fmt.Sprintf("S%d next %d, match %d, %s",
			p, s.nextIndex[p], s.matchIndex[p], last))
	}
	return cmp.Or(strings.Join(lines, "\n"), "no peers")
}

func (sh *shell) peek(args []string) string { return sh.server.machine.get(args[0]) }

// setNumber sets *what to a number from low to high.
func setNumber(what *int, word string, low, high int) string {
	n, err := number(word, low, high)
	if err != nil {
		return err.Error()
	}
	*what = n
	return "ok"
}

func (sh *shell) setWatch(args []string) string {
	return setNumber(&sh.server.watch, args[0], 0, 3)
}

// maxFileText bounds what file shows, in bytes.
const maxFileText = 24 << 10

func (sh *shell) fileText([]string) string {
	data, err := os.ReadFile(sh.disk.file.Name())
	if err != nil {
		return "error: " + err.Error()
	}
	data = trimRoom(data)
	head := ""
	if len(data) > maxFileText {
		skipped := len(data) - maxFileText
		skipped += bytes.IndexByte(data[skipped:], '\n') + 1
		head = fmt.Sprintf("(%d bytes before this; cat %s shows them)\n",
			skipped, sh.disk.file.Name())
		data = data[skipped:]
	}
	return head + strings.TrimRight(strings.ToValidUTF8(string(data), "?"), "\n")
}

func (sh *shell) rules([]string) string {
	var fired, never []string
	for _, rule := range countedRules() {
		if n := sh.server.fired[rule.tag]; n > 0 {
			fired = append(fired, fmt.Sprintf("%s %d", rule.tag, n))
		} else {
			never = append(never, rule.tag)
		}
	}
	return fmt.Sprintf("fired: %s\n%d of %d; never: %s",
		cmp.Or(strings.Join(fired, ", "), "none"), len(fired), len(fired)+len(never),
		cmp.Or(strings.Join(never, " "), "none"))
}

func (sh *shell) quit([]string) string {
	sh.leaving = true
	return "bye"
}

// serverView is what logs and check need of a server.
type serverView struct {
	ID, Term, Commit, From, Last int
	Role                         string
	Crashed                      string // what its file holds, or empty: it runs
	Applied                      int
	State                        uint32 // checksum of the state machine after Applied entries
	Entries                      []entry
	Next, Match                  map[int]int
}

// view gives as many entries as a datagram holds. Of a long command it gives the
// beginning and a checksum.
func (sh *shell) view(args []string) string {
	s := sh.server
	from, err := number(args[0], 1, maxNumber)
	if err != nil {
		return err.Error()
	}
	v := serverView{ID: s.id, Term: s.currentTerm, Commit: s.commitIndex, From: from,
		Last: s.lastIndex(), Role: s.role.String(), Applied: s.lastApplied}
	if from == 1 {
		v.State = s.machine.checksum()
	}
	if s.role == leader {
		v.Next, v.Match = s.nextIndex, s.matchIndex
	}
	if sh.faults.crashed {
		v = serverView{ID: s.id, Crashed: sh.onDisk()}
	}
	for index, size := from, 0; index <= v.Last && size < maxBatchBytes/2; index++ {
		e := *s.log.at(index)
		if len(e.Command) > 200 {
			e.Command = fmt.Sprintf("%s... %08x", strings.ToValidUTF8(e.Command[:40], ""),
				crc32.ChecksumIEEE([]byte(e.Command)))
		}
		v.Entries = append(v.Entries, e)
		size += e.size()
	}
	return strings.TrimSpace(string(appendAny(nil, v)))
}

// checksum is equal on servers with equal tables. It adds up, so the map's order is no
// matter.
func (m *machine) checksum() (sum uint32) {
	for key, value := range m.values {
		sum += crc32.ChecksumIEEE(fmt.Appendf(nil, "%q=%q", key, value))
	}
	return sum
}

// console reads commands, runs them and prints their answers.
type console struct {
	self      int                    // the server whose console this is, or none
	inputs    chan<- any             // its loop
	cluster   *cluster               // the processes that kill and start work on, or nil
	addresses map[int]netip.AddrPort // of all servers
	ids       []int
	conn      *net.UDPConn // not the server's: the console is a client
	screen    *screen
	patience  time.Duration // for the outcome of a command: an election may be going on

	client string
	serial int // of the last write
	asked  int // number of the last read or console command
	leader int // best guess
	failed bool
	over   bool // quit was asked for
}

// Patience: for one answer before asking again, for the outcome of a command sent to a
// certain server, for a server's answer to a console line, and for the messages that a line
// sets off. For the outcome of any other command, see newConsole.
const (
	resendAfter = 200 * time.Millisecond
	certainly   = 600 * time.Millisecond
	lineAnswer  = time.Second
	aftermath   = 30 * time.Millisecond
)

func newConsole(addresses map[int]netip.AddrPort, tick time.Duration,
	screen *screen) (*console, error) {

	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	conn.SetWriteBuffer(1 << 20) // some systems begin with less than a large datagram
	return &console{
		addresses: addresses,
		ids:       slices.Sorted(maps.Keys(addresses)),
		conn:      conn,
		screen:    screen,
		patience:  min(max(2*time.Second, 200*tick), 10*time.Second),
		client:    newClientName(),
	}, nil
}

// maxLine is the longest line that the console reads, in bytes.
const maxLine = 1 << 20

// readLines runs what comes in until it ends or somebody quits.
func (c *console) readLines(in io.Reader) {
	r := bufio.NewReaderSize(in, maxLine)
	for !c.over {
		c.screen.prompt(true)
		line, err := r.ReadSlice('\n')
		c.screen.prompt(false)
		tooLong := err == bufio.ErrBufferFull
		text := string(line)
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
		if tooLong {
			c.print(fmt.Sprintf("error: a line has at most %d bytes", maxLine))
		} else {
			c.runLine(strings.TrimRight(text, "\r\n"))
		}
		if err != nil {
			c.screen.end()
			return
		}
	}
}

// runLine runs the commands of one line.
func (c *console) runLine(line string) {
	commands, err := splitCommands(line)
	if err != nil {
		c.print("error: " + err.Error())
		return
	}
	for _, command := range commands {
		if !c.over {
			c.print(c.exec(command))
		}
	}
}

// print shows an answer. The first word decides whether the command failed.
func (c *console) print(text string) {
	for _, line := range strings.Split(text, "\n") {
		_, rest, found := strings.Cut(line, ": ")
		if isFailure(line) || found && strings.HasPrefix(line, "S") && isFailure(rest) {
			c.failed = true
		}
	}
	c.screen.answer(text)
}

func isFailure(text string) bool {
	return strings.HasPrefix(text, "error: ") || strings.HasPrefix(text, "unknown: ")
}

// splitCommands splits a line at semicolons and drops a comment, both outside of quotes. A
// quote opens only at the beginning of a word.
func splitCommands(line string) (commands []string, err error) {
	start, quoted, wordStart := 0, false, true
	add := func(end int) {
		if text := strings.Trim(line[start:end], " \t"); text != "" {
			commands = append(commands, text)
		}
		start = end + 1
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case quoted:
			quoted = c != '"'
		case c == '"' && wordStart:
			quoted = true
		case c == ';':
			add(i)
		case c == '#':
			add(i)
			return commands, nil
		}
		wordStart = !quoted && i < len(line) && strings.IndexByte(" \t;", line[i]) >= 0
	}
	if quoted {
		return nil, errors.New("an unfinished quote; nothing of this line was done")
	}
	add(len(line))
	return commands, nil
}

// exec runs one command and returns its answer.
func (c *console) exec(line string) string {
	if !utf8.ValidString(line) {
		return "error: the line is not valid UTF-8"
	}
	if !strings.HasPrefix(line, "@") {
		return c.execOn(c.home(), line, false)
	}
	target, rest := line[1:], ""
	if end := strings.IndexAny(target, " \t"); end >= 0 {
		target, rest = target[:end], target[end:]
	}
	ids := c.ids
	if target != "all" {
		var err error
		if ids, err = c.servers(target); err != nil {
			return "error: " + err.Error()
		}
	}
	if rest = strings.Trim(rest, " \t"); rest == "" || rest[0] == '@' {
		at := "@" + clip(target, 40)
		return "error: " + at + " needs a command, as in " + at + " status"
	}
	var answers []string
	for _, id := range ids {
		for _, line := range strings.Split(c.execOn(id, rest, true), "\n") {
			answers = append(answers, fmt.Sprintf("S%d: %s", id, line))
		}
	}
	return strings.Join(answers, "\n")
}

// servers reads a list such as 1,3.
func (c *console) servers(list string) (ids []int, err error) {
	for _, word := range strings.Split(list, ",") {
		id, err := strconv.Atoi(word)
		if _, ok := c.addresses[id]; err != nil || !ok {
			return nil, fmt.Errorf("there is no server %s; there are %s",
				clipQuote(word), serverNames(c.ids))
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func serverNames(ids []int) string {
	var names []string
	for _, id := range ids {
		names = append(names, name(id))
	}
	return strings.Join(names, " ")
}

// home is the server that a command without @ goes to: our own, or else the leader.
func (c *console) home() int {
	return cmp.Or(c.self, c.leader, c.ids[0])
}

// execOn runs a command at one server if it is addressed with @, or else beginning there.
func (c *console) execOn(id int, line string, addressed bool) string {
	verb, _, err := nextWord(line)
	if err != nil {
		return "error: " + err.Error()
	}
	cmd, err := findCommand(verb)
	if err != nil {
		return "error: " + err.Error()
	}
	if cmd.onServer == nil && cmd.here == nil {
		return c.request(id, line, addressed)
	}
	args, err := cmd.arguments(line)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case cmd.here != nil:
		return cmd.here(c, args)
	case verb == "quit" && (!addressed || id == c.self): // it is this console that leaves
		c.over = true
		return "bye"
	}
	answer := c.askServer(id, line)
	if strings.Contains(setOff, " "+verb+" ") {
		time.Sleep(aftermath) // so that the next line sees what this one set off
	}
	return answer
}

func (c *console) help(args []string) string {
	if len(args) == 1 {
		cmd, err := findCommand(args[0])
		if err != nil {
			return "error: " + err.Error()
		}
		return strings.TrimRight(cmd.name+" "+cmd.args, " ") + ": " + cmd.help
	}
	var lines []string
	for _, cmd := range commands() {
		line := fmt.Sprintf("%-8s%-23s%s", cmd.name, cmd.args, cmd.help)
		lines = append(lines, strings.TrimRight(line, " "))
	}
	lines = append(lines, "@2 LINE, @2,3 LINE and @all LINE run a line on other servers.",
		"; separates commands, # begins a comment, \"...\" holds a value with blanks or those.")
	return strings.Join(lines, "\n")
}

func (c *console) explain(args []string) string {
	for _, rule := range ruleBook() {
		if strings.EqualFold(rule.tag, strings.Trim(args[0], "[]")) {
			return fmt.Sprintf("%s (%s): %s\nWithout it: %s",
				rule.tag, rule.section, rule.words, rule.without)
		}
	}
	return "error: no such rule " + clipQuote(args[0]) + "; rules lists them"
}

// part cuts every wire between servers of different groups.
func (c *console) part(args []string) string {
	groups := make([][]int, len(args))
	var all []int
	for i, list := range args {
		ids, err := c.servers(list)
		if err != nil {
			return "error: " + err.Error()
		}
		groups[i], all = ids, append(all, ids...)
	}
	slices.Sort(all)
	if !slices.Equal(all, c.ids) {
		return "error: part needs every server in one group: " + serverNames(c.ids)
	}
	for _, group := range groups {
		for _, id := range group {
			line := "cut"
			for _, other := range c.ids {
				if !slices.Contains(group, other) {
					line += " " + strconv.Itoa(other)
				}
			}
			for _, line := range []string{"heal all", line} {
				if answer := c.askServer(id, line); answer != "ok" {
					return answer
				}
			}
		}
	}
	return "ok"
}

// askServer has a server's loop run a line. It is sent once only: a line may not be safe to
// run twice.
func (c *console) askServer(id int, line string) string {
	if id == c.self {
		answer := make(chan string, 1)
		c.inputs <- &consoleLine{Line: line, local: answer}
		return <-answer
	}
	if jsonSize(line) > maxBatchBytes {
		return fmt.Sprintf("error: a line of %d bytes does not fit into a datagram", len(line))
	}
	c.asked++
	c.send(id, datagram{Console: &consoleLine{ID: c.asked, Line: line}})
	until := time.Now().Add(lineAnswer)
	for {
		d, ok := c.receive(until)
		if !ok {
			if id == c.home() {
				c.leader = c.next(id) // whom to ask next time
			}
			return fmt.Sprintf("unknown: S%d does not answer; is it running?", id)
		}
		if d.ConsoleReply != nil && d.ConsoleReply.ID == c.asked {
			return d.ConsoleReply.Text
		}
	}
}

func (c *console) send(id int, d datagram) {
	c.conn.WriteToUDPAddrPort(appendAny(nil, d), c.addresses[id])
}

// receive waits for a datagram that can be read.
func (c *console) receive(until time.Time) (d datagram, ok bool) {
	buf := make([]byte, maxDatagram+1)
	for {
		c.conn.SetReadDeadline(until)
		n, _, err := c.conn.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil && json.Unmarshal(buf[:n], &d) == nil:
			return d, true
		case !time.Now().Before(until):
			return d, false
		}
		d = datagram{}
	}
}

// request sends a client's command, first to one server and then wherever the leader is,
// until it is answered. Repeats carry the same serial, so they are safe [SE1] [SE2]. A server
// that was addressed is asked alone, but may send us to the leader.
func (c *console) request(to int, line string, addressed bool) string {
	r := &request{Client: c.client, Command: line}
	op, err := parseOperation(line)
	if err == nil {
		err = tooLarge(r, op)
	}
	if err != nil {
		return "error: " + err.Error()
	}
	if op.verb == "get" {
		// Under another name: its serials are echoed, no more, and must not be taken for
		// those of writes.
		c.asked++
		r.Client, r.Serial = c.client+"r", c.asked
	} else {
		c.serial++
		r.Serial = c.serial
	}
	redirected, silent, patience := 0, false, c.patience
	if addressed {
		patience = certainly
	}
	for until := time.Now().Add(patience); time.Now().Before(until); {
		c.send(to, datagram{ClientRequest: r})
		a := c.awaitReply(r)
		switch {
		case a == nil: // lost, or the server is: try the next one
			silent = true
			if !addressed {
				to = c.next(to)
			}
		case a.Error == errNotLeader && a.Leader != none && a.Leader != to &&
			redirected < 2*len(c.ids):
			redirected++
			c.screen.note(fmt.Sprintf("S%d is not the leader; asking leader S%d", to, a.Leader))
			to = a.Leader
		case a.Error == errNotLeader: // an election is going on: ask around, slowly
			redirected = 0
			time.Sleep(aftermath)
			if !addressed {
				to = c.next(to)
			}
		case a.Error != "":
			c.forget(a.Error)
			return "error: " + a.Error
		default:
			c.leader = to
			return *a.Result
		}
	}
	c.leader = none
	c.forget("") // the next write must not be taken for this one
	return noOutcome(line, op.verb == "get", silent)
}

// noOutcome is what the console says when nobody has carried a command out in time.
func noOutcome(line string, read, silent bool) string {
	why := "no leader known yet"
	switch {
	case read && !silent:
		return "error: " + why + "; try status, or again later"
	case silent:
		why = "no answer in time"
	}
	if read {
		return "unknown: " + why
	}
	// Even where everybody answered: a deposed leader may have answered for what it had taken.
	return "unknown: " + why + "; " + clip(line, 40) + " may still happen"
}

// newClientName is random: two consoles that take a name in the same moment must not share a
// session, or one's write would pass for a repeat of the other's.
func newClientName() string { return fmt.Sprintf("c%016x", rand.Uint64()) }

// forget starts a new session where the old one cannot go on: its serial is lost, or in
// doubt.
func (c *console) forget(why string) {
	if why == "" || strings.HasPrefix(why, "no session ") {
		c.client, c.serial = newClientName(), 0
	}
}

func (c *console) awaitReply(r *request) *clientReply {
	until := time.Now().Add(resendAfter)
	for {
		d, ok := c.receive(until)
		if !ok {
			return nil
		}
		a := d.ClientReply
		if a != nil && a.Client == r.Client && a.Serial == r.Serial &&
			(a.Error != "" || a.Result != nil) {
			return a
		}
	}
}

func (c *console) next(id int) int {
	return c.ids[(slices.Index(c.ids, id)+1)%len(c.ids)]
}

// viewOf asks a server for its state and its log from an index on.
func (c *console) viewOf(id, from int) (*serverView, error) {
	v, answer := &serverView{}, c.askServer(id, fmt.Sprintf("view %d", from))
	if json.Unmarshal([]byte(answer), v) != nil {
		return nil, errors.New(answer)
	}
	return v, nil
}

// logs draws every server's log under one ruler, as in Figures 6 and 7: with commands if
// that fits the width, or else with terms only, or else only the end of the logs.
func (c *console) logs([]string) string {
	var views []*serverView
	var others []string
	last := 0
	for _, id := range c.ids {
		v, err := c.viewOf(id, maxNumber)
		if err != nil {
			others = append(others, fmt.Sprintf("S%d does not answer", id))
		} else if v.Crashed != "" {
			others = append(others, fmt.Sprintf("S%d crashed, %s", id, v.Crashed))
		} else {
			views = append(views, v)
			last = max(last, v.Last)
		}
	}
	width := 79
	if columns, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		width = max(40, columns-1)
	}
	first := max(1, last-width/3) // an entry takes three columns or more
	for i, v := range views {
		if again, err := c.viewOf(v.ID, first); err == nil && again.Crashed == "" {
			views[i] = again
		}
	}
	if len(views) == 0 {
		return "unknown: no server shows its log; is the cluster running? " +
			strings.Join(others, "; ")
	}
	return strings.Join(append([]string{drawLogs(views, first, last, width)}, others...), "\n")
}

// drawLogs draws the entries first to last of several logs.
func drawLogs(views []*serverView, first, last, width int) string {
	for ; ; first++ {
		for _, cell := range []func(entry) string{cellWithCommand, cellWithTerm} {
			text, widest := drawCells(views, first, last, cell)
			if widest > width && first < last {
				continue
			}
			if first > 1 {
				text += fmt.Sprintf("\n(entries %d to %d fit here; log FROM shows others)",
					first, last)
			}
			return text
		}
	}
}

// cellWithCommand is an entry as Figure 6 draws it: its term and what it does.
func cellWithCommand(e entry) string {
	op, err := parseOperation(e.Command)
	text := strconv.Itoa(e.Term)
	switch {
	case e.Client == "" || err != nil:
	case op.verb == "incr":
		text += fmt.Sprintf(" %s%+d", op.key, op.n)
	case op.verb == "del":
		text += fmt.Sprintf(" %s=", op.key)
	default:
		text += fmt.Sprintf(" %s=%s", op.key, op.value)
	}
	return clip(strings.Map(asciiOnly, text), 14)
}

func cellWithTerm(e entry) string { return strconv.Itoa(e.Term) }

// drawCells draws one row for each server, and tells how wide the widest is.
func drawCells(views []*serverView, first, last int,
	cell func(entry) string) (text string, widest int) {

	at := func(v *serverView, index int) string {
		if i := index - v.From; i >= 0 && i < len(v.Entries) {
			open, shut := brackets(index <= v.Commit)
			return open + cell(v.Entries[i]) + shut
		}
		return ""
	}
	head, columns := 0, make([]int, max(0, last-first+1))
	for _, v := range views {
		head = max(head, len(viewHead(v)))
		for i := range columns {
			columns[i] = max(columns[i], len(at(v, first+i)), len(strconv.Itoa(first+i))+1)
		}
	}
	ruler := strings.Repeat(" ", head)
	for i, w := range columns {
		ruler += fmt.Sprintf(" %-*d", w-1, first+i)
	}
	lines := []string{strings.TrimRight(ruler, " ")}
	for _, v := range views {
		line := fmt.Sprintf("%-*s", head, viewHead(v))
		for i, w := range columns {
			line += fmt.Sprintf("%-*s", w, at(v, first+i))
		}
		for _, other := range views {
			if next, ok := other.Next[v.ID]; ok {
				line += fmt.Sprintf(" match %d next %d", other.Match[v.ID], next)
			}
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	for _, line := range lines {
		widest = max(widest, len(line))
	}
	return strings.Join(lines, "\n"), widest
}

func viewHead(v *serverView) string {
	return fmt.Sprintf("S%d %s t%d ", v.ID, strings.ToUpper(v.Role[:1]), v.Term)
}

// check holds what all servers have against the properties of Figure 3. The leaders come
// last, so that what was committed meanwhile is in their logs.
func (c *console) check([]string) string {
	var views, leaders []*serverView
	for _, id := range c.ids {
		v, err := c.whole(id)
		switch {
		case err != nil:
			return "error: check needs all servers: " + err.Error()
		case v.Role == "leader":
			leaders = append(leaders, v)
		default:
			views = append(views, v)
		}
	}
	for _, v := range leaders {
		again, err := c.whole(v.ID)
		if err != nil {
			return "error: check needs all servers: " + err.Error()
		}
		views = append(views, again)
	}
	return checkViews(views)
}

// whole is a server's whole log, page by page. A crashed server has none.
func (c *console) whole(id int) (*serverView, error) {
	all, err := c.viewOf(id, 1)
	for err == nil && len(all.Entries) < all.Last {
		var page *serverView
		n := len(all.Entries)
		if page, err = c.viewOf(id, n); err != nil { // once more the last one that we have
			break
		}
		if len(page.Entries) < 2 || page.Entries[0] != all.Entries[n-1] {
			return c.whole(id) // it changed under our eyes
		}
		all.Entries = append(all.Entries, page.Entries[1:]...)
	}
	return all, err
}

// checkViews is ok, or the first violation it finds.
func checkViews(views []*serverView) string {
	for i, a := range views {
		for _, b := range views[:i] {
			if text := checkPair(b, a); text != "" {
				return "error: " + text
			}
		}
	}
	return "ok: Election Safety, Log Matching, Leader Completeness, State Machine Safety"
}

// checkPair compares two servers; b was asked after a.
func checkPair(a, b *serverView) string {
	if a.Role == "leader" && b.Role == "leader" && a.Term == b.Term {
		return fmt.Sprintf("Election Safety: S%d and S%d both lead term %d", a.ID, b.ID, a.Term)
	}
	shared, committed := min(len(a.Entries), len(b.Entries)), min(a.Commit, b.Commit)
	for i := shared - 1; i >= 0; i-- {
		if a.Entries[i].Term != b.Entries[i].Term {
			continue
		}
		for j := 0; j <= i; j++ { // equal from the last place with equal terms on down
			if a.Entries[j] != b.Entries[j] {
				return fmt.Sprintf("Log Matching: S%d and S%d agree at index %d, but not at %d",
					a.ID, b.ID, i+1, j+1)
			}
		}
		break
	}
	for i := range min(shared, committed) {
		if a.Entries[i] != b.Entries[i] {
			return fmt.Sprintf("State Machine Safety: "+
				"index %d is committed on S%d and S%d with different entries", i+1, a.ID, b.ID)
		}
	}
	if b.Role == "leader" && b.Term >= a.Term {
		for i := range min(a.Commit, len(a.Entries)) {
			if i >= len(b.Entries) || a.Entries[i] != b.Entries[i] {
				return fmt.Sprintf("Leader Completeness: "+
					"index %d is committed on S%d, but leader S%d does not have it",
					i+1, a.ID, b.ID)
			}
		}
	}
	if a.Applied == b.Applied && a.State != b.State && a.Applied > 0 {
		return fmt.Sprintf("State Machine Safety: "+
			"S%d and S%d applied the same %d entries, but their tables differ",
			a.ID, b.ID, a.Applied)
	}
	return ""
}

func (c *console) kill(args []string) string  { return c.onProcesses((*cluster).kill, args[0]) }
func (c *console) start(args []string) string { return c.onProcesses((*cluster).again, args[0]) }

// onProcesses does something to the processes of a list of servers.
func (c *console) onProcesses(do func(cl *cluster, id int) error, list string) string {
	if c.cluster == nil {
		return "error: kill and start work in the terminal of a cluster (go run .); " +
			"here, use the system's kill -9"
	}
	ids, err := c.servers(list)
	for _, id := range ids {
		if err = do(c.cluster, id); err != nil {
			break
		}
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return "ok"
}

// ---- 16. Experiments -------------------------------------------------------------
//
// What a learner does to a running server: stop its clock, hold and release its messages,
// cut and spoil its wires, crash it, change a detail of the algorithm. Faults act on real
// datagrams, but only between servers: clients and consoles do not feel them.

// faults are what an experiment does to this server's clock and wires, on purpose.
type faults struct {
	ticks   int  // since the start; unlike the server's clock they cannot be frozen
	frozen  bool // the server's clock stands still
	crashed bool // deaf, and all but the file is forgotten
	holding bool // messages that arrive wait in held

	cut         map[int]string // by server: "vote", "append" or, for both, "all"
	loss, dup   int            // of what this server sends, in percent
	delay, more int            // … delayed by delay to delay+more ticks
	held        []*Message
	delayed     []delayed
}

// delayed is a datagram that an experiment keeps back until the clock shows due.
type delayed struct {
	due  int
	to   int
	data []byte
}

// cuts tells whether the wire to or from a server is cut for this message.
func (f *faults) cuts(other int, m *Message) bool {
	switch f.cut[other] {
	case "all":
		return true
	case "vote":
		return m.RequestVote != nil || m.RequestVoteReply != nil
	case "append":
		return m.AppendEntries != nil || m.AppendEntriesReply != nil
	}
	return false
}

// keepsOut tells whether a message that arrived must not be handled now.
func (sh *shell) keepsOut(m *Message) bool {
	f := &sh.faults
	switch {
	case f.crashed:
		return true
	case f.cuts(m.From, m):
		sh.server.merge(m.At)
		sh.tellDropped(m, "x<", m.From, "(cut)")
		return true
	case f.holding && len(f.held) < maxWaiting:
		f.held = append(f.held, m)
		return true
	}
	return f.holding
}

// copies is how often the datagram in sh.buf is to be sent now; delayed copies come later.
func (sh *shell) copies(m *Message) int {
	f, n := &sh.faults, 1
	switch {
	case f.cuts(m.To, m):
		sh.tellDropped(m, "x>", m.To, "(cut)")
		return 0
	case f.loss > 0 && rand.IntN(100) < f.loss:
		sh.tellDropped(m, "x>", m.To, "(lost)")
		return 0
	case f.dup > 0 && rand.IntN(100) < f.dup:
		n = 2
	}
	if f.delay+f.more == 0 {
		return n
	}
	for range n {
		due := f.ticks + f.delay + rand.IntN(f.more+1)
		f.delayed = append(f.delayed, delayed{due, m.To, bytes.Clone(sh.buf)})
	}
	return 0
}

func (sh *shell) sendDelayed() {
	sh.faults.delayed = slices.DeleteFunc(sh.faults.delayed, func(d delayed) bool {
		if d.due <= sh.faults.ticks {
			sh.conn.WriteToUDPAddrPort(d.data, sh.addresses[d.to])
		}
		return d.due <= sh.faults.ticks
	})
}

// tellDropped narrates a message that a fault has swallowed.
func (sh *shell) tellDropped(m *Message, arrow string, other int, why string) {
	level := 1
	if sh.server.idle(m) {
		level = 3
	}
	sh.tellFault(level, fmt.Sprintf("%sS%d", arrow, other), m.text()+" "+why)
}

// tellFault narrates what is no rule of Raft, at once.
func (sh *shell) tellFault(level int, arrow, text string) {
	s := sh.server
	if level <= s.watch {
		s.lamport++
		s.write(s.lamport, arrow, text, "fault")
		sh.screen.narrate(s.out.Trace)
		s.out.Trace = nil
	}
}

// String lists the faults that are on.
func (f *faults) String() string {
	var on []string
	for _, id := range slices.Sorted(maps.Keys(f.cut)) {
		kind := ""
		if f.cut[id] != "all" {
			kind = " (" + f.cut[id] + ")"
		}
		on = append(on, fmt.Sprintf("cut S%d%s", id, kind))
	}
	add := func(is bool, format string, args ...any) {
		if is {
			on = append(on, fmt.Sprintf(format, args...))
		}
	}
	add(f.loss > 0, "loss %d%%", f.loss)
	add(f.dup > 0, "dup %d%%", f.dup)
	add(f.delay+f.more > 0, "delay %d to %d ticks", f.delay, f.delay+f.more)
	add(f.holding, "holding %d messages", len(f.held))
	return "faults " + cmp.Or(strings.Join(on, ", "), "none")
}

func (sh *shell) freeze([]string) string {
	sh.faults.frozen = true
	return "ok"
}

func (sh *shell) thaw([]string) string {
	sh.faults.frozen = false
	return "ok"
}

func (sh *shell) tickBy(args []string) string {
	n := 1
	if len(args) > 0 {
		if text := setNumber(&n, args[0], 1, 100_000); text != "ok" {
			return text
		}
	}
	if !sh.faults.frozen {
		return "error: the clock runs by itself; freeze it first"
	}
	for range n {
		sh.step(tick{})
	}
	return fmt.Sprintf("@%d", sh.server.now)
}

func (sh *shell) timeout([]string) string {
	if sh.server.role == leader {
		return fmt.Sprintf("error: S%d is the leader, "+
			"and leaders have no election timeout; try another server", sh.server.id)
	}
	sh.server.electionDue = sh.server.now
	sh.step()
	return "ok"
}

func (sh *shell) beat([]string) string {
	s := sh.server
	if s.role != leader {
		return fmt.Sprintf("error: S%d is a %v; the leader is %s", s.id, s.role, name(s.leaderID))
	}
	for _, p := range s.peers {
		s.progress[p].due = s.now
	}
	sh.step()
	return "ok"
}

func (sh *shell) hold([]string) string {
	sh.faults.holding = true
	return "ok"
}

func (sh *shell) inbox([]string) string {
	var lines []string
	for i, m := range sh.faults.held {
		lines = append(lines, fmt.Sprintf("%d. %s", i+1, m))
	}
	return cmp.Or(strings.Join(lines, "\n"), "empty")
}

// stepHeld handles queued messages one by one, so that each shows what it does.
func (sh *shell) stepHeld(args []string) string {
	n := 1
	if len(args) > 0 {
		if text := setNumber(&n, args[0], 1, maxWaiting); text != "ok" {
			return text
		}
	}
	f := &sh.faults
	if len(f.held) == 0 {
		return "error: no message is queued"
	}
	n = min(n, len(f.held))
	for range n {
		m := f.held[0]
		f.held = f.held[1:]
		sh.step(m)
	}
	return fmt.Sprintf("handled %d, %d left", n, len(f.held))
}

func (sh *shell) release([]string) string {
	f := &sh.faults
	for ; len(f.held) > 0; f.held = f.held[1:] {
		sh.step(f.held[0])
	}
	f.holding = false
	return "ok"
}

// whom reads a list of servers, or all, without this one.
func (sh *shell) whom(words []string) (ids []int, err error) {
	for _, word := range words {
		if word == "all" {
			ids = append(ids, sh.server.peers...)
			continue
		}
		id, _ := strconv.Atoi(strings.TrimPrefix(word, "S"))
		if !slices.Contains(sh.server.peers, id) {
			return nil, fmt.Errorf("error: S%d has no wire to %s; it has to %s",
				sh.server.id, clipQuote(word), serverNames(sh.server.peers))
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (sh *shell) cutWires(args []string) string {
	kind := "all"
	if last := args[len(args)-1]; last == "vote" || last == "append" {
		kind, args = last, args[:len(args)-1]
	}
	ids, err := sh.whom(args)
	if err == nil && len(ids) == 0 && len(sh.server.peers) > 0 {
		err = errors.New("error: cut needs WHOM... [vote|append], and WHOM is a server or all")
	}
	if err != nil {
		return err.Error()
	}
	if sh.faults.cut == nil {
		sh.faults.cut = map[int]string{}
	}
	for _, id := range ids {
		sh.faults.cut[id] = kind
	}
	return "ok"
}

func (sh *shell) heal(args []string) string {
	ids, err := sh.whom(args)
	if err != nil {
		return err.Error()
	}
	f := &sh.faults
	for _, id := range ids {
		delete(f.cut, id)
	}
	if len(args) == 0 {
		f.cut, f.loss, f.dup, f.delay, f.more = nil, 0, 0, 0, 0
	}
	return "ok"
}

func (sh *shell) setLoss(args []string) string {
	return setNumber(&sh.faults.loss, args[0], 0, 100)
}

func (sh *shell) setDup(args []string) string {
	return setNumber(&sh.faults.dup, args[0], 0, 100)
}

func (sh *shell) setDelay(args []string) string {
	low, err := number(args[0], 0, 10_000)
	if err != nil {
		return err.Error()
	}
	high := low
	if len(args) > 1 {
		if high, err = number(args[1], low, 10_000); err != nil {
			return err.Error()
		}
	}
	sh.faults.delay, sh.faults.more = low, high-low
	return "ok"
}

// crash drops everything on the spot, as kill -9 would; only the socket stays, deaf, so
// that restart can be asked for.
func (sh *shell) crash([]string) string {
	sh.tellFault(1, "", "crash: all but the file is forgotten")
	sh.faults.crashed = true
	sh.faults.held, sh.gathered, sh.late = nil, nil, nil
	return "ok"
}

func (sh *shell) restart([]string) string {
	if !sh.faults.crashed {
		return fmt.Sprintf("error: S%d has not crashed", sh.server.id)
	}
	disk, hard, log, note, err := openDisk(sh.dir, sh.server.id)
	if err != nil {
		return "error: " + err.Error()
	}
	sh.disk.file.Close()
	old := sh.server
	sh.disk, sh.server = disk, newServer(old.id, old.peers, hard, log, old.rand)
	// The observer has not crashed.
	sh.server.voice, sh.server.laboratory = old.voice, old.laboratory
	sh.faults.crashed = false
	sh.tellFault(1, "", fmt.Sprintf("restart: %d entries, term %d, voted %s. %s",
		len(log), hard.Term, name(hard.VotedFor), note))
	return "ok"
}

// onDisk is what a crashed server would know after a restart.
func (sh *shell) onDisk() string {
	data, err := os.ReadFile(sh.disk.file.Name())
	if err != nil {
		return "error: " + err.Error()
	}
	hard, log, _, err := replay(data, sh.server.id)
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprintf("on disk: t%d, voted %s, %d entries",
		hard.Term, name(hard.VotedFor), len(log))
}

// laboratory is what experiments may change about the algorithm itself.
type laboratory struct {
	noopOff    bool // a leader's first entry is not made (D3); Figures 7 and 8 have none
	batchLimit int  // entries in one AppendEntries, at most; 0: as many as fit
}

// String is what status adds to the faults.
func (l laboratory) String() string {
	text := ""
	if l.noopOff {
		text = "; noop off"
	}
	if l.batchLimit > 0 {
		text += fmt.Sprintf("; batch %d", l.batchLimit)
	}
	return text
}

func (sh *shell) setNoop(args []string) string {
	if args[0] != "on" && args[0] != "off" {
		return "error: noop on, or noop off"
	}
	sh.server.noopOff = args[0] == "off"
	return "ok"
}

func (sh *shell) setBatch(args []string) string {
	return setNumber(&sh.server.batchLimit, args[0], 0, maxNumber)
}

// sendRaw sends any JSON to the server that it is addressed to.
func (sh *shell) sendRaw(args []string) string {
	text := strings.TrimSpace(args[0])
	var m struct{ To int }
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return "error: not JSON: " + err.Error()
	}
	to, ok := sh.addresses[m.To]
	if !ok {
		return fmt.Sprintf("error: \"to\" must be one of %s",
			serverNames(slices.Sorted(maps.Keys(sh.addresses))))
	}
	if _, err := sh.conn.WriteToUDPAddrPort([]byte(text+"\n"), to); err != nil {
		return "error: " + err.Error()
	}
	return "ok"
}

// ---- 17. Cluster and main ----------------------------------------------------------
//
// Without -id, this process is only a console: every server is a process of its own, which
// it starts, kills and starts again. A server of a cluster reads its parent's pipe and
// leaves when that ends, so none outlives the cluster, whatever happens to it.

// options is the command line.
type options struct {
	n, id, watch         int
	peers, dir, colorize string
	tick                 time.Duration
	client               bool

	addresses map[int]netip.AddrPort
	args      []string
}

// inCluster marks, in the environment, a server that a cluster has started.
const inCluster = "RAFT_IN_CLUSTER"

func main() {
	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(2)
	case o.client:
		runClient(o)
	case o.id != none:
		runServer(o)
	default:
		runCluster(o)
	}
}

func parseOptions(args []string) (o options, err error) {
	flags := flag.NewFlagSet("raft", flag.ContinueOnError)
	flags.IntVar(&o.n, "n", 3, "servers `1..N` on 127.0.0.1:9001..")
	flags.StringVar(&o.peers, "peers", "",
		"the servers by name, instead of -n: `1=HOST:PORT,2=...`")
	flags.IntVar(&o.id, "id", none, "run only server `N`, with its console")
	flags.StringVar(&o.dir, "dir", "data", "where the files are")
	flags.DurationVar(&o.tick, "tick", 10*time.Millisecond, "length of a tick")
	flags.IntVar(&o.watch, "watch", 1, "narration level, `0..3`")
	flags.StringVar(&o.colorize, "color", "auto", "`auto|always|never`")
	flags.BoolVar(&o.client, "client", false,
		"only a console; a command may follow, or come on stdin")
	help := new(strings.Builder)
	flags.SetOutput(help)
	if err = flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print("Raft in one file. Without flags: a cluster of 3 in this terminal.\n", help)
		}
		return o, err
	}
	o.args = flags.Args()
	alone := false
	flags.Visit(func(f *flag.Flag) { alone = alone || f.Name == "id" })
	switch {
	case alone && o.id < 1:
		err = fmt.Errorf("-id %d: servers are numbered from 1", o.id)
	case len(o.args) > 0 && !o.client:
		err = fmt.Errorf("what is %q? only -client takes a command; -h shows the flags", o.args[0])
	case o.client && o.id != none:
		err = errors.New("-client and -id: a console of its own, or a server?")
	case o.watch < 0 || o.watch > 3:
		err = fmt.Errorf("-watch %d is not 0 to 3", o.watch)
	case o.tick < time.Millisecond || o.tick > time.Minute:
		err = fmt.Errorf("-tick %v is not 1ms to 1m", o.tick)
	case o.colorize != "auto" && o.colorize != "always" && o.colorize != "never":
		err = fmt.Errorf("-color %s is not auto, always or never", clipQuote(o.colorize))
	case o.peers == "" && (o.n < 1 || o.n > 99):
		err = fmt.Errorf("-n %d is not 1 to 99", o.n)
	case o.peers == "":
		for id := 1; id <= o.n; id++ {
			o.peers += fmt.Sprintf(",%d=127.0.0.1:%d", id, 9000+id)
		}
		o.peers = o.peers[1:]
	}
	if err == nil {
		o.addresses, err = parsePeers(o.peers)
	}
	if _, ok := o.addresses[o.id]; err == nil && o.id != none && !ok {
		err = fmt.Errorf("-id %d is none of the servers %s", o.id, o.peers)
	}
	return o, err
}

// parsePeers reads 1=HOST:PORT,2=HOST:PORT.
func parsePeers(peers string) (map[int]netip.AddrPort, error) {
	addresses := map[int]netip.AddrPort{}
	taken := map[netip.AddrPort]int{}
	for _, peer := range strings.Split(peers, ",") {
		word, hostPort, ok := strings.Cut(peer, "=")
		id, err := strconv.Atoi(word)
		if !ok || err != nil || id < 1 || id >= maxNumber {
			return nil, fmt.Errorf("-peers: %s is not ID=HOST:PORT with an ID from 1 up",
				clipQuote(peer))
		}
		resolved, err := net.ResolveUDPAddr("udp", hostPort)
		if err != nil {
			return nil, fmt.Errorf("-peers: %s: %v", clipQuote(peer), err)
		}
		address := netip.AddrPortFrom(resolved.AddrPort().Addr().Unmap(), uint16(resolved.Port))
		switch _, again := addresses[id]; {
		case again:
			return nil, fmt.Errorf("-peers: server %d stands there twice", id)
		case taken[address] != 0:
			return nil, fmt.Errorf("-peers: servers %d and %d have the same address",
				taken[address], id)
		case address.Port() == 0 || !address.IsValid() || address.Addr().IsUnspecified():
			return nil, fmt.Errorf("-peers: %s needs a host and a port that others can send to",
				clipQuote(peer))
		}
		addresses[id], taken[address] = address, id
	}
	return addresses, nil
}

// isTerminal cannot tell /dev/null from a terminal; there, a prompt is followed by the end
// of input at once.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (o *options) paint() bool {
	auto := isTerminal(os.Stderr) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return o.colorize == "always" || o.colorize == "auto" && auto
}

// openScreen opens the terminal, with prompts if a person sits there.
func openScreen() *screen { return newScreen(isTerminal(os.Stdin) && isTerminal(os.Stderr)) }

// leave ends a console's process: 1 if a command failed, 0 otherwise.
func (c *console) leave() {
	c.screen.flush()
	if c.failed {
		os.Exit(1)
	}
	os.Exit(0)
}

func runClient(o options) {
	c, err := newConsole(o.addresses, o.tick, openScreen())
	if err != nil {
		fatal("no socket: %v", err)
	}
	if len(o.args) > 0 {
		c.print(c.exec(strings.Join(o.args, " ")))
	} else {
		c.readLines(os.Stdin)
	}
	c.leave()
}

// windowsInUse is how Windows says EADDRINUSE.
const windowsInUse = syscall.Errno(10048)

// runServer is one server and its console.
func runServer(o options) {
	address := o.addresses[o.id]
	// Before the file: one port, one owner. (Of the file, too, where the folder is not shared by
	// clusters on different ports: checkLength.)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, windowsInUse) {
		fatal("%v is in use; is server %d already running?", address, o.id)
	}
	if err != nil {
		fatal("server %d cannot have %v: %v", o.id, address, err)
	}
	conn.SetReadBuffer(8 << 20) // as much of this as the system grants
	conn.SetWriteBuffer(1 << 20)
	disk, hard, log, note, err := openDisk(o.dir, o.id)
	if err != nil {
		fatal("%v", err)
	}
	var peers []int
	for _, id := range slices.Sorted(maps.Keys(o.addresses)) {
		if id != o.id {
			peers = append(peers, id)
		}
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(o.id)))
	s := newServer(o.id, peers, hard, log, random)
	s.watch, s.color = o.watch, o.paint()
	if note != "" {
		s.tell(1, "disk", "%s", note)
	}
	// One goroutine does the work. A second processor for the reader costs more in waking each
	// other up than it gains (BenchmarkCluster, two cores).
	runtime.GOMAXPROCS(1)
	sh := &shell{server: s, dir: o.dir, disk: disk, conn: conn, addresses: o.addresses,
		inputs: make(chan any, maxWaiting), alarm: time.NewTimer(o.tick),
		clock: clock{length: o.tick, start: time.Now()}, screen: openScreen()}
	go sh.readDatagrams(o.id)
	go sh.readConsole(o)
	sh.run()
}

// readConsole reads stdin. Its end closes the console only, unless a cluster holds the
// other end.
func (sh *shell) readConsole(o options) {
	if os.Getenv(inCluster) != "" {
		// Ctrl-C reaches the whole terminal; the pipe tells us when to go.
		signal.Ignore(os.Interrupt)
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	c, err := newConsole(sh.addresses, o.tick, sh.screen)
	if err != nil {
		fatal("no socket for the console: %v", err)
	}
	c.self, c.inputs = o.id, sh.inputs
	c.readLines(os.Stdin)
	if c.over {
		c.leave()
	}
}

// cluster is all servers, each a process.
type cluster struct {
	options   options
	screen    *screen
	processes map[int]*process
}

type process struct {
	*exec.Cmd
	narration *bufio.Reader
	killed    atomic.Bool   // we did it
	gone      chan struct{} // closed when it has ended
}

// runCluster runs all servers and a console. However it ends, the servers end with it: each
// one reads a pipe from here, and leaves at its end.
func runCluster(o options) {
	cl := &cluster{options: o, screen: openScreen(), processes: map[int]*process{}}
	ids := slices.Sorted(maps.Keys(o.addresses))
	for _, id := range ids {
		if err := cl.start(id); err != nil {
			fatal("%v", err)
		}
	}
	c, err := newConsole(o.addresses, o.tick, cl.screen)
	if err != nil {
		fatal("no socket for the console: %v", err)
	}
	for _, id := range ids { // not before all have started: a failure is one line, and alone
		go cl.follow(id, cl.processes[id])
	}
	c.cluster = cl
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		cl.screen.end()
		cl.screen.flush()
		os.Exit(1)
	}()
	go endWithGoRun(signals)
	c.readLines(os.Stdin)
	cl.killAll()
	c.leave()
}

// endWithGoRun ends the cluster when the go command that ran it is killed: "go run" does not
// pass that on, and the cluster would go on reading the terminal.
func endWithGoRun(signals chan<- os.Signal) {
	self, err := os.Executable()
	if parent := os.Getppid(); err == nil && strings.Contains(self, "go-build") {
		for os.Getppid() == parent {
			time.Sleep(time.Second / 4)
		}
		signals <- syscall.SIGTERM
	}
}

// start starts a server and returns when it is ready. follow is to be called then.
func (cl *cluster) start(id int) error {
	if p := cl.processes[id]; p != nil && !p.ended() {
		return fmt.Errorf("server %d is running", id)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o, color := cl.options, "never"
	if o.paint() {
		color = "always"
	}
	cmd := exec.Command(self, "-id", strconv.Itoa(id), "-peers", o.peers,
		"-dir", o.dir, "-tick", o.tick.String(), "-watch", strconv.Itoa(o.watch), "-color", color)
	cmd.Env = append(os.Environ(), inCluster+"=1")
	_, err1 := cmd.StdinPipe() // it ends when this process does
	stdout, err2 := cmd.StdoutPipe()
	stderr, err3 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3, cmd.Start()); err != nil {
		return fmt.Errorf("server %d does not start: %w", id, err)
	}
	p := &process{Cmd: cmd, narration: bufio.NewReader(stderr), gone: make(chan struct{})}
	if word, _ := bufio.NewReader(stdout).ReadString('\n'); word != "ready\n" {
		line, _ := p.narration.ReadString('\n')
		cmd.Wait()
		return errors.New(strings.TrimPrefix(strings.TrimSpace(line), "error: "))
	}
	cl.processes[id] = p
	return nil
}

func (cl *cluster) again(id int) error {
	err := cl.start(id)
	if err == nil {
		go cl.follow(id, cl.processes[id])
	}
	return err
}

// follow shows a server's narration until it ends.
func (cl *cluster) follow(id int, p *process) {
	for {
		line, err := p.narration.ReadString('\n')
		if line != "" {
			cl.screen.note(strings.TrimRight(line, "\n"))
		}
		if err != nil {
			break
		}
	}
	p.Wait()
	if !p.killed.Load() {
		cl.screen.note(fmt.Sprintf("server %d has ended (%v); start %d starts it again",
			id, p.ProcessState, id))
	}
	close(p.gone)
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (cl *cluster) kill(id int) error {
	p := cl.processes[id]
	if p == nil || p.ended() {
		return fmt.Errorf("server %d is not running", id)
	}
	p.killed.Store(true)
	if err := p.Process.Kill(); err != nil {
		return err
	}
	<-p.gone
	return nil
}

func (cl *cluster) killAll() {
	for id := range cl.processes {
		cl.kill(id)
	}
}
