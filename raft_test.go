// The tests of raft.go, to be read after it: what each rule does at its edges, the disk and the wire,
// and a simulator that takes whole clusters through every fault.
//
//	THE RULES, ONE BY ONE   builders, receivers, elections, the leader, Figures 7 and 8, clients
//	THE DISK, THE WIRE      what a crash may do to the file, and what may come in a datagram
//	THE LOOP, THE CONSOLE   the machine around the algorithm, and what a person types
//	THE SIMULATOR           random lives, judged after every event by Figure 3
//	BREAK IT                every rule taken away once
//	REAL PROCESSES          kill -9; and the scripts of NOTES.md
//
//	go test ./...                            all of it
//	go test -v -run 'Receiver|Figure'        the rules, one row per edge
//	go test -run TestSimulator -seed 4711 -v one simulated life, as a story
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// =================================================================================================
// THE RULES, ONE BY ONE
// =================================================================================================

// ---- Rules 1. Builders --------------------------------------------------------------------------
//
// Step has no clock, no socket and no file, so a test can put a server into any situation, hand it
// one input, and read everything that comes of it. A row of a table is such a situation. Its name
// begins with the tag of the rule that decides. Beside it stands a neighbour in which the rule just
// does not decide, because most bugs of Raft are off by one.
//
// The server under test is S1, and the others are S2, S3, …. A log is written by the terms of its
// entries. Messages are compared as text:
//
//	RV(3,2)           RequestVote: the candidate's last entry is 3, of term 2
//	yes, no           its reply
//	AE(3,2,[4 4],1)   AppendEntries: entries of terms 4 4 behind entry 3 of term 2, leaderCommit 1
//	ok(5)             its reply: everything up to 5 is stored
//	no(3;2@1)         a refusal by [AE2]: entry 3 does not match; the entry there is of term 2,
//	                  which begins at 1
//	no()              a refusal by [AE1], which says nothing else

// terms is a log: terms{1, 1, 2} are two entries of term 1 and one of term 2.
type terms = []int

func entriesOf(log terms) []*entry {
	entries := []*entry{}
	for _, term := range log {
		entries = append(entries, &entry{Term: term})
	}
	return entries
}

func termsOf(entries []*entry) terms {
	log := terms{}
	for _, e := range entries {
		log = append(log, e.Term)
	}
	return log
}

func logOf(s *server) terms { return termsOf(s.log[1:]) }

func othersOf(id, n int) (others []int) {
	for other := 1; other <= n; other++ {
		if other != id {
			others = append(others, other)
		}
	}
	return others
}

// followerOf makes S1 of n servers, a follower with this term, vote and log.
func followerOf(n, term, vote int, log ...int) *server {
	return followerWith(n, term, vote, entriesOf(log)...)
}

func followerWith(n, term, vote int, entries ...*entry) *server {
	disk := persistent{term, vote, append([]*entry{{}}, entries...)}
	return newServer(1, othersOf(1, n), disk, rand.New(rand.NewPCG(1, 2)))
}

// blank is S1 of three after a restart.
func blank(term int, log ...int) *server { return followerOf(3, term, none, log...) }

// candidateOf makes S1 the candidate of a term: its timer ran out in the term before.
func candidateOf(n, term int, log ...int) *server {
	s := followerOf(n, term-1, none, log...)
	fireTimer(s)
	return s
}

// leaderOf makes S1 the leader of a term. Its log ends with the empty entry of that term (D3),
// which is on its way to the others: seq 1 to S2, seq 2 to S3.
func leaderOf(n, term int, log ...int) *server { return crowned(candidateOf(n, term, log...)) }

// crowned gives a candidate everybody's vote.
func crowned(s *server) *server {
	for _, p := range s.peers {
		s.Step(yes(p, s.currentTerm))
	}
	return s
}

// settledLeaderOf is a leader whose whole log everybody stores, so all of it is committed.
func settledLeaderOf(n, term int, log ...int) *server {
	s := leaderOf(n, term, log...)
	for _, p := range s.peers {
		s.Step(stored(s, p, s.lastIndex()))
	}
	return s
}

// inRole is S1 of three in term 2, with two entries of term 1 before its own.
func inRole(r role) *server {
	return []*server{blank(2, 1, 1), candidateOf(3, 2, 1, 1), leaderOf(3, 2, 1, 1)}[r]
}

// fireTimer lets the election timeout end now.
func fireTimer(s *server) Output {
	s.now = s.electionDue - 1
	return s.Step(tick{})
}

func ticks(n int) []input { return slices.Repeat([]input{tick{}}, n) }

// steps is one Step for each input, and what comes of the last.
func steps(s *server, inputs ...input) (out Output) {
	for _, in := range inputs {
		out = s.Step(in)
	}
	return out
}

func tickTimes(s *server, n int) Output { return steps(s, ticks(n)...) }

// askVote is a RequestVote of S2, sendAE an AppendEntries of S2, which leads that term.
func askVote(term, lastIndex, lastTerm int) *Message {
	return &Message{From: 2, To: 1, Term: term, RequestVote: &requestVote{2, lastIndex, lastTerm}}
}

func sendAE(term, prevIndex, prevTerm int, log terms, commit int) *Message {
	return sendEntries(term, prevIndex, prevTerm, commit, entriesOf(log)...)
}

func sendEntries(term, prevIndex, prevTerm, commit int, entries ...*entry) *Message {
	return &Message{From: 2, To: 1, Term: term,
		AppendEntries: &appendEntries{2, prevIndex, prevTerm, entries, commit, 7}}
}

func yes(from, term int) *Message {
	return &Message{From: from, To: 1, Term: term, RequestVoteReply: &requestVoteReply{true}}
}

func no(from, term int) *Message {
	return &Message{From: from, To: 1, Term: term, RequestVoteReply: &requestVoteReply{}}
}

func answerAE(from, term int, r appendEntriesReply) *Message {
	return &Message{From: from, To: 1, Term: term, AppendEntriesReply: &r}
}

// refuse is a refusal by [AE1]. okAE and noAE are replies to the AppendEntries with this seq.
func refuse(from, term int) *Message { return answerAE(from, term, appendEntriesReply{}) }

func okAE(from, term, match, seq int) *Message {
	return answerAE(from, term, appendEntriesReply{Success: true, MatchIndex: match, Seq: seq})
}

func noAE(from, term, prev, conflictTerm, conflictIndex, seq int) *Message {
	return answerAE(from, term, appendEntriesReply{PrevLogIndex: prev, ConflictTerm: conflictTerm,
		ConflictIndex: conflictIndex, Seq: seq})
}

// latest is a seq in a table: that of the newest AppendEntries, which numbered fills in.
const latest = -1

func numbered(s *server, m *Message) *Message {
	if r := m.AppendEntriesReply; r != nil && r.Seq == latest {
		r.Seq = s.seq
	}
	return m
}

// stored is p's reply that it stores everything up to index. It answers the message whose entries
// are unanswered, or else the newest message.
func stored(s *server, p, index int) *Message {
	seq := s.progress[p].unansweredSeq
	if seq == 0 {
		seq = s.seq
	}
	return okAE(p, s.currentTerm, index, seq)
}

// show is a message as the tables write it.
func show(m Message) string {
	rv, ae, r := m.RequestVote, m.AppendEntries, m.AppendEntriesReply
	switch {
	case rv != nil:
		return fmt.Sprintf("RV(%d,%d)", rv.LastLogIndex, rv.LastLogTerm)
	case m.RequestVoteReply != nil:
		return map[bool]string{true: "yes", false: "no"}[m.RequestVoteReply.VoteGranted]
	case ae != nil:
		return fmt.Sprintf("AE(%d,%d,%v,%d)", ae.PrevLogIndex, ae.PrevLogTerm, termsOf(ae.Entries),
			ae.LeaderCommit)
	case r.Success:
		return fmt.Sprintf("ok(%d)", r.MatchIndex)
	case *r == appendEntriesReply{}:
		return "no()"
	}
	return fmt.Sprintf("no(%d;%d@%d)", r.PrevLogIndex, r.ConflictTerm, r.ConflictIndex)
}

// join lists things as text.
func join[T any](things []T, text func(T) string) string {
	var texts []string
	for _, thing := range things {
		texts = append(texts, text(thing))
	}
	return strings.Join(texts, ", ")
}

// sent lists the messages of a Step: "S2 RV(3,2), S3 RV(3,2)".
func sent(out Output) string {
	return join(append(slices.Clone(out.Early), out.Send...), func(m Message) string {
		return fmt.Sprintf("S%d %s", m.To, show(m))
	})
}

// told lists the answers to clients: "c/1 ok, d/2 error: not the leader (S2)".
func told(out Output) string {
	return join(out.Reply, func(r reply) string {
		text := fmt.Sprintf("%s/%d %s", r.Client, r.Serial, r.Result)
		if r.Error != "" {
			text = fmt.Sprintf("%s/%d error: %s", r.Client, r.Serial, r.Error)
		}
		if r.Leader != none {
			text += fmt.Sprintf(" (S%d)", r.Leader)
		}
		return text
	})
}

// records lists what goes to the disk: "t3 v2" is a term and its vote, "#4t3" an entry.
func records(out Output) string {
	return join(out.Persist, func(r record) string {
		if r.entry != nil {
			return fmt.Sprintf("#%dt%d", r.index, r.entry.Term)
		}
		return fmt.Sprintf("t%d v%d", r.term, r.votedFor)
	})
}

// standing is a server's role, term and vote: "F t3 v2".
func standing(s *server) string {
	return fmt.Sprintf("%c t%d v%d", "FCL"[s.role], s.currentTerm, s.votedFor)
}

// clientAt is where the tables' clients wait.
var clientAt = netip.MustParseAddrPort("127.0.0.1:5001")

func asks(client string, serial int, command string) *request {
	return &request{Client: client, Serial: serial, Command: command, to: clientAt}
}

// all prints values with a space between any two, and leaves out what prints as nothing.
func all(values ...any) string {
	var texts []string
	for _, v := range values {
		if text := fmt.Sprint(v); text != "" {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, " ")
}

// same fails the test unless got and want print the same.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// sends and tells hand over inputs, each in a Step of its own, and compare what the last one makes
// a server send to others, and tell clients.
func sends(t *testing.T, s *server, what, want string, inputs ...input) {
	t.Helper()
	same(t, what, sent(steps(s, inputs...)), want)
}

func tells(t *testing.T, s *server, what, want string, inputs ...input) {
	t.Helper()
	same(t, what, told(steps(s, inputs...)), want)
}

// narrationLine is the format of narration: Lamport number, server, role, term, tag, text.
var narrationLine = regexp.MustCompile(
	`^ *\d{1,5} S\d [FCL] t\d+ +(heard|[A-Z][A-Za-z]+\d?[ab]?) +[ -~]+$`)

// stepSafely is Step with an eye on [Persist]: the records make the disk equal to the memory,
// nothing in Send promises more than that disk holds, and narration keeps its format.
func stepSafely(t *testing.T, s *server, inputs ...input) Output {
	t.Helper()
	term, vote, log := s.currentTerm, s.votedFor, slices.Clone(s.log)
	out := s.Step(inputs...)
	for _, r := range out.Persist {
		if r.entry == nil {
			term, vote = r.term, r.votedFor
		} else {
			log = append(log[:r.index], r.entry)
		}
	}
	same(t, "Persist/the disk is equal to the memory", all(term, vote, termsOf(log)),
		all(s.currentTerm, s.votedFor, termsOf(s.log)))
	for _, m := range out.Early { // D6 is for the requests of a leader
		if m.AppendEntries == nil {
			t.Errorf("Persist/%s leaves before the records", show(m))
		}
	}
	for _, m := range out.Send {
		votedFor, needsVote := m.From, m.RequestVote != nil // a candidate has voted for itself
		if r := m.RequestVoteReply; r != nil {
			votedFor, needsVote = m.To, r.VoteGranted
		}
		switch {
		case m.AppendEntries != nil:
			t.Errorf("Persist/%s waits for the disk without need (D6)", show(m))
		case m.Term > term:
			t.Errorf("Persist/%s speaks of term %d, the disk of %d", show(m), m.Term, term)
		case m.Term == term && needsVote && vote != votedFor:
			t.Errorf("Persist/%s needs a vote for S%d on the disk, not S%d", show(m), votedFor,
				vote)
		}
		r := m.AppendEntriesReply
		if r != nil && m.Term == term && r.MatchIndex >= len(log) {
			t.Errorf("Persist/%s, but the disk ends at %d", show(m), len(log)-1)
		}
	}
	if s.watch == 0 && len(out.Trace) > 0 {
		t.Errorf("narration that nobody asked for: %q", out.Trace)
	}
	for _, line := range out.Trace {
		if len(line) > 79 || !narrationLine.MatchString(line) {
			t.Errorf("%q is not a line of narration", line)
		}
	}
	return out
}

// ---- Rules 2. The receivers, and what is on the disk --------------------------------------------
//
// Figure 2's two RPCs, seen from the server that receives them. They are pure tables: state and
// message decide everything. Here lies the safety of Raft. Whoever gets these two boxes right, and
// writes to the disk before replying, can get elections wrong and will still lose nothing.

// TestRequestVoteReceiver is about [RV1] and [RV2]: S2 asks S1 of three, in term 3, for its vote.
func TestRequestVoteReceiver(t *testing.T) {
	rv := askVote
	for _, row := range []struct {
		name  string
		vote  int
		log   terms
		asked *Message // term, last index, last term
		want  string
	}{
		{"RV1/an older term, however good the log", none, terms{1}, rv(2, 9, 2), "no t3 v0"},
		{"RV1/… even from the one who has the vote", 2, terms{1}, rv(2, 9, 2), "no t3 v2"},
		{"RV1/an equal term is not older", none, terms{1}, rv(3, 1, 1), "yes t3 v2"},

		{"RV2/the second gets none, however good its log", 3, terms{1}, rv(3, 5, 2), "no t3 v3"},
		// The first reply may have been lost. A second yes is the same vote.
		{"RV2/the same candidate is granted again", 2, terms{}, rv(3, 0, 0), "yes t3 v2"},
		{"RV2/… unless its log is too old", 2, terms{1}, rv(3, 0, 0), "no t3 v2"},
		{"RV2/a vote binds in its own term only", 3, terms{}, rv(4, 0, 0), "yes t4 v2"},

		// §5.4.1: the last terms decide. Only if they are equal, the lengths do.
		{"RV2/an equal log will do", none, terms{1, 1, 2}, rv(3, 3, 2), "yes t3 v2"},
		{"RV2/one entry short will not", none, terms{1, 1, 2}, rv(3, 2, 2), "no t3 v0"},
		{"RV2/one entry more will do", none, terms{1, 1, 2}, rv(3, 4, 2), "yes t3 v2"},
		{"RV2/longer, but of an older term, will not", none, terms{1, 2}, rv(3, 9, 1), "no t3 v0"},
		{"RV2/shorter, but of a newer term, will do", none, terms{1, 1}, rv(3, 1, 2), "yes t3 v2"},
		{"RV2/one entry against an empty log", none, terms{}, rv(3, 1, 1), "yes t3 v2"},

		// The term is adopted before anything is decided, so a refusal moves it, too.
		{"All2/a refusal adopts a newer term, too", 2, terms{1}, rv(5, 0, 0), "no t5 v0"},
	} {
		s := followerOf(3, 3, row.vote, row.log...)
		out := stepSafely(t, s, row.asked)
		r := out.Send[0]
		same(t, row.name, fmt.Sprintf("%s t%d v%d", show(r), r.Term, s.votedFor), row.want)
		same(t, row.name+": the receiver, the term", all(r.To, r.Term), all(2, s.currentTerm))
	}
}

// TestAppendEntriesReceiver is about [AE1] to [AE5]: S2, which leads, sends to S1 in term 4.
func TestAppendEntriesReceiver(t *testing.T) {
	ae := func(prev, prevTerm int, log terms, commit int) *Message {
		return sendAE(4, prev, prevTerm, log, commit)
	}
	for _, row := range []struct {
		name   string
		log    terms
		commit int
		sent   *Message // prev index, prev term, entries, leaderCommit
		want   string   // reply, log, commitIndex, records
	}{
		{"AE1/an older term, even where it would match", terms{1}, 0, sendAE(3, 1, 1, terms{3}, 1),
			"no() [1] 0"},
		{"AE1/an equal one is not older", terms{1}, 0, ae(1, 1, terms{3}, 1), "ok(2) [1 3] 1 #2t3"},

		{"AE2/the entry before is missing", terms{1}, 0, ae(2, 1, terms{4}, 0), "no(2;0@2) [1] 0"},
		{"AE2/… is the last one", terms{1, 1}, 0, ae(2, 1, terms{4}, 0), "ok(3) [1 1 4] 0 #3t4"},
		{"AE2/its term is off by one", terms{1, 2, 2}, 0, ae(3, 3, terms{4}, 0),
			"no(3;2@2) [1 2 2] 0"},
		{"AE2/… downwards", terms{1, 2, 2}, 0, ae(3, 1, terms{4}, 0), "no(3;2@2) [1 2 2] 0"},
		{"AE2/a heartbeat is checked, too", terms{1, 1}, 0, ae(2, 2, nil, 2), "no(2;1@1) [1 1] 0"},
		{"AE2/nothing comes before entry 1", terms{}, 0, ae(0, 0, terms{4}, 0), "ok(1) [4] 0 #1t4"},
		{"AE2/… also if it differs", terms{1, 1}, 0, ae(0, 0, terms{4}, 0), "ok(1) [4] 0 #1t4"},
		{"AE3/a conflict, and all behind it", terms{1, 1, 2, 2}, 2, ae(2, 1, terms{3}, 0),
			"ok(3) [1 1 3] 2 #3t3"},
		{"AE3/what is equal before a conflict stays", terms{1, 2}, 0,
			ae(0, 0, terms{1, 3, 3, 3}, 0), "ok(4) [1 3 3 3] 0 #2t3, #3t3, #4t3"},
		{"AE3/late: it cuts nothing", terms{1, 1, 1}, 0, ae(0, 0, terms{1}, 0), "ok(1) [1 1 1] 0"},

		{"AE4/a duplicate appends nothing", terms{1, 4}, 0, ae(1, 1, terms{4}, 0), "ok(2) [1 4] 0"},
		{"AE4/only the rest is new", terms{1}, 0, ae(0, 0, terms{1, 4}, 0), "ok(2) [1 4] 0 #2t4"},

		{"AE5/below the last new entry", terms{1}, 0, ae(1, 1, terms{4, 4}, 2),
			"ok(3) [1 4 4] 2 #2t4, #3t4"},
		{"AE5/beyond the last new entry", terms{1}, 0, ae(1, 1, terms{4}, 9), "ok(2) [1 4] 2 #2t4"},
		// Entry 2 was never compared with the leader's. It may be another one.
		{"AE5/the last new entry, no further", terms{1, 1}, 0, ae(1, 1, nil, 2), "ok(1) [1 1] 1"},
		{"AE5/a heartbeat at the end", terms{1, 4}, 0, ae(2, 4, nil, 2), "ok(2) [1 4] 2"},
		// Datagrams overtake each other, and commitIndex never falls.
		{"AE5/an older leaderCommit", terms{1, 4}, 2, ae(2, 4, nil, 1), "ok(2) [1 4] 2"},
		{"AE5/an earlier last new entry", terms{1, 4}, 2, ae(1, 1, nil, 2), "ok(1) [1 4] 2"},

		// D5: a refusal names the conflicting term and the index where it begins.
		{"D5/the term there", terms{1, 2, 2, 2, 3}, 0, ae(4, 4, nil, 0), "no(4;2@2) [1 2 2 2 3] 0"},
		{"D5/a term of one entry", terms{1, 2, 3, 3}, 0, ae(2, 4, nil, 0), "no(2;2@2) [1 2 3 3] 0"},
		{"D5/far behind our last", terms{1, 2, 2}, 0, ae(9, 2, nil, 0), "no(9;0@4) [1 2 2] 0"},
	} {
		s := blank(4, row.log...)
		s.commitIndex = row.commit
		row.sent.At = 50
		out := stepSafely(t, s, row.sent)
		r, seq := out.Send[0], row.sent.AppendEntries.Seq
		if row.sent.Term < 4 {
			seq = 0 // the number of an earlier reign must not confirm anything in this one
		}
		same(t, row.name, all(show(r), logOf(s), s.commitIndex, records(out)), row.want)
		same(t, row.name+": the reply's sender, receiver, term, seq, and that it is later",
			all(r.From, r.To, r.Term, r.AppendEntriesReply.Seq, r.At > 50), all(1, 2, 4, seq, true))
	}
}

// in is what arrives, in one row.
type in = []input

// situation is a row: what a server makes of inputs.
type situation struct {
	name   string
	server *server
	inputs []input
	want   string
}

// TestPersist is about [Persist]: what goes to the disk, in which order, with which messages.
func TestPersist(t *testing.T) {
	for _, row := range []situation{
		{"a vote", blank(3), in{askVote(3, 0, 0)}, "t3 v2 | S2 yes"},
		{"a term, then a vote", followerOf(3, 3, 1), in{askVote(4, 0, 0)}, "t4 v0, t4 v2 | S2 yes"},
		{"a term alone", followerOf(3, 3, 1, 1), in{askVote(4, 0, 0)}, "t4 v0 | S2 no"},
		{"nothing: the same vote again", followerOf(3, 3, 2), in{askVote(3, 0, 0)}, "| S2 yes"},
		// If term and vote were two records, a crash between them could free the vote.
		{"a candidacy: 1 record", followerOf(3, 3, 2), ticks(30), "t4 v1 | S2 RV(0,0), S3 RV(0,0)"},
		{"a cut has none", blank(3, 1, 1, 1), in{sendAE(3, 1, 1, terms{3}, 0)}, "#2t3 | S2 ok(2)"},
		{"a term, then entries", blank(2), in{sendAE(3, 0, 0, terms{3, 3}, 0)},
			"t3 v0, #1t3, #2t3 | S2 ok(2)"},
		{"a leader's first", candidateOf(3, 2), in{yes(2, 2)},
			"#1t2 | S2 AE(0,0,[2],0), S3 AE(0,0,[2],0)"},
		{"D7/many inputs share one Output", blank(3),
			in{sendAE(3, 0, 0, terms{3}, 0), askVote(4, 1, 3)},
			"#1t3, t4 v0, t4 v2 | S2 ok(1), S2 yes"},
	} {
		out := stepSafely(t, row.server, row.inputs...)
		same(t, "Persist/"+row.name, all(records(out), "|", sent(out)), row.want)
		out = row.server.Step()
		same(t, "Persist/"+row.name+": once", all(records(out), sent(out)), "")
	}
}

// TestImpossible is about the assertions, which are Figure 3 and its kin: what can never happen
// stops the server before the damage spreads.
func TestImpossible(t *testing.T) {
	committed := blank(4, 1, 1)
	committed.commitIndex = 2
	for _, row := range []struct {
		invariant string // or nothing: a neighbour that is possible
		do        func()
	}{
		{"Election Safety", func() { leaderOf(3, 4).Step(sendAE(4, 0, 0, nil, 0)) }},
		{"", func() { leaderOf(3, 4).Step(sendAE(3, 0, 0, nil, 0)) }},
		{"State Machine Safety", func() { committed.Step(sendAE(4, 1, 1, terms{4}, 2)) }},
		{"", func() { committed.Step(sendAE(4, 2, 1, terms{4}, 2)) }},
		{"Leader Append-Only", func() { leaderOf(3, 4, 1).store(2, &entry{Term: 4}) }},
		{"", func() { leaderOf(3, 4, 1).store(3, &entry{Term: 4}) }},
		{"no gaps", func() { blank(4, 1).store(3, &entry{Term: 4}) }},
		{"", func() { blank(4, 1).store(2, &entry{Term: 4}) }},
		{"one vote per term", func() { followerOf(3, 4, 2).setTermAndVote(4, 3) }},
		{"one vote per term", func() { followerOf(3, 4, 2).setTermAndVote(4, none) }},
		{"", func() { blank(4).setTermAndVote(4, 3) }},
		{"", func() { followerOf(3, 4, 2).setTermAndVote(5, 3) }},
		{"terms never fall", func() { blank(4).setTermAndVote(3, none) }},
	} {
		func() {
			defer func() {
				broken, _ := recover().(brokenInvariant)
				same(t, row.invariant, strings.Contains(string(broken), row.invariant), true)
				same(t, row.invariant+" stops the server", broken != "", row.invariant != "")
			}()
			row.do()
		}()
	}
}

// TestAllServersTerm is about [All2] and [Fol1]: every message to every role, of the term before,
// of this term, and of the next one.
func TestAllServersTerm(t *testing.T) {
	for _, row := range []struct {
		name    string
		message func(term int) *Message
		equal   string // the follower, candidate, leader afterwards, if the term is equal
		replies int
	}{
		{"RequestVote", func(term int) *Message { return askVote(term, 9, term-1) }, "FCL", 1},
		{"its reply yes", func(term int) *Message { return yes(2, term) }, "FLL", 0}, // [Cand2]
		{"its reply no", func(term int) *Message { return no(2, term) }, "FCL", 0},
		// A leader never meets another one of its term: TestImpossible.
		{"AppendEntries", func(term int) *Message { return sendAE(term, 0, 0, nil, 0) }, "FF-", 1},
		// [Cand3]
		{"its reply ok", func(term int) *Message { return okAE(2, term, 0, 1) }, "FCL", 0},
		{"its reply no", func(term int) *Message { return refuse(2, term) }, "FCL", 0},
	} {
		for i := range 3 {
			for term, roles := range map[int]string{4: "FCL", 5: row.equal, 6: "FFF"} {
				if roles[i] == '-' {
					continue
				}
				s := []*server{followerOf(3, 5, 3, 1), candidateOf(3, 5, 1), leaderOf(3, 5, 1)}[i]
				s.leaderID = 9
				vote := s.votedFor
				if term == 6 { // whatever the message says, and before anything else is looked at
					vote = map[string]int{"RequestVote": 2}[row.name]
				}
				name := fmt.Sprintf("All2/%c in term 5, %s of term %d", "FCL"[i], row.name, term)
				out := stepSafely(t, s, row.message(term))
				same(t, name, standing(s), fmt.Sprintf("%c t%d v%d", roles[i], max(5, term), vote))
				same(t, name+": replies", len(out.Send), row.replies)
				for _, m := range out.Send {
					same(t, name+": the reply", all(m.From, m.To, m.Term), all(1, 2, max(5, term)))
				}
				if term == 6 && row.name != "AppendEntries" {
					same(t, name+": its leader is unknown", s.leaderID, none)
				}
			}
		}
	}
}

// ---- Rules 3. Elections -------------------------------------------------------------------------
//
// Elections are about liveness: somebody must lead before long, and nobody may be deposed without
// need. Timers decide that, so the question is always the same: which event restarts which timer?

// TestElectionTimer is about [Fol2]. If too few events restart the timer, a living leader is
// deposed. If too many do, a server that cannot win keeps others from trying.
func TestElectionTimer(t *testing.T) {
	for _, row := range []struct {
		name     string
		server   *server
		input    input
		restarts bool
	}{
		{"AppendEntries of the current leader", blank(4, 1, 1), sendAE(4, 2, 1, nil, 0), true},
		{"… also if refused: the leader lives", blank(4, 1, 1), sendAE(4, 9, 4, nil, 0), true},
		{"… not of a former leader", blank(4, 1, 1), sendAE(3, 2, 1, nil, 0), false},
		{"a vote granted", blank(4, 1, 1), askVote(4, 2, 1), true},
		{"… not granted again: it may be deaf", followerOf(3, 4, 2), askVote(4, 0, 0), false},
		{"… not refused for the log", blank(4, 1, 1), askVote(4, 1, 1), false},
		{"… not refused for another's vote", followerOf(3, 4, 3), askVote(4, 2, 1), false},
		{"a higher term is no news of a leader", blank(4, 1, 1), askVote(5, 1, 1), false},
		{"… nor is it in a reply", candidateOf(3, 4, 1), no(2, 5), false},
		{"a candidate yields to the leader", candidateOf(3, 4, 1), sendAE(4, 1, 1, nil, 0), true},
		{"a candidate gets a vote", candidateOf(5, 4, 1), yes(2, 4), false},
		{"a leader steps down: it had none running", leaderOf(3, 4, 1), askVote(5, 0, 0), true},
	} {
		s := row.server
		s.electionDue = s.now + electionTicksMin - 1 // where no new timer can end
		before := s.electionDue
		stepSafely(t, s, row.input)
		same(t, "Fol2/"+row.name+": restarts", s.electionDue != before, row.restarts)
	}

	s := blank(4)
	seen := map[int]bool{}
	for range 1000 {
		s.resetElectionTimer()
		seen[s.electionDue-s.now] = true
	}
	same(t, "Fol2/timeouts are drawn from the whole range", slices.Sorted(maps.Keys(seen)),
		"[15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30]")
	tickTimes(s, s.electionDue-1)
	same(t, "Fol2/one tick early", standing(s), "F t4 v0")
	s.Step(sendAE(4, 0, 0, nil, 0), tick{})
	same(t, "Fol2/a heartbeat right before the tick counts", standing(s), "F t4 v0")
}

// TestCandidate is about [Cand1] to [Cand4]. S1 is the candidate of term 5.
func TestCandidate(t *testing.T) {
	for _, row := range []situation{
		{"Cand2/2 of 3", candidateOf(3, 5), in{yes(2, 5)}, "L"},
		{"Cand2/2 of 4 are no majority", candidateOf(4, 5), in{yes(2, 5)}, "C"},
		{"D2/one voter twice is one vote", candidateOf(5, 5), in{yes(2, 5), yes(2, 5)}, "C"},
		{"Cand2/refusals are no votes", candidateOf(3, 5), in{no(2, 5), no(3, 5)}, "C"},
		{"Cand2/a vote of an earlier election", candidateOf(3, 5), in{yes(2, 4)}, "C"},
		{"D2/a late no takes none back", candidateOf(5, 5), in{yes(2, 5), no(2, 5), yes(3, 5)},
			"L"},

		{"Cand3/AppendEntries of this term", candidateOf(3, 5), in{sendAE(5, 0, 0, nil, 0)}, "F"},
		{"Cand3/… also one that is refused", candidateOf(3, 5), in{sendAE(5, 9, 4, nil, 0)}, "F"},
		{"Cand3/… not of an older term", candidateOf(3, 5), in{sendAE(4, 0, 0, nil, 0)}, "C"},
		{"Cand3/a late vote", candidateOf(3, 5), in{sendAE(5, 0, 0, nil, 0), yes(3, 5)}, "F"},
	} {
		for _, in := range row.inputs {
			stepSafely(t, row.server, in)
		}
		same(t, row.name, standing(row.server), row.want+" t5 v1")
	}

	s := followerOf(4, 4, 3, 1, 2)
	s.Step(sendAE(4, 2, 2, nil, 0))
	out := fireTimer(s)
	same(t, "Cand1/a new term, its own vote, everybody is asked", all(standing(s), sent(out)),
		"C t5 v1 S2 RV(2,2), S3 RV(2,2), S4 RV(2,2)")
	same(t, "Cand1/… in its own name and term",
		all(out.Send[0].RequestVote.CandidateID, out.Send[0].Term), "1 5")
	same(t, "Cand1/the timer starts", s.electionDue-s.now >= 15, true)
	tells(t, s, "Cand1/it follows nobody", "c/1 error: not the leader", asks("c", 1, "set x 1"))
	s.Step(yes(2, 5), no(3, 5))
	out = fireTimer(s)
	same(t, "Cand4/the next election", all(standing(s), sent(out)),
		"C t6 v1 S2 RV(2,2), S3 RV(2,2), S4 RV(2,2)")
	s.Step(yes(3, 6))
	same(t, "Cand4/… counts anew: the vote of term 5 is gone", standing(s), "C t6 v1")
	s.Step(yes(4, 6))
	same(t, "Cand2/the third of four", standing(s), "L t6 v1")

	s = candidateOf(3, 5)
	s.now = s.electionDue - 1
	s.Step(yes(2, 5), tick{})
	same(t, "Cand4/a vote in the tick of the timeout comes too late", standing(s), "C t6 v1")
	s.Step(sendAE(6, 0, 0, nil, 0))
	sends(t, s, "Cand3/the vote for itself stays given", "S2 no", askVote(6, 0, 0))
	tells(t, s, "Cand3/it tells who leads", "c/1 error: not the leader (S2)", asks("c", 1, "del x"))

	s = followerOf(1, 0, none)
	out = fireTimer(s)
	same(t, "Cand2/alone: elected and committed in one Step",
		all(standing(s), s.commitIndex, records(out)), "L t1 v1 1 t1 v1, #1t1")
	out = stepSafely(t, s, asks("c", 1, "set x 1"), asks("c", 2, "get x"))
	same(t, "Lead2/alone: the answer stands behind its record", all(records(out), "|", told(out)),
		"#2t1 | c/1 ok, c/2 1")
	tickTimes(s, 100)
	same(t, "CQ1/alone: it is its own majority, and stays in term 1", standing(s), "L t1 v1")
}

// TestMajority counts votes [Cand2], copies [Lead4], readers' rounds [RD3], answers to a leader
// [CQ1] and to a candidate [CQ2]. A majority of n/2 instead of n/2+1 shows only where n is even.
func TestMajority(t *testing.T) {
	for n, others := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3} {
		for answers := range n {
			is := func(what string, got bool) {
				t.Helper()
				same(t, fmt.Sprintf("%s: %d of %d", what, 1+answers, n), got, answers >= others)
			}
			s, refused := candidateOf(n, 2), candidateOf(n, 2)
			for p := range answers {
				s.Step(yes(2+p, 2))
				refused.Step(no(2+p, 2))
			}
			is("Cand2/elect a leader", s.role == leader)
			if fireTimer(refused); n > 1 {
				is("CQ2/let a candidate begin a new term", refused.currentTerm == 3)
			}
			s = leaderOf(n, 2)
			answer := func() (replies int) {
				for p := range answers {
					replies += len(s.Step(stored(s, 2+p, 1)).Reply)
				}
				return replies
			}
			answer()
			is("Lead4/commit", s.commitIndex == 1)
			s = settledLeaderOf(n, 2)
			is("RD3/confirm a read", len(s.Step(asks("c", 1, "get x")).Reply)+answer() == 1)
			tickTimes(s, 29)
			answer()
			s.Step(tick{})
			is("CQ1/keep a leader", s.role == leader)
		}
	}
}

