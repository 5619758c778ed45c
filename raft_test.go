// The tests of raft.go, to be read after it: what each rule does at its edges, the disk, the wire,
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

// each makes one thing of another, for all of them.
func each[A, B any](things []A, of func(A) B) []B {
	made := []B{}
	for _, thing := range things {
		made = append(made, of(thing))
	}
	return made
}

func entriesOf(log terms) []*entry {
	return each(log, func(term int) *entry { return &entry{Term: term} })
}

func termsOf(entries []*entry) terms {
	return each(entries, func(e *entry) int { return e.Term })
}

func othersOf(id, n int) []int {
	return slices.DeleteFunc([]int{1, 2, 3, 4, 5, 6, 7}[:n], func(p int) bool { return p == id })
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
	s.Step(actual(s, timeout{}))
	return s
}

// leaderOf makes S1 the leader of a term. Its log ends with the empty entry of that term (D3),
// which is on its way to the others: seq 1 to S2, seq 2 to S3.
func leaderOf(n, term int, log ...int) *server {
	s := candidateOf(n, term, log...)
	for _, p := range s.peers {
		s.Step(yes(p, term))
	}
	return s
}

// settledLeaderOf is a leader whose whole log everybody stores, so all of it is committed.
func settledLeaderOf(n, term int, log ...int) *server {
	s := leaderOf(n, term, log...)
	for _, p := range s.peers {
		s.Step(actual(s, stored{p, s.lastIndex()}))
	}
	return s
}

// inRole is S1 of three in term 2, with two entries of term 1 before its own.
func inRole(r role) *server {
	return []*server{blank(2, 1, 1), candidateOf(3, 2, 1, 1), leaderOf(3, 2, 1, 1)}[r]
}

func ticks(n int) in { return slices.Repeat(in{tick{}}, n) }

// in is what arrives, in one row. There are two inputs more: the election timeout ends now; and p
// stores everything up to index, which it says in reply to the message whose entries are
// unanswered, or else to the newest message.
type (
	in      = []any
	timeout struct{}
	stored  struct{ p, index int }
)

// latest is a seq in a reply: that of the newest AppendEntries.
const latest = -1

// actual makes of an input what Step knows.
func actual(s *server, in any) any {
	switch in := in.(type) {
	case timeout:
		s.now = s.electionDue - 1
		return tick{}
	case stored:
		return okAE(in.p, s.currentTerm, in.index, cmp.Or(s.progress[in.p].unansweredSeq, s.seq))
	case *Message:
		if r := in.AppendEntriesReply; r != nil && r.Seq == latest {
			r.Seq = s.seq
		}
	}
	return in
}

// askVote is a RequestVote of S2, sendAE an AppendEntries of S2, which leads that term.
func askVote(term, lastIndex, lastTerm int) *Message {
	return &Message{From: 2, To: 1, Term: term, RequestVote: &requestVote{2, lastIndex, lastTerm}}
}

func sendAE(term, prevIndex, prevTerm int, log terms, commit int) *Message {
	return &Message{From: 2, To: 1, Term: term,
		AppendEntries: &appendEntries{2, prevIndex, prevTerm, entriesOf(log), commit, 7}}
}

func yes(from, term int) *Message {
	return &Message{From: from, To: 1, Term: term, RequestVoteReply: &requestVoteReply{true}}
}

func no(from, term int) *Message {
	return &Message{From: from, To: 1, Term: term, RequestVoteReply: &requestVoteReply{}}
}

// okAE and noAE are replies to the AppendEntries with this seq, refuse is a refusal by [AE1].
func okAE(from, term, match, seq int) *Message {
	return &Message{From: from, To: 1, Term: term,
		AppendEntriesReply: &appendEntriesReply{Success: true, MatchIndex: match, Seq: seq}}
}

func noAE(from, term, prev, conflictTerm, conflictIndex, seq int) *Message {
	return &Message{From: from, To: 1, Term: term, AppendEntriesReply: &appendEntriesReply{
		false, 0, seq, prev, conflictTerm, conflictIndex}}
}

func refuse(from, term int) *Message { return noAE(from, term, 0, 0, 0, 0) }

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
	return strings.Join(each(things, text), ", ")
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
		text := fmt.Sprintf("%s/%d %s", r.Client, r.Serial, cmp.Or(r.Result, "error: "+r.Error))
		if r.Leader != none {
			text += fmt.Sprintf(" (S%d)", r.Leader)
		}
		return text
	})
}

// records lists what goes to the disk: "t3 v2" is a term and its vote, "#4t3" an entry.
func records(out Output) string {
	return join(out.Persist, func(record string) string {
		record = regexp.MustCompile(`^term (\d+) vote (\d+)$`).ReplaceAllString(record, "t$1 v$2")
		return regexp.MustCompile(`^(\d+) (\d+).*`).ReplaceAllString(record, "#${1}t$2")
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
	texts := each(values, func(v any) string { return fmt.Sprint(v) })
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), " ")
}

// same fails the test unless got and want print the same.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// sends and tells play inputs, and compare what the last one makes a server send to others, and
// tell clients.
func sends(t *testing.T, s *server, what, want string, inputs ...any) {
	t.Helper()
	same(t, what, sent(play(t, s, inputs...)), want)
}

func tells(t *testing.T, s *server, what, want string, inputs ...any) {
	t.Helper()
	same(t, what, told(play(t, s, inputs...)), want)
}

// play is one safe Step for each input, and what comes of the last.
func play(t *testing.T, s *server, inputs ...any) (out Output) {
	t.Helper()
	for _, in := range inputs {
		out = stepSafely(t, s, actual(s, in))
	}
	return out
}

// narrationLine is the format of narration: Lamport number, server, role, term, tag, text.
var narrationLine = regexp.MustCompile(
	`^ *\d{1,5} S\d [FCL] t\d+ +(heard|[A-Z][A-Za-z]+\d?[ab]?) +[ -~]+$`)

// stepSafely is Step with an eye on [Persist]: the records make the disk equal to the memory,
// nothing promises more than that disk holds, and narration keeps its format.
func stepSafely(t *testing.T, s *server, inputs ...any) Output {
	t.Helper()
	disk := persistent{s.currentTerm, s.votedFor, slices.Clone(s.log)}
	out := s.Step(inputs...)
	for _, record := range out.Persist {
		disk.replayRecord(record)
	}
	term, vote, log := disk.currentTerm, disk.votedFor, disk.log
	same(t, "Persist/the disk is equal to the memory", all(term, vote, termsOf(log)),
		all(s.currentTerm, s.votedFor, termsOf(s.log)))
	for i, m := range append(slices.Clone(out.Early), out.Send...) {
		if early := i < len(out.Early); early != (m.AppendEntries != nil) { // D6
			t.Errorf("Persist/%s leaves before the records: %t", show(m), early)
		}
		voted, r := vote, m.AppendEntriesReply
		if m.RequestVote != nil {
			voted = m.From // a candidate has voted for itself
		} else if v := m.RequestVoteReply; v != nil && v.VoteGranted {
			voted = m.To
		}
		switch {
		case m.Term == term && voted != vote:
			t.Errorf("Persist/%s needs a vote for S%d on the disk, not S%d", show(m), voted, vote)
		case m.Term > term || m.Term == term && r != nil && r.MatchIndex >= len(log):
			t.Errorf("Persist/%s, but the disk ends at %d", show(m), len(log)-1)
		}
	}
	for _, line := range out.Trace {
		if s.watch == 0 || len(line) > 79 || !narrationLine.MatchString(line) {
			t.Errorf("%q is no line of narration, or nobody asked for it", line)
		}
	}
	return out
}

// ---- Rules 2. The receivers, and what is on the disk --------------------------------------------
//
// Figure 2's two RPCs, seen from the server that receives them. They are pure tables: state and
// message decide everything. Here lies the safety of Raft. Whoever gets these two boxes right, and
// writes to the disk before replying, can get elections wrong and will still lose nothing.

// situation is a row: what a server makes of inputs.
type situation struct {
	name   string
	server *server
	inputs in
	want   string
}

// TestRequestVoteReceiver is about [RV1] and [RV2]: S2 asks S1 of three, in term 3, for its vote.
func TestRequestVoteReceiver(t *testing.T) {
	s1 := func(vote int, log ...int) *server { return followerOf(3, 3, vote, log...) }
	rv := func(term, lastIndex, lastTerm int) in { return in{askVote(term, lastIndex, lastTerm)} }
	for _, row := range []situation{
		{"RV1/an older term, however good the log", s1(none, 1), rv(2, 9, 2), "no t3 v0"},
		{"RV1/… even from the one who has the vote", s1(2, 1), rv(2, 9, 2), "no t3 v2"},
		{"RV1/an equal term is not older", s1(none, 1), rv(3, 1, 1), "yes t3 v2"},

		{"RV2/the second gets none, however good its log", s1(3, 1), rv(3, 5, 2), "no t3 v3"},
		// The first reply may have been lost. A second yes is the same vote.
		{"RV2/the same candidate is granted again", s1(2), rv(3, 0, 0), "yes t3 v2"},
		{"RV2/… unless its log is too old", s1(2, 1), rv(3, 0, 0), "no t3 v2"},
		{"RV2/a vote binds in its own term only", s1(3), rv(4, 0, 0), "yes t4 v2"},
		{"All2/a refusal adopts a newer term, too", s1(2, 1), rv(5, 0, 0), "no t5 v0"},

		// §5.4.1: the last terms decide. Only if they are equal, the lengths do.
		{"RV2/an equal log will do", s1(none, 1, 1, 2), rv(3, 3, 2), "yes t3 v2"},
		{"RV2/one entry short will not", s1(none, 1, 1, 2), rv(3, 2, 2), "no t3 v0"},
		{"RV2/one entry more will do", s1(none, 1, 1, 2), rv(3, 4, 2), "yes t3 v2"},
		{"RV2/longer, but of an older term, will not", s1(none, 1, 2), rv(3, 9, 1), "no t3 v0"},
		{"RV2/shorter, but of a newer term, will do", s1(none, 1, 1), rv(3, 1, 2), "yes t3 v2"},
	} {
		s := row.server
		r := play(t, s, row.inputs...).Send[0]
		same(t, row.name, fmt.Sprintf("%s t%d v%d", show(r), r.Term, s.votedFor), row.want)
		same(t, row.name+": the receiver, the term", all(r.To, r.Term), all(2, s.currentTerm))
	}
}

// TestAppendEntriesReceiver is about [AE1] to [AE5]: S2, which leads, sends to S1 in term 4.
func TestAppendEntriesReceiver(t *testing.T) {
	s1 := func(log ...int) *server { return blank(4, log...) }
	knows := func(commit int, s *server) *server {
		s.commitIndex = commit
		return s
	}
	ae := func(prev, prevTerm int, log terms, commit int) in {
		return in{sendAE(4, prev, prevTerm, log, commit)}
	}
	for _, row := range []situation{ // wanted are reply, log, commitIndex, records
		{"AE1/an older term, even where it fits", s1(), in{sendAE(3, 0, 0, nil, 0)}, "no() [] 0"},
		{"AE1/an equal one is not older", s1(1), ae(1, 1, terms{3}, 1), "ok(2) [1 3] 1 #2t3"},

		// D5: a refusal names the conflicting term and the index where it begins.
		{"AE2/the entry before is missing", s1(1), ae(3, 1, terms{4}, 0), "no(3;0@2) [1] 0"},
		{"AE2/… is the last one", s1(1, 1), ae(2, 1, terms{4}, 0), "ok(3) [1 1 4] 0 #3t4"},
		{"AE2/its term is off by one", s1(1, 2, 2), ae(3, 3, nil, 0), "no(3;2@2) [1 2 2] 0"},
		{"AE2/… downwards", s1(1, 2, 2), ae(3, 1, terms{4}, 0), "no(3;2@2) [1 2 2] 0"},
		{"D5/where a term begins", s1(1, 2, 2, 3), ae(3, 4, nil, 0), "no(3;2@2) [1 2 2 3] 0"},
		{"AE2/nothing comes before entry 1", s1(), ae(0, 0, terms{4}, 0), "ok(1) [4] 0 #1t4"},
		{"AE2/… also if it differs", s1(1, 1), ae(0, 0, terms{4}, 0), "ok(1) [4] 0 #1t4"},

		{"AE3/what is equal before a conflict stays", s1(1, 2), ae(0, 0, terms{1, 3, 3, 3}, 0),
			"ok(4) [1 3 3 3] 0 #2t3, #3t3, #4t3"},
		{"AE3/late: it cuts nothing", s1(1, 1, 1), ae(0, 0, terms{1}, 0), "ok(1) [1 1 1] 0"},
		{"AE4/a duplicate appends nothing", s1(1, 4), ae(1, 1, terms{4}, 0), "ok(2) [1 4] 0"},
		{"AE4/only the rest is new", s1(1), ae(0, 0, terms{1, 4}, 0), "ok(2) [1 4] 0 #2t4"},

		{"AE5/below the last new one", s1(1, 4, 4), ae(1, 1, terms{4, 4}, 2), "ok(3) [1 4 4] 2"},
		{"AE5/beyond it", s1(1), ae(1, 1, terms{4}, 9), "ok(2) [1 4] 2 #2t4"},
		// Entry 2 was never compared with the leader's. It may be another one.
		{"AE5/the last new entry, no further", s1(1, 1), ae(1, 1, nil, 2), "ok(1) [1 1] 1"},
		// Datagrams overtake each other, and commitIndex never falls.
		{"AE5/an older leaderCommit", knows(2, s1(1, 4)), ae(2, 4, nil, 1), "ok(2) [1 4] 2"},
		{"AE5/an earlier last new entry", knows(2, s1(1, 4)), ae(1, 1, nil, 2), "ok(1) [1 4] 2"},
	} {
		s, m := row.server, row.inputs[0].(*Message)
		m.At = 50
		out := stepSafely(t, s, m)
		r, seq := out.Send[0], m.AppendEntries.Seq
		if m.Term < 4 {
			seq = 0 // the number of an earlier reign must not confirm anything in this one
		}
		same(t, row.name, all(show(r), termsOf(s.log[1:]), s.commitIndex, records(out)), row.want)
		same(t, row.name+": the reply's sender, receiver, term, seq, and that it is later",
			all(r.From, r.To, r.Term, r.AppendEntriesReply.Seq, r.At > 50), all(1, 2, 4, seq, true))
	}
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
		{"a term, an entry", blank(2), in{sendAE(3, 0, 0, terms{3}, 0)}, "t3 v0, #1t3 | S2 ok(1)"},
		{"a leader's first", candidateOf(2, 2), in{yes(2, 2)}, "#1t2 | S2 AE(0,0,[2],0)"},
		{"D7/many inputs share one Output", blank(3), in{sendAE(3, 0, 0, terms{3}, 0),
			askVote(4, 1, 3)}, "#1t3, t4 v0, t4 v2 | S2 ok(1), S2 yes"},
	} {
		out := stepSafely(t, row.server, row.inputs...)
		same(t, "Persist/"+row.name, all(records(out), "|", sent(out)), row.want)
	}
}

// TestImpossible is about the assertions, which are Figure 3 and its kin: what can never happen
// stops the server before the damage spreads.
func TestImpossible(t *testing.T) {
	for invariant, breach := range map[string]func(){
		"Election Safety":            func() { leaderOf(3, 4).Step(sendAE(4, 0, 0, nil, 0)) },
		"State Machine Safety":       func() { settledLeaderOf(3, 4).store(1) },
		"Leader Append-Only":         func() { leaderOf(3, 4, 1).store(2, &entry{Term: 4}) },
		"no gaps":                    func() { blank(4, 1).store(3, &entry{Term: 4}) },
		"there is one vote per term": func() { followerOf(3, 4, 2).setTermAndVote(4, 3) },
		"one vote per term":          func() { followerOf(3, 4, 2).setTermAndVote(4, none) },
		"terms never fall":           func() { blank(4).setTermAndVote(3, none) },
	} {
		func() {
			defer func() {
				broken, _ := recover().(string)
				same(t, invariant, strings.Contains(broken, invariant), true)
			}()
			breach()
		}()
	}
}