// TestCheckQuorum is about [CQ1]: a leader that nobody hears, or that hears nobody, makes room.
func TestCheckQuorum(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer *Message
		stays  bool
	}{
		{"a success", okAE(2, 4, 0, latest), true},
		{"a refusal by [AE2] is word of a follower, too", noAE(2, 4, 9, 0, 1, latest), true},
		{"a refusal by [AE1] answers an earlier reign", refuse(2, 4), false},
		{"a reply of an older term", okAE(2, 3, 0, latest), false},
		{"a vote", yes(2, 4), false},
		{"a candidate of an older term", askVote(3, 0, 0), false},
	} {
		s := leaderOf(3, 4, 1) // the 30 ticks begin with its election, not with its life
		s.Step(asks("c", 1, "set x 1"), asks("r", 1, "get x"))
		tickTimes(s, 29)
		s.Step(numbered(s, row.answer))
		out := stepSafely(t, s, tick{})
		same(t, "CQ1/"+row.name, s.role == leader, row.stays)
		if row.stays {
			tickTimes(s, 28)
			same(t, "CQ1/… for 29 ticks more", standing(s), "L t4 v1")
			out = stepSafely(t, s, tick{})
		}
		same(t, "CQ1/steps down, keeps term and vote, sends and writes nothing",
			all(standing(s), sent(out), records(out)), "F t4 v1")
		same(t, "CQ1/it forgets who waits", all(s.waiting, s.reads), "map[] []")
		tells(t, s, "CQ1/nobody leads now", "c/1 error: not the leader", asks("c", 1, "set x 1"))
		same(t, "CQ1/… and a follower's timer runs", s.electionDue-s.now >= 15, true)
		sends(t, s, "CQ1/the vote of this term stays given", "S2 no", askVote(4, 9, 4))
		fireTimer(s)
		same(t, "CQ1/nobody wins a term twice: a timeout opens a new one", standing(s), "C t5 v1")
	}
}

// TestCandidateAsksOn is about [CQ2]: a candidate that cannot win does not raise the term.
func TestCandidateAsksOn(t *testing.T) {
	s := candidateOf(5, 4, 1)
	s.Step(yes(2, 4), yes(2, 4)) // one server, twice
	for range 3 {
		s.now = s.electionDue - 1
		out := stepSafely(t, s, tick{})
		same(t,
			"CQ2/2 of 5 have answered: everybody is asked again, in this term, without a record",
			all(standing(s), sent(out), records(out)),
			"C t4 v1 S2 RV(1,1), S3 RV(1,1), S4 RV(1,1), S5 RV(1,1)")
		same(t, "CQ2/the timer starts anew", s.electionDue-s.now >= 15, true)
	}
	s.Step(yes(3, 4))
	same(t, "CQ2/votes of all rounds count: they are of one term", standing(s), "L t4 v1")

	s = candidateOf(5, 4, 1)
	s.Step(no(2, 4), no(3, 4))
	fireTimer(s)
	same(t, "Cand4/3 of 5 have answered, and it has not won: a new term", standing(s), "C t5 v1")
	fireTimer(s)
	same(t, "CQ2/answers of the term before do not count", standing(s), "C t5 v1")
}

// ---- Rules 4. The leader ------------------------------------------------------------------------
//
// A leader's life is a loop: send what a follower lacks, believe what it confirms, commit what a
// majority confirms. The hard part are replies that come late, twice, or in the wrong order, and
// entries that get no reply at all.

// TestHeartbeat is about [Lead1].
func TestHeartbeat(t *testing.T) {
	s := candidateOf(3, 2, 1)
	out := s.Step(yes(2, 2))
	same(t, "Lead1/at once when elected, with the empty entry (D3)", sent(out),
		"S2 AE(1,1,[2],0), S3 AE(1,1,[2],0)")
	m := out.Early[1]
	same(t, "Lead1/sender, receiver, term, leader, seq",
		all(m.From, m.To, m.Term, m.AppendEntries.LeaderID, m.AppendEntries.Seq), "1 3 2 1 2")

	s = settledLeaderOf(3, 2, 1)
	sends(t, s, "Lead1/not yet", "", ticks(4)...)
	sends(t, s, "Lead1/when idle; it tells the commit", "S2 AE(2,2,[],2), S3 AE(2,2,[],2)", tick{})
	tickTimes(s, 3)
	s.Step(asks("c", 1, "set x 1"))
	s.Step(stored(s, 2, 3), stored(s, 3, 3))
	sends(t, s, "Lead1/entries were sent since, so it is not idle", "", ticks(4)...)
	sends(t, s, "Lead1/idle again", "S2 AE(3,2,[],3), S3 AE(3,2,[],3)", tick{})

	s = candidateOf(3, 2, 1)
	s.noopOff = true
	sends(t, s, "Lead1/at once, also empty", "S2 AE(1,1,[],0), S3 AE(1,1,[],0)", yes(2, 2))
	sends(t, blank(2), "Lead1/a follower sends nothing", "", ticks(14)...)
}

// TestUnanswered is about [Lead3]: a message carries entries exactly when none are unanswered. Only
// a reply clears that: its own, or a later one when the entries are a heartbeat interval old.
func TestUnanswered(t *testing.T) {
	s := leaderOf(3, 4, 1)
	sends(t, s, "Lead3/a command waits while entries are unanswered", "", asks("c", 1, "set x 1"))
	sends(t, s, "Lead3/S2 has answered: it gets the next one", "S2 AE(2,4,[4],2)", okAE(2, 4, 2, 1))
	sends(t, s, "Lead3/S3 has not: it gets none", "S2 AE(2,4,[],2), S3 AE(1,1,[],2)", ticks(5)...)

	for _, row := range []struct {
		name  string
		ticks int
		reply *Message
		sends string // to S2, which got seq 1 with entry 2, and then heartbeats
	}{
		{"the reply to it, late", 9, okAE(2, 4, 2, 1), "S2 AE(2,4,[4],2)"},
		{"a later reply may only have overtaken it", 4, okAE(2, 4, 1, latest), ""},
		{"… but hardly after a heartbeat interval", 5, okAE(2, 4, 1, latest), "S2 AE(1,1,[4 4],0)"},
		{"a reply without a number", 5, okAE(2, 4, 1, 0), ""},
		{"a reply of an older term", 5, okAE(2, 3, 1, 1), ""},
		{"a refusal settles it, too", 0, noAE(2, 4, 1, 0, 1, 1), "S2 AE(0,0,[1 4 4],0)"},
	} {
		s := leaderOf(2, 4, 1)
		s.Step(asks("c", 1, "set x 1"))
		s.roundDue = true // so that there is a later message even before the first heartbeat
		s.Step()
		tickTimes(s, row.ticks)
		out := stepSafely(t, s, numbered(s, row.reply))
		same(t, "Lead3/unanswered: "+row.name, sent(out), row.sends)
	}

	s = settledLeaderOf(2, 4, 1)
	s.Step(asks("c", 1, "set x 1"))
	s.Step(okAE(2, 4, 3, s.seq))
	s.Step(asks("c", 2, "set x 2"))
	tickTimes(s, 5)
	sends(t, s, "Lead3/a reply to an earlier message clears nothing", "", okAE(2, 4, 3, s.seq-2))
	sends(t, s, "Lead3/only a reply clears it, never time alone", "S2 AE(3,4,[],3)", ticks(20)...)
	sends(t, s, "Lead3/a success that overtook it is enough", "", okAE(2, 4, 4, s.seq))
	sends(t, s, "Lead3/… and so the way is free", "S2 AE(4,4,[4],4)", asks("c", 3, "set x 3"))
}

// TestLimit is about D4: the bytes of entries in one message are halved when entries were lost, and
// rise by an eighth when they arrived. The limit never reaches 0, and one entry always goes.
func TestLimit(t *testing.T) {
	s := settledLeaderOf(2, 4)
	for serial := range 6 {
		s.Step(asks("c", serial+1, "set x "+strings.Repeat("v", 300)))
	}
	s.Step(stored(s, 2,
		2)) // entry 2 went alone; entries 3 to 7, of 320 bytes each, are on their way
	s.Step(noAE(2, 4, 2, 0, 2, s.seq))
	same(t, "D4/a refusal says nothing about sizes", s.progress[2].limit, 64_995)
	halved := "32497 5, 16248 5, 8124 5, 4062 5, 2031 5, 1015 3, 512 1, 512 1"
	for _, want := range strings.Split(halved, ", ") {
		tickTimes(s, 5)
		out := s.Step(okAE(2, 4, 2,
			s.seq)) // a heartbeat arrives, and the entries before it did not
		got := all(s.progress[2].limit, len(out.Early[0].AppendEntries.Entries))
		same(t, "D4/lost: limit, entries sent", got, want)
	}
	for _, want := range []string{"576 1", "648 2", "729 1"} {
		out := s.Step(stored(s, 2, s.progress[2].unansweredIndex))
		got := all(s.progress[2].limit, len(out.Early[0].AppendEntries.Entries))
		same(t, "D4/arrived: limit, entries sent", got, want)
	}
	s.progress[2].limit = 64_000
	s.Step(stored(s, 2, 7))
	same(t, "D4/never above what a datagram carries", s.progress[2].limit, 64_995)
}

// TestBatch is about D4, too: how many entries fit, and that a message owns what it carries.
func TestBatch(t *testing.T) {
	of := func(command string) *entry { return &entry{1, "c", 1, command} }
	small, quoted, large := of("set x 1"), of(`set x "\`), of("set x "+strings.Repeat("v", 500))
	for _, e := range []*entry{small, quoted, large, {Term: 12}} {
		same(t, "D4/the size is that of its JSON and a comma: "+e.Command, e.size(), len(encode(e)))
	}
	s := followerWith(2, 1, none, small, small, quoted, large, small)
	for _, row := range []struct{ index, limit, want int }{
		{1, 32, 2}, {1, 31, 1}, {1, 1, 1}, {1, 0, 1}, // one always goes
		{2, 16 + quoted.size(), 2}, {2, 16 + quoted.size() - 1, 1},
		{3, 100, 1}, // the large one ends the batch; a small one behind it would leave a hole
		{1, 10_000, 5}, {6, 10_000, 0},
	} {
		got := len(s.batch(row.index, row.limit))
		same(t, fmt.Sprintf("D4/from %d on, %d bytes", row.index, row.limit), got, row.want)
	}

	s = settledLeaderOf(3, 2)
	out := s.Step(asks("c", 1, "set x old"))
	s.Step(sendAE(3, 1, 2, terms{3}, 0)) // [AE3] cuts what is in the message
	same(t, "D4/a message is a copy: a cut does not rewrite it",
		out.Early[0].AppendEntries.Entries[0].Command, "set x old")
	same(t, "D4/… while the log has changed", logOf(s), terms{2, 3})
}

// TestAppendEntriesReply is about [Lead3a], [Lead3b] and D5. S1 leads term 4 of three servers. Its
// log is 1 1 2 2 4, and entry 5 is on its way to both, as seq 1 and 2. A row has what S2 answers,
// and what the leader then believes of it and sends.
func TestAppendEntriesReply(t *testing.T) {
	type got = []*Message
	ok := func(match, seq int) *Message { return okAE(2, 4, match, seq) }
	no := func(prev, term, index, seq int) *Message { return noAE(2, 4, prev, term, index, seq) }
	for _, row := range []struct {
		name    string
		replies []*Message
		want    string // matchIndex, nextIndex, commitIndex, the last Step's messages to S2
	}{
		{"Lead3a/everything is stored", got{ok(5, 1)}, "5 6 5"},
		{"Lead3a/an earlier reply, overtaken by a later one", got{ok(5, 1), ok(3, 1)}, "5 6 5"},
		{"Lead3a/a heartbeat's reply confirms what the heartbeat did", got{ok(4, 2)}, "4 5 0"},
		{"Lead3a/not of an earlier reign", got{okAE(2, 3, 5, 1)}, "0 5 0"},

		{"Lead3b/where the follower ends", got{no(4, 0, 2, 1)}, "0 2 0 AE(1,1,[1 2 2 4],0)"},
		{"Lead3b/… whatever the follower says", got{no(4, 0, 9, 1)}, "0 4 0 AE(3,2,[2 4],0)"},
		{"Lead3b/to the first", got{no(4, 1, 1, 1), no(2, 3, 1, 3)}, "0 1 0 AE(0,0,[1 1 2 2 4],0)"},
		{"Lead3b/not of an earlier reign", got{noAE(2, 3, 4, 0, 2, 1)}, "0 5 0"},
		{"AE1/a refusal without a number is of an earlier reign", got{no(4, 0, 2, 0)}, "0 5 0"},
		{"Lead3b/doubled: the first was heeded", got{no(4, 0, 2, 1), no(4, 0, 2, 1)}, "0 2 0"},
		{"Lead3b/of a later one", got{no(4, 0, 3, 1), no(2, 1, 1, 3)}, "0 2 0 AE(1,1,[1 2 2 4],0)"},
		{"Lead3b/of something higher", got{no(9, 0, 2, 1)}, "0 5 0 AE(4,2,[4],0)"},
		{"Lead3b/late: all is confirmed by now", got{ok(5, 1), no(4, 0, 2, 1)}, "5 6 5"},
		{"Lead3b/never below what is confirmed", got{ok(3, 2), no(4, 0, 2, 1)},
			"3 4 0 AE(3,2,[2 4],0)"},
		{"Lead3b/… which cannot be refused", got{ok(4, 2), no(4, 0, 2, 1)}, "4 5 0 AE(4,2,[4],0)"},
		{"Lead3b/a refusal confirms nothing",
			got{answerAE(2, 4,
				appendEntriesReply{MatchIndex: 5, PrevLogIndex: 4, ConflictIndex: 4, Seq: 1})},
			"0 4 0 AE(3,2,[2 4],0)"},

		// D5: the leader has the last entry of the conflicting term at 4, at 2, or nowhere.
		{"D5/it has that term: behind its last", got{no(4, 1, 1, 1)}, "0 3 0 AE(2,1,[2 2 4],0)"},
		{"D5/… if that is lower than before", got{no(4, 2, 3, 1)}, "0 4 0 AE(3,2,[2 4],0)"},
		{"D5/it lacks that term: all of it goes", got{no(4, 3, 2, 1)}, "0 2 0 AE(1,1,[1 2 2 4],0)"},
		{"D5/a term newer than its own", got{no(4, 5, 3, 1)}, "0 3 0 AE(2,1,[2 2 4],0)"},
	} {
		s := leaderOf(3, 4, 1, 1, 2, 2)
		var out Output
		for _, reply := range row.replies {
			out = stepSafely(t, s, reply)
		}
		out.Early = slices.DeleteFunc(out.Early, func(m Message) bool { return m.To == 3 })
		is := all(s.matchIndex[2], s.nextIndex[2], s.commitIndex,
			strings.TrimPrefix(sent(out), "S2 "))
		same(t, row.name, is, row.want)
		is = all(s.matchIndex[3], s.nextIndex[3], s.progress[3].unansweredSeq)
		same(t, row.name+": S3 is not concerned", is, "0 5 2")
	}
}

// TestCommit is about [Lead4]. S1 leads term 4 with the log 1 3 3 4 4.
func TestCommit(t *testing.T) {
	for _, row := range []struct {
		name  string
		match []int // of S2, S3, …
		want  int
	}{
		{"the highest index that one has", []int{5, 4}, 5},
		{"of five, the third best", []int{5, 4, 1, 0}, 4},
		// Figure 8: an entry of an older term may be on all servers and still be overwritten.
		{"not an entry of an older term, on all servers", []int{3, 3}, 0},
		{"… until one of this term carries it", []int{3, 4}, 4},
	} {
		s := leaderOf(len(row.match)+1, 4, 1, 3, 3)
		s.Step(asks("c", 1, "set x 1"))
		for i, match := range row.match {
			stepSafely(t, s, stored(s, 2+i, match))
		}
		same(t, "Lead4/"+row.name, s.commitIndex, row.want)
	}
	s := leaderOf(3, 4, 1)
	s.Step(stored(s, 2, 2), askVote(5, 9, 4))
	same(t, "Lead4/not by one who leads no more", s.commitIndex, 0)
	s = settledLeaderOf(3, 4, 1)
	steps(s, askVote(5, 9, 4), sendAE(5, 2, 4, terms{5, 5}, 0))
	s.matchIndex = map[int]int{2: 4, 3: 4}
	s.Step()
	same(t, "Lead4/… nor from what it knew when it did", s.commitIndex, 2)
}

// TestApply is about [All1]: entries are applied once they are committed, in order, one by one.
func TestApply(t *testing.T) {
	ae := sendEntries(4, 0, 0, 2, &entry{4, "c", 1, "set x a"}, &entry{4, "c", 2, "set x b"},
		&entry{4, "c", 3, "set x c"})
	s := blank(4)
	out := s.Step(ae)
	same(t, "All1/up to commitIndex and no further; a follower answers no client",
		all(s.lastApplied, s.machine.get("x"), told(out)), "2 b")
	s.Step(sendAE(4, 3, 4, nil, 3))
	same(t, "All1/the next one", all(s.lastApplied, s.machine.get("x")), "3 c")
	s.Step(ae)
	same(t, "All1/a doubled message applies nothing", all(s.lastApplied, s.machine.get("x")), "3 c")
	again := followerWith(3, 4, none, s.log[1:]...)
	again.Step()
	same(t, "All1/nothing is committed after a restart: a log alone is no proof",
		all(again.lastApplied, again.machine.get("x")), "0 (none)")

	s = blank(4, slices.Repeat(terms{4}, 5001)...)
	s.Step(sendAE(4, 5001, 4, nil, 5001))
	same(t, "All1/a long log is applied in pieces", all(s.lastApplied, s.behind()), "5000 true")
	s.Step()
	same(t, "All1/the rest in the next Step", all(s.lastApplied, s.behind()), "5001 false")
}

// TestStepDown is about a leader that meets a higher term [All2], and about what must not survive a
// reign: who waits, what was sent, and what was confirmed.
func TestStepDown(t *testing.T) {
	s := settledLeaderOf(3, 4)
	s.Step(asks("c", 1, "set x 1"), asks("r", 1, "get x"))
	out := stepSafely(t, s, sendAE(5, 2, 4, terms{5}, 3))
	same(t, "All2/another leader has committed it: no word of that from here",
		all(standing(s), told(out), s.lastApplied), "F t5 v0 3")
	tells(t, s, "All2/it names S2", "c/1 error: not the leader (S2)", asks("c", 1, "set x 1"))
	sends(t, s, "All2/no more heartbeats", "", ticks(5)...)
	s.Step(okAE(3, 5, 3, 9), okAE(3, 4, 3, s.seq))
	same(t, "All2/replies to a former leader are void", all(s.matchIndex[3], s.commitIndex), "1 3")
	fireTimer(s)
	out = s.Step(yes(3, 6))
	same(t, "Lead1/a new reign begins anew", all(sent(out), s.matchIndex, s.nextIndex),
		"S2 AE(3,5,[6],3), S3 AE(3,5,[6],3) map[2:0 3:0] map[2:4 3:4]")
	same(t, "Lead1/… and so do its numbers", out.Early[0].AppendEntries.Seq, 1)
	tells(t, s, "RD3/nobody from the reign before is answered", "", okAE(3, 6, 4, 2))
	out = s.Step(asks("r", 2, "get x"), okAE(2, 6, 4, 1))
	same(t, "RD3/the last round of the reign before does not delay this one's", sent(out),
		"S2 AE(4,6,[],4), S3 AE(4,6,[],4)")
	tells(t, s, "SE1/a write of then waits no more; SE2 answers", "c/1 ok", asks("c", 1, "set x 1"))

	s = settledLeaderOf(3, 4)
	// Another leader's entry takes the place of S1's.
	steps(s, asks("c", 1, "set x mine"), sendAE(5, 1, 4, terms{5}, 0))
	fireTimer(s)
	s.Step(yes(2, 6))
	tells(t, s, "Lead2/nobody is told that an overwritten command is done", "", stored(s, 2, 3))
	s.Step(asks("c", 1, "set x mine"))
	same(t, "SE1/who waited in an earlier reign is forgotten: it is appended", s.lastIndex(), 4)
	tells(t, s, "Lead2/… and answered", "c/1 ok", stored(s, 2, 4))
}

// ---- Rules 5. Figures 7 and 8, and other stories ------------------------------------------------
//
// A desk is the smallest cluster that can play a figure: messages in the air, a file for each
// server, and a hand that decides what happens next. Time stands still unless the hand moves it.

type desk struct {
	t       *testing.T
	servers []*server // by id, nil where it is down
	files   [][]byte
	air     []Message
	deaf    int         // nothing reaches this server
	refused map[int]int // AppendEntries refused by [AE2], by follower
	heard   []string    // answers to clients
	reigns  map[int]int // who led, by term
}

// newDesk starts a server for each log, all in one term. They have no votes yet.
func newDesk(t *testing.T, term int, logs ...terms) *desk {
	d := &desk{t: t, refused: map[int]int{}, reigns: map[int]int{}}
	d.servers, d.files = make([]*server, len(logs)+1), make([][]byte, len(logs)+1)
	for i, log := range logs {
		d.files[i+1] = appendLine(nil, header(i+1, othersOf(0, len(logs))))
		d.write(i+1, record{term: term})
		for at, e := range entriesOf(log) {
			d.write(i+1, record{index: at + 1, entry: e})
		}
		d.start(i + 1)
	}
	return d
}

func (d *desk) write(id int, r record) { d.files[id] = appendLine(d.files[id], r.text()) }

func (d *desk) read(id int) persistent {
	disk, _, err := replay(d.files[id], header(id, othersOf(0, len(d.files)-1)))
	same(d.t, "DK2/the file is read again", err, nil)
	return disk
}

func (d *desk) start(id int) {
	r := rand.New(rand.NewPCG(uint64(id), 1))
	d.servers[id] = newServer(id, othersOf(id, len(d.files)-1), d.read(id), r)
	d.servers[id].watch = 3
}

// crash takes a server away. Everything in the air is lost, so that the story stays short.
func (d *desk) crash(id int) { d.servers[id], d.air = nil, nil }

func (d *desk) step(id int, inputs ...input) {
	s := d.servers[id]
	out := stepSafely(d.t, s, inputs...)
	for _, r := range out.Persist {
		d.write(id, r)
	}
	d.air = append(append(d.air, out.Early...), out.Send...)
	if text := told(out); text != "" {
		d.heard = append(d.heard, text)
	}
	if s.role == leader {
		other := d.reigns[s.currentTerm]
		same(d.t, "Election Safety", s.leaderID == id && (other == none || other == id), true)
		d.reigns[s.currentTerm] = id
	}
}

// answers are what clients have heard since the last call.
func (d *desk) answers() (text string) {
	text, d.heard = strings.Join(d.heard, ", "), nil
	return text
}

// timeout lets a server start an election. Nobody has heard of it yet.
func (d *desk) timeout(id int) {
	d.servers[id].now = d.servers[id].electionDue - 1
	d.step(id, tick{})
}

func (d *desk) tick(id, n int) { d.step(id, ticks(n)...) }

// take takes what is in the air from one server to another, and pass hands messages over. What they
// cause stays in the air.
func (d *desk) take(from, to int) (taken []Message) {
	d.air = slices.DeleteFunc(d.air, func(m Message) bool {
		ours := m.From == from && m.To == to
		if ours {
			taken = append(taken, m)
		}
		return ours
	})
	return taken
}

func (d *desk) pass(messages ...Message) {
	for _, m := range messages {
		if r := m.AppendEntriesReply; r != nil && r.PrevLogIndex > 0 {
			d.refused[m.From]++
		}
		if d.servers[m.To] != nil && m.To != d.deaf {
			d.step(m.To, &m)
		}
	}
}

// deliver hands over all messages among these servers until there are no more, votes only requests
// for votes and their replies.
func (d *desk) deliver(ids ...int) { d.run(ids, func(Message) bool { return true }) }

func (d *desk) votes(ids ...int) {
	d.run(ids, func(m Message) bool { return m.RequestVote != nil || m.RequestVoteReply != nil })
}

func (d *desk) run(ids []int, wanted func(m Message) bool) {
	next := func(m Message) bool {
		return slices.Contains(ids, m.From) && slices.Contains(ids, m.To) && wanted(m)
	}
	passed := 0
	for at := slices.IndexFunc(d.air, next); at >= 0; at = slices.IndexFunc(d.air, next) {
		if passed++; passed > 1000 {
			d.t.Fatalf("messages without end; now %s", show(d.air[at]))
		}
		m := d.air[at]
		d.air = slices.Delete(d.air, at, at+1)
		d.pass(m)
	}
}

// elect makes a server the leader with the votes of others. Its first AppendEntries are in the air.
func (d *desk) elect(id int, others ...int) {
	d.air = nil
	d.timeout(id)
	d.votes(append(others, id)...)
	same(d.t, fmt.Sprintf("S%d is elected", id), d.servers[id].role, leader)
}

// log is a server's log, read from its file. A crashed one has it, too.
func (d *desk) log(id int) terms { return termsOf(d.read(id).log[1:]) }

// scene shows the roles of all servers, "LFC-", where - is down, and their logs.
func (d *desk) scene() string {
	var logs []terms
	for id := 1; id < len(d.files); id++ {
		logs = append(logs, d.log(id))
	}
	return all(d.roles(), logs)
}

func (d *desk) roles() (text string) {
	for _, s := range d.servers[1:] {
		if s == nil {
			text += "-"
		} else {
			text += string("FCL"[s.role])
		}
	}
	return text
}

// TestFigure7 is about [AE2], [AE3] and D5: "When the leader at the top comes to power, it is
// possible that any of scenarios (a)–(f) could occur in follower logs." S1 is that leader, S2 to S7
// are (a) to (f). One refusal is enough for each term that the logs do not share. By one index at a
// time, (b) would take six refusals, and (f) seven.
func TestFigure7(t *testing.T) {
	top := terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6}
	logs := []terms{top,
		{1, 1, 1, 4, 4, 5, 5, 6, 6},          // (a) lacks one entry
		{1, 1, 1, 4},                         // (b) lacks many
		{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},    // (c) has one too many
		{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, // (d) has two of term 7, which the leader never saw
		{1, 1, 1, 4, 4, 4, 4},                // (e) lacks some and has some too many
		{1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}}    // (f) led terms 2 and 3 and committed nothing
	d := newDesk(t, 7, logs...)
	d.elect(1, 2, 3, 4, 5, 6, 7)
	same(t, "RV2/(c) and (d) refuse their votes, because their logs are more up to date",
		d.servers[1].votes, "map[1:true 2:true 3:true 4:false 5:false 6:true]")
	d.deliver(1, 2, 3, 4, 5, 6, 7)
	want := append(slices.Clone(top), 8) // with the first entry of term 8 (D3)
	same(t, "Leader Append-Only", d.log(1), want)
	same(t, "Lead4", d.servers[1].commitIndex, 11)
	for id := 2; id <= 7; id++ {
		name := fmt.Sprintf("Figure 7 (%c)", "abcdef"[id-2])
		same(t, name, all(d.log(id), d.servers[1].matchIndex[id]), all(want, 11))
		same(t, name+": refusals", d.refused[id], []int{1, 1, 0, 0, 2, 2}[id-2])
	}
}

// TestFigure8 is about the term test of [Lead4]: why a leader counts copies of entries of its own
// term only. The entries 2, 3 and 4 of the figure are the empty ones with which our leaders begin
// (D3), so the figure arises by itself. In (d) an entry 5 follows the 3.
func TestFigure8(t *testing.T) {
	for _, ending := range []string{"(d)", "(e)"} {
		d := newDesk(t, 1, terms{1}, terms{1}, terms{1}, terms{1}, terms{1})
		d.elect(1, 2, 3, 4, 5)
		d.deliver(1, 2)
		same(t, "(a) S1 leads term 2, and its entry reaches S2 only", d.scene(),
			"LFFFF [[1 2] [1 2] [1] [1] [1]]")
		d.crash(1)
		d.elect(5, 3, 4)
		same(t, "(b) S1 crashes, and S5 wins term 3 with the votes of S3 and S4", d.scene(),
			"-FFFL [[1 2] [1 2] [1] [1] [1 3]]")
		d.crash(5)
		d.start(1)
		d.timeout(1) // in term 3, in which S3 and S4 have voted for S5
		d.votes(1, 2, 3, 4)
		d.elect(1, 2, 3) // in term 4
		d.servers[1].progress[3].limit = 1
		d.take(1, 2)
		d.pass(d.take(1, 3)...) // entry 4, behind 2
		d.pass(d.take(3, 1)...) // refused: S3 lacks 2
		d.pass(d.take(1, 3)...) // entry 2; the limit lets no more than one entry pass
		d.tick(1, heartbeatTicks)
		d.pass(d.take(1, 2)...)
		d.pass(append(d.take(2, 1), d.take(3, 1)...)...)
		d.air = nil
		s := d.servers[1]
		same(t, "(c) S5 crashes, S1 wins term 4, and entry 2 reaches S3", d.scene(),
			"LFFF- [[1 2 4] [1 2] [1 2] [1] [1 3]]")
		same(t, "(c) S1 knows three that have it", all(s.matchIndex[2], s.matchIndex[3]), "2 2")
		same(t, "(c) … and does not commit it: its term is not 4 [Lead4]", s.commitIndex, 0)

		if ending == "(e)" {
			d.tick(1, heartbeatTicks)
			d.deliver(1, 2, 3)
			same(t, "(e) instead, entry 4 reaches S2 and S3, too", d.scene(),
				"LFFF- [[1 2 4] [1 2 4] [1 2 4] [1] [1 3]]")
			same(t, "(e) … and commits entry 2 with itself [Lead4]", s.commitIndex, 3)
		}
		d.crash(1)
		d.start(5)
		d.timeout(5) // in term 4, in which S2 and S3 have voted for S1
		d.votes(2, 3, 4, 5)
		if ending == "(e)" {
			d.timeout(5)
			d.votes(2, 3, 4, 5)
			same(t, "(e) S5 cannot win any more: it has S4's vote and its own [RV2]",
				all(standing(d.servers[5]), d.servers[5].voters()), "C t5 v5 [5 4]")
			continue
		}
		d.elect(5, 2, 3, 4)
		d.start(1)
		d.deliver(1, 2, 3, 4, 5)
		same(t, "(d) S1 crashes, S5 wins term 5 and overwrites what was on three of five",
			d.scene(),
			"FFFFL [[1 3 5] [1 3 5] [1 3 5] [1 3 5] [1 3 5]]")
		same(t, "(d) nobody had applied it [Lead4]", d.servers[5].commitIndex, 3)
	}
}

// TestDeafLeader is about [CQ1] and [CQ2]: everybody hears S1, which hears nobody. It neither leads
// on for ever nor deposes everyone who leads after it.
func TestDeafLeader(t *testing.T) {
	d := newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	d.deliver(1, 2, 3)
	live := func(n int) {
		for i := range 3 * n {
			d.tick(1+i%3, 1)
			d.deliver(1, 2, 3)
		}
	}
	d.deaf = 1
	live(35)
	same(t, "CQ1/S1 leads no more", d.servers[1].role == leader, false)
	live(965)
	leads := strings.Index(d.roles(), "L") + 1
	if len(d.reigns) != 2 || leads < 2 {
		t.Fatalf("CQ2/after 1000 ticks: %s, reigns %v", d.roles(), d.reigns)
	}
	d.step(leads, asks("c", 1, "set x 1"))
	d.deliver(1, 2, 3)
	same(t, "CQ2/the new leader serves", d.answers(), "c/1 ok")
	d.deaf = none
	live(40)
	same(t, "CQ2/S1 hears again and follows, and nobody was deposed",
		all(len(d.reigns), d.servers[1].leaderID, d.log(1)), all(2, leads, d.log(leads)))
}

// TestBugsOfOthers tells stories in which other implementations came to harm, each up to the point
// where the harm was done.
func TestBugsOfOthers(t *testing.T) {
	d := newDesk(t, 3, nil, nil, nil)
	d.elect(1, 3)
	d.crash(3)
	d.start(3)
	d.timeout(2)
	d.votes(2, 3)
	same(t, "Persist/a vote forgotten in a crash: only S1 leads", d.roles(), "LCF")
	d.start(1)
	same(t, "Persist/… and S1 remembers its own", standing(d.servers[1]), "F t4 v1")

	d = newDesk(t, 3, nil, nil, nil)
	d.elect(1, 2, 3)
	d.step(1, asks("c", 1, "set x mine"))
	d.elect(2, 3)
	d.step(2, asks("d", 1, "set x another"))
	d.deliver(2, 3)
	d.answers()
	d.tick(2, heartbeatTicks)
	d.deliver(1, 2, 3)
	same(t, "Lead2/a client is answered for another's entry: S1 has applied it and says nothing",
		all(d.servers[1].lastApplied, d.answers()), "2")
}

// ---- Rules 6. Clients: exactly once, and linearizable reads -------------------------------------
//
// A client that hears nothing asks again, perhaps another server. Two things can go wrong: the
// write is carried out twice, or it is answered although it is not committed. A read has a third
// one: it is answered by a server that does not know that it leads no more.

// TestExactlyOnce is about [SE1] and [SE2]: clients that ask again.
func TestExactlyOnce(t *testing.T) {
	s := settledLeaderOf(3, 2)
	ask := func(what, client string, serial int, want string) { // the last index, what clients hear
		t.Helper()
		out := stepSafely(t, s, asks(client, serial, "incr n"))
		same(t, what, all(s.lastIndex(), told(out)), want)
	}
	ask("Lead2/appended, and not answered yet", "c", 1, "2")
	same(t, "Lead2/the entry", *s.log[2], entry{2, "c", 1, "incr n"})
	elsewhere := asks("c", 1, "incr n")
	elsewhere.to = netip.MustParseAddrPort("127.0.0.1:5002")
	out := s.Step(elsewhere)
	same(t, "SE1/a repeat is not appended again", all(s.lastIndex(), told(out)), "2")
	out = s.Step(stored(s, 2, 2))
	same(t, "SE1/one answer, where it was asked for last", all(told(out), out.Reply[0].to),
		"c/1 1 127.0.0.1:5002")
	ask("SE2/applied: the stored answer, no entry", "c", 1, "2 c/1 1")
	ask("SE2/the next serial is new", "c", 3, "3")
	ask("SE1/an older serial than the one that waits: silence", "c", 2, "3")
	tells(t, s, "SE1/… and the one that waits is answered", "c/3 2", stored(s, 2, 3))
	ask("SE2/an older serial than the one applied: silence", "c", 2, "3")
	ask("SE1/another client's serial is another command", "d", 3, "4")
	ask("SE1/d has given up waiting for 3", "d", 4, "5")
	tells(t, s, "SE1/of one client, only the latest serial waits", "", stored(s, 2, 4))
	tells(t, s, "SE1/… and is answered", "d/4 4", stored(s, 2, 5))
	ask("Lead2/one write waits", "c", 9, "6")
	for _, server := range []*server{s, blank(2), candidateOf(3, 2)} {
		tells(t, server, "Lead2/everybody answers malformed commands at once",
			"c/10 error: set needs KEY VALUE", asks("c", 10, "set"))
	}

	// S1 crashes before it can answer. S2 has its entry, or only hears of it from the client.
	for _, has := range []bool{true, false} {
		d := newDesk(t, 1, nil, nil, nil)
		d.elect(1, 2, 3)
		d.deliver(1, 2, 3)
		d.step(1, asks("c", 1, "incr n"))
		if has {
			d.pass(d.take(1, 2)...)
		}
		d.crash(1)
		d.elect(2, 3)
		d.step(2, asks("c", 1, "incr n"))
		d.deliver(2, 3)
		d.tick(2, heartbeatTicks)
		d.deliver(2, 3)
		same(t, "SE2/answered by the new leader", d.answers(), "c/1 1")
		same(t, "SE3/carried out once, on both servers",
			all(d.servers[2].machine.get("n"), d.servers[3].machine.get("n")), "1 1")
	}

	// c has the answer to its first command from somebody else. S1 has yet to apply it.
	s = followerWith(3, 1, none, &entry{1, "c", 1, "incr n"})
	fireTimer(s)
	crowned(s).Step(asks("c", 2, "incr n"))
	s.Step(stored(s, 2, 2))
	tells(t, s, "SE1/an answer is for its own serial", "c/2 2", stored(s, 2, 3))
}

// TestSessions is about [SE3]: what the state machine remembers, through a crash of every server.
func TestSessions(t *testing.T) {
	m := newMachine()
	for _, row := range []struct {
		name    string
		entry   entry
		answers bool
		want    answer
	}{
		{"SE3/any serial opens a session", entry{1, "c", 7, "incr n"}, true, answer{Result: "1"}},
		{"SE2/the same again", entry{1, "c", 7, "incr n"}, true, answer{Result: "1"}},
		{"SE2/an older one has no answer", entry{1, "c", 6, "incr n"}, false, answer{}},
		{"SE2/the next", entry{1, "c", 8, "incr n"}, true, answer{Result: "2"}},
		{"SE2/an error", entry{1, "d", 1, "cas n 1 5"}, true,
			answer{Error: `n is "2", not "1"; nothing changed`}},
		{"SE3/each client has its own", entry{1, "e", 1, "set n 1"}, true, answer{Result: "ok"}},
		{"SE2/… again", entry{1, "d", 1, "cas n 1 5"}, true,
			answer{Error: `n is "2", not "1"; nothing changed`}},
		{"D3/an empty entry has no client and no answer", entry{Term: 1}, false, answer{}},
	} {
		got, ok := m.apply(&row.entry)
		if !ok {
			got = answer{}
		}
		same(t, row.name, all(ok, got), all(row.answers, row.want))
	}
	same(t, "SE3/sessions", len(m.sessions), 3)

	d := newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	for _, r := range []*request{asks("c", 1, "set x 1"), asks("c", 2, "cas x 2 3"),
		asks("d", 1, "set x 2")} {
		d.step(1, r)
		d.deliver(1, 2, 3)
	}
	mismatch := `c/2 error: x is "1", not "2"; nothing changed`
	same(t, "SE3/at first", d.answers(), "c/1 ok, "+mismatch+", d/1 ok")
	for id := 1; id <= 3; id++ {
		d.crash(id)
		d.start(id)
	}
	d.elect(3, 1, 2)
	d.deliver(1, 2, 3)
	d.step(3, asks("c", 2, "cas x 2 3"), asks("c", 1, "set x 1"), asks("e", 1, "get x"))
	d.deliver(1, 2, 3)
	same(t, "SE3/after a crash of all: the same answer, though the command would succeed now",
		d.answers(), mismatch+", e/1 2")
}

// TestReads is about [RD1] to [RD4]: when reads wait, and for what.
func TestReads(t *testing.T) {
	read := asks("r", 1, "get x")
	s := settledLeaderOf(3, 2)
	s.Step(asks("c", 1, "set x old"))
	seq := s.seq // the newest AppendEntries when the read arrives
	sends(t, s, "RD3/a read asks: do I still lead?", "S2 AE(1,2,[],1), S3 AE(1,2,[],1)", read)
	tells(t, s, "RD3/a reply to what was sent before says nothing", "c/1 ok", okAE(2, 2, 2, seq))
	tells(t, s, "RD3/a reply to what was sent since does", "r/1 old", okAE(2, 2, 2, seq+1))
	tells(t, s, "RD3/… once", "", okAE(2, 2, 2, seq+2))

	for _, row := range []struct {
		name   string
		answer *Message
		want   string
	}{
		{"a refusal by [AE2] is word of a follower", noAE(3, 2, 9, 0, 1, latest), "r/1 (none)"},
		// S1 led term 1, too, and its numbers began anew. A late message of then reaches S3 now.
		{"a refusal by [AE1] is not", refuse(3, 2), ""},
		{"nor is a reply of an older term", okAE(3, 1, 1, latest), ""},
		{"nor is a vote", yes(3, 2), ""},
	} {
		s := settledLeaderOf(3, 2)
		s.Step(read)
		tells(t, s, "RD3/"+row.name, row.want, numbered(s, row.answer))
	}
	s = settledLeaderOf(5, 2)
	s.Step(read)
	tells(t, s, "RD3/an old reply takes no newer one back", "r/1 (none)",
		okAE(2, 2, 1, s.seq), okAE(2, 2, 1, 1), okAE(3, 2, 1, s.seq))

	// The round of chapter 10, with its numbers.
	s = settledLeaderOf(3, 2)
	s.seq = 12
	many := []input{}
	for i := range 50 {
		many = append(many, asks(fmt.Sprint("r", i), 1, "get x"))
	}
	out := s.Step(many...)
	same(t, "RD3/fifty reads, one round", sent(out), "S2 AE(1,2,[],1), S3 AE(1,2,[],1)")
	same(t, "RD3/… with these numbers", out.Early[0].AppendEntries.Seq, 13)
	sends(t, s, "RD3/a later read waits for its own round", "", asks("late", 1, "get x"))
	out = s.Step(okAE(3, 2, 1, 14))
	same(t, "RD3/fifty answers", len(out.Reply), 50)
	same(t, "RD3/… in order", strings.HasSuffix(told(out), "r49/1 (none)"), true)
	same(t, "RD3/… and the next round", sent(out), "S2 AE(1,2,[],1), S3 AE(1,2,[],1)")
	tells(t, s, "RD3/#14 was sent before the later read", "", okAE(2, 2, 1, 14))
	tells(t, s, "RD3/#15 was not", "late/1 (none)", okAE(2, 2, 1, 15))
	s.Step(read, asks("q", 1, "get x"), asks("r", 2, "get y"))
	tells(t, s, "RD3/of one client, the latest waits", "q/1 (none), r/2 (none)",
		okAE(2, 2, 1, s.seq))
	s.Step(read)
	tickTimes(s, 5) // the round was lost
	tells(t, s, "RD3/a heartbeat confirms as well", "r/1 (none)", okAE(2, 2, 1, s.seq))

	// Whether entry 1 of term 3 is committed, the leader of term 4 cannot know at first.
	s = followerWith(3, 3, none, &entry{3, "c", 1, "set x new"})
	fireTimer(s)
	crowned(s).Step(read)
	s.Step(okAE(2, 4, 1, s.seq))
	s.Step(okAE(2, 4, 1, s.seq))
	tells(t, s, "RD1/nothing of this term is committed", "", okAE(3, 4, 1, s.seq))
	if len(s.reads) != 1 {
		t.Fatalf("RD1/the read does not wait: %v", s.reads)
	}
	same(t, "RD1/… though confirmed", s.reads[0].afterSeq < s.progress[2].answeredSeq, true)
	tells(t, s, "RD1/now something is, and entry 1 with it", "r/1 new", okAE(3, 4, 2, 2))

	s = candidateOf(3, 4, 1)
	s.noopOff = true
	crowned(s).Step(okAE(2, 4, 1, 1), okAE(3, 4, 1, 2), read)
	tells(t, s, "RD1/without D3 and without a write, reads wait for ever", "", okAE(2, 4, 1, s.seq))
	s.Step(asks("c", 1, "set x 1"))
	tells(t, s, "RD1/… or until a write of this term", "c/1 ok, r/1 1", stored(s, 2, 2))

	// A long log is applied in pieces. The read arrives when all is committed, a part is applied.
	s = settledLeaderOf(3, 2)
	s.store(2,
		append(entriesOf(slices.Repeat(terms{2}, 3*maxApply)), &entry{2, "c", 1, "set x new"})...)
	s.Step(stored(s, 2, s.lastIndex()))
	s.Step(read)
	out = stepSafely(t, s, okAE(2, 2, 1, s.seq))
	same(t, "RD4/confirmed, but the state is too old", all(told(out), s.lastApplied), "15001")
	same(t, "RD2/the read sees what was committed before it", told(s.Step()), "r/1 new")
	s = leaderOf(1, 2)
	out = s.Step(asks("r", 9, "get x"), asks("q", 3, "get x"))
	same(t, "RD2/a read's serial is only echoed, and opens no session",
		all(told(out), len(s.machine.sessions)), "r/9 (none), q/3 (none) 0")
}

// TestDeposedLeader is about [RD3]: S1 has been deposed and does not know it. It must not answer
// from its old state, whatever arrives.
func TestDeposedLeader(t *testing.T) {
	d := newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	d.step(1, asks("c", 1, "set x old"))
	d.deliver(1, 2, 3)
	d.tick(1, heartbeatTicks)
	d.pass(d.take(1, 2)...)
	ack := d.take(2, 1) // doubled by the network
	d.pass(ack...)
	d.elect(2, 3)
	d.step(2, asks("c", 2, "set x new"))
	d.deliver(2, 3)
	d.answers()
	d.air = nil
	d.step(1, asks("r", 1, "get x"), asks("w", 1, "set x lost"))
	d.pass(ack...)
	same(t, "RD3/an old confirmation does not count", all(d.roles(), d.answers()), "LLF")
	d.deliver(1, 2, 3)
	same(t, "RD3/the new round deposes it, silently", all(d.roles(), d.answers()), "FLF")
	d.tick(2, heartbeatTicks)
	d.deliver(1, 2, 3)
	same(t, "AE3/its write is gone, and it never said otherwise",
		all(d.answers(), d.servers[1].machine.get("x")), "new")
}

// ---- Rules 7. Commands and entries --------------------------------------------------------------
//
// Raft does not care what a command is. It cares that every server makes the same of it: so all
// that can be refused is refused before it enters a log, and the rest has one outcome.

// TestCommands is about the state machine: scripts of commands and answers, each on a new one. An
// answer may end with …, which stands for any text; {20 v} is a text of 20 times v.
func TestCommands(t *testing.T) {
	repeated := regexp.MustCompile(`\{(\d+) (.)\}`)
	expand := func(text string) string {
		return repeated.ReplaceAllStringFunc(text, func(m string) string {
			n, of, _ := strings.Cut(strings.Trim(m, "{}"), " ")
			times, _ := strconv.Atoi(n)
			return strings.Repeat(of, times)
		})
	}
	scripts := `
get x → (none) · set x 1 → ok · get x → 1 · set x 2 → ok · get x → 2 · get y → (none)
del x → (none) · set x 1 → ok · del x → ok · get x → (none)
  set  x   a  b   → ok · get   x  → a  b · set x "a"; b # c @2 → ok · get x → "a"; b # c @2
set ключ 日本語 → ok · get ключ → 日本語 · set # é<>& → ok · get # → é<>&
incr n → 1 · incr n → 2 · incr n 40 → 42 · incr n -50 → -8 · incr n 0 → -8 · get n → -8
set n 9223372036854775807 → ok · incr n 0 → 9223372036854775807 · incr n 2 → error: n is…
incr n 9223372036854775807 → 9223372036854775807 · incr n → error: n is 9223372036854775807, and…
set n -9223372036854775808 → ok · incr n -1 → error: n is -9223372036854775808, and adding -1…
set n 9223372036854775807 → ok · incr n -1 → 9223372036854775806 · incr n → 9223372036854775807
incr n -9223372036854775808 → -9223372036854775808 · incr n -9223372036854775808 → error: n is…
set n -9223372036854775808 → ok · incr n 1 → -9223372036854775807
set x one → ok · incr x → error: x is "one", not a number of 64 bits; nothing changed
set x 7 → ok · incr x → 8
set x 9223372036854775808 → ok · incr x → error: x is "9223372036854775808", not a…
incr x 9223372036854775808 → error: "9223372036854775808" is not a number of 64 bits
incr x 1.5 → error: "1.5" is not… · incr x 0x10 → error: "0x10" is not…
set x a → ok · cas x a b → ok · get x → b · cas x a c → error: x is "b", not "a"; nothing changed
cas x a b → error: x is (none), not "a"; nothing changed
cas x (none) b → error: x is (none), not "(none)"…
set x {2000 v} → ok · incr x → error: x is "vvv… · cas x {2001 v} b → error: x is "vvv…
set x {2000 v} → ok · cas x {2000 v} b → ok
set {256 k} {2000 \} → ok · cas {256 k} {2000 "} b → error: kkk… · incr {256 k} → error: kkk…
 → error: no such command ""; use set, get, del, incr or cas
SET x 1 → error: no such command "SET";…
{2000 x} → error: no such command "xxx… · {8000 é} → error: no such command "ééé…
set → error: set needs KEY VALUE · set x → error: set needs KEY VALUE
set x   → error: set needs KEY VALUE
get → error: get needs KEY · get x y → error: get needs KEY
del → error: del needs KEY · del x y → error: del needs KEY
incr → error: incr needs KEY [N] · incr x 1 2 → error: incr needs KEY [N]
incr x one two → error: incr needs KEY [N]
cas → error: cas needs KEY OLD NEW · cas x a → error: cas needs KEY OLD NEW
cas x a b c → error: cas needs KEY OLD NEW
set {256 k} 1 → ok · get {256 k} → 1 · set {257 k} 1 → error: a key has at most 256 bytes, not 257
get {129 é} → error: a key has at most 256 bytes, not 258 · set x ~ → ok
set x {16378 v} → ok · get x → {16378 v}
set y {16379 v} → error: a command has at most 16384 bytes, not 16385`
	for _, bad := range []string{"\t", "\r", "\x1b", "\x7f", "\u00a0", "\xff", "\ufffd", "\u200b"} {
		scripts += "\nset x a" + bad + "b → error: a command is one line of printable UTF-8 text"
	}
	for _, script := range strings.Split(scripts[1:], "\n") {
		s := leaderOf(1, 2)
		for i, line := range strings.Split(script, " · ") {
			command, want, _ := strings.Cut(expand(line), " → ")
			before := fmt.Sprint(s.machine.values)
			out := s.Step(asks(fmt.Sprint("c", i), 1, command))
			got := strings.TrimPrefix(told(out), fmt.Sprintf("c%d/1 ", i))
			start, open := strings.CutSuffix(want, "…")
			if got != want && !(open && strings.HasPrefix(got, start)) {
				t.Errorf("%.60q\n got %.300s\nwant %.300s", command, got, want)
			}
			if !strings.HasPrefix(got, "error: ") {
				continue
			}
			if len(out.Reply[0].Error) > 1000 || !printable(got) || !utf8.ValidString(got) {
				t.Errorf("%.60q: an error of %d bytes: %q", command, len(got), got)
			}
			same(t, "an error has changed nothing: "+command, fmt.Sprint(s.machine.values), before)
		}
	}
	long := strings.Repeat("v", 121)
	same(t, "quote shows 120 bytes", quote(long[:120]), `"`+long[:120]+`"`)
	same(t, "quote shortens more", quote(long), `"`+long[:117]+`..."`)
	tells(t, leaderOf(1, 2), "one line", "c/1 error: a command is one line of printable UTF-8 text",
		asks("c", 1, "set x a\nb"))
}

// TestNumbers is about the bounds that users and other programs can see.
func TestNumbers(t *testing.T) {
	same(t, "ticks", all(heartbeatTicks, electionTicksMin, electionTicksMax), "5 15 30")
	same(t, "bytes", all(maxDatagram, maxBatch, minBatch, maxCommand, maxKey, maxClient, maxApply),
		"65507 64995 512 16384 256 64 5000")
	words := map[string]bool{"3": true, "5": true, "2": false, "6": false, "04": false, "+4": false,
		"": false}
	for word, want := range words {
		n, err := parseNumber(word, 3, 5)
		same(t, "parseNumber "+word, err == nil && fmt.Sprint(n) == word, want)
		same(t, "parseNumber fails "+word, err != nil, !want)
	}
}

// TestRulesFire is about what narration and the command rules show: which rules a Step carries out.
func TestRulesFire(t *testing.T) {
	write, read := asks("c", 1, "set x 1"), asks("c", 1, "get x")
	asked := func(s *server, in input) *server { s.Step(in); return s }
	for _, row := range []situation{
		{"a timeout", blank(2), ticks(30), "Cand1 Fol2 Persist"},
		{"a lost election", asked(candidateOf(3, 2), no(2, 2)), ticks(30), "Cand1 Cand4 Persist"},
		{"a candidate alone", candidateOf(3, 2), ticks(30), "CQ2 Cand1"},
		{"a leader alone", leaderOf(3, 2), ticks(30), "CQ1"},
		{"victory", candidateOf(3, 2), in{yes(2, 2)}, "Cand2 Lead3 Persist"},
		{"a vote", blank(2), in{askVote(2, 0, 0)}, "Persist RV2"},
		{"an old candidate", blank(2), in{askVote(1, 0, 0)}, "RV1"},
		{"a new term", blank(2), in{yes(2, 3)}, "All2 Persist"},
		{"a winner", candidateOf(3, 2), in{sendAE(2, 0, 0, nil, 0)}, "AE4 Cand3"},
		{"an old leader", blank(2), in{sendAE(1, 0, 0, nil, 0)}, "AE1"},
		{"a gap", blank(2), in{sendAE(2, 1, 1, nil, 0)}, "AE2"},
		{"a conflict", blank(2, 1), in{sendAE(2, 0, 0, terms{2}, 1)}, "AE3 AE4 AE5 All1 Persist"},
		{"a new entry", blank(2, 1), in{sendAE(2, 1, 1, terms{2}, 0)}, "AE4 Persist"},
		{"a confirmation", leaderOf(3, 2), in{okAE(2, 2, 1, 1)}, "All1 Lead3a Lead4"},
		{"a refusal", leaderOf(3, 2, 1), in{noAE(2, 2, 1, 0, 1, 1)}, "Lead3 Lead3b"},
		{"a write", settledLeaderOf(3, 2), in{write}, "Lead2 Lead3 Persist"},
		{"a heartbeat", settledLeaderOf(3, 2), ticks(5), "Lead1"},
		{"a repeat", asked(leaderOf(3, 2), write), in{write}, "SE1"},
		{"a late repeat", asked(leaderOf(1, 2), write), in{write}, "SE2"},
		{"a read", settledLeaderOf(3, 2), in{read}, "Lead1 RD1 RD2 RD3"},
		{"an answer to it", asked(settledLeaderOf(3, 2), read), in{okAE(2, 2, 1, 4)}, "Lead3a RD4"},
	} {
		before := maps.Clone(row.server.fired)
		row.server.watch = 3
		stepSafely(t, row.server, row.inputs...)
		maps.DeleteFunc(row.server.fired,
			func(tag string, n int) bool { return n == before[tag] || tag == "Fol1" })
		fired := slices.Sorted(maps.Keys(row.server.fired))
		same(t, row.name, strings.Join(fired, " "), row.want)
		for _, tag := range fired {
			same(t, tag+" is a rule", slices.Contains(strings.Fields(ruleTags), tag), true)
		}
	}
	s := settledLeaderOf(3, 2)
	s.watch = 1
	out := tickTimes(s, 5)
	same(t, "a healthy idle leader is silent", all(len(out.Early), len(out.Trace)), "2 0")
	s.watch = 2
	out = stepSafely(t, s, asks("c", 1, "set x "+strings.Repeat("é", 200)))
	same(t, "narration is clipped to 79 columns", all(len(out.Trace), len(out.Trace[0])), "3 79")
}

// =================================================================================================
// THE DISK
// =================================================================================================
//
// What a crash may do to the file, what it may not, and why a server that meets the second must
// not start: it may have voted, or confirmed an entry, in the line that is lost.

var membersOf3 = []int{1, 2, 3}
var ourHeader = header(1, membersOf3) // the first line of server 1

func fileOf(texts ...string) (data []byte) {
	for _, text := range texts {
		data = appendLine(data, text)
	}
	return data
}

// stateText shows persistent state: t5 v2 ["1","5 c7 3 set x 1"].
func stateText(p persistent) string {
	return fmt.Sprintf("t%d v%d %s", p.currentTerm, p.votedFor, bytes.TrimSpace(encode(p.log[1:])))
}

// diary is the file of S1 after a random life: where each line ends, and the state there.
type diary struct {
	data   []byte
	ends   []int
	states []string
}

func (d *diary) add(text string, book persistent) {
	d.data = appendLine(d.data, text)
	d.ends = append(d.ends, len(d.data))
	d.states = append(d.states, stateText(book))
}

func randomDiary(t *testing.T, seed uint64, changes int) (d diary) {
	r, s, book := rand.New(rand.NewPCG(seed, seed)), blank(0), persistent{log: []*entry{{}}}
	commands := []string{"set x 1", `set y "\ {}`, "set é 日 本", "del x", "incr n -5", "set x  1 "}
	d.add(ourHeader, book)
	for range changes {
		if s.currentTerm == 0 || r.IntN(2) == 0 {
			if term := s.currentTerm + r.IntN(2); s.votedFor == none || term > s.currentTerm {
				s.setTermAndVote(max(1, term), r.IntN(4))
			}
		} else {
			fresh := make([]*entry, 1+r.IntN(3))
			for i := range fresh {
				fresh[i] = &entry{s.currentTerm, "c", 1 + r.IntN(9), commands[r.IntN(6)]}
				if r.IntN(4) == 0 {
					fresh[i] = &entry{Term: s.currentTerm}
				}
			}
			s.store(max(1, s.lastIndex()+1-r.IntN(3)), fresh...) // often the end, at times a cut
		}
		for _, record := range s.out.Persist {
			if record.entry != nil {
				book.log = append(book.log[:record.index], record.entry) // [DK2]
			} else {
				book.currentTerm, book.votedFor = record.term, record.votedFor
			}
			d.add(record.text(), book)
		}
		s.out = Output{}
		same(t, "the book and the memory", stateText(book), stateText(s.persistent))
	}
	return d
}

// TestTornTail: [DK2] [DK3] a file that ends at any byte, or in what never was a line, gives the
// state of the lines that are whole. The first line must be ours, as far as there is any of it.
func TestTornTail(t *testing.T) {
	d := randomDiary(t, 1, 40)
	tails := []string{"", "\x00", strings.Repeat("\x00", 5000), "\x00\n\x00", "\xff \n\n {\n"}
	for at := range len(d.data) + 1 {
		want, good := "t0 v0 []", 0
		whole, _ := slices.BinarySearch(d.ends, at+1) // how many lines are
		if whole > 0 {
			want, good = d.states[whole-1], d.ends[whole-1]
		}
		for _, tail := range tails {
			p, n, err := replay(append(slices.Clone(d.data[:at]), tail...), ourHeader)
			name := fmt.Sprintf("cut at byte %d, %.9q behind", at, tail)
			if whole == 0 && tail != "" {
				same(t, name, fmt.Sprintf("%.7v", err), "line 1:")
			} else {
				same(t, name, all(stateText(p), n, err), all(want, good, nil))
			}
		}
	}
}

// TestFlippedBit: [DK4] a flipped bit is refused, unless it looks like a torn tail.
func TestFlippedBit(t *testing.T) {
	d := randomDiary(t, 3, 8)
	last := len(d.ends) - 1
	for at := range d.data {
		line, _ := slices.BinarySearch(d.ends, at+1) // from 0
		for bit := range 8 {
			data := slices.Clone(d.data)
			data[at] ^= 1 << bit
			p, good, err := replay(data, ourHeader)
			name := fmt.Sprintf("byte %d of line %d, bit %d", at, line+1, bit)
			switch newline := at == d.ends[line]-1; {
			case err != nil:
				same(t, name, strings.HasPrefix(err.Error(), all("line", line+1)+": "), true)
			case line == last || line == last-1 && newline:
				same(t, name, all(stateText(p), good), all(d.states[line-1], d.ends[line-1]))
			default:
				t.Errorf("%s: not noticed", name)
			}
		}
	}
}

// TestFiles: [DK1] [DK4] real files that a server of 1,2,3 finds at its start. A refused file stays
// byte for byte as it was. "| a | b" is our header with two intact lines behind it.
func TestFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	os.Mkdir("data", 0o755)
	name := filepath.Join("data", "server-1.log")
	const foreign = "line 1: this is not a file of this program, or its first line is damaged"
	const begins, notFrom = "line 1: the file begins with ", ", which is not from "
	const damaged = "line 2: damaged, but intact lines follow: a promise may be lost, keep it off"
	follows := func(line int, what, before string) string {
		return fmt.Sprintf(`line %d: "term %s" cannot follow term %s`, line, what, before)
	}
	theirs := string(fileOf("raft.go 2 server 1 of 1,2,3,4,5"))
	ours, intact := string(fileOf(ourHeader)), string(fileOf("term 1 vote 0"))
	t2v3, term2 := "| term 2 vote 3 | term ", "| term 2 vote 0 | "
	for _, row := range []struct{ name, file, want string }{
		{"DK1 an empty file is a new server", "", "t0 v0 []"},
		{"DK1 the header alone", ours, "t0 v0 []"},
		{"DK1 other members", theirs, "line 1: this server " +
			"belongs to the cluster 1,2,3,4,5, not 1,2,3; Raft needs §6 to change that"},
		{"DK1 another server", string(fileOf("raft.go 2 server 2 of 1,2,3")),
			begins + `"raft.go 2 server 2 of 1,2,3", not with "raft.go 2 server 1 of 1,2,3"`},
		{"DK1 another format", string(fileOf("raft.go 1 server 1 of 1,2,3")),
			begins + `"raft.go 1 server 1 of 1,2,3", not with "raft.go 2 server 1 of 1,2,3"`},
		{"DK1 no members", string(fileOf("raft.go 2 server 1")),
			begins + `"raft.go 2 server 1", not with "raft.go 2 server 1 of 1,2,3"`},
		{"DK1 another program's", "once upon a time\n", foreign},
		{"DK3 all but the end of another header", theirs[:len(theirs)-1], foreign},
		{"DK1 a damaged header", "x" + ours, foreign},

		{"DK4 the term falls", term2 + "term 1 vote 0", follows(3, "1 vote 0", "2 vote 0")},
		{"DK4 … and stays", term2 + "term 2 vote 3", "t2 v3 []"},
		{"DK4 term 0", "| term 0 vote 0", follows(2, "0 vote 0", "0 vote 0")},
		{"DK4 a vote changes", t2v3 + "2 vote 1", follows(3, "2 vote 1", "2 vote 3")},
		{"DK4 … back", t2v3 + "2 vote 0", follows(3, "2 vote 0", "2 vote 3")},
		{"DK4 … stays", t2v3 + "2 vote 3", "t2 v3 []"},
		{"DK4 … is of a new term", t2v3 + "3 vote 1", "t3 v1 []"},
		{"DK4 a negative vote", "| term 2 vote -1", follows(2, "2 vote -1", "0 vote 0")},
		{"DK4 a sign", "| term +2 vote 1", follows(2, "+2 vote 1", "0 vote 0")},
		{"DK4 a word more", "| term 2 vote 1 2", follows(2, "2 vote 1 2", "0 vote 0")},

		{"DK4 a gap", term2 + "1 1 | 3 1", "line 4: entry 3 follows entry 1, so there is a gap"},
		{"DK4 no gap", term2 + "1 1 | 2 1", `t2 v0 ["1","1"]`},
		{"DK2 a cut", term2 + "1 1 | 2 1 | 3 1 | 2 2", `t2 v0 ["1","2"]`},
		{"DK4 terms fall", term2 + "1 2 | 2 1", "line 4: entry 2 has term 1" + notFrom + "2 to 2"},
		{"DK4 … also at a cut", "| term 3 vote 0 | 1 2 | 2 2 | 2 1",
			"line 5: entry 2 has term 1" + notFrom + "2 to 3"},
		{"DK4 a term above ours", term2 + "1 3", "line 3: entry 1 has term 3" + notFrom + "0 to 2"},
		{"DK4 index 0", term2 + "0 1", `line 3: "0" is not a number from 1 to 4503599627370496`},
		{"DK4 a read", term2 + "1 1 c 1 get x", `line 3: "1 c 1 get x" is not an entry`},

		{"DK4 damage before an intact line", ours + "garbage\n" + intact, damaged},
		{"DK4 … that lacks its newline", ours + "garbage\n" + strings.TrimSpace(intact), damaged},
		{"DK4 … behind more damage", ours + "a\nb\n\n" + intact + "c", damaged},
		{"DK3 damage with nothing behind it", ours + intact + "a\nb\n\nc", "t1 v0 []"},
		{"DK3 a line without its newline", ours + strings.TrimSpace(intact), "t0 v0 []"},
		{"DK3 a checksum in capitals", ours + strings.ToUpper(string(fileOf("1 1"))), "t0 v0 []"},
		{"DK3 a checksum of nothing", ours + "00000000 \n", "t0 v0 []"},
	} {
		if texts, of := strings.CutPrefix(row.file, "| "); of {
			row.file = ours + string(fileOf(strings.Split(texts, " | ")...))
		}
		os.WriteFile(name, []byte(row.file), 0o644)
		d, p, _, err := openDisk("data", 1, membersOf3)
		if err == nil {
			same(t, row.name, stateText(p), row.want)
			d.file.Close()
			continue
		}
		data, _ := os.ReadFile(name)
		same(t, row.name, all(err, string(data)), all(row.want, row.file))
	}
}

func opened(t testing.TB, dir string) *disk {
	d, _, _, err := openDisk(dir, 1, membersOf3)
	must(err == nil, all("the disk opens:", err))
	t.Cleanup(func() { d.file.Close() })
	return d
}

// TestOpenDisk: [DK3] what openDisk makes and mends, it has made and mended before it returns.
func TestOpenDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	d := opened(t, dir)
	data, _ := os.ReadFile(d.name)
	same(t, "DK1 a new file in new folders", string(data), string(fileOf(ourHeader)))
	os.WriteFile(d.name, data[:9], 0o644)
	d, _, torn, err := openDisk(dir, 1, membersOf3)
	data, _ = os.ReadFile(d.name)
	want := all(nil, 9, string(fileOf(ourHeader)))
	same(t, "DK3 a torn header is mended", all(err, torn, string(data)), want)
	records := []record{{term: 2, votedFor: 3}, {index: 1, entry: &entry{2, "c7", 3, "set x 1"}}}
	err = errors.Join(d.append(records), d.append(nil), d.append(records[1:]))
	data, _ = os.ReadFile(d.name)
	text := fileOf(ourHeader, "term 2 vote 3", "1 2 c7 3 set x 1", "1 2 c7 3 set x 1")
	same(t, "the file is text", all(err, string(data)), all(nil, string(text)))
	d.file.Close()
	os.WriteFile(d.name, append(text, "12345678 1 2 torn"...), 0o644)
	d, p, torn, err := openDisk(dir, 1, membersOf3)
	same(t, "DK3 a torn tail", all(err, stateText(p), torn), `<nil> t2 v3 ["2 c7 3 set x 1"] 17`)
	same(t, "… is off before anything is appended", d.append([]record{{term: 3}}), nil)
	d.file.Close()
	d, p, torn, err = openDisk(dir, 1, membersOf3)
	same(t, "the next start", all(err, stateText(p), torn), `<nil> t3 v0 ["2 c7 3 set x 1"] 0`)
	d.file.Close()
	_, _, _, noFolder := openDisk(d.name, 1, membersOf3) // a file stands in its place
	os.Mkdir(filepath.Join(dir, "server-2.log"), 0o755)
	_, _, _, noFile := openDisk(dir, 2, membersOf3)
	same(t, "no folder, no file", all(noFolder != nil, noFile != nil), "true true")
	if runtime.GOOS != "windows" { // where no folder is ever synced
		same(t, "no folder to sync", errors.Is(syncFolders("nowhere"), os.ErrNotExist), true)
	}
}