// TestAllServersTerm is about [All2] and [Fol1]: every message to every role, of the term before,
// of this term, and of the next one.
func TestAllServersTerm(t *testing.T) {
	for _, row := range []struct {
		name    string
		message *Message
		equal   string // the follower, candidate, leader afterwards, if the term is equal
		replies int
	}{
		{"RequestVote", askVote(5, 9, 5), "FCL", 1},
		{"its reply yes", yes(2, 5), "FLL", 0}, // [Cand2]
		{"its reply no", no(2, 5), "FCL", 0},
		{"AppendEntries", sendAE(5, 0, 0, nil, 0), "FF-", 1}, // [Cand3]; TestImpossible has the -
		{"its reply ok", okAE(2, 5, 0, 1), "FCL", 0},
		{"its refusal", refuse(2, 5), "FCL", 0},
	} {
		for i, is := range "FCL" {
			for term, roles := range map[int]string{4: "FCL", 5: row.equal, 6: "FFF"} {
				if roles[i] == '-' {
					continue
				}
				s := []*server{followerOf(3, 5, 3, 1), candidateOf(3, 5, 1), leaderOf(3, 5, 1)}[i]
				m, vote := *row.message, s.votedFor
				s.leaderID, m.Term = 9, term
				if term == 6 { // adopted before anything else is looked at
					vote = map[string]int{"RequestVote": 2}[row.name]
				}
				name := fmt.Sprintf("All2/%c in term 5, %s of term %d", is, row.name, term)
				out := stepSafely(t, s, &m)
				same(t, name, standing(s), fmt.Sprintf("%c t%d v%d", roles[i], max(5, term), vote))
				same(t, name+": replies, knows no leader", all(len(out.Send), s.leaderID == none),
					all(row.replies, term == 6 && row.name != "AppendEntries"))
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
	for _, row := range []situation{
		{"AppendEntries of the leader", blank(4, 1, 1), in{sendAE(4, 2, 1, nil, 0)}, "restarts"},
		{"… also if refused: it lives", blank(4, 1, 1), in{sendAE(4, 9, 4, nil, 0)}, "restarts"},
		{"… not of a former leader", blank(4, 1, 1), in{sendAE(3, 2, 1, nil, 0)}, ""},
		{"a vote granted", blank(4, 1, 1), in{askVote(4, 2, 1)}, "restarts"},
		{"… not granted again: it may be deaf", followerOf(3, 4, 2), in{askVote(4, 0, 0)}, ""},
		{"… not refused for the log", blank(4, 1, 1), in{askVote(4, 1, 1)}, ""},
		{"… not refused for another's vote", followerOf(3, 4, 3), in{askVote(4, 2, 1)}, ""},
		{"a higher term is no news of a leader", blank(4, 1, 1), in{askVote(5, 1, 1)}, ""},
		{"… nor is it in a reply", candidateOf(3, 4, 1), in{no(2, 5)}, ""},
		{"a candidate follows", candidateOf(3, 4, 1), in{sendAE(4, 1, 1, nil, 0)}, "restarts"},
		{"a leader steps down: it had none running", leaderOf(3, 4, 1), in{no(2, 5)}, "restarts"},
	} {
		s := row.server
		before := s.now + electionTicksMin - 1 // where no new timer can end
		s.electionDue = before
		play(t, s, row.inputs...)
		same(t, "Fol2/"+row.name, s.electionDue != before, row.want == "restarts")
	}

	s, seen := blank(4), map[int]bool{}
	for range 1000 {
		s.resetElectionTimer()
		seen[s.electionDue-s.now] = true
	}
	same(t, "Fol2/timeouts are drawn from the whole range", slices.Sorted(maps.Keys(seen)),
		"[15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30]")
	play(t, s, ticks(s.electionDue-1)...)
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
		{"D2/a no takes none back", candidateOf(5, 5), in{yes(2, 5), no(2, 5), yes(3, 5)}, "L"},

		{"Cand3/AppendEntries of this term", candidateOf(3, 5), in{sendAE(5, 0, 0, nil, 0)}, "F"},
		{"Cand3/… also one that is refused", candidateOf(3, 5), in{sendAE(5, 9, 4, nil, 0)}, "F"},
		{"Cand3/a late vote", candidateOf(3, 5), in{sendAE(5, 0, 0, nil, 0), yes(3, 5)}, "F"},
	} {
		play(t, row.server, row.inputs...)
		same(t, row.name, standing(row.server), row.want+" t5 v1")
	}

	s := followerOf(4, 4, 3, 1, 2)
	out := play(t, s, sendAE(4, 2, 2, nil, 0), timeout{})
	same(t, "Cand1/a new term, its own vote, everybody is asked", all(standing(s), sent(out)),
		"C t5 v1 S2 RV(2,2), S3 RV(2,2), S4 RV(2,2)")
	same(t, "Cand1/… in its name, and the timer starts",
		all(out.Send[0].RequestVote.CandidateID, s.electionDue-s.now >= 15), "1 true")
	tells(t, s, "Cand1/it follows nobody", "c/1 error: not the leader", asks("c", 1, "set x 1"))
	out = play(t, s, yes(2, 5), no(3, 5), timeout{})
	same(t, "Cand4/the next election", all(standing(s), sent(out)),
		"C t6 v1 S2 RV(2,2), S3 RV(2,2), S4 RV(2,2)")
	play(t, s, yes(3, 6))
	same(t, "Cand4/… counts anew: the vote of term 5 is gone", standing(s), "C t6 v1")
	play(t, s, yes(4, 6))
	same(t, "Cand2/the third of four", standing(s), "L t6 v1")

	s = candidateOf(3, 5)
	s.now = s.electionDue - 1
	s.Step(yes(2, 5), tick{})
	same(t, "Cand4/a vote in the tick of the timeout comes too late", standing(s), "C t6 v1")
	sends(t, s, "Cand3/its vote stays given", "S2 no", sendAE(6, 0, 0, nil, 0), askVote(6, 0, 0))
	tells(t, s, "Cand3/it tells who leads", "c/1 error: not the leader (S2)", asks("c", 1, "del x"))

	s = followerOf(1, 0, none)
	same(t, "Cand2/alone: elected and committed in one Step",
		all(records(play(t, s, timeout{})), standing(s), s.commitIndex), "t1 v1, #1t1 L t1 v1 1")
	out = stepSafely(t, s, asks("c", 1, "set x 1"), asks("c", 2, "get x"))
	same(t, "Lead2/alone: and answered", all(records(out), "|", told(out)), "#2t1 | c/1 ok, c/2 1")
	play(t, s, ticks(100)...)
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
			elected, refused, leads := candidateOf(n, 2), candidateOf(n, 2), leaderOf(n, 2)
			reader := settledLeaderOf(n, 2)
			replies := len(play(t, reader, append(ticks(29), asks("c", 1, "get x"))...).Reply)
			for _, p := range othersOf(1, n)[:answers] {
				play(t, elected, yes(p, 2))
				play(t, refused, no(p, 2))
				play(t, leads, stored{p, 1})
				replies += len(play(t, reader, stored{p, 1}).Reply)
			}
			is("Cand2/elect a leader", elected.role == leader)
			if play(t, refused, timeout{}); n > 1 {
				is("CQ2/let a candidate begin a new term", refused.currentTerm == 3)
			}
			is("Lead4/commit", leads.commitIndex == 1)
			is("RD3/confirm a read", replies == 1)
			play(t, reader, tick{})
			is("CQ1/keep a leader", reader.role == leader)
		}
	}
}

// TestCheckQuorum is about [CQ1]: a leader that nobody hears, or that hears nobody, makes room.
// What proves that it is heard confirms a read, too [RD3].
func TestCheckQuorum(t *testing.T) {
	s1 := func() *server { return settledLeaderOf(3, 4, 1) }
	for _, row := range []situation{
		{"a success", s1(), in{okAE(2, 4, 0, latest)}, "r/1 (none)"},
		{"a refusal by [AE2] is a sign, too", s1(), in{noAE(2, 4, 9, 0, 1, latest)}, "r/1 (none)"},
		// S1 led term 3, too, and its numbers began anew. A late message of then arrives now.
		{"a refusal by [AE1] answers an earlier reign", s1(), in{refuse(2, 4)}, ""},
		{"a reply of an older term", s1(), in{okAE(2, 3, 0, latest)}, ""},
		{"a vote", s1(), in{yes(2, 4)}, ""},
		{"a candidate of an older term", s1(), in{askVote(3, 0, 0)}, ""},
	} {
		s := row.server
		s.Step(asks("c", 1, "set x 1"), asks("r", 1, "get x"))
		play(t, s, ticks(29)...)
		tells(t, s, "RD3/"+row.name, row.want, row.inputs...)
		out := play(t, s, tick{})
		same(t, "CQ1/"+row.name, s.role == leader, row.want != "")
		if s.role == leader {
			play(t, s, ticks(28)...)
			same(t, "CQ1/… for 29 ticks more", standing(s), "L t4 v1")
			out = play(t, s, tick{})
		}
		same(t, "CQ1/steps down, keeps term and vote, sends and writes nothing, forgets who waits",
			all(standing(s), sent(out), records(out), s.waiting, s.reads), "F t4 v1 map[] []")
		same(t, "CQ1/… and a follower's timer runs", s.electionDue-s.now >= 15, true)
		tells(t, s, "CQ1/nobody leads now", "c/1 error: not the leader", asks("c", 1, "set x 1"))
		play(t, s, timeout{})
		same(t, "CQ1/nobody wins a term twice: a timeout opens a new one", standing(s), "C t5 v1")
	}
}

// TestCandidateAsksOn is about [CQ2]: a candidate that cannot win does not raise the term.
func TestCandidateAsksOn(t *testing.T) {
	s := candidateOf(5, 4, 1)
	s.Step(yes(2, 4), yes(2, 4)) // one server, twice
	for range 3 {
		out := play(t, s, timeout{})
		same(t, "CQ2/2 of 5 have answered: everybody is asked again, in this term, with no record",
			all(standing(s), sent(out), records(out), s.electionDue-s.now >= 15),
			"C t4 v1 S2 RV(1,1), S3 RV(1,1), S4 RV(1,1), S5 RV(1,1) true")
	}
	play(t, s, yes(3, 4))
	same(t, "CQ2/votes of all rounds count: they are of one term", standing(s), "L t4 v1")
}

// ---- Rules 4. The leader ------------------------------------------------------------------------
//
// A leader's life is a loop: send what a follower lacks, believe what it confirms, commit what a
// majority confirms. The hard part are replies that come late, twice, or in the wrong order, and
// entries that get no reply at all.

// TestHeartbeat is about [Lead1].
func TestHeartbeat(t *testing.T) {
	out := play(t, candidateOf(3, 2, 1), yes(2, 2))
	m := out.Early[1]
	same(t, "Lead1/when elected; an empty entry", sent(out), "S2 AE(1,1,[2],0), S3 AE(1,1,[2],0)")
	same(t, "Lead1/sender, receiver, term, leader, seq",
		all(m.From, m.To, m.Term, m.AppendEntries.LeaderID, m.AppendEntries.Seq), "1 3 2 1 2")

	s := settledLeaderOf(3, 2, 1)
	sends(t, s, "Lead1/not yet", "", ticks(4)...)
	sends(t, s, "Lead1/when idle; it tells the commit", "S2 AE(2,2,[],2), S3 AE(2,2,[],2)", tick{})
	play(t, s, tick{}, tick{}, tick{}, asks("c", 1, "set x 1"), stored{2, 3}, stored{3, 3})
	sends(t, s, "Lead1/entries were sent since, so it is not idle", "", ticks(4)...)

	s = candidateOf(3, 2, 1)
	s.noopOff = true
	sends(t, s, "Lead1/when elected, also empty", "S2 AE(1,1,[],0), S3 AE(1,1,[],0)", yes(2, 2))
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
		then  any
		sends string // to S2, which got seq 2 with entry 3, and then heartbeats
	}{
		{"the reply to it, late", 9, okAE(2, 4, 3, 2), "S2 AE(3,4,[4],3)"},
		{"the reply to an earlier message", 9, okAE(2, 4, 3, 1), ""},
		{"a later reply may only have overtaken it", 4, okAE(2, 4, 2, latest), ""},
		{"… but hardly after a heartbeat interval", 5, okAE(2, 4, 2, latest), "S2 AE(2,4,[4 4],2)"},
		{"… and it may confirm the entries", 5, okAE(2, 4, 3, latest), "S2 AE(3,4,[4],3)"},
		{"time alone clears nothing", 19, tick{}, "S2 AE(2,4,[],2)"},
		{"a refusal settles it, too", 0, noAE(2, 4, 2, 0, 1, 2), "S2 AE(2,4,[4 4],2)"},
	} {
		s := settledLeaderOf(2, 4, 1)
		play(t, s, asks("c", 1, "set x 1"), asks("c", 2, "set x 2"))
		s.roundDue = true // so that there is a later message even before the first heartbeat
		s.Step()
		sends(t, s, "Lead3/unanswered: "+row.name, row.sends, append(ticks(row.ticks), row.then)...)
	}
}

// TestLimit is about D4: the bytes of entries in one message are halved when entries were lost, and
// rise by an eighth when they arrived. The limit never reaches 0, and one entry always goes.
func TestLimit(t *testing.T) {
	s := settledLeaderOf(2, 4)
	w := s.progress[2]
	for serial := range 6 {
		s.Step(asks("c", serial+1, "set x "+strings.Repeat("v", 300)))
	}
	play(t, s, stored{2, 2}) // entry 2 went alone; 3 to 7, of 320 bytes each, are on their way
	play(t, s, noAE(2, 4, 2, 0, 2, latest))
	same(t, "D4/a refusal says nothing about sizes", w.limit, 64_995)
	for i, want := range strings.Split("32497 5, 16248 5, 8124 5, 4062 5, 2031 5, 1015 3, 512 1, "+
		"512 1, 576 1, 648 2, 729 1", ", ") {
		then := append(ticks(5), okAE(2, 4, 2, latest)) // a heartbeat arrived, the entries did not
		if i >= 8 {
			then = in{stored{2, w.unansweredIndex}} // they did
		}
		out := play(t, s, then...)
		got := all(w.limit, len(out.Early[0].AppendEntries.Entries))
		same(t, "D4/lost: limit, entries sent; and at last, arrived", got, want)
	}
	w.limit = 64_000
	play(t, s, stored{2, 7})
	same(t, "D4/never above what a datagram carries", w.limit, 64_995)
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
		all(out.Early[0].AppendEntries.Entries[0].Command, termsOf(s.log[1:])), "set x old [2 3]")
}

// TestAppendEntriesReply is about [Lead3a], [Lead3b] and D5. S1 leads term 4 of three servers. Its
// log is 1 1 2 2 4, and entry 5 is on its way to both, as seq 1 and 2. A row has what S2 answers,
// and what the leader then believes of it and sends.
func TestAppendEntriesReply(t *testing.T) {
	ok := func(match, seq int) *Message { return okAE(2, 4, match, seq) }
	no := func(prev, term, index, seq int) *Message { return noAE(2, 4, prev, term, index, seq) }
	s1 := func() *server { return leaderOf(3, 4, 1, 1, 2, 2) }
	for _, row := range []situation{ // wanted: matchIndex, nextIndex, commitIndex, messages to S2
		{"Lead3a/everything is stored", s1(), in{ok(5, 1)}, "5 6 5"},
		{"Lead3a/an earlier reply, overtaken by another", s1(), in{ok(5, 1), ok(3, 1)}, "5 6 5"},
		{"Lead3a/a heartbeat's reply confirms what the heartbeat did", s1(), in{ok(4, 2)}, "4 5 0"},
		{"Lead3a/not of an earlier reign", s1(), in{okAE(2, 3, 5, 1)}, "0 5 0"},
		{"Lead3a/not of what was never sent", s1(), in{ok(5, 3)}, "0 5 0"},
		{"Lead3a/… nor of what there is not", s1(), in{ok(6, 1)}, "0 5 0"},

		{"Lead3b/where the follower ends", s1(), in{no(4, 0, 2, 1)}, "0 2 0 AE(1,1,[1 2 2 4],0)"},
		{"Lead3b/… whatever the follower says", s1(), in{no(4, 0, 9, 1)}, "0 4 0 AE(3,2,[2 4],0)"},
		{"Lead3b/to 1", s1(), in{no(4, 1, 1, 1), no(2, 3, 1, 3)}, "0 1 0 AE(0,0,[1 1 2 2 4],0)"},
		{"AE1/a refusal without a number: an earlier reign's", s1(), in{no(4, 0, 2, 0)}, "0 5 0"},
		{"Lead3b/doubled: the first was heeded", s1(), in{no(4, 0, 2, 1), no(4, 0, 2, 1)}, "0 2 0"},
		{"Lead3b/of something higher", s1(), in{no(9, 0, 2, 1)}, "0 5 0 AE(4,2,[4],0)"},
		{"Lead3b/late: all is confirmed by now", s1(), in{ok(5, 1), no(4, 0, 2, 1)}, "5 6 5"},
		{"Lead3b/never below what is confirmed", s1(), in{ok(3, 2), no(4, 0, 2, 1)},
			"3 4 0 AE(3,2,[2 4],0)"},
		{"Lead3b/… of a confirmed one", s1(), in{ok(4, 2), no(4, 0, 2, 1)}, "4 5 0 AE(4,2,[4],0)"},

		// D5: the leader has the last entry of the conflicting term at 4, at 2, or nowhere.
		{"D5/it has that term: behind it", s1(), in{no(4, 1, 1, 1)}, "0 3 0 AE(2,1,[2 2 4],0)"},
		{"D5/… if that is lower than before", s1(), in{no(4, 2, 3, 1)}, "0 4 0 AE(3,2,[2 4],0)"},
		{"D5/it lacks that term: all go", s1(), in{no(4, 3, 2, 1)}, "0 2 0 AE(1,1,[1 2 2 4],0)"},
	} {
		s := row.server
		out := play(t, s, row.inputs...)
		out.Early = slices.DeleteFunc(out.Early, func(m Message) bool { return m.To == 3 })
		sends := strings.TrimPrefix(sent(out), "S2 ")
		same(t, row.name, all(s.matchIndex[2], s.nextIndex[2], s.commitIndex, sends), row.want)
		same(t, row.name+": S3 is not concerned",
			all(s.matchIndex[3], s.nextIndex[3], s.progress[3].unansweredSeq), "0 5 2")
	}
}

// TestCommit is about [Lead4]. S1 leads term 4 with the log 1 3 3 4 4.
func TestCommit(t *testing.T) {
	for _, row := range []situation{
		{"what one of two has", leaderOf(3, 4, 1, 3, 3), in{stored{2, 5}, stored{3, 4}}, "5"},
		{"of five, the third best", leaderOf(5, 4, 1, 3, 3), in{stored{2, 5}, stored{3, 4}}, "4"},
		// Figure 8: an entry of an older term may be on all servers and still be overwritten.
		{"not one of an older term", leaderOf(3, 4, 1, 3, 3), in{stored{2, 3}, stored{3, 3}}, "0"},
		{"… until this term's is", leaderOf(3, 4, 1, 3, 3), in{stored{2, 3}, stored{3, 4}}, "4"},
	} {
		row.server.Step(asks("c", 1, "set x 1"))
		play(t, row.server, row.inputs...)
		same(t, "Lead4/"+row.name, row.server.commitIndex, row.want)
	}
	s := settledLeaderOf(3, 4, 1)
	play(t, s, askVote(5, 9, 4), sendAE(5, 2, 4, terms{5, 5}, 0))
	s.matchIndex = map[int]int{2: 4, 3: 4}
	s.Step()
	same(t, "Lead4/not by one who leads no more, from what it knew when it did", s.commitIndex, 2)
}

// TestApply is about [All1]: entries are applied once they are committed, in order, one by one.
func TestApply(t *testing.T) {
	ae := sendAE(4, 0, 0, nil, 2)
	ae.AppendEntries.Entries = each([]int{1, 2, 3}, func(serial int) *entry {
		return &entry{4, "c", serial, "incr x"}
	})
	s := blank(4)
	tells(t, s, "All1/a follower answers no client", "", ae)
	same(t, "All1/up to commitIndex and no further", all(s.lastApplied, s.machine.get("x")), "2 2")
	play(t, s, sendAE(4, 3, 4, nil, 3), ae)
	same(t, "All1/a doubled message applies nothing", all(s.lastApplied, s.machine.get("x")), "3 3")
	s = followerWith(3, 4, none, s.log[1:]...)
	s.Step()
	same(t, "All1/after a restart nothing is committed: a log is no proof", s.lastApplied, 0)
}

// TestStepDown is about a leader that meets a higher term [All2], and about what must not survive a
// reign: who waits, what was sent, and what was confirmed.
func TestStepDown(t *testing.T) {
	write, read := asks("c", 1, "set x 1"), asks("r", 1, "get x")
	s := settledLeaderOf(3, 4)
	out := play(t, s, write, read, sendAE(5, 2, 4, terms{5}, 3))
	same(t, "All2/another leader has committed it: no word of that from here",
		all(standing(s), told(out), s.lastApplied), "F t5 v0 3")
	tells(t, s, "All2/it names S2", "c/1 error: not the leader (S2)", write)
	sends(t, s, "All2/no more heartbeats", "", ticks(5)...)
	play(t, s, okAE(3, 5, 3, 9), okAE(3, 4, 3, latest))
	same(t, "All2/replies to a former leader are void", all(s.matchIndex[3], s.commitIndex), "1 3")
	out = play(t, s, timeout{}, yes(3, 6))
	same(t, "Lead1/a new reign begins anew, and so do its numbers",
		all(sent(out), s.matchIndex, s.nextIndex, out.Early[0].AppendEntries.Seq),
		"S2 AE(3,5,[6],3), S3 AE(3,5,[6],3) map[2:0 3:0] map[2:4 3:4] 1")
	tells(t, s, "RD3/nobody from the reign before is answered", "", okAE(3, 6, 4, 2))
	out = stepSafely(t, s, read, okAE(2, 6, 4, 1))
	same(t, "RD3/a former reign's round delays none", sent(out), "S2 AE(4,6,[],4), S3 AE(4,6,[],4)")
	tells(t, s, "SE1/a write of then waits no more; SE2 answers", "c/1 ok", write)

	s = settledLeaderOf(3, 4) // another leader's entry takes the place of S1's
	play(t, s, write, sendAE(5, 1, 4, terms{5}, 0), timeout{}, yes(2, 6))
	tells(t, s, "Lead2/nobody is told that an overwritten command is done", "", stored{2, 3})
	play(t, s, write)
	same(t, "SE1/who waited in an earlier reign is forgotten: it is appended", s.lastIndex(), 4)
	tells(t, s, "Lead2/… and answered", "c/1 ok", stored{2, 4})
}

// ---- Rules 5. Figures 7 and 8 -------------------------------------------------------------------
//
// A desk is the smallest cluster that can play a figure: servers, messages in the air, and a hand
// that decides what happens next. Time stands still unless the hand moves it.

type desk struct {
	t       *testing.T
	servers []*server // by id
	air     []Message
	refused map[int]int // AppendEntries refused by [AE2], by follower
}

// newDesk starts a server for each log, all in one term. They have no votes yet.
func newDesk(t *testing.T, term int, logs ...terms) *desk {
	d := &desk{t, make([]*server, len(logs)+1), nil, map[int]int{}}
	for i, log := range logs {
		d.servers[i+1] = blank(term, log...)
		d.start(i + 1)
	}
	return d
}

// crash leaves of a server what is persistent, where stepSafely has seen that the records lead.
// Everything in the air is lost, so that the story stays short.
func (d *desk) crash(id int) {
	d.servers[id] = &server{persistent: d.servers[id].persistent, role: 3} // in none
	d.air = nil
}

func (d *desk) start(id int) {
	disk, r := d.servers[id].persistent, rand.New(rand.NewPCG(uint64(id), 1))
	d.servers[id] = newServer(id, othersOf(id, len(d.servers)-1), disk, r)
	d.servers[id].watch = 3
}

func (d *desk) step(id int, in any) {
	out := play(d.t, d.servers[id], in)
	d.air = append(append(d.air, out.Early...), out.Send...)
}

// deliver hands over messages among these servers until there are no more that are wanted.
func (d *desk) deliver(wanted func(Message) bool, ids ...int) {
	next := func(m Message) bool {
		return slices.Contains(ids, m.From) && slices.Contains(ids, m.To) && wanted(m)
	}
	for range 1000 {
		at := slices.IndexFunc(d.air, next)
		if at < 0 {
			return
		}
		m := d.air[at]
		d.air = slices.Delete(d.air, at, at+1)
		if r := m.AppendEntriesReply; r != nil && r.PrevLogIndex > 0 {
			d.refused[m.From]++
		}
		d.step(m.To, &m)
	}
	d.t.Fatalf("messages without end; now %s", show(d.air[0]))
}

func everything(Message) bool { return true }

func votes(m Message) bool { return m.RequestVote != nil || m.RequestVoteReply != nil }

// elect makes a server the leader with the votes of others. Its first AppendEntries are in the air.
func (d *desk) elect(id int, others ...int) {
	d.air = nil
	d.step(id, timeout{})
	d.deliver(votes, append(others, id)...)
	same(d.t, fmt.Sprintf("S%d is elected", id), d.servers[id].role, leader)
}

// scene shows the roles of all servers, "LFC-", where - is down, and their logs.
func (d *desk) scene() string {
	roles := each(d.servers[1:], func(s *server) string { return "FCL-"[s.role : s.role+1] })
	logs := each(d.servers[1:], func(s *server) terms { return termsOf(s.log[1:]) })
	return all(strings.Join(roles, ""), logs)
}

// TestFigure7 is about [AE2], [AE3] and D5: "When the leader at the top comes to power, it is
// possible that any of scenarios (a)–(f) could occur in follower logs." S1 is that leader, S2 to S7
// are (a) to (f). One refusal is enough for each term that the logs do not share. By one index at a
// time, (b) would take six refusals, and (f) seven.
func TestFigure7(t *testing.T) {
	top := terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6}
	d := newDesk(t, 7, top,
		terms{1, 1, 1, 4, 4, 5, 5, 6, 6},          // (a) lacks one entry
		terms{1, 1, 1, 4},                         // (b) lacks many
		terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},    // (c) has one too many
		terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, // (d) has two of term 7, unknown to the leader
		terms{1, 1, 1, 4, 4, 4, 4},                // (e) lacks some and has some too many
		terms{1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3})    // (f) led terms 2 and 3 and committed nothing
	d.elect(1, 2, 3, 4, 5, 6, 7)
	same(t, "RV2/(c) and (d) refuse their votes, because their logs are more up to date",
		d.servers[1].votes, "map[1:true 2:true 3:true 4:false 5:false 6:true]")
	d.deliver(everything, 1, 2, 3, 4, 5, 6, 7)
	want := append(slices.Clone(top), 8) // with the first entry of term 8 (D3)
	same(t, "Lead4", d.servers[1].commitIndex, 11)
	for id := 1; id <= 7; id++ {
		name := fmt.Sprintf("Figure 7 (%c): log, refusals", " abcdef"[id-1])
		same(t, name, all(termsOf(d.servers[id].log[1:]), d.refused[id]),
			all(want, []int{0, 1, 1, 0, 0, 2, 2}[id-1]))
	}
}

// TestFigure8 is about the term test of [Lead4]: why a leader counts copies of entries of its own
// term only. The entries 2, 3 and 4 of the figure are the empty ones with which our leaders begin
// (D3), so the figure arises by itself. In (d) an entry 5 follows the 3.
func TestFigure8(t *testing.T) {
	for _, ending := range []string{"(d)", "(e)"} {
		d := newDesk(t, 1, terms{1}, terms{1}, terms{1}, terms{1}, terms{1})
		d.elect(1, 2, 3, 4, 5)
		d.deliver(everything, 1, 2)
		same(t, "(a) S1 leads term 2, and its entry reaches S2 only", d.scene(),
			"LFFFF [[1 2] [1 2] [1] [1] [1]]")
		d.crash(1)
		d.elect(5, 3, 4)
		same(t, "(b) S1 crashes, and S5 wins term 3 with the votes of S3 and S4", d.scene(),
			"-FFFL [[1 2] [1 2] [1] [1] [1 3]]")
		d.crash(5)
		d.start(1)
		d.step(1, timeout{}) // in term 3, in which S3 and S4 have voted for S5
		d.deliver(votes, 1, 2, 3, 4)
		d.elect(1, 2, 3) // in term 4, whose entries get lost for now
		s := d.servers[1]
		s.progress[3].limit = 1 // so entry 2 goes alone
		for range heartbeatTicks {
			d.step(1, tick{})
		}
		d.deliver(func(m Message) bool { return !strings.Contains(show(m), "4]") }, 1, 2, 3)
		same(t, "(c) S5 crashes, S1 wins term 4, entry 2 reaches S3, and S1 knows of three",
			all(d.scene(), s.matchIndex[2], s.matchIndex[3]),
			"LFFF- [[1 2 4] [1 2] [1 2] [1] [1 3]] 2 2")
		same(t, "(c) … and does not commit it: its term is not 4 [Lead4]", s.commitIndex, 0)
		if ending == "(e)" {
			d.deliver(everything, 1, 2, 3)
			same(t, "(e) instead, entry 4 reaches S2 and S3, too", d.scene(),
				"LFFF- [[1 2 4] [1 2 4] [1 2 4] [1] [1 3]]")
			same(t, "(e) … and commits entry 2 with itself [Lead4]", s.commitIndex, 3)
		}
		d.crash(1)
		d.start(5)
		d.step(5, timeout{}) // in term 4, in which S2 and S3 have voted for S1
		d.deliver(votes, 2, 3, 4, 5)
		if ending == "(e)" {
			d.step(5, timeout{})
			d.deliver(votes, 2, 3, 4, 5)
			same(t, "(e) S5 cannot win any more: it has S4's vote and its own [RV2]",
				all(standing(d.servers[5]), d.servers[5].voters()), "C t5 v5 [5 4]")
			continue
		}
		d.elect(5, 2, 3, 4)
		d.start(1)
		d.deliver(everything, 1, 2, 3, 4, 5)
		same(t, "(d) S1 crashes, S5 wins term 5 and overwrites what was on three of five",
			d.scene(), "FFFFL [[1 3 5] [1 3 5] [1 3 5] [1 3 5] [1 3 5]]")
		same(t, "(d) nobody had applied it [Lead4]", d.servers[5].commitIndex, 3)
	}
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
	out := stepSafely(t, s, elsewhere)
	same(t, "SE1/a repeat is not appended again", all(s.lastIndex(), told(out)), "2")
	out = play(t, s, stored{2, 2})
	same(t, "SE1/one answer, where it was asked for last", all(told(out), out.Reply[0].to),
		"c/1 1 127.0.0.1:5002")
	ask("SE2/applied: the stored answer, no entry", "c", 1, "2 c/1 1")
	ask("SE2/the next serial is new", "c", 3, "3")
	ask("SE1/an older serial than the one that waits: silence", "c", 2, "3")
	tells(t, s, "SE1/… and the one that waits is answered", "c/3 2", stored{2, 3})
	ask("SE2/an older serial than the one applied: silence", "c", 2, "3")
	ask("SE1/another client's serial is another command", "d", 3, "4")
	ask("SE1/d has given up waiting for 3", "d", 4, "5")
	tells(t, s, "SE1/of one client, only the latest serial waits", "", stored{2, 4})
	tells(t, s, "SE1/… and is answered", "d/4 4", stored{2, 5})
	tells(t, blank(2), "Lead2/followers, too, answer malformed commands",
		"c/10 error: set needs KEY VALUE", asks("c", 10, "set"))

	// A leader of term 1 has crashed before it could answer. S1 has its entry, not yet applied.
	s = followerWith(3, 1, none, &entry{1, "c", 1, "incr n"}, &entry{1, "d", 1, "incr n"})
	play(t, s, timeout{}, yes(2, 2))
	ask("SE2/the client asks S1: appended again", "c", 1, "4")
	ask("SE1/a client that has its first answer from the dead leader goes on", "d", 2, "5")
	tells(t, s, "SE1/an answer is for its own serial", "c/1 1", stored{2, 3})
	tells(t, s, "SE2/what is there twice is carried out once", "d/2 3", stored{2, 5})
}

// TestSessions is about [SE3]: what the state machine remembers, also after a restart.
func TestSessions(t *testing.T) {
	m, mismatch := blank(0).machine, `n is "2", not "1"; nothing changed`
	for _, row := range []struct{ name, entry, want string }{
		{"SE3/any serial opens a session", "1 c 7 incr n", "1"},
		{"SE2/the same again", "1 c 7 incr n", "1"},
		{"SE2/an older one has no answer", "1 c 6 incr n", "nothing"},
		{"SE2/the next", "1 c 8 incr n", "2"},
		{"SE2/an error", "1 d 1 cas n 1 5", mismatch},
		{"SE3/each client has its own", "1 e 1 set n 1", "ok"},
		{"SE2/… again, though it would succeed now", "1 d 1 cas n 1 5", mismatch},
		{"D3/an empty entry has no client and no answer", "1", "nothing"},
	} {
		e := new(entry)
		err := e.UnmarshalText([]byte(row.entry))
		a, ok := m.apply(e)
		if !ok {
			a = answer{Result: "nothing"}
		}
		same(t, row.name, all(a.Result, a.Error, err), row.want+" <nil>")
	}
	same(t, "SE3/sessions", len(m.sessions), 3)

	write, mismatch := asks("c", 2, "cas x 2 3"), `c/2 error: x is "1", not "2"; nothing changed`
	s := leaderOf(1, 1)
	tells(t, s, "SE3/an error", mismatch, asks("c", 1, "set x 1"), write)
	play(t, s, asks("d", 1, "set x 2"))
	s = followerWith(1, 1, none, s.log[1:]...)
	tells(t, s, "SE3/after a restart, too, though it would succeed now", mismatch, timeout{}, write)
}