// TestLostFile: [DK6] a file that somebody removed, replaced or wrote to fails the next write.
func TestLostFile(t *testing.T) {
	for name, what := range map[string]func(name, dir string) error{
		"rm": func(name, _ string) error { return os.Remove(name) },
		"mv of the folder, and a new one": func(_, dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Mkdir(dir, 0o755))
		},
		"mv of a copy": func(name, _ string) error {
			data, _ := os.ReadFile(name)
			return errors.Join(os.WriteFile(name+"2", data, 0o644), os.Rename(name+"2", name))
		},
		"another server appends": func(_, dir string) error {
			return opened(t, dir).append([]record{{term: 9}})
		},
		"a byte less": func(name, _ string) error {
			return os.Truncate(name, int64(len(fileOf(ourHeader, "term 1 vote 0")))-1)
		},
	} {
		if !strings.HasPrefix(name, "a") && runtime.GOOS == "windows" {
			continue // an open file can be neither removed nor replaced there
		}
		dir := filepath.Join(t.TempDir(), "data")
		d := opened(t, dir)
		same(t, "ready", errors.Join(d.append([]record{{term: 1}}), what(d.name, dir)), nil)
		before, _ := d.file.Stat()
		err := all(d.append([]record{{term: 2}}))
		why := strings.HasPrefix(err, "stat ") || strings.HasPrefix(err, "somebody else ")
		after, _ := d.file.Stat()
		named, _ := os.ReadFile(d.name)
		nowhere := after.Size() == before.Size() && !bytes.Contains(named, []byte("term 2"))
		same(t, name+": an error, and nothing is written", all(why, nowhere), "true true")
	}
}

// TestFailStop: [DK5] a server whose disk fails, in its own process, says nothing more but (D6).
func TestFailStop(t *testing.T) {
	if task := strings.SplitN(os.Getenv("RAFT_TEST_FAIL_STOP"), " ", 3); len(task) == 3 {
		h, ear := hostOn(t, blank(1), task[2]), netip.MustParseAddrPort(task[1])
		h.addresses[2] = ear
		switch d := h.disk; task[0] {
		case "read-only": // a write fails
			d.file, _ = os.Open(d.name)
		case "/dev/null": // an fsync fails
			d.name, d.size = task[0], 0
			d.file, _ = os.OpenFile(d.name, os.O_RDWR, 0)
			d.info, _ = d.file.Stat()
		}
		h.perform(everyEffect(ear))
		return
	}
	said := regexp.MustCompile(`^error: .*: .*; this server stops and has answered nothing .*\n$`)
	for _, kind := range []string{"read-only", "/dev/null"} {
		if kind == "/dev/null" && runtime.GOOS != "linux" {
			continue
		}
		ear := listen(t)
		child := exec.Command(os.Args[0], "-test.run=^TestFailStop$")
		task := fmt.Sprintf("RAFT_TEST_FAIL_STOP=%s %v %s", kind, addressOf(ear), t.TempDir())
		child.Env = append(os.Environ(), task)
		output, err := child.CombinedOutput()
		same(t, kind+": one line", said.Match(output), true)
		same(t, kind+": it ends", err, "exit status 1")
		ear.WriteToUDPAddrPort([]byte("end"), addressOf(ear)) // behind all that the child sent
		same(t, kind+": what left", all(heard(t, ear), heard(t, ear)), "appendEntries end")
	}
}

// everyEffect has one effect of each kind; messages go to S2, the reply to the ear.
func everyEffect(ear netip.AddrPort) Output {
	ae := Message{From: 1, To: 2, Term: 1, AppendEntries: &appendEntries{LeaderID: 1, Seq: 1}}
	yes := Message{From: 1, To: 2, Term: 2, RequestVoteReply: &requestVoteReply{VoteGranted: true}}
	return Output{Early: []Message{ae}, Persist: []record{{term: 2, votedFor: 2}},
		Send: []Message{yes}, Reply: []reply{{to: ear, Client: "c", Serial: 1}}}
}

// Texts that are entries, and their neighbours that are not.
var (
	entryTexts = []string{"5", "4503599627370496", "5 c7 3 set x 1", "5 c7 3 set x 1 ",
		"5 c7 3  set  x  1", "5 c7 9223372036854775807 set x 1", `5 "\~ 3 set x 1`,
		"5 " + strings.Repeat("c", 64) + " 3 set x 1", `5 c7 3 set "\ <&> 日`, "5 c7 3 del x",
		"5 c7 3 incr x -5", "5 c7 3 cas x 1 2", "5 c7 3 set x " + strings.Repeat("v", maxCommand-6)}
	otherTexts = []string{"", "0", "-1", "+5", "05", "5 ", " 5", "5\n", "4503599627370497",
		"5 c7", "5 c7 3", "5 c7 3 ", "5  3 set x 1", "0 c7 3 set x 1", "05 c7 3 set x 1",
		"5 c7 0 set x 1", "5 c7 03 set x 1", "5 c7 9223372036854775808 set x 1",
		"5 " + strings.Repeat("c", 65) + " 3 set x 1", "5 é 3 set x 1", "5 c\x7f 3 set x 1",
		"5 c\t7 3 set x 1", "5 c7 3 get x", "5 c7 3 put x 1", "5 c7 3 set x", "5 c7 3 incr x y",
		"5 c7 3 set x 1\n", "5 c7 3 set x \x00", "5 c7 3 set x \xff", "5 c7 3 set x \ufffd",
		"5 c7 3 set x \u00a0", "5 c7 3 set x " + strings.Repeat("v", maxCommand-5)}
)

// TestEntryForm: what UnmarshalText takes, MarshalText writes again byte for byte, and size counts.
func TestEntryForm(t *testing.T) {
	for i, text := range slices.Concat(entryTexts, otherTexts) {
		e := entry{9, "old", 9, "set old 9"}
		err := e.UnmarshalText([]byte(text))
		again, _ := e.MarshalText()
		if err == nil {
			same(t, "again", string(again), text)
			same(t, "size of "+text, e.size(), len(encode(&e))) // a newline here, a comma there
		}
		same(t, fmt.Sprintf("%.40q is an entry", text), err == nil, i < len(entryTexts))
		same(t, "the error is short", len(all(err)) < 1000, true)
	}
	var e entry
	e.UnmarshalText([]byte("5 c7 3 set x 1 "))
	same(t, "the parts", e, entry{5, "c7", 3, "set x 1 "})
}

// =================================================================================================
// THE WIRE
// =================================================================================================
//
// What one server tells another, byte for byte, and what no honest server could have sent. If that
// is dropped at the door, an algorithm that is right for honest messages needs no checks.

// port9000 are the addresses of three servers; a client's is clientAt.
var port9000, _ = parsePeers("1=127.0.0.1:9001,2=127.0.0.1:9002,3=127.0.0.1:9003")

// fromS2 is decode at S1 of three, for a datagram from the address of S2.
func fromS2(data string) (in any, why string) {
	in, err := decode([]byte(data), port9000[2], 1, port9000)
	if err != nil {
		why = err.Error()
	}
	return in, why
}

// One message of each kind, as it travels from S2 to S1.
const (
	head      = `{"from":2,"to":1,"term":5,`
	vote      = head + `"at":41,"requestVote":{"candidateId":2,"lastLogIndex":9,"lastLogTerm":4}}`
	voteYes   = head + `"at":44,"requestVoteReply":{"voteGranted":true}}`
	voteNo    = head + `"requestVoteReply":{"voteGranted":false}}`
	behind9   = `"at":46,"appendEntries":{"leaderId":2,"prevLogIndex":9,"prevLogTerm":4,"entries":`
	beat      = head + behind9 + `[],"leaderCommit":9,"seq":11}}`
	some      = head + behind9 + `["5 c7 3 set x 1"],"leaderCommit":9,"seq":12}}`
	success   = head + `"at":48,"appendEntriesReply":{"success":true,"matchIndex":10,"seq":12}}`
	refusal   = head + `"at":48,"appendEntriesReply":{"success":false,"seq":12,` + conflict
	conflict  = `"prevLogIndex":9,"conflictTerm":3,"conflictIndex":7}}`
	tooOld    = head + `"appendEntriesReply":{"success":false}}`
	ask       = `{"clientRequest":{"client":"c7","serial":1,"command":"incr n"}}`
	typedLine = `{"console":{"id":7,"line":"peek x"}}`
)

// TestMessageForm: every kind of message is the JSON of Figure 2's box and is read back as it was.
func TestMessageForm(t *testing.T) {
	for text, m := range map[string]Message{
		vote:    {At: 41, RequestVote: &requestVote{2, 9, 4}},
		voteYes: {At: 44, RequestVoteReply: &requestVoteReply{VoteGranted: true}},
		voteNo:  {RequestVoteReply: &requestVoteReply{}},
		beat:    {At: 46, AppendEntries: &appendEntries{2, 9, 4, []*entry{}, 9, 11}},
		some: {At: 46, AppendEntries: &appendEntries{2, 9, 4,
			[]*entry{{5, "c7", 3, "set x 1"}}, 9, 12}},
		success: {At: 48, AppendEntriesReply: &appendEntriesReply{true, 10, 12, 0, 0, 0}},
		refusal: {At: 48, AppendEntriesReply: &appendEntriesReply{false, 0, 12, 9, 3, 7}},
		tooOld:  {AppendEntriesReply: &appendEntriesReply{}},
	} {
		m.From, m.To, m.Term = 2, 1, 5
		same(t, "as it travels", string(encode(m)), text+"\n")
		in, why := fromS2(text)
		if back, ok := in.(*Message); why != "" || !ok || !reflect.DeepEqual(*back, m) {
			t.Errorf("%s\nread back: %+v %s", text, in, why)
		}
	}
}

// TestClientForm: these lines are fixed, since other people's programs speak them.
func TestClientForm(t *testing.T) {
	in, _ := decode([]byte(ask), clientAt, 1, port9000)
	if r, ok := in.(*request); !ok || *r != (request{"c7", 1, "incr n", clientAt}) {
		t.Errorf("%s: %v", ask, in)
	}
	for want, r := range map[string]*reply{
		`"result":"1"`:         {answer: answer{Result: "1"}},
		`"error":"x is \"2\""`: {answer: answer{Error: `x is "2"`}},
		`"error":"no","leader":2,"address":"[::1]:2"`: {answer: answer{Error: "no"}, Leader: 2,
			Address: "[::1]:2"},
	} {
		r.Client, r.Serial = "c7", 1
		want = `{"clientReply":{"client":"c7","serial":1,` + want + "}}\n"
		same(t, "reply", string(encode(datagram{ClientReply: r})), want)
	}
	// Text that is not UTF-8 is answered with an error. encoding/json puts U+FFFD in its place.
	for _, broken := range []string{"\xff", `\ud800`} {
		in, _ := fromS2(strings.Replace(ask, "incr n", "set x "+broken, 1))
		same(t, broken, inRole(leader).Step(in).Reply[0].Error,
			"a command is one line of printable UTF-8 text")
	}
}

// TestDrops: what no honest server could have sent is dropped, for the true reason. Each row
// changes one thing in a datagram, "old→new"; without a reason, it is a neighbour and is taken.
func TestDrops(t *testing.T) {
	const (
		notJSON = "not one of our JSON objects: "
		lies    = "no honest server sends {"
		needs   = "a client has 1 to 64 characters, and a serial is 1 or more"
	)
	bound := strings.NewReplacer("<max", "4503599627370495", "=max", "4503599627370496",
		">max", "4503599627370497", "c*64", strings.Repeat("c", 64))
	for _, row := range []struct{ data, edits, why string }{
		{vote, `→ | "term"→"preVote":true,"term"`, ""}, {typedLine, "→", ""}, // unknown fields
		{vote, vote + `→ | {→ | 4}}→4} | }}→}}{}`, notJSON},
		{vote, `:5→:"5" | :5→:5.5 | :5→:9223372036854775808`, notJSON},
		{some, `5 c7 3 set x 1→5 c7 3 get x | "5 c7 3 set x 1"→5`, notJSON},
		{vote, vote + "→{} | " + vote + "→null", "0 bodies that a server can take, not one"},
		{voteYes, `{"voteGranted":true}→null`, "0 bodies"}, {ask, `Request→Reply`, "0 bodies"},
		{voteYes, `"requestVote→"appendEntriesReply":{"success":false},"requestVote`, "2 bodies"},
		{ask, `"clientR→"console":{"id":1,"line":"status"},"clientR`, "2 bodies that a server"},
		{vote, `"to":1→"to":3`, "for S3, and this is S1"},
		{vote, `"to":1,→`, "for S0, and this is S1"}, {vote, `"from":2,→`, "from S0, which is"},
		{vote, `"from":2→"from":4`, "from S4, which is not among our servers 1,2,3"},
		{vote, `"from":2→"from":3`, "from S3, but not from its address 127.0.0.1:9003"},
		{voteYes, `→ | :5→:1 | :5→:=max | :44→:0 | :44→:=max`, ""},
		{voteYes, `:5→:0 | :5→:>max | :44→:-1 | :44→:>max`, lies},
		// An entry has an index and a term, and no entry has neither. No log is from the future.
		{vote, `Index":9→Index":<max | Term":4→Term":5 | 9,"lastLogTerm":4→0,"lastLogTerm":0`, ""},
		{vote, `Id":2→Id":3 | Index":9→Index":-9 | Term":4→Term":-4 | Index":9→Index":=max`, lies},
		{vote, `Term":4→Term":6 | Term":4→Term":0 | Index":9→Index":0`, lies},
		{beat, `→ | Commit":9→Commit":0 | Commit":9→Commit":=max | :11→:1 | :11→:=max`, ""},
		{beat, `Id":2→Id":3 | Index":9→Index":0 | Term":4→Term":6 | Index":9→Index":=max`, lies},
		{beat, `Commit":9→Commit":-1 | Commit":9→Commit":>max | :11→:0 | :11→:>max`, lies},
		{beat, `[]→null | []→["4"] | []→["5"] | []→["4","5","5"]`, ""}, // never falling
		{beat, `[]→[null] | []→["5",null] | []→["3"] | []→["6"] | []→["5","4"]`, lies},
		{beat, `9,"prevLogTerm":4,"entries":[]→0,"prevLogTerm":0,"entries":["1"]`, ""},
		{success, `→ | :10→:0 | :10→:<max | :12→:1 | :12→:=max`, ""},
		{success, `:10→:-1 | :10→:=max | :12→:0 | :12→:>max`, lies},
		{success, `"seq"→"prevLogIndex":9,"seq" | "seq"→"conflictTerm":3,"seq"`, lies},
		{success, `"seq"→"conflictIndex":7,"seq"`, lies},
		{refusal, `→ | :12→:1 | :12→:=max | LogIndex":9→LogIndex":7 | :9→:<max`, ""},
		{refusal, `:7→:1 | :7→:9 | Term":3→Term":0 | Term":3→Term":5`, ""},
		{refusal, `:12→:0 | :12→:>max | LogIndex":9→LogIndex":6 | :9→:=max`, lies},
		{refusal, `"seq"→"matchIndex":1,"seq" | :7→:0 | Term":3→Term":-1 | Term":3→Term":6`, lies},
		{tooOld, `→`, ""}, {tooOld, `false→false,"seq":1 | false→false,"prevLogIndex":1`, lies},
		{ask, `:1→:9223372036854775807 | c7→!~ | c7→c*64`, ""},
		{ask, `:1→:0 | "serial":1,→ | c7→ | c7→c 7 | c7→é | c7→c\u007f | c7→c*64c`, needs},
	} {
		for _, edit := range strings.Split(bound.Replace(row.edits), " | ") {
			old, new, _ := strings.Cut(edit, "→")
			data := strings.Replace(row.data, old, new, 1)
			same(t, edit+" changes something", data != row.data, edit != "→")
			_, why := fromS2(data)
			if (why == "") != (row.why == "") || !strings.HasPrefix(why, row.why) {
				t.Errorf("%.200s\n got %q\nwant %q", data, why, row.why)
			}
		}
	}
	_, why := decode([]byte(vote), clientAt, 1, port9000)
	same(t, "a stranger", why, "from S2, but not from its address 127.0.0.1:9002")
	_, why = decode([]byte(`{"from":1`+vote[len(`{"from":2`):]), port9000[1], 1, port9000)
	same(t, "ourselves", why, "from S1, but not from its address 127.0.0.1:9001")
}

// TestCannotAnswer: what was never sent cannot be answered. Only the leader of the term can judge.
func TestCannotAnswer(t *testing.T) {
	old, l := inRole(leader), inRole(leader) // has sent 1 and 2, and holds 1 to 3
	old.Step(&Message{From: 3, To: 1, Term: 3, RequestVote: &requestVote{CandidateID: 3}})
	for i, row := range [][3]int{{2, 4, 2}, {2, 3, 3}, {2, 0, 3}, // term, matchIndex, seq: dropped
		{2, 3, 2}, {2, 0, 0}, {1, 9, 9}, {3, 9, 9}, {3, 9, 9}} { // taken
		m := &Message{From: 2, To: 1, Term: row[0], AppendEntriesReply: &appendEntriesReply{
			Success: row[1] > 0, MatchIndex: row[1], Seq: row[2]}}
		h := &host{server: []*server{l, old}[i/7], toldAt: time.Now()}
		same(t, all(row), all(len(h.take(nil, m)) == 0, h.untold == 1), all(i < 3, i < 3))
	}
	same(t, "another message", l.cannotAnswer(&Message{Term: 2, RequestVote: &requestVote{}}), nil)
}

// TestClockOfNarration: a Lamport clock at the bound does not make our own messages impossible.
func TestClockOfNarration(t *testing.T) {
	m := &Message{From: 2, To: 1, Term: 3, At: maxNumber, RequestVote: &requestVote{CandidateID: 2}}
	out := inRole(follower).Step(m)
	_, err := decode(encode(out.Send[0]), port9000[1], 2, port9000)
	same(t, "the answer is dropped because", err, nil)
}

// TestDatagramSize: the largest command fits a datagram wherever it goes (D4).
func TestDatagramSize(t *testing.T) {
	const huge = maxNumber
	around := func(entries ...*entry) int {
		ae := &appendEntries{huge, huge, huge, entries, huge, huge}
		return len(encode(&Message{From: huge, To: huge, Term: huge, At: huge, AppendEntries: ae}))
	}
	frame, c := around([]*entry{}...), strings.Repeat(`"`, maxClient)
	same(t, "what stands around the entries", frame <= maxDatagram-maxBatch, true)
	quotes := "set k " + strings.Repeat(`"`, maxCommand-6)
	ask := datagram{ClientRequest: &request{c, math.MaxInt, quotes, clientAt}}
	r := &reply{Client: c, Serial: math.MaxInt, answer: answer{Result: quotes[6:]}}
	for _, size := range []int{around(&entry{huge, c, math.MaxInt, quotes}),
		len(encode(datagram{ClientReply: r})), len(encode(ask))} {
		same(t, all(size, "bytes"), size <= maxDatagram && size > 2*(maxCommand-6), true)
	}
	same(t, "HTML is not escaped", string(encode("<&>")), "\"<&>\"\n")
}

// FuzzDatagram: no datagram stops a server, unless it is forged and breaks an invariant.
func FuzzDatagram(f *testing.F) {
	for _, seed := range []string{vote, voteYes, beat, some, success, refusal, tooOld, ask, "{}"} {
		f.Add([]byte(seed))
		f.Add(regexp.MustCompile(`\d\d|[3-9]`).ReplaceAll([]byte(seed), []byte("2"))) // of term 2
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, why := fromS2(string(data))
		same(t, "the reason is text", utf8.ValidString(clip(why, width)), true)
		m, ok := in.(*Message)
		for r := follower; ok && why == "" && r <= leader; r++ {
			func() {
				defer func() {
					r := recover()
					if _, deliberate := r.(brokenInvariant); r != nil && !deliberate {
						panic(r)
					}
				}()
				if s := inRole(r); s.cannotAnswer(m) == nil {
					s.watch = 3 // narrate it, too
					s.Step(m)
					s.Step(tick{})
				}
			}()
		}
	})
}

// =================================================================================================
// THE LOOP
// =================================================================================================
//
// The order in which effects leave a server, why a busy one does not depose its leader, and that
// nobody waits for the terminal.

func listen(t testing.TB) *net.UDPConn {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(err == nil, all("there is a port:", err))
	return conn // open until the process ends, because a loop may read from it
}

func addressOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// heard waits for a datagram and names its body, or "entries" if it carries some.
func heard(t *testing.T, ear *net.UDPConn) string {
	t.Helper()
	data := string(arrived(t, ear))
	name := regexp.MustCompile(`^.*"(entries)":\["|^.*?"(\w+)":\{|`).FindStringSubmatch(data)
	return cmp.Or(name[1], name[2], data)
}

func arrived(t *testing.T, ear *net.UDPConn) []byte {
	t.Helper()
	buf := make([]byte, maxDatagram)
	ear.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, _, err := ear.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func screenOn(w io.Writer) *screen {
	sc := openScreen()
	sc.out, sc.err, sc.people, sc.color = w, w, false, false
	return sc
}

// hostOn is a host around s with a socket, a disk, a screen and a clock that only the test moves.
func hostOn(t *testing.T, s *server, dir string) *host {
	conn := listen(t)
	self := addressOf(conn)
	return &host{server: s, conn: conn, inputs: make(chan any, 10), screen: screenOn(os.Stderr),
		addresses: addressMap{1: self, 2: self, 3: self}, tick: time.Millisecond,
		clock: &time.Ticker{C: make(chan time.Time, 1)}, disk: opened(t, dir)}
}

// TestPerform: [Persist] the order of effects. TestFailStop proves the rest, with broken disks.
func TestPerform(t *testing.T) {
	h, ear := hostOn(t, blank(1), t.TempDir()), listen(t)
	h.addresses[2] = addressOf(ear)
	h.perform(everyEffect(addressOf(ear)))
	for _, want := range []string{"appendEntries", "requestVoteReply", "clientReply"} {
		same(t, "in order", heard(t, ear), want)
	}
	data, _ := os.ReadFile(h.disk.name)
	same(t, "the file", string(data), string(fileOf(ourHeader, "term 2 vote 2")))
	notLeader := reply{to: addressOf(ear), answer: answer{Error: errNotLeader}}
	two := notLeader
	two.Leader = 2
	h.perform(Output{Reply: []reply{notLeader, two}})
	for _, want := range []string{"", fmt.Sprintf(`,"leader":2,"address":"%v"`, addressOf(ear))} {
		want = `{"clientReply":{"serial":0,"error":"not the leader"` + want + "}}\n"
		same(t, "leader and address, or neither", string(arrived(t, ear)), want)
	}
	h.write([]byte("x"), netip.AddrPort{})
	same(t, "a send that fails is not loss", h.toldAt.IsZero(), false)
}

// TestTickComesLast: a heartbeat that waits in the channel is heard before the tick of the timeout.
func TestTickComesLast(t *testing.T) {
	h, ticks := hostOn(t, nil, t.TempDir()), make(chan time.Time, 1)
	h.clock = &time.Ticker{C: ticks}
	ae := &appendEntries{LeaderID: 2, Seq: 1}
	for range 40 { // select chooses at random
		h.server = inRole(follower)
		h.server.electionDue = h.server.now + 1
		ticks <- time.Time{}
		h.inputs <- &Message{From: 2, To: 1, Term: 2, AppendEntries: ae}
		for len(ticks)+len(h.inputs) > 0 {
			h.turn()
		}
		same(t, "role and clock", all(h.server.role, h.server.now), "follower 1")
	}
	h.faults.clockOff = true
	ticks <- time.Time{}
	h.turn()
	same(t, "tick off: time stands still", h.server.now, 1)
	h.server.store(3, &entry{Term: 2})
	h.server.commitIndex, h.server.out = 3, Output{}
	h.turn()
	same(t, "entries to apply wake it, too", h.server.lastApplied, 3)
}

// TestTake: a command sees the effects of what came before it, and a flood is taken in bites.
func TestTake(t *testing.T) {
	h := hostOn(t, inRole(leader), t.TempDir())
	before := []input{&request{Client: "c", Serial: 1, Command: "set x 1"}}
	rest := h.take(before, &consoleLine{Command: "peek x", to: addressOf(h.conn)})
	same(t, "appended", all(len(rest), h.server.lastIndex()), "0 4")
	h.inputs = make(chan any, maxInputs+2)
	for serial := range maxInputs + 2 {
		h.inputs <- &request{Client: "c", Serial: 2 + serial, Command: "get x"}
	}
	h.turn()
	same(t, "left for the next turn", len(h.inputs), 2)
}

// TestReadDatagrams: what arrives reaches the loop, or why it was dropped and whence it came.
func TestReadDatagrams(t *testing.T) {
	h, s2 := hostOn(t, inRole(follower), t.TempDir()), listen(t)
	h.addresses[2] = addressOf(s2)
	go h.readDatagrams(1)
	for data, want := range map[string]string{ask: "*main.request", beat: "*main.Message",
		typedLine: "*main.consoleLine", "{}": fmt.Sprintf("*fmt.wrapError 0 bodies that a server "+
			"can take, not one (%v)", addressOf(s2))} {
		s2.WriteToUDPAddrPort([]byte(data), addressOf(h.conn))
		got := <-h.inputs
		same(t, data, fmt.Sprintf("%T %[1]v", got)[:len(want)], want)
	}
}

// TestComplaint: a flood of garbage is counted, and told once a second at most.
func TestComplaint(t *testing.T) {
	h, terminal := hostOn(t, inRole(follower), t.TempDir()), make(terminal, 10)
	h.screen, h.server.watch = screenOn(terminal), 1
	comes := func(n int, age time.Duration) (left int) { // the age of what was told last
		h.toldAt = time.Now().Add(-age)
		for range n {
			h.take(nil, errors.New("why not"))
		}
		return h.untold
	}
	same(t, "told", all(comes(3, time.Hour), (<-terminal)[14:]), "2  fault   dropped 1: why not\n")
	same(t, "not yet", all(comes(2, 950*time.Millisecond), len(terminal)), "4 0")
	same(t, "all", all(comes(1, time.Second), (<-terminal)[14:]), "0  fault   dropped 5: why not\n")
}

// terminal takes one write whenever the test reads. Without a buffer, it is one after Ctrl-S.
type terminal chan string

func (to terminal) Write(text []byte) (int, error) {
	to <- string(text)
	return len(text), nil
}

// TestBlockedTerminal: the loop never waits for the terminal, and what that misses is confessed.
func TestBlockedTerminal(t *testing.T) {
	t.Parallel()
	terminal := make(terminal)
	sc := screenOn(terminal)
	line := func(n int) string { return fmt.Sprintf("%5d S1 F t1  fault   line", n) }
	wait := func(done func() bool) {
		for deadline := time.Now().Add(5 * time.Second); !done() && time.Now().Before(deadline); {
			runtime.Gosched()
		}
	}
	sc.narrate(line(1))
	wait(func() bool { return len(sc.jobs) == 0 }) // blocked in the first line
	room := cap(sc.jobs)
	for n := range room + 7 { // narrate never waits, or this test ends by its time
		sc.narrate(line(2+n), "a second one")
	}
	for n := range room + 1 {
		same(t, line(1+n), strings.HasPrefix(<-terminal, line(1+n)+"\n"), true)
	}
	wait(func() bool { return sc.missed.Load() == 0 }) // blocked in the confession
	for range room + 7 {
		sc.narrate("more")
	}
	same(t, "the confession", <-terminal, fmt.Sprintf("%5d 14 lines not shown\n", room+1))
}

// =================================================================================================
// THE MAP FROM RULE TO CODE
// =================================================================================================
//
// raft.go says where each rule of Figure 2 is carried out. This keeps the map true.

// book returns the text of raft.go, pages that from one part to another.
func book() string {
	text, _ := os.ReadFile("raft.go")
	return string(text)
}

func pages(from, to string) string {
	_, rest, _ := strings.Cut(book(), "\n// PART "+from+". ")
	rest, _, _ = strings.Cut(rest, "\n// PART "+to+". ")
	return rest
}

var (
	comment  = regexp.MustCompile(`(?m)^\s*//.*\n|[ \t]+// .*$`)
	function = regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)\(.*(?:\}|\{\n(?s:.*?)^\})$`)
	narrates = regexp.MustCompile(`(?m)^\s*s\.(tell|count|tellDeleted)\((?s:.*?)\)$\n`)
)

// TestTags: each rule has its words in the package comment and a line of code, and no other has.
func TestTags(t *testing.T) {
	words, text, _ := strings.Cut(book(), "\npackage main\n")
	tags := strings.Fields(ruleTags + " DK1 DK2 DK3 DK4 DK5 DK6")
	var defined []string
	rule := regexp.MustCompile(`(?m)^//\t(Persist|[A-Z][A-Za-z]+[0-9][ab]?) +[^ ]`)
	for _, m := range rule.FindAllStringSubmatch(words, -1) {
		defined = append(defined, m[1])
	}
	same(t, "the tables of the package comment and the tags", defined, tags)
	code := map[string]bool{}
	named := regexp.MustCompile(`\[(Persist|[A-Z][A-Za-z]+[0-9]+[a-z]?)\]|` +
		`\.(?:count|tell|send)\((?:\d, )?"([A-Z]\w+)"`)
	for line := range strings.Lines(text) {
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			same(t, m[0]+" is a rule", slices.Contains(tags, m[1]+m[2]), true)
			code[m[1]] = code[m[1]] || !strings.HasPrefix(strings.TrimSpace(line), "//")
		}
	}
	for _, tag := range tags {
		same(t, tag+" stands on a line of code", code[tag], true)
	}
}

// TestPure: Parts I and II are a function of their inputs, and never range over a map. The whole
// imports nothing but the standard library.
func TestPure(t *testing.T) {
	code := comment.ReplaceAllString(pages("I", "III"), "")
	var maps []string
	for _, m := range regexp.MustCompile(`(\w+)[ \t]+(?::= )?map\[`).FindAllStringSubmatch(code, -1) {
		maps = append(maps, m[1])
	}
	same(t, "there are maps", len(maps) > 5, true)
	impure := regexp.MustCompile(`\b(os|net|time|sync|atomic|io|bufio|runtime|exec|syscall|flag|` +
		`filepath|maps)\.|[^.]\brand\.[^R]|\bgo |\bselect\b|<-|\bchan\b|range [^{]*\b(` +
		strings.Join(maps, "|") + `)\b`)
	same(t, "what belongs to Part III", impure.FindAllString(code, -1), []string(nil))
	dotted := regexp.MustCompile(`(?m)^\t"\w+\..*"$`)
	same(t, "imports with a domain", dotted.FindAllString(book(), -1), []string(nil))
}

// TestWriters: [Persist] currentTerm, votedFor and log change in two functions, and at the start.
func TestWriters(t *testing.T) {
	const field = `(currentTerm|votedFor|log)`
	change := regexp.MustCompile(`\.` + field + `\b(\[[^\]]*\])?(\.\w+)?(, [\w.]+)*` +
		`( [-+]?= |\+\+|--)|` + field + `: |&\w+\.` + field + `\b|, \w+\.` + field + ` = `)
	found := map[string]bool{}
	for _, fn := range function.FindAllStringSubmatch(book(), -1) {
		for _, m := range change.FindAllStringSubmatch(fn[0], -1) {
			found[m[1]+m[6]+m[7]+m[8]+" in "+fn[1]] = true
		}
	}
	same(t, "who changes what", found, map[string]bool{"log in store": true, "log in replay": true,
		"currentTerm in setTermAndVote": true, "currentTerm in replayRecord": true,
		"votedFor in setTermAndVote": true, "votedFor in replayRecord": true,
		"log in replayRecord": true})
}

// TestBookLength: without comments and narration, Part I has at most 400 lines. No line is wide and
// no function long.
func TestBookLength(t *testing.T) {
	for _, fn := range function.FindAllStringSubmatch(book(), -1) {
		same(t, fn[1]+" is short", strings.Count(fn[0], "\n") < 50, true)
	}
	for line := range strings.Lines(book()) {
		columns := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")) - 1
		same(t, "100 columns: "+line, columns <= 100, true)
	}
	code := narrates.ReplaceAllString(comment.ReplaceAllString(pages("I", "II"), ""), "")
	lines := len(regexp.MustCompile(`(?m)^.+$`).FindAllString(code, -1)) - 1 // and the heading
	if lines < 300 || lines > 400 {
		t.Errorf("Part I has %d lines of code", lines)
	}
}

// =================================================================================================
// THE CONSOLE
// =================================================================================================
//
// What each command does to a server, and that it helps those who mistype.

// TestRunLine: ; and # count as words of their own, and a control character stops the whole line.
func TestRunLine(t *testing.T) {
	says := regexp.MustCompile(`"\S+"|nothing done`) // which command there is not
	for line, want := range map[string]string{
		"a ; b # c": `"a" "b"`, "; a ;; b ;": `"a"`, "a #": `"a"`, "a;b": `"a;b"`, "  ": "",
		"a#b ; c": `"a#b" "c"`, "# a": "", "a ; quit ; b": `"a"`, "quit\x1b[A": "nothing done",
		"quit\x00": "nothing done", "quit \xff": "nothing done",
	} {
		var out strings.Builder
		c := &console{ids: membersOf3, screen: screenOn(&out)}
		c.runLine(line)
		got := all(strings.Join(says.FindAllString(out.String(), -1), " "), c.failed, c.over)
		want := all(want, want != "", strings.Contains(line, "; quit"))
		same(t, fmt.Sprintf("%q", line), got, want)
	}
}

// TestOptions: a command line that cannot be meant is refused with its reason.
func TestOptions(t *testing.T) {
	for i, rows := 0, []string{"-n 1 -watch 3 -tick 1ms", "map[1:127.0.0.1:9001]",
		"-n 2", "map[1:127.0.0.1:9001 2:127.0.0.1:9002]", "-tick 10", "error: invalid value",
		"-peers 1=[::1]:1,2=[::1]:2 -id 2 -tick 1m", "map[1:[::1]:1 2:[::1]:2]",
		"-peers 1=192.0.2.1:5,2=192.0.2.2:5", "map[1:192.0.2.1:5 2:192.0.2.2:5]",
		"-n 3 -peers 1=[::1]:1", "error: -n and -peers both", "-n 0", "error: -n 0 is not from 1",
		"-tick 999us", "error: -tick 999µs is not from 1ms to 1m", "-n 100", "error: -n 100 is not",
		"-tick 61s", "error: -tick 1m1s is not", "-watch 4", "error: -watch 4 is not from 0 to 3",
		"-watch -1", "error: -watch -1 is not", "-id 4", "error: -id 4 is not among the servers 1=",
		"-id 0", "error: -id 0 is not", "-id 1 get x", "error: -id runs a server, and",
		"-id 1 -client", "error: -id runs a server, and", "-peers 0=[::1]:1",
		`error: -peers: "0=[::1]:1" is not ID=HOST:PORT`, "-peers 1=127.0.0.1:1,2=192.0.2.1:2",
		"error: -peers: 127.0.0.1, 192.0.2.1: loopback", "-peers 1=127.0.0.1:1,2=[::1]:2",
		"error: -peers: 127.0.0.1, ::1: IPv4 and IPv6", "-peers 1=127.0.0.1:1,2=127.0.0.1:1",
		"error: -peers: number or address of", "-peers 1=127.0.0.1:1,1=127.0.0.1:2",
		"error: -peers: number or address of", "-peers 1=:5", `error: -peers: "1=:5" needs a host`,
		"-peers 1=0.0.0.0:5", `error: -peers: "1=0.0.0.0:5" needs a host and a port`,
		"-peers 1=[::1]:0", `error: -peers: "1=[::1]:0" needs a host and a port`,
	}; i < len(rows); i += 2 {
		line, want := rows[i], rows[i+1]
		o, err := parseOptions(strings.Fields(line))
		got := all(o.addresses)
		if err != nil {
			got = fmt.Sprintf("error: %-99v", err)[:len(want)]
		}
		same(t, line, got, want)
	}
}

// TestDrawLogs: as many of the newest entries as there is room for keep their commands.
func TestDrawLogs(t *testing.T) {
	var views []*logView
	for range 2 {
		s := inRole(leader)
		for n := range 6 {
			s.Step(&request{"c", n + 1, fmt.Sprintf("set key%d val%[1]d", n), clientAt})
		}
		s.commitIndex = 8
		views = append(views, s.logView())
	}
	views[1].ID, views[1].Head, views[1].Next, views[1].Match = 2, "S2 F t2 ", nil, nil
	same(t, "one leader", drawLogs(views, width),
		`         1  2  3  4  5  6  7  8            9
S1 L t2 [1][1][2][2][2][2][2][2 key4=val4](2 key5=val5)
S2 F t2 [1][1][2][2][2][2][2][2 key4=val4](2 key5=val5) S1: match 0 next 3`)
}

// TestWidth: the status of any server fits behind "S1: " in a terminal.
func TestWidth(t *testing.T) {
	s := inRole(leader)
	s.currentTerm, s.lamport, s.commitIndex = maxNumber-1, maxNumber/4, maxNumber-1
	text := (&host{server: s}).status()
	same(t, text, len(text) <= width-4, true)
}

// TestConsoleCommands: what S1 answers to a command, which faults are on, and what S2 hears then.
func TestConsoleCommands(t *testing.T) {
	lost := appendEntriesReply{Success: true, MatchIndex: 2, Seq: 3} // to the beat
	fromTwo := map[string]Message{"REPLY": {From: 2, To: 1, Term: 2, AppendEntriesReply: &lost},
		"MESSAGE": {From: 2, To: 1, Term: 3, RequestVote: &requestVote{2, 9, 2}}}
	for _, row := range []struct {
		role                        role
		line, answer, faults, heard string
	}{
		{leader, "timeout", "error: a leader has no election timeout", "", ""},
		{follower, "timeout", "ok", "", "requestVote"},
		{candidate, "timeout", "asks again in t2", "", "requestVote"}, // [CQ2]
		{follower, "beat", "ok", "", ""},
		{leader, "beat ; REPLY", "ok", "", "appendEntries entries"}, // the lost ones again
		{leader, "tick off ; tick on", "ok", "", ""},
		{leader, "tick off" + strings.Repeat(" ; tick 1", 5), "ok", " tick:off", "appendEntries"},
		{leader, "tick 0", `error: "0" is not a number from 1 to 1000`, "", ""},
		{leader, "tick 1001", `error: "1001" is not a number from 1 to 1000`, "", ""},
		{leader, "cut all ; beat", "ok", " cut:2 cut:3", ""},
		{leader, "cut S2 append ; beat", "ok", " cut:2-append", ""},
		{leader, "cut 3,S2,3 vote ; beat", "ok", " cut:2-vote cut:3-vote", "appendEntries"},
		{follower, "cut 2 append ; timeout", "ok", " cut:2-append", "requestVote"},
		{follower, "cut 2 vote ; cut 3 ; timeout", "ok", " cut:2-vote cut:3", ""},
		{leader, "cut 1", "ok", "", ""},
		{leader, "cut 2 votes", `error: cut WHOM [vote|append], not "votes"`, "", ""},
		{leader, "cut 2,", `error: there is no server ""; there are 1,2,3`, "", ""},
		{leader, "cut 4", `error: there is no server "4"; there are 1,2,3`, "", ""},
		{leader, "noise 100 ; beat", "ok", " noise:100", ""},
		{leader, "noise 101", `error: "101" is not a number from 0 to 100`, "", ""},
		{leader, "noise 100 ; cut 2 ; hold ; heal ; beat", "ok", " hold:0", "appendEntries"},
		{follower, "hold ; MESSAGE ; hold", "1. <-S2 t3 RequestVote last #9t2", " hold:1", ""},
		{follower, "hold ; MESSAGE ; MESSAGE ; release 1", "ok", " hold:1", "requestVoteReply"},
		{follower, "hold ; MESSAGE ; release", "ok", "", "requestVoteReply"},
		{follower, "hold ; release 0", `error: "0" is not a number from 1 to 4096`, " hold:0", ""},
		{follower, "cut 2 vote ; MESSAGE ; heal", "ok", "", ""},
		{follower, "watch 4", `error: "4" is not a number from 0 to 3`, "", ""},
		{follower, "peek x", "(none)", "", ""},
		{follower, "help", "error: help is not a command for servers", "", ""},
		{follower, "status now", "error: status needs no argument", "", ""},
		{follower, "cut", "error: cut needs WHOM [vote|append]", "", ""},
		{follower, "PEEK x", `error: no such command "PEEK"; did you mean peek?`, "", ""},
		{follower, "exit", `error: no such command "exit"; did you mean quit?`, "", ""},
		{follower, "put x 1", `error: no such command "put"; help lists them`, "", ""},
	} {
		s := inRole(row.role)
		s.Step() // what its role says at once has left, and is lost
		h, s2, person, answer := hostOn(t, s, t.TempDir()), listen(t), listen(t), ""
		h.addresses[2], h.screen = addressOf(s2), screenOn(io.Discard)
		for _, line := range strings.Split(row.line, " ; ") {
			if m := fromTwo[line]; m.From == 2 {
				h.step(h.take(nil, &m)...)
				continue
			}
			h.execute(&consoleLine{Serial: 7, Command: line, to: addressOf(person)})
			var d datagram
			json.Unmarshal(arrived(t, person), &d)
			same(t, "the number of the answer", d.ConsoleReply.Serial, 7)
			answer = cmp.Or(d.ConsoleReply.Result, "error: "+d.ConsoleReply.Error)
		}
		h.write([]byte("end"), addressOf(s2)) // behind all that the commands sent
		got := fmt.Sprintf("%s,%s, S2 hears ", answer, &h.faults)
		for what := heard(t, s2); what != "end"; what = heard(t, s2) {
			got = strings.TrimSpace(got) + " " + what
		}
		same(t, row.line, got, fmt.Sprintf("%s,%s, S2 hears %s", row.answer, row.faults, row.heard))
	}
	h := hostOn(t, inRole(follower), t.TempDir())
	h.execute(&consoleLine{Command: "cut all", to: netip.MustParseAddrPort("192.0.2.1:5")})
	same(t, "another machine may not command", len(h.faults.cut), 0)
}