// TestReads is about [RD1] to [RD4]: when reads wait, and for what.
func TestReads(t *testing.T) {
	read, write := asks("r", 1, "get x"), asks("c", 1, "set x new")
	s := settledLeaderOf(3, 2)
	s.Step(asks("c", 1, "set x old"))
	seq := s.seq // the newest AppendEntries when the read arrives
	sends(t, s, "RD3/a read asks: do I still lead?", "S2 AE(1,2,[],1), S3 AE(1,2,[],1)", read)
	tells(t, s, "RD3/a reply to what was sent before says nothing", "c/1 ok", okAE(2, 2, 2, seq))
	tells(t, s, "RD3/a reply to what was sent since does", "r/1 old", okAE(2, 2, 2, seq+1))
	tells(t, s, "RD3/… once", "", okAE(2, 2, 2, seq+2))
	tells(t, settledLeaderOf(5, 2), "RD3/an old reply takes no newer one back", "r/1 (none)",
		read, okAE(2, 2, 1, latest), okAE(2, 2, 1, 1), okAE(3, 2, 1, latest))

	// The round of chapter 10, with its numbers.
	s = settledLeaderOf(3, 2)
	s.seq = 12
	out := stepSafely(t, s, read, asks("q", 1, "get x"), asks("r", 2, "get y"))
	same(t, "RD3/many reads, one round with these numbers",
		all(sent(out), out.Early[0].AppendEntries.Seq), "S2 AE(1,2,[],1), S3 AE(1,2,[],1) 13")
	sends(t, s, "RD3/a later read waits for its own round", "", asks("late", 1, "get x"))
	out = play(t, s, okAE(2, 2, 1, 13))
	same(t, "RD3/answers in order, of one client the latest; and the next round",
		all(told(out), sent(out)), "q/1 (none), r/2 (none) S2 AE(1,2,[],1), S3 AE(1,2,[],1)")
	sends(t, s, "RD3/#14 was sent before it; its round is on its way", "", okAE(3, 2, 1, 14))
	tells(t, s, "RD3/#15 was not", "late/1 (none)", okAE(2, 2, 1, 15))
	tells(t, s, "RD3/a heartbeat confirms as well: the round was lost", "r/1 (none)",
		append(append(in{read}, ticks(5)...), okAE(2, 2, 1, latest))...)

	// Whether entry 1 of term 3 is committed, the leader of term 4 cannot know at first.
	s = followerWith(3, 3, none, &entry{3, "c", 1, "set x new"})
	tells(t, s, "RD1/nothing of this term is committed", "",
		timeout{}, yes(2, 4), read, okAE(2, 4, 1, latest), okAE(2, 4, 1, latest))
	same(t, "RD1/… though S2 has answered its round, 3 and 4", s.progress[2].answeredSeq, 4)
	tells(t, s, "RD1/now something is, and entry 1 with it", "r/1 new", okAE(3, 4, 2, 2))
	s = candidateOf(3, 4, 1)
	s.noopOff = true
	tells(t, s, "RD1/without D3, reads wait", "", yes(2, 4), okAE(2, 4, 1, 1), okAE(3, 4, 1, 2),
		read, okAE(2, 4, 1, latest))
	tells(t, s, "RD1/… for a write of this term", "c/1 ok, r/1 new", write, stored{2, 2})

	// A long log is applied in pieces [All1]. The read comes when all is committed.
	s = settledLeaderOf(3, 2)
	s.store(2, entriesOf(slices.Repeat(terms{2}, 3*maxApply))...)
	s.store(s.lastIndex()+1, &entry{2, "c", 1, "set x new"})
	out = play(t, s, stored{2, s.lastIndex()}, read, okAE(2, 2, 1, latest))
	same(t, "RD4/an old state", all(told(out), s.lastApplied, s.commitIndex > 15001), "15001 true")
	same(t, "RD2/the read sees what was committed before it", told(s.Step()), "r/1 new")
	tells(t, leaderOf(1, 2), "RD2/a read's serial is only echoed", "q/3 (none)",
		asks("q", 9, "get x"), asks("q", 3, "get x"))
}

// ---- Rules 7. Commands and entries --------------------------------------------------------------
//
// Raft does not care what a command is. It cares that every server makes the same of it: so all
// that can be refused is refused before it enters a log, and the rest has one outcome.

// TestCommands is about the state machine: scripts of commands and answers, each on a new one. An
// answer may end with …, which stands for any text; {20 v} is a text of 20 times v.
func TestCommands(t *testing.T) {
	scripts := strings.Split(`get x → (none) · set x 1 → ok · get x → 1 · get y → (none)
del x → (none) · set x 1 → ok · del x → ok · get x → (none)
  set  x   a  b   → ok · get   x  → a  b · set x "a"; b # c @2 → ok · get x → "a"; b # c @2
set ключ 日本語 → ok · get ключ → 日本語 · set # é<>& → ok · get # → é<>&
incr n → 1 · incr n → 2 · incr n 40 → 42 · incr n -50 → -8 · incr n 0 → -8 · get n → -8
incr n 9223372036854775807 → 9223372036854775807 · incr n → error: n is "9223372036854775807", and…
set n -9223372036854775808 → ok · incr n -1 → error: n is "-9223372036854775808", and adding -1…
incr n -9223372036854775808 → -9223372036854775808 · incr n -9223372036854775808 → error: n is…
set x one → ok · incr x → error: x is "one", not a number of 64 bits; nothing changed
set x 9223372036854775808 → ok · incr x → error: x is "9223372036854775808", not a…
incr x 9223372036854775808 → error: "9223372036854775808" is not a number of 64 bits
incr x 1.5 → error: "1.5" is not… · incr x 0x10 → error: "0x10" is not…
set x a → ok · cas x a b → ok · get x → b · cas x a c → error: x is "b", not "a"; nothing changed
cas x a b → error: x is (none), not "a"; nothing changed · cas x (none) b → error: x is (none)…
set x {2000 v} → ok · incr x → error: x is "v… · cas x {2001 v} b → error… · cas x {2000 v} b → ok
set {256 k} {2000 \} → ok · cas {256 k} {2000 "} b → error: kkk… · incr {256 k} → error: kkk…
 → error: no such command ""; use set, get, del, incr or cas · SET x 1 → error: no such…
{2000 x} → error: no such command "xxx… · {8000 é} → error: no such command "ééé…
set → error: set needs KEY VALUE · set x → error: set needs… · set x   → error: set needs KEY…
get → error: get needs KEY · get x y → error: get… · del → error: del needs KEY · del x y → error…
incr → error: incr needs KEY [N] · incr x 1 2 → error: incr… · incr x one two → error: incr…
cas → error: cas needs KEY OLD NEW · cas x a → error: cas… · cas x a b c → error: cas needs…
set {256 k} 1 → ok · get {256 k} → 1 · set {257 k} 1 → error: a command has at most…
get {129 é} → error: a command has at most… · set x ~ → ok
set x {16378 v} → ok · get x → {16378 v}
set y {16379 v} → error: a command has at most 16384 bytes, and a key 256`, "\n")
	for _, bad := range strings.Split("\t \n \r \x1b \x7f \u00a0 \xff \ufffd \u200b", " ") {
		scripts = append(scripts, "set x a"+bad+"b → error: a command is one line of printable…")
	}
	repeated := regexp.MustCompile(`\{\d+ .\}`)
	expand := func(text string) string {
		times, of := 0, ""
		fmt.Sscanf(text, "{%d %1s}", &times, &of)
		return strings.Repeat(of, times)
	}
	for _, script := range scripts {
		s := leaderOf(1, 2)
		for i, line := range strings.Split(repeated.ReplaceAllStringFunc(script, expand), " · ") {
			command, want, _ := strings.Cut(line, " → ")
			before := fmt.Sprint(s.machine.values)
			out := s.Step(asks("c", i+1, command))
			got := strings.TrimPrefix(told(out), fmt.Sprintf("c/%d ", i+1))
			start, open := strings.CutSuffix(want, "…")
			if got != want && !(open && strings.HasPrefix(got, start)) {
				t.Errorf("%.60q\n got %.300s\nwant %.300s", command, got, want)
			}
			if strings.HasPrefix(got, "error: ") {
				same(t, "an error is short and printable, and has changed nothing: "+command,
					all(len(got) < 1000, printable(got), s.machine.values), all(true, true, before))
			}
		}
	}
	for word, is := range map[string]int{"3": 3, "5": 5, "2": 0, "6": 0, "04": 0, "+4": 0, "": 0} {
		n, err := parseNumber(word, 3, 5)
		same(t, "parseNumber "+word, all(n, err != nil), all(is, is == 0))
	}
}

// TestNarration: an idle leader is silent, a line has 79 columns, no number leaves its range.
func TestNarration(t *testing.T) {
	s := settledLeaderOf(3, 2)
	s.watch = 1
	out := play(t, s, ticks(5)...)
	same(t, "level 1, idle", all(len(out.Early), len(out.Trace)), "2 0")
	s.watch = 2
	out = play(t, s, asks("c", 1, "set x "+strings.Repeat("é", 200)))
	same(t, "level 2, a long command", all(len(out.Trace), len(out.Trace[0])), "3 79")
	s.Step(&Message{From: 2, To: 1, Term: 3, At: maxNumber, RequestVote: &requestVote{}})
	same(t, "a Lamport number of our own is possible", s.lamport < maxNumber, true)
	s = followerOf(3, 2, none)
	s.watch = 2 // tells an answer with news, committed or not, and no other
	news, again := play(t, s, sendAE(2, 0, 0, terms{1}, 1)), sendAE(2, 2, 1, nil, 1)
	out = play(t, s, sendAE(2, 1, 1, terms{1}, 1), again)
	same(t, "level 2, answers", all(len(news.Trace), len(out.Trace)), "4 0")
}

// =================================================================================================
// THE DISK
// =================================================================================================
//
// What a crash may do to the file, what it may not, and why a server that meets the second must
// not start: it may have voted, or confirmed an entry, in the line that is lost.

var membersOf3 = []int{1, 2, 3}
var ourHeader = header(1, membersOf3) // the first line of server 1

func header(id int, members []int) string {
	return fmt.Sprintf("raft.go 2 server %d of %s", id, list(members))
}

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

func (d *diary) add(text string, p persistent) {
	d.data = appendLine(d.data, text)
	d.ends = append(d.ends, len(d.data))
	d.states = append(d.states, stateText(p))
}

func randomDiary(seed uint64, changes int) (d diary) {
	r, s := rand.New(rand.NewPCG(seed, seed)), blank(0)
	commands := []string{"set x 1", `set y "\ {}`, "set é 日 本", "del x", "incr n -5", "set x  1 "}
	d.add(ourHeader, s.persistent)
	for range changes {
		e := &entry{s.currentTerm, "c", 1 + r.IntN(9), commands[r.IntN(6)]}
		if r.IntN(4) == 0 {
			e = &entry{Term: s.currentTerm}
		}
		if term := s.currentTerm + r.IntN(2); s.currentTerm > 0 && r.IntN(2) == 0 {
			s.store(max(1, s.lastIndex()+1-r.IntN(3)), e) // often the end, at times a cut [DK2]
		} else if s.votedFor == none || term > s.currentTerm {
			s.setTermAndVote(max(1, term), r.IntN(4))
		}
		for _, record := range s.out.Persist {
			d.add(record, s.persistent)
		}
		s.out = Output{}
	}
	return d
}

// TestTornTail: [DK2] [DK3] a file that ends at any byte, or in what never was a line, gives the
// state of the lines that are whole. The first line must be ours, as far as there is any of it.
func TestTornTail(t *testing.T) {
	d := randomDiary(1, 60)
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
	d := randomDiary(3, 12)
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
	begins := func(line string) string {
		return fmt.Sprintf("line 1: not ours, or damaged: begins with %q, not %q", line, ourHeader)
	}
	const damaged = "line 2: damaged before intact lines; promises may be lost: do not start it"
	follows := func(line int, what, before string) string {
		return fmt.Sprintf("line %d: %q cannot follow term %s", line, what, before)
	}
	theirs := string(fileOf("raft.go 2 server 1 of 1,2,3,4,5"))
	ours, intact := string(fileOf(ourHeader)), string(fileOf("term 1 vote 0"))
	const others = "line 1: this server belongs to the cluster 1,2,3,4,5, not 1,2,3; " +
		"Raft needs §6 to change that"
	const new = "0 vote 0 and entry 0 of term 0"
	t2v3, term2 := "| term 2 vote 3 | term ", "| term 2 vote 0 | "
	for _, row := range []struct{ name, file, want string }{
		{"DK1 an empty file is a new server", "", "t0 v0 []"},
		{"DK1 the header alone", ours, "t0 v0 []"},
		{"DK1 other members", theirs, others},
		{"DK1 another server", string(fileOf("raft.go 2 server 2 of 1,2,3")),
			begins("raft.go 2 server 2 of 1,2,3")},
		{"DK1 another format", string(fileOf("raft.go 1 server 1 of 1,2,3")),
			begins("raft.go 1 server 1 of 1,2,3")},
		{"DK1 another program's", "once upon a time\n", begins("once upon a time\n")},
		{"DK3 all but the end of another header", theirs[:len(theirs)-1], others},
		{"DK1 a damaged header", "x" + ours, begins("x" + ours)},

		{"DK4 the term falls", term2 + "term 1 vote 0", follows(3, "term 1 vote 0", "2 vote 0 and entry 0 of term 0")},
		{"DK4 … and stays", term2 + "term 2 vote 3", "t2 v3 []"},
		{"DK4 term 0", "| term 0 vote 0", follows(2, "term 0 vote 0", new)},
		{"DK4 a vote changes", t2v3 + "2 vote 1", follows(3, "term 2 vote 1", "2 vote 3 and entry 0 of term 0")},
		{"DK4 … is of a new term", t2v3 + "3 vote 1", "t3 v1 []"},
		{"DK4 a negative vote", "| term 2 vote -1", follows(2, "term 2 vote -1", new)},
		{"DK4 a sign", "| term +2 vote 1", follows(2, "term +2 vote 1", new)},
		{"DK4 a word more", "| term 2 vote 1 2", follows(2, "term 2 vote 1 2", new)},

		{"DK4 a gap", term2 + "1 1 | 3 1", follows(4, "3 1", "2 vote 0 and entry 1 of term 1")},
		{"DK4 no gap", term2 + "1 1 | 2 1", `t2 v0 ["1","1"]`},
		{"DK2 a cut", term2 + "1 1 | 2 1 | 3 1 | 2 2", `t2 v0 ["1","2"]`},
		{"DK4 terms fall", term2 + "1 2 | 2 1", follows(4, "2 1", "2 vote 0 and entry 1 of term 2")},
		{"DK4 … also at a cut", "| term 3 vote 0 | 1 2 | 2 2 | 2 1",
			follows(5, "2 1", "3 vote 0 and entry 2 of term 2")},
		{"DK4 a term above ours", term2 + "1 3", follows(3, "1 3", "2 vote 0 and entry 0 of term 0")},
		{"DK4 index 0", term2 + "0 1", follows(3, "0 1", "2 vote 0 and entry 0 of term 0")},
		{"DK4 a read", term2 + "1 1 c 1 get x", follows(3, "1 1 c 1 get x", "2 vote 0 and entry 0 of term 0")},

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
		same(t, row.name, all(err, string(data)), all(name+" "+row.want, row.file))
	}
	third := filepath.Join("data", "server-3.log")
	os.Remove(name)
	os.WriteFile(third, []byte(theirs), 0o644)
	_, _, _, err := openDisk("data", 1, membersOf3)
	same(t, "DK1 another's members", all(err, os.Remove(name) == nil), all(third+" "+others, false))
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
	records := []string{"term 2 vote 3", "1 2 c7 3 set x 1"}
	err = errors.Join(d.append(records), d.append(nil), d.append(records[1:]))
	data, _ = os.ReadFile(d.name)
	text := fileOf(ourHeader, "term 2 vote 3", "1 2 c7 3 set x 1", "1 2 c7 3 set x 1")
	same(t, "the file is text", all(err, string(data)), all(nil, string(text)))
	d.file.Close()
	os.WriteFile(d.name, append(text, "12345678 1 2 torn"...), 0o644)
	d, p, torn, err := openDisk(dir, 1, membersOf3)
	same(t, "DK3 a torn tail", all(err, stateText(p), torn), `<nil> t2 v3 ["2 c7 3 set x 1"] 17`)
	same(t, "… is off before anything is appended", d.append([]string{"term 3 vote 0"}), nil)
	d.file.Close()
	d, p, torn, err = openDisk(dir, 1, membersOf3)
	same(t, "the next start", all(err, stateText(p), torn), `<nil> t3 v0 ["2 c7 3 set x 1"] 0`)
	d.file.Close()
	_, _, _, noFolder := openDisk(d.name, 1, membersOf3) // a file stands in its place
	os.Mkdir(filepath.Join(dir, "server-2.log"), 0o755)
	_, _, _, noFile := openDisk(dir, 2, membersOf3)
	same(t, "no folder, no file", all(noFolder != nil, noFile != nil), "true true")
}