// =================================================================================================
// THE SIMULATOR
// =================================================================================================
//
// A world of servers, disks, clocks, clients and a network, in which one number decides everything.
// The servers are the real ones: Step, records, replay and decode of raft.go. The world around them
// does its worst. It loses, doubles, delays and reorders datagrams, cuts wires, kills processes
// between any two effects, tears writes at any byte, cuts the power, stops processes and clocks.
// After each event a judge looks whether Figure 3 still holds, and more.
//
//	go test -run TestSimulator                   the default run
//	go test -run TestSimulator -seeds 100000     a night
//	go test -run TestSimulator -seed 4711 -v     one seed, with the end of its story
//
// S1 time · S2 a server and its disk · S3 the network · S4 clients · S5 faults · S6 what must always
// hold · S7 what must happen in the end · S8 linearizability · S9 many seeds · S10 the story

var (
	flagSeed  = flag.Int("seed", 0, "simulator: run this `seed` only and tell the end of its story")
	flagSeeds = flag.Int("seeds", 0, "simulator: run so many `seeds`; 0 is the default run")
)

// ---- S1. Time -----------------------------------------------------------------------------------
//
// The world is a list of events, ordered by virtual time. Whatever happens is the handling of one of
// them, and whatever is random is drawn from one generator. So a seed can be repeated, and a failure
// is a number that can be sent to somebody else.

// moment is a point of virtual time, in thousandths of a tick.
type moment int64

const (
	oneTick    moment = 1000
	oneTimeout        = electionTicksMax * oneTick // the longest; S7 counts in it
	stormTime         = 700 * oneTick              // how long the faults last
)

type event struct {
	at   moment
	n    *node // whom it concerns, or nil
	life int   // the process that it concerns, or anyLife
	do   func()
}

const anyLife = -1

// world is everything there is in one run.
type world struct {
	seed   int
	rand   *rand.Rand
	now    moment
	events int     // that have happened
	agenda []event // the next one is the last

	nodes     []*node // by id; nodes[0] is nil
	members   []int
	addresses map[int]netip.AddrPort
	clients   []*client

	weather weather
	cut     [][]bool // cut[a][b]: nothing gets from a to b
	cuts    int      // number of the last partition
	mtu     int      // larger messages are lost; 0: none is
	json    bool     // every message is written and read by the code of raft.go

	calm      bool   // S7: faults are over, but for one that stays
	calmAt    moment // since then
	closing   bool   // no new commands
	lastWrite int    // the event in which a client heard of a write

	climate climate // S5
	judge   judge   // S6
	story   *story  // S10, nil unless it is told
	stack   string  // of a panic
}

// newWorld draws a cluster, its clients and its faults from a seed.
func newWorld(seed int) *world {
	w := &world{seed: seed, rand: rand.New(rand.NewPCG(uint64(seed), 0)),
		addresses: map[int]netip.AddrPort{}}
	n := []int{3, 5, 3, 5, 3, 5, 3, 4, 2, 7, 5, 1}[w.rand.IntN(12)]
	root := &place{}
	w.nodes, w.cut = make([]*node, n+1), make([][]bool, n+1)
	for id := 1; id <= n; id++ {
		w.members = append(w.members, id)
		w.addresses[id] = netip.AddrPortFrom(netip.IPv6Loopback(), uint16(9000+id))
		w.cut[id] = make([]bool, n+1)
		w.nodes[id] = &node{id: id, durable: image{chain: []*place{root}}}
	}
	w.judge = newJudge(root)
	w.climate = w.drawClimate()
	w.json = w.chance(30)
	for _, n := range w.nodes[1:] {
		w.start(n)
	}
	for id := range 2 + w.rand.IntN(5) {
		c := &client{id: id, name: fmt.Sprintf("c%d", id), guess: w.anybody(),
			patience: moment(10+w.rand.IntN(60)) * oneTick}
		w.clients = append(w.clients, c)
		w.setAlarm(c, w.upTo(20*oneTick))
	}
	w.plan(w.upTo(w.climate.interval), nil, anyLife, w.strike)
	return w
}

// plan puts an event into the agenda. Of one moment, what was planned first happens first.
func (w *world) plan(after moment, n *node, life int, do func()) {
	e := event{w.now + after, n, life, do}
	i := sort.Search(len(w.agenda), func(i int) bool { return w.agenda[i].at <= e.at })
	w.agenda = slices.Insert(w.agenda, i, e)
}

// runUntil lets the world go on until a moment, or until something is done.
func (w *world) runUntil(end moment, done func() bool) bool {
	for len(w.agenda) > 0 && w.agenda[len(w.agenda)-1].at <= end {
		e := w.agenda[len(w.agenda)-1]
		w.agenda = w.agenda[:len(w.agenda)-1]
		w.now = e.at
		if e.n != nil && (e.life == anyLife && e.n.s == nil || e.life != anyLife && e.life != e.n.life) {
			continue // it concerns a process that is no more
		}
		w.events++
		e.do()
		if done() {
			return true
		}
	}
	w.now = max(w.now, end)
	return false
}

func never() bool { return false }

// chance is true so many times in a thousand, upTo draws a time from 1 to d, anybody draws a server.
func (w *world) chance(perMille int) bool { return w.rand.IntN(1000) < perMille }
func (w *world) upTo(d moment) moment     { return 1 + moment(w.rand.Int64N(int64(d))) }
func (w *world) anybody() int             { return 1 + w.rand.IntN(len(w.members)) }

// ---- S2. A server and its disk ------------------------------------------------------------------
//
// The loop of chapter 13 in virtual time. What has arrived while the disk was busy or the process
// stopped is stepped at once. The effects of a Step happen in the order of perform, and the process
// may die between any two of them.

// node is a server and the machine it runs on.
type node struct {
	id     int
	s      *server // nil: not running
	life   int     // number of the process
	pace   moment  // between two ticks of its clock
	inbox  []input
	ticked bool
	out    Output // what the disk works on
	busy   bool
	asleep moment // stopped until then

	fuse    int    // so many effects until the process dies, or 0
	power   bool   // and by a power cut
	failing string // "write" or "fsync": the next one fails
	gone    bool   // somebody has removed or replaced its file [DK6]

	data     []byte    // the file, with what is being written
	written  int       // how much of it a kill leaves
	synced   int       // how much of it a power cut leaves
	unsynced []promise // the records behind synced

	image   image // S6: the state that its records lead to,
	durable image // the state that is certain on its disk,
	seen    seen  // and what the last look at it showed
	lucky   bool  // S7: not touched by the fault that stays
}

// start starts a process. It reads the file, as openDisk does, and begins as a follower.
func (w *world) start(n *node) {
	w.say("S%d starts", n.id)
	mine := header(n.id, w.members)
	p, good, err := replay(n.data, mine)
	w.check(err == nil, "restart", "S%d refuses its file: %v", n.id, err)
	if good > 0 && w.chance(50) { // somebody types another -n [DK1]
		w.count("other members", true)
		_, _, err := replay(n.data, header(n.id, append(slices.Clone(w.members), 9)))
		w.check(err != nil, "DK1", "S%d starts with other members", n.id)
	}
	w.count("torn tail", good < len(n.data))
	w.restarted(n, p, good)
	if n.data = n.data[:good]; good == 0 {
		n.data = appendLine(n.data, mine)
	}
	n.written, n.synced = len(n.data), len(n.data)
	w.becameDurable(n)

	peers := slices.DeleteFunc(slices.Clone(w.members), func(id int) bool { return id == n.id })
	n.s = newServer(n.id, peers, p, rand.New(rand.NewPCG(w.rand.Uint64(), 0)))
	n.seen = seen{}
	if w.story != nil {
		n.s.watch = 2
	}
	n.asleep, n.fuse, n.failing, n.gone = 0, 0, "", false
	n.ticked, n.busy, n.inbox = false, false, n.inbox[:0]
	n.life++
	if n.pace = oneTick; !w.calm && slices.Contains(w.climate.kinds, "clock") {
		w.setClock(n)
	}
	w.plan(w.upTo(n.pace), n, n.life, func() { w.tick(n) })
}

// setClock lets n's clock run at half to twice the speed.
func (w *world) setClock(n *node) {
	n.pace = []moment{oneTick / 2, oneTick, 2 * oneTick, 10 * oneTick}[w.rand.IntN(4)]
	w.count("slow clock", n.pace > oneTick*5/4)
	w.count("fast clock", n.pace < oneTick*3/4)
}

// tick is one beat of n's clock. A stopped process misses beats: at most one waits.
func (w *world) tick(n *node) {
	w.plan(n.pace, n, n.life, func() { w.tick(n) })
	n.ticked = true
	w.turn(n)
}

// turn is one turn of the loop. It takes all that waits, the tick last.
func (w *world) turn(n *node) {
	if n.busy || n.asleep > w.now || len(n.inbox) == 0 && !n.ticked {
		return
	}
	w.count("batched", len(n.inbox) > 1)
	if n.ticked {
		n.inbox = append(n.inbox, tick{})
		n.ticked = false
	}
	n.out = n.s.Step(n.inbox...)
	w.narrated(n.out.Trace)
	n.inbox = n.inbox[:0]
	w.stepped(n)
	for i := range n.out.Early {
		if w.dies(n) {
			return
		}
		w.check(n.out.Early[i].AppendEntries != nil, "persist before reply", "S%d answers early", n.id)
		w.transmit(n, &n.out.Early[i])
	}
	switch {
	case len(n.out.Persist) == 0:
		w.respond(n)
	case n.gone: // it notices before it writes and stops; somebody puts the file back
		w.count("file vanished", true)
		w.crash(n, false)
	default:
		n.busy = true
		w.plan(w.upTo(w.climate.writeTime), n, n.life, func() { w.endDisk(n, "write") })
	}
}

// endDisk is the end of a write or of an fsync. The process may die before, in the middle of it or
// after it, or it fails. After a failed fsync, what was not synced may be gone.
func (w *world) endDisk(n *node, what string) {
	if n.asleep > w.now { // a stopped process learns of it later
		w.plan(n.asleep-w.now, n, n.life, func() { w.endDisk(n, what) })
		return
	}
	mark, goal := &n.written, len(n.data)
	if what == "fsync" {
		mark, goal = &n.synced, n.written
	}
	dies, fails := n.burns(), n.failing == what
	if dies || fails {
		part := w.rand.IntN(3)
		*mark = []int{*mark, *mark + w.rand.IntN(goal-*mark+1), goal}[part]
		w.count("crash "+[]string{"before ", "in ", "after "}[part]+what, dies)
		w.count(what+" error", fails)
		w.crash(n, n.power || what == "fsync" && fails)
		return
	}
	*mark = goal
	if what == "write" {
		w.plan(w.upTo(w.climate.fsyncTime), n, n.life, func() { w.endDisk(n, "fsync") })
		return
	}
	w.becameDurable(n)
	n.busy = false
	if w.respond(n) {
		w.turn(n)
	}
}

// respond is the second half of perform. It reports whether the process lives.
func (w *world) respond(n *node) bool {
	w.learned(n)
	for i := range n.out.Send {
		if w.dies(n) {
			return false
		}
		w.transmit(n, &n.out.Send[i])
	}
	for i := range n.out.Reply {
		if w.dies(n) {
			return false
		}
		w.reply(n, &n.out.Reply[i])
	}
	return !w.dies(n)
}

// burns reports whether this effect is the one at which the process dies.
func (n *node) burns() bool {
	if n.fuse == 0 {
		return false
	}
	n.fuse--
	return n.fuse == 0
}

// dies lets the process die between two effects, if its time has come.
func (w *world) dies(n *node) bool {
	burnt := n.burns()
	if burnt {
		w.count("crash between effects", true)
		w.crash(n, n.power)
	}
	return burnt
}

// crash ends the process. A kill leaves the file as it was written. A power cut leaves what was
// synced and, with luck, some of the rest.
func (w *world) crash(n *node, power bool) {
	if n.s != nil {
		w.say("S%d dies", n.id)
		w.count("kill", !power)
		w.judge.bury(n.s)
		n.s = nil
		n.life++
		n.data = n.data[:n.written]
		if !w.calm {
			w.plan(w.upTo(w.climate.downtime), n, n.life, func() { w.start(n) })
		}
	}
	if power {
		w.count("power cut", true)
		whole := len(n.data)
		keep := []int{n.synced, n.synced + w.rand.IntN(whole-n.synced+1), whole}[w.rand.IntN(3)]
		n.data = n.data[:keep]
		if keep < whole && w.chance(200) { // the file system knows the length, but not the bytes
			w.count("tail of zeros", true)
			n.data = append(n.data, make([]byte, whole-keep)...)
		}
	}
}

// ---- S3. The network ----------------------------------------------------------------------------

// weather is what happens to datagrams, in thousandths of them.
type weather struct {
	loss, double int
	slow         int // take up to slowest; the others, up to usual
	late         int // come many election timeouts later, into another world
	usual        moment
	slowest      moment
}

func (w *world) drawWeather() weather {
	some := func(perMille, below int) int {
		if w.chance(perMille) {
			return w.rand.IntN(below)
		}
		return 0
	}
	return weather{
		loss: some(700, 300), double: some(600, 300), slow: some(600, 300), late: some(500, 100),
		usual:   []moment{oneTick / 10, oneTick, 3 * oneTick, 8 * oneTick}[w.rand.IntN(4)],
		slowest: []moment{10 * oneTick, oneTimeout, 4 * oneTimeout}[w.rand.IntN(3)],
	}
}

// transmit sends a message to another server.
func (w *world) transmit(n *node, m *Message) {
	w.promised(n, m)
	if w.cut[m.From][m.To] || w.tooLarge(m) {
		return
	}
	c := *m
	in := any(&c)
	if w.json {
		var err error
		data := encode(m)
		in, err = decode(data, w.addresses[m.From], m.To, w.addresses)
		w.check(err == nil, "JSON", "%s is dropped: %v", data, err)
	}
	to := w.nodes[m.To]
	w.carry(to, func() {
		w.count("of an old term", m.Term < to.s.currentTerm)
		w.receive(to, in)
	})
}

// tooLarge reports whether the path loses a message for its size.
func (w *world) tooLarge(m *Message) bool {
	if w.mtu == 0 || m.AppendEntries == nil {
		return false
	}
	size := 200
	for _, e := range m.AppendEntries.Entries {
		size += e.size()
	}
	w.count("lost for its size", size > w.mtu)
	return size > w.mtu
}

// carry gives a datagram to the network. With n it is for that server, otherwise for a client. Of the
// storm's datagrams, some still come in the calm.
func (w *world) carry(n *node, deliver func()) {
	v, sentAt := &w.weather, w.now
	copies := 1
	if w.chance(v.loss) {
		w.count("lost", true)
		copies = 0
	} else if w.chance(v.double) {
		w.count("doubled", true)
		copies = 2
	}
	for range copies {
		delay := v.usual
		if w.chance(v.slow) {
			delay = v.slowest
		} else if w.chance(v.late) {
			delay = 20 * oneTimeout
		}
		delay = w.upTo(delay)
		w.count("slow", delay > 5*oneTick)
		w.count("late", delay > 3*oneTimeout)
		w.plan(delay, n, anyLife, func() {
			if sentAt >= w.calmAt || w.now < w.calmAt+oneTimeout/2 {
				deliver()
			}
		})
	}
}

// receive puts an input into n's receive buffer. What does not fit is lost.
func (w *world) receive(n *node, in input) {
	if len(n.inbox) < 200 {
		n.inbox = append(n.inbox, in)
		w.turn(n)
	}
}

// ---- S4. Clients --------------------------------------------------------------------------------
//
// A client has one command outstanding. It asks a server, follows redirects, and asks again, the
// same one or another. Sometimes it gives up and comes back under another name. What became of the
// command it never learns.

type client struct {
	id       int
	name     string
	names    int
	serial   int    // of its last write
	reads    int    // so far
	patience moment // before it asks again
	alarm    int    // number of the one that is set
	waiting  bool
	call     int // the outstanding one, in the history
	request  request
	guess    int // whom it asks
}

// call is a command of a client in the history, which S8 judges.
type call struct {
	request
	invoked  int // number of the event
	returned int // likewise, or 0: there was no answer
	answer   answer
	place    int // index of the write in the log, a hint for S8
}

// firstRead is where the serials of reads begin. They only tell answers apart.
const firstRead = 1 << 20

// wake lets the client do what it planned, if this is the alarm that it has set last.
func (w *world) wake(c *client, alarm int) {
	switch {
	case alarm != c.alarm || !c.waiting && w.closing:
		return
	case !c.waiting:
		w.invoke(c)
	case !w.calm && w.chance(w.climate.giveUp):
		w.count("client gives up", true)
		c.names++
		c.name, c.serial = fmt.Sprintf("c%d.%d", c.id, c.names), 0
		w.invoke(c)
	default:
		w.count("client retries", true)
		if w.chance(500) {
			w.count("client moves", true)
			c.guess = w.anybody()
		}
	}
	w.setAlarm(c, c.patience/2+w.upTo(c.patience))
	w.ask(c)
}

// keys are those that commands name.
var keys = []string{"x", "y", "z"}

// invoke begins a new command. Values are unique, so that it shows where they come from.
func (w *world) invoke(c *client) {
	key := keys[w.rand.IntN(w.climate.keys)]
	value := strconv.Itoa(1000*w.events) + w.climate.padding
	command := "get " + key
	serial := firstRead + c.reads
	switch verb := w.rand.IntN(10); {
	case verb < 3 || c.id == 0: // a client that only reads stays with a leader that was cut off
		c.reads++
	case verb < 6:
		command = "set " + key + " " + value
	case verb < 7:
		command = "del " + key
	case verb < 9:
		command = "incr " + key
	default: // of what is there, often
		last := w.judge.facts[len(w.judge.facts)-1]
		old := last.values[slices.Index(keys, key)]
		command = "cas " + key + " " + max(old, "0") + " " + value
	}
	if !strings.HasPrefix(command, "get") {
		c.serial++
		serial = c.serial
	}
	w.say("%s: %.40s", c.name, command)
	c.request = request{Client: c.name, Serial: serial, Command: command,
		to: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(10000+c.id))}
	c.waiting = true
	c.call = len(w.judge.history)
	w.judge.history = append(w.judge.history, call{request: c.request, invoked: w.events})
}

// ask sends the outstanding command.
func (w *world) ask(c *client) {
	r, n := c.request, w.nodes[c.guess]
	w.carry(n, func() { w.receive(n, &r) })
}

// reply carries an answer to its client.
func (w *world) reply(n *node, r *reply) {
	w.answered(n, r)
	c, copied := w.clients[int(r.to.Port())-10000], *r
	w.carry(nil, func() { w.hear(c, copied) })
}

// hear is a client that takes an answer.
func (w *world) hear(c *client, r reply) {
	if !c.waiting || r.Client != c.name || r.Serial != c.request.Serial {
		return
	}
	if r.Error == errNotLeader {
		if r.Leader != none && r.Leader != c.guess {
			c.guess = r.Leader
			w.ask(c)
		}
		return
	}
	done := &w.judge.history[c.call]
	done.returned, done.answer = w.events, r.answer
	if r.Serial < firstRead {
		w.lastWrite = w.events
	}
	w.say("%s: %.40s -> %.40s%.40s", c.name, c.request.Command, r.Result, r.Error)
	c.waiting = false
	w.setAlarm(c, w.upTo(w.climate.thinking))
}

// setAlarm wakes c after a while. It replaces the alarm set before.
func (w *world) setAlarm(c *client, after moment) {
	c.alarm++
	alarm := c.alarm
	w.plan(after, nil, anyLife, func() { w.wake(c, alarm) })
}

// ---- S5. Faults ---------------------------------------------------------------------------------
//
// The seed decides also which kinds of faults there are, how often and how long. Many seeds have few
// kinds, so that the worst one does not drown the others.

// allFaults lists what the default run must have seen.
const allFaults = "lost, doubled, slow, late, of an old term, batched, lost for its size, " +
	"partition, one-way cut, bridge, deaf server, cut off when elected, " +
	"kill, power cut, power cut of all, crash between effects, crash before write, crash in write, " +
	"crash after write, crash before fsync, crash in fsync, crash after fsync, torn tail, " +
	"tail of zeros, write error, fsync error, file vanished, other members, pause, slow clock, " +
	"fast clock, client retries, client moves, client gives up, " +
	"stays dead, stays cut off, stays deaf, path stays small"

// count notes that a kind of fault has happened.
func (w *world) count(kind string, happened bool) {
	if happened {
		w.judge.faults[kind]++
	}
}

// climate is the character of a seed.
type climate struct {
	kinds     []string // of faults that strike; the same one twice comes twice as often
	interval  moment   // between strikes, about
	downtime  moment   // at most, and so are the following
	cutTime   moment
	pauseTime moment
	writeTime moment
	fsyncTime moment
	thinking  moment
	giveUp    int // how often clients do
	storms    int // how often the weather changes
	usurpers  int // how many leaders are cut off when elected
	keys      int
	padding   string // of values
	limit     int    // bytes of entries in the first AppendEntries of a reign; 0: what fits
}

func (w *world) drawClimate() climate {
	one := func(choices ...moment) moment { return choices[w.rand.IntN(len(choices))] }
	c := climate{
		interval:  one(15, 30, 60) * oneTick,
		downtime:  one(10, 30, 100) * oneTick,
		cutTime:   one(30, 80, 200) * oneTick,
		pauseTime: one(5, 30, 100) * oneTick,
		writeTime: one(1, 20, 500),
		fsyncTime: one(1, 200, 3000),
		thinking:  one(1, 5, 30) * oneTick,
		giveUp:    int(one(0, 20, 100)),
		storms:    int(one(0, 100, 200, 300)),
		keys:      int(one(1, 2, 3)),
		limit:     int(one(0, 1, 30)),
	}
	for _, kind := range []string{"partition", "one-way cut", "bridge", "deaf server", "kill",
		"power cut", "power cut of all", "write error", "fsync error", "file vanished", "pause", "clock"} {
		if w.chance(450) {
			c.kinds = append(c.kinds, slices.Repeat([]string{kind}, 1+w.rand.IntN(5))...)
		}
	}
	if w.chance(500) {
		c.usurpers = 500
		c.kinds = append(c.kinds, "partition", "partition", "partition")
	}
	if w.chance(150) {
		w.mtu = 800 + w.rand.IntN(700)
		c.padding = strings.Repeat("x", w.rand.IntN(200))
	}
	w.weather = w.drawWeather()
	return c
}

// strike lets one fault happen.
func (w *world) strike() {
	if w.calm {
		return
	}
	w.plan(w.upTo(2*w.climate.interval), nil, anyLife, w.strike)
	if w.chance(w.climate.storms) {
		w.weather = w.drawWeather()
	}
	if len(w.climate.kinds) == 0 {
		return
	}
	n := w.victim()
	switch kind := w.climate.kinds[w.rand.IntN(len(w.climate.kinds))]; kind {
	case "partition", "one-way cut", "bridge", "deaf server":
		w.partition(kind)
	case "kill", "power cut":
		n.fuse, n.power = 1+w.rand.IntN(8), kind == "power cut"
	case "power cut of all":
		w.count(kind, true)
		for _, n := range w.nodes[1:] {
			w.crash(n, true)
		}
	case "write error", "fsync error":
		n.failing, _, _ = strings.Cut(kind, " ")
	case "file vanished":
		n.gone = true
	case "clock":
		w.setClock(n)
	case "pause":
		if n.s != nil && n.asleep <= w.now {
			w.count(kind, true)
			d := w.upTo(w.climate.pauseTime)
			w.say("S%d stopped for %d ticks", n.id, d/oneTick)
			n.asleep = w.now + d
			w.plan(d, n, n.life, func() { w.turn(n) })
		}
	}
}

// victim draws a server, often the leader.
func (w *world) victim() *node {
	if w.chance(400) {
		for _, n := range w.nodes[1:] {
			if n.s != nil && n.s.role == leader && w.chance(700) {
				return n
			}
		}
	}
	return w.nodes[w.anybody()]
}

// elected is a new leader's bad luck. Cut off at once, it reigns, and nobody knows: Figure 8 is made
// of such reigns. Small first messages carry old entries without the leader's own [Lead4].
func (w *world) elected(n *node) {
	if w.calm {
		return
	}
	if w.chance(w.climate.usurpers) {
		w.count("cut off when elected", true)
		w.cutWires("cut off when elected", func(a, b int) bool { return a == n.id || b == n.id })
	}
	for _, p := range n.s.peers {
		n.s.progress[p].limit = cmp.Or(w.climate.limit, n.s.progress[p].limit)
	}
}

// partition draws two groups and what the servers do not hear.
func (w *world) partition(kind string) {
	w.count(kind, true)
	order := w.rand.Perm(len(w.members)) // order[id-1] is the server's place
	if first := w.victim().id - 1; w.chance(500) {
		at := slices.Index(order, 0)
		order[at], order[first] = order[first], 0
	}
	size, n := 1+w.rand.IntN(len(order)), len(order)
	w.cutWires(kind, func(a, b int) bool {
		a, b = order[a-1], order[b-1]
		apart := (a < size) != (b < size)
		switch kind {
		case "one-way cut": // the first group is not heard by the second
			return apart && a < size
		case "bridge": // one server hears and is heard by both groups
			return apart && a != size%n && b != size%n
		case "deaf server": // one hears nobody, and all hear it
			return b == 0
		}
		return apart
	})
}

// cutWires cuts the wires from a to b for which cut is true, mends all others, and plans the repair.
func (w *world) cutWires(kind string, cut func(a, b int) bool) {
	var wires []string
	for _, a := range w.members {
		for _, b := range w.members {
			if w.cut[a][b] = a != b && cut(a, b); w.cut[a][b] && w.story != nil {
				wires = append(wires, fmt.Sprintf("S%d>S%d", a, b))
			}
		}
	}
	w.say("%s: %s", kind, strings.Join(wires, " "))
	w.cuts++
	number := w.cuts
	w.plan(w.upTo(w.climate.cutTime), nil, anyLife, func() {
		if number == w.cuts {
			w.mend()
		}
	})
}

// mend mends all wires. A repair that was planned before is off.
func (w *world) mend() {
	w.cuts++
	for _, row := range w.cut[1:] {
		clear(row)
	}
}

// ---- S6. What must always hold ------------------------------------------------------------------
//
// The judge sees everything, forgets nothing and survives all crashes. After each Step it looks only
// at what may have changed, so that a look costs no more than the event itself.
//
// It knows every log as a path in one tree. A place in that tree is an entry and all that stands
// before it, so two logs are equal up to an index if they have the same place there: Log Matching is
// a comparison of two pointers.

type place struct {
	before *place
	index  int
	entry
}

// image is a server's persistent state, as the judge knows it.
type image struct {
	term, vote int
	chain      []*place // chain[0] is the root
}

func (im *image) last() *place { return im.chain[len(im.chain)-1] }

func (im *image) holds(p *place) bool { return p.index < len(im.chain) && im.chain[p.index] == p }

// promise is a record on its way to the disk: an entry with its place, or a term with its vote.
type promise struct {
	end        int // the offset behind it in the file
	place      *place
	term, vote int
}

// put is what a record does to the state. Whoever holds a part of the old chain keeps it.
func (im *image) put(p *promise) {
	if p.place == nil {
		im.term, im.vote = p.term, p.vote
		return
	}
	if p.place.index < len(im.chain) {
		im.chain = im.chain[:p.place.index:p.place.index]
	}
	im.chain = append(im.chain, p.place)
}

// seen is what the judge remembers of a server from one look to the next.
type seen struct {
	reign   int // the term that it leads, or 0
	commit  int
	applied int
	looks   int
	match   [10]int    // a leader's matchIndex, by server
	cut     [][]*place // chains that were cut in the Step whose effects are under way
}

// reign is all that is known of a term.
type reign struct {
	leader int
	chain  []*place // the leader's log; its last entries may have been lost since
	acked  [10]int  // up to where each server has confirmed it
}

// fact is a committed entry. Nothing ever changes it.
type fact struct {
	place  *place
	term   int       // in which it was committed
	values [3]string // of keys, behind it; "" is none
}

// outcome is what became of a client's write.
type outcome struct {
	term   int // of its latest entry in the committed log
	index  int // of its first
	answer answer
}

type writeID struct {
	client string
	serial int
}

type judge struct {
	tree      map[place]*place
	reigns    []reign // by term
	elections int     // that were won
	facts     []fact  // by index
	writes    map[writeID]outcome
	history   []call
	faults    map[string]int
	fired     map[string]int // rules
}

func newJudge(root *place) judge {
	return judge{tree: map[place]*place{}, reigns: make([]reign, 1), facts: []fact{{place: root}},
		writes: map[writeID]outcome{}, faults: map[string]int{}, fired: map[string]int{}}
}

// violation is what a world dies of.
type violation struct{ rule, text string }

func (v violation) Error() string { return v.rule + ": " + v.text }

// check stops the world when something does not hold.
func (w *world) check(holds bool, rule, format string, args ...any) {
	if !holds {
		panic(violation{rule, fmt.Sprintf(format, args...)})
	}
}

// bury keeps what a server that ends has counted.
func (j *judge) bury(s *server) {
	for tag, times := range s.fired {
		j.fired[tag] += times
	}
}

// place finds an entry's place in the tree, or makes it.
func (j *judge) place(before *place, e *entry) *place {
	key := place{before, before.index + 1, *e}
	p := j.tree[key]
	if p == nil {
		p = &key
		j.tree[key] = p
	}
	return p
}

// stepped looks at n after a Step, before any of its effects.
func (w *world) stepped(n *node) {
	j, s, im := &w.judge, n.s, &n.image
	if s.role == leader {
		w.leads(n)
	}
	n.seen.cut = nil
	for i := range n.out.Persist {
		w.recorded(n, &n.out.Persist[i])
	}
	last := im.last()
	w.check(s.currentTerm == im.term && s.votedFor == im.vote && s.lastIndex() == last.index &&
		s.lastTerm() == last.Term, "Persist", "S%d changes its state without a record", n.id)
	switch {
	case s.role != leader:
		n.seen.reign = 0
	case n.seen.reign != s.currentTerm:
		j.elections++
		n.seen.reign, n.seen.match = s.currentTerm, [10]int{}
		last := len(j.facts) - 1
		for j.facts[last].term >= s.currentTerm && last > 0 {
			last-- // a later term has committed it: this leader is late, and will learn of it
		}
		w.check(im.holds(j.facts[last].place), "Leader Completeness",
			"S%d leads term %d without the committed entry %d", n.id, s.currentTerm, last)
		w.elected(n)
	}
	if s.role == leader {
		w.trusts(n)
	}
	if n.seen.looks++; n.seen.looks%256 == 0 { // too slow for every event
		w.check(w.path(n.s.log) == n.image.last(), "Persist", "S%d has changed its log in memory", n.id)
	}
	if len(w.members) > 1 { // alone, it commits what is not on its disk yet; until then nobody knows
		w.learned(n)
	}
}

// leads: one leader per term, over all history [Election Safety].
func (w *world) leads(n *node) {
	j, term := &w.judge, n.s.currentTerm
	for term >= len(j.reigns) {
		j.reigns = append(j.reigns, reign{})
	}
	r := &j.reigns[term]
	r.leader = cmp.Or(r.leader, n.id)
	w.check(r.leader == n.id && (n.seen.reign == term || r.chain == nil || len(w.members) == 1),
		"Election Safety", "S%d is elected in term %d, which S%d led", n.id, term, r.leader)
}

// recorded judges one record of n, carries it out on n's image and puts it into the file.
func (w *world) recorded(n *node, r *record) {
	j, im := &w.judge, &n.image
	n.data = appendLine(n.data, r.text())
	p := promise{end: len(n.data), term: r.term, vote: r.votedFor}
	if r.entry == nil {
		w.check(r.term > im.term || r.term == im.term && (im.vote == none || im.vote == r.votedFor),
			"one vote per term", "S%d: S%d in t%d, then S%d in t%d", n.id, im.vote, im.term, r.votedFor, r.term)
	} else {
		w.check(0 < r.index && r.index <= len(im.chain), "no gaps", "S%d: entry %d", n.id, r.index)
		p.place = j.place(im.chain[r.index-1], r.entry)
		if r.index < len(im.chain) {
			n.seen.cut = append(n.seen.cut, im.chain)
		}
	}
	im.put(&p)
	if n.unsynced = append(n.unsynced, p); p.place == nil {
		return
	}
	// [Log Matching] The leader of an entry's term has made it, so that leader's log is the model.
	term := p.place.Term
	w.check(term <= im.term && term < len(j.reigns) && j.reigns[term].leader != none, "Log Matching",
		"S%d has an entry of term %d, which nobody led", n.id, term)
	reign := &j.reigns[term]
	if term == im.term && reign.leader == n.id && len(im.chain) > len(reign.chain) {
		reign.chain = im.chain
	}
	w.check(r.index < len(reign.chain) && reign.chain[r.index] == p.place, "Log Matching",
		"S%d and S%d have different logs up to entry %d of term %d", n.id, reign.leader, r.index, term)
}

// learned looks at what n knows to be committed, and at its state machine.
func (w *world) learned(n *node) {
	j, s := &w.judge, n.s
	if s.commitIndex != n.seen.commit {
		w.commits(n)
	}
	if s.lastApplied == n.seen.applied {
		return
	}
	w.check(n.seen.applied < s.lastApplied && s.lastApplied <= s.commitIndex, "All1",
		"S%d has applied %d, then %d; committed are %d", n.id, n.seen.applied, s.lastApplied, s.commitIndex)
	for i, want := range j.facts[s.lastApplied].values {
		w.check(s.machine.values[keys[i]] == want, "equal states", "S%d behind entry %d, key %s, not %q",
			n.id, s.lastApplied, keys[i], want)
	}
	for _, f := range j.facts[n.seen.applied+1 : s.lastApplied+1] {
		e := f.place.entry
		done := s.machine.sessions[e.Client]
		w.check(e.Client == "" || (done.serial > e.Serial || done.serial == e.Serial &&
			done.answer == j.writes[writeID{e.Client, e.Serial}].answer), "equal states",
			"S%d behind entry %d has a wrong session of %s", n.id, s.lastApplied, e.Client)
	}
	n.seen.commit, n.seen.applied = s.commitIndex, s.lastApplied
}

// commits: commitIndex rises, over entries that are the same everywhere [State Machine Safety].
func (w *world) commits(n *node) {
	j, s, im := &w.judge, n.s, &n.image
	old := len(j.facts) - 1
	w.check(n.seen.commit < s.commitIndex && s.commitIndex < len(im.chain), "commit never falls",
		"S%d: %d, then %d of %d", n.id, n.seen.commit, s.commitIndex, im.last().index)
	n.seen.commit = s.commitIndex
	common := min(old, s.commitIndex)
	w.check(im.holds(j.facts[common].place), "State Machine Safety",
		"S%d commits another entry %d than was committed before", n.id, common)
	w.check(s.role == leader || s.commitIndex <= old, "State Machine Safety",
		"follower S%d commits %d, but leaders only %d", n.id, s.commitIndex, old)
	for _, p := range im.chain[common+1 : s.commitIndex+1] {
		j.facts = append(j.facts, fact{p, s.currentTerm, w.executed(p)})
	}
	if s.commitIndex > old {
		w.cannotBeLost(n, im.chain[s.commitIndex])
	}
}

// cannotBeLost is Leader Completeness, foreseen: whoever could win an election with the logs that
// are on the disks now has the entry that n has just committed. (n may count on its memory, since
// nobody hears of the entry before it is on the disk, too.)
func (w *world) cannotBeLost(n *node, p *place) {
	certain := func(other *node) *image {
		if other == n {
			return &n.image
		}
		return &other.durable
	}
	for _, candidate := range w.nodes[1:] {
		if certain(candidate).holds(p) {
			continue
		}
		votes, theirs := 0, certain(candidate).last()
		for _, voter := range w.nodes[1:] {
			mine := certain(voter).last()
			if theirs.Term > mine.Term || theirs.Term == mine.Term && theirs.index >= mine.index {
				votes++
			}
		}
		w.check(votes <= len(w.members)/2, "Leader Completeness", "S%d commits entry %d of term %d, "+
			"but S%d lacks it and could be elected by %d", n.id, p.index, p.Term, candidate.id, votes)
	}
}

// trusts: a leader believes only what its followers have confirmed.
func (w *world) trusts(n *node) {
	acked := &w.judge.reigns[n.s.currentTerm].acked
	for _, p := range n.s.peers {
		match, next := n.s.matchIndex[p], n.s.nextIndex[p]
		w.check(n.seen.match[p] <= match && match <= acked[p] && match < next && next <= len(n.image.chain),
			"matchIndex", "S%d, for S%d: match %d next %d, confirmed %d", n.id, p, match, next, acked[p])
		n.seen.match[p] = match
	}
}

// path is the place of the last entry of a log.
func (w *world) path(log []*entry) *place {
	p := w.judge.facts[0].place
	for _, e := range log[1:] {
		p = w.judge.place(p, e)
	}
	return p
}

// promised: what leaves a server is true of what is certain on its disk [Persist].
func (w *world) promised(n *node, m *Message) {
	disk, vote := &n.durable, none
	switch {
	case m.RequestVote != nil:
		vote = n.id
	case m.RequestVoteReply != nil && m.RequestVoteReply.VoteGranted:
		vote = m.To
	case m.AppendEntriesReply != nil && m.AppendEntriesReply.Success:
		w.check(n.s.role != candidate || m.Term != n.s.currentTerm, "Cand3",
			"S%d follows S%d and is still a candidate", n.id, m.To)
		w.confirmed(n, m)
	}
	w.check(m.Term <= disk.term && (vote == none || disk.term > m.Term || disk.vote == vote),
		"persist before reply", "S%d speaks of term %d and its vote for S%d; its disk of term %d, S%d",
		n.id, m.Term, vote, disk.term, disk.vote)
}

// confirmed: up to matchIndex the log is that of the leader, on the disk. One Step may have confirmed
// it and then, for the next leader, cut it again.
func (w *world) confirmed(n *node, m *Message) {
	match, reign := m.AppendEntriesReply.MatchIndex, &w.judge.reigns[m.Term]
	w.check(reign.leader == m.To && match < len(reign.chain), "persist before reply",
		"S%d confirms %d entries to S%d, which has not led term %d with so many", n.id, match, m.To, m.Term)
	want := reign.chain[match]
	was := n.durable.holds(want) || slices.ContainsFunc(n.seen.cut, func(chain []*place) bool {
		return match < len(chain) && chain[match] == want
	})
	w.check(was, "persist before reply", "S%d confirms %d entries to S%d, its disk differs",
		n.id, match, m.To)
	reign.acked[n.id] = max(reign.acked[n.id], match)
}

// becameDurable: what was synced is certain from now on.
func (w *world) becameDurable(n *node) {
	done := 0
	for done < len(n.unsynced) && n.unsynced[done].end <= n.synced {
		n.durable.put(&n.unsynced[done])
		done++
	}
	n.unsynced = slices.Delete(n.unsynced, 0, done)
}

// restarted: a server comes back with what its file held, to the last record.
func (w *world) restarted(n *node, p persistent, good int) {
	im := &n.image
	*im = image{n.durable.term, n.durable.vote, slices.Clone(n.durable.chain)}
	n.unsynced = slices.DeleteFunc(n.unsynced, func(p promise) bool { return p.end > good })
	for i := range n.unsynced {
		im.put(&n.unsynced[i])
	}
	last := w.path(p.log)
	w.check(p.currentTerm == im.term && p.votedFor == im.vote && last == im.last(), "restart",
		"S%d comes back with t%d vote %d and %d entries, its disk had t%d vote %d and perhaps others",
		n.id, p.currentTerm, p.votedFor, last.index, im.term, im.vote)
}

// answered: an acknowledged write is committed and was carried out once, and this is its answer.
// Reads are for S8.
func (w *world) answered(n *node, r *reply) {
	if r.Error == errNotLeader || r.Serial >= firstRead {
		return
	}
	done, ok := w.judge.writes[writeID{r.Client, r.Serial}]
	w.check(ok && done.answer == r.answer, "exactly once",
		"S%d answers %s/%d with %+v, not %+v (committed: %t)", n.id, r.Client, r.Serial, r.answer, done.answer, ok)
}

// executed carries a newly committed entry out on a model of the state machine, which is as simple
// as it can be.
func (w *world) executed(p *place) [3]string {
	j := &w.judge
	values := j.facts[len(j.facts)-1].values
	if p.Client == "" {
		return values
	}
	id := writeID{p.Client, p.Serial}
	done, again := j.writes[id]
	w.check(!again || done.term != p.Term, "SE1", "%s/%d is in the log twice", p.Client, p.Serial)
	if done.term = p.Term; !again {
		words := strings.Fields(p.Command)
		value := &values[slices.Index(keys, words[1])]
		*value, done.answer = runCommand(words, *value)
		done.index = p.index
	}
	j.writes[id] = done
	return values
}

// runCommand is what a command means for the one key that it names. No value is "".
func runCommand(words []string, old string) (value string, a answer) {
	found := "(none)"
	if old != "" {
		found = quote(old)
	}
	switch words[0] {
	case "set":
		return words[2], answer{Result: "ok"}
	case "del":
		if old == "" {
			return "", answer{Result: "(none)"}
		}
		return "", answer{Result: "ok"}
	case "incr":
		n, err := strconv.Atoi(max(old, "0"))
		if err != nil {
			return old, answer{Error: words[1] + " is " + found + ", not a number of 64 bits; nothing changed"}
		}
		value = strconv.Itoa(n + 1)
		return value, answer{Result: value}
	case "cas":
		if old == words[2] {
			return words[3], answer{Result: "ok"}
		}
		return old, answer{Error: words[1] + " is " + found + ", not " + quote(words[2]) + "; nothing changed"}
	}
	return old, answer{Result: cmp.Or(old, "(none)")}
}

// ---- S7. What must happen in the end ------------------------------------------------------------
//
// Safety alone is easy: do nothing. So when the storm is over, there must be a leader, answers and
// equal logs, each in time. First one fault stays, which a majority need not mind. Then it goes, too.

// simulate runs one seed. It returns nil or what went wrong.
func (w *world) simulate() (err error) {
	defer w.catch(&err)
	w.runUntil(stormTime, never)
	w.calmDown()
	w.mustSettle()
	for _, n := range w.nodes[1:] {
		w.check(w.path(n.s.log) == n.image.last(), "Persist", "S%d has changed its log in memory", n.id)
		w.judge.bury(n.s)
	}
	if err = linearizable(w.completed()); err != nil {
		err = violation{"Linearizability", err.Error()}
	}
	return err
}

// catch turns a panic into an error.
func (w *world) catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case violation:
		*err = r
	case brokenInvariant:
		*err = violation{"must", string(r)}
	default:
		*err = violation{"panic", fmt.Sprint(r)}
		w.stack = string(debug.Stack())
	}
}

// calmDown ends the storm. A minority stays dead, cut off, or deaf while everybody hears it, and the
// path may stay small.
func (w *world) calmDown() {
	w.say("the storm is over")
	w.calm, w.calmAt = true, w.now
	w.weather = weather{usual: oneTick}
	if w.mend(); w.chance(500) {
		w.mtu = 0
	}
	w.count("path stays small", w.mtu > 0)
	order := w.rand.Perm(len(w.members))
	lucky := len(order)/2 + 1 + w.rand.IntN((len(order)+1)/2)
	for i, at := range order {
		n := w.nodes[at+1]
		n.fuse, n.failing, n.gone, n.pace = 0, "", false, oneTick
		n.lucky = i < lucky
		if fate := w.rand.IntN(3); !n.lucky {
			what := []string{"stays dead", "stays cut off", "stays deaf"}[fate]
			w.count(what, true)
			w.say("S%d %s", n.id, what)
			for _, other := range w.members {
				w.cut[n.id][other] = fate == 1
				w.cut[other][n.id] = true
			}
			if fate == 0 {
				w.crash(n, w.chance(500))
				n.life++ // it does not come back
				continue
			}
		}
		w.wakeUp(n)
	}
	for _, c := range w.clients {
		c.patience = 5 * oneTick
		w.setAlarm(c, w.upTo(c.patience))
	}
}

// wakeUp lets a server run that is dead or stopped.
func (w *world) wakeUp(n *node) {
	if n.s == nil {
		n.life++ // if it was about to start by itself, once is enough
		w.plan(w.upTo(oneTick), n, n.life, func() { w.start(n) })
		return
	}
	n.asleep = w.now
	w.plan(1, n, n.life, func() { w.turn(n) })
}

// mustSettle demands progress of the majority while the one fault stays: a leader, answers, few
// reigns [CQ1] [CQ2], and an answer for every client. Then everybody must catch up.
func (w *world) mustSettle() {
	within := func(timeouts moment, what string, done func() bool) {
		w.check(w.runUntil(w.now+timeouts*oneTimeout, done), "progress", "%s within %d election timeouts",
			what, timeouts)
	}
	before := w.events
	// Ten, since votes may be split again and again where all of four out of seven must agree.
	within(10, "no leader", func() bool {
		return slices.ContainsFunc(w.nodes[1:], func(n *node) bool {
			return n.lucky && n.s != nil && n.s.role == leader
		})
	})
	within(6, "no write answered", func() bool { return w.lastWrite > before })
	reigns := w.judge.elections
	w.runUntil(w.now+12*oneTimeout, never)
	reigns = w.judge.elections - reigns
	w.check(reigns <= 2, "progress", "%d more reigns in 12 election timeouts", reigns)
	w.closing = true
	within(20, "logs are not equal, or a client waits", w.settled)

	w.say("everything is mended")
	w.mend()
	w.mtu = 0
	for _, n := range w.nodes[1:] {
		if n.lucky = true; n.s == nil {
			w.wakeUp(n)
		}
	}
	within(20, "logs of all are not equal", w.settled)
}

// settled: the lucky servers have one log, committed and applied to its end, and no client waits.
func (w *world) settled() bool {
	end := w.judge.facts[len(w.judge.facts)-1].place
	for _, n := range w.nodes[1:] {
		if n.lucky && (n.s == nil || n.durable.last() != end || n.s.lastApplied != end.index) {
			return false
		}
	}
	return !slices.ContainsFunc(w.clients, func(c *client) bool { return c.waiting })
}

// completed is the history with what the judge knows besides: what became of the writes without an
// answer, and the order that the log has put them in. That order should explain everything.
func (w *world) completed() (calls []call) {
	for _, c := range w.judge.history {
		done, ok := w.judge.writes[writeID{c.Client, c.Serial}]
		if !ok && c.returned == 0 {
			continue // an unanswered read, or a write that never happened
		}
		if c.place = done.index; c.returned == 0 {
			c.returned, c.answer = w.events+1, done.answer
		}
		calls = append(calls, c)
	}
	return calls
}

// ---- S8. Linearizability ------------------------------------------------------------------------
//
// A history is linearizable if its calls can be put into one order, each at a moment between its
// question and its answer, in which a single machine would have given the same answers. So a client
// cannot tell the cluster from one server that never fails. A stale read breaks it, and so does a
// write that is lost, or carried out twice.
//
// The search is Wing and Gong's: which call can have been the first? Any that was asked before the
// earliest answer. Try each, and go on with the rest. Lowe added a memory of what has failed before:
// the same calls left, and the same value. Calls of different keys do not touch each other, so each
// key is searched alone. A call without an answer may have happened at any time since, or never.

// maxSearch bounds the search for one key. A history that needs more counts as a failure.
const maxSearch = 50_000

// lineUp is a search for an order of the calls of one key.
type lineUp struct {
	calls  []call // by invocation
	done   []byte // 1: the call has its place
	failed map[string]bool
	best   int // as far as any order got
}

// linearizable returns nil, or why the history is not, or may not be.
func linearizable(history []call) error {
	byKey := map[string][]call{}
	for _, c := range history {
		key := strings.Fields(c.Command)[1]
		byKey[key] = append(byKey[key], c)
	}
	for key, calls := range byKey {
		slices.SortStableFunc(calls, func(a, b call) int { return a.invoked - b.invoked })
		l := &lineUp{calls, make([]byte, len(calls)), map[string]bool{}, 0}
		switch {
		case l.explain(0, ""):
		case len(l.failed) > maxSearch:
			return fmt.Errorf("key %s: %w", key, errUndecided)
		default:
			c := calls[l.best]
			return fmt.Errorf("no order explains the %d calls of key %s; client %s: %s -> %+v (events %d to "+
				"%d) is the first without a place", len(calls), key, c.Client, c.Command, c.answer, c.invoked, c.returned)
		}
	}
	return nil
}

var errUndecided = fmt.Errorf("undecided after %d states", maxSearch)

// explain reports whether the calls that are left can follow, when the key has this value. All calls
// before first have their place.
func (l *lineUp) explain(first int, value string) bool {
	for first < len(l.calls) && l.done[first] == 1 {
		first++
	}
	next := l.candidates(first)
	if next == nil {
		return true
	}
	l.best = max(l.best, first)
	state := string(l.done[first:]) + value
	if l.failed[state] || len(l.failed) > maxSearch {
		return false
	}
	for _, i := range next {
		c := &l.calls[i]
		after, a := runCommand(strings.Fields(c.Command), value)
		if c.returned > 0 && a != c.answer {
			continue
		}
		l.done[i] = 1
		if l.explain(first, after) {
			return true
		}
		l.done[i] = 0
	}
	l.failed[state] = true
	return false
}

// candidates lists the calls that may be the next one, the most promising first, or nothing if there
// is none left that was answered.
func (l *lineUp) candidates(first int) (next []int) {
	earliest := math.MaxInt // of the answers to come
	for i := first; i < len(l.calls) && l.calls[i].invoked < earliest; i++ {
		if l.done[i] == 0 {
			next = append(next, i)
			if l.calls[i].returned > 0 {
				earliest = min(earliest, l.calls[i].returned)
			}
		}
	}
	if earliest == math.MaxInt {
		return nil
	}
	// Reads come first, since they change nothing. The log knows the order of the writes.
	slices.SortStableFunc(next, func(a, b int) int { return l.calls[a].place - l.calls[b].place })
	return next
}

// TestLinearizable is about the judge of histories, which is judged here. Every row that is not
// linearizable has a neighbour that is.
func TestLinearizable(t *testing.T) {
	for _, row := range []struct {
		want    bool
		history string // calls: invoked, returned or 0, command, answer
	}{
		{true, "1 2 get x = (none)"},
		{false, "1 2 get x = 1"},
		{true, "1 2 set x 1 = ok; 3 4 get x = 1"},
		{false, "1 2 set x 1 = ok; 3 4 get x = (none)"}, // a write is lost
		{true, "1 9 set x 1 = ok; 2 3 get x = (none)"},  // at once: either value
		{true, "1 9 set x 1 = ok; 2 3 get x = 1"},
		{true, "1 9 set x 1 = ok; 2 3 get x = (none); 4 5 get x = 1"},
		{false, "1 9 set x 1 = ok; 2 3 get x = 1; 4 5 get x = (none)"}, // and never back
		{true, "1 9 set x 1 = ok; 2 5 get x = 1; 4 6 get x = (none)"},
		{true, "1 2 set x 1 = ok; 3 5 set x 2 = ok; 4 6 get x = 1"},
		{false, "1 2 set x 1 = ok; 3 4 set x 2 = ok; 5 6 get x = 1"}, // a deposed leader answers
		{true, "1 0 set x 1 = ; 5 6 get x = 1"},                      // no answer: at any time since,
		{true, "1 0 set x 1 = ; 5 6 get x = (none); 7 8 get x = 1"},
		{true, "1 0 set x 1 = ; 5 6 get x = (none)"}, // or never,
		{false, "1 0 set x 1 = ; 5 6 get x = 1; 7 8 get x = (none)"},
		{false, "1 2 get x = 1; 3 0 set x 1 = "}, // but not before
		{true, "1 2 incr x = 1; 3 4 incr x = 2"},
		{false, "1 2 incr x = 1; 3 4 incr x = 3"}, // carried out twice
		{true, "1 2 incr x = 1; 2 0 incr x = ; 3 4 incr x = 3"},
		{false, "1 4 incr x = 1; 2 5 incr x = 1"}, // a lost update
		{true, "1 2 set x 1 = ok; 3 4 del x = ok; 5 6 del x = (none)"},
		{false, "1 2 set x 1 = ok; 3 4 del x = ok; 5 6 del x = ok"},
		{true, "1 2 set x 1 = ok; 3 6 cas x 1 2 = ok; 4 7 cas x 2 3 = ok"},
		{false, "1 2 set x 1 = ok; 3 6 cas x 1 2 = ok; 4 7 cas x 1 3 = ok"},
		{true, "1 2 set x 1 = ok; 3 9 set x 1 = ok; 4 5 set x 2 = ok; 6 7 get x = 1"}, // it can wait
		{true, "1 2 set x 1 = ok; 3 4 get y = (none)"},                                // another key
	} {
		if err := linearizable(parseHistory(row.history)); (err == nil) != row.want {
			t.Errorf("%s: %v", row.history, err)
		}
	}
	// A search without an end is a failure, too: any of these sets may come last.
	many := "100 101 get x = none of these"
	for i := range 20 {
		many += fmt.Sprintf("; %d 99 set x %d = ok", i+1, i)
	}
	if err := linearizable(parseHistory(many)); !errors.Is(err, errUndecided) {
		t.Error(err)
	}
}

func parseHistory(text string) (history []call) {
	for _, line := range strings.Split(text, "; ") {
		asked, result, _ := strings.Cut(line, " = ")
		words := strings.SplitN(asked, " ", 3)
		c := call{answer: answer{Result: result}}
		c.invoked, _ = strconv.Atoi(words[0])
		c.returned, _ = strconv.Atoi(words[1])
		c.Command = words[2]
		history = append(history, c)
	}
	return history
}

// ---- S9. Many seeds -----------------------------------------------------------------------------

// total adds up many runs.
type total struct {
	sync.Mutex
	next, runs, events int
	faults, fired      map[string]int
	failed             int // seed of the first failure, or 0
}

// run runs one seed after the other up to the end, or until one fails.
func (r *total) run(end int) {
	r.Lock()
	defer r.Unlock()
	for r.next < end && r.failed == 0 {
		w := newWorld(r.next)
		r.next++
		r.Unlock()
		err := w.simulate()
		r.Lock()
		if err != nil {
			r.failed = w.seed
		}
		r.runs, r.events = r.runs+1, r.events+w.events
		for kind, times := range w.judge.faults {
			r.faults[kind] += times
		}
		for tag, times := range w.judge.fired {
			r.fired[tag] += times
		}
	}
}

// tell runs a seed with a story, and fails if the seed does.
func tell(t *testing.T, seed int) {
	w := newWorld(seed)
	w.story = &story{}
	err := w.simulate()
	t.Logf("\n%s%s", w, w.stack)
	if err != nil {
		t.Fatalf("%v\nto see it again: go test -run TestSimulator -seed %d -v", err, seed)
	}
}

// underRace reports whether the race detector watches, which makes everything ten times as slow.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestSimulator is about all rules under all faults: many short lives, each drawn from a seed.
func TestSimulator(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if *flagSeed != 0 && *flagSeeds == 0 {
		tell(t, *flagSeed)
		return
	}
	seeds := cmp.Or(*flagSeeds, 2000)
	if *flagSeeds == 0 && (underRace() || testing.Short()) {
		seeds = 100
	}
	start := time.Now()
	r := &total{next: max(1, *flagSeed), faults: map[string]int{}, fired: map[string]int{}}
	var wait sync.WaitGroup
	end := r.next + seeds
	for range runtime.GOMAXPROCS(0) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			r.run(end)
		}()
	}
	wait.Wait()
	t.Logf("%d seeds, %d events, %.1f s", r.runs, r.events, time.Since(start).Seconds())
	if r.failed != 0 {
		tell(t, r.failed)
	}
	if seeds < 1000 {
		return // too few to have seen everything
	}
	demand(t, "fault", strings.Split(allFaults, ", "), r.faults)
	rules := slices.DeleteFunc(strings.Fields(ruleTags), func(tag string) bool {
		return strings.HasPrefix(tag, "DK") // the host's
	})
	demand(t, "rule", rules, r.fired)
}

// demand fails for whatever did not happen once.
func demand(t *testing.T, what string, names []string, times map[string]int) {
	var text []string
	for _, name := range names {
		text = append(text, fmt.Sprintf("%s %d", name, times[name]))
		if times[name] == 0 {
			t.Errorf("%s %q never happened", what, name)
		}
	}
	t.Logf("%ss: %s", what, strings.Join(text, ", "))
}