// TestLostFile: [DK6] a file that somebody removed, replaced or wrote to fails the next write.
func TestLostFile(t *testing.T) {
	harms := map[string]func(name, dir string) error{
		"rm": func(name, _ string) error { return os.Remove(name) },
		"mv of the folder, and a new one": func(_, dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Mkdir(dir, 0o755))
		},
		"mv of a copy": func(name, _ string) error {
			data, _ := os.ReadFile(name)
			return errors.Join(os.WriteFile(name+"2", data, 0o644), os.Rename(name+"2", name))
		},
		"another server appends": func(_, dir string) error {
			return opened(t, dir).append([]string{"term 9 vote 0"})
		},
		"a byte less": func(name, _ string) error {
			return os.Truncate(name, int64(len(fileOf(ourHeader, "term 1 vote 0")))-1)
		},
	}
	for _, name := range slices.Sorted(maps.Keys(harms)) { // the first to fail is always the same
		if !strings.HasPrefix(name, "a") && runtime.GOOS == "windows" {
			continue // an open file can be neither removed nor replaced there
		}
		dir := filepath.Join(t.TempDir(), "data")
		d := opened(t, dir)
		same(t, "ready", errors.Join(d.append([]string{"term 1 vote 0"}), harms[name](d.name, dir)), nil)
		before, _ := d.file.Stat()
		err := all(d.append([]string{"term 2 vote 0"}))
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
	return Output{Early: []Message{ae}, Persist: []string{"term 2 vote 2"},
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
		`"error":"no","leader":2,"address":"127.0.0.1:5001"`: {answer: answer{Error: "no"}, Leader: 2,
			Address: clientAt},
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
		{vote, vote + "→{} | " + vote + "→null", "0 bodies that a server can take, instead of one"},
		{voteYes, `{"voteGranted":true}→null`, "0 bodies"}, {ask, `Request→Reply`, "0 bodies"},
		{voteYes, `"requestVote→"appendEntriesReply":{"success":false},"requestVote`, "2 bodies"},
		{ask, `"clientR→"console":{"id":1,"line":"status"},"clientR`, "2 bodies that a server"},
		{vote, `"to":1→"to":3`, "for S3, and this is S1"},
		{vote, `"to":1,→`, "for S0, and this is S1"}, {vote, `"from":2,→`, "from S0, not among"},
		{vote, `"from":2→"from":4`, "from S4, not among our servers 1,2,3"},
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

// TestDatagramSize: the largest command fits a datagram wherever it goes (D4).
func TestDatagramSize(t *testing.T) {
	const huge = maxNumber
	around := func(entries ...*entry) int {
		ae := &appendEntries{huge, huge, huge, entries, huge, huge}
		return len(encode(&Message{From: huge, To: huge, Term: huge, At: huge, AppendEntries: ae}))
	}
	frame, c := around([]*entry{}...), strings.Repeat(`"`, 64)
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
		defer func() {
			r := recover()
			if _, deliberate := r.(string); r != nil && !deliberate {
				panic(r)
			}
		}()
		in, why := fromS2(string(data))
		same(t, "the reason is text", utf8.ValidString(clip(why, width)), true)
		m, ok := in.(*Message)
		for r := follower; ok && why == "" && r <= leader; r++ {
			s := inRole(r)
			s.watch = 3 // narrate it, too
			s.Step(m)
			s.Step(tick{})
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
	sc := &screen{lines: make(chan string, 100), out: w, err: w, format: "%s\n"}
	go sc.run()
	return sc
}

// hostOn is a host around s with a socket, a disk and a screen. Only the test moves its clock.
func hostOn(t *testing.T, s *server, dir string) *host {
	conn := listen(t)
	self := addressOf(conn)
	return &host{server: s, conn: conn, inputs: make(chan any, 10), screen: screenOn(os.Stderr),
		addresses: addressMap{1: self, 2: self, 3: self}, tick: time.Millisecond,
		disk: opened(t, dir), faults: faults{cut: map[int]string{}}}
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
	two := fmt.Sprintf(`,"leader":2,"address":"%v"`, addressOf(ear))
	for id, more := range map[int]string{none: "", 2: two} {
		r := reply{to: addressOf(ear), answer: answer{Error: errNotLeader}, Leader: id}
		h.perform(Output{Reply: []reply{r}})
		want := `{"clientReply":{"serial":0,"error":"not the leader"` + more + "}}\n"
		same(t, "leader and address, or neither", string(arrived(t, ear)), want)
	}
	h.server.watch = 1
	h.write([]byte("x"), netip.AddrPort{})
	same(t, "a send that fails is told", h.server.out.Trace[0][23:34], "1 not sent:")
}

// TestTurn: all that waits is one Step with one tick, so a pause does not depose a leader whose
// heartbeat waits behind the ticks.
func TestTurn(t *testing.T) {
	h := hostOn(t, inRole(follower), t.TempDir())
	h.server.electionDue = h.server.now + 1
	for _, in := range []any{tick{}, tick{}, &Message{From: 2, To: 1, Term: 2,
		AppendEntries: &appendEntries{LeaderID: 2, Seq: 1}}, tick{}} {
		h.inputs <- in
	}
	h.turn()
	same(t, "role and clock", all(h.server.role, h.server.now, len(h.inputs)), "follower 1 0")
	h.faults.clockOff = true
	same(t, "tick off: time stands still", len(h.take(nil, tick{})), 0)
	h.server.store(3, &entry{Term: 2})
	h.server.commitIndex, h.server.out = 3, Output{}
	h.turn()
	same(t, "entries to apply wake it, too", h.server.lastApplied, 3)
}

// TestTake: a command sees the effects of what came before it, and a flood is taken in bites.
func TestTake(t *testing.T) {
	h := hostOn(t, inRole(leader), t.TempDir())
	before := []any{&request{Client: "c", Serial: 1, Command: "set x 1"}}
	rest := h.take(before, &consoleLine{Command: "peek x", to: addressOf(h.conn)})
	same(t, "appended", all(len(rest), h.server.lastIndex()), "0 4")
	h.inputs = make(chan any, maxInputs+2)
	for serial := range maxInputs + 2 {
		h.inputs <- &request{Client: "c", Serial: 2 + serial, Command: "get x"}
	}
	h.turn()
	same(t, "left for the next turn", len(h.inputs), 2)
}

// TestComplaint: a flood of garbage is counted, and told once a second at most.
func TestComplaint(t *testing.T) {
	h, terminal := hostOn(t, inRole(follower), t.TempDir()), make(terminal, 10)
	h.screen, h.server.watch = screenOn(terminal), 1
	fail := func(why string) {
		h.inputs <- errors.New(why)
		h.turn()
	}
	fail("why not")
	same(t, "told", (<-terminal)[23:], "1 dropped: why not\n")
	fail("again")
	h.toldAt = h.toldAt.Add(-time.Second)
	fail("enough")
	same(t, "a second later", (<-terminal)[23:], "2 dropped: enough\n")
}

// terminal takes one write whenever the test reads. Without a buffer, it is one after Ctrl-S.
type terminal chan string

func (to terminal) Write(text []byte) (int, error) {
	to <- string(text)
	return len(text), nil
}

// TestBlockedTerminal: the loop never waits for the terminal, and what that misses is confessed.
func TestBlockedTerminal(t *testing.T) {
	terminal := make(terminal)
	h := &host{server: inRole(follower), screen: screenOn(terminal)}
	h.narrate([]string{"1"})
	for deadline := time.Now().Add(5 * time.Second); len(h.screen.lines) > 0; runtime.Gosched() {
		must(time.Now().Before(deadline), "it is on its way to the terminal")
	}
	room := cap(h.screen.lines)
	for n := range room + 7 { // this never waits, or the test ends by its time
		h.narrate([]string{fmt.Sprint(2 + n)})
	}
	for n := range room + 1 {
		same(t, "what there was room for", <-terminal, fmt.Sprintln(1+n))
	}
	same(t, "the confession", <-terminal, fmt.Sprintln(room+1, "7 lines not shown"))
}

// =================================================================================================
// THE MAP FROM RULE TO CODE
// =================================================================================================
//
// raft.go says where each rule of Figure 2 is carried out. This keeps the map true.

// pages returns the text of raft.go from one part to another.
func pages(from, to string) string {
	_, rest, _ := strings.Cut(readText("raft.go"), "\n// PART "+from+". ")
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
	words, text, _ := strings.Cut(readText("raft.go"), "\npackage main\n")
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
	declared := regexp.MustCompile(`(\w+)[ \t]+(?::= )?map\[`)
	for _, m := range declared.FindAllStringSubmatch(code, -1) {
		maps = append(maps, m[1])
	}
	same(t, "there are maps", len(maps) > 5, true)
	impure := regexp.MustCompile(`\b(os|net|time|sync|atomic|io|bufio|runtime|exec|syscall|flag|` +
		`filepath|maps)\.|[^.]\brand\.[^R]|\bgo |\bselect\b|<-|\bchan\b|range [^{]*\b(` +
		strings.Join(maps, "|") + `)\b`)
	same(t, "what belongs to Part III", impure.FindAllString(code, -1), []string(nil))
	dotted := regexp.MustCompile(`(?m)^\t"\w+\..*"$`)
	same(t, "imports with a domain", dotted.FindAllString(readText("raft.go"), -1), []string(nil))
}

// TestWriters: [Persist] currentTerm, votedFor and log change in two functions, and at the start.
func TestWriters(t *testing.T) {
	found := map[string]bool{}
	for _, field := range []string{"currentTerm", "votedFor", "log"} {
		change := regexp.MustCompile(`\.` + field + `\b(\[[^\]]*\])?(\.\w+)?(, [\w.]+)*` +
			`( [-+]?= |\+\+|--)|\b` + field + `: |&\w+\.` + field + `\b`)
		for _, fn := range function.FindAllStringSubmatch(readText("raft.go"), -1) {
			if change.MatchString(fn[0]) {
				found[field+" in "+fn[1]] = true
			}
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
	for _, fn := range function.FindAllStringSubmatch(readText("raft.go"), -1) {
		same(t, fn[1]+" is short", strings.Count(fn[0], "\n") < 50, true)
	}
	for line := range strings.Lines(readText("raft.go")) {
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
		"-n 3 -peers 1=[::1]:1", "error: -n and -peers both", "-n 0", "error: -n is from 1 to 99, -t",
		"-tick 999us", "error: -n is from 1 to 99, -tick from 1ms to 1m", "-n 100", "error: -n is f",
		"-tick 61s", "error: -n is from 1", "-watch 4", "error: -n is from 1 to 99, -tick from 1ms",
		"-watch -1", "error: -n is from 1", "-id 4", "error: -id 4 is not among the servers 1=",
		"-id 0", "error: -id 0 is not", "-peers 1=127.0.0.1:1,2=192.0.2.1:2",
		"error: -peers: 127.0.0.1 and 192.0.2.1 cannot", "-peers 1=127.0.0.1:1,2=[::1]:2",
		"error: -peers: 127.0.0.1 and ::1 cannot meet; ", "-peers 1=127.0.0.1:1,2=127.0.0.1:1",
		"error: -peers: number or address of", "-peers 1=127.0.0.1:1,1=127.0.0.1:2",
		"error: -peers: number or address of", "-peers 0=[::1]:1",
		`error: -peers: "0=[::1]:1" is not ID=HOST:PORT`,
		"-peers 1=:5", `error: -peers: "1=:5" is not ID=HOST:PORT`,
		"-peers 1=0.0.0.0:5", `error: -peers: "1=0.0.0.0:5" is not ID=HOST:PORT`,
		"-peers 1=[::1]:0", `error: -peers: "1=[::1]:0" is not ID=HOST:PORT, I`,
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

// TestLateAnswer: a leader's answer counts, although the client has lost patience and asked S2.
func TestLateAnswer(t *testing.T) {
	s1, s2 := listen(t), listen(t)
	c := &console{ids: []int{1, 2}, conn: listen(t), leader: 1, patience: time.Second,
		addresses: addressMap{1: addressOf(s1), 2: addressOf(s2)}}
	go func() {
		late := datagram{ClientReply: &reply{Serial: 1, answer: answer{Result: "ok"}}}
		s2.ReadFromUDPAddrPort(make([]byte, maxDatagram))
		s1.WriteToUDPAddrPort(encode(late), addressOf(c.conn))
	}()
	same(t, "ok, and S1 leads", all(c.asClient("set x 1"), c.leader), "{ok } 1")
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
		views = append(views, s.viewLog())
	}
	views[1].Head = "S2 F t2 "
	picture := regexp.MustCompile(" +\n").ReplaceAllString(drawLogs(views, width), "\n")
	same(t, "one leader", picture+views[0].Knows,
		`         1  2  3  4  5  6            7            8            9
S1 L t2 [1][1][2][2][2][2 key2=val2][2 key3=val3][2 key4=val4](2 key5=val5)
S2 F t2 [1][1][2][2][2][2 key2=val2][2 key3=val3][2 key4=val4](2 key5=val5)
S1: match [2:0 3:0] next [2:3 3:3]`)
	s := inRole(leader)
	s.currentTerm, s.commitIndex = maxNumber-1, maxNumber-1
	same(t, "any status fits behind S1: ", len((&host{server: s}).status()) <= width-4, true)
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
		{leader, "timeout", "ok", "", ""}, // it has none
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
			h.answerConsole(&consoleLine{Serial: 7, Command: line, to: addressOf(person)})
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
	h.answerConsole(&consoleLine{Command: "cut all", to: netip.MustParseAddrPort("192.0.2.1:5")})
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
// After each event a judge looks whether Figure 3 still holds, and more (S6, S8).
//
//	go test -run TestSimulator -seeds 100000     a night; without -seeds, 2,000
//	go test -run TestSimulator -seed 4711 -v     one seed, with the end of its story

var (
	flagSeed  = flag.Int("seed", 0, "simulator: run this `seed` only and tell the end of its story")
	flagSeeds = flag.Int("seeds", 0, "simulator: run so many `seeds`; 0 is the default run")
)

// ---- S1. Time -----------------------------------------------------------------------------------
//
// The world is a list of events, ordered by virtual time. Whatever happens is the handling of one
// of them, and whatever is random is drawn from one generator. So a seed can be repeated, and a
// failure is a number that can be sent to somebody else.

// moment is a point of virtual time, in thousandths of a tick.
type moment int64

const (
	oneTick    moment = 1000
	oneTimeout        = electionTicksMax * oneTick // the longest; S7 counts in it
	stormTime         = 700 * oneTick              // how long the faults last
)

// event is what will happen, unless a number changes before: of a process, an alarm, a partition.
type event struct {
	at     moment
	number *int
	was    int
	do     func()
}

// world is everything there is in one run.
type world struct {
	seed   int
	rand   *rand.Rand
	now    moment
	events int     // that have happened
	agenda []event // the next one is the last

	nodes   []*node // by id; nodes[0] is nil
	members []int
	clients []*client

	weather weather
	cut     [8][8]bool // cut[a][b]: nothing gets from a to b
	cuts    int        // number of the last partition or repair
	mtu     int        // larger messages are lost; 0: none is
	json    bool       // every message is written and read by the code of raft.go
	calm    int        // S7: 1 when the faults are over, but for one that stays; 2: no new commands

	climate          // S5
	judge            // S6
	err     error    // S9
	watch   int      // S10: 2 if somebody wants the story
	story   []string // its last rows
}

// newWorld draws a cluster, its clients and its faults from a seed.
func newWorld(seed int) *world {
	w := &world{seed: seed, rand: rand.New(rand.NewPCG(uint64(seed), 0)),
		judge: judge{reigns: map[int]*reign{}, facts: []*place{{}}, writes: map[string]*place{},
			happened: map[string]int{}}}
	n := []int{3, 5, 3, 5, 3, 5, 3, 4, 2, 7, 5, 1}[w.rand.IntN(12)]
	w.nodes = make([]*node, n+1)
	for id := 1; id <= n; id++ {
		w.members = append(w.members, id)
		w.nodes[id] = &node{id: id, pace: oneTick, states: []state{{log: w.facts[0]}}}
	}
	w.drawClimate()
	w.json = w.chance(30)
	for _, n := range w.nodes[1:] {
		w.start(n)
	}
	for id := range 2 + w.rand.IntN(5) {
		w.clients = append(w.clients, &client{id: id, name: fmt.Sprintf("c%d", id), guess: w.anybody()})
		w.setAlarm(w.clients[id], w.upTo(20*oneTick))
	}
	w.plan(w.upTo(w.interval), &w.calm, w.strike)
	return w
}

// plan puts an event into the agenda. It is off if the number changes; that of the seed never does.
// Of one moment, what was planned first happens first.
func (w *world) plan(after moment, number *int, do func()) {
	w.check(len(w.agenda) < 10_000, "progress", "there is a flood of messages")
	e := event{w.now + after, number, *number, do}
	i := sort.Search(len(w.agenda), func(i int) bool { return w.agenda[i].at <= e.at })
	w.agenda = slices.Insert(w.agenda, i, e)
}

// runUntil lets the world go on until a moment, or until something is done.
func (w *world) runUntil(end moment, done func() bool) bool {
	for len(w.agenda) > 0 && w.agenda[len(w.agenda)-1].at <= end {
		e := w.agenda[len(w.agenda)-1]
		w.agenda = w.agenda[:len(w.agenda)-1]
		w.now = e.at
		if *e.number != e.was {
			continue
		}
		w.events++
		if e.do(); done != nil && done() {
			return true
		}
	}
	w.now = max(w.now, end)
	return false
}

// chance is true so many times in a thousand, upTo draws a time from 1 to d, anybody a server.
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
	id   int
	life int    // number of the process
	pace moment // between two ticks of its clock
	incarnation

	data    []byte // the file, with what is being written
	written int    // how much of it a kill leaves
	synced  int    // how much of it a power cut leaves

	states  []state // S6: since the last Step began, the last one is in memory
	certain int     // and this one on the disk
	lucky   bool    // S7: not touched by the fault that stays
}

// incarnation is what a new process has anew.
type incarnation struct {
	s      *server // nil: not running
	inbox  []any
	ticked bool
	out    Output // what the disk works on
	asleep moment // stopped until then

	fuse    int    // its countdown; it dies when it comes to 0, at an effect
	power   bool   // and by a power cut
	failing string // "write" or "fsync": the next one fails
	gone    bool   // somebody has removed or replaced its file [DK6]

	reign           int // S6, at the last look: the term that it leads, or 0,
	commit, applied int // and its commitIndex and lastApplied
}

// start starts a process. It reads the file, as openDisk does, and begins as a follower.
func (w *world) start(n *node) {
	w.say("S%d starts", n.id)
	mine := header(n.id, w.members)
	p, good, err := replay(n.data, mine)
	w.check(err == nil, "restart", "S%d refuses its file: %v", n.id, err)
	w.count("other members", good > 0) // somebody types another -n first [DK1]
	_, _, err = replay(n.data, header(n.id, append(slices.Clone(w.members), 9)))
	w.check(err != nil || good == 0, "DK1", "S%d starts with other members", n.id)
	w.count("torn tail", good < len(n.data))
	w.restarted(n, p, good)
	if n.data = n.data[:good]; good == 0 {
		n.data = appendLine(n.data, mine)
	}
	n.written, n.synced = len(n.data), len(n.data)

	n.life++
	n.incarnation = incarnation{s: newServer(n.id, othersOf(n.id, len(w.members)), p,
		rand.New(rand.NewPCG(w.rand.Uint64(), 0)))}
	n.s.watch, n.s.fired = w.watch, w.happened
	var beat func() // a stopped process misses some: at most one waits
	beat = func() {
		w.plan(n.pace, &n.life, beat)
		n.ticked = true
		w.turn(n)
	}
	w.plan(w.upTo(n.pace), &n.life, beat)
}

// turn is one turn of the loop. It takes all that waits, the tick last.
func (w *world) turn(n *node) {
	busy := n.certain < len(n.states)-1
	if n.s == nil || busy || n.asleep > w.now || len(n.inbox) == 0 && !n.ticked {
		return
	}
	w.count("batched", len(n.inbox) > 1)
	if n.ticked {
		n.inbox = append(n.inbox, tick{})
	}
	n.out = n.s.Step(n.inbox...)
	w.rows(n.out.Trace...)
	n.inbox, n.ticked = n.inbox[:0], false
	w.stepped(n)
	perform(w, n, n.out.Early, w.transmit)
	switch {
	case n.s == nil:
	case len(n.out.Persist) == 0:
		w.respond(n)
	case n.gone: // it notices before it writes and stops; somebody puts the file back
		w.count("file vanished", true)
		w.crash(n, false)
	default:
		w.disk(n, "write", &n.written, func() {
			w.disk(n, "fsync", &n.synced, func() {
				n.certain = len(n.states) - 1
				w.respond(n)
			})
		})
	}
}

// disk lets a write or an fsync take its time, and then moves its mark. The process may die before,
// in the middle of it or after it, or it fails. A failed fsync may lose what was not synced.
func (w *world) disk(n *node, what string, mark *int, then func()) {
	w.plan(max(w.upTo(w.diskTime), n.asleep-w.now), &n.life, func() {
		if n.asleep > w.now { // a stopped process learns of it later
			w.disk(n, what, mark, then)
			return
		}
		n.fuse--
		dies, fails, left := n.fuse == 0, n.failing == what, len(n.data)-*mark
		if !dies && !fails {
			*mark += left
			then()
			return
		}
		part := w.rand.IntN(3)
		*mark += []int{0, w.rand.IntN(left + 1), left}[part]
		w.count("crash "+[]string{"before ", "in ", "after "}[part]+what, dies)
		w.count(what+" error", fails)
		w.crash(n, n.power || what == "fsync" && fails)
	})
}

// respond is the second half of perform. Then the loop goes on.
func (w *world) respond(n *node) {
	w.learned(n)
	perform(w, n, n.out.Send, w.transmit)
	perform(w, n, n.out.Reply, w.reply)
	w.turn(n)
}

// perform carries out effects. Before any of them, the process may die.
func perform[effect any](w *world, n *node, effects []effect, do func(*node, *effect)) {
	for i := range effects {
		if n.fuse--; n.s != nil && n.fuse == 0 {
			w.count("crash between effects", true)
			w.crash(n, n.power)
		}
		if n.s != nil {
			do(n, &effects[i])
		}
	}
}

// crash ends the process. A kill leaves the file as it was written. A power cut leaves what was
// synced and, with luck, some of the rest.
func (w *world) crash(n *node, power bool) {
	if n.s != nil {
		w.say("S%d dies", n.id)
		w.count("kill", !power)
		n.s = nil
		n.life++
		n.data = n.data[:n.written]
		w.plan(w.upTo(w.lasting), &n.life, func() { w.start(n) })
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

// weather is how many of a thousand datagrams are lost, come twice, are slow, or come many election
// timeouts late, into another world; and what usual and slow ones take, at most.
type weather struct {
	loss, double, slow, late int
	usual, slowest           moment
}

func (w *world) drawWeather() weather {
	some := func(below int) int { return max(0, w.rand.IntN(below)-below/3) } // often none
	return weather{
		loss: some(450), double: some(450), slow: some(450), late: some(150),
		usual:   []moment{oneTick / 10, oneTick, 3 * oneTick, 8 * oneTick}[w.rand.IntN(4)],
		slowest: []moment{10 * oneTick, oneTimeout, 4 * oneTimeout}[w.rand.IntN(3)],
	}
}

// transmit sends a message to another server.
func (w *world) transmit(n *node, m *Message) {
	w.promised(n, m)
	large := w.mtu > 0 && len(encode(m)) > w.mtu
	w.count("lost for its size", large)
	if large || w.cut[m.From][m.To] {
		return
	}
	c := *m
	in := any(&c)
	if w.json {
		from := netip.AddrPortFrom(netip.IPv6Loopback(), uint16(m.From))
		data, err := encode(m), error(nil)
		in, err = decode(data, from, m.To, addressMap{m.From: from})
		w.check(err == nil, "JSON", "%s is dropped: %v", data, err)
	}
	to := w.nodes[m.To]
	w.carry(func() {
		w.count("of an old term", to.s != nil && c.Term < to.s.currentTerm)
		w.receive(to, in)
	})
}

// carry gives a datagram to the network. Of the storm's datagrams, some still come in the calm.
func (w *world) carry(deliver func()) {
	v, sentAt, copies := &w.weather, w.now, 1
	if w.chance(v.loss) {
		w.count("lost", true)
		return
	}
	if w.chance(v.double) {
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
		w.plan(delay, &w.seed, func() {
			if sentAt >= stormTime || w.now < stormTime+oneTimeout/2 {
				deliver()
			}
		})
	}
}

// receive puts an input into n's receive buffer. What does not fit is lost.
func (w *world) receive(n *node, in any) {
	if n.s != nil && len(n.inbox) < 200 {
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
	id      int
	name    string
	serial  int // of its last write
	alarm   int // number of the one that is set
	waiting bool
	call    int // the latest one, in the history
	guess   int // whom it asks
}

// call is a command of a client in the history, which S8 judges.
type call struct {
	request
	invoked  int // number of the event
	returned int // likewise, or noAnswer
	answer   answer
	place    int // index of the write in the log, a hint for S8
}

const (
	noAnswer  = math.MaxInt
	firstRead = 1 << 20 // where the serials of reads begin; they only tell answers apart
)

// wake lets the client do what it planned.
func (w *world) wake(c *client) {
	switch {
	case !c.waiting && w.calm == 2:
		return
	case !c.waiting:
		w.invoke(c)
	case w.calm == 0 && w.chance(40):
		w.count("client gives up", true)
		c.name, c.serial = fmt.Sprintf("c%d.%d", c.id, c.call), 0
		w.invoke(c)
	default:
		w.count("client retries", true)
		if w.calm > 0 || w.chance(500) { // in the calm it must not stay with a dead server
			w.count("client moves", true)
			c.guess = w.anybody()
		}
	}
	w.setAlarm(c, w.patience/2+w.upTo(w.patience))
	w.ask(c)
}

// keys are those that commands name.
var keys = []string{"x", "y", "z"}

// invoke begins a new command. Values are unique, so that it shows where they come from.
func (w *world) invoke(c *client) {
	key := w.rand.IntN(w.keys)
	value := strconv.Itoa(1000*w.events) + w.padding
	old := max(w.facts[len(w.facts)-1].values[key], "0") // what is there, often
	forms := strings.Split("get K,get K,get K,set K V,set K V,set K V,del K,incr K,"+
		"incr K,cas K O V", ",")
	form := forms[w.rand.IntN(len(forms))]
	if c.id == 0 { // a client that only reads stays with a leader that was cut off
		form = "get K"
	}
	command := strings.NewReplacer("K", keys[key], "O", old, "V", value).Replace(form)
	c.waiting, c.call = true, len(w.history)
	serial := firstRead + c.call
	if form != "get K" {
		c.serial++
		serial = c.serial
	}
	w.say("%s: %.40s", c.name, command)
	w.history = append(w.history, call{invoked: w.events, returned: noAnswer,
		request: request{Client: c.name, Serial: serial, Command: command,
			to: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(c.id))}})
}

// ask sends the outstanding command.
func (w *world) ask(c *client) {
	r, n := w.history[c.call].request, w.nodes[c.guess]
	w.carry(func() { w.receive(n, &r) })
}

// reply carries an answer to its client.
func (w *world) reply(n *node, r *reply) {
	w.answered(n, r)
	c, copied := w.clients[r.to.Port()], *r
	w.carry(func() { w.hear(c, copied) })
}

// hear is a client that takes an answer.
func (w *world) hear(c *client, r reply) {
	done := &w.history[c.call]
	switch {
	case !c.waiting || r.Client != done.Client || r.Serial != done.Serial: // it is late
	case r.Error != errNotLeader:
		done.returned, done.answer = w.events, r.answer
		w.count("write answered", r.Serial < firstRead)
		w.say("%s: %.40s -> %.40s%.40s", c.name, done.Command, r.Result, r.Error)
		c.waiting = false
		w.setAlarm(c, w.upTo(w.patience/2))
	case r.Leader != none && r.Leader != c.guess:
		c.guess = r.Leader
		w.ask(c)
	}
}

// setAlarm wakes c after a while. It replaces the alarm set before.
func (w *world) setAlarm(c *client, after moment) {
	c.alarm++
	w.plan(after, &c.alarm, func() { w.wake(c) })
}

// ---- S5. Faults ---------------------------------------------------------------------------------
//
// The seed decides also which kinds of faults there are, how often and how long. Many seeds have
// few kinds, so that the worst one does not drown the others.

// allFaults lists what the default run must have seen.
const allFaults = "lost, doubled, slow, late, of an old term, batched, lost for its size, " +
	"partition, one-way cut, bridge, deaf server, cut off when elected, " +
	"kill, power cut, power cut of all, crash between effects, crash before write, " +
	"crash in write, crash after write, crash before fsync, crash in fsync, crash after fsync, " +
	"torn tail, tail of zeros, write error, fsync error, file vanished, other members, pause, " +
	"slow clock, fast clock, client retries, client moves, client gives up, " +
	"stays dead, stays cut off, stays deaf, path stays small"

// count notes that a kind of fault has happened.
func (w *world) count(kind string, happened bool) {
	if happened {
		w.happened[kind]++
	}
}

// climate is the character of a seed.
type climate struct {
	kinds    []string // of faults that strike; the same one twice comes twice as often
	interval moment   // between strikes, about
	lasting  moment   // the longest time down or paused; a partition lasts twice that
	diskTime moment   // of a write or an fsync, at most
	patience moment   // of clients, before they ask again, about
	keys     int
	padding  string // of values
	limit    int    // bytes of entries in the first AppendEntries of a reign; 0: what fits
}

func (w *world) drawClimate() {
	one := func(choices ...moment) moment { return choices[w.rand.IntN(len(choices))] }
	w.climate = climate{
		kinds: []string{"weather", "weather"}, keys: int(one(1, 2, 3)), limit: int(one(0, 1, 30)),
		interval: one(15, 30, 60) * oneTick, lasting: one(10, 30, 100) * oneTick,
		diskTime: one(1, 20, 1000), patience: one(10, 30, 60) * oneTick,
	}
	for _, kind := range []string{"usurpers", "partition", "one-way cut", "bridge", "deaf server",
		"kill", "power cut", "power cut of all", "write error", "fsync error", "file vanished",
		"pause", "clock"} {
		if w.chance(450) {
			w.kinds = append(w.kinds, slices.Repeat([]string{kind}, 1+w.rand.IntN(5))...)
		}
	}
	if w.chance(200) {
		w.mtu = 800 + w.rand.IntN(400)
		w.padding = strings.Repeat("x", w.rand.IntN(200))
	}
	w.weather = w.drawWeather()
}

// strike lets one fault happen, often to the leader.
func (w *world) strike() {
	w.plan(w.upTo(2*w.interval), &w.calm, w.strike)
	n := w.nodes[w.anybody()]
	if i := slices.IndexFunc(w.nodes[1:], leads); i >= 0 && w.chance(300) {
		n = w.nodes[1+i]
	}
	switch kind := w.kinds[w.rand.IntN(len(w.kinds))]; kind {
	case "usurpers": // see elected
		w.partition("partition", n)
	case "weather":
		w.weather = w.drawWeather()
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
		n.pace = []moment{oneTick / 2, oneTick, 2 * oneTick, 10 * oneTick}[w.rand.IntN(4)]
		w.count("slow clock", n.pace > oneTick)
		w.count("fast clock", n.pace < oneTick)
	case "pause":
		w.count(kind, n.s != nil)
		n.asleep = w.now + w.upTo(w.lasting)
		w.say("S%d stopped for %d ticks", n.id, (n.asleep-w.now)/oneTick)
	default:
		w.partition(kind, n)
	}
}

// leads reports whether n believes that it is the leader.
func leads(n *node) bool { return n.s != nil && n.s.role == leader }

// elected is a new leader's bad luck. Cut off at once, it reigns, and nobody knows: Figure 8 is
// made of such reigns. Small first messages carry old entries without the leader's own [Lead4].
func (w *world) elected(n *node) {
	if w.calm == 0 && slices.Contains(w.kinds, "usurpers") && w.chance(800) {
		w.partition("cut off when elected", n)
	}
	for _, p := range n.s.peers {
		n.s.progress[p].limit = cmp.Or(w.limit, n.s.progress[p].limit)
	}
}

// partition draws two groups, n in the first, cuts wires until the repair, and mends all others.
func (w *world) partition(kind string, n *node) {
	w.count(kind, true)
	order := w.rand.Perm(len(w.members)) // order[id-1] is the server's place
	order[slices.Index(order, 0)], order[n.id-1] = order[n.id-1], 0
	size, wires := 1+w.rand.IntN(len(order)), ""
	for i, a := range order {
		for j, b := range order {
			cut := (a < size) != (b < size)
			switch kind {
			case "one-way cut": // the first group is not heard by the second
				cut = cut && a < size
			case "bridge": // one server hears and is heard by both groups
				cut = cut && a != size%len(order) && b != size%len(order)
			case "deaf server": // n hears nobody, and all hear it
				cut = b == 0 && a != 0
			case "cut off when elected":
				cut = (a == 0) != (b == 0)
			}
			if w.cut[i+1][j+1] = cut; cut {
				wires += fmt.Sprintf(" S%d>S%d", i+1, j+1)
			}
		}
	}
	w.say("%s:%s", kind, wires)
	w.cuts++
	w.plan(w.upTo(2*w.lasting), &w.cuts, w.mend)
}

// mend mends all wires. A repair that was planned before is off.
func (w *world) mend() {
	w.cuts++
	w.cut = [8][8]bool{}
}

// ---- S6. What must always hold ------------------------------------------------------------------
//
// The judge sees everything, forgets nothing and survives all crashes. After each Step it looks
// only at what may have changed, so that a look costs no more than the event itself.
//
// It knows all logs as one tree. A place in that tree is an entry and all that stands before it. So
// a log is its last place, and two logs are equal up to an index if they have the same place there:
// Log Matching is a comparison of two pointers.

type place struct {
	before *place
	index  int
	entry
	after []*place

	// Of a committed entry: the term in which it was committed, and the values of keys behind it.
	committed int
	values    [3]string // "" is none

	answer answer // to a client's write, of which this is the first entry that was committed;
	latest int    // the term of the last one
}

// then finds the place of an entry behind p, or makes it.
func (p *place) then(e *entry) *place {
	for _, q := range p.after {
		if q.entry == *e {
			return q
		}
	}
	p.after = append(p.after, &place{before: p, index: p.index + 1, entry: *e})
	return p.after[len(p.after)-1]
}

// at finds the place with an index in the log that ends with p.
func (p *place) at(index int) *place {
	for p.index > index {
		p = p.before
	}
	return p
}

// holds reports whether q is in the log that ends with p.
func (p *place) holds(q *place) bool { return p.at(q.index) == q }

// state is a server's persistent state, and where in its file the record ends that led to it.
type state struct {
	term, vote int
	log        *place
	end        int
}

// memory is the state that n is in. disk is the one that it would have after a power cut, at least.
func (n *node) memory() *state { return &n.states[len(n.states)-1] }
func (n *node) disk() *state   { return &n.states[n.certain] }

// reign is all that is known of a term.
type reign struct {
	leader int
	log    *place  // the leader's; its last entries may have been lost since
	match  [10]int // the leader's matchIndex, by server
	acked  [10]int // up to where each server has confirmed the log
}

func writeID(client string, serial int) string { return client + "/" + strconv.Itoa(serial) }

type judge struct {
	reigns   map[int]*reign    // by term; a term is there once somebody leads it
	facts    []*place          // what is committed, by index
	writes   map[string]*place // by writeID, the first committed entry
	history  []call
	happened map[string]int // how often each fault struck and each rule decided
}

// check stops the world when something does not hold.
func (w *world) check(holds bool, rule, format string, args ...any) {
	if !holds {
		panic(rule + ": " + fmt.Sprintf(format, args...))
	}
}

// stepped looks at n after a Step, before any of its effects.
func (w *world) stepped(n *node) {
	s, term := n.s, n.s.currentTerm
	elected := s.role == leader && n.reign != term
	if elected { // one leader per term, in all history; one that is alone may forget that it led
		old := cmp.Or(w.reigns[term], &reign{})
		w.check(old.leader == none || len(w.members) == 1, "Election Safety",
			"S%d is elected in term %d, which S%d led", n.id, term, old.leader)
		w.reigns[term] = &reign{leader: n.id, log: w.facts[0]}
	}
	n.states, n.certain = append(n.states[:0], n.states[n.certain:]...), 0
	for _, record := range n.out.Persist {
		w.recorded(n, record)
	}
	is := n.memory()
	w.check(term == is.term && s.votedFor == is.vote && s.lastIndex() == is.log.index &&
		s.lastTerm() == is.log.Term, "Persist", "S%d changes its state without a record", n.id)
	w.check(w.events%128 > 0 || w.pathOf(s.log) == is.log, // too slow for every event
		"Persist", "S%d has changed its log in memory", n.id)
	if elected { // it has all that was committed before its term; a late one may lack the rest
		last := len(w.facts) - 1
		for w.facts[last].committed >= term && last > 0 {
			last--
		}
		w.check(is.log.holds(w.facts[last]), "Leader Completeness",
			"S%d leads term %d without the committed entry %d", n.id, term, last)
		w.elected(n)
	}
	if n.reign = 0; s.role == leader {
		n.reign = term
		w.trusts(n)
	}
	if len(w.members) > 1 { // alone, it commits what is not on its disk yet, and nobody knows
		w.learned(n)
	}
}

// recorded judges one record of n, which leads to its next state, and puts it into the file.
func (w *world) recorded(n *node, record string) {
	n.data = appendLine(n.data, record)
	was, is := *n.memory(), *n.memory()
	is.end = len(n.data)
	if word, text, _ := strings.Cut(record, " "); word == "term" {
		fmt.Sscanf(record, "term %d vote %d", &is.term, &is.vote)
		once := was.vote == none || was.vote == is.vote
		w.check(is.term > was.term || is.term == was.term && once, "one vote per term",
			"S%d voted S%d in t%d: %s", n.id, was.vote, was.term, record)
	} else {
		index, _ := strconv.Atoi(word)
		e := new(entry)
		w.check(e.UnmarshalText([]byte(text)) == nil && 0 < index && index <= was.log.index+1,
			"no gaps", "S%d: entry %s", n.id, record)
		is.log = was.log.at(index - 1).then(e)
		w.matches(n, is.term, is.log)
	}
	n.states = append(n.states, is)
}

// matches: the leader of an entry's term has made it, so that leader's log is the model up to there
// [Log Matching].
func (w *world) matches(n *node, term int, p *place) {
	reign := w.reigns[p.Term]
	w.check(p.Term <= term && reign != nil, "Log Matching",
		"S%d has an entry of term %d, which nobody led", n.id, p.Term)
	if p.Term == term && reign.leader == n.id && p.index > reign.log.index {
		reign.log = p
	}
	w.check(reign.log.holds(p), "Log Matching", "S%d and S%d differ up to entry %d of term %d",
		n.id, reign.leader, p.index, p.Term)
}

// learned looks at what n knows to be committed, and at its state machine.
func (w *world) learned(n *node) {
	s := n.s
	if s.commitIndex != n.commit {
		w.commits(n)
	}
	if s.lastApplied == n.applied {
		return
	}
	w.check(n.applied < s.lastApplied && s.lastApplied <= s.commitIndex, "All1",
		"S%d applied %d, then %d, of %d", n.id, n.applied, s.lastApplied, s.commitIndex)
	for i, want := range w.facts[s.lastApplied].values {
		w.check(s.machine.values[keys[i]] == want, "equal states", "S%d at entry %d, %s is not %q",
			n.id, s.lastApplied, keys[i], want)
	}
	for _, e := range w.facts[n.applied+1 : s.lastApplied+1] {
		done := s.machine.sessions[e.Client]
		w.check(e.Client == "" || (done.serial > e.Serial || done.serial == e.Serial &&
			done.answer == w.writes[writeID(e.Client, e.Serial)].answer), "equal states",
			"S%d behind entry %d has a wrong session of %s", n.id, s.lastApplied, e.Client)
	}
	n.applied = s.lastApplied
}

// commits: commitIndex rises, over entries that are the same everywhere [State Machine Safety].
func (w *world) commits(n *node) {
	s, log, old := n.s, n.memory().log, len(w.facts)-1
	w.check(n.commit < s.commitIndex && s.commitIndex <= log.index, "commit never falls",
		"S%d: %d, then %d of %d", n.id, n.commit, s.commitIndex, log.index)
	n.commit = s.commitIndex
	common := min(old, s.commitIndex)
	w.check(log.holds(w.facts[common]), "State Machine Safety",
		"S%d commits another entry %d than was committed before", n.id, common)
	w.check(s.role == leader || s.commitIndex <= old, "State Machine Safety",
		"follower S%d commits %d, but leaders only %d", n.id, s.commitIndex, old)
	for i := old + 1; i <= s.commitIndex; i++ {
		w.executed(log.at(i), s.currentTerm)
	}
	if s.commitIndex > old {
		w.cannotBeLost(n, log.at(s.commitIndex))
	}
}

// cannotBeLost is Leader Completeness, foreseen: whoever could win an election with the logs that
// are on the disks now has the entry that n has just committed. (n may count on its memory, since
// nobody hears of the entry before it is on the disk, too.)
func (w *world) cannotBeLost(n *node, p *place) {
	var logs []*place
	for _, other := range w.nodes[1:] {
		logs = append(logs, other.disk().log)
	}
	logs[n.id-1] = n.memory().log
	for i, theirs := range logs {
		votes := 0
		for _, mine := range logs {
			if cmp.Or(theirs.Term-mine.Term, theirs.index-mine.index) >= 0 {
				votes++
			}
		}
		w.check(theirs.holds(p) || votes <= len(logs)/2, "Leader Completeness",
			"S%d commits #%d of t%d, but %d could elect S%d", n.id, p.index, p.Term, votes, i+1)
	}
}

// trusts: a leader believes only what its followers have confirmed.
func (w *world) trusts(n *node) {
	r := w.reigns[n.reign]
	for _, p := range n.s.peers {
		match, next := n.s.matchIndex[p], n.s.nextIndex[p]
		w.check(r.match[p] <= match && match <= r.acked[p] && match < next && next <= r.log.index+1,
			"matchIndex", "S%d, S%d: match %d next %d, not %d", n.id, p, match, next, r.acked[p])
		r.match[p] = match
	}
}

// pathOf is the last place of a log.
func (w *world) pathOf(log []*entry) *place {
	p := w.facts[0]
	for _, e := range log[1:] {
		p = p.then(e)
	}
	return p
}

// promised: what leaves a server is true of what is certain on its disk [Persist].
func (w *world) promised(n *node, m *Message) {
	disk, vote := n.disk(), none
	switch r := m.AppendEntriesReply; {
	case m.RequestVote != nil:
		vote = n.id
	case m.RequestVoteReply != nil && m.RequestVoteReply.VoteGranted:
		vote = m.To
	case r != nil && r.Success:
		w.check(n.s.role != candidate || m.Term != n.s.currentTerm, "Cand3",
			"S%d follows S%d and is still a candidate", n.id, m.To)
		// Up to matchIndex the log is that of the leader, on the disk. One Step may have confirmed
		// it and then, for the next leader, cut it again.
		reign, match := w.reigns[m.Term], r.MatchIndex
		was := func(s state) bool { return s.log.holds(reign.log.at(match)) }
		w.check(reign != nil && reign.leader == m.To && match <= reign.log.index &&
			slices.ContainsFunc(n.states[:n.certain+1], was), "persist before reply",
			"S%d confirms %d entries to S%d, but its disk or that log differs", n.id, match, m.To)
		reign.acked[n.id] = max(reign.acked[n.id], match)
	}
	w.check(m.AppendEntries != nil || disk == n.memory(),
		"persist before reply", "S%d answers early", n.id)
	w.check(m.Term <= disk.term && (vote == none || disk.term > m.Term || disk.vote == vote),
		"persist before reply", "S%d speaks of t%d and a vote for S%d; its disk, of t%d and S%d",
		n.id, m.Term, vote, disk.term, disk.vote)
}

// restarted: a server comes back with what its file held, to the last record.
func (w *world) restarted(n *node, p persistent, good int) {
	good = max(good, n.disk().end)
	n.states = slices.DeleteFunc(n.states, func(s state) bool { return s.end > good })
	n.certain = len(n.states) - 1
	disk := *n.disk()
	is := state{p.currentTerm, p.votedFor, w.pathOf(p.log), disk.end}
	w.check(is == disk, "restart", "S%d comes back with %v, its disk had %v", n.id, is, disk)
}

// answered: an acknowledged write is committed and was carried out once, and this is its answer.
// Reads are for S8.
func (w *world) answered(n *node, r *reply) {
	id := writeID(r.Client, r.Serial)
	done := cmp.Or(w.writes[id], w.facts[0])
	w.check(r.Error == errNotLeader || r.Serial >= firstRead || r.answer == done.answer,
		"exactly once", "S%d answers %s with %+v, not %+v", n.id, id, r.answer, done.answer)
}

// executed carries a newly committed entry out on a model of the state machine, which is as simple
// as it can be.
func (w *world) executed(p *place, term int) {
	p.committed, p.values = term, w.facts[p.index-1].values
	w.facts = append(w.facts, p)
	if p.Client == "" {
		return
	}
	id := writeID(p.Client, p.Serial)
	first := w.writes[id]
	w.check(first == nil || first.latest != p.Term, "SE1", "%s is in the log twice", id)
	if first == nil {
		first = p
		w.writes[id] = p
		words := strings.Fields(p.Command)
		value := &p.values[slices.Index(keys, words[1])]
		*value, p.answer = runCommand(words, *value)
	}
	first.latest = p.Term
}

// runCommand is what a command means for the one key that it names. No value is "".
func runCommand(words []string, old string) (value string, a answer) {
	found := words[1] + " is (none), not "
	if old != "" {
		found = words[1] + " is " + quote(old) + ", not "
	}
	n, err := strconv.Atoi(max(old, "0"))
	switch verb := words[0]; {
	case verb == "set", verb == "cas" && old == words[2]:
		return words[len(words)-1], answer{Result: "ok"}
	case verb == "del" && old != "":
		return "", answer{Result: "ok"}
	case verb == "incr" && err == nil:
		value = strconv.Itoa(n + 1)
		return value, answer{Result: value}
	case verb == "incr":
		return old, answer{Error: found + "a number of 64 bits; nothing changed"}
	case verb == "cas":
		return old, answer{Error: found + quote(words[2]) + "; nothing changed"}
	}
	return old, answer{Result: cmp.Or(old, "(none)")}
}

// ---- S7. What must happen in the end ------------------------------------------------------------
//
// Safety alone is easy: do nothing. So when the storm is over, there must be a leader, answers and
// equal logs, each in time. First one fault stays, which a majority need not mind. Then it goes.

// simulate runs one seed. It returns nil or what went wrong.
func (w *world) simulate() (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case string: // an assertion of raft.go, or of check
			err = errors.New(r)
		default:
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	w.runUntil(stormTime, nil)
	w.calmDown()
	w.mustSettle()
	var calls []call
	for _, c := range w.history {
		c.place = cmp.Or(w.writes[writeID(c.Client, c.Serial)], w.facts[0]).index
		if c.place > 0 || c.returned != noAnswer { // otherwise it is a read, or never happened
			calls = append(calls, c)
		}
	}
	return linearizable(calls)
}

// calmDown ends the storm. A minority stays dead, cut off, or deaf while everybody hears it, and
// the path may stay small.
func (w *world) calmDown() {
	w.say("the storm is over")
	w.calm, w.weather, w.patience = 1, weather{usual: oneTick}, 10*oneTick
	w.mend()
	w.mtu *= w.rand.IntN(2)
	w.count("path stays small", w.mtu > 0)
	for i, at := range w.rand.Perm(len(w.members)) {
		n := w.nodes[at+1]
		n.fuse, n.failing, n.gone, n.pace, n.asleep = 0, "", false, oneTick, 0
		if n.lucky = i <= len(w.members)/2 || w.chance(400); n.lucky {
			continue
		}
		what := []string{"stays dead", "stays cut off", "stays deaf"}[w.rand.IntN(3)]
		w.count(what, true)
		w.say("S%d %s", n.id, what)
		for _, other := range w.members {
			w.cut[n.id][other], w.cut[other][n.id] = what == "stays cut off", true
		}
		if what == "stays dead" {
			w.crash(n, w.chance(500))
			n.life++ // it does not come back
		}
	}
}

// mustSettle demands progress of the majority while the one fault stays: a leader, answers, few
// reigns [CQ1] [CQ2], and an answer for every client. Then everybody must catch up.
func (w *world) mustSettle() {
	within := func(timeouts moment, what string, done func() bool) {
		w.check(w.runUntil(w.now+timeouts*oneTimeout, done),
			"progress", "%s within %d election timeouts", what, timeouts)
	}
	before := w.happened["write answered"]
	leading := func(n *node) bool { return n.lucky && leads(n) }
	// Thirteen: some servers are still down, and votes split where all four of seven must agree.
	within(13, "no leader", func() bool { return slices.ContainsFunc(w.nodes[1:], leading) })
	within(6, "no write answered", func() bool { return w.happened["write answered"] > before })
	reigns := len(w.reigns)
	w.runUntil(w.now+12*oneTimeout, nil)
	reigns = len(w.reigns) - reigns
	w.check(reigns <= 2, "progress", "%d more reigns in 12 election timeouts", reigns)
	w.calm = 2
	within(20, "logs are not equal, or a client waits", w.settled)

	w.say("everything is mended")
	w.mend()
	w.mtu = 0
	for _, n := range w.nodes[1:] {
		if n.lucky = true; n.s == nil {
			w.plan(oneTick, &n.life, func() { w.start(n) })
		}
	}
	within(20, "logs of all are not equal", w.settled)
}

// settled: the lucky servers have one log, committed and applied to its end, and no client waits.
func (w *world) settled() bool {
	end := w.facts[len(w.facts)-1]
	for _, n := range w.nodes[1:] {
		if n.lucky && (n.s == nil || n.disk().log != end || n.s.lastApplied != end.index) {
			return false
		}
	}
	return !slices.ContainsFunc(w.clients, func(c *client) bool { return c.waiting })
}

// ---- S8. Linearizability ------------------------------------------------------------------------
//
// A history is linearizable if its calls can be put into one order, each at a moment between its
// question and its answer, in which a single machine would have given the same answers. So a client
// cannot tell the cluster from one server that never fails. A stale read breaks it, and so does a
// write that is lost, or carried out twice.
//
// The search is Wing and Gong's: which call can have been the first? Any that was asked before the
// earliest answer. Try each, and go on with the rest. Lowe added a memory of what has failed
// before: the same calls left, and the same value. Calls of different keys are independent, so each
// key is searched alone. A call without an answer may have happened at any time since, or never.

// maxSearch bounds the search for one key. A history that needs more counts as a failure.
const maxSearch = 50_000

// linearizable returns nil, or why the history is not, or may not be.
func linearizable(history []call) error {
	for _, key := range keys {
		calls := slices.DeleteFunc(slices.Clone(history), func(c call) bool {
			return strings.Fields(c.Command)[1] != key
		})
		l := &lineUp{calls, make([]byte, len(calls)), map[string]bool{}, 0}
		switch {
		case l.explain(0, ""):
		case len(l.failed) > maxSearch:
			return fmt.Errorf("Linearizability: key %s: undecided after %d states", key, maxSearch)
		default:
			c := calls[l.best]
			return fmt.Errorf("Linearizability: no order explains key %s; without a place: "+
				"%s: %s -> %v, %d-%d", key, c.Client, c.Command, c.answer, c.invoked, c.returned)
		}
	}
	return nil
}

// lineUp is a search for an order of the calls of one key.
type lineUp struct {
	calls  []call // by invocation
	done   []byte // 1: the call has its place
	failed map[string]bool
	best   int // as far as any order got
}

// explain reports whether the calls that are left can follow, when the key has this value. All
// calls before first have their place.
func (l *lineUp) explain(first int, value string) bool {
	for first < len(l.calls) && l.done[first] == 1 {
		first++
	}
	var next []int       // the calls that may be the next one
	earliest := noAnswer // of those to come
	for i := first; i < len(l.calls) && l.calls[i].invoked < earliest; i++ {
		if l.done[i] == 0 {
			next = append(next, i)
			earliest = min(earliest, l.calls[i].returned)
		}
	}
	if earliest == noAnswer {
		return true
	}
	l.best = max(l.best, first)
	state := string(l.done[first:]) + value
	if l.failed[state] || len(l.failed) > maxSearch {
		return false
	}
	// The most promising is tried first: reads change nothing, and the log orders writes.
	slices.SortStableFunc(next, func(a, b int) int { return l.calls[a].place - l.calls[b].place })
	for _, i := range next {
		after, a := runCommand(strings.Fields(l.calls[i].Command), value)
		if a == l.calls[i].answer || l.calls[i].returned == noAnswer {
			l.done[i] = 1
			if l.explain(first, after) {
				return true
			}
			l.done[i] = 0
		}
	}
	l.failed[state] = true
	return false
}

// TestLinearizable is about the judge of histories, which is judged here. A row is a history, what
// its last answer may be, and what not. A call is invoked, returned or -, command, answer.
func TestLinearizable(t *testing.T) {
	for _, row := range []struct{ history, may, mayNot string }{
		{"1 2 get x = ", "(none)", "1"},
		{"1 2 set x 1 = ok; 3 4 get x = ", "1", "(none)"},                // no write is lost
		{"1 9 set x 1 = ok; 2 3 get x = ", "(none) 1", "2"},              // at once: either value,
		{"1 9 set x 1 = ok; 2 3 get x = 1; 4 5 get x = ", "1", "(none)"}, // and never back
		{"1 9 set x 1 = ok; 2 5 get x = 1; 4 6 get x = ", "(none) 1", "2"},
		{"1 2 set x 1 = ok; 3 5 set x 2 = ok; 4 6 get x = ", "1 2", "(none)"},
		{"1 2 set x 1 = ok; 3 4 set x 2 = ok; 5 6 get x = ", "2", "1 (none)"}, // a deposed leader
		{"1 - set x 1 = ; 5 6 get x = (none); 7 8 get x = ", "(none) 1", "2"}, // ever or never,
		{"1 - set x 1 = ; 5 6 get x = 1; 7 8 get x = ", "1", "(none)"},
		{"1 2 get x = (none); 3 - set x 1 = ; 4 5 get x = ", "(none) 1", "2"},
		{"1 2 get x = 1; 3 - set x 1 = ; 4 5 get x = ", "", "1"}, // but not before
		{"1 2 incr x = 1; 3 4 incr x = ", "2", "1 3"},            // carried out once, not twice
		{"1 2 incr x = 1; 2 - incr x = ; 3 4 incr x = ", "2 3", "1 4"},
		{"1 4 incr x = 1; 2 5 incr x = ", "2", "1"}, // no update is lost
		{"1 2 set x 1 = ok; 3 4 del x = ok; 5 6 del x = ", "(none)", "ok"},
		{"1 2 set x 1 = ok; 3 6 cas x 1 2 = ok; 4 7 cas x 2 3 = ", "ok", ""},
		{"1 2 set x 1 = ok; 3 6 cas x 1 2 = ok; 4 7 cas x 1 3 = ", "", "ok"},
		{"1 2 set x 1 = ok; 3 9 set x 1 = ok; 4 5 set x 2 = ok; 6 7 get x = ", "1 2", ""},
		{"1 2 set x 1 = ok; 3 4 get y = ", "(none)", "1"},
	} {
		for i, answers := range []string{row.may, row.mayNot} {
			for _, last := range strings.Fields(answers) {
				err := linearizable(parseHistory(row.history + last))
				same(t, fmt.Sprint(row.history, last, " ", err), err == nil, i == 0)
			}
		}
	}
	// A search without an end is a failure, too: any of these sets may come last.
	many := ""
	for i := range 20 {
		many += fmt.Sprintf("%d 99 set x %d = ok; ", i+1, i)
	}
	err := linearizable(parseHistory(many + "100 101 get x = none of these"))
	same(t, "20 sets at once", err, "Linearizability: key x: undecided after 50000 states")
}

func parseHistory(text string) (history []call) {
	for _, line := range strings.Split(text, "; ") {
		asked, result, _ := strings.Cut(line, " = ")
		command := strings.SplitN(asked, " ", 3)[2]
		c := call{request: request{Command: command}, answer: answer{Result: result}}
		fmt.Sscan(asked, &c.invoked, &c.returned)
		c.returned = cmp.Or(c.returned, noAnswer)
		history = append(history, c)
	}
	return history
}

// ---- S9. Many seeds -----------------------------------------------------------------------------

// tell runs a seed with a story, and fails if the seed does.
func tell(t *testing.T, seed int) {
	w := newWorld(seed)
	w.watch = 2
	err := w.simulate()
	t.Logf("\n%s", w)
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
	first, events, happened, start := max(1, *flagSeed), 0, map[string]int{}, time.Now()
	worlds, workers := make(chan *world), runtime.GOMAXPROCS(0)
	for i := range workers {
		go func() {
			for seed := first + i; seed < first+seeds; seed += workers {
				w := newWorld(seed)
				w.err = w.simulate()
				worlds <- w
			}
		}()
	}
	for range seeds {
		w := <-worlds
		if w.err != nil {
			tell(t, w.seed)
		}
		events += w.events
		for name, times := range w.happened {
			happened[name] += times
		}
	}
	t.Logf("%d seeds, %d events, %.1f s\n%v", seeds, events, time.Since(start).Seconds(), happened)
	for _, name := range append(strings.Split(allFaults, ", "), strings.Fields(ruleTags)...) {
		if happened[name] == 0 && seeds >= 1000 && !strings.HasPrefix(name, "DK") { // the host's
			t.Errorf("%s never happened", name)
		}
	}
}

// TestSimulatorRepeats is about the simulator: a seed decides everything, with messages through
// JSON or without. (If one in flight shared memory with a log, that would differ.)
func TestSimulatorRepeats(t *testing.T) {
	for seed := 1; seed <= 10; seed++ {
		var stories [2]string
		for i := range stories {
			w := newWorld(seed)
			w.watch, w.json = 2, i == 1
			err := w.simulate()
			stories[i] = fmt.Sprint(err, w)
		}
		same(t, fmt.Sprintf("seed %d", seed), stories[1], stories[0])
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

// say tells what happens in the world.
func (w *world) say(format string, args ...any) {
	if w.watch > 0 {
		w.rows(fmt.Sprintf("         ** "+format, args...))
	}
}

// rows adds to the story and keeps the last rows.
func (w *world) rows(texts ...string) {
	for _, text := range texts {
		w.story = append(w.story, fmt.Sprintf("%8.2f %.110s", float64(w.now)/float64(oneTick), text))
	}
	w.story = w.story[max(0, len(w.story)-60):]
}

// String is what is told of a world.
func (w *world) String() string {
	kinds := slices.Compact(slices.Clone(w.kinds))
	return fmt.Sprintf("seed %d: %d servers, %d clients, %d events\nfaults: %.110s\nat last: %+v\n%s%s\n",
		w.seed, len(w.members), len(w.clients), w.events, strings.Join(kinds, ", "), w.weather,
		legend, strings.Join(w.story, "\n"))
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
Persist | vote %d", term, votedFor) | vote %d", term, none) | Persist/the disk is
Persist | s.out.Send = append(s.out.Send | s.out.Early = append(s.out.Early | Persist/
Fol2 | if granted && s.votedFor == none { | if granted { | terms never fall, and there is one
RV1 | if term < s.currentTerm { // [RV1] | if false { | terms never fall, and there is one
RV2 | s.votedFor == none || s.votedFor == rv.CandidateID | true | Persist/yes needs a vote for S2 on
RV2 | s.upToDate(rv.LastLogIndex, rv.LastLogTerm) | true | RV2/… unless its log is too old
RV2 | lastLogIndex >= s.lastIndex() | lastLogIndex > s.lastIndex() | RV1/an equal term is not older
AppendEntriesReceiver/AE3 | s.matches(index, e.Term) | (e == nil) | AE3/what is equal before
Persist | " "+e.String() | " 1" | Persist/the disk is equal to the
AE1 | if term < s.currentTerm { // [AE1] | if false { | AE1/an older term, even where it
AE2 | !s.matches(prev, ae.PrevLogTerm) | prev > s.lastIndex() | AE2/its term is off by one
AE3 | s.matches(index, e.Term) | (e != nil && index <= s.lastIndex()) | AE2/… also if
AE4 | s.store(index, ae.Entries[i:]...) | s.store(index, ae.Entries[i]) | Persist/ok(4), but the
AE5 | min(ae.LeaderCommit, lastNew) | min(ae.LeaderCommit, s.lastIndex()) | AE5/the last new entry,
Perform/Persist | h.send(out.Early) | h.send(append(out.Early, out.Send...)) | in order
Apply/All1 | s.lastApplied < s.commitIndex | s.lastApplied < s.lastIndex() | All1/up to commit
AllServersTerm/All2 | if m.Term > s.currentTerm { | if false { | All2/
ElectionTimer/Fol2 | || s.now < s.electionDue | || s.now <= s.electionDue | Fol2/a leader steps down
Candidate/Cand1 | map[int]bool{s.id: true} | map[int]bool{} | Cand2/2 of 3
Cand2 | (len(s.peers)+1)/2 + 1 | (len(s.peers) + 2) / 2 | Cand2/2 of 4 are no majority
Cand2 | s.votes[from] || r.VoteGranted | true | Cand2/refusals are no votes
Cand3 | s.tell(1, rule, | s.role = candidate; s.tell(1, rule, | Cand3/AppendEntries of this term
Cand4 | s.role == leader || s.now | s.role != follower || s.now | Cand4/the next election
Heartbeat/Lead1 | s.now < w.heartbeatDue && !s.roundDue | !s.roundDue | Lead1/when idle
Unanswered/D6 | w.unansweredSeq && !old | w.unansweredSeq && old | Lead3/unanswered: a later
Lead3 | s.lastIndex() > prev && w.unansweredSeq == 0 | s.lastIndex() > prev | Lead3/a command
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
Files/DK1 | whole && theirs != members | whole && theirs == "" | DK1 other members
DK1 | %d of %s", id, list(members) | %d of %s", id, list(members[:1]) | DK1 the header alone
DK3 | !bytes.HasPrefix(appendLine( | false && !bytes.HasPrefix(appendLine( | DK1 another server
TornTail/DK3 | ): // [DK4] | ) || true: // [DK4] | cut at byte 37, "" behind
FlippedBit/DK4 | ): // [DK4] | ) && false: // [DK4] | byte 37 of line 2, bit 0: not
FailStop/DK5 | return cmp.Or(err, d.file.Sync()) | return err | /dev/null: one line
LostFile/DK6 | !os.SameFile(named, ours) | ours == nil | mv of a copy
DK6 | named.Size() != d.size | false | a byte less
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
	assertion := regexp.MustCompile(`(?m)_test\.go:\d+: (\D.*)$|^panic: (.*?)(?: \[recovered.*)?$`)
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
	f.mustAnswer("@1 set x 3", "S1: unknown: no answer in time; is it running? A write may still happen\n")
	f.mustEnd(first, "somebody else replaced")
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
		"S3: ok\nS1: error: not the leader, which is S3\n")
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
	answers := (&console{addresses: addresses, conn: own}).runAt([]int{1}, "heal")
	if !strings.HasPrefix(answers[1].Error, "only its own machine commands S1") {
		f.Errorf("got %v", answers)
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
S1: error: not the leader, which is none
S1: ok
S1: ok
S1: ok
S1: S1 leader t1, *timer 30*
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
		{"-client", "set e error: unknown: no answer\ncas e a b",
			"ok\nerror: e is \"error: unknown: no answer\", not \"a\"; nothing changed", 1},
		{"-client", "bogus\nincr n", "error: no such command \"bogus\"; help lists them\n1", 1},
		{"-client", "kill 1", "error: kill and start need the terminal of a cluster*", 1},
	} {
		args := append([]string{"-peers", f.peers}, strings.Split(row.args, "|")...)
		f.mustRun(row.script, row.want+"\n", "", row.code, args...)
	}
	f.mustRun("", "", "error: *-tick*unit*-tick 10ms\n", 2, "-tick", "10")
	f.freePeers(1) // where nobody runs, the outcome is unknown, and that is not success
	f.mustRun("set x 1 ; status", `unknown: no answer in time; is it running? A write may still happen
S1: unknown: no answer in time; is it running? A write may still happen
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