// TestSimulatorRepeats is about the simulator: a seed decides everything, and it makes no difference
// whether the messages go through JSON. (If one in flight shared memory with a log, it would.)
func TestSimulatorRepeats(t *testing.T) {
	for seed := 1; seed <= 10; seed++ {
		var told [2]string
		for i := range told {
			w := newWorld(seed)
			w.story, w.json = &story{}, i == 1
			if err := w.simulate(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			told[i] = w.String()
		}
		if told[0] != told[1] {
			t.Fatalf("seed %d has two stories:\n%s\n\n%s", seed, told[0], told[1])
		}
	}
}

// BenchmarkSimulator runs one seed per iteration, on one core, with all checks.
func BenchmarkSimulator(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	events := 0
	for seed := 1; b.Loop(); seed++ {
		w := newWorld(seed)
		if err := w.simulate(); err != nil {
			b.Fatalf("seed %d: %v", seed, err)
		}
		events += w.events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(events)/float64(b.N), "events/seed")
}

// ---- S10. The story -----------------------------------------------------------------------------
//
// What the servers narrate themselves (chapter 14), and what the world does to them.

const legend = `tick, Lamport number, server, role (F, C, L), term, rule or sign, text
  heard <-S2 t3    a message of S2 in term 3 arrives      ->S2    one leaves
  #4t2             entry 4, of term 2                     [#4t2]  the entries of a message
  **               what the world does: S1 dies, S1>S2 is cut
  c1               what client 1 asks, and what it hears: -> ok
`

// story keeps the last rows. A world that is not told has none.
type story struct{ rows []string }

const maxRows = 60

// say tells what happens in the world.
func (w *world) say(format string, args ...any) {
	if w.story != nil {
		w.row(fmt.Sprintf("         ** "+format, args...))
	}
}

// narrated takes over what a server has told in a Step.
func (w *world) narrated(trace []string) {
	for _, line := range trace {
		w.row(line)
	}
}

func (w *world) row(text string) {
	if w.story != nil {
		rows := append(w.story.rows, fmt.Sprintf("%8.2f %.110s", float64(w.now)/float64(oneTick), text))
		w.story.rows = rows[max(0, len(rows)-maxRows):]
	}
}

// String is what is told of a world.
func (w *world) String() string {
	kinds := slices.Compact(slices.Clone(w.climate.kinds))
	return fmt.Sprintf("seed %d: %d servers, %d clients, %d events\nfaults: %.110s\nat last: %+v\n%s%s\n", w.seed,
		len(w.members), len(w.clients), w.events, strings.Join(kinds, ", "), w.weather, legend,
		strings.Join(w.story.rows, "\n"))
}

// =================================================================================================
// BREAK IT
// =================================================================================================
//
// Every rule of raft.go carries weight, and this is the proof: take a rule away or bend it by one,
// and the named test fails with the words of that rule. An edit that nothing notices is a failure.
// It takes minutes, so it runs only when asked for:
//
//	go test -run TestBreakIt -breakit -v          all edits
//	go test -run TestBreakIt/Lead4 -breakit -v    those of one rule

var flagBreakIt = flag.Bool("breakit", false, "run TestBreakIt, which takes minutes")

// edits holds one edit a line: TEST/RULE, a short text of raft.go, the text that takes its place,
// and the first words of the failure. A line without a test has that of the line above.
const edits = `
RequestVoteReceiver/RV2 | lastLogTerm > s.lastTerm() | false | RV2/shorter, but of a newer term,
Persist | votedFor: votedFor}) // [Persist] | votedFor: none}) // [Persist] | Persist/the disk is
Persist | s.out.Send = append(s.out.Send | s.out.Early = append(s.out.Early | Persist/
Fol2 | if granted && s.votedFor == none { | if granted { | terms never fall, and there is one
RV1 | if term < s.currentTerm { // [RV1] | if false { | terms never fall, and there is one
RV2 | s.votedFor == none || s.votedFor == rv.CandidateID | true | Persist/yes needs a vote for S2 on
RV2 | s.upToDate(rv.LastLogIndex, rv.LastLogTerm) | true | RV2/… unless its log is too old
RV2 | lastLogIndex >= s.lastIndex() | lastLogIndex > s.lastIndex() | RV1/an equal term is not older
AppendEntriesReceiver/AE3 | s.matches(index, e.Term) | (e == nil) | AE3/what is equal before
Persist | len(s.log), entry: e} | len(s.log), entry: &entry{}} | Persist/the disk is equal to the
AE1 | if term < s.currentTerm { // [AE1] | if false { | AE1/an older term, even where it
AE2 | !s.matches(prev, ae.PrevLogTerm) | prev > s.lastIndex() | AE2/its term is off by one
AE3 | s.matches(index, e.Term) | (e != nil && index <= s.lastIndex()) | AE2/… also if
AE4 | s.store(index, ae.Entries[i:]...) | s.store(index, ae.Entries[i]) | Persist/ok(4), but the
AE5 | min(ae.LeaderCommit, lastNew) | min(ae.LeaderCommit, s.lastIndex()) | AE5/the last new entry,
Perform/Persist | h.narrate(out.Trace) | out.Early = append(out.Early, out.Send...) | in order
Apply/All1 | s.lastApplied < s.commitIndex | s.lastApplied < s.lastIndex() | All1/up to commit
AllServersTerm/All2 | if m.Term > s.currentTerm { | if false { | All2/
ElectionTimer/Fol2 | || s.now < s.electionDue | || s.now <= s.electionDue | Fol2/a leader steps down
Candidate/Cand1 | map[int]bool{s.id: true} | map[int]bool{} | Cand2/2 of 3
Cand2 | (len(s.peers)+1)/2 + 1 | (len(s.peers) + 2) / 2 | Cand2/2 of 4 are no majority
Cand2 | s.votes[from] || r.VoteGranted | true | Cand2/refusals are no votes
Cand3 | s.tell(1, rule, | s.role = candidate; s.tell(1, rule, | Cand3/AppendEntries of this term
Cand4 | s.role == leader || s.now | s.role != follower || s.now | Cand4/the next election
Heartbeat/Lead1 | s.now < w.heartbeatDue && !s.roundDue | !s.roundDue | Lead1/when idle; it tells the
Unanswered/D6 | w.unansweredSeq && !old | w.unansweredSeq && old | Lead3/unanswered: a later
Lead3 | s.lastIndex() > prev && w.unansweredSeq == 0 | s.lastIndex() > prev | Lead3/a command waits while entries
AppendEntriesReply/Lead3b | prev == s.nextIndex[from]-1 | true | Lead3b/of something
Lead3a | max(s.matchIndex[from], r.MatchIndex) | r.MatchIndex | Lead3a/an earlier reply, overtaken
Lead3b | max(s.matchIndex[from]+1, s.tryAgainAt(r)) | s.tryAgainAt(r) | Lead3b/never below what is
Lead3b | return min(next, r.PrevLogIndex) | return next | Lead3b/… whatever the follower says
Figure8/Lead4 | s.log[n].Term == s.currentTerm | true | (c) … and does not commit it: its
Batch/D4 | size > limit && end > index | size > limit | D4/from 1 on, 1 bytes
D4 | slices.Clone(s.log[index:end]) | s.log[index:end] | D4/a message is a copy: a cut does
Limit/D4 | max(minBatch, w.limit/2) | w.limit | D4/lost: limit, entries sent
CheckQuorum/CQ1 | heardAt >= electionTicksMax | heardAt > electionTicksMax | CQ1/steps down, keeps
CandidateAsksOn/CQ2 | len(s.votes) < s.majority() | false | CQ2/2 of 5 have answered: everybody
ExactlyOnce/SE1 | r.Serial <= w.Serial | r.Serial < w.Serial | SE1/a repeat is not
Sessions/SE2 | if e.Serial > done.serial { | if true { | SE2/the same again
SE2 | e.Serial == done.serial | true | SE2/an older one has no answer
Reads/RD1 | max(s.commitIndex, s.firstIndexOf(s.currentTerm)) | s.commitIndex | RD
RD4 | || r.index > s.lastApplied { | { | RD
RD3 | r.afterSeq >= confirmed || r.index | r.index | RD3/a read asks: do I still lead?
RD3 | read{r, index, s.seq} | read{r, index, 0} | RD3/a read asks: do I still lead?
Files/DK1 | %d of %s", id, list(members) | %d of %s", id, list(members[:1]) | DK1 other members
DK3 | line == 1 && !bytes.HasPrefix( | line == 2 && !bytes.HasPrefix( | DK1 another program's
TornTail/DK3 | ): // [DK4] | ) || true: // [DK4] | cut at byte 1, "" behind
FlippedBit/DK4 | ): // [DK4] | ) && false: // [DK4] | byte 37 of line 2, bit 0: not
FailStop/DK5 | return d.file.Sync() | return nil | /dev/null: one line
LostFile/DK6 | !os.SameFile(info, d.info) | false | mv of a copy
DK6 | info.Size() != d.size | false | another server appends
EntryForm/form | word[0] < '1' && word != "0" | false | again
form | parseNumber(words[2], 1, | parseNumber(words[2], 0, | "5 c7 0 set x 1" is an entry
form | && op.verb != "get" | && op.verb != "" | "5 c7 3 get x" is an entry
`

// TestBreakIt: each edit fits raft.go, and with -breakit, the named test notices it.
func TestBreakIt(t *testing.T) {
	source, last := readText("raft.go"), ""
	for _, line := range strings.Split(strings.Trim(edits, "\n"), "\n") {
		edit := strings.Split(line, " | ")
		rule, old, new, want, test := edit[0], edit[1], edit[2], edit[3], last
		if name, first, found := strings.Cut(rule, "/"); found {
			rule, test = first, "Test"+name
		}
		last = test
		if n := strings.Count(source, old); n != 1 {
			t.Errorf("%s: %q stands %d times in raft.go", rule, old, n)
		} else if *flagBreakIt {
			t.Run(rule, func(t *testing.T) {
				t.Parallel()
				notices(t, test, want, old, new)
			})
		}
	}
}

// notices runs one test with the edited raft.go, by the compiler's overlay, and reads the first
// assertion that fails, in the test or in raft.go. All else is a failure: a test that passes, hangs
// or crashes proves nothing, nor does code that does not compile.
func notices(t *testing.T, test, want, old, new string) {
	original, err1 := filepath.Abs("raft.go")
	edited, overlay := filepath.Join(t.TempDir(), "raft.go"), filepath.Join(t.TempDir(), "files")
	files, err2 := json.Marshal(map[string]any{"Replace": map[string]string{original: edited}})
	broken := strings.Replace(readText("raft.go"), old, new, 1)
	err3, err4 := os.WriteFile(edited, []byte(broken), 0o644), os.WriteFile(overlay, files, 0o644)
	err := errors.Join(err1, err2, err3, err4)
	must(err == nil, all(err))
	out, err := exec.Command("go", "test", "-overlay="+overlay, "-vet=off", "-timeout=60s",
		"-gcflags=-l -dwarf=false", "-ldflags=-s -w", "-run=^"+test+"$", ".").CombinedOutput()
	// A log line of the simulator begins with a number.
	assertion := regexp.MustCompile(`(?m)_test\.go:\d+: (\D.*)$|main\.brokenInvariant\("(.*)"\)`)
	says := assertion.FindStringSubmatch(string(out))
	if err == nil || says == nil || !strings.HasPrefix(says[1]+says[2], want) ||
		bytes.Contains(out, []byte("panic: test timed out")) {
		t.Fatalf("%q -> %q: %s does not say %q: %v\n%s", old, new, test, want, err, out)
	}
	t.Logf("%q -> %q: %s: %s%s", old, new, test, says[1], says[2])
}

// =================================================================================================
// REAL PROCESSES
// =================================================================================================
//
// The binary itself, on real sockets and files, killed with kill -9. The simulator has seen far
// more than these tests ever will. They are here for what it cannot see: processes, ports, folders,
// pipes, the loop and the console, which is the client. They wait for answers, never for a while.

// TestProcesses builds the binary once and runs every story in parallel.
func TestProcesses(t *testing.T) {
	binary := build(t)
	for name, story := range map[string]func(*fleet){
		"Persist, with kill -9": killEveryServer, "DK1 DK6 one server per file": oneServerPerFile,
		"unread pipe": unreadPipe, "redirect": unlistedLeader, "addresses": ownAddress,
		"kill is all or none": killAllOrNone, "time stands still": timeStandsStill,
		"arguments and scripts": argumentsAndScripts,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(newFleet(t, binary))
		})
	}
}

// build compiles raft.go. Under the race detector, the servers have it, too.
func build(t testing.TB) (binary string) {
	binary, race := filepath.Join(t.TempDir(), "raft.exe"), fmt.Sprintf("-race=%v", underRace())
	if out, err := exec.Command("go", "build", race, "-o", binary).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// fleet is a cluster whose servers this test starts and kills itself.
type fleet struct {
	testing.TB
	binary, dir, peers string // peers as -peers wants it
	flags              []string
	running            map[int]*proc
}

func newFleet(t testing.TB, binary string) *fleet {
	return &fleet{TB: t, binary: binary, dir: t.TempDir(), running: map[int]*proc{}}
}

// freePeers finds free ports, all at once, so that they differ.
func (f *fleet) freePeers(n int) {
	var peers []string
	for id := 1; id <= n; id++ {
		conn := listen(f)
		defer conn.Close()
		peers = append(peers, fmt.Sprintf("%d=%v", id, addressOf(conn)))
	}
	f.peers = strings.Join(peers, ",")
}

// startAll starts n servers on free ports.
func (f *fleet) startAll(n int, flags ...string) {
	f.freePeers(n)
	f.flags = flags
	for id := 1; id <= n; id++ {
		f.start(id)
	}
}

// start starts a server, which must become ready.
func (f *fleet) start(id int) {
	p := f.launch(id)
	if !p.ready {
		f.Fatalf("S%d does not start: %s", id, p.end())
	}
	f.running[id] = p
}

// launch starts a server as a cluster does: it leaves when this process does.
func (f *fleet) launch(id int) *proc {
	flags := append([]string{"-id", strconv.Itoa(id), "-peers", f.peers, "-dir", f.dir,
		"-watch", "0"}, f.flags...)
	p := &proc{Cmd: exec.Command(f.binary, flags...)}
	p.Env = append(os.Environ(), inCluster+"=1")
	_, err1 := p.StdinPipe()
	stdout, err2 := p.StdoutPipe()
	stderr, err3 := p.StderrPipe()
	if err := errors.Join(err1, err2, err3, p.Start()); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { p.Process.Kill(); p.Wait() })
	word, _ := bufio.NewReader(stdout).ReadString('\n')
	p.ready, p.unread = word == "ready\n", stderr
	return p
}

// proc is a server. Nobody reads what it says before its end.
type proc struct {
	*exec.Cmd
	ready  bool
	unread io.Reader
}

// end waits for the end of a process.
func (p *proc) end() (said string) {
	text, _ := io.ReadAll(p.unread)
	p.Wait()
	return string(text)
}

// kill is kill -9. A server that is silent has nothing to say at its end.
func (f *fleet) kill(ids ...int) {
	for _, id := range ids {
		f.running[id].Process.Kill()
		if said := f.running[id].end(); said != "" {
			f.Errorf("S%d says: %s", id, said)
		}
	}
}

// mustEnd waits for the end of a server, which must exit with 1 and say one line.
func (f *fleet) mustEnd(p *proc, line string) {
	f.Helper()
	said, want := p.end(), regexp.MustCompile("^error: .*"+regexp.QuoteMeta(line)+".*\n$")
	if code := p.ProcessState.ExitCode(); code != 1 || !want.MatchString(said) {
		f.Errorf("exit %d with %q\nwant 1 with the line %q", code, said, line)
	}
}

// run runs the binary with this input to its end, for a minute at most.
func (f *fleet) run(stdin string, args ...string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.binary, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	cmd.Run()
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// mustRun compares what run returns. In what it wants, * is any text within a line.
func (f *fleet) mustRun(stdin, stdout, stderr string, code int, args ...string) {
	f.Helper()
	const format = "exit %d, stderr %q, stdout:\n%s"
	out, said, exit := f.run(stdin, args...)
	got, want := fmt.Sprintf(format, exit, said, out), fmt.Sprintf(format, code, stderr, stdout)
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), `\*`, ".*")
	if !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
		f.Fatalf("%q %s\ngot  %s\nwant %s", args, stdin, got, want)
	}
}

// mustAnswer has a client run a script and compares what it answers. The client is patient: with
// this -tick it waits ten seconds for an outcome.
func (f *fleet) mustAnswer(script, want string) {
	f.Helper()
	code := 0
	if strings.Contains(want, "error: ") || strings.Contains(want, "unknown: ") {
		code = 1
	}
	f.mustRun(script, want, "", code, "-client", "-peers", f.peers, "-tick", "50ms")
}

// killEveryServer: [Persist] one server at a time, with writes between, then all at once. Nothing
// that was answered is ever lost, or n would be less.
func killEveryServer(f *fleet) {
	f.startAll(3)
	for n, id := range []int{1, 2, 3} {
		f.mustAnswer("incr n", fmt.Sprintln(2*n+1))
		f.kill(id)
		f.mustAnswer("incr n", fmt.Sprintln(2*n+2))
		f.start(id)
	}
	f.kill(1, 2, 3)
	for id := range f.running {
		f.start(id)
	}
	f.mustAnswer("incr n", "7\n")
}

// oneServerPerFile: what could lose an acknowledged write stops a server. [DK6] A second one at
// the same address does not open the file at all. At another one, it writes to the first one's
// file. [DK1] With other members, no server starts.
func oneServerPerFile(f *fleet) {
	f.startAll(1)
	f.mustEnd(f.launch(1), "is it running already?")
	f.mustAnswer("set x 1", "ok\n")
	first, peers := f.running[1], f.peers
	f.startAll(1)
	f.mustAnswer("set x 2 ; get x", "ok\n2\n")
	f.peers = peers
	f.mustAnswer("@1 set x 3", "S1: unknown: no answer in time; set x 3 may still happen\n")
	f.mustEnd(first, "somebody else replaced the file or wrote to it")
	f.kill(1)
	f.freePeers(3)
	f.mustEnd(f.launch(1), filepath.Join(f.dir, "server-1.log")+
		" line 1: this server belongs to the cluster 1, not 1,2,3; Raft needs §6 to change that")
}

// unreadPipe: a terminal that takes nothing, because somebody has pressed Ctrl-S, must not stop a
// server. What it does not take is counted.
func unreadPipe(f *fleet) {
	f.startAll(3, "-watch", "3")
	f.mustAnswer(strings.Repeat("set x 1\n", 1500), strings.Repeat("ok\n", 1500))
	s1 := f.running[1] // if nothing was counted, its death ends the lines
	defer time.AfterFunc(20*time.Second, func() { s1.Process.Kill() }).Stop()
	for lines := bufio.NewScanner(s1.unread); !strings.HasSuffix(lines.Text(), "lines not shown"); {
		if !lines.Scan() {
			f.Fatal("all was shown, or nothing was counted")
		}
	}
}

// unlistedLeader: a client whose list lacks the leader follows the redirect to the address that it
// names, and says so. A client that asks one server follows none.
func unlistedLeader(f *fleet) {
	f.startAll(3, "-tick", "1m")
	f.mustAnswer("@3 timeout ; @1 set x 1",
		"S3: ok\nS1: error: S1 does not lead; the leader is S3\n")
	listed, leader, _ := strings.Cut(f.peers, ",3=")
	said := fmt.Sprintf("leader S3 at %s is not in our list\n", leader)
	f.mustRun("set x 2\nget x\n", "ok\n2\n", said, 0, "-client", "-peers", listed)
}

// ownAddress: a console on a server's own machine may use another address than loopback, and from
// elsewhere it gets an error and not silence.
func ownAddress(f *fleet) {
	probe, err := net.Dial("udp", "192.0.2.1:9") // sends nothing, but finds the own address
	if err != nil || runtime.GOOS != "linux" {
		f.Skip("needs an address besides loopback, and a system that lets it reach loopback")
	}
	probe.Close()
	own, err := net.ListenUDP("udp", &net.UDPAddr{IP: probe.LocalAddr().(*net.UDPAddr).IP})
	must(err == nil, all("there is a port:", err))
	f.startAll(1)
	addresses, _ := parsePeers(f.peers)
	r := (&console{addresses: addresses, conn: own}).ask([]int{1}, "heal")[1]
	if r == nil || !strings.HasPrefix(r.Error, "only its own machine commands S1") {
		f.Errorf("got %v", r)
	}
	f.peers, f.dir = fmt.Sprintf("1=%v", addressOf(own)), f.TempDir()
	own.Close()
	f.start(1)
	f.mustAnswer("@1 heal ; set x 1", "S1: ok\nok\n")
}

// killAllOrNone: the console of a cluster checks a list whole before it kills or starts anything.
func killAllOrNone(f *fleet) {
	f.freePeers(3)
	f.mustRun("set x 1\nkill 3\nkill 1,2,3\nkill 2,9\n@3 heal\nstart 2,3\nkill S1,2\nstart 1,2,3\n"+
		"get x\nquit\n", "ok\nok\nerror: server 3 is not running; nothing was done\n"+
		"error: there is no server \"9\"; there are 1,2,3\nS3: killed\n"+
		"error: server 2 is running; nothing was done\nok\nok\n1\nbye\n", "", 1,
		"-peers", f.peers, "-dir", f.dir, "-watch", "0")
}

// timeStandsStill: what a learner does to clock and wires has exactly the effects that it says.
func timeStandsStill(f *fleet) {
	f.startAll(3, "-tick", "1m")
	f.mustAnswer("@1 tick 14 ; @1 get x ; @1 tick 16 ; @1 beat ; @1 tick off ; @1 status\n"+
		"@2 hold ; set x 1 ; @2 hold ; @2 peek x ; @2 release", `S1: ok
S1: error: S1 does not lead; the leader is none
S1: ok
S1: ok
S1: ok
S1: S1 leader t1, *timer 5
S1: tick:off
S2: ok
ok
S2: 1. <-S1 t1 AppendEntries prev=#1t1 [#2t1] commit=1
S2: (none)
S2: ok
`)
}

// argumentsAndScripts: what scripts rely on. Answers go to stdout, all else to stderr, and the exit
// code goes by what happened: 0, 1 for an error or unknown, 2 for flags.
func argumentsAndScripts(f *fleet) {
	f.startAll(1)
	for _, row := range []struct {
		args, script, want string
		code               int
	}{
		{"set|my key|v", "", `error: argument "my key" is not one word; nothing done`, 1},
		{"get|my", "", "(none)", 0},
		{"set|x|a;b # c", "", "ok", 0},
		{"-client|get|x", "", "a;b # c", 0},
		{"set|x|3\x1b[A", "", "error: * one line of printable UTF-8 text", 1},
		{"-client", "set x 3\x1b[A", "error: not printable text, nothing done (rlwrap *", 1},
		{"-client", "\ufeffget x ; get my # both", "a;b # c\n(none)", 0}, // and x is as it was
		{"-client", "set e error: no\nget e", "ok\nerror: no", 0},
		{"-client", "bogus\nincr n", "error: no such command \"bogus\"; help lists them\n1", 1},
		{"-client", "kill 1", "error: kill and start need the terminal of a cluster*", 1},
	} {
		args := append([]string{"-peers", f.peers}, strings.Split(row.args, "|")...)
		f.mustRun(row.script, row.want+"\n", "", row.code, args...)
	}
	f.mustRun("", "", "error: *-tick*unit*-tick 10ms\n", 2, "-tick", "10")
	f.freePeers(1) // where nobody runs, the outcome is unknown, and that is not success
	f.mustRun("set x 1 ; status", `unknown: no answer in time; set x 1 may still happen
S1: unknown: S1 does not answer; is it running?
`, "", 1, "-client", "-peers", f.peers)
}

// figure7 leads to NOTES.md's two pictures of Figure 7. S1 is the leader for term 8, and S2 to S7
// are the servers (a) to (f).
const figure7 = `go run . -n 7 -tick 1m -noop=false -dir seven
@1 timeout ; @1 set x 1 ; @1 set x 2 ; @1 set x 3
@7 cut all append ; @7 timeout ; @7 set x 4 ; @7 set x 5 ; @7 set x 6 # (f) leads term 2, unheard
kill 7 ; start 7 ; @7 cut all append ; @7 timeout # … and term 3
@7 set x 7 ; @7 set x 8 ; @7 set x 9 ; @7 set x 10 ; @7 set x 11 ; kill 7
@6 timeout ; @6 set y 1 ; @6 cut 3 ; @6 set y 2 # (e) leads term 4, and (b) hears only the first
@6 cut all append ; @6 set y 3 ; @6 set y 4 ; kill 6
@1 cut 3 ; @1 timeout ; @1 set z 1 ; @1 set z 2 # term 5
@4 cut 3 ; @4 timeout ; @4 set w 1 ; @4 set w 2 # (c) leads term 6
@4 cut 2 ; @4 set w 3 ; @4 cut all ; @4 set w 4 ; kill 4
@1 heal ; @5 cut all append ; @5 timeout ; @5 set v 1 ; @5 set v 2 ; kill 5 # (d) leads term 7
start 4,5,6,7 ; @1 cut all append ; @1 timeout ; logs
@1 heal ; @1 beat ; logs
`

// TestNotes: what NOTES.md promises comes true. Each script runs on a real cluster, and every line
// of its picture must come out, in order. The picture may leave lines out, and the ends of lines,
// where timers stand that are drawn by lot.
func TestNotes(t *testing.T) {
	// A script and its picture go by the last word of the script's first line, which is its folder.
	folder, scripts, pictures := "", map[string]string{"seven": figure7}, map[string]string{}
	blocks := regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	for _, block := range blocks.FindAllStringSubmatch(readText("NOTES.md"), -1) {
		switch kind, text := block[1], block[2]; kind {
		case "play":
			first, _, _ := strings.Cut(text, "\n")
			folder = first[strings.LastIndex(first, " ")+1:]
			fallthrough
		case "more": // the script goes on
			scripts[folder] += text
		case "see":
			pictures[folder] += text
		case "seven":
			pictures[kind] += text
		}
	}
	if len(pictures) < 9 {
		t.Errorf("NOTES.md has %d scripts", len(pictures))
	}
	binary := build(t)
	for folder, picture := range pictures {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			// The console waits 30 ms for what a command sets off. On a busy machine that may not
			// be enough, so a picture has three chances.
			missing, got := "all", ""
			for chance := 0; missing != "" && chance < 3; chance++ {
				missing, got = playOn(newFleet(t, binary), scripts[folder], picture)
			}
			if missing != "" {
				t.Errorf("%q does not come in\n%s", missing, got)
			}
		})
	}
}

// playOn runs a script and returns what came out, and the first line of the picture that did not.
func playOn(f *fleet, script, picture string) (missing, got string) {
	first, lines, _ := strings.Cut(script, "\n")
	flags, n := strings.TrimPrefix(first, "go run . "), 3
	if rest, given := strings.CutPrefix(flags, "-n "); given {
		flags, n = rest[1:], int(rest[0]-'0')
	}
	f.freePeers(n)
	got, _, _ = f.run(lines, append(strings.Fields(flags), "-dir", f.dir, "-peers", f.peers)...)
	found, left := true, "\n"+got
	for _, line := range strings.Split(strings.Trim(picture, "\n"), "\n") {
		if _, left, found = strings.Cut(left, "\n"+line); !found {
			return line, got
		}
	}
	return "", got
}

// TestNotesForm: NOTES.md names rules that exist, offers edits that fit raft.go, and is short.
func TestNotesForm(t *testing.T) {
	notes, source := readText("NOTES.md"), readText("raft.go")
	for i, line := range strings.Split(notes, "\n") {
		if n := utf8.RuneCountInString(line); i > 330 || n > 120 {
			t.Errorf("line %d, with %d columns: 330 lines of 120 columns are the limit", i+1, n)
		}
	}
	edits := regexp.MustCompile("(?m)^\\| \\S+ \\| `(.+?)`.* \\| .* \\| .*$")
	for _, edit := range edits.FindAllStringSubmatch(notes, -1) {
		if old := strings.ReplaceAll(edit[1], `\|`, "|"); strings.Count(source, old) != 1 {
			t.Errorf("%q is not once in raft.go", old)
		}
	}
	rules := regexp.MustCompile(`\[([A-Z][A-Za-z]*\d[ab]?)\]`)
	for _, rule := range rules.FindAllStringSubmatch(notes, -1) {
		if !slices.Contains(strings.Fields(ruleTags), rule[1]) {
			t.Errorf("[%s] is not a rule", rule[1])
		}
	}
}

func readText(name string) string {
	text, err := os.ReadFile(name)
	must(err == nil, all(err))
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}
