// The tests of raft.go, to be read after it: what each rule does at its edges, what the
// paper's figures look like when they happen, and why one may trust the rest.
//
//	go test ./...                                   all of it, in less than a minute
//	go test -v -run 'Receiver|Figure'               the rules, one row an edge
//	go test -run TestSimulator -seed 4711           one simulated life, as a story
//	go test -run TestBreakIt -breakit -timeout 60m  take each rule away; something notices
//	go test -run - -bench . -benchtime 3s           how fast
//
// Parts: the rules (tables named by their tags, Figures 7 and 8, sessions, reads, commands,
// disk, wire, fuzz targets, the map) · the simulator · break it · real processes · NOTES.md.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"hash/maphash"
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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
)

// =============================================================================
// THE RULES, ONE BY ONE
// =============================================================================

// ---- Rules 1. Builders ---------------------------------------------------------
//
// A row of a table is a server, an input, and what must come of it. Beside each row in
// which a rule decides stands a neighbour in which it just does not. The server is S1,
// the others are S2, S3, …; a log is written by the terms of its entries. Messages are
// compared as text:
//
//	RV(3,2)           RequestVote: the candidate's last entry is 3, of term 2
//	yes, no           its answer
//	AE(3,2,[4 4],1)   AppendEntries: entries of terms 4 4 behind entry 3 of term 2,
//	                  leaderCommit 1
//	ok(5)             its answer: everything up to 5 is stored
//	no(3;2@1)         refused by [AE2]: entry 3 does not match; ours has term 2 there,
//	                  which begins at 1. Refused by [AE1] it is a bare no()

// terms is a log: terms{1, 1, 2} are two entries of term 1 and one of term 2.
type terms = []int

func entriesOf(log terms) []entry {
	entries := make([]entry, 0, len(log))
	for _, term := range log {
		entries = append(entries, entry{Term: term})
	}
	return entries
}

func termsOf(entries []entry) terms {
	log := terms{}
	for _, e := range entries {
		log = append(log, e.Term)
	}
	return log
}

func othersOf(id, n int) (others []int) {
	for other := 1; other <= n; other++ {
		if other != id {
			others = append(others, other)
		}
	}
	return others
}

// followerOf makes S1 of n, a follower with this hard state and log.
func followerOf(n int, hard hardState, log ...int) *server {
	return newServer(1, othersOf(1, n), hard, entriesOf(log), rand.New(rand.NewPCG(1, 2)))
}

// candidateOf makes S1 of n the candidate of a term: its timer ran out in the term before.
func candidateOf(n, term int, log ...int) *server {
	s := followerOf(n, hardState{term - 1, none}, log...)
	fireTimer(s)
	return s
}

// leaderOf makes S1 of n the leader of a term, by everybody's vote. Its log ends with the
// empty entry of that term (D3), which is on its way to the others.
func leaderOf(n, term int, log ...int) *server {
	s := candidateOf(n, term, log...)
	for _, p := range s.peers {
		s.Step(voteReply(p, term, true))
	}
	return s
}

// settledLeaderOf is a leader whose whole log everybody stores: all is committed, and
// nothing is on its way.
func settledLeaderOf(n, term int, log ...int) *server {
	s := leaderOf(n, term, log...)
	for _, p := range s.peers {
		s.Step(stored(s, p, s.lastIndex()))
	}
	return s
}

// fireTimer lets the election timeout of s end now.
func fireTimer(s *server) Output {
	s.now = s.electionDue - 1
	return s.Step(tick{})
}

func tickTimes(s *server, n int) Output {
	return s.Step(slices.Repeat([]input{tick{}}, n)...)
}

// askVote is a RequestVote of S2, sendAE an AppendEntries of leader S2.
func askVote(term, lastIndex, lastTerm int) *Message {
	return &Message{From: 2, To: 1, Term: term, RequestVote: &requestVote{2, lastIndex, lastTerm}}
}

func sendAE(term, prevIndex, prevTerm int, log terms, commit int) *Message {
	return &Message{From: 2, To: 1, Term: term, AppendEntries: &appendEntries{LeaderID: 2, PrevLogIndex: prevIndex,
		PrevLogTerm: prevTerm, Entries: entriesOf(log), LeaderCommit: commit, Seq: 7}}
}

func voteReply(from, term int, granted bool) *Message {
	return &Message{From: from, To: 1, Term: term, RequestVoteReply: &requestVoteReply{granted}}
}

func answerAE(from, term int, r appendEntriesReply) *Message {
	return &Message{From: from, To: 1, Term: term, AppendEntriesReply: &r}
}

// stored is p's word, in answer to the newest AppendEntries of s, that it has all up to index.
func stored(s *server, p, index int) *Message {
	return answerAE(p, s.currentTerm, appendEntriesReply{Success: true, MatchIndex: index, Seq: s.seq})
}

// show is a message as the tables write it.
func show(m Message) string {
	switch {
	case m.RequestVote != nil:
		return fmt.Sprintf("RV(%d,%d)", m.RequestVote.LastLogIndex, m.RequestVote.LastLogTerm)
	case m.RequestVoteReply != nil && m.RequestVoteReply.VoteGranted:
		return "yes"
	case m.RequestVoteReply != nil:
		return "no"
	case m.AppendEntries != nil:
		ae := m.AppendEntries
		return fmt.Sprintf("AE(%d,%d,%v,%d)", ae.PrevLogIndex, ae.PrevLogTerm, termsOf(ae.Entries), ae.LeaderCommit)
	case m.AppendEntriesReply.Success:
		return fmt.Sprintf("ok(%d)", m.AppendEntriesReply.MatchIndex)
	case m.AppendEntriesReply.PrevLogIndex == 0:
		return "no()"
	}
	r := m.AppendEntriesReply
	return fmt.Sprintf("no(%d;%d@%d)", r.PrevLogIndex, r.ConflictTerm, r.ConflictIndex)
}

// sent lists the messages of out: "S2 RV(3,2), S3 RV(3,2)".
func sent(out Output) string {
	var all []string
	for _, m := range append(slices.Clone(out.Early), out.Send...) {
		all = append(all, fmt.Sprintf("S%d %s", m.To, show(m)))
	}
	return strings.Join(all, ", ")
}

// told lists the answers to clients: "c/1 ok, d/2 error: not the leader (S2)".
func told(out Output) string {
	var all []string
	for _, r := range out.Reply {
		text := fmt.Sprintf("%s/%d %s", r.client, r.serial, r.result)
		if r.err != "" {
			text = fmt.Sprintf("%s/%d error: %s", r.client, r.serial, r.err)
		}
		if r.leader != none {
			text += fmt.Sprintf(" (S%d)", r.leader)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// clientAt is where the tables' clients wait.
var clientAt = netip.MustParseAddrPort("127.0.0.1:5001")

func asks(client string, serial int, command string) *request {
	return &request{Client: client, Serial: serial, Command: command, to: clientAt}
}

// words prints values with a blank between any two; what prints as nothing is left out.
func words(values ...any) string {
	var all []string
	for _, v := range values {
		if text := fmt.Sprint(v); text != "" {
			all = append(all, text)
		}
	}
	return strings.Join(all, " ")
}

// expect fails the test unless got and want print the same.
func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// logOf is all of a server's log, from index 1 on.
func logOf(s *server) (log []entry) {
	for index := 1; index <= s.lastIndex(); index++ {
		log = append(log, *s.log.at(index))
	}
	return log
}

// stepSafely is Step, with an eye on [Persist]: the records of the Output make the disk
// equal to the memory, and nothing in Send promises more than that disk holds.
func stepSafely(t *testing.T, s *server, inputs ...input) Output {
	t.Helper()
	hard, log := hardState{s.currentTerm, s.votedFor}, logOf(s)
	out := s.Step(inputs...)
	for _, r := range out.Persist {
		if r.hard != nil {
			hard = *r.hard
		} else {
			log = append(log[:r.index-1:r.index-1], r.entry)
		}
	}
	expect(t, "[Persist] the disk against the memory", words(hard, log), words(hardState{s.currentTerm, s.votedFor}, logOf(s)))
	for _, m := range out.Early { // D7 is for requests of a leader; whatever else is early is too early
		if m.AppendEntries == nil {
			t.Errorf("[Persist] %s leaves before the records", show(m))
		}
	}
	for _, m := range out.Send {
		vote := hardState{m.Term, m.From}
		switch {
		case m.Term > hard.Term:
			t.Errorf("[Persist] %s speaks of term %d, the disk of %d", show(m), m.Term, hard.Term)
		case m.AppendEntries != nil:
			t.Errorf("[Persist] %s waits for the records without need (D7)", show(m))
		case m.RequestVoteReply != nil && m.RequestVoteReply.VoteGranted:
			vote.VotedFor = m.To
			fallthrough
		case m.RequestVote != nil:
			if m.Term == hard.Term && hard != vote {
				t.Errorf("[Persist] %s needs %v on the disk, there is %v", show(m), vote, hard)
			}
		case m.AppendEntriesReply != nil && m.AppendEntriesReply.Success:
			if m.Term == hard.Term && m.AppendEntriesReply.MatchIndex > len(log) {
				t.Errorf("[Persist] %s, but the disk ends at %d", show(m), len(log))
			}
		}
	}
	return out
}

// records lists what goes to the disk: "t3 v2" is hard state, "#4t3" an entry.
func records(out Output) string {
	var all []string
	for _, r := range out.Persist {
		if r.hard != nil {
			all = append(all, fmt.Sprintf("t%d v%d", r.hard.Term, r.hard.VotedFor))
		} else {
			all = append(all, fmt.Sprintf("#%dt%d", r.index, r.entry.Term))
		}
	}
	return strings.Join(all, ", ")
}

// ---- Rules 2. The boxes of Figure 2 ------------------------------------------------
//
// First the two receivers, because they are pure tables; then the rules for all servers,
// followers, candidates and leaders.

// TestRequestVoteReceiver: S2 asks S1 of three for its vote.
func TestRequestVoteReceiver(t *testing.T) {
	for _, row := range []struct {
		name   string
		before hardState // term, vote
		log    terms
		asked  *Message // term, last index, last term
		answer string
		after  hardState
	}{
		{"RV1 an older term is refused, however good the log", hardState{3, none}, terms{1}, askVote(2, 9, 2), "no", hardState{3, none}},
		{"RV1 … even from the one who has the vote", hardState{3, 2}, terms{1}, askVote(2, 9, 2), "no", hardState{3, 2}},
		{"RV1 an equal term is not older", hardState{3, none}, terms{1}, askVote(3, 1, 1), "yes", hardState{3, 2}},

		{"RV2 the first who asks gets the vote", hardState{3, none}, terms{}, askVote(3, 0, 0), "yes", hardState{3, 2}},
		{"RV2 the second does not", hardState{3, 3}, terms{}, askVote(3, 0, 0), "no", hardState{3, 3}},
		{"RV2 … not even with a better log", hardState{3, 3}, terms{1}, askVote(3, 5, 2), "no", hardState{3, 3}},
		// The answer may have been lost; a second yes is the same vote.
		{"RV2 the same candidate is granted again", hardState{3, 2}, terms{}, askVote(3, 0, 0), "yes", hardState{3, 2}},
		{"RV2 a vote binds in its own term only", hardState{3, 3}, terms{}, askVote(4, 0, 0), "yes", hardState{4, 2}},

		// §5.4.1: the last terms decide, and only if they are equal the lengths do.
		{"RV2 an equal log will do", hardState{3, none}, terms{1, 1, 2}, askVote(3, 3, 2), "yes", hardState{3, 2}},
		{"RV2 one entry short will not", hardState{3, none}, terms{1, 1, 2}, askVote(3, 2, 2), "no", hardState{3, none}},
		{"RV2 one entry more will do", hardState{3, none}, terms{1, 1, 2}, askVote(3, 4, 2), "yes", hardState{3, 2}},
		{"RV2 longer, but of an older term, will not", hardState{3, none}, terms{1, 1, 2}, askVote(3, 9, 1), "no", hardState{3, none}},
		{"RV2 shorter, but of a newer term, will do", hardState{3, none}, terms{1, 1, 1}, askVote(3, 1, 2), "yes", hardState{3, 2}},
		{"RV2 an empty log against one entry", hardState{3, none}, terms{1}, askVote(3, 0, 0), "no", hardState{3, none}},
		{"RV2 one entry against an empty log", hardState{3, none}, terms{}, askVote(3, 1, 1), "yes", hardState{3, 2}},

		// The term is adopted before anything is decided, so a refusal moves it too.
		{"All2 a newer term is adopted with the vote", hardState{3, 1}, terms{1}, askVote(5, 1, 1), "yes", hardState{5, 2}},
		{"All2 … and without", hardState{3, 2}, terms{1}, askVote(5, 0, 0), "no", hardState{5, none}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := followerOf(3, row.before, row.log...)
			out := stepSafely(t, s, row.asked)
			expect(t, "answer", sent(out), "S2 "+row.answer)
			expect(t, "term and vote", hardState{s.currentTerm, s.votedFor}, row.after)
			expect(t, "the answer's term", out.Send[0].Term, row.after.Term)
			expect(t, "log", termsOf(logOf(s)), row.log)
		})
	}
}

// TestAppendEntriesReceiver: S2, leader of a term, sends to S1, which is in term 4.
func TestAppendEntriesReceiver(t *testing.T) {
	for _, row := range []struct {
		name   string
		log    terms
		commit int
		sent   *Message // term, prev index, prev term, entries, leaderCommit
		answer string
		after  terms
		now    int    // commitIndex
		disk   string // records
	}{
		{"AE1 an older term is refused, even where it would match", terms{1}, 0, sendAE(3, 1, 1, terms{3}, 1), "no()", terms{1}, 0, ""},
		{"AE1 an equal term is not older", terms{1}, 0, sendAE(4, 1, 1, terms{3}, 1), "ok(2)", terms{1, 3}, 1, "#2t3"},

		{"AE2 the entry before is missing", terms{1}, 0, sendAE(4, 2, 1, terms{4}, 0), "no(2;0@2)", terms{1}, 0, ""},
		{"AE2 … by far", terms{1}, 0, sendAE(4, 9, 3, terms{4}, 0), "no(9;0@2)", terms{1}, 0, ""},
		{"AE2 the entry before is the last one", terms{1, 1}, 0, sendAE(4, 2, 1, terms{4}, 0), "ok(3)", terms{1, 1, 4}, 0, "#3t4"},
		{"AE2 its term is off by one", terms{1, 2, 2}, 0, sendAE(4, 3, 3, terms{4}, 0), "no(3;2@2)", terms{1, 2, 2}, 0, ""},
		{"AE2 … in the other direction", terms{1, 2, 2}, 0, sendAE(4, 3, 1, terms{4}, 0), "no(3;2@2)", terms{1, 2, 2}, 0, ""},
		// A refusal cuts nothing: the entry that differs may be right, and goes when AE3 says so.
		{"AE2 a heartbeat is checked too", terms{1, 1}, 0, sendAE(4, 2, 2, nil, 2), "no(2;1@1)", terms{1, 1}, 0, ""},
		{"AE2 nothing comes before the first entry", terms{}, 0, sendAE(4, 0, 0, terms{4}, 0), "ok(1)", terms{4}, 0, "#1t4"},
		{"AE2 … also if the first entry differs", terms{1, 1}, 0, sendAE(4, 0, 0, terms{4}, 0), "ok(1)", terms{4}, 0, "#1t4"},

		{"AE3 a conflict takes all that follow it", terms{1, 1, 1, 2, 2}, 3, sendAE(4, 3, 1, terms{3}, 0), "ok(4)", terms{1, 1, 1, 3}, 3, "#4t3"},
		{"AE3 what is equal before a conflict stays", terms{1, 1, 2}, 0, sendAE(4, 0, 0, terms{1, 1, 3, 3}, 0), "ok(4)", terms{1, 1, 3, 3}, 0, "#3t3, #4t3"},
		{"AE3 no conflict, no cut: a late, shorter AppendEntries", terms{1, 1, 1}, 0, sendAE(4, 0, 0, terms{1}, 0), "ok(1)", terms{1, 1, 1}, 0, ""},
		{"AE3 … or a late heartbeat", terms{1, 1, 1}, 0, sendAE(4, 1, 1, nil, 0), "ok(1)", terms{1, 1, 1}, 0, ""},

		{"AE4 a duplicate appends nothing", terms{1, 4}, 0, sendAE(4, 1, 1, terms{4}, 0), "ok(2)", terms{1, 4}, 0, ""},
		{"AE4 of overlapping entries only the rest is new", terms{1, 4}, 0, sendAE(4, 0, 0, terms{1, 4, 4}, 0), "ok(3)", terms{1, 4, 4}, 0, "#3t4"},
		{"AE4 all of them into an empty log", terms{}, 0, sendAE(4, 0, 0, terms{1, 2, 4}, 0), "ok(3)", terms{1, 2, 4}, 0, "#1t1, #2t2, #3t4"},

		{"AE5 leaderCommit below the last new entry", terms{1}, 0, sendAE(4, 1, 1, terms{4, 4}, 2), "ok(3)", terms{1, 4, 4}, 2, "#2t4, #3t4"},
		{"AE5 leaderCommit beyond the last new entry", terms{1}, 0, sendAE(4, 1, 1, terms{4}, 9), "ok(2)", terms{1, 4}, 2, "#2t4"},
		// Entry 2 here was never compared with the leader's: it may be another one.
		{"AE5 the last new entry, not the end of our log", terms{1, 1}, 0, sendAE(4, 1, 1, nil, 2), "ok(1)", terms{1, 1}, 1, ""},
		{"AE5 a heartbeat at the end of the log commits", terms{1, 4}, 0, sendAE(4, 2, 4, nil, 2), "ok(2)", terms{1, 4}, 2, ""},
		// Datagrams overtake each other; the State box says that commitIndex only grows.
		{"AE5 never falls: an older leaderCommit", terms{1, 4}, 2, sendAE(4, 2, 4, nil, 1), "ok(2)", terms{1, 4}, 2, ""},
		{"AE5 never falls: an earlier last new entry", terms{1, 4}, 2, sendAE(4, 1, 1, nil, 2), "ok(1)", terms{1, 4}, 2, ""},
		{"AE5 a refusal commits nothing", terms{1, 1}, 0, sendAE(4, 2, 4, nil, 2), "no(2;1@1)", terms{1, 1}, 0, ""},

		// D5: a refusal names the conflicting term and where it begins.
		{"D5 the term at the place", terms{1, 2, 2, 2, 3}, 0, sendAE(4, 4, 4, nil, 0), "no(4;2@2)", terms{1, 2, 2, 2, 3}, 0, ""},
		{"D5 a term of one entry", terms{1, 2, 3, 3}, 0, sendAE(4, 2, 4, nil, 0), "no(2;2@2)", terms{1, 2, 3, 3}, 0, ""},
		{"D5 one behind our last entry", terms{1, 2, 2}, 0, sendAE(4, 4, 2, nil, 0), "no(4;0@4)", terms{1, 2, 2}, 0, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := followerOf(3, hardState{4, none}, row.log...)
			s.commitIndex = row.commit
			out := stepSafely(t, s, row.sent)
			expect(t, "answer", sent(out), "S2 "+row.answer)
			expect(t, "the answer's term", out.Send[0].Term, 4)
			expect(t, "the answer's number", out.Send[0].AppendEntriesReply.Seq, row.sent.AppendEntries.Seq)
			expect(t, "log", termsOf(logOf(s)), row.after)
			expect(t, "commitIndex", s.commitIndex, row.now)
			expect(t, "records", records(out), row.disk)
		})
	}
}

// TestMessagesOwnTheirEntries: a message on its way shares memory with the log. A later cut
// must not rewrite it.
func TestMessagesOwnTheirEntries(t *testing.T) {
	s := settledLeaderOf(3, 2)
	out := s.Step(asks("c", 1, "set x old"))
	flying := out.Early[0].AppendEntries
	s.Step(sendAE(3, 1, 2, terms{3}, 0)) // [AE3] cuts what flies
	s.Step(sendAE(3, 2, 3, terms{3}, 0))
	expect(t, "the entry in the air", flying.Entries[0].Command, "set x old")
	expect(t, "the log", termsOf(logOf(s)), terms{2, 3, 3})
}

// TestPersist: what goes to the disk, in which order, together with which answer.
func TestPersist(t *testing.T) {
	for _, row := range []struct {
		name    string
		server  *server
		inputs  []input
		records string
		sent    string
	}{
		{"a vote", followerOf(3, hardState{3, none}), []input{askVote(3, 0, 0)}, "t3 v2", "S2 yes"},
		{"a new term, then the vote in it", followerOf(3, hardState{3, 1}), []input{askVote(4, 0, 0)}, "t4 v0, t4 v2", "S2 yes"},
		{"a new term alone", followerOf(3, hardState{3, 1}, 1), []input{askVote(4, 0, 0)}, "t4 v0", "S2 no"},
		{"nothing new: the same vote again", followerOf(3, hardState{3, 2}), []input{askVote(3, 0, 0)}, "", "S2 yes"},
		{"nothing new: an older term", followerOf(3, hardState{3, none}), []input{askVote(2, 0, 0)}, "", "S2 no"},
		{"a candidacy: term and vote are one record", followerOf(3, hardState{3, 2}), slices.Repeat([]input{tick{}}, 30), "t4 v1", "S2 RV(0,0), S3 RV(0,0)"},
		{"entries", followerOf(3, hardState{3, none}, 1), []input{sendAE(3, 1, 1, terms{2, 3}, 0)}, "#2t2, #3t3", "S2 ok(3)"},
		{"a cut needs no record of its own", followerOf(3, hardState{3, none}, 1, 1, 1), []input{sendAE(3, 1, 1, terms{3}, 0)}, "#2t3", "S2 ok(2)"},
		{"a term, then the entries of it", followerOf(3, hardState{2, none}, 1), []input{sendAE(3, 1, 1, terms{3}, 0)}, "t3 v0, #2t3", "S2 ok(2)"},
		{"a leader's first entry leaves before it is on its own disk (D7)", candidateOf(3, 2, 1), []input{voteReply(2, 2, true)},
			"#2t2", "S2 AE(1,1,[2],0), S3 AE(1,1,[2],0)"},
		{"many inputs share one output", followerOf(3, hardState{3, none}), []input{sendAE(3, 0, 0, terms{3}, 0), askVote(4, 1, 3)},
			"#1t3, t4 v0, t4 v2", "S2 ok(1), S2 yes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			out := stepSafely(t, row.server, row.inputs...)
			expect(t, "records", records(out), row.records)
			expect(t, "messages", sent(out), row.sent)
		})
	}
}

// TestAllServersTerm is [All2] and [Fol1]: every message to every role, of the term before,
// of this one, and of the next. The rows tell only what is of this term.
func TestAllServersTerm(t *testing.T) {
	kinds := []struct {
		name                        string
		message                     func(term int) *Message
		follower, candidate, leader role // afterwards, if the term is equal
		answers                     int
	}{
		{"RequestVote", func(term int) *Message { return askVote(term, 9, term-1) }, follower, candidate, leader, 1},
		{"its answer yes", func(term int) *Message { return voteReply(2, term, true) }, follower, leader, leader, 0}, // [Cand2]
		{"its answer no", func(term int) *Message { return voteReply(2, term, false) }, follower, candidate, leader, 0},
		// [Cand3]: a candidate yields. (A leader never meets another of its term.)
		{"AppendEntries", func(term int) *Message { return sendAE(term, 0, 0, nil, 0) }, follower, follower, -1, 1},
		{"its answer ok", func(term int) *Message { return answerAE(2, term, appendEntriesReply{Success: true}) }, follower, candidate, leader, 0},
		{"its answer no", func(term int) *Message { return answerAE(2, term, appendEntriesReply{}) }, follower, candidate, leader, 0},
	}
	servers := []func() *server{
		func() *server { return followerOf(3, hardState{5, 3}, 1) },
		func() *server { return candidateOf(3, 5, 1) },
		func() *server { return leaderOf(3, 5, 1) },
	}
	for _, kind := range kinds {
		for before, build := range servers {
			for _, term := range []int{4, 5, 6} {
				s := build()
				want, wantVote := role(before), s.votedFor
				switch {
				case term == 6: // [All2] Whatever the message says, and before it is looked at.
					want, wantVote = follower, none
					if kind.name == "RequestVote" {
						wantVote = 2
					}
				case term == 5:
					want = []role{kind.follower, kind.candidate, kind.leader}[before]
				}
				if want == -1 {
					continue
				}
				name := fmt.Sprintf("%v in term 5, %s of term %d", role(before), kind.name, term)
				out := stepSafely(t, s, kind.message(term))
				expect(t, name+": role and vote", words(s.role, s.votedFor), words(want, wantVote))
				expect(t, name+": term", s.currentTerm, max(5, term))
				expect(t, name+": answers", len(out.Send), kind.answers)
				for _, m := range out.Send {
					expect(t, name+": the answer's way and term", words(m.From, m.To, m.Term), words(1, 2, max(5, term)))
				}
			}
		}
	}
}

// TestApply is [All1]: entries are applied once they are committed, in order, one by one.
func TestApply(t *testing.T) {
	command := func(serial int, text string) entry { return entry{4, "c", serial, text} }
	ae := sendAE(4, 0, 0, nil, 2)
	ae.AppendEntries.Entries = []entry{command(1, "set x a"), command(2, "set x b"), command(3, "set x c")}
	s := followerOf(3, hardState{4, none})
	out := s.Step(ae)
	expect(t, "All1 up to commitIndex and no further", words(s.lastApplied, s.machine.get("x")), words(2, "b"))
	expect(t, "All1 a follower tells no client", told(out), "")
	s.Step(sendAE(4, 3, 4, nil, 3))
	expect(t, "All1 the next one", words(s.lastApplied, s.machine.get("x")), words(3, "c"))
	s.Step(ae)
	expect(t, "All1 a duplicate message applies nothing again", words(s.lastApplied, s.machine.get("x")), words(3, "c"))

	// A restart forgets what is committed, and with it the state: the log alone is no proof.
	again := newServer(1, []int{2, 3}, hardState{4, none}, logOf(s), rand.New(rand.NewPCG(1, 1)))
	again.Step()
	expect(t, "All1 nothing is committed after a restart", words(again.lastApplied, again.machine.get("x")), words(0, "(none)"))

	// A long way to catch up is gone in pieces, so that the server still answers in between.
	long := followerOf(3, hardState{4, none}, slices.Repeat(terms{4}, maxApply+1)...)
	long.Step(sendAE(4, maxApply+1, 4, nil, maxApply+1))
	expect(t, "All1 maxApply in one Step", words(long.lastApplied, long.behind()), words(maxApply, true))
	long.Step()
	expect(t, "All1 the rest in the next", words(long.lastApplied, long.behind()), words(maxApply+1, false))
}

// TestElectionTimer is [Fol2]: which events restart the timer. Too few, and a living leader is
// deposed; too many, and a server that cannot win keeps others from trying.
func TestElectionTimer(t *testing.T) {
	inTerm4 := func() *server { return followerOf(3, hardState{4, none}, 1, 1) }
	votedForS3 := func() *server { return followerOf(3, hardState{4, 3}, 1, 1) }
	for _, row := range []struct {
		name     string
		server   *server
		input    input
		restarts bool
	}{
		{"AppendEntries of the current leader", inTerm4(), sendAE(4, 2, 1, nil, 0), true},
		{"… also if [AE2] refuses it: the leader lives", inTerm4(), sendAE(4, 9, 4, nil, 0), true},
		{"… not of a former leader", inTerm4(), sendAE(3, 2, 1, nil, 0), false},
		{"… of a new one", inTerm4(), sendAE(5, 2, 1, nil, 0), true},
		{"a vote granted", inTerm4(), askVote(4, 2, 1), true},
		{"… not granted again: who asks so often may be deaf", followerOf(3, hardState{4, 2}), askVote(4, 0, 0), false},
		{"… not refused, for the log", inTerm4(), askVote(4, 1, 1), false},
		{"… not refused, for another's vote", votedForS3(), askVote(4, 2, 1), false},
		{"… not refused, for an old term", inTerm4(), askVote(3, 2, 1), false},
		{"a higher term is no word from a leader", inTerm4(), askVote(5, 1, 1), false},
		{"… nor in an answer", candidateOf(3, 4, 1), voteReply(2, 5, false), false},
		{"a candidate yields to the leader", candidateOf(3, 4, 1), sendAE(4, 1, 1, nil, 0), true},
		{"a candidate gets a vote", candidateOf(5, 4, 1), voteReply(2, 4, true), false},
		{"a client", inTerm4(), asks("c", 1, "set x 1"), false},
		{"time", inTerm4(), tick{}, false},
		{"a leader steps down: it had none running", leaderOf(3, 4, 1), askVote(5, 0, 0), true},
	} {
		s := row.server
		s.electionDue = s.now + electionTicksMin - 1 // where no new timer ends
		before := s.electionDue
		s.Step(row.input)
		expect(t, "Fol2 "+row.name+": restarts", s.electionDue != before, row.restarts)
	}

	s := followerOf(3, hardState{4, none})
	seen := map[int]bool{}
	for range 1000 {
		s.resetElectionTimer()
		seen[s.electionDue-s.now] = true
	}
	var want []int
	for n := electionTicksMin; n <= electionTicksMax; n++ {
		want = append(want, n)
	}
	expect(t, "Fol2 timeouts are drawn from the whole range", slices.Sorted(maps.Keys(seen)), want)

	early := followerOf(3, hardState{4, none})
	out := tickTimes(early, early.electionDue-1)
	expect(t, "Fol2 one tick early", words(early.role, sent(out)), words(follower, ""))
	out = early.Step(sendAE(4, 0, 0, nil, 0), tick{}) // the shell puts a tick behind what arrived before it
	expect(t, "Fol2 the heartbeat that came before the tick counts", words(early.role, sent(out)), words(follower, "S2 ok(0)"))

	l := settledLeaderOf(3, 4)
	for range 100 { // nobody answers, nobody else has a higher term
		l.Step(tick{})
	}
	expect(t, "Fol2 a leader has no election timeout", words(l.role, l.currentTerm), words(leader, 4))
}

// TestCandidate is the box for candidates.
func TestCandidate(t *testing.T) {
	for _, row := range []struct {
		name   string
		n      int // servers
		inputs []input
		role   role
		term   int
	}{
		// S1 is a candidate of term 5.
		{"Cand2 2 of 3", 3, []input{voteReply(2, 5, true)}, leader, 5},
		{"Cand2 2 of 5 are no majority", 5, []input{voteReply(2, 5, true)}, candidate, 5},
		{"Cand2 3 of 5", 5, []input{voteReply(2, 5, true), voteReply(4, 5, true)}, leader, 5},
		{"Cand2 2 of 4 are no majority", 4, []input{voteReply(2, 5, true)}, candidate, 5},
		// A datagram may arrive twice (D2).
		{"Cand2 one voter twice is one vote", 5, []input{voteReply(2, 5, true), voteReply(2, 5, true)}, candidate, 5},
		{"Cand2 a refusal is no vote", 3, []input{voteReply(2, 5, false), voteReply(3, 5, false)}, candidate, 5},
		{"Cand2 a vote of an earlier election", 3, []input{voteReply(2, 4, true)}, candidate, 5},
		{"Cand2 a refusal does not take a vote back", 5, []input{voteReply(2, 5, true), voteReply(2, 5, false), voteReply(3, 5, true)}, leader, 5},

		{"Cand3 AppendEntries of this term", 3, []input{sendAE(5, 0, 0, nil, 0)}, follower, 5},
		{"Cand3 … also one that is refused", 3, []input{sendAE(5, 9, 4, nil, 0)}, follower, 5},
		{"Cand3 … not of an older term", 3, []input{sendAE(4, 0, 0, nil, 0)}, candidate, 5},
		{"Cand3 votes that come too late", 3, []input{sendAE(5, 0, 0, nil, 0), voteReply(3, 5, true)}, follower, 5},
	} {
		s := candidateOf(row.n, 5)
		for _, in := range row.inputs {
			stepSafely(t, s, in)
		}
		expect(t, row.name, words(s.role, s.currentTerm), words(row.role, row.term))
	}

	s := followerOf(4, hardState{4, 3}, 1, 2)
	s.Step(sendAE(4, 2, 2, nil, 0))
	out := fireTimer(s)
	expect(t, "Cand1 new term, own vote", words(s.role, s.currentTerm, s.votedFor), words(candidate, 5, 1))
	expect(t, "Cand1 everybody is asked", sent(out), "S2 RV(2,2), S3 RV(2,2), S4 RV(2,2)")
	expect(t, "Cand1 … in one's own name and term", words(out.Send[0].RequestVote.CandidateID, out.Send[0].Term), words(1, 5))
	expect(t, "Cand1 the timer starts", s.electionDue >= s.now+electionTicksMin, true)
	expect(t, "Cand1 no leader is known now", s.leaderID, none)

	// D8: a lost datagram should not cost a whole election.
	s.Step(voteReply(2, 5, true))
	expect(t, "D8 too early", sent(tickTimes(s, heartbeatTicks-1)), "")
	out = stepSafely(t, s, tick{})
	expect(t, "D8 those who have not granted are asked again", sent(out), "S3 RV(2,2), S4 RV(2,2)")
	expect(t, "D8 … in the same term, without a record", words(s.currentTerm, len(out.Persist)), words(5, 0))
	expect(t, "D8 … and again", sent(tickTimes(s, heartbeatTicks)), "S3 RV(2,2), S4 RV(2,2)")

	out = fireTimer(s)
	expect(t, "Cand4 the next election", words(s.role, s.currentTerm, sent(out)), words(candidate, 6, "S2 RV(2,2), S3 RV(2,2), S4 RV(2,2)"))
	s.Step(voteReply(3, 6, true))
	expect(t, "Cand4 … counts from one: the vote of term 5 is gone", s.role, candidate)
	s.Step(voteReply(4, 6, true))
	expect(t, "Cand2 the third of four", s.role, leader)

	yielding := candidateOf(3, 5)
	yielding.Step(sendAE(5, 0, 0, nil, 0))
	out = yielding.Step(askVote(5, 0, 0))
	expect(t, "Cand3 the vote for oneself stays given", words(yielding.votedFor, sent(out)), words(1, "S2 no"))
	expect(t, "Cand3 … and clients learn the leader", told(yielding.Step(asks("c", 1, "set x 1"))), "c/1 error: not the leader (S2)")
}

// TestMajority counts votes [Cand2], copies [Lead4] and confirmations of a read [RD3] for
// several sizes of a cluster. n/2 instead of n/2+1 would show only where n is even.
func TestMajority(t *testing.T) {
	for _, row := range []struct{ n, others int }{{1, 0}, {2, 1}, {3, 1}, {4, 2}, {5, 2}, {7, 3}} {
		for answers := range row.n {
			enough := answers >= row.others
			s := candidateOf(row.n, 2)
			for p := range answers {
				s.Step(voteReply(2+p, 2, true))
			}
			expect(t, fmt.Sprintf("Cand2 %d of %d elect a leader", 1+answers, row.n), s.role == leader, enough)

			s = leaderOf(row.n, 2)
			for p := range answers {
				s.Step(stored(s, 2+p, 1))
			}
			expect(t, fmt.Sprintf("Lead4 %d of %d commit", 1+answers, row.n), s.commitIndex == 1, enough)

			s = settledLeaderOf(row.n, 2)
			answered := len(s.Step(asks("c", 1, "get x")).Reply)
			for p := range answers {
				answered += len(s.Step(stored(s, 2+p, 1)).Reply)
			}
			expect(t, fmt.Sprintf("RD3 %d of %d confirm a read", 1+answers, row.n), answered == 1, enough)
		}
	}
}

// TestHeartbeat is [Lead1].
func TestHeartbeat(t *testing.T) {
	s := candidateOf(3, 2, 1)
	out := s.Step(voteReply(2, 2, true))
	expect(t, "Lead1 at once on election, with the empty entry (D3)", sent(out), "S2 AE(1,1,[2],0), S3 AE(1,1,[2],0)")
	expect(t, "Lead1 the leader names itself", words(out.Early[0].AppendEntries.LeaderID, out.Early[0].Term), words(1, 2))

	s = settledLeaderOf(3, 2, 1)
	expect(t, "Lead1 not yet", sent(tickTimes(s, heartbeatTicks-1)), "")
	expect(t, "Lead1 when idle; it tells the commitIndex", sent(s.Step(tick{})), "S2 AE(2,2,[],2), S3 AE(2,2,[],2)")
	tickTimes(s, heartbeatTicks-2)
	s.Step(asks("c", 1, "set x 1"))
	s.Step(stored(s, 2, 3))
	s.Step(stored(s, 3, 3))
	expect(t, "Lead1 not idle: entries were sent since", sent(tickTimes(s, heartbeatTicks-1)), "")
	expect(t, "Lead1 idle again", sent(s.Step(tick{})), "S2 AE(3,2,[],3), S3 AE(3,2,[],3)")

	s = candidateOf(3, 2, 1)
	s.noopOff = true // an experiment of the console: without the empty entry
	expect(t, "Lead1 at once, also with nothing to send", sent(s.Step(voteReply(2, 2, true))), "S2 AE(1,1,[],0), S3 AE(1,1,[],0)")
	expect(t, "Lead1 a leader knows who leads", s.leaderID, 1)

	alone := candidateOf(1, 2)
	expect(t, "Lead1 a leader of one sends nothing", words(alone.role, sent(tickTimes(alone, 20))), words(leader, ""))
	expect(t, "Lead1 a follower sends nothing", sent(tickTimes(followerOf(3, hardState{2, none}), 10)), "")
}

// TestClientCommand is [Lead2].
func TestClientCommand(t *testing.T) {
	s := settledLeaderOf(3, 2)
	out := stepSafely(t, s, asks("c", 1, "set x 1"))
	expect(t, "Lead2 appended in the leader's term, not yet answered", words(records(out), told(out)), "#2t2")
	expect(t, "Lead2 the entry", *s.log.at(2), entry{2, "c", 1, "set x 1"})
	expect(t, "Lead2 … is on its way", s.uncommitted(), 1)
	out = s.Step(stored(s, 3, 2))
	expect(t, "Lead2 answered when it is applied", words(told(out), s.machine.get("x")), words("c/1 ok", "1"))
	expect(t, "Lead2 … to where the client asked", out.Reply[0].to, clientAt)
	expect(t, "Lead2 nothing is on its way any more", s.uncommitted(), 0)
	expect(t, "Lead2 once", told(s.Step(stored(s, 2, 2))), "")

	alone := leaderOf(1, 2)
	expect(t, "Lead2 a leader of one is a majority", told(stepSafely(t, alone, asks("c", 1, "set x 1"))), "c/1 ok")

	expect(t, "a read needs no entry", told(settledLeaderOf(1, 2).Step(asks("c", 9, "get x"))), "c/9 (none)")
}

// TestNotTheLeader: who else is asked sends clients to the leader; while there seems to be
// none, the question waits a little for the end of the election.
func TestNotTheLeader(t *testing.T) {
	follower := followerOf(3, hardState{2, none})
	follower.Step(sendAE(2, 0, 0, nil, 0))
	out := follower.Step(asks("c", 1, "set x 1"))
	expect(t, "a follower sends clients to its leader", words(told(out), follower.lastIndex()), words("c/1 error: not the leader (S2)", 0))
	tickTimes(follower, heartbeatTicks)
	expect(t, "… a late heartbeat is no reason to doubt it", told(follower.Step(asks("c", 1, "set x 1"))), "c/1 error: not the leader (S2)")
	follower.Step(tick{})
	expect(t, "… an overdue one is: the question waits", told(follower.Step(asks("c", 2, "get x"))), "")
	expect(t, "… until the leader is heard of", told(follower.Step(sendAE(2, 0, 0, nil, 0))), "c/2 error: not the leader (S2)")

	for name, s := range map[string]*server{"a follower without a leader": followerOf(3, hardState{2, none}), "a candidate": candidateOf(3, 2)} {
		expect(t, name+" lets it wait", told(s.Step(asks("c", 1, "set x 1"))), "")
		s.electionDue = 1000
		expect(t, name+": … but not long", words(told(tickTimes(s, electionTicksMin-1)), told(s.Step(tick{}))), words("", "c/1 error: not the leader"))
		expect(t, name+": … and takes nothing into its log", s.lastIndex(), 0)
	}

	s := candidateOf(3, 2)
	s.Step(asks("c", 1, "set x 1"))
	s.Step(voteReply(2, 2, true))
	out = s.Step()
	expect(t, "who wins serves it", words(records(out), s.lastIndex()), words("#2t2", 2))
	many := followerOf(3, hardState{2, none})
	for range maxHeld {
		many.Step(asks("c", 1, "get x"))
	}
	expect(t, "no more than maxHeld wait", told(many.Step(asks("c", 1, "get x"))), "c/1 error: not the leader")
}

// TestSend is [Lead3] and its deviations: what a leader sends, and when.
func TestSend(t *testing.T) {
	s := settledLeaderOf(3, 2, 1, 1)
	expect(t, "Lead3 from nextIndex on", sent(s.Step(asks("c", 1, "set x 1"))), "S2 AE(3,2,[2],3), S3 AE(3,2,[2],3)")
	expect(t, "Lead3 the next goes behind it, unconfirmed as it is (D6)", sent(s.Step(asks("d", 1, "set x 1"))), "S2 AE(4,2,[2],3), S3 AE(4,2,[2],3)")
	expect(t, "Lead3 nobody lacks anything", sent(s.Step()), "")
	out := s.Step(asks("e", 1, "set x 1"), asks("f", 1, "set x 1"), asks("g", 1, "set x 1"))
	expect(t, "Lead3 what arrives together travels together", sent(out), "S2 AE(5,2,[2 2 2],3), S3 AE(5,2,[2 2 2],3)")

	// D6: silence for a heartbeat interval counts as loss. S2 has answered, S3 has not.
	s = settledLeaderOf(3, 2)
	s.Step(asks("c", 1, "set x 1"))
	s.Step(stored(s, 2, 2))
	expect(t, "D6 not yet lost", sent(tickTimes(s, heartbeatTicks-1)), "")
	expect(t, "D6 lost: sent again to S3, an idle heartbeat to S2", sent(s.Step(tick{})), "S3 AE(1,2,[2],2), S2 AE(2,2,[],2)")

	s.Step(tick{})
	refusal := answerAE(3, 2, appendEntriesReply{PrevLogIndex: 1, ConflictIndex: 1, Seq: 4}) // of the first sending
	expect(t, "D6 a refusal of what was given up is old news", sent(s.Step(refusal)), "")
	tickTimes(s, heartbeatTicks-1)
	s.nextIndex[3] = 2 // given up again …
	expect(t, "D6 … but it was only late: nothing is to be sent again", words(sent(s.Step(stored(s, 3, 2))), s.nextIndex[3]), "3")

	s = leaderOf(2, 4, 1, 1, 1)
	expect(t, "D6 what was never refused stays as assumed: sent again from there, not from the beginning", sent(tickTimes(s, heartbeatTicks)), "S2 AE(3,1,[4],0)")

	// D4: each of these entries fills more than half a datagram, so it travels alone.
	s = settledLeaderOf(2, 2)
	big := strings.Repeat("x", 32_000)
	for serial := 1; serial <= maxFlights+5; serial++ {
		out = s.Step(asks("c", serial, "set x "+big), asks("d", serial, "set y "+big), asks("e", serial, "set z 1"))
		for _, m := range out.Early {
			size := len(appendMessage(nil, &m))
			if size > maxDatagram {
				t.Fatalf("D4 %d bytes are no datagram", size)
			}
		}
	}
	expect(t, "D6 so many are in the air and no more", len(s.progress[2].flying), maxFlights)
	out = s.Step(answerAE(2, 2, appendEntriesReply{PrevLogIndex: 1, ConflictIndex: 1, Seq: s.seq}))
	expect(t, "D6 a refusal empties the air: all that is in it is behind the gap", strings.Count(sent(out), "AE"), maxFlights)
	expect(t, "D6 a confirmation makes room", strings.Count(sent(s.Step(stored(s, 2, s.progress[2].flying[1].last))), "AE"), 2)
	out = tickTimes(s, heartbeatTicks)
	expect(t, "D6 after silence, one at a time", strings.Count(sent(out), "AE"), 1)
	expect(t, "D6 … and still one", strings.Count(sent(tickTimes(s, heartbeatTicks)), "AE"), 1)
	out = s.Step(stored(s, 2, s.progress[2].flying[0].last))
	expect(t, "D6 an answer opens the window again", strings.Count(sent(out), "AE"), maxFlights)
}

// TestBatch is D4: how many entries fit into one AppendEntries.
func TestBatch(t *testing.T) {
	sized := func(bytes ...int) *server {
		var log []entry
		for _, n := range bytes {
			log = append(log, entry{1, "c", 1, strings.Repeat("x", n)})
		}
		return newServer(1, []int{2}, hardState{1, none}, log, rand.New(rand.NewPCG(1, 1)))
	}
	for _, row := range []struct {
		name  string
		log   *server
		index int
		want  int // entries
	}{
		{"all", sized(10, 10, 10), 1, 3},
		{"from the index on", sized(10, 10, 10), 3, 1},
		{"behind the last entry: a heartbeat", sized(10, 10), 3, 0},
		// Skipping the large one and packing the small one behind it would leave a hole.
		{"the large one ends the batch", sized(100, 64_950, 100), 1, 1},
		{"the large one goes alone", sized(100, 64_950, 100), 2, 1},
		{"one always goes", sized(70_000, 10), 1, 1},
	} {
		expect(t, "D4 "+row.name, len(row.log.batch(row.index)), row.want)
	}
	limited := sized(10, 10, 10)
	limited.batchLimit = 2 // an experiment of the console
	expect(t, "D4 two at a time", words(len(limited.batch(1)), len(limited.batch(2)), len(limited.batch(3))), "2 2 1")
}

// TestSequence compares the log in pieces with a plain slice, around the ends of pieces.
func TestSequence(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var l sequence
	var want []int
	add := func(n int) {
		for range n {
			want = append(want, len(want)+r.IntN(2))
			l.append(entry{Term: want[len(want)-1]})
		}
	}
	add(3*pieceLength + 1)
	for range 300 {
		keep := max(0, r.IntN(4)*pieceLength+r.IntN(5)-2)
		if l.cut(keep); keep < len(want) {
			want = want[:keep]
		}
		for index, term := range want {
			if l.at(index).Term != term {
				t.Fatalf("after a cut to %d: term %d at %d, want %d", keep, l.at(index).Term, index, term)
			}
		}
		expect(t, "length", l.length, len(want))
		if add(r.IntN(3)); len(want) < 2*pieceLength {
			add(pieceLength)
		}
	}
	// What is on its way keeps what it carries when the log behind it is cut and grows again.
	s := leaderOf(3, 2, 1, 1)
	carried := s.batch(1)
	s.log.cut(1)
	s.log.append(entry{Term: 9})
	expect(t, "a batch is a copy", termsOf(carried), terms{1, 1, 2})
}

// TestAppendEntriesReply is [Lead3a], [Lead3b] and [Lead4]. S1 leads term 4 of three servers,
// its log is 1 1 2 2 4, and it has sent entry 5 to both. A row is what S2 answers, and what
// the leader then believes and sends.
func TestAppendEntriesReply(t *testing.T) {
	ok := func(match, seq int) *Message {
		return answerAE(2, 4, appendEntriesReply{Success: true, MatchIndex: match, Seq: seq})
	}
	no := func(prev, term, index, seq int) *Message {
		return answerAE(2, 4, appendEntriesReply{PrevLogIndex: prev, ConflictTerm: term, ConflictIndex: index, Seq: seq})
	}
	ofTerm := func(term int, m *Message) *Message { m.Term = term; return m }
	for _, row := range []struct {
		name          string
		answers       []input
		match, commit int
		sends         string // after the last answer
	}{
		{"Lead3a everything is stored", []input{ok(5, 1)}, 5, 5, ""},
		{"Lead3a a part is stored", []input{ok(3, 1)}, 3, 0, ""},
		{"Lead3a twice is once", []input{ok(5, 1), ok(5, 1)}, 5, 5, ""},
		{"Lead3a an earlier answer overtaken by a later one", []input{ok(5, 1), ok(3, 1)}, 5, 5, ""},
		{"Lead3a not of an earlier reign", []input{ofTerm(3, ok(5, 1))}, 0, 0, ""},
		{"Lead3a not to what was never sent", []input{ok(5, 3)}, 0, 0, ""},
		{"Lead3a not beyond our log", []input{ok(6, 1)}, 0, 0, ""},

		{"Lead3b back to where the follower ends", []input{no(4, 0, 2, 1)}, 0, 0, "S2 AE(1,1,[1 2 2 4],0)"},
		{"Lead3b at least by one", []input{no(4, 0, 9, 1)}, 0, 0, "S2 AE(3,2,[2 4],0)"},
		{"Lead3b never before the first entry", []input{no(4, 0, 0, 1)}, 0, 0, "S2 AE(0,0,[1 1 2 2 4],0)"},
		{"Lead3b not of an earlier reign", []input{ofTerm(3, no(4, 0, 2, 1))}, 0, 0, ""},
		{"AE1 nor of its message, refused in this one", []input{no(0, 0, 0, 1)}, 0, 0, ""},
		// Datagrams behind one gap are all refused; nextIndex has moved since.
		{"Lead3b the second refusal is old news", []input{no(4, 0, 2, 1), no(4, 0, 2, 1)}, 0, 0, ""},
		{"Lead3b a refusal of what was sent since is news", []input{no(4, 0, 3, 1), no(2, 1, 1, 3)}, 0, 0, "S2 AE(1,1,[1 2 2 4],0)"},
		{"Lead3b never forwards", []input{no(99, 0, 99, 1)}, 0, 0, ""},
		{"Lead3b what is confirmed stays confirmed", []input{ok(3, 1), no(4, 0, 2, 1)}, 3, 0, "S2 AE(3,2,[2 4],0)"},
		{"Lead3b a refusal confirms nothing", []input{answerAE(2, 4, appendEntriesReply{MatchIndex: 5, PrevLogIndex: 4, ConflictIndex: 5, Seq: 1})}, 0, 0, "S2 AE(3,2,[2 4],0)"},

		// D5: of the term that conflicts, we have the last entry at 4, at 2, or none at all.
		{"D5 we have that term too: behind our last of it", []input{no(4, 1, 1, 1)}, 0, 0, "S2 AE(2,1,[2 2 4],0)"},
		{"D5 we lack that term: all of it goes", []input{no(4, 3, 2, 1)}, 0, 0, "S2 AE(1,1,[1 2 2 4],0)"},
		{"D5 a term newer than all of ours", []input{no(4, 5, 3, 1)}, 0, 0, "S2 AE(2,1,[2 2 4],0)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := leaderOf(3, 4, 1, 1, 2, 2)
			var out Output
			for _, answer := range row.answers {
				out = stepSafely(t, s, answer)
			}
			expect(t, "matchIndex", s.matchIndex[2], row.match)
			expect(t, "commitIndex", s.commitIndex, row.commit)
			expect(t, "sent", sent(out), row.sends)
			expect(t, "S3 is not concerned", words(s.matchIndex[3], s.nextIndex[3]), words(0, 6))
			if s.nextIndex[2] <= s.matchIndex[2] || s.nextIndex[2] > s.lastIndex()+1 {
				t.Errorf("nextIndex %d, matchIndex %d", s.nextIndex[2], s.matchIndex[2])
			}
		})
	}
}

// TestOldNews is [Lead3b] with two datagrams in the air, of which the first is lost. The second
// is refused, and the refusal arrives twice.
func TestOldNews(t *testing.T) {
	s := settledLeaderOf(2, 4, 1, 1)
	s.Step(asks("c", 1, "set x 1"))
	s.Step(asks("d", 1, "set x 1"))
	refusal := answerAE(2, 4, appendEntriesReply{PrevLogIndex: 4, ConflictIndex: 4, Seq: s.seq})
	expect(t, "Lead3b the refusal", sent(s.Step(refusal)), "S2 AE(3,4,[4 4],3)")
	expect(t, "Lead3b … once more", sent(s.Step(refusal)), "")
	expect(t, "Lead3a all is well", words(sent(s.Step(stored(s, 2, 5))), s.commitIndex), "5")

	// On a slow way the refusal comes after its AppendEntries was given up and sent again. It is
	// old, but it says where to go.
	s = leaderOf(2, 4, 1, 1, 2, 2)
	expect(t, "D6 given up", sent(tickTimes(s, heartbeatTicks)), "S2 AE(4,2,[4],0)")
	late := answerAE(2, 4, appendEntriesReply{PrevLogIndex: 4, ConflictIndex: 2, Seq: 1})
	expect(t, "Lead3b late, and news all the same", sent(s.Step(late)), "S2 AE(1,1,[1 2 2 4],0)")
	expect(t, "Lead3b … once", sent(s.Step(late)), "")

	// A part of an AppendEntries is confirmed, by the answer to a shorter one; the rest is lost.
	s = settledLeaderOf(2, 4)
	s.Step(asks("c", 1, "set x 1"), asks("d", 1, "set x 1"), asks("e", 1, "set x 1"))
	s.Step(stored(s, 2, 2))
	expect(t, "D6 only the rest is sent again", sent(tickTimes(s, heartbeatTicks)), "S2 AE(2,4,[4 4],2)")
}

// TestCommit is [Lead4]: S1 leads term 4 with the log 1 3 3 4 4.
func TestCommit(t *testing.T) {
	for _, row := range []struct {
		name   string
		n      int
		match  []int // of S2, S3, …
		commit int
	}{
		{"a majority of three", 3, []int{4, 0}, 4},
		{"the highest of them", 3, []int{5, 4}, 5},
		{"what the slower one has does not matter", 3, []int{5, 0}, 5},
		{"of five, the third best", 5, []int{5, 4, 1, 0}, 4},
		{"two of five are too few", 5, []int{5, 0, 0, 0}, 0},
		{"of four, the third best", 4, []int{5, 4, 0}, 4},
		{"of two, the other one", 2, []int{4}, 4},
		// Figure 8: an entry of an older term may be on all servers and still be overwritten.
		{"not an entry of an older term, on all servers", 3, []int{3, 3}, 0},
		{"… until one of this term carries it", 3, []int{3, 4}, 4},
		{"nobody has anything", 3, []int{0, 0}, 0},
	} {
		s := leaderOf(row.n, 4, 1, 3, 3)
		s.Step(asks("c", 1, "set x 1"))
		for i, match := range row.match {
			s.Step(stored(s, 2+i, match))
		}
		expect(t, "Lead4 "+row.name, s.commitIndex, row.commit)
	}
	s := leaderOf(3, 4, 1)
	s.Step(stored(s, 2, 2), askVote(5, 9, 4))
	expect(t, "Lead4 not by one who leads no more", s.commitIndex, 0)

	s = leaderOf(3, 4, 1, 2, 2)
	s.Step(stored(s, 2, 3), stored(s, 3, 3))
	s.Step(sendAE(5, 1, 1, terms{5, 5, 5}, 0)) // what was stored there is overwritten
	expect(t, "Lead4 … nor from what it knew when it did", s.commitIndex, 0)
}

// TestStepDown: a leader meets a higher term.
func TestStepDown(t *testing.T) {
	s := settledLeaderOf(3, 4)
	s.Step(asks("c", 1, "set x 1"), asks("c", 2, "get x"))
	out := stepSafely(t, s, sendAE(5, 2, 4, terms{5}, 3))
	expect(t, "All2 it follows", words(s.role, s.currentTerm, s.votedFor, s.leaderID), words(follower, 5, none, 2))
	expect(t, "All2 the client's entry was committed by another: no word of it from here", words(told(out), s.lastApplied), "3")
	expect(t, "All2 it sends clients on", told(s.Step(asks("c", 1, "set x 1"))), "c/1 error: not the leader (S2)")
	expect(t, "All2 no heartbeats any more", sent(tickTimes(s, heartbeatTicks)), "")
	expect(t, "All2 answers to its old messages mean nothing", words(sent(s.Step(answerAE(3, 4, appendEntriesReply{Success: true, MatchIndex: 2, Seq: s.seq}))), s.role), words("", follower))
	fireTimer(s)
	s.Step(voteReply(3, 6, true))
	expect(t, "All2 it may lead again", words(s.role, termsOf(logOf(s))), words(leader, terms{4, 4, 5, 6}))
	expect(t, "… with nextIndex and matchIndex made anew", words(s.nextIndex, s.matchIndex), words(map[int]int{2: 5, 3: 5}, map[int]int{2: 0, 3: 0}))
}

// TestImpossible: what can never happen stops the server, before the damage spreads.
func TestImpossible(t *testing.T) {
	committed := followerOf(3, hardState{4, none}, 1, 1)
	committed.commitIndex = 2
	for _, row := range []struct {
		name string
		do   func()
	}{
		{"Election Safety", func() { leaderOf(3, 4).Step(sendAE(4, 0, 0, nil, 0)) }},
		{"State Machine Safety", func() { committed.Step(sendAE(4, 1, 1, terms{4}, 2)) }},
		{"Leader Append-Only", func() { leaderOf(3, 4, 1).store(1, entry{Term: 4}) }},
		{"no gaps", func() { followerOf(3, hardState{4, none}, 1).store(3, entry{Term: 4}) }},
		{"one vote a term", func() { followerOf(3, hardState{4, 2}).setTermAndVote(4, 3) }},
		{"one vote a term", func() { followerOf(3, hardState{4, 2}).setTermAndVote(4, none) }},
	} {
		func() {
			defer func() {
				if broken, ok := recover().(brokenInvariant); !ok || !strings.Contains(string(broken), row.name) {
					t.Errorf("%s: went on", row.name)
				}
			}()
			row.do()
		}()
	}
	s := followerOf(3, hardState{4, none}, 1, 1)
	s.commitIndex = 1
	s.Step(sendAE(4, 1, 1, terms{4}, 2)) // right behind the committed entry: allowed
	expect(t, "the neighbour", termsOf(logOf(s)), terms{1, 4})
}

// ---- Rules 3. Figures 7 and 8 ------------------------------------------------------
//
// Figures 7 and 8 need a few servers that talk. A desk is the smallest cluster that will do:
// a slice of messages in the air, a file for each server, and a hand that decides what
// happens next. Time stands still unless the hand moves it.

// desk is a cluster played by hand.
type desk struct {
	t       *testing.T
	servers []*server // by id, nil where it is down
	files   [][]byte
	air     []Message
	bound   int // when set, AppendEntries carry nothing behind this index, as a smaller datagram would (D4)
	refused int // AppendEntries refused by [AE2]
	heard   []string
}

// newDesk starts a server for each log, all in one term. They have no votes yet.
func newDesk(t *testing.T, term int, logs ...terms) *desk {
	d := &desk{t: t, servers: make([]*server, len(logs)+1), files: make([][]byte, len(logs)+1)}
	for i, log := range logs {
		id := i + 1
		d.files[id] = fmt.Appendf(nil, "%s", sealed(fmt.Sprintf(`{"format":%q,"server":%d}`, diskFormat, id)))
		d.files[id] = appendRecord(d.files[id], record{hard: &hardState{term, none}})
		for at, e := range entriesOf(log) {
			d.files[id] = appendRecord(d.files[id], record{index: at + 1, entry: e})
		}
		d.start(id)
	}
	return d
}

// sealed is a line of a file with this JSON.
func sealed(json string) string { return string(appendLine(nil, []byte(json))) }

// addressesOf are the addresses of n servers.
func addressesOf(n int) map[int]netip.AddrPort {
	addresses := map[int]netip.AddrPort{}
	for id := 1; id <= n; id++ {
		addresses[id] = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(9000+id))
	}
	return addresses
}

func (d *desk) start(id int) {
	hard, log, good, err := replay(d.files[id], id)
	if err != nil || good != len(d.files[id]) {
		d.t.Fatalf("S%d does not start: %v", id, err)
	}
	d.servers[id] = newServer(id, othersOf(id, len(d.servers)-1), hard, log, rand.New(rand.NewPCG(uint64(id), 1)))
}

// crash takes a server away; what it had sent is lost with it.
func (d *desk) crash(id int) {
	d.servers[id] = nil
	d.drop()
}

func (d *desk) drop() { d.air = nil }

func (d *desk) step(id int, inputs ...input) {
	out := stepSafely(d.t, d.servers[id], inputs...)
	for _, r := range out.Persist {
		d.files[id] = appendRecord(d.files[id], r)
	}
	d.air = append(append(d.air, out.Early...), out.Send...)
	if text := told(out); text != "" {
		d.heard = append(d.heard, text)
	}
}

// timeout lets S-id start an election; nobody has heard of it yet.
func (d *desk) timeout(id int) {
	s := d.servers[id]
	s.now = s.electionDue - 1
	d.step(id, tick{})
}

func (d *desk) tick(id, n int) { d.step(id, slices.Repeat([]input{tick{}}, n)...) }

// deliver hands over all messages between these servers, in order and until there are no
// more, each through its bytes. Other messages stay in the air.
func (d *desk) deliver(ids ...int) {
	addresses := addressesOf(len(d.servers) - 1)
	for at := 0; at < len(d.air); {
		m := d.air[at]
		if !slices.Contains(ids, m.From) || !slices.Contains(ids, m.To) {
			at++
			continue
		}
		d.air = slices.Delete(d.air, at, at+1)
		if ae := m.AppendEntries; ae != nil && d.bound > 0 {
			short := *ae
			short.Entries = ae.Entries[:min(len(ae.Entries), max(0, d.bound-ae.PrevLogIndex))]
			m.AppendEntries = &short
		}
		if r := m.AppendEntriesReply; r != nil && !r.Success && r.PrevLogIndex > 0 {
			d.refused++
		}
		in, drop := decode(appendMessage(nil, &m), addresses[m.From], m.To, addresses)
		if drop != "" {
			d.t.Fatalf("S%d drops %s: %s", m.To, show(m), drop)
		}
		d.step(m.To, in)
		at = 0
	}
}

// elect makes S-id leader with the votes of others.
func (d *desk) elect(id int, others ...int) {
	d.timeout(id)
	d.deliver(append(others, id)...)
	if d.servers[id].role != leader {
		d.t.Fatalf("S%d does not win term %d", id, d.servers[id].currentTerm)
	}
}

// answers are what clients have heard since the last call.
func (d *desk) answers() string {
	text := strings.Join(d.heard, ", ")
	d.heard = nil
	return text
}

// log is the log of S-id, read from its file: a crashed one has it too.
func (d *desk) log(id int) terms {
	_, log, _, _ := replay(d.files[id], id)
	return termsOf(log)
}

// TestFigure7: the leader of term 8 meets each of the followers that the figure draws. The
// number of refusals by [AE2] is what the leader must learn before the logs can agree; by one
// index at a time, (e) would take five of them and (f) seven.
func TestFigure7(t *testing.T) {
	leaderLog := terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6}
	for _, row := range []struct {
		name     string
		log      terms
		refusals int
	}{
		{"(a) lacks one entry", terms{1, 1, 1, 4, 4, 5, 5, 6, 6}, 1},
		{"(b) lacks many", terms{1, 1, 1, 4}, 1},
		{"(c) has one too many", terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}, 0},
		{"(d) has two of a term that the leader never saw", terms{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, 0},
		{"(e) lacks some and has some too many", terms{1, 1, 1, 4, 4, 4, 4}, 2},
		{"(f) was leader of terms 2 and 3 and committed nothing", terms{1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := newDesk(t, 7, leaderLog, leaderLog, row.log)
			d.elect(1, 2) // S2 is like S1: the two are a majority, so S3 has no say
			d.deliver(1, 3)
			expect(t, "S3 ends like the leader, with the empty entry of term 8 (D3)", d.log(3), append(slices.Clone(leaderLog), 8))
			expect(t, "S1 has not changed what it had", d.log(1), d.log(3))
			expect(t, "S1 knows", words(d.servers[1].matchIndex[3], d.servers[1].commitIndex), words(11, 11))
			expect(t, "refusals", d.refused, row.refusals)
		})
	}
}

// TestFigure8: why a leader counts copies of its own term's entries only. The entries 2, 3 and
// 4 of the figure are the empty ones with which our leaders begin (D3), so the figure arises by
// itself; in (d) a 5 follows the 3. It has two endings, (d) and (e).
func TestFigure8(t *testing.T) {
	type step struct {
		name string
		do   func(d *desk)
		logs []terms
	}
	opening := []step{
		{"(a) S1 leads term 2; its entry reaches S2 only", func(d *desk) {
			d.timeout(1)
			d.bound = 1 // votes pass, entries do not
			d.deliver(1, 2, 3, 4, 5)
			d.drop()
			d.bound = 0
			d.tick(1, heartbeatTicks)
			d.deliver(1, 2)
		}, []terms{{1, 2}, {1, 2}, {1}, {1}, {1}}},
		{"(b) S1 crashes; S5 wins term 3 with the votes of S3 and S4", func(d *desk) {
			d.crash(1)
			d.timeout(5)
			d.bound = 1
			d.deliver(3, 4, 5)
			expect(d.t, "S5", words(d.servers[5].role, d.servers[5].currentTerm), words(leader, 3))
		}, []terms{{1, 2}, {1, 2}, {1}, {1}, {1, 3}}},
		{"(c) S5 crashes; S1 wins term 4; entry 2 reaches S3", func(d *desk) {
			d.crash(5)
			d.start(1)
			d.timeout(1) // term 3, in which S3 and S4 have voted for S5
			d.bound = 2  // the datagrams are too small for entry 4
			d.deliver(1, 2, 3, 4)
			d.timeout(1)
			d.deliver(1, 2, 3)
			s := d.servers[1]
			expect(d.t, "S1", words(s.role, s.currentTerm), words(leader, 4))
			expect(d.t, "S1 knows that entry 2 is on three of five", words(s.matchIndex[2], s.matchIndex[3]), words(2, 2))
			expect(d.t, "[Lead4] and does not commit it, for its term is not 4", s.commitIndex, 0)
		}, []terms{{1, 2, 4}, {1, 2}, {1, 2}, {1}, {1, 3}}},
	}
	endings := map[string][]step{
		"ending d": {{"(d) S1 crashes; S5 wins term 5 and overwrites entry 2", func(d *desk) {
			d.crash(1)
			d.bound = 0
			d.start(5)
			d.timeout(5) // term 4 is S1's
			d.deliver(2, 3, 4, 5)
			d.elect(5, 2, 3, 4)
			d.start(1)
			d.tick(5, heartbeatTicks)
			d.deliver(1, 2, 3, 4, 5)
			expect(d.t, "what was on three of five is gone; nobody had applied it", d.servers[5].commitIndex, 3)
		}, []terms{{1, 3, 5}, {1, 3, 5}, {1, 3, 5}, {1, 3, 5}, {1, 3, 5}}}},
		"ending e": {{"(e) instead, 4 reaches S2 and S3: S5 cannot win any more", func(d *desk) {
			d.bound = 0
			d.tick(1, heartbeatTicks)
			d.deliver(1, 2, 3)
			expect(d.t, "[Lead4] entry 4 is of this term, and commits entry 2 with it", d.servers[1].commitIndex, 3)
			d.crash(1)
			d.start(5)
			d.timeout(5)
			d.deliver(2, 3, 4, 5)
			d.timeout(5)
			d.deliver(2, 3, 4, 5)
			expect(d.t, "[RV2] S5 in term 5 has its own vote and that of S4", words(d.servers[5].role, d.servers[5].votes),
				words(candidate, map[int]bool{5: true, 4: true}))
		}, []terms{{1, 2, 4}, {1, 2, 4}, {1, 2, 4}, {1}, {1, 3}}}},
	}
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, 1, terms{1}, terms{1}, terms{1}, terms{1}, terms{1})
			for _, step := range append(slices.Clone(opening), ending...) {
				step.do(d)
				for i, log := range step.logs {
					expect(t, fmt.Sprintf("%s: S%d", step.name, i+1), d.log(i+1), log)
				}
			}
		})
	}
}

// ---- Rules 4. Sessions and reads -----------------------------------------------------

// TestExactlyOnce tells of clients that ask again [SE1] [SE2].
func TestExactlyOnce(t *testing.T) {
	// A repeat of what is still in the leader's log.
	s := settledLeaderOf(3, 2)
	s.Step(asks("c", 1, "incr n"))
	elsewhere := asks("c", 1, "incr n")
	elsewhere.to = netip.MustParseAddrPort("127.0.0.1:5002")
	out := s.Step(elsewhere)
	expect(t, "SE1 not appended again, and not answered yet", words(s.lastIndex(), told(out)), words(2, ""))
	out = s.Step(stored(s, 2, 2))
	expect(t, "SE1 one answer, where it was asked for last", words(told(out), out.Reply[0].to), "c/1 1 127.0.0.1:5002")
	out = s.Step(asks("c", 1, "incr n"))
	expect(t, "SE2 a repeat of what is applied: the stored answer, no entry", words(told(out), s.lastIndex()), words("c/1 1", 2))
	s.Step(asks("c", 2, "incr n"))
	expect(t, "SE1 an older serial while a newer one waits: silence, no entry",
		words(told(s.Step(asks("c", 1, "incr n"))), s.lastIndex()), words("", 3))
	s.Step(stored(s, 2, 3))
	expect(t, "SE2 an older serial afterwards: likewise", words(told(s.Step(asks("c", 1, "incr n"))), s.lastIndex()), words("", 3))
	s.Step(asks("c", 3, "incr n"))
	expect(t, "SE2 the next serial is new", told(s.Step(stored(s, 2, 4))), "c/3 3")
	expect(t, "SE1 another client's serial 1 is another command", told(s.Step(asks("d", 1, "incr n"), stored(s, 2, 4))), "")
	expect(t, "SE1 … and is carried out", told(s.Step(stored(s, 2, 5))), "d/1 4")

	// A retry across a leader change: the entry of S1 is in the log of S2.
	d := newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	d.step(1, asks("c", 1, "incr n"))
	d.bound = 99
	d.air = slices.DeleteFunc(d.air, func(m Message) bool { return m.To == 3 })
	d.deliver(1, 2)
	d.crash(1) // before or after it answered: the client has heard nothing
	d.answers()
	d.elect(2, 3)
	d.step(2, asks("c", 1, "incr n"))
	d.deliver(2, 3)
	d.tick(2, heartbeatTicks)
	d.deliver(2, 3)
	expect(t, "SE2 answered by the new leader", d.answers(), "c/1 1")
	expect(t, "SE1 applied once, by both", words(d.servers[2].machine.get("n"), d.servers[3].machine.get("n")), "1 1")

	// The new leader knows the command from its log before it may commit it.
	d = newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	d.step(1, asks("c", 1, "incr n"))
	d.air = slices.DeleteFunc(d.air, func(m Message) bool { return m.To == 3 })
	d.deliver(1, 2)
	d.crash(1)
	d.answers()
	d.timeout(2)
	for d.servers[2].role != leader {
		d.step(3, &d.air[slices.IndexFunc(d.air, func(m Message) bool { return m.To == 3 })])
		d.step(2, &d.air[len(d.air)-1])
	}
	last := d.servers[2].lastIndex()
	d.step(2, asks("c", 1, "incr n"))
	expect(t, "SE1 in the log of a leader that did not append it", words(d.servers[2].lastIndex(), d.answers()), words(last, ""))
	d.drop()
	d.tick(2, heartbeatTicks)
	d.deliver(2, 3)
	expect(t, "SE1 answered when the old entry commits", d.answers(), "c/1 1")

	// Two copies in one log: S1 appended it, S2 that did not have it did so too, and then
	// both came through.
	twice := []entry{{1, "c", 1, "incr n"}, {2, "c", 1, "incr n"}}
	ae := sendAE(4, 0, 0, nil, 2)
	ae.AppendEntries.Entries = twice
	f := followerOf(3, hardState{4, none})
	f.Step(ae)
	expect(t, "SE2 applied once, however often it is in the log", f.machine.get("n"), "1")

	// c has the answer to its first command from S2; S1, now leader, is yet to apply it.
	s = newServer(1, []int{2, 3}, hardState{1, none}, []entry{{1, "c", 1, "incr n"}}, rand.New(rand.NewPCG(1, 1)))
	fireTimer(s)
	s.Step(voteReply(2, 2, true))
	s.Step(asks("c", 2, "incr n"))
	expect(t, "SE1 an answer is for its own serial", told(s.Step(stored(s, 2, 3))), "c/2 2")

	// The answer goes to the one whose command it is, not to the index where it stood.
	s = settledLeaderOf(3, 2)
	s.Step(asks("c", 1, "set x mine"))
	s.Step(sendAE(3, 1, 2, terms{3}, 0)) // another leader's entry takes the place
	fireTimer(s)
	s.Step(voteReply(2, 4, true))
	expect(t, "nobody is told that an overwritten command is done", told(s.Step(stored(s, 2, 3))), "")
}

// TestAnswersOutliveEverybody: the stored answer, of an error too, after all servers have
// crashed [SE2] [SE3]. Carried out anew, the cas would succeed.
func TestAnswersOutliveEverybody(t *testing.T) {
	d := newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	for _, r := range []*request{asks("c", 1, "set x 1"), asks("c", 2, "cas x 2 3"), asks("d", 1, "set x 2")} {
		d.step(1, r)
		d.deliver(1, 2, 3)
	}
	mismatch := `c/2 error: x is "1", not "2"; nothing changed`
	expect(t, "at first", d.answers(), "c/1 ok, "+mismatch+", d/1 ok")
	for id := 1; id <= 3; id++ {
		d.crash(id)
	}
	for id := 1; id <= 3; id++ {
		d.start(id)
	}
	d.elect(3, 1, 2)
	d.answers()
	d.step(3, asks("c", 2, "cas x 2 3"))
	d.step(3, asks("c", 1, "set x 1"))
	expect(t, "after a crash of all", d.answers(), mismatch)
	d.step(3, asks("e", 1, "get x"))
	d.deliver(1, 2, 3)
	expect(t, "and nothing has changed", d.answers(), "e/1 2")
}

// TestSessions is about who is remembered [SE3] [SE4].
func TestSessions(t *testing.T) {
	m := newMachine()
	write := func(client string, serial int) string {
		a, ok := m.apply(&entry{1, client, serial, "incr n"})
		return words(ok, a.result, a.err)
	}
	expect(t, "SE4 a serial above 1 without a session", strings.HasPrefix(write("c7", 2), "true no session for client c7: "), true)
	expect(t, "SE4 … changes nothing and opens none", words(m.get("n"), len(m.sessions)), "(none) 0")
	expect(t, "SE3 serial 1 opens one", write("c7", 1), "true 1")
	expect(t, "SE2 the same serial again", write("c7", 1), "true 1")
	expect(t, "SE2 the next", write("c7", 2), "true 2")
	expect(t, "SE2 an older one has no answer", strings.HasPrefix(write("c7", 1), "false"), true)
	empty, ok := m.apply(&entry{Term: 1})
	expect(t, "D3 an empty entry has neither client nor answer", words(empty, ok, len(m.sessions)), words(answer{}, false, 1))

	// The least recently used one goes, in log order: c7 was used after c8 and stays.
	write("c8", 1)
	write("c7", 2)
	for i := range maxSessions - 1 {
		write(fmt.Sprint("crowd", i), 1)
	}
	before := m.get("n")
	expect(t, "SE3 so many and no more", len(m.sessions), maxSessions)
	expect(t, "SE3 a repeat counts as use", write("c7", 2), "true 2")
	expect(t, "SE3 c8 is forgotten", strings.HasPrefix(write("c8", 2), "true no session"), true)
	expect(t, "SE3 … and it was not carried out", m.get("n"), before)
	expect(t, "SE3 the list and the map agree", m.recent.Len(), len(m.sessions))

	// A read has no session: its serial is echoed, no more.
	s := settledLeaderOf(1, 2)
	expect(t, "a read's serial is only echoed", told(s.Step(asks("c", 9, "get x"), asks("c", 3, "get x"))), "c/9 (none), c/3 (none)")
	expect(t, "SE4 … and opens no session", len(s.machine.sessions), 0)
	expect(t, "SE4 is a client's to read", strings.HasPrefix(told(s.Step(asks("c", 9, "incr n"))), "c/9 error: no session for client c: "), true)
	expect(t, "SE3 it begins again with 1", told(s.Step(asks("c", 1, "incr n"))), "c/1 1")
}

// TestReads is about linearizable reads [RD1] to [RD4]: when they wait, and for what.
func TestReads(t *testing.T) {
	s := settledLeaderOf(3, 2)
	s.Step(asks("c", 1, "set x old"))
	before := s.seq // the newest AppendEntries, which both have received but not answered
	out := s.Step(asks("r", 1, "get x"))
	expect(t, "RD3 a read asks: do I still lead?", sent(out), "S2 AE(2,2,[],1), S3 AE(2,2,[],1)")
	expect(t, "RD3 and is not answered yet", told(out), "")
	reply := func(seq int) *Message {
		return answerAE(2, 2, appendEntriesReply{Success: true, MatchIndex: 2, Seq: seq})
	}
	expect(t, "RD3 the answer to what was sent before proves nothing about now", told(s.Step(reply(before))), "c/1 ok")
	expect(t, "RD3 the answer to what was sent since does", told(s.Step(reply(before+1))), "r/1 old")
	expect(t, "RD3 … once", told(s.Step(reply(before+2))), "")

	s.Step(asks("r", 2, "get x"))
	refusal := answerAE(3, 2, appendEntriesReply{PrevLogIndex: 2, ConflictIndex: 1, Seq: s.seq})
	expect(t, "RD3 a refusal of this term is word of a follower too", told(s.Step(refusal)), "r/2 old")

	// S1 led term 1, too, crashed, and counts its messages from 0 again. A late one of that reign
	// reaches S3 in term 2, and the refusal says nothing about who leads now.
	s = settledLeaderOf(3, 2)
	s.Step(asks("r", 1, "get x"))
	late := answerAE(3, 2, appendEntriesReply{Seq: s.seq})
	expect(t, "AE1 a refusal of an earlier reign's message confirms no read", told(s.Step(late)), "")
	expect(t, "RD3 that of this reign's does", told(s.Step(answerAE(3, 2, appendEntriesReply{PrevLogIndex: 2, ConflictIndex: 1, Seq: s.seq}))), "r/1 (none)")

	s = settledLeaderOf(5, 2)
	s.Step(asks("r", 1, "get x"))
	ack := func(from, seq int) string {
		return told(s.Step(answerAE(from, 2, appendEntriesReply{Success: true, MatchIndex: 1, Seq: seq})))
	}
	expect(t, "RD3 an old answer takes no newer one back", words(ack(2, s.seq), ack(2, 1), ack(3, s.seq)), "r/1 (none)")

	// Many reads share a round, and those that come meanwhile share the next one.
	s = settledLeaderOf(3, 2)
	many := []input{}
	for i := range 50 {
		many = append(many, asks("r", i+1, "get x"))
	}
	expect(t, "RD3 fifty reads, one round", sent(s.Step(many...)), "S2 AE(1,2,[],1), S3 AE(1,2,[],1)")
	expect(t, "RD3 a later read waits for its own", sent(s.Step(asks("late", 1, "get x"))), "")
	out = s.Step(answerAE(2, 2, appendEntriesReply{Success: true, MatchIndex: 1, Seq: s.seq - 1}))
	expect(t, "RD3 fifty answers", len(out.Reply), 50)
	expect(t, "RD3 the next round", sent(out), "S2 AE(1,2,[],1), S3 AE(1,2,[],1)")
	expect(t, "RD3 the later read", told(s.Step(stored(s, 3, 1))), "late/1 (none)")

	// [RD1] S1 has won term 4; whether entry 1 of term 3 is committed it cannot know yet.
	s = newServer(1, []int{2, 3}, hardState{3, none}, []entry{{3, "c", 1, "set x new"}}, rand.New(rand.NewPCG(1, 1)))
	fireTimer(s)
	s.Step(voteReply(2, 4, true))
	s.Step(asks("r", 1, "get x"))
	confirmed := answerAE(2, 4, appendEntriesReply{Success: true, MatchIndex: 1, Seq: s.seq})
	out = s.Step(confirmed)
	expect(t, "RD1 confirmed, but nothing of this term is committed", told(out), "")
	expect(t, "RD3 confirmed is confirmed: no second round", sent(out), "")
	expect(t, "RD1 now it is, and entry 1 with it", told(s.Step(stored(s, 3, 2))), "r/1 new")

	// [RD2] [RD4] A long log is applied in pieces. The read arrives when all of it is committed
	// and a part applied, and is confirmed before the last write is.
	s = settledLeaderOf(3, 2)
	s.store(2, append(slices.Repeat([]entry{{Term: 2}}, 3*maxApply), entry{2, "c", 1, "set x new"})...)
	s.Step(stored(s, 2, s.lastIndex()))
	s.Step(asks("r", 1, "get x"))
	out = s.Step(stored(s, 2, s.lastIndex()))
	expect(t, "RD4 confirmed, but the state is still too old", words(told(out), s.behind()), words("", true))
	expect(t, "RD2 the read sees what was committed before it", told(s.Step()), "r/1 new")

	// A leader of one is its own majority.
	expect(t, "RD3 alone", told(settledLeaderOf(1, 2).Step(asks("r", 1, "get x"))), "r/1 (none)")
	// Isolated, a leader keeps reads for a while only.
	s = settledLeaderOf(3, 2)
	s.Step(asks("r", 1, "get x"))
	tickTimes(s, readPatience)
	expect(t, "a read waits", len(s.reads), 1)
	s.Step(tick{})
	expect(t, "… but not for ever", len(s.reads), 0)
	expect(t, "… and is not answered late", told(s.Step(stored(s, 2, 1))), "")
}

// TestDeposedLeader: S1 has been deposed without knowing it. It must not answer from its old
// state, whatever arrives.
func TestDeposedLeader(t *testing.T) {
	d := newDesk(t, 1, nil, nil, nil)
	d.elect(1, 2, 3)
	d.step(1, asks("c", 1, "set x old"))
	d.deliver(1, 2, 3)
	d.tick(1, heartbeatTicks)
	heartbeats := slices.Clone(d.air)
	d.deliver(1, 2, 3)
	acks := []Message{} // of S2 and S3, doubled in the network
	for _, m := range heartbeats {
		acks = append(acks, *answerAE(m.To, m.Term, appendEntriesReply{Success: true, MatchIndex: 2, Seq: m.AppendEntries.Seq}))
	}
	d.elect(2, 3)
	d.step(2, asks("c", 2, "set x new"))
	d.deliver(2, 3)
	d.answers()
	d.drop()

	d.step(1, asks("r", 1, "get x"), asks("w", 1, "set x lost"))
	for i := range acks {
		d.step(1, &acks[i])
	}
	expect(t, "RD3 the old acknowledgements do not confirm it", words(d.servers[1].role, d.answers()), words(leader, ""))
	d.deliver(1, 2, 3)
	expect(t, "RD3 the new ones depose it; its clients hear nothing", words(d.servers[1].role, d.answers()), words(follower, ""))
	d.step(2, asks("r", 1, "get x"))
	d.deliver(2, 3)
	expect(t, "the new leader answers", d.answers(), "r/1 new")
	d.tick(2, heartbeatTicks)
	d.deliver(1, 2, 3)
	expect(t, "the write to the deposed leader is gone, and it never said otherwise",
		words(d.answers(), d.servers[1].machine.get("x")), "new")

	// It comes back to power: what waited in the reign before is forgotten.
	d.elect(1, 2, 3)
	d.tick(1, heartbeatTicks)
	d.deliver(1, 2, 3)
	expect(t, "nothing of an earlier reign is answered in a later one", d.answers(), "")
}

// ---- Rules 5. The state machine and its commands ---------------------------------------

// answersLike tells whether an answer is what a row wants; "…" stands for any text.
func answersLike(got, want string) bool {
	parts := strings.Split(want, "…")
	if len(parts) == 1 {
		return got == want
	}
	if !strings.HasPrefix(got, parts[0]) || !strings.HasSuffix(got, parts[len(parts)-1]) {
		return false
	}
	for _, part := range parts {
		at := strings.Index(got, part)
		if at < 0 {
			return false
		}
		got = got[at+len(part):]
	}
	return true
}

// typed gives a server of one a command from a client that has never been there, and returns
// what a console would print. Whatever the command, that is one line, and not a long one if
// it is an error.
func typed(t *testing.T, s *server, command string) string {
	t.Helper()
	out := s.Step(asks(fmt.Sprint("c", s.lastIndex()), 1, command))
	if len(out.Reply) != 1 {
		t.Fatalf("%.50q: %d answers", command, len(out.Reply))
	}
	text := out.Reply[0].result
	if out.Reply[0].err != "" {
		text = "error: " + out.Reply[0].err
		if len(text) > 1000 {
			t.Errorf("%.50q: an error of %d bytes", command, len(text))
		}
	}
	if strings.ContainsAny(text, "\r\n") || !utf8.ValidString(text) {
		t.Errorf("%.50q: %q is not one line of UTF-8", command, text)
	}
	return text
}

// TestCommands: scripts for the key-value store, each on a new one.
func TestCommands(t *testing.T) {
	long := strings.Repeat("v", 2000)
	for _, script := range [][][2]string{ // command, answer
		{{"get x", "(none)"}, {"set x 1", "ok"}, {"get x", "1"}, {"set x 2", "ok"}, {"get x", "2"}, {"get y", "(none)"}},
		{{"del x", "(none)"}, {"set x 1", "ok"}, {"del x", "ok"}, {"get x", "(none)"}, {"del x", "(none)"}},

		{{"incr n", "1"}, {"incr n", "2"}, {"incr n 40", "42"}, {"incr n -50", "-8"}, {"incr n 0", "-8"}, {"get n", "-8"}},
		{{"incr n 9223372036854775807", "9223372036854775807"}, {"incr n", "error: …overflow…"}, {"incr n 0", "9223372036854775807"},
			{"incr n -1", "9223372036854775806"}, {"incr n 2", "error: …overflow…"}, {"get n", "9223372036854775806"}},
		{{"incr n -9223372036854775808", "-9223372036854775808"}, {"incr n -1", "error: …overflow…"}, {"incr n 1", "-9223372036854775807"}},
		{{"incr n -1", "-1"}, {"incr n -9223372036854775808", "error: …overflow…"}, {"get n", "-1"}},
		{{"set x one", "ok"}, {"incr x", `error: x is "one", not a number…`}, {"get x", "one"}, {"set x 7", "ok"}, {"incr x", "8"}},
		{{`set x ""`, "ok"}, {"incr x", `error: x is ""…`}, {"get x", ""}},
		{{"set x 9223372036854775808", "ok"}, {"incr x", "error: x is …"}},
		{{"set x " + long, "ok"}, {"incr x", "error: x is …nothing changed"}, {"get x", long}},

		{{"set x a", "ok"}, {"cas x a b", "ok"}, {"get x", "b"}, {"cas x a c", `error: x is "b", not "a"; nothing changed`}, {"get x", "b"}},
		{{"cas x a b", `error: x is (none), not "a"; nothing changed`}, {"get x", "(none)"}},
		{{"cas x (none) b", `error: x is (none), not "(none)"; nothing changed`}, {`cas x "" b`, `error: x is (none), not ""; nothing changed`}},
		{{`set x ""`, "ok"}, {`cas x "" b`, "ok"}, {"get x", "b"}},
		{{"set x " + long, "ok"}, {"cas x " + long + "? b", "error: x is \"vvv…; nothing changed"}, {"cas x " + long + " b", "ok"}, {"get x", "b"}},
		{{"set " + strings.Repeat("\x01", maxKey) + " " + long, "ok"}, {"incr " + strings.Repeat("\x01", maxKey), "error: …not a number…"},
			{"cas " + strings.Repeat("\x01", maxKey) + " " + long + "? b", "error: …nothing changed"}},
		{{"set x héé", "ok"}, {"cas x " + strings.Repeat("é", 500) + " b", "error: x is \"héé\", not \"…; nothing changed"}},

		// Words and quotes. The last argument of set and cas runs to the end of the line.
		{{"set x two words", "ok"}, {"get x", "two words"}, {"cas x two words", `error: x is "two words", not "two"; nothing changed`},
			{`cas x "two words" three more words`, "ok"}, {"get x", "three more words"}},
		{{"  set\tx \t a  b  ", "ok"}, {"get   x ", "a  b"}},
		{{`set x " a "`, "ok"}, {"get x", " a "}, {`set x "a" `, "ok"}, {"get x", "a"}},
		{{`set x it's a "word"`, "ok"}, {"get x", `it's a "word"`}, {`set x \n`, "ok"}, {"get x", `\n`}},
		{{`set x "a\tb\n"`, "ok"}, {"get x", `"a\tb\n"`}, {`set x "\u00e9\"\\"`, "ok"}, {"get x", `é"\`}},
		{{"set x a\u00a0b", "ok"}, {"get x", `"a\u00a0b"`}, {"set x日本語 日本語", "ok"}, {"get x日本語", "日本語"}},
		{{`set "a key" 1`, "ok"}, {`get "a key"`, "1"}, {`incr "a key" 1`, "2"}, {`del "a key"`, "ok"}},
		// On the console these end a command or begin a comment; here they are characters.
		{{"set x a; b # c @2", "ok"}, {"get x", "a; b # c @2"}, {"set #;@ 1", "ok"}, {"get #;@", "1"}},

		{{"", "error: an empty command…"}, {"  \t ", "error: an empty command…"}, {"frobnicate", `error: no such command "frobnicate"…`},
			{"SET x 1", `error: no such command "SET"…`}, {"status", `error: no such command "status"…`}, {"@2 get x", `error: no such command "@2"…`},
			{"x" + long, "error: no such command \"xvv…"}, {strings.Repeat("\x01", 500), "error: no such command…"}},
		{{"set", "error: set needs KEY VALUE (got 0 words)"}, {"set x", "error: set needs KEY VALUE (got 1 word)"}, {"set x  ", "error: set needs KEY VALUE (got 1 word)"}, {`set ""`, "error: set needs KEY VALUE (got 1 word)"},
			{"get", "error: get needs KEY (got 0 words)"}, {"get x y", "error: get needs KEY (got 2 words)"}, {"del", "error: del needs KEY…"},
			{"del x y z", "error: del needs KEY (got 3 words)"}, {"incr", "error: incr needs KEY or KEY N (got 0 words)"}, {"incr x 1 2", "error: incr needs KEY or KEY N (got 3 words)"},
			{"cas", "error: cas needs KEY OLD NEW (got 0 words)"}, {"cas x", "error: cas needs KEY OLD NEW (got 1 word)"}, {"cas x a", "error: cas needs KEY OLD NEW (got 2 words)"}},
		{{`set "x 1`, "error: an unfinished quote…"}, {`"set x 1`, "error: an unfinished quote…"}, {`"set"x 1`, "error: text right after…"}, {`set x "1`, "error: an unfinished quote…"}, {`get "x`, "error: an unfinished quote…"},
			{`incr x "1`, "error: an unfinished quote…"}, {`cas x "a b`, "error: an unfinished quote…"}, {`set x "\q"`, "error: …an escape…"}},
		{{`set "x"y 1`, `error: text right after a closing quote: "y 1"`}, {`get "x"y`, "error: text right after…"}, {`set x "1"2`, "error: text right after…"},
			{`set x "1" 2`, `error: text after the closing quote…`}, {`cas x a "1" 2`, `error: text after the closing quote…`}, {`set x "1"` + long, "error: text right after…"}},
		{{"incr x one", `error: …not "one"`}, {"incr x 1.5", `error: …not "1.5"`}, {`incr x ""`, `error: …not ""`}, {"incr x 0x10", `error: …not "0x10"`}, {"incr x 1_0", `error: …not "1_0"`},
			{"incr x 9223372036854775808", "error: …64 bits…"}, {"incr x -9223372036854775809", "error: …64 bits…"}, {"get x", "(none)"}},
		{{"set x \xff", "error: …not valid UTF-8"}, {"\xff", "error: …not valid UTF-8"}, {`set x "\xff"`, "error: …valid UTF-8…"}, {`set "\xff" 1`, "error: …valid UTF-8…"},
			{`cas x "\xff" 1`, "error: …valid UTF-8…"}, {`set x "\xc3\xa9"`, "ok"}, {"get x", "é"}},
		{{"set x a\nb", "error: a command is one line…"}, {"set x a\rb", "error: a command is one line…"}, {"get x\n", "error: a command is one line…"}},

		{{"set " + strings.Repeat("k", maxKey) + " 1", "ok"}, {"set " + strings.Repeat("k", maxKey+1) + " 1", "error: a key has 1 to 256 bytes, not 257"},
			{"get " + strings.Repeat("k", maxKey), "1"}, {"get " + strings.Repeat("k", maxKey+1), "error: a key…"}, {"get " + strings.Repeat("é", 129), "error: a key…"},
			{`set "" 1`, "error: a key has 1 to 256 bytes, not 0"}, {`get ""`, "error: a key…"}},
		{{"set x " + strings.Repeat("v", maxCommand-6), "ok"}, {"get x", strings.Repeat("v", maxCommand-6)},
			{"set y " + strings.Repeat("v", maxCommand-5), "error: the command has 32769 bytes, the limit is 32768"}, {"get y", "(none)"}},
		// Escapes blow a command up on its way into JSON, and a value on its way to the client.
		{{"set x ?" + strings.Repeat(`"`, 30_000), "ok"}, {"set y ?" + strings.Repeat(`"`, 32_600), "error: …would not fit…"}, {"get y", "(none)"}},
		{{"set x " + strings.Repeat("\x01", 10_000), "ok"}, {"set y " + strings.Repeat("\x01", 12_000), "error: …would not fit…"}},
		{{"set x " + strings.Repeat("\x7f", 12_000), "ok"}, {"set y " + strings.Repeat("\x7f", 14_000), "error: …would not fit…"}},
	} {
		s := leaderOf(1, 2)
		for _, line := range script {
			before := fmt.Sprint(s.machine.values)
			got := typed(t, s, line[0])
			if !answersLike(got, line[1]) {
				t.Errorf("%.60s\n got %.300s\nwant %.300s", line[0], got, line[1])
			}
			if strings.HasPrefix(line[1], "error: ") && before != fmt.Sprint(s.machine.values) {
				t.Errorf("%.60s: an error has changed something", line[0])
			}
		}
	}
}

// TestMalformedEverywhere: what no log will ever hold is refused by every server, at once and
// for good; there is no leader to ask about it.
func TestMalformedEverywhere(t *testing.T) {
	for _, s := range []*server{followerOf(3, hardState{2, none}), candidateOf(3, 2), settledLeaderOf(3, 2), leaderOf(1, 2)} {
		last := s.lastIndex()
		expect(t, s.role.String(), words(told(s.Step(asks("c", 1, "set x"))), s.lastIndex()), words("c/1 error: set needs KEY VALUE (got 1 word)", last))
	}
}

// TestSplitCommands: how the console cuts a line.
func TestSplitCommands(t *testing.T) {
	for _, row := range []struct {
		line string
		want []string
	}{
		{"", nil},
		{"  \t", nil},
		{"# all of it", nil},
		{"get x", []string{"get x"}},
		{"set x 1; get x", []string{"set x 1", "get x"}},
		{";; get x ;;", []string{"get x"}},
		{"get x # and why", []string{"get x"}},
		{"get x#y", []string{"get x"}},
		{"get x # one; get y", []string{"get x"}},
		{`set x "a;b # c"; get x`, []string{`set x "a;b # c"`, "get x"}},
		{`set x "a\";b"; get x`, []string{`set x "a\";b"`, "get x"}},
		{`set x "a\\"; get x`, []string{`set x "a\\"`, "get x"}},
		{`set x 5"; get x`, []string{`set x 5"`, "get x"}}, // a quote opens at the beginning of a word only
		{`"a";"b`, nil},
		{`set x ";`, nil},
		{`get x; set x "`, nil},
		{`set x "a\`, nil},
		{"@2,3 log; @all status", []string{"@2,3 log", "@all status"}},
	} {
		got, err := splitCommands(row.line)
		wantError := row.want == nil && strings.Contains(row.line, `"`)
		expect(t, fmt.Sprintf("%q: refused", row.line), err != nil, wantError)
		expect(t, fmt.Sprintf("%q", row.line), fmt.Sprintf("%q", got), fmt.Sprintf("%q", row.want))
	}
}

// ---- Rules 6. The disk -----------------------------------------------------------------

// history is the file of S1 after a random life: data, where each line ends, and the state
// (term, vote and log) that was written so far at each of these ends.
type history struct {
	data   []byte
	ends   []int
	states []string
}

func stateOf(hard hardState, log []entry) string { return fmt.Sprint(hard, log) }

// randomHistory lets a server change its term, vote and log by the two functions that may.
func randomHistory(t *testing.T, seed uint64, changes int) (h history) {
	r := rand.New(rand.NewPCG(seed, seed))
	commands := []string{"set x 1", `set y "\n{}"`, "set é {\"a\":[1,2]}", "del x", "incr n -5"}
	s := followerOf(3, hardState{})
	var hard hardState
	var log []entry
	h.add([]byte(sealed(fmt.Sprintf(`{"format":%q,"server":1}`, diskFormat))), hard, log)
	for range changes {
		if r.IntN(2) == 0 || s.currentTerm == 0 {
			term := s.currentTerm + r.IntN(2)
			if s.votedFor == none || term > s.currentTerm {
				s.setTermAndVote(term, r.IntN(4))
			}
		} else {
			index := max(1, s.lastIndex()+1-r.IntN(3)) // often the end, at times a cut
			var entries []entry
			for range 1 + r.IntN(3) {
				e := entry{Term: s.currentTerm}
				if r.IntN(4) > 0 {
					e.Client, e.Serial, e.Command = "c", 1+r.IntN(9), commands[r.IntN(len(commands))]
				}
				entries = append(entries, e)
			}
			s.store(index, entries...)
		}
		for _, r := range s.out.Persist {
			if r.hard != nil {
				hard = *r.hard
			} else {
				log = append(slices.Clone(log[:r.index-1]), r.entry) // [DK2]
			}
			h.add(appendRecord(nil, r), hard, log)
		}
		s.out = Output{}
		expect(t, "the records against the memory", stateOf(hard, log), stateOf(hardState{s.currentTerm, s.votedFor}, logOf(s)))
	}
	return h
}

func (h *history) add(line []byte, hard hardState, log []entry) {
	h.data = append(h.data, line...)
	h.ends = append(h.ends, len(h.data))
	h.states = append(h.states, stateOf(hard, log))
}

// TestRestart: after every record, a server that starts from the file is the one that wrote
// it. Long lines too: a reader that stops at 64 KB would lose all that follows.
func TestRestart(t *testing.T) {
	for seed := range uint64(8) {
		h := randomHistory(t, seed, 40)
		for i, end := range h.ends {
			hard, log, good, err := replay(h.data[:end], 1)
			expect(t, "after a restart", words(stateOf(hard, log), good, err), words(h.states[i], end, nil))
		}
	}
	dir := t.TempDir()
	long := entry{1, "c", 1, "set x " + strings.Repeat("v", 70_000)}
	d := opened(t, dir, 1)
	if err := errors.Join(d.append([]record{{hard: &hardState{1, none}}}), d.append([]record{{index: 1, entry: long}, {index: 2, entry: entry{Term: 1}}})); err != nil {
		t.Fatal(err)
	}
	d.file.Close()
	d, hard, log, note, err := openDisk(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	d.file.Close()
	expect(t, "a line of 70 KB", words(hard, len(log), log[0] == long, note), words(hardState{1, none}, 2, true, ""))
}

// opened is openDisk where it must succeed.
func opened(t *testing.T, dir string, id int) *disk {
	t.Helper()
	d, _, _, _, err := openDisk(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.file.Close() })
	return d
}

// TestTornTail cuts the file at every byte [DK3]: what was written whole is there, and the
// rest is to be cut off, also where the file had grown already and holds zeros or blanks.
func TestTornTail(t *testing.T) {
	h := randomHistory(t, 1, 20)
	whole := 0 // lines
	for cut := 0; cut <= len(h.data); cut++ {
		want, wantGood := stateOf(hardState{}, nil), 0
		if whole < len(h.ends) && cut == h.ends[whole] {
			whole++
		}
		if whole > 0 {
			want, wantGood = h.states[whole-1], h.ends[whole-1]
		}
		for _, tail := range []string{"", "\x00\x00\x00\x00", "    ", "\xff{{{", "\n"} {
			if strings.Trim(tail, "\x00 ") != "" && (cut == 0 || cut != wantGood) {
				continue // garbage is tried behind whole lines only; a file of nothing else is not ours
			}
			hard, log, good, err := replay(append(slices.Clone(h.data[:cut]), tail...), 1)
			expect(t, fmt.Sprintf("cut at byte %d, %q behind", cut, tail), words(stateOf(hard, log), good, err), words(want, wantGood, nil))
		}
	}
}

// TestDamage flips every bit of a file. A flip before the last line is no torn write: the
// server refuses, and names the line [DK4]. In the last line it may be one; then what was there
// before remains. Nothing is ever read that was not written.
func TestDamage(t *testing.T) {
	h := randomHistory(t, 3, 8)
	last := len(h.ends) - 1
	damaged := 0 // line of the flip, from 0
	for at := range h.data {
		if at >= h.ends[damaged] {
			damaged++
		}
		for bit := range 8 {
			data := slices.Clone(h.data)
			data[at] ^= 1 << bit
			hard, log, good, err := replay(data, 1)
			name := fmt.Sprintf("byte %d of line %d, bit %d", at, damaged+1, bit)
			switch {
			case err != nil:
				expect(t, name+": names the line", strings.HasPrefix(err.Error(), fmt.Sprintf("line %d: ", damaged+1)), true)
			case damaged < last:
				t.Errorf("%s: not noticed", name)
			default:
				expect(t, name, words(stateOf(hard, log), good), words(h.states[last-1], h.ends[last-1]))
			}
		}
	}
}

// TestRefusedFiles: files that no crash leaves behind.
func TestRefusedFiles(t *testing.T) {
	header := fmt.Sprintf(`{"format":%q,"server":1}`, diskFormat)
	for _, row := range []struct {
		name  string
		lines []string // JSON, or a whole line if it begins with !
		want  string   // the error, or the state
	}{
		{"another server's file", []string{strings.Replace(header, "1}", "2}", 1)}, "line 1: …server 2…"},
		{"another format", []string{`{"format":"raft.go 0","server":1}`}, "line 1: …format…"},
		{"no header", []string{`{"term":1,"votedFor":0}`}, "line 1: …format…"},
		{"intact, but no record", []string{header, `[1]`}, "line 2: …"},
		{"an empty record", []string{header, `{}`}, "line 2: …"},
		{"a term without a vote", []string{header, `{"term":2}`}, "line 2: …"},

		{"a term that falls", []string{header, `{"term":2,"votedFor":0}`, `{"term":1,"votedFor":0}`}, "line 3: …falls…"},
		{"… that stays", []string{header, `{"term":2,"votedFor":0}`, `{"term":2,"votedFor":3}`}, stateOf(hardState{2, 3}, nil)},
		{"a vote that changes", []string{header, `{"term":2,"votedFor":3}`, `{"term":2,"votedFor":1}`}, "line 3: …vote…"},
		{"… that is taken back", []string{header, `{"term":2,"votedFor":3}`, `{"term":2,"votedFor":0}`}, "line 3: …vote…"},
		{"… in a new term", []string{header, `{"term":2,"votedFor":3}`, `{"term":3,"votedFor":1}`}, stateOf(hardState{3, 1}, nil)},

		{"a gap at the beginning", []string{header, `{"term":1,"votedFor":0}`, `{"index":2,"term":1}`}, "line 3: …gap…"},
		{"a gap", []string{header, `{"term":1,"votedFor":0}`, `{"index":1,"term":1}`, `{"index":3,"term":1}`}, "line 4: …gap…"},
		{"no gap", []string{header, `{"term":1,"votedFor":0}`, `{"index":1,"term":1}`, `{"index":2,"term":1}`}, stateOf(hardState{1, 0}, entriesOf(terms{1, 1}))},
		{"a cut", []string{header, `{"term":2,"votedFor":0}`, `{"index":1,"term":1}`, `{"index":2,"term":1}`, `{"index":1,"term":2}`}, stateOf(hardState{2, 0}, entriesOf(terms{2}))},
		{"terms that fall along the log", []string{header, `{"term":2,"votedFor":0}`, `{"index":1,"term":2}`, `{"index":2,"term":1}`}, "line 4: …term 1…"},
		{"an entry of the future", []string{header, `{"term":1,"votedFor":0}`, `{"index":1,"term":2}`}, "line 3: …term 2…"},
		{"an entry and more", []string{header, `{"term":1,"votedFor":0}`, `{"index":1,"term":1}}`}, "line 3: …"},
		{"an entry of no term", []string{header, `{"term":1,"votedFor":0}`, `{"index":1,"term":0}`}, "line 3: …term 0…"},

		{"damage before an intact record", []string{header, "!00000000 {\"term\":1,\"votedFor\":0}\n", `{"term":2,"votedFor":0}`}, "line 2: …"},
		{"… before one in the same line", []string{header, "!garbage ", `{"term":2,"votedFor":0}`}, "line 2: …"},
		{"… in the header", []string{"!00000000 {}\n", `{"term":2,"votedFor":0}`}, "line 1: …"},
		{"damage with nothing behind it", []string{header, `{"term":2,"votedFor":0}`, "!00000000 {\"term\":3,\"votedFor\":0}\n"}, stateOf(hardState{2, 0}, nil)},
		{"a checksum in capitals", []string{header, "!" + strings.ToUpper(sealed(`{}`)[:8]) + " {}\n"}, stateOf(hardState{}, nil)},
		{"an empty file is a new server", nil, stateOf(hardState{}, nil)},
		{"one that was never ours is not", []string{"!once upon a time\n"}, "line 1: …"},
		// A client may write what looks like a record; inside the JSON its quotes are escaped.
		{"a torn record that quotes another", []string{header, `{"term":1,"votedFor":0}`, "!00000000 {\"index\":1,\"term\":1,\"client\":\"c\",\"serial\":1,\"command\":\"set x " +
			strings.Trim(sealed("{}"), "\n") + " " + strings.ReplaceAll(strings.Trim(sealed(`{"term":1}`), "\n"), `"`, `\"`) + " and"}, stateOf(hardState{1, 0}, nil)},
	} {
		data := ""
		for _, line := range row.lines {
			if text, whole := strings.CutPrefix(line, "!"); whole {
				data += text
			} else {
				data += sealed(line)
			}
		}
		hard, log, _, err := replay([]byte(data), 1)
		got := stateOf(hard, log)
		if err != nil {
			got = err.Error()
		}
		if !answersLike(got, row.want) {
			t.Errorf("%s:\n got %s\nwant %s", row.name, got, row.want)
		}
	}
}

// TestOpenDisk is the same with real files, and what openDisk does besides.
func TestOpenDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when missing")
	name := filepath.Join(dir, "server-2.log")
	d := opened(t, dir, 2)
	header, _ := os.ReadFile(name)
	expect(t, "DK1 a new file", string(header), sealed(fmt.Sprintf(`{"format":%q,"server":2}`, diskFormat)))
	if err := d.append([]record{{hard: &hardState{1, 2}}, {index: 1, entry: entry{1, "c7", 3, "set x 1"}}}); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(name)
	expect(t, "the file is text", string(whole), string(header)+sealed(`{"term":1,"votedFor":2}`)+sealed(`{"index":1,"term":1,"client":"c7","serial":3,"command":"set x 1"}`))

	for cut := range len(header) {
		os.WriteFile(name, whole[:cut], 0o644)
		_, hard, log, note, err := openDisk(dir, 2)
		data, _ := os.ReadFile(name)
		expect(t, "a torn first record is a new server", words(hard, len(log), err, note != "", string(data)), words(hardState{}, 0, nil, cut > 0, string(header)))
	}

	os.WriteFile(name, whole[:len(whole)-9], 0o644)
	d, hard, log, note, err := openDisk(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "DK3 a torn tail", words(hard, len(log), strings.Contains(note, name)), words(hardState{1, 2}, 0, true))
	// It is off the disk before anything is appended, or the next record would hang on to it.
	d.append([]record{{index: 1, entry: entry{Term: 1}}})
	_, hard, log, note, err = openDisk(dir, 2)
	expect(t, "DK3 is cut off", words(hard, termsOf(log), note, err), words(hardState{1, 2}, terms{1}, "", nil))

	os.WriteFile(name, append([]byte("x"), whole...), 0o644)
	_, _, _, _, err = openDisk(dir, 2)
	expect(t, "DK4 names file and line", strings.HasPrefix(fmt.Sprint(err), name+" line 1: "), true)
	data, _ := os.ReadFile(name)
	expect(t, "DK4 leaves the file as it is", len(data), len(whole)+1)

	os.WriteFile(filepath.Join(dir, "server-3.log"), whole, 0o644)
	_, _, _, _, err = openDisk(dir, 3)
	expect(t, "DK1 another server's file", answersLike(fmt.Sprint(err), "…server-3.log line 1: …server 2…"), true)
	if _, _, _, _, err = openDisk(name, 4); err == nil { // where the directory should be stands a file
		t.Error("no directory, no error")
	}
	d, _, _, _, err = openDisk(filepath.Join(dir, "a", "b", "c"), 1)
	expect(t, "folders in folders are made", words(err, d != nil), words(nil, true))
}

// TestGrowAhead: a file that is no longer small ends in blanks, which the next start takes for
// nothing, and which are gone when nothing was written for a while.
func TestGrowAhead(t *testing.T) {
	dir := t.TempDir()
	d := opened(t, dir, 1)
	if err := d.append([]record{{hard: &hardState{1, none}}}); err != nil {
		t.Fatal(err)
	}
	written, grew := 0, 0
	write := func() {
		t.Helper()
		written++
		before := d.size
		if err := d.append([]record{{index: written, entry: entry{1, "c7", written, "set x " + strings.Repeat("v", 1000)}}}); err != nil {
			t.Fatal(err)
		}
		if d.size != before {
			grew++
		}
	}
	look := func() (size, blanks int64) {
		data, _ := os.ReadFile(d.file.Name())
		return int64(len(data)), int64(len(data) - len(bytes.TrimRight(data, " ")))
	}
	ends := func(what string, blanks bool) {
		t.Helper()
		size, n := look()
		if n != size-d.end || (n > 0) != blanks || n > size/8 {
			t.Fatalf("%s: %d bytes, %d of them blanks; records: %d", what, size, n, d.end)
		}
	}
	for d.end+2000 < smallFile {
		write()
		ends("a small file", false)
	}
	for grew = 0; written < 200; {
		write()
	}
	if grew > 70 {
		t.Errorf("it grew %d times", grew)
	}
	ends("a file in use", true)
	d.file.Close()
	d = opened(t, dir, 1)
	ends("after a start", false)

	write()
	for range restTicks - 1 {
		d.tick()
	}
	ends("soon after a write", true)
	d.tick()
	ends("a file at rest", false)
	write()
	data, _ := os.ReadFile(d.file.Name())
	expect(t, "records", bytes.Count(data, []byte("\n")), 2+written)
}

// TestFailingDisk is [DK5]: an error of the disk is an error, of write and fsync alike.
func TestFailingDisk(t *testing.T) {
	some := []record{{hard: &hardState{1, none}}}
	d := opened(t, t.TempDir(), 1)
	expect(t, "nothing to write", d.append(nil), nil)
	d.file.Close()
	expect(t, "closed: fails", d.append(some) != nil, true)
	expect(t, "closed, nothing to write", d.append(nil), nil)

	readOnly, err := os.Open(d.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	expect(t, "read-only: fails", (&disk{file: readOnly}).append(some) != nil, true)

	if runtime.GOOS == "linux" { // this device takes the bytes, but has nothing to sync
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		_, err = null.WriteAt([]byte("x"), 0)
		expect(t, "write: succeeds", err, nil)
		expect(t, "fsync: fails", (&disk{file: null}).append(some) != nil, true)
	}

	// Two servers with the same file, which the port does not prevent where the ports differ.
	dir := t.TempDir()
	first, second := opened(t, dir, 1), opened(t, dir, 1)
	expect(t, "the first to write goes on", first.append(some), nil)
	expect(t, "the other one stops", answersLike(fmt.Sprint(second.append(some)), "somebody else…"), true)
	expect(t, "… and has changed nothing", first.append(some), nil)

	// Or it begins to write between a start's reading and cutting.
	file := first.file
	at, _ := file.Seek(0, io.SeekEnd)
	for _, row := range []struct {
		tail, then string
		same       bool
	}{{"    ", "    ", true}, {"    ", "{}  ", false}, {"    ", "     ", false}, {"    ", "   ", false}} {
		file.Truncate(at)
		file.WriteAt([]byte(row.then), at)
		expect(t, fmt.Sprintf("%q is now %q", row.tail, row.then), endsIn(file, int(at), []byte(row.tail)), row.same)
	}
}

// TestFailStop: a server whose disk fails says nothing more. What it may still send are the
// AppendEntries of a leader, which were ahead of the disk (D7). It runs in a process of its own.
func TestFailStop(t *testing.T) {
	const variable = "RAFT_TEST_FAIL_STOP"
	if to := os.Getenv(variable); to != "" {
		performOnBrokenDisk(t, netip.MustParseAddrPort(to))
		return
	}
	ear, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	child := exec.Command(os.Args[0], "-test.run=^TestFailStop$")
	child.Env = append(os.Environ(), variable+"="+ear.LocalAddr().String())
	output, err := child.CombinedOutput()
	expect(t, "one line, and a non-zero exit", words(strings.Count(string(output), "\n"), strings.HasPrefix(string(output), "error: "), err), words(1, true, "exit status 1"))
	var heard []string
	buf := make([]byte, maxDatagram)
	for ear.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); ; { // it has all arrived by now
		n, _, err := ear.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		heard = append(heard, string(buf[:n]))
	}
	expect(t, "what left before the disk failed", words(len(heard), strings.Contains(strings.Join(heard, ""), "appendEntries")), words(1, true))
}

// performOnBrokenDisk performs an Output of everything where the records cannot be written.
func performOnBrokenDisk(t *testing.T, to netip.AddrPort) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	d := opened(t, t.TempDir(), 1)
	d.file.Close()
	sh := &shell{server: followerOf(2, hardState{}), disk: d, conn: conn, addresses: map[int]netip.AddrPort{2: to}, screen: newScreen(false)}
	ae, yes := sendAE(1, 0, 0, nil, 0), voteReply(1, 1, true)
	ae.To, yes.To = 2, 2
	sh.perform(Output{Early: []Message{*ae}, Persist: []record{{hard: &hardState{1, 2}}}, Send: []Message{*yes},
		Reply: []reply{{to: to, client: "c", serial: 1, answer: answer{result: "ok"}}}})
}

// ---- Rules 7. The wire -------------------------------------------------------------------

// everyMessage is one of each kind, from S2 to S1.
func everyMessage() []*Message {
	entries := []entry{{3, "", 0, ""}, {5, "c7", 3, `set x "é\n<&>"`}, {5, "c8", 1, "set y \u2028\x01\x7f"}}
	return []*Message{
		askVote(5, 9, 4),
		voteReply(2, 5, true),
		voteReply(2, 5, false),
		sendAE(5, 9, 4, nil, 9),
		{From: 2, To: 1, Term: 5, At: 77, AppendEntries: &appendEntries{LeaderID: 2, PrevLogIndex: 9, PrevLogTerm: 3, Entries: entries, LeaderCommit: 4, Seq: 12}},
		answerAE(2, 5, appendEntriesReply{Success: true, MatchIndex: 10, Seq: 12}),
		answerAE(2, 5, appendEntriesReply{Seq: 12, PrevLogIndex: 9, ConflictTerm: 3, ConflictIndex: 4}),
	}
}

// received is decode at S1 of three.
func received(data string, from netip.AddrPort) (any, string) {
	return decode([]byte(data), from, 1, addressesOf(3))
}

var fromS2 = addressesOf(3)[2]

// asJSON is a value as encoding/json writes it: two equal ones are written alike.
func asJSON(v any) string {
	j, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(j)
}

// TestPlain: eight bytes at a time or one by one, each byte ends what is plain or does not,
// wherever it stands.
func TestPlain(t *testing.T) {
	for c := range 256 {
		is := c >= ' ' && c <= '~' && c != '"' && c != '\\'
		for at := range 20 {
			b := []byte("plain text, plain text")
			b[at] = byte(c)
			want := at
			if is {
				want = len(b)
			}
			if got := plain(string(b)); got != want {
				t.Errorf("plain(%q) = %d, not %d", b, got, want)
			}
		}
	}
}

// TestRoundTrip: what one server writes another reads; and it is the JSON that encoding/json
// would write, although the frequent ones are written by hand.
func TestRoundTrip(t *testing.T) {
	for _, m := range everyMessage() {
		data := string(appendMessage(nil, m))
		in, drop := received(data, fromS2)
		if drop != "" {
			t.Errorf("%s: %s", data, drop)
			continue
		}
		expect(t, "round trip", asJSON(in), asJSON(m))
		var byHand, byLibrary any
		if err := errors.Join(json.Unmarshal([]byte(data), &byHand), json.Unmarshal([]byte(asJSON(m)), &byLibrary)); err != nil {
			t.Error(err)
		}
		for _, v := range []any{byHand, byLibrary} { // a zero may be written or left out
			if at := v.(map[string]any); at["at"] == 0.0 {
				delete(at, "at")
			}
		}
		expect(t, "by hand and by encoding/json", asJSON(byHand), asJSON(byLibrary))
		expect(t, "one line", strings.IndexByte(data, '\n'), len(data)-1)
	}
	characters := []rune{'\u2028', '\u2029', '\ufeff', '\ufffd', '日', '😀', utf8.MaxRune}
	for c := range rune(0x200) {
		characters = append(characters, c)
	}
	for _, c := range characters { // each on its way through a command
		e := entry{1, "c", 1, string(c)}
		text := string(e.appendFields([]byte("{")))
		var back entry
		if err := json.Unmarshal([]byte(text), &back); err != nil || back != e {
			t.Errorf("%q: %s, %v", c, text, err)
		}
		if n := len(appendJSON(nil, e.Command)); n != jsonSize(e.Command) {
			t.Errorf("%q takes %d bytes, jsonSize says %d", c, n, jsonSize(e.Command))
		}
	}
}

// TestClientForm: these lines are fixed; other people's programs speak them.
func TestClientForm(t *testing.T) {
	anywhere := netip.MustParseAddrPort("10.1.2.3:4567")
	for _, data := range []string{
		`{"clientRequest":{"client":"c7","serial":1,"command":"incr n"}}`,
		`{"clientRequest":{"client":"c7","serial":1,"command":"incr n"}}` + "\n",
		` { "clientRequest" : {"command":"\u0069ncr n", "serial":1, "client":"c7"} } ` + "\r\n",
	} {
		in, drop := received(data, anywhere)
		r, ok := in.(*request)
		if !ok {
			t.Fatalf("%s: %s", data, drop)
		}
		expect(t, data, *r, request{"c7", 1, "incr n", anywhere})
	}
	for _, row := range []struct {
		reply   reply
		address string
		want    string
	}{
		{reply{client: "c7", serial: 1, answer: answer{result: "1"}}, "", `{"clientReply":{"client":"c7","serial":1,"result":"1"}}`},
		{reply{client: "c7", serial: 1, answer: answer{result: ""}}, "", `{"clientReply":{"client":"c7","serial":1,"result":""}}`},
		{reply{client: "c7", serial: 1, answer: answer{err: `x is "2", not "1"; nothing changed`}}, "",
			`{"clientReply":{"client":"c7","serial":1,"error":"x is \"2\", not \"1\"; nothing changed"}}`},
		{reply{client: "c7", serial: 1, answer: answer{err: errNotLeader}, leader: 2}, "127.0.0.1:9002",
			`{"clientReply":{"client":"c7","serial":1,"error":"not the leader","leader":2,"address":"127.0.0.1:9002"}}`},
		{reply{client: "c7", serial: 1, answer: answer{err: errNotLeader}}, "", `{"clientReply":{"client":"c7","serial":1,"error":"not the leader"}}`},
		{reply{client: "c7", serial: 1, answer: answer{err: errNotLeader}, leader: 2}, "", // leader and address come together or not at all
			`{"clientReply":{"client":"c7","serial":1,"error":"not the leader"}}`},
	} {
		got := string(appendReply(nil, &row.reply, row.address))
		expect(t, "reply", got, row.want+"\n")
		var d datagram
		if err := json.Unmarshal([]byte(got), &d); err != nil || d.ClientReply == nil {
			t.Errorf("%s: %v", got, err)
		}
	}
	// The sign for what is no character is a character, written either way. But a text that is no
	// UTF-8 is answered with an error: encoding/json would silently put that sign into it.
	for _, command := range []string{"set x \ufffd", `set x \ufffd`, `set x \uFFFD` + "\ufffd"} {
		in, drop := received(`{"clientRequest":{"client":"c7","serial":1,"command":"`+command+`"}}`, anywhere)
		r, ok := in.(*request)
		if !ok {
			t.Fatal(drop)
		}
		expect(t, command, told(leaderOf(1, 2).Step(r)), "c7/1 ok")
	}
	for _, command := range []string{"set x \xff", `set x \ud800`, `set x \\ufffd \ud800`} {
		in, drop := received(`{"clientRequest":{"client":"c7","serial":1,"command":"`+command+`"}}`, anywhere)
		r, ok := in.(*request)
		if !ok {
			t.Fatal(drop)
		}
		got := told(followerOf(3, hardState{}).Step(r))
		expect(t, command, strings.HasPrefix(got, "c7/1 error: ") && strings.Contains(got, "UTF-8"), true)
	}
}

// TestMalformedDatagrams: each row is a datagram with one thing wrong, and the reason for
// which it is dropped. The first rows are right.
func TestMalformedDatagrams(t *testing.T) {
	s2, s3, nobody := fromS2, addressesOf(3)[3], netip.MustParseAddrPort("127.0.0.1:5001")
	const (
		vote  = `{"from":2,"to":1,"term":5,"requestVote":{"candidateId":2,"lastLogIndex":9,"lastLogTerm":4}}`
		beat  = `{"from":2,"to":1,"term":5,"appendEntries":{"leaderId":2,"prevLogIndex":9,"prevLogTerm":4,"entries":[],"leaderCommit":9}}`
		entry = `{"from":2,"to":1,"term":5,"appendEntries":{"leaderId":2,"prevLogIndex":9,"prevLogTerm":4,"entries":[{"term":5,"client":"c7","serial":3,"command":"set x 1"}],"leaderCommit":9}}`
		yes   = `{"from":2,"to":1,"term":5,"requestVoteReply":{"voteGranted":true}}`
		ok    = `{"from":2,"to":1,"term":5,"appendEntriesReply":{"success":true,"matchIndex":10}}`
		hot   = `{"from":2,"to":1,"term":5,"at":7,"appendEntries":{"leaderId":2,"prevLogIndex":9,"prevLogTerm":4,"entries":[{"term":5}],"leaderCommit":9,"seq":3}}`
		ask   = `{"clientRequest":{"client":"c7","serial":1,"command":"incr n"}}`
		line  = `{"console":{"id":1,"line":"status"}}`
	)
	for _, row := range []struct {
		name, data, old, new string // old is replaced by new
		from                 netip.AddrPort
		why                  string
	}{
		{"RequestVote", vote, "", "", s2, ""},
		{"AppendEntries, idle", beat, "", "", s2, ""},
		{"AppendEntries", entry, "", "", s2, ""},
		{"AppendEntries, as we write it", hot, "", "", s2, ""},
		{"vote", yes, "", "", s2, ""},
		{"acknowledgement", ok, "", "", s2, ""},
		{"client", ask, "", "", nobody, ""},
		{"console", line, "", "", nobody, ""},
		{"space around", vote, vote, " \t" + vote + " \r\n", s2, ""},

		{"from another server's address", vote, "", "", s3, "not its address"},
		{"from a client's address", vote, "", "", nobody, "what is \"from\""},
		{"from ourselves", vote, `"from":2`, `"from":1`, addressesOf(3)[1], "not its address"},
		{"from nobody we know", vote, `"from":2`, `"from":9`, s2, "not its address"},
		{"from nowhere", vote, `"from":2,`, ``, s2, "says S0"},
		{"to another server", vote, `"to":1`, `"to":3`, s2, "for S3"},
		{"to nobody", vote, `"to":1,`, ``, s2, "for S0"},
		{"a candidate for another", vote, `"candidateId":2`, `"candidateId":3`, s2, "range"},
		{"a leader for another", beat, `"leaderId":2`, `"leaderId":3`, s2, "range"},
		{"console from another machine", line, "", "", netip.MustParseAddrPort("10.0.0.1:5001"), "another machine"},

		{"empty", "", "", "", s2, "JSON"},
		{"no JSON", "hello", "", "", s2, "JSON"},
		{"no object", "[" + vote + "]", "", "", s2, "JSON"},
		{"cut short", vote, `"lastLogTerm":4}}`, `"lastLogTerm":4}`, s2, "JSON"},
		{"two objects", vote, vote, vote + vote, s2, "more than one"},
		{"bytes behind it", vote, vote, vote + "\x00", s2, "more than one"},
		{"… behind a client's", ask, ask, ask + "\nx", nobody, "more than one"},
		{"… behind what a server of ours wrote", hot, hot, hot + "}", s2, "more than one"},
		{"a number with a zero before it", ask, `"serial":1`, `"serial":01`, nobody, "JSON"},
		{"a number too long", ask, `"serial":1`, `"serial":1000000000000000000000`, nobody, "JSON"},
		{"no number", hot, `"seq":3`, `"seq":`, s2, "JSON"},
		{"a line break in a string", ask, "incr n", "incr\nn", nobody, "JSON"},
		{"not UTF-8", entry, "set x 1", "set x \xff", s2, "UTF-8"},
		{"a string for a number", vote, `"term":5`, `"term":"5"`, s2, "JSON"},
		{"a fraction", vote, `"term":5`, `"term":5.5`, s2, "JSON"},

		{"no body", vote, `,"requestVote":{"candidateId":2,"lastLogIndex":9,"lastLogTerm":4}`, "", s2, "one body"},
		{"null for a body", yes, `{"voteGranted":true}`, `null`, s2, "null"},
		{"two bodies", yes, `"requestVoteReply"`, `"appendEntriesReply":{"success":true,"matchIndex":1},"requestVoteReply"`, s2, "one body"},
		{"a reply to a client", ask, ask, `{"clientReply":{"client":"c7","serial":1,"result":"1"}}`, s2, "what is"},
		{"a name in capitals", vote, `"term"`, `"TERM"`, s2, "what is"},
		{"… of a part", vote, `"lastLogTerm"`, `"LastLogTerm"`, s2, "what is"},
		{"… of a body", yes, `"requestVoteReply"`, `"RequestVoteReply"`, s2, "what is"},
		{"a name twice", vote, `"term":5`, `"term":4,"term":5`, s2, "here again"},
		{"… of a part", vote, `"lastLogTerm":4`, `"lastLogTerm":4,"lastLogTerm":4`, s2, "here again"},
		{"null for a number", vote, `"lastLogTerm":4`, `"lastLogTerm":null`, s2, "null"},
		{"unknown part", vote, `"term":5`, `"term":5,"preVote":true`, s2, "what is"},
		{"unknown part of a body", vote, `"lastLogTerm":4`, `"lastLogTerm":4,"x":1`, s2, "what is"},
		{"unknown part of an entry", entry, `"serial":3`, `"serial":3,"x":1`, s2, "what is"},

		{"no candidateId", vote, `"candidateId":2,`, ``, s2, "candidateId"},
		{"no lastLogIndex", vote, `"lastLogIndex":9,`, ``, s2, "lastLogIndex"},
		{"no lastLogTerm", vote, `,"lastLogTerm":4`, ``, s2, "lastLogTerm"},
		{"no voteGranted", yes, `"voteGranted":true`, ``, s2, "voteGranted"},
		{"no leaderId", beat, `"leaderId":2,`, ``, s2, "leaderId"},
		{"no prevLogIndex", beat, `"prevLogIndex":9,`, ``, s2, "prevLogIndex"},
		{"no prevLogTerm", beat, `"prevLogTerm":4,`, ``, s2, "prevLogTerm"},
		{"no entries", beat, `"entries":[],`, ``, s2, "entries"},
		{"null for entries", beat, `"entries":[]`, `"entries":null`, s2, "null"},
		{"no leaderCommit", beat, `,"leaderCommit":9`, ``, s2, "leaderCommit"},
		{"no success", ok, `"success":true,`, ``, s2, "success"},
		{"no matchIndex", ok, `,"matchIndex":10`, ``, s2, "matchIndex"},
		{"a name that looks like a part's", beat, `}}`, `},"appendEntries.seq":9}`, s2, "appendEntries.seq"},
		{"… and would stand for it", beat, `,"leaderCommit":9}}`, `},"appendEntries.leaderCommit":9}`, s2, "leaderCommit"},
		{"no client", ask, `"client":"c7",`, ``, nobody, "client"},
		{"no serial", ask, `"serial":1,`, ``, nobody, "serial"},
		{"no command", ask, `,"command":"incr n"`, ``, nobody, "command"},

		{"term 0", yes, `"term":5`, `"term":0`, s2, "range"},
		{"a negative term", yes, `"term":5`, `"term":-5`, s2, "range"},
		{"a term beyond everything", vote, `"term":5`, `"term":4503599627370497`, s2, "range"},
		{"the largest term", vote, `"term":5`, `"term":4503599627370496`, s2, ""},
		{"a negative clock", vote, `"term":5`, `"term":5,"at":-1`, s2, "range"},
		{"a negative index", vote, `"lastLogIndex":9`, `"lastLogIndex":-9`, s2, "range"},
		{"an index beyond everything", vote, `"lastLogIndex":9`, `"lastLogIndex":4503599627370496`, s2, "range"},
		{"more than 64 bits", vote, `"lastLogIndex":9`, `"lastLogIndex":99999999999999999999`, s2, "JSON"},
		{"a last term above the term", vote, `"lastLogTerm":4`, `"lastLogTerm":6`, s2, "range"},
		{"… equal to it: a leader that lost its reign", vote, `"lastLogTerm":4`, `"lastLogTerm":5`, s2, ""},
		{"an entry without a term", vote, `"lastLogTerm":4`, `"lastLogTerm":0`, s2, "range"},
		{"a term without an entry", vote, `"lastLogIndex":9`, `"lastLogIndex":0`, s2, "range"},
		{"a previous term above the term", beat, `"prevLogTerm":4`, `"prevLogTerm":6`, s2, "range"},
		{"a previous entry without a term", beat, `"prevLogTerm":4`, `"prevLogTerm":0`, s2, "range"},
		{"a negative leaderCommit", beat, `"leaderCommit":9`, `"leaderCommit":-1`, s2, "range"},
		{"a negative number", beat, `"leaderCommit":9`, `"leaderCommit":9,"seq":-1`, s2, "range"},
		{"a negative matchIndex", ok, `"matchIndex":10`, `"matchIndex":-1`, s2, "range"},
		{"a negative number echoed", ok, `"matchIndex":10`, `"matchIndex":10,"seq":-1`, s2, "range"},
		{"a negative conflict", ok, `"matchIndex":10`, `"matchIndex":10,"conflictIndex":-1`, s2, "range"},
		{"a negative conflict term", ok, `"matchIndex":10`, `"matchIndex":10,"conflictTerm":-1`, s2, "range"},
		{"a negative refusal", ok, `"matchIndex":10`, `"matchIndex":10,"prevLogIndex":-1`, s2, "range"},

		{"an entry of the future", entry, `[{"term":5`, `[{"term":6`, s2, "range"},
		{"an entry of term 0", entry, `[{"term":5`, `[{"term":0`, s2, "range"},
		{"an entry older than the one before it", entry, `[{"term":5`, `[{"term":3`, s2, "range"},
		{"… of the same term", entry, `[{"term":5`, `[{"term":4`, s2, ""},
		{"entries whose terms fall", beat, `[]`, `[{"term":5},{"term":4}]`, s2, "range"},
		{"… rise", beat, `[]`, `[{"term":4},{"term":5}]`, s2, ""},
		{"an entry without a client", entry, `"client":"c7",`, ``, s2, "range"},
		{"an entry without a serial", entry, `"serial":3,`, ``, s2, "range"},
		{"an entry with a client that is none", entry, `"c7"`, `"c 7"`, s2, "range"},

		{"serial 0", ask, `"serial":1`, `"serial":0`, nobody, "range"},
		{"a negative serial", ask, `"serial":1`, `"serial":-1`, nobody, "range"},
		{"a client without a name", ask, `"c7"`, `""`, nobody, "range"},
		{"… of 64 characters", ask, `c7`, strings.Repeat("c", 64), nobody, ""},
		{"… of 65", ask, `c7`, strings.Repeat("c", 65), nobody, "range"},
		{"… with a blank", ask, `c7`, `c 7`, nobody, "range"},
		{"… not ASCII", ask, `c7`, `é`, nobody, "range"},
		{"… with a control character", ask, `c7`, `c\u007f`, nobody, "range"},
		{"… with all that prints", ask, `c7`, `!~\"\\`, nobody, ""},
		{"a client with a term", ask, `{"clientRequest"`, `{"term":5,"clientRequest"`, nobody, "what is"},
		{"a client that says where to", ask, `{"clientRequest"`, `{"to":1,"clientRequest"`, nobody, "what is"},
		{"a client with a clock", ask, `{"clientRequest"`, `{"at":1,"clientRequest"`, nobody, "what is"},
		{"a client that says from where", ask, `{"clientRequest"`, `{"from":2,"clientRequest"`, s2, "only servers"},
	} {
		data := row.data
		if row.old != "" {
			data = strings.Replace(data, row.old, row.new, 1)
			if data == row.data && row.old != row.new {
				t.Errorf("%s: the row replaces nothing", row.name)
			}
		}
		in, drop := received(data, row.from)
		if (in == nil) != (drop != "") || (drop != "") != (row.why != "") || !strings.Contains(drop, row.why) {
			t.Errorf("%s\n got %v, dropped: %q\nwant dropped: %q", row.name, in, drop, row.why)
		}
	}
}

// TestBrackets: a datagram of nothing but brackets costs as little as any other.
func TestBrackets(t *testing.T) {
	for _, piece := range []string{"[", `{"a":`, `[{"":`} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, drop := received(strings.Repeat(piece, 5000), fromS2)
		runtime.ReadMemStats(&after)
		expect(t, piece+piece+"… is dropped, in a few megabytes", words(drop != "", (after.TotalAlloc-before.TotalAlloc)>>20 < 4), "true true")
	}
}

// TestLargestDatagrams: the largest command that is accepted fits into one datagram wherever
// it goes, whatever the numbers around it are; and no batch of entries exceeds one.
func TestLargestDatagrams(t *testing.T) {
	const huge = maxNumber - 1
	client := strings.Repeat(`"`, maxClient) // each of them is escaped
	for _, piece := range []string{"v", `\`, "\x01", "\x7f", "\u200b", "é", "<", "日"} {
		accepted := func(n int) bool {
			r := &request{Client: client, Serial: huge, Command: "set k ?" + strings.Repeat(piece, n)}
			op, err := parseOperation(r.Command)
			return err == nil && tooLarge(r, op) == nil
		}
		n := 0
		for step := 1 << 15; step > 0; step /= 2 {
			if accepted(n + step) {
				n += step
			}
		}
		value := "?" + strings.Repeat(piece, n)
		m := &Message{From: huge, To: huge, Term: huge, At: huge, AppendEntries: &appendEntries{LeaderID: huge, PrevLogIndex: huge,
			PrevLogTerm: huge, Entries: []entry{{huge, client, huge, "set k " + value}}, LeaderCommit: huge, Seq: huge}}
		answer := &reply{client: client, serial: huge, answer: answer{result: display(value)}}
		asked := datagram{ClientRequest: &request{Client: client, Serial: huge, Command: "set k " + value}} // as a console asks
		sizes := []int{len(appendMessage(nil, m)), len(appendReply(nil, answer, "")), len(appendAny(nil, asked))}
		if slices.Max(sizes) > maxDatagram {
			t.Errorf("%d times %q: AppendEntries, answer and request have %d bytes", n, piece, sizes)
		}
		if full := len("set k "+value) > maxCommand-4; !full && slices.Max(sizes) < maxDatagram-1024 {
			t.Errorf("%d times %q: refused without need, at %d bytes", n+1, piece, slices.Max(sizes))
		}
	}

	r := rand.New(rand.NewPCG(4, 4))
	for range 30 {
		s := followerOf(2, hardState{huge, none})
		for range 100 {
			s.log.append(entry{huge, client, huge, strings.Repeat(`"`, r.IntN(1<<r.IntN(15)))})
		}
		for index := 1; index <= s.lastIndex(); {
			entries := s.batch(index)
			m := &Message{From: huge, To: huge, Term: huge, At: huge, AppendEntries: &appendEntries{LeaderID: huge, PrevLogIndex: huge,
				PrevLogTerm: huge, Entries: entries, LeaderCommit: huge, Seq: huge}}
			if size := len(appendMessage(nil, m)); size > maxDatagram {
				t.Fatalf("%d entries in %d bytes", len(entries), size)
			}
			index += len(entries)
		}
	}
}

// TestLongAnswers: an answer of the console that is too long for a datagram is cut, whatever it
// grows to in JSON.
func TestLongAnswers(t *testing.T) {
	sh := shellInTemp(t)
	line := &consoleLine{ID: 7, from: sh.addresses[1]}
	for _, row := range []struct {
		text string
		cut  bool
	}{
		{"short", false},
		{strings.Repeat("v", maxBatchBytes-2), false},
		{strings.Repeat("v", maxBatchBytes-1), true},
		{strings.Repeat("\x01", 12_000), true},
		{strings.Repeat("\x01", 60_000), true},
		{strings.Repeat("é", 60_000), true},
	} {
		line.answer(sh, row.text)
		sh.conn.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, maxDatagram)
		n, err := sh.conn.Read(buf)
		var d datagram
		if err = errors.Join(err, json.Unmarshal(buf[:n], &d)); err != nil {
			t.Fatalf("%d bytes: %v", len(row.text), err)
		}
		text, cut := strings.CutSuffix(d.ConsoleReply.Text, " ... (cut)")
		expect(t, fmt.Sprint(len(row.text), " bytes"), words(cut, strings.HasPrefix(row.text, text)), words(row.cut, true))
	}
}

// TestCut: which messages pass, in and out, at S1 of three.
func TestCut(t *testing.T) {
	sh := &shell{server: followerOf(3, hardState{}), screen: newScreen(false)}
	passing := func() string {
		var pass []string
		for _, other := range []int{2, 3} {
			for _, m := range []*Message{askVote(1, 0, 0), voteReply(2, 1, true), sendAE(1, 0, 0, nil, 0), answerAE(2, 1, appendEntriesReply{})} {
				in, out := *m, *m
				in.From, in.To = other, 1
				out.From, out.To = 1, other
				word, _, _ := strings.Cut(m.text(), " ")
				if !sh.keepsOut(&in) {
					pass = append(pass, fmt.Sprintf("S%d>%s", other, word))
				}
				if sh.copies(&out) == 1 {
					pass = append(pass, fmt.Sprintf("%s>S%d", word, other))
				}
			}
		}
		return strings.Join(pass, " ")
	}
	votes := func(id int) string {
		return fmt.Sprintf("S%[1]d>RequestVote RequestVote>S%[1]d S%[1]d>VoteReply VoteReply>S%[1]d", id)
	}
	appends := func(id int) string {
		return fmt.Sprintf("S%[1]d>AppendEntries AppendEntries>S%[1]d S%[1]d>AppendReply AppendReply>S%[1]d", id)
	}
	everything := words(votes(2), appends(2), votes(3), appends(3))
	for _, row := range []struct{ line, passes, status string }{
		{"status", everything, "faults none"},
		{"cut 2", words(votes(3), appends(3)), "faults cut S2"},
		{"cut 3 vote", appends(3), "faults cut S2, cut S3 (vote)"},
		{"heal 2", words(votes(2), appends(2), appends(3)), "faults cut S3 (vote)"},
		{"cut all append", words(votes(2), votes(3)), "faults cut S2 (append), cut S3 (append)"},
		{"loss 100", "S2>RequestVote S2>VoteReply S3>RequestVote S3>VoteReply", "faults cut S2 (append), cut S3 (append), loss 100%"},
		{"heal", everything, "faults none"},
	} {
		if row.line != "status" {
			expect(t, row.line, sh.execute(row.line), "ok")
		}
		expect(t, row.line+": what passes", passing(), row.passes)
		expect(t, row.line+": what status shows", sh.faults.String(), row.status)
	}
}

// ---- Rules 8. The clock -----------------------------------------------------------------

// TestClock: what the loop makes of time. The simulator holds the other half, due: there is
// nothing to do in a tick that a server sleeps through.
func TestClock(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	c := clock{length: 10 * time.Millisecond, start: begin}
	for _, row := range []struct {
		name          string
		set, sleep    int // from this ms on the loop waits, for so many ticks
		wait          int // ms until its alarm
		woken, counts int // in this ms something wakes it; the ticks that it counts then
		ticked        bool
	}{
		{"the alarm: the tick that was waited for comes last", 0, 5, 50, 50, 5, true},
		{"a datagram before: the ticks so far are counted", 51, 5, 49, 73, 2, false},
		{"… and no part of one is lost", 73, 1, 7, 80, 1, true},
		{"nothing has passed", 80, 3, 30, 80, 0, false},
		{"a little late", 80, 3, 30, 119, 3, true},
		{"busy for eight ticks: one of them counts", 199, 1, 0, 199, 1, true},
		{"… also when it sleeps then", 290, 5, 40, 300, 2, false},
		{"late by a tick: the last one is still to come", 300, 5, 50, 360, 4, true},
		{"… and comes", 360, 1, 10, 370, 1, true},
		{"stopped for long: no burst, and the last one is still to come", 370, 5, 50, 9_000, 4, true},
		{"late for the next tick: that one has come", 9_000, 1, 10, 9_030, 1, true},
		{"a stop that fits into the sleep cannot be told from it", 9_030, 10, 100, 9_120, 9, false},
	} {
		wait := c.set(at(row.set), row.sleep)
		quiet, ticked := c.passed(at(row.woken))
		if ticked {
			quiet++
		}
		expect(t, row.name, words(wait.Milliseconds(), quiet, ticked), words(row.wait, row.counts, row.ticked))
	}
}

// ---- Rules 9. Fuzz targets --------------------------------------------------------------
//
// go test runs the seeds only; go test -fuzz FuzzDatagram . looks for more.

// FuzzDatagram: no datagram stops a server, unless it is forged by a server of the cluster and
// breaks an invariant. What is accepted is written and read back as the same.
func FuzzDatagram(f *testing.F) {
	for _, m := range everyMessage() {
		f.Add(appendMessage(nil, m))
	}
	for _, seed := range []string{``, `{}`, `null`, `{"from":2`, `{"FROM":2,"To":1,"tErm":5,"requestVoteReply":{"voteGranted":true}}`,
		`{"clientRequest":{"client":"c7","serial":1,"command":"incr n"}}`,
		`{"clientRequest":{"client":"c7","serial":18446744073709551615,"command":"set x \ud800"}}`,
		`{"from":2,"to":1,"term":4503599627370496,"appendEntriesReply":{"success":true,"matchIndex":4503599627370495,"seq":1}}`,
		`{"from":2,"to":1,"term":2,"appendEntriesReply":{"success":false,"matchIndex":0,"prevLogIndex":1,"conflictTerm":4503599627370495,"conflictIndex":0,"seq":1}}`,
		`{"from":2,"to":1,"term":1,"appendEntries":{"leaderId":2,"prevLogIndex":0,"prevLogTerm":0,"entries":[{"term":1}],"leaderCommit":4503599627370495}}`,
		`{"console":{"id":1,"line":"log 1"}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, drop := received(string(data), fromS2)
		if (in == nil) == (drop == "") {
			t.Fatalf("accepted %v and dropped %q", in, drop)
		}
		// The frequent forms have a reader of their own, which a blank in front puts off.
		if slow, _ := received(" "+string(data), fromS2); asJSON(in) != asJSON(slow) {
			t.Fatalf("%s, by encoding/json %s", asJSON(in), asJSON(slow))
		}
		var again []byte
		switch in := in.(type) {
		case *Message:
			again = appendMessage(nil, in)
		case *request:
			if again = appendAny(nil, datagram{ClientRequest: in}); !utf8.ValidString(in.Command) {
				again = data // it is marked as no UTF-8, and will be refused
			}
		default:
			return
		}
		if in2, drop := received(string(again), fromS2); drop != "" || asJSON(in) != asJSON(in2) {
			t.Fatalf("%s\nagain: %s %s", asJSON(in), drop, asJSON(in2))
		}
		for _, s := range []*server{followerOf(3, hardState{2, none}, 1, 1), candidateOf(3, 2, 1), leaderOf(3, 2, 1, 1)} {
			s.watch = 3 // narrate it, too
			stepForged(s, in)
		}
	})
}

// stepForged is Step for an input that may break an invariant on purpose.
func stepForged(s *server, in input) {
	defer func() {
		if r := recover(); r != nil {
			if _, deliberate := r.(brokenInvariant); !deliberate {
				panic(r)
			}
		}
	}()
	s.Step(in)
	s.Step(tick{})
}

// FuzzConsoleLine: no line stops a console, and every error is one short line.
func FuzzConsoleLine(f *testing.F) {
	for _, seed := range []string{"", "get x; set x 1 # why", `set x "a;b"; cas x "a;b" "\u00e9"`, `set x "\`, `"`, "incr n -9223372036854775808",
		"@2,3 log 1", "set \xff 1", "cas k \x01 " + strings.Repeat("\u0080", 200), `"a"b`, `set "" ""`} {
		f.Add(seed)
	}
	for _, c := range commands() {
		for _, args := range []string{"", " 1", " all", " 2 append", " \"\" -1 99999999999999999999", " on; " + c.name + " \xff\x01 é", " {\"to\":2}"} {
			f.Add(c.name + args)
		}
	}
	sh := shellInTemp(f)
	f.Fuzz(func(t *testing.T, line string) {
		commands, err := splitCommands(line)
		if err != nil && len(commands) > 0 {
			t.Fatal("an error, and commands as well")
		}
		for _, command := range commands {
			if command == "" || strings.Trim(command, " \t") != command {
				t.Fatalf("%q is not trimmed", command)
			}
		}
		again, err2 := splitCommands(strings.Join(commands, ";"))
		if err == nil && (err2 != nil || !slices.Equal(again, commands)) {
			t.Fatalf("%q, split again: %q %v", commands, again, err2)
		}
		s := leaderOf(1, 2)
		for _, command := range append(commands, line) {
			typed(t, s, command)
			if answer := sh.execute(command); answer == "" || !utf8.ValidString(answer) {
				t.Fatalf("%q: the answer is %q", command, answer)
			}
		}
	})
}

// shellInTemp is server 1 of three with everything but its loop; the others' addresses are its own.
func shellInTemp(t testing.TB) *shell {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	dir, self := t.TempDir(), conn.LocalAddr().(*net.UDPAddr).AddrPort()
	disk, _, _, _, err := openDisk(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &shell{server: followerOf(3, hardState{}), dir: dir, disk: disk, conn: conn, screen: newScreen(false),
		addresses: map[int]netip.AddrPort{1: self, 2: self, 3: self}}
}

// FuzzReplay: no file stops the reader, and what it says is good is good for ever. The second
// reading is of the same lines with the right checksums, or no fuzzer would come far.
func FuzzReplay(f *testing.F) {
	header := fmt.Sprintf(`{"format":%q,"server":1}`, diskFormat)
	for _, seed := range []string{"", header, header + "\n" + `{"term":1,"votedFor":2}`, header + "\n" + `{"term":2,"votedFor":0}` + "\n" + `{"index":1,"term":1}` + "\n" +
		`{"index":2,"term":2,"client":"c","serial":1,"command":"set x \"\""}` + "\n" + `{"index":1,"term":2}`,
		header + "\n" + `{"index":-1,"term":1}`, header + "\n" + `{"INDEX":1,"term":-1,"votedFor":null}`, "{\n{\n{{{{"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole []byte
		for _, line := range bytes.Split(data, []byte("\n")) {
			whole = appendLine(whole, line)
		}
		for _, data := range [][]byte{data, whole} {
			hard, log, good, err := replay(data, 1)
			if good < 0 || good > len(data) || err != nil && !strings.HasPrefix(err.Error(), "line ") {
				t.Fatalf("good %d of %d, %v", good, len(data), err)
			}
			hard2, log2, good2, err := replay(data[:good], 1)
			if err != nil || good2 != good || stateOf(hard, log) != stateOf(hard2, log2) {
				t.Fatalf("%v %v %d, again: %v %v %d %v", hard, log, good, hard2, log2, good2, err)
			}
		}
	})
}

// ---- Rules 10. The map from rule to code ---------------------------------------------------

// source is raft.go, parsed.
type source struct {
	text  string
	set   *token.FileSet
	file  *ast.File
	funcs map[string][]*ast.FuncDecl
}

func readSource(t *testing.T) *source {
	text, err := os.ReadFile("raft.go")
	if err != nil {
		t.Fatal(err)
	}
	src := &source{text: string(text), set: token.NewFileSet(), funcs: map[string][]*ast.FuncDecl{}}
	if src.file, err = parser.ParseFile(src.set, "raft.go", text, parser.ParseComments); err != nil {
		t.Fatal(err)
	}
	for _, decl := range src.file.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok {
			src.funcs[fn.Name.Name] = append(src.funcs[fn.Name.Name], fn)
		}
	}
	return src
}

// part is the range of offsets between two banners; the last part ends with the file.
func (src *source) part(t *testing.T, banner, next string) (from, to int) {
	from, to = strings.Index(src.text, "// "+banner), len(src.text)
	if next != "" {
		to = strings.Index(src.text, "// "+next)
	}
	if from < 0 || to < from {
		t.Fatalf("no %s or no %s", banner, next)
	}
	return from, to
}

func (src *source) offset(n ast.Node) int { return src.set.Position(n.Pos()).Offset }

func (src *source) line(n ast.Node) int { return src.set.Position(n.Pos()).Line }

var (
	bracketedTag = regexp.MustCompile(`\[((?:Persist|[A-Z][A-Za-z]+[0-9]+[ab]?))\]`)
	definedTag   = regexp.MustCompile(`(?m)^//\t((?:Persist|[A-Z][A-Za-z]+[0-9]+[ab]?))  `)
)

// TestRuleMap: every rule stands in brackets on the lines that carry it out, in the functions
// that the map in NOTES.md names, and nothing else stands in such brackets.
func TestRuleMap(t *testing.T) {
	src := readSource(t)
	defined := map[string]bool{}
	for _, m := range definedTag.FindAllStringSubmatch(src.text, -1) {
		if !regexp.MustCompile(`^D[0-9]+$`).MatchString(m[1]) { // the deviations are no rules
			defined[m[1]] = true
		}
	}
	for _, tag := range strings.Fields("Persist All1 All2 Fol1 Fol2 Cand1 Cand2 Cand3 Cand4 Lead1 Lead2 Lead3 Lead3a Lead3b Lead4 RV1 RV2 AE1 AE2 AE3 AE4 AE5") {
		if !defined[tag] {
			t.Errorf("%s has no line in the package comment's table", tag)
		}
	}
	used := map[string]bool{}
	for _, m := range bracketedTag.FindAllStringSubmatch(src.text, -1) {
		if used[m[1]] = true; !defined[m[1]] {
			t.Errorf("[%s] is in no table", m[1])
		}
	}
	for tag := range defined {
		if !used[tag] {
			t.Errorf("%s stands on no line", tag)
		}
	}

	notes, err := os.ReadFile("NOTES.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, found := strings.Cut(string(notes), "\n## The map\n")
	if !found {
		t.Log("NOTES.md has no map yet")
		return
	}
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	mapped := map[string]bool{}
	code := regexp.MustCompile("`([A-Za-z0-9]+)`")
	for _, line := range strings.Split(chapter, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		tag := strings.Trim(cells[0], " `")
		if !strings.HasPrefix(line, "|") || len(cells) < 2 || !defined[tag] {
			continue
		}
		mapped[tag] = true
		names := code.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(names) == 0 {
			t.Errorf("the map names no function for %s", tag)
		}
		for _, name := range names {
			if !src.carries(name[1], tag) {
				t.Errorf("[%s] does not stand in %s, as the map says", tag, name[1])
			}
		}
	}
	for tag := range defined {
		if !mapped[tag] {
			t.Errorf("%s is not in the map of NOTES.md", tag)
		}
	}
}

// carries tells whether a tag stands inside a function of this name.
func (src *source) carries(name, tag string) bool {
	for _, fn := range src.funcs[name] {
		body := src.text[src.offset(fn.Type):src.set.Position(fn.End()).Offset]
		if strings.Contains(body, "["+tag+"]") {
			return true
		}
	}
	return false
}

// TestCoreIsPure: Parts I and II are a function of their inputs. They call nothing that knows
// of files, sockets, clocks or other goroutines, draw no numbers but their own, and never take
// a map in the order that Go happens to choose.
func TestCoreIsPure(t *testing.T) {
	src := readSource(t)
	from, to := src.part(t, "PART I.", "PART III.")
	maps := map[string]bool{} // names of fields and variables that are maps
	ast.Inspect(src.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			if _, ok := n.Type.(*ast.MapType); ok {
				for _, name := range n.Names {
					maps[name.Name] = true
				}
			}
		case *ast.AssignStmt:
			for i, value := range n.Rhs {
				if lit, ok := value.(*ast.CompositeLit); ok && i < len(n.Lhs) {
					if _, ok := lit.Type.(*ast.MapType); ok {
						maps[lastName(n.Lhs[i])] = true
					}
				}
			}
		}
		return true
	})
	ast.Inspect(src.file, func(n ast.Node) bool {
		if n == nil || src.offset(n) < from || src.offset(n) > to {
			return true
		}
		switch n := n.(type) {
		case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
			t.Errorf("line %d: goroutines and channels are for Part III", src.line(n))
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := fn.X.(*ast.Ident); ok && slices.Contains([]string{"os", "net", "time", "sync", "atomic", "io", "rand", "runtime"}, pkg.Name) {
					t.Errorf("line %d calls %s.%s", src.line(n), pkg.Name, fn.Sel.Name)
				}
			}
		case *ast.RangeStmt:
			if maps[lastName(n.X)] || maps[lastName(callee(n.X))] {
				t.Errorf("line %d ranges over the map %s", src.line(n), lastName(n.X))
			}
		}
		return true
	})
}

// lastName is log of s.log and of log.
func lastName(n ast.Expr) string {
	switch n := n.(type) {
	case *ast.Ident:
		return n.Name
	case *ast.SelectorExpr:
		return n.Sel.Name
	}
	return ""
}

// callee is the first argument of a call such as maps.Keys(m), which is a range over m.
func callee(n ast.Expr) ast.Expr {
	if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
		return call.Args[0]
	}
	return n
}

// TestWhoChangesPersistentState: only two functions change currentTerm, votedFor and log, next
// to their records. (newServer, which makes a server, is the third.)
func TestWhoChangesPersistentState(t *testing.T) {
	src := readSource(t)
	allowed := map[string][]string{"currentTerm": {"setTermAndVote"}, "votedFor": {"setTermAndVote"}, "log": {"store", "newServer"}}
	for name, fns := range src.funcs {
		for _, fn := range fns {
			ast.Inspect(fn, func(n ast.Node) bool {
				var targets []ast.Expr
				switch n := n.(type) {
				case *ast.AssignStmt:
					targets = n.Lhs
				case *ast.IncDecStmt:
					targets = []ast.Expr{n.X}
				case *ast.CallExpr: // s.log.append, s.log.cut
					if f, ok := n.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "append" || f.Sel.Name == "cut") {
						targets = []ast.Expr{f.X}
					}
				}
				for _, target := range targets {
					field := changedField(target)
					if who, ours := allowed[field]; ours && !slices.Contains(who, name) {
						t.Errorf("line %d: %s changes %s", src.line(n), name, field)
					}
				}
				return true
			})
		}
	}
}

// changedField is log of s.log, *s.log.at(i) and s.log.at(i).Term; of a plain variable it is nothing.
func changedField(n ast.Expr) string {
	switch n := n.(type) {
	case *ast.StarExpr:
		return changedField(n.X)
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok {
			return changedField(f.X)
		}
	case *ast.SelectorExpr:
		if inner := changedField(n.X); inner != "" {
			return inner
		}
		return n.Sel.Name
	}
	return ""
}

// =============================================================================
// THE SIMULATOR
// =============================================================================
//
// A world of servers, disks, network, clients and clocks in which nothing is left to
// chance but one number. The servers are the real ones: Step, appendRecord, replay and
// decode of raft.go. What is simulated is what the machine would do to them, and it does
// its worst: it loses, doubles, delays and reorders datagrams, cuts the network in all
// shapes, kills processes between any two effects, tears writes at any byte, cuts the
// power, fails writes and fsyncs, stops processes and lets clocks run at their own pace.
//
//	go test -run TestSimulator                    the default run
//	go test -run TestSimulator -seeds 100000      a night
//	go test -run TestSimulator -seed 4711         one seed, with the end of its story
//
// To read it: S1 time · S2 a server and its disk · S3 the network · S4 clients · S5 faults
// S6 what must always hold · S7 what must happen in the end · S8 linearizability · S9 many
// seeds · S10 the story

var (
	flagSeed  = flag.Int("seed", 0, "simulator: run this `seed` only and tell the end of its story")
	flagSeeds = flag.Int("seeds", 0, "simulator: run so many `seeds` (0: as many as the default run needs)")
)

// ---- S1. Time ---------------------------------------------------------------------
//
// The world is a queue of events, ordered by virtual time. Everything that happens is the
// handling of one of them; everything random is drawn from the world's one generator. So
// the seed decides all, and a run can be repeated.

// moment is a point of virtual time, in thousandths of a nominal tick.
type moment int64

const oneTick moment = 1000

// An election timeout, the longest: what the bounds of S7 are counted in.
const oneTimeout = electionTicksMax * oneTick

type eventKind uint8

const (
	clockTicks  eventKind = iota // of a server
	inputComes                   // to a server
	writeEnds                    // of a server's disk
	fsyncEnds                    // of a server's disk
	serverWakes                  // after a pause
	serverStarts
	clientWakes
	answerComes // to a client
	hazardStrikes
	cutHeals
)

type event struct {
	at   moment
	no   int // events of one moment happen in the order in which they were planned
	kind eventKind
	to   int // server or client
	life int // of that server: an event does not outlive the process it concerns
	in   any // input, reply
	sent int // for messages: the number of the sending, to notice reordering
}

func (e *event) before(f *event) bool { return e.at < f.at || e.at == f.at && e.no < f.no }

// agenda is the queue, a binary heap.
type agenda []event

func (a *agenda) push(e event) {
	q := append(*a, e)
	i := len(q) - 1
	for i > 0 && e.before(&q[(i-1)/2]) {
		q[i] = q[(i-1)/2]
		i = (i - 1) / 2
	}
	q[i] = e
	*a = q
}

func (a *agenda) pop() event {
	q := *a
	first, last := q[0], q[len(q)-1]
	q[len(q)-1].in = nil
	q = q[:len(q)-1]
	i := 0
	for {
		child := 2*i + 1
		if child >= len(q) {
			break
		}
		if child+1 < len(q) && q[child+1].before(&q[child]) {
			child++
		}
		if !q[child].before(&last) {
			break
		}
		q[i] = q[child]
		i = child
	}
	if len(q) > 0 {
		q[i] = last
	}
	*a = q
	return first
}

// world is everything there is in one run.
type world struct {
	seed    int
	rand    *rand.Rand
	now     moment
	events  int // that have happened
	agenda  agenda
	planned int

	nodes   []*node // by id; nodes[0] is nil
	clients []*client

	weather   weather
	cut       [][]bool // cut[a][b]: nothing gets from a to b
	cuts      int      // number of the last partition
	sent      int      // datagrams,
	messages  int      // … those between servers,
	bytes     int      // … and how long they were, if json
	delivered [][]int  // delivered[a][b]: the latest of them that arrived
	json      bool     // every datagram is written and read by the code of raft.go
	calm      bool     // S7: faults are over,
	closing   bool     // … and so are new commands
	lastWrite int      // the event that answered it
	hazards   hazards

	judge judge
	hash  uint64 // of the whole run so far
	story *story // S10, only when it is told
	stack string // of a panic
}

// newWorld draws a cluster from a seed.
func newWorld(seed int) *world {
	w := emptyWorld(seed)
	w.build([]int{3, 5, 3, 5, 3, 5, 3, 4, 2, 7, 5, 1}[w.rand.IntN(12)])
	w.hazards = w.drawHazards()
	w.json = w.chance(30)
	for _, n := range w.nodes[1:] {
		w.start(n)
	}
	for id := range 2 + w.rand.IntN(5) {
		c := &client{id: id, name: fmt.Sprintf("c%d", id), patience: moment(10+w.rand.IntN(60)) * oneTick}
		w.clients = append(w.clients, c)
		w.alarm(c, w.upTo(20*oneTick))
	}
	w.plan(w.upTo(w.hazards.interval), event{kind: hazardStrikes})
	return w
}

func emptyWorld(seed int) *world {
	return &world{seed: seed, rand: rand.New(rand.NewPCG(uint64(seed), 0))}
}

// build makes n servers, not yet started.
func (w *world) build(n int) {
	w.nodes = make([]*node, n+1)
	w.cut, w.delivered = make([][]bool, n+1), make([][]int, n+1)
	for id := 1; id <= n; id++ {
		w.cut[id], w.delivered[id] = make([]bool, n+1), make([]int, n+1)
		w.nodes[id] = &node{id: id, image: image{chain: make([]link, 1)}, durable: image{chain: make([]link, 1)}}
	}
	w.judge = newJudge(n)
}

// plan puts an event into the agenda, after a while.
func (w *world) plan(after moment, e event) {
	w.planned++
	e.at, e.no = w.now+after, w.planned
	w.agenda.push(e)
}

// chance is true so many times in a thousand.
func (w *world) chance(perMille int) bool { return perMille > 0 && w.rand.IntN(1000) < perMille }

// upTo draws a time from 1 to d.
func (w *world) upTo(d moment) moment { return 1 + moment(w.rand.Int64N(int64(d))) }

// runUntil lets the world go on until a moment, or until something is done.
func (w *world) runUntil(end moment, done func() bool) bool {
	for len(w.agenda) > 0 && w.agenda[0].at <= end {
		e := w.agenda.pop()
		w.now = e.at
		w.handle(&e)
		if done != nil && done() {
			return true
		}
	}
	w.now = max(w.now, end)
	return false
}

// handle lets one event happen.
func (w *world) handle(e *event) {
	var n *node
	switch e.kind {
	case clockTicks, inputComes, writeEnds, fsyncEnds, serverWakes, serverStarts:
		n = w.nodes[e.to]
		if e.kind != inputComes && e.life != n.life || n.s == nil && e.kind != serverStarts {
			return // of a process that is no more
		}
		if n.asleep > w.now && (e.kind == writeEnds || e.kind == fsyncEnds) {
			w.plan(n.asleep-w.now, *e) // a stopped process learns of it later
			return
		}
	}
	w.events++
	w.digest(uint64(e.kind)<<32 | uint64(e.to))
	w.digest(uint64(w.now))
	w.story.begin(w, n, e)
	switch e.kind {
	case clockTicks:
		w.tick(n)
	case inputComes:
		w.arrive(n, e)
	case writeEnds:
		w.endWrite(n)
	case fsyncEnds:
		w.endFsync(n)
	case serverWakes:
		w.turn(n)
	case serverStarts:
		w.start(n)
	case clientWakes:
		w.wake(w.clients[e.to], e.life)
	case answerComes:
		w.hearAnswer(w.clients[e.to], e.in.(reply))
	case hazardStrikes:
		w.strike()
	case cutHeals:
		w.heal(e.life)
	}
	w.story.end(w, n)
}

// ticks is the time for people.
func (w *world) ticks() float64 { return float64(w.now) / float64(oneTick) }

// digest adds a number to the hash of the run.
func (w *world) digest(x uint64) {
	h := (w.hash ^ x) * 0x9E3779B97F4A7C15
	w.hash = h ^ h>>29
}

// ---- S2. A server and its disk ------------------------------------------------------
//
// The loop of chapter 13, in virtual time: what has arrived while the disk was busy or the
// process stopped is stepped at once. The effects of a Step happen in the order of perform,
// and the process may die between any two of them.

// node is a server and the machine it runs on.
type node struct {
	id     int
	s      *server // nil: not running
	life   int     // how many processes there were
	pace   moment  // between two ticks of its clock
	inbox  []input
	ticked bool
	out    Output // what the disk works on
	busy   bool
	asleep moment // stopped until then
	fuse   int    // so many effects until the process dies; 0 is never
	power  bool   // … and by a power cut

	// The file: what was written, how much of it survives a power cut, what comes next.
	data     []byte
	synced   int
	buf      []byte
	failing  eventKind // the next writeEnds or fsyncEnds is an error,
	doomed   eventKind // … or the moment at which the process dies
	writing  []promise // the records of buf …
	unsynced []promise // … and those that data holds behind synced

	image   image // S6: what the server should hold in memory,
	durable image // … and what its disk holds for certain
	seen    seen  // … and what the last look at it showed
	lucky   bool  // S7
}

// start starts a process: it reads the file, as openDisk does, and begins as a follower.
func (w *world) start(n *node) {
	hard, log, good, err := replay(n.data, n.id)
	w.judge.check(err == nil, "restart", "S%d refuses its file: %v", n.id, err)
	w.count(tornTail, good < len(n.data))
	w.restarted(n, hard, log, good)
	n.data, n.synced = n.data[:good], min(n.synced, good)
	if good == 0 {
		n.data = appendLine(n.data, fmt.Appendf(nil, `{"format":%q,"server":%d}`, diskFormat, n.id))
	}
	n.life++
	if !w.calm && w.hazards.active(powerCut) && w.chance(20) { // before the fsync of openDisk
		w.count(crashAtStart, true)
		w.cutPower(n)
		w.plan(w.upTo(w.hazards.downtime), event{kind: serverStarts, to: n.id, life: n.life})
		return
	}
	n.synced = len(n.data)
	w.becameDurable(n, n.synced)

	var peers []int
	for id := 1; id < len(w.nodes); id++ {
		if id != n.id {
			peers = append(peers, id)
		}
	}
	n.s = newServer(n.id, peers, hard, log, rand.New(rand.NewPCG(w.rand.Uint64(), 0)))
	n.s.batchLimit = w.hazards.batch // one by one, old entries travel without a leader's first: Figure 8
	n.seen = seen{term: hard.Term}
	n.asleep, n.fuse, n.failing, n.doomed, n.ticked, n.busy = 0, 0, 0, 0, false, false
	n.inbox = n.inbox[:0]
	n.pace = oneTick
	if !w.calm && w.hazards.active(clockSkew) {
		w.setClock(n)
	}
	w.plan(w.upTo(n.pace), event{kind: clockTicks, to: n.id, life: n.life})
}

// setClock lets n's clock run at half to twice the speed.
func (w *world) setClock(n *node) {
	n.pace = oneTick/2 + w.upTo(oneTick*3/2)
	w.count(clockSkew, true)
	w.count(slowClock, n.pace > oneTick*5/4)
	w.count(fastClock, n.pace < oneTick*3/4)
}

// tick is a beat of n's clock. A stopped process misses it: at most one waits.
func (w *world) tick(n *node) {
	w.plan(n.pace, event{kind: clockTicks, to: n.id, life: n.life})
	n.ticked = true
	w.turn(n)
}

// maxInbox is the receive buffer. What does not fit is lost.
const maxInbox = 200

// arrive delivers a datagram.
func (w *world) arrive(n *node, e *event) {
	if len(n.inbox) == maxInbox {
		return
	}
	if m, ok := e.in.(*Message); ok {
		last := &w.delivered[m.From][m.To]
		w.count(reordered, e.sent < *last)
		w.count(oldTerm, m.Term < n.s.currentTerm)
		*last = max(*last, e.sent)
	}
	n.inbox = append(n.inbox, e.in)
	w.turn(n)
}

// turn is one turn of the loop: it takes all that waits, the tick last.
func (w *world) turn(n *node) {
	if n.busy || n.asleep > w.now {
		return
	}
	w.count(batched, len(n.inbox) > 1)
	if n.ticked {
		n.inbox = append(n.inbox, tick{})
		n.ticked = false
	}
	if len(n.inbox) == 0 {
		return
	}
	w.story.took(n.inbox)
	sleeps := n.inbox[0] == tick{} && n.s.due() > n.s.now+1 && !n.s.behind()
	n.out = n.s.Step(n.inbox...)
	n.inbox = n.inbox[:0]
	w.stepped(n)
	if out := &n.out; sleeps && len(out.Early)+len(out.Persist)+len(out.Send)+len(out.Reply) > 0 {
		w.judge.check(false, "clock", "S%d had something to do in tick %d, but would have slept", n.id, n.s.now)
	}

	for i := range n.out.Early {
		if w.dies(n, crashBetweenEffects) {
			return
		}
		w.transmit(n, &n.out.Early[i], true)
	}
	if len(n.out.Persist) == 0 {
		w.respond(n)
		return
	}
	w.story.say("writes %d", len(n.out.Persist))
	n.buf = n.buf[:0]
	for i, r := range n.out.Persist {
		n.buf = appendRecord(n.buf, r)
		n.writing[i].end = len(n.data) + len(n.buf)
	}
	n.busy = true
	w.plan(w.upTo(w.hazards.writeTime), event{kind: writeEnds, to: n.id, life: n.life})
}

// endWrite: the write has gone through, or the process dies before, in the middle of it or
// after it.
func (w *world) endWrite(n *node) {
	whole := len(n.buf)
	bytes := whole
	dies := n.burns() || n.doomed == writeEnds
	if dies || n.failing == writeEnds {
		bytes = []int{0, w.rand.IntN(whole + 1), whole}[w.rand.IntN(3)]
	}
	n.unsynced = append(n.unsynced, n.writing...)
	n.data = append(n.data, n.buf[:bytes]...)
	switch {
	case n.failing == writeEnds:
		w.count(writeError, true)
		w.crash(n, false)
	case dies:
		w.count(crashBeforeWrite, bytes == 0)
		w.count(crashInWrite, bytes > 0 && bytes < whole)
		w.count(crashAfterWrite, bytes == whole)
		w.crash(n, n.power)
	default:
		w.plan(w.upTo(w.hazards.fsyncTime), event{kind: fsyncEnds, to: n.id, life: n.life})
	}
}

// endFsync: the fsync has gone through, or the process dies before, in the middle of it or
// after it.
func (w *world) endFsync(n *node) {
	rest := len(n.data) - n.synced
	bytes := rest
	dies := n.burns() || n.doomed == fsyncEnds
	if dies || n.failing == fsyncEnds {
		bytes = []int{0, w.rand.IntN(rest + 1), rest}[w.rand.IntN(3)]
	}
	n.synced += bytes
	switch {
	case n.failing == fsyncEnds: // What was not synced is gone, and no second fsync brings it back.
		w.count(fsyncError, true)
		n.data = n.data[:n.synced]
		w.crash(n, false)
		return
	case dies:
		w.count(crashBeforeFsync, bytes == 0)
		w.count(crashInFsync, bytes > 0 && bytes < rest)
		w.count(crashAfterFsync, bytes == rest)
		w.crash(n, n.power)
		return
	}
	w.becameDurable(n, n.synced)
	n.busy = false
	if w.respond(n) {
		w.turn(n)
	}
}

// respond is the second half of perform.
func (w *world) respond(n *node) bool {
	w.learned(n)
	for i := range n.out.Send {
		if w.dies(n, crashBetweenEffects) {
			return false
		}
		w.transmit(n, &n.out.Send[i], false)
	}
	for i := range n.out.Reply {
		if w.dies(n, crashBetweenEffects) {
			return false
		}
		w.answer(n, &n.out.Reply[i])
	}
	return !w.dies(n, crashBetweenEffects)
}

// burns tells whether this effect is the one at which the process dies.
func (n *node) burns() bool {
	if n.fuse == 0 {
		return false
	}
	n.fuse--
	return n.fuse == 0
}

// dies lets the process die between two effects, if its time has come.
func (w *world) dies(n *node, f hazard) bool {
	if !n.burns() {
		return false
	}
	w.count(f, true)
	w.crash(n, n.power)
	return true
}

// crash ends the process. A kill leaves the file as it was written; a power cut leaves
// what was synced and, with luck, some of the rest.
func (w *world) crash(n *node, power bool) {
	if n.s != nil {
		w.story.say("S%d DIES", n.id)
		w.count(kill, !power)
		w.count(powerCut, power)
		w.judge.bury(n.s)
		n.s = nil
		n.life++
		if !w.calm {
			w.plan(w.upTo(w.hazards.downtime), event{kind: serverStarts, to: n.id, life: n.life})
		}
	}
	if power {
		w.cutPower(n)
	}
	if w.chance(200) { // the file had grown ahead of its records
		w.count(blankTail, true)
		n.data = append(n.data, strings.Repeat(" ", 1+w.rand.IntN(200))...)
	}
}

func (w *world) cutPower(n *node) {
	whole := len(n.data)
	keep := []int{n.synced, n.synced + w.rand.IntN(whole-n.synced+1), whole}[w.rand.IntN(3)]
	n.data = n.data[:keep]
	if w.chance(200) { // a file system that knows the new length but not the new bytes
		w.count(zeroTail, keep < whole)
		n.data = append(n.data, make([]byte, whole-keep)...)
	}
}

// ---- S3. The network ------------------------------------------------------------------

// weather is what happens to datagrams, in thousandths of them.
type weather struct {
	loss, double int
	slow         int // take up to slowest; the others, up to usual
	late         int // come many election timeouts later, to another world
	usual        moment
	slowest      moment
}

const latest = 20 * oneTimeout

func (w *world) drawWeather() weather {
	v := weather{usual: oneTick / 10}
	if w.chance(700) {
		v.loss = w.rand.IntN(301)
	}
	if w.chance(600) {
		v.double = w.rand.IntN(300)
	}
	if w.chance(600) {
		v.slow = w.rand.IntN(300)
	}
	if w.chance(500) {
		v.late = w.rand.IntN(100)
	}
	v.usual = []moment{oneTick / 10, oneTick, 3 * oneTick, 8 * oneTick}[w.rand.IntN(4)]
	v.slowest = []moment{10 * oneTick, oneTimeout, 4 * oneTimeout}[w.rand.IntN(3)]
	return v
}

// transmit sends a Message. The copy is deep when the datagrams are real.
func (w *world) transmit(n *node, m *Message, early bool) {
	w.promised(n, m, early)
	w.messages++
	if w.cut[m.From][m.To] {
		return
	}
	if w.json {
		data := appendMessage(nil, m)
		w.bytes += len(data)
		in, drop := decode(data, serverAddress(m.From), m.To, addressBook)
		w.judge.check(drop == "", "JSON", "%s does not read %s", drop, data)
		w.carry(inputComes, m.To, in)
	} else {
		c := new(Message)
		*c = *m
		w.carry(inputComes, m.To, c)
	}
}

// carry gives a datagram to the network.
func (w *world) carry(kind eventKind, to int, in any) {
	v := &w.weather
	w.sent++
	if w.chance(v.loss) {
		w.count(lost, true)
		return
	}
	copies := 1
	if w.chance(v.double) {
		w.count(doubled, true)
		copies = 2
	}
	for range copies {
		delay := v.usual
		if w.chance(v.slow) {
			delay = v.slowest
		} else if w.chance(v.late) {
			delay = latest
		}
		delay = w.upTo(delay)
		w.count(slow, delay > 5*oneTick)
		w.count(late, delay > 3*oneTimeout)
		w.plan(delay, event{kind: kind, to: to, in: in, sent: w.sent})
	}
}

// addressBook has the addresses of servers, and clientAddress those of clients.
var addressBook = func() map[int]netip.AddrPort {
	book := map[int]netip.AddrPort{}
	for id := 1; id <= 9; id++ {
		book[id] = serverAddress(id)
	}
	return book
}()

func serverAddress(id int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(9000+id))
}

func clientAddress(id int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(10000+id))
}

// ---- S4. Clients -------------------------------------------------------------------------
//
// A client has one command outstanding. It asks a server, follows redirects, asks again,
// the same one or another; it sometimes gives up and comes back under another name, and
// what became of the command it then never learns.

type client struct {
	id       int
	name     string
	names    int
	serial   int // of its last write
	reads    int
	patience moment // before it asks again
	alarm    int
	waiting  bool
	call     int // the outstanding one, in history
	request  request
	guess    int // whom it asked last
}

// call is a command of a client, for the history that LIN judges.
type call struct {
	client   int
	asked    asked
	command  string
	invoked  int // event numbers
	returned int // 0: never
	answer   answer
	words    []string
	order    int // a hint: calls with a smaller one were probably first
}

// firstRead is where the serials of reads begin; they only tell answers apart.
const firstRead = 1 << 20

func (w *world) wake(c *client, alarm int) {
	switch {
	case alarm != c.alarm || !c.waiting && w.closing:
		return
	case !c.waiting:
		w.invoke(c)
	case !w.calm && w.chance(w.hazards.giveUp):
		w.count(gaveUp, true)
		c.waiting = false
		c.names++
		c.name, c.serial = fmt.Sprintf("c%d.%d", c.id, c.names), 0
		w.invoke(c)
	default:
		w.count(retried, true)
		if w.chance(500) {
			w.count(movedOn, true)
			c.guess = 1 + w.rand.IntN(len(w.nodes)-1)
		}
	}
	w.ask(c)
}

func (w *world) invoke(c *client) {
	key := []string{"x", "y", "z"}[w.rand.IntN(w.hazards.keys)]
	value := strconv.Itoa(1000 * w.events)
	verb := w.rand.IntN(10)
	if w.chance(w.hazards.fat) { // two of these do not fit into one AppendEntries
		key, verb = "fat", 3+verb%3
		value += padding
	}
	if verb < 4 {
		c.reads++
		c.request = request{Client: c.name, Serial: firstRead + c.reads, Command: "get " + key}
	} else {
		c.serial++
		c.request = request{Client: c.name, Serial: c.serial}
	}
	c.request.to = clientAddress(c.id)
	switch {
	case verb < 4:
	case verb < 6:
		c.request.Command = "set " + key + " " + value
	case verb < 7:
		c.request.Command = "del " + key
	case verb < 9:
		c.request.Command = "incr " + key
	default:
		c.request.Command = "cas " + key + " " + w.someValue(key) + " " + value
	}
	w.story.say("%s: %.40s", c.name, c.request.Command)
	c.waiting = true
	c.call = len(w.judge.history)
	w.judge.history = append(w.judge.history, call{client: c.id, asked: asked{c.name, c.request.Serial},
		command: c.request.Command, invoked: w.events})
	if c.guess == 0 {
		c.guess = 1 + w.rand.IntN(len(w.nodes)-1)
	}
}

var padding = strings.Repeat("x", maxCommand-50)

// ask sends the outstanding command and sets the alarm for the next time.
func (w *world) ask(c *client) {
	patience := c.patience
	if w.calm {
		patience = 5 * oneTick
	}
	w.alarm(c, patience/2+w.upTo(patience))
	w.sendRequest(c)
}

func (w *world) sendRequest(c *client) {
	r := c.request
	var in any = &r
	if w.json {
		data := appendAny(nil, datagram{ClientRequest: &r})
		decoded, drop := decode(data[:len(data)-1], r.to, c.guess, addressBook)
		w.judge.check(drop == "", "JSON", "%s does not read %s", drop, data)
		in = decoded
	}
	w.carry(inputComes, c.guess, in)
}

// answer carries a reply to a client.
func (w *world) answer(n *node, r *reply) {
	w.answered(n, r)
	got := *r
	if w.json {
		address := ""
		if r.leader != none {
			address = serverAddress(r.leader).String()
		}
		data := appendReply(nil, r, address)
		var d datagram
		err := json.Unmarshal(data, &d)
		w.judge.check(err == nil && d.ClientReply != nil, "JSON", "%s: %v", data, err)
		a := d.ClientReply
		got = reply{to: r.to, client: a.Client, serial: a.Serial, leader: a.Leader, answer: answer{err: a.Error}}
		if a.Result != nil {
			got.result = *a.Result
		}
		w.judge.check(got == *r, "JSON", "%v became %v", *r, got)
	}
	w.carry(answerComes, int(r.to.Port())-10000, got)
}

func (w *world) hearAnswer(c *client, r reply) {
	if !c.waiting || r.client != c.name || r.serial != c.request.Serial {
		return
	}
	if r.err == errNotLeader {
		if r.leader != none && r.leader != c.guess {
			c.guess = r.leader
			w.sendRequest(c)
		}
		return
	}
	done := &w.judge.history[c.call]
	done.returned, done.answer = w.events, r.answer
	if r.serial < firstRead {
		w.lastWrite = w.events
	}
	w.story.say("%s: %.40s -> %.40s%.40s", c.name, c.request.Command, r.result, r.err)
	c.waiting = false
	w.alarm(c, w.upTo(w.hazards.thinking))
}

// alarm wakes c after a while; it replaces the alarm set before.
func (w *world) alarm(c *client, after moment) {
	c.alarm++
	w.plan(after, event{kind: clientWakes, to: c.id, life: c.alarm})
}

// ---- S5. Faults ------------------------------------------------------------------------
//
// Which faults there are, how often and how long, is drawn from the seed too: many seeds
// have few kinds, so that they are not all drowned by the worst one.

type hazard int

const (
	lost hazard = iota
	doubled
	slow
	late
	reordered
	oldTerm
	batched
	cutFull
	cutOneWay
	cutBridge
	cutRing
	cutAtBirth
	timidLeader
	kill
	powerCut
	powerCutAll
	crashAtStart
	crashBeforeWrite
	crashInWrite
	crashAfterWrite
	crashBeforeFsync
	crashInFsync
	crashAfterFsync
	crashBetweenEffects
	tornTail
	zeroTail
	blankTail
	writeError
	fsyncError
	pause
	clockSkew
	slowClock
	fastClock
	retried
	movedOn
	gaveUp
	numberOfHazards
)

var hazardNames = [numberOfHazards]string{"lost", "doubled", "slow", "late", "reordered", "of an old term", "batched",
	"full partition", "one-way cut", "bridge", "ring", "leader cut off at its election",
	"nextIndex taken back", "kill", "power cut", "power cut of all", "crash at start",
	"crash before write", "crash in write", "crash after write", "crash before fsync", "crash in fsync",
	"crash after fsync", "crash between effects", "torn tail", "tail of zeros", "tail of blanks", "write error", "fsync error",
	"pause", "clock changes pace", "slow clock", "fast clock", "client retries", "client moves", "client gives up"}

// hazards is the character of a seed.
type hazards struct {
	weight    [numberOfHazards]int // of those that strike can choose
	sum       int
	interval  moment // between strikes, on average
	downtime  moment // at most
	cutTime   moment
	pauseTime moment
	writeTime moment
	fsyncTime moment
	thinking  moment
	giveUp    int
	keys      int
	fat       int // share of commands of tens of kilobytes
	batch     int // entries in one AppendEntries, at most; 0: what fits
	storms    int // how often the weather changes
	usurpers  int // share of leaders that are cut off at once
}

func (w *world) drawHazards() hazards {
	f := hazards{
		interval:  []moment{20, 60, 200}[w.rand.IntN(3)] * oneTick,
		downtime:  []moment{10, 60, 200}[w.rand.IntN(3)] * oneTick,
		cutTime:   []moment{40, 150, 500}[w.rand.IntN(3)] * oneTick,
		pauseTime: []moment{5, 50, 200}[w.rand.IntN(3)] * oneTick,
		writeTime: []moment{1, 20, 500}[w.rand.IntN(3)],
		fsyncTime: []moment{1, 200, 3000}[w.rand.IntN(3)],
		thinking:  []moment{1, 5, 30}[w.rand.IntN(3)] * oneTick,
		giveUp:    []int{0, 20, 100}[w.rand.IntN(3)],
		keys:      1 + w.rand.IntN(3),
		storms:    w.rand.IntN(4),
		batch:     []int{0, 0, 0, 1, 2, 3}[w.rand.IntN(6)],
		fat:       []int{0, 30}[w.rand.IntN(20)/19],
	}
	for _, kind := range []hazard{cutFull, cutOneWay, cutBridge, cutRing, timidLeader, kill, powerCut, powerCutAll, writeError, fsyncError, pause, clockSkew} {
		if w.chance(450) {
			f.weight[kind] = 1 + w.rand.IntN(5)
			f.sum += f.weight[kind]
		}
	}
	if w.chance(300) {
		f.usurpers = 500
		f.weight[cutFull] += 3
		f.sum += 3
	}
	w.weather = w.drawWeather()
	return f
}

func (f *hazards) active(kind hazard) bool { return f.weight[kind] > 0 }

// count notes that a kind of fault has happened.
func (w *world) count(kind hazard, happened bool) {
	if happened {
		w.judge.hazards[kind]++
	}
}

// strike lets one fault happen.
func (w *world) strike() {
	if w.calm {
		return
	}
	w.plan(w.upTo(2*w.hazards.interval), event{kind: hazardStrikes})
	if w.chance(100 * w.hazards.storms) {
		w.weather = w.drawWeather()
	}
	if w.hazards.sum == 0 {
		return
	}
	pick, kind := w.rand.IntN(w.hazards.sum), hazard(0)
	for ; pick >= w.hazards.weight[kind]; kind++ {
		pick -= w.hazards.weight[kind]
	}
	n := w.victim()
	switch kind {
	case cutFull, cutOneWay, cutBridge, cutRing:
		w.partition(kind)
	case timidLeader:
		for _, n := range w.nodes[1:] {
			w.takeBack(n)
		}
	case kill, powerCut:
		if n.s != nil {
			n.power = kind == powerCut
			switch w.rand.IntN(4) {
			case 0:
				n.doomed = writeEnds
			case 1:
				n.doomed = fsyncEnds
			default:
				n.fuse = 1 + w.rand.IntN(8)
			}
		}
	case powerCutAll:
		w.count(powerCutAll, true)
		for _, n := range w.nodes[1:] {
			w.crash(n, true)
		}
	case clockSkew:
		w.setClock(n)
	case writeError:
		n.failing = writeEnds
	case fsyncError:
		n.failing = fsyncEnds
	case pause:
		if n.s != nil && n.asleep <= w.now {
			w.count(pause, true)
			d := w.upTo(w.hazards.pauseTime)
			w.story.say("S%d stopped for %d ticks", n.id, d/oneTick)
			n.asleep = w.now + d
			w.plan(d, event{kind: serverWakes, to: n.id, life: n.life})
		}
	}
}

// takeBack lets a leader doubt what it has not been told. nextIndex is a guess, and nothing may
// depend on how good a guess it is. raft.go guesses so well that a follower hardly ever gets
// entries that end before the first one that conflicts; leaders that guess worse send them.
func (w *world) takeBack(n *node) {
	if n.s == nil || n.s.role != leader {
		return
	}
	w.count(timidLeader, true)
	w.story.say("S%d doubts", n.id)
	for _, p := range n.s.peers {
		way := n.s.progress[p]
		n.s.nextIndex[p] = n.s.matchIndex[p] + 1
		way.flying, way.probing, way.due = nil, true, n.s.now
	}
}

// victim chooses a server, often the one that matters most.
func (w *world) victim() *node {
	if w.chance(400) {
		for _, n := range w.nodes[1:] {
			if n.s != nil && n.s.role == leader && w.chance(700) {
				return n
			}
		}
	}
	return w.nodes[1+w.rand.IntN(len(w.nodes)-1)]
}

// usurped cuts a leader off in the moment of its election, and lets the one before come
// back. Its term has begun, and nobody knows: Figure 8 is made of such reigns.
func (w *world) usurped(n *node) {
	if !w.calm && w.chance(w.hazards.usurpers) {
		w.count(cutAtBirth, true)
		w.story.say("CUT OFF")
		w.reconnect()
		for other := 1; other < len(w.nodes); other++ {
			w.cut[n.id][other], w.cut[other][n.id] = other != n.id, other != n.id
		}
		w.cuts++
		w.plan(w.upTo(w.hazards.cutTime), event{kind: cutHeals, life: w.cuts})
	}
}

// partition cuts the network and plans its repair.
func (w *world) partition(kind hazard) {
	w.count(kind, true)
	w.reconnect()
	ids := w.rand.Perm(len(w.nodes) - 1)
	if first := w.victim().id - 1; w.chance(500) { // cut off the leader, perhaps
		at := slices.Index(ids, first)
		ids[0], ids[at] = ids[at], ids[0]
	}
	n := len(ids)
	split := w.rand.IntN(n) + 1
	for i, a := range ids {
		for j, b := range ids {
			cut := false
			switch kind {
			case cutFull: // two groups
				cut = (i < split) != (j < split)
			case cutOneWay: // the first group is not heard by the second
				cut = i < split && j >= split
			case cutBridge: // two groups and one server that both can hear
				cut = i != split%n && j != split%n && (i < split) != (j < split)
			case cutRing: // everybody hears two neighbours
				cut = (i-j+n)%n != 1 && (j-i+n)%n != 1
			}
			w.cut[a+1][b+1] = cut && a != b
		}
	}
	w.story.say("%s: %s", hazardNames[kind], w.cutText())
	w.cuts++
	w.plan(w.upTo(w.hazards.cutTime), event{kind: cutHeals, life: w.cuts})
}

// cutText lists what is cut.
func (w *world) cutText() string {
	var links []string
	for a := 1; a < len(w.nodes); a++ {
		for b := 1; b < len(w.nodes); b++ {
			if w.cut[a][b] {
				links = append(links, fmt.Sprintf("S%d>S%d", a, b))
			}
		}
	}
	return strings.Join(links, " ")
}

func (w *world) heal(number int) {
	if number == w.cuts {
		w.reconnect()
	}
}

func (w *world) reconnect() {
	for _, row := range w.cut[1:] {
		clear(row)
	}
}

// ---- S6. What must always hold --------------------------------------------------------
//
// The judge sees everything, forgets nothing and survives all crashes. It looks after
// every event, but only at what may have changed, so that a look costs as little as the
// event itself. Its memory of a log is a chain: for each index the entry's term and a hash
// of the whole log up to there. Two equal links mean two equal logs.

type link struct {
	hash uint64
	term int
}

// image is a server's persistent state, as the judge knows it.
type image struct {
	term, vote int
	chain      []link // chain[0] is the sentinel's
}

func (im *image) last() int { return len(im.chain) - 1 }

func (im *image) holds(index int, l link) bool { return index <= im.last() && im.chain[index] == l }

// put is what a record does to the state. A cut leaves the memory of the old chain alone.
func (im *image) put(p *promise) {
	if p.index == 0 {
		im.term, im.vote = p.term, p.vote
		return
	}
	if p.index <= im.last() {
		im.chain = im.chain[:p.index:p.index]
	}
	im.chain = append(im.chain, p.link)
}

// promise is a record on its way to the disk.
type promise struct {
	end        int // the offset behind it
	term, vote int // hard state, or
	index      int // an entry
	link       link
}

// seen is what the judge remembers of a server from one event to the next.
type seen struct {
	role    role
	term    int // of that role
	commit  int
	applied int
	looks   int
	match   [10]int // a leader's matchIndex, by server
}

// reign is all that is known of a term: who led it, and the leader's log. Its last entries
// may have been lost since.
type reign struct {
	leader int
	chain  []link
}

type judge struct {
	hashes  maphash.Seed
	reigns  []reign       // by term
	votes   []map[int]int // votes[server][term]: whom it has promised its vote
	acked   []map[int]int // acked[server][term]: up to where it has confirmed that leader's log
	cuts    [][][]link    // by node: the chains that were cut in the Step whose effects are under way
	hazards [numberOfHazards]int
	fired   map[string]int // rules, by tag

	committed   []link           // for ever, by index
	commitTerms []int            // in which term that was
	states      []uint64         // hash of the state machine behind each of them
	recent      map[int]uint64   // … and of the order in which sessions would go [SE3], as first seen
	model       model            // the state machine behind the last
	answers     map[asked]answer // to applied writes
	places      map[asked]int    // … and their indexes
	history     []call
}

type asked struct {
	client string
	serial int
}

func newJudge(n int) judge {
	j := judge{hashes: processHashes, reigns: make([]reign, 1), fired: map[string]int{}, recent: map[int]uint64{}, committed: make([]link, 1), commitTerms: make([]int, 1),
		states: make([]uint64, 1), answers: map[asked]answer{}, places: map[asked]int{}, model: newModel()}
	for range n + 1 {
		j.votes = append(j.votes, map[int]int{})
		j.acked = append(j.acked, map[int]int{})
	}
	j.cuts = make([][][]link, n+1)
	return j
}

var processHashes = maphash.MakeSeed()

// violation is what a judge panics with.
type violation struct{ rule, text string }

func (v violation) Error() string { return v.rule + ": " + v.text }

// check stops the world when something does not hold.
func (j *judge) check(holds bool, rule, format string, args ...any) {
	if !holds {
		panic(violation{rule, fmt.Sprintf(format, args...)})
	}
}

// bury keeps what a server that dies has counted.
func (j *judge) bury(s *server) {
	for tag, times := range s.fired {
		j.fired[tag] += times
	}
}

func mix(h, x uint64) uint64 {
	h = (h ^ x) * 0x9E3779B97F4A7C15
	return h ^ h>>32
}

func (j *judge) text(s string) uint64 { return maphash.String(j.hashes, s) }

func (j *judge) linkBehind(before link, e *entry) link {
	h := mix(before.hash, uint64(e.Term))
	if e.Client != "" {
		h = mix(mix(mix(h, j.text(e.Client)), uint64(e.Serial)), j.text(e.Command))
	}
	return link{h, e.Term}
}

// stepped looks at n after a Step, before any of its effects.
func (w *world) stepped(n *node) {
	j, s, im := &w.judge, n.s, &n.image
	if s.role == leader {
		w.leads(n)
	}
	n.writing = n.writing[:0]
	j.cuts[n.id] = nil
	for i := range n.out.Persist {
		n.writing = append(n.writing, w.recorded(n, &n.out.Persist[i]))
	}
	if s.role == leader && j.reigns[s.currentTerm].chain == nil {
		j.reigns[s.currentTerm].chain = im.chain
	}
	w.digest(uint64(im.term)<<32 | uint64(im.last()))
	w.digest(uint64(s.commitIndex)<<32 | uint64(s.electionDue))

	if s.currentTerm != im.term || s.votedFor != im.vote || s.log.length-1 != im.last() || s.log.at(im.last()).Term != im.chain[im.last()].term {
		j.check(false, "Persist", "S%d changed its state without a record: term %d vote %d last %d, its records say term %d vote %d last %d",
			n.id, s.currentTerm, s.votedFor, s.log.length-1, im.term, im.vote, im.last())
	}
	if s.role == leader && (n.seen.role != leader || n.seen.term != s.currentTerm) {
		n.seen.match = [10]int{}
		last := len(j.committed) - 1
		for last > 0 && j.commitTerms[last] >= s.currentTerm {
			last-- // was committed in a later term: this leader is late, and will learn of it
		}
		w.usurped(n)
		if !w.calm && w.hazards.active(timidLeader) && w.chance(500) {
			w.takeBack(n)
		}
		j.check(im.holds(last, j.committed[last]), "Leader Completeness", "S%d leads term %d without the committed entry %d", n.id, s.currentTerm, last)
	}
	if s.role == leader {
		w.trusts(n)
	}
	n.seen.role, n.seen.term = s.role, s.currentTerm
	if n.seen.looks++; n.seen.looks%256 == 0 {
		w.lookThrough(n)
	}
	// A cluster of one commits what is not on its disk yet; until it is, nobody knows.
	if s.commitIndex <= max(n.durable.last(), len(j.committed)-1) || len(w.nodes) > 2 {
		w.learned(n)
	}
}

// learned looks at what n knows to be committed.
func (w *world) learned(n *node) {
	j, s := &w.judge, n.s
	if s.commitIndex != n.seen.commit {
		w.commits(n)
	}
	if s.lastApplied != n.seen.applied {
		j.check(s.lastApplied > n.seen.applied && s.lastApplied <= s.commitIndex, "All1", "S%d has applied %d, then %d; committed are %d",
			n.id, n.seen.applied, s.lastApplied, s.commitIndex)
		j.check(j.stateOf(&s.machine) == j.states[s.lastApplied], "equal state", "S%d behind entry %d is not in the state that the log leads to", n.id, s.lastApplied)
		order := j.orderOf(&s.machine)
		first, ok := j.recent[s.lastApplied]
		j.check(!ok || order == first, "SE3", "S%d behind entry %d would forget its sessions in another order than others", n.id, s.lastApplied)
		j.recent[s.lastApplied] = order
	}
	n.seen.commit, n.seen.applied = s.commitIndex, s.lastApplied
}

// leads: [Election Safety] one leader a term, over all history.
func (w *world) leads(n *node) {
	j, term := &w.judge, n.s.currentTerm
	for term >= len(j.reigns) {
		j.reigns = append(j.reigns, reign{})
	}
	r := &j.reigns[term]
	if r.leader == none {
		r.leader = n.id
	}
	j.check(r.leader == n.id, "Election Safety", "S%d and S%d lead term %d", r.leader, n.id, term)
}

// recorded judges one record of n and carries it out on n's image.
func (w *world) recorded(n *node, r *record) promise {
	j, im := &w.judge, &n.image
	if r.hard != nil {
		j.check(r.hard.Term >= im.term, "term never falls", "S%d: %d, then %d", n.id, im.term, r.hard.Term)
		j.check(r.hard.Term > im.term || im.vote == none || im.vote == r.hard.VotedFor, "one vote a term",
			"S%d in term %d: S%d, then S%d", n.id, im.term, im.vote, r.hard.VotedFor)
		p := promise{term: r.hard.Term, vote: r.hard.VotedFor}
		im.put(&p)
		return p
	}
	j.check(r.index >= 1 && r.index <= im.last()+1, "no gaps", "S%d: entry %d behind %d", n.id, r.index, im.last())
	p := promise{index: r.index, link: j.linkBehind(im.chain[r.index-1], &r.entry)}
	j.check(p.link.term >= im.chain[r.index-1].term && p.link.term <= im.term, "terms rise along a log",
		"S%d: entry %d of term %d behind one of term %d, in term %d", n.id, r.index, p.link.term, im.chain[r.index-1].term, im.term)
	if r.index <= im.last() {
		j.check(n.seen.role != leader || n.seen.term != im.term, "Leader Append-Only", "S%d leads term %d and replaces its entry %d", n.id, im.term, r.index)
		// A server that was stopped may live through terms that are over elsewhere, and what is
		// committed since does not concern them yet.
		j.check(r.index >= len(j.committed) || im.chain[r.index] != j.committed[r.index] || j.commitTerms[r.index] > im.term,
			"nothing committed is cut", "S%d cuts its log at %d, which is committed", n.id, r.index)
		j.cuts[n.id] = append(j.cuts[n.id], im.chain)
	}
	im.put(&p)

	// [Log Matching] An entry of a term was made by its leader, and its log is the model.
	j.check(p.link.term < len(j.reigns) && j.reigns[p.link.term].leader != none, "Log Matching", "S%d has an entry of term %d, which nobody led", n.id, p.link.term)
	reign := &j.reigns[p.link.term]
	if p.link.term == im.term && reign.leader == n.id && im.last() >= len(reign.chain) {
		reign.chain = im.chain
	}
	j.check(r.index < len(reign.chain) && reign.chain[r.index] == p.link, "Log Matching", "S%d and S%d have different logs up to entry %d of term %d",
		n.id, reign.leader, r.index, p.link.term)
	return p
}

// commits: commitIndex rises, over entries that are the same everywhere.
func (w *world) commits(n *node) {
	j, s, im := &w.judge, n.s, &n.image
	j.check(s.commitIndex > n.seen.commit && s.commitIndex <= im.last(), "commit never falls", "S%d: %d, then %d of %d",
		n.id, n.seen.commit, s.commitIndex, im.last())
	old := len(j.committed) - 1
	if s.commitIndex <= old {
		j.check(im.chain[s.commitIndex] == j.committed[s.commitIndex], "State Machine Safety", "S%d commits another entry %d than was committed before", n.id, s.commitIndex)
		return
	}
	j.check(im.chain[old] == j.committed[old], "State Machine Safety", "S%d commits another entry %d than was committed before", n.id, old)
	j.check(s.role == leader, "State Machine Safety", "follower S%d commits %d, but no leader has committed more than %d", n.id, s.commitIndex, old)
	for index := old + 1; index <= s.commitIndex; index++ {
		j.committed = append(j.committed, im.chain[index])
		j.commitTerms = append(j.commitTerms, s.currentTerm)
		w.applies(s.log.at(index))
	}
	w.cannotBeLost(n, s.commitIndex)
}

// cannotBeLost is Leader Completeness, foreseen: whoever could win an election with the
// logs that are on the disks now has the entry that n has just committed.
func (w *world) cannotBeLost(n *node, index int) {
	j := &w.judge
	link := j.committed[index]
	for _, c := range w.nodes[1:] {
		ci := c.sure(n)
		if ci.holds(index, link) {
			continue
		}
		votes := 0
		for _, v := range w.nodes[1:] {
			vi := v.sure(n)
			mine, theirs := ci.chain[ci.last()].term, vi.chain[vi.last()].term
			if mine > theirs || mine == theirs && ci.last() >= vi.last() {
				votes++
			}
		}
		j.check(votes <= (len(w.nodes)-1)/2, "Leader Completeness", "S%d commits entry %d of term %d, but S%d lacks it and could be elected by %d servers",
			n.id, index, link.term, c.id, votes)
	}
}

// sure is what a server has for certain; the one that acts now may count on its memory,
// because nobody hears of it before that is on the disk.
func (n *node) sure(actor *node) *image {
	if n == actor {
		return &n.image
	}
	return &n.durable
}

// trusts: matchIndex is never above what the follower has confirmed, and promised checks
// that every confirmation is true.
func (w *world) trusts(n *node) {
	for _, p := range n.s.peers {
		match, next := n.s.matchIndex[p], n.s.nextIndex[p]
		w.judge.check(match <= w.judge.acked[p][n.s.currentTerm], "matchIndex", "S%d believes that S%d has %d entries of its log, confirmed are %d",
			n.id, p, match, w.judge.acked[p][n.s.currentTerm])
		w.judge.check(match >= n.seen.match[p], "matchIndex", "S%d, for S%d: %d, then %d", n.id, p, n.seen.match[p], match)
		n.seen.match[p] = match
		w.judge.check(next > match && next <= n.image.last()+1, "nextIndex", "S%d, for S%d: match %d next %d last %d", n.id, p, match, next, n.image.last())
	}
}

// lookThrough compares the whole log, which is too slow for every event.
func (w *world) lookThrough(n *node) {
	before := link{}
	for index := 1; index < n.s.log.length; index++ {
		before = w.judge.linkBehind(before, n.s.log.at(index))
		w.judge.check(before == n.image.chain[index], "Persist", "entry %d in the memory of S%d is not the one that it recorded", index, n.id)
	}
}

// promised: [Persist] what leaves a server is true of what is certain on its disk.
func (w *world) promised(n *node, m *Message, early bool) {
	j, disk := &w.judge, &n.durable
	j.check(m.Term <= disk.term, "persist before reply", "S%d speaks of term %d, its disk of %d", n.id, m.Term, disk.term)
	j.check(!early || m.AppendEntries != nil, "persist before reply", "S%d sends an answer before its fsync", n.id)
	vote := none
	switch {
	case m.RequestVote != nil:
		vote = n.id
	case m.RequestVoteReply != nil && m.RequestVoteReply.VoteGranted:
		vote = m.To
	case m.AppendEntriesReply != nil && m.AppendEntriesReply.Success:
		j.check(n.s.role != candidate || m.Term != n.s.currentTerm, "Cand3", "S%d follows S%d and is still a candidate", n.id, m.To)
		w.confirmed(n, m)
	}
	if vote != none {
		before, ok := j.votes[n.id][m.Term]
		j.check(!ok || before == vote, "one vote a term", "S%d in term %d: S%d, then S%d", n.id, m.Term, before, vote)
		j.votes[n.id][m.Term] = vote
		j.check(disk.term > m.Term || disk.vote == vote, "persist before reply", "S%d votes for S%d in term %d, its disk says S%d", n.id, vote, m.Term, disk.vote)
	}
}

// confirmed: the log up to matchIndex is that of the leader, on the disk. One Step may have
// confirmed it and then, for the next leader, cut it again.
func (w *world) confirmed(n *node, m *Message) {
	j, match := &w.judge, m.AppendEntriesReply.MatchIndex
	r := &j.reigns[m.Term]
	j.check(r.leader == m.To && match < len(r.chain), "persist before reply", "S%d confirms %d entries to S%d, which has not led term %d with so many", n.id, match, m.To, m.Term)
	was := n.durable.holds(match, r.chain[match]) || slices.ContainsFunc(j.cuts[n.id], func(cut []link) bool {
		return match < len(cut) && cut[match] == r.chain[match]
	})
	j.check(was, "persist before reply", "S%d confirms the log of S%d up to %d in term %d, its disk holds something else", n.id, m.To, match, m.Term)
	if match > j.acked[n.id][m.Term] {
		j.acked[n.id][m.Term] = match
	}
}

// becameDurable: everything up to an offset of the file is certain from now on.
func (w *world) becameDurable(n *node, upTo int) {
	done := 0
	for done < len(n.unsynced) && n.unsynced[done].end <= upTo {
		n.durable.put(&n.unsynced[done])
		done++
	}
	n.unsynced = slices.Delete(n.unsynced, 0, done)
}

// restarted: a server comes back with what its file held, to the last record.
func (w *world) restarted(n *node, hard hardState, log []entry, good int) {
	j, im := &w.judge, &n.image
	*im = image{n.durable.term, n.durable.vote, slices.Clone(n.durable.chain)}
	n.unsynced = slices.DeleteFunc(n.unsynced, func(p promise) bool { return p.end > good })
	for i := range n.unsynced {
		im.put(&n.unsynced[i])
	}
	j.check(hard.Term == im.term && hard.VotedFor == im.vote && len(log) == im.last(), "restart", "S%d comes back with %+v and %d entries, its disk had term %d vote %d and %d",
		n.id, hard, len(log), im.term, im.vote, im.last())
	before := link{}
	for i := range log {
		before = j.linkBehind(before, &log[i])
		j.check(before == im.chain[i+1], "restart", "S%d comes back with another entry %d", n.id, i+1)
	}
}

// answered: an acknowledged write is committed, applied once, and this is its answer.
func (w *world) answered(n *node, r *reply) {
	if r.err == errNotLeader || r.serial >= firstRead {
		return // reads are for LIN
	}
	a, ok := w.judge.answers[asked{r.client, r.serial}]
	w.judge.check(ok, "acknowledged writes survive", "S%d answers %s/%d with %+v, which is not committed", n.id, r.client, r.serial, r.answer)
	w.judge.check(a == r.answer, "exactly once", "S%d answers %s/%d with %+v, not %+v", n.id, r.client, r.serial, r.answer, a)
}

// model is the state machine once more, as simple as it can be.
type model struct {
	values map[string]string
	newest map[string]int // serial by client
	sum    uint64         // of the hashes of all parts
}

func newModel() model { return model{map[string]string{}, map[string]int{}, 0} }

// applies carries a newly committed entry out on the model.
func (w *world) applies(e *entry) {
	j, m := &w.judge, &w.judge.model
	_, again := j.answers[asked{e.Client, e.Serial}]
	j.check(!again, "SE1", "%s/%d is in the log twice", e.Client, e.Serial)
	if e.Client != "" && (m.newest[e.Client] > 0 || e.Serial == 1) && e.Serial > m.newest[e.Client] {
		words := strings.Fields(e.Command)
		old, ok := m.values[words[1]]
		value, exists, a := runCommand(words, old, ok)
		if ok {
			m.sum -= mix(j.text(words[1]), j.text(old))
		}
		if delete(m.values, words[1]); exists {
			m.values[words[1]] = value
			m.sum += mix(j.text(words[1]), j.text(value))
		}
		if before := m.newest[e.Client]; before > 0 {
			m.sum -= j.sessionHash(e.Client, before, j.answers[asked{e.Client, before}])
		}
		m.newest[e.Client] = e.Serial
		m.sum += j.sessionHash(e.Client, e.Serial, a)
		j.answers[asked{e.Client, e.Serial}] = a
		j.places[asked{e.Client, e.Serial}] = len(j.states)
	}
	j.states = append(j.states, m.sum)
}

func (j *judge) sessionHash(client string, serial int, a answer) uint64 {
	return mix(mix(mix(j.text(client), uint64(serial)), j.text(a.result)), j.text(a.err))
}

// stateOf is the same sum over a server's state machine.
func (j *judge) stateOf(m *machine) (sum uint64) {
	for key, value := range m.values {
		sum += mix(j.text(key), j.text(value))
	}
	for e := m.recent.Front(); e != nil; e = e.Next() {
		s := e.Value.(*session)
		sum += j.sessionHash(s.client, s.serial, s.answer)
	}
	return sum
}

// orderOf is a hash of the sessions in the order in which they would be forgotten.
func (j *judge) orderOf(m *machine) (h uint64) {
	for e := m.recent.Front(); e != nil; e = e.Next() {
		h = mix(h, j.text(e.Value.(*session).client))
	}
	return h
}

// runCommand is what a command means for the one key it names.
func runCommand(words []string, old string, ok bool) (value string, exists bool, a answer) {
	switch found := old; words[0] {
	case "set":
		return words[2], true, answer{result: "ok"}
	case "del":
		if !ok {
			return "", false, answer{result: "(none)"}
		}
		return "", false, answer{result: "ok"}
	case "incr":
		n, _ := strconv.Atoi(old)
		value = strconv.Itoa(n + 1)
		return value, true, answer{result: value}
	case "cas":
		if ok && found == words[2] {
			return words[3], true, answer{result: "ok"}
		}
		found = strconv.Quote(found)
		if !ok {
			found = "(none)"
		}
		return old, ok, answer{err: fmt.Sprintf("%s is %s, not %q; nothing changed", words[1], found, words[2])}
	}
	if !ok {
		old = "(none)"
		return "", false, answer{result: old}
	}
	return old, ok, answer{result: old}
}

// someValue is what a cas expects: often what is there.
func (w *world) someValue(key string) string {
	if value, ok := w.judge.model.values[key]; ok {
		return value
	}
	return "0"
}

// ---- S7. What must happen in the end -----------------------------------------------------
//
// Safety alone is easy: do nothing. So when the storm is over and a majority is connected,
// there must be a leader, a commit, and equal logs, each in time.

// simulate runs one seed. It returns nil or what went wrong.
func (w *world) simulate(length moment) (err error) {
	defer w.catch(&err)
	w.runUntil(length, nil)
	w.calmDown()
	w.mustSettle()
	for _, n := range w.nodes[1:] {
		if n.s != nil {
			w.judge.bury(n.s)
		}
	}
	err = linearizable(w.judge.history)
	if errors.Is(err, errUndecided) {
		err = linearizable(w.completed())
	}
	if err != nil {
		return violation{"Linearizability", err.Error()}
	}
	return nil
}

// completed is the history with what the judge knows besides: what became of the calls without
// an answer, and which order the log has put the writes in. If that order explains everything,
// it is found at once.
func (w *world) completed() (calls []call) {
	for _, c := range w.judge.history {
		if c.returned == 0 {
			a, ok := w.judge.answers[c.asked]
			if !ok {
				continue
			}
			c.returned, c.answer = w.events+1, a
		}
		c.order = w.judge.places[c.asked]
		calls = append(calls, c)
	}
	return calls
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

// calmDown ends all faults for a majority; the others are dead or cut off.
func (w *world) calmDown() {
	w.calm = true
	w.story.row(w, fmt.Sprintf("%8.2f -- the storm is over", w.ticks()))
	w.weather = weather{usual: oneTick}
	w.reconnect()
	w.cuts++
	order := w.rand.Perm(len(w.nodes) - 1)
	lucky := len(order)/2 + 1 + w.rand.IntN((len(order)+1)/2)
	for i, at := range order {
		n := w.nodes[at+1]
		n.fuse, n.failing, n.doomed = 0, 0, 0
		switch {
		case i < lucky && n.s == nil:
			w.plan(w.upTo(oneTick), event{kind: serverStarts, to: n.id, life: n.life})
		case i < lucky:
			n.pace, n.asleep = oneTick, min(n.asleep, w.now)
			w.plan(1, event{kind: serverWakes, to: n.id, life: n.life})
		case w.chance(500):
			w.crash(n, w.chance(500))
			n.life++ // it does not come back
		default:
			n.pace = oneTick
			for other := 1; other < len(w.nodes); other++ {
				w.cut[n.id][other], w.cut[other][n.id] = true, true
			}
		}
		n.lucky = i < lucky
	}
	// What is still on its way from the storm may arrive, but not from cut off servers, nor
	// for ever.
	kept := w.agenda
	w.agenda = nil
	for _, e := range kept {
		m, message := e.in.(*Message)
		if message && (w.cut[m.From][m.To] || !w.nodes[m.From].lucky || e.at > w.now+oneTimeout/2) {
			continue
		}
		w.agenda.push(e)
	}
	for _, c := range w.clients {
		w.alarm(c, w.upTo(5*oneTick))
	}
}

// mustSettle demands progress of the majority.
func (w *world) mustSettle() {
	start, before := w.now, w.events
	led := w.runUntil(start+10*oneTimeout, func() bool {
		return slices.ContainsFunc(w.nodes[1:], func(n *node) bool { return n.lucky && n.s != nil && n.s.role == leader })
	})
	w.judge.check(led, "progress", "no leader within 10 election timeouts")
	answered := w.runUntil(start+12*oneTimeout, func() bool { return w.lastWrite > before })
	w.judge.check(answered, "progress", "no write answered within 12 election timeouts")
	w.closing = true
	w.judge.check(w.runUntil(start+30*oneTimeout, w.settled), "progress", "logs are not equal within 30 election timeouts")
	for _, n := range w.nodes[1:] {
		if n.lucky {
			w.lookThrough(n)
		}
	}
}

// settled: the lucky servers have one log, committed and applied to its end, and no client
// waits.
func (w *world) settled() bool {
	end := len(w.judge.committed) - 1
	for _, n := range w.nodes[1:] {
		if n.lucky && (n.s == nil || n.durable.last() != end || n.s.lastApplied != end || n.durable.chain[end] != w.judge.committed[end]) {
			return false
		}
	}
	return !slices.ContainsFunc(w.clients, func(c *client) bool { return c.waiting })
}

// ---- S8. Linearizability ---------------------------------------------------------------
//
// A history is linearizable if its calls can be put into one order, each at a moment
// between its question and its answer, in which a single machine would have given the same
// answers (Wing and Gong's search; Lowe added the memory of what has been tried). Calls of
// different keys do not touch each other, so each key is searched alone. A call without an
// answer may have happened at any time since, or never.

// maxSearch bounds the search, in states. A history that needs more counts as a failure.
const maxSearch = 50_000

var errUndecided = fmt.Errorf("undecided after %d states", maxSearch)

// linearizable returns nil, or why the history is not, or may not be.
func linearizable(history []call) error {
	byKey := map[string][]call{}
	var keys []string
	for _, c := range history {
		c.words = strings.Fields(c.command)
		if c.returned == 0 {
			if c.words[0] == "get" {
				continue // nobody saw it
			}
			c.returned = math.MaxInt
		}
		key := c.words[1]
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], c)
	}
	for _, key := range keys {
		calls := byKey[key]
		slices.SortStableFunc(calls, func(a, b call) int {
			if open := a.returned == math.MaxInt; open != (b.returned == math.MaxInt) {
				if open {
					return 1 // those without an answer last
				}
				return -1
			}
			return a.invoked - b.invoked
		})
		answered := 0
		for answered < len(calls) && calls[answered].returned < math.MaxInt {
			answered++
		}
		if err := lineUp(calls, answered); err != nil {
			return fmt.Errorf("key %s: %w", key, err)
		}
	}
	return nil
}

// placed is a state of the search: which calls have their place, and what the machine holds
// after them.
type placed struct {
	done  []byte // 1 or 0, by call
	first int    // all before it are done
	value string
	ok    bool
}

// lineUp searches an order for the calls of one key. The answered ones come first, in the
// order of their questions. Those without an answer are a reserve, to be touched only when
// nothing else is left to try: a state that failed with some of them in reserve need not be
// tried with fewer.
func lineUp(calls []call, answered int) error {
	tried := map[string][][]byte{} // what is done and held → reserves that it failed with
	states, best := 0, 0
	var key []byte
	var next []int // calls
	level := []placed{{done: make([]byte, len(calls))}}
	for len(level) > 0 {
		var spent []placed // the states with one more of the reserve
		for len(level) > 0 {
			p := level[len(level)-1]
			level = level[:len(level)-1]
			for next = p.candidates(calls, answered, next); p.placeIdle(calls, answered, next); {
				next = p.candidates(calls, answered, next)
			}
			if p.first == answered {
				return nil // what is left need never have happened
			}
			best = max(best, p.first)

			// Values are printable, so that the key cannot be read in two ways.
			key = append(append(key[:0], p.done[p.first:answered]...), p.value...)
			if !p.ok {
				key = append(key, '-')
			}
			reserve := p.done[answered:]
			if slices.ContainsFunc(tried[string(key)], func(other []byte) bool { return within(other, reserve) }) {
				continue
			}
			if states++; states > maxSearch {
				return errUndecided
			}
			tried[string(key)] = append(tried[string(key)], reserve)
			// The most promising last, to be tried first.
			slices.SortStableFunc(next, func(a, b int) int { return calls[b].order - calls[a].order })
			for _, i := range next {
				value, ok, a := runCommand(calls[i].words, p.value, p.ok)
				if i < answered && a != calls[i].answer {
					continue
				}
				q := placed{slices.Clone(p.done), p.first, value, ok}
				q.done[i] = 1
				if i < answered {
					level = append(level, q)
				} else {
					spent = append(spent, q)
				}
			}
		}
		level = spent
	}
	c := calls[best]
	return fmt.Errorf("no order explains its %d calls; client %d: %s -> %+v (events %d to %d) is the first without a place",
		len(calls), c.client, c.command, c.answer, c.invoked, c.returned)
}

// candidates are the calls that may be next: those that were asked before the first answer
// that is still to come.
func (p *placed) candidates(calls []call, answered int, next []int) []int {
	for p.first < answered && p.done[p.first] == 1 {
		p.first++
	}
	next = next[:0]
	earliest := math.MaxInt
	for i := p.first; i < len(calls); i++ {
		switch {
		case p.done[i] == 1:
		case calls[i].invoked > earliest:
			i = max(i, answered-1) // and so are all behind it, up to the reserve
		default:
			earliest = min(earliest, calls[i].returned)
			next = append(next, i)
		}
	}
	return next
}

// placeIdle places a call that fits here and can never change anything: there is no reason to
// wait with it. (A set of what is there already changes nothing here, but may later.)
func (p *placed) placeIdle(calls []call, answered int, next []int) bool {
	for _, i := range next {
		c := &calls[i]
		idle := c.words[0] == "get" || c.answer.err != "" || c.words[0] == "del" && c.answer.result == "(none)"
		if _, _, a := runCommand(c.words, p.value, p.ok); i < answered && idle && a == c.answer {
			p.done[i] = 1
			return true
		}
	}
	return false
}

// within tells whether all of a is in b.
func within(a, b []byte) bool {
	for i := range a {
		if a[i] > b[i] {
			return false
		}
	}
	return true
}

// TestLinearizable: the judge of histories, judged. An answer of "" is none.
func TestLinearizable(t *testing.T) {
	type h = []call
	did := func(invoked, returned int, command, result string) call {
		return call{command: command, invoked: invoked, returned: returned, answer: answer{result: result}}
	}
	failed := func(invoked, returned int, command, err string) call {
		return call{command: command, invoked: invoked, returned: returned, answer: answer{err: err}}
	}
	for _, row := range []struct {
		name string
		good bool
		h    h
	}{
		{"nothing", true, h{}},
		{"read of nothing", true, h{did(1, 2, "get x", "(none)")}},
		{"read from nowhere", false, h{did(1, 2, "get x", "1")}},
		{"read what was written", true, h{did(1, 2, "set x 1", "ok"), did(3, 4, "get x", "1")}},
		{"read misses a write", false, h{did(1, 2, "set x 1", "ok"), did(3, 4, "get x", "(none)")}},
		{"read during a write, old", true, h{did(1, 9, "set x 1", "ok"), did(2, 3, "get x", "(none)")}},
		{"read during a write, new", true, h{did(1, 9, "set x 1", "ok"), did(2, 3, "get x", "1")}},
		{"new, then old", false, h{did(1, 9, "set x 1", "ok"), did(2, 3, "get x", "1"), did(4, 5, "get x", "(none)")}},
		{"two reads at once may differ", true, h{did(1, 9, "set x 1", "ok"), did(2, 5, "get x", "1"), did(4, 6, "get x", "(none)")}},
		{"stale read of a deposed leader", false, h{did(1, 2, "set x 1", "ok"), did(3, 4, "set x 2", "ok"), did(5, 6, "get x", "1")}},
		{"unknown write seen", true, h{did(1, 0, "set x 1", ""), did(5, 6, "get x", "1")}},
		{"unknown write never seen", true, h{did(1, 0, "set x 1", ""), did(5, 6, "get x", "(none)")}},
		{"unknown write seen late", true, h{did(1, 0, "set x 1", ""), did(5, 6, "get x", "(none)"), did(7, 8, "get x", "1")}},
		{"unknown write seen, then gone", false, h{did(1, 0, "set x 1", ""), did(5, 6, "get x", "1"), did(7, 8, "get x", "(none)")}},
		{"write seen before it was asked for", false, h{did(1, 2, "get x", "1"), did(3, 0, "set x 1", "")}},
		{"an unanswered read says nothing", true, h{did(1, 2, "set x 1", "ok"), did(3, 0, "get x", "")}},
		{"incr twice", true, h{did(1, 2, "incr n", "1"), did(3, 4, "incr n", "2")}},
		{"incr applied twice", false, h{did(1, 2, "incr n", "1"), did(3, 4, "incr n", "3")}},
		{"incr applied twice by one that is unknown", true, h{did(1, 2, "incr n", "1"), did(2, 0, "incr n", ""), did(3, 4, "incr n", "3")}},
		{"lost update", false, h{did(1, 4, "incr n", "1"), did(2, 5, "incr n", "1")}},
		{"cas once", true, h{did(1, 2, "set x 1", "ok"), did(3, 6, "cas x 1 2", "ok"), failed(4, 7, "cas x 1 3", `x is "2", not "1"; nothing changed`)}},
		{"cas twice", false, h{did(1, 2, "set x 1", "ok"), did(3, 6, "cas x 1 2", "ok"), did(4, 7, "cas x 1 3", "ok")}},
		{"an error that was none", false, h{did(1, 2, "set x 1", "ok"), failed(3, 4, "cas x 1 3", `x is "2", not "1"; nothing changed`)}},
		{"a set of what is there, for later", true, h{did(1, 2, "set x 1", "ok"), did(3, 10, "set x 1", "ok"), did(4, 5, "set x 2", "ok"), did(6, 7, "get x", "1")}},
		{"a cas of what is there, for later", true, h{did(1, 2, "set x 1", "ok"), did(3, 10, "cas x 2 2", "ok"), did(4, 9, "set x 2", "ok")}},
		{"a set of what is there, only once", false, h{did(1, 2, "set x 1", "ok"), did(3, 10, "set x 1", "ok"), did(4, 5, "set x 2", "ok"), did(6, 7, "get x", "1"), did(8, 9, "get x", "2")}},
		{"del of nothing", true, h{did(1, 2, "del x", "(none)")}},
		{"del twice", false, h{did(1, 2, "set x 1", "ok"), did(3, 4, "del x", "ok"), did(5, 6, "del x", "ok")}},
		{"keys are independent", true, h{did(1, 2, "set x 1", "ok"), did(3, 4, "get y", "(none)"), did(5, 6, "get x", "1")}},
	} {
		if err := linearizable(row.h); (err == nil) != row.good {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// TestLinearizableByForce compares the search with the plainest one, which tries every order of
// every choice of unanswered calls, on many small histories. Half of them really happened.
func TestLinearizableByForce(t *testing.T) {
	var force func(calls []call, value string, ok bool) bool
	force = func(calls []call, value string, ok bool) bool {
		earliest, open := math.MaxInt, true
		for _, c := range calls {
			if c.returned > 0 {
				earliest, open = min(earliest, c.returned), false
			}
		}
		for i, c := range calls {
			next, exists, a := runCommand(strings.Fields(c.command), value, ok)
			if c.invoked < earliest && (c.returned == 0 || a == c.answer) &&
				force(slices.Delete(slices.Clone(calls), i, i+1), next, exists) {
				return true
			}
		}
		return open
	}
	r := rand.New(rand.NewPCG(1, 2))
	count := map[bool]int{}
	for range 30_000 {
		var h []call
		value, ok := "", false
		for i := range 2 + r.IntN(5) {
			c := call{client: i, command: []string{"get x", "incr x", "del x", fmt.Sprintf("set x %d", r.IntN(3)),
				fmt.Sprintf("cas x %d %d", r.IntN(3), r.IntN(3))}[r.IntN(5)]}
			var was answer
			value, ok, was = runCommand(strings.Fields(c.command), value, ok)
			if r.IntN(4) == 0 { // perhaps it was another answer
				_, _, was = runCommand(strings.Fields(c.command), strconv.Itoa(r.IntN(3)), r.IntN(3) > 0)
			}
			if c.invoked = 2 * max(1, 10*i-r.IntN(40)); r.IntN(5) > 0 { // never the moment of an answer
				c.returned, c.answer = 2*(10*i+1+r.IntN(40))+1, was
			}
			h = append(h, c)
		}
		want := force(h, "", false)
		count[want]++
		if got := linearizable(h); (got == nil) != want {
			t.Fatalf("%v, but by force %t: %+v", got, want, h)
		}
	}
	if count[true] < 1000 || count[false] < 1000 {
		t.Errorf("a poor mixture: %v", count)
	}
}

// TestLinearizableIsBounded: a search without end is a failure, not a pass.
func TestLinearizableIsBounded(t *testing.T) {
	var h []call
	for i := range 20 { // any subset of them may come first, any of them last
		h = append(h, call{command: fmt.Sprintf("set x %d", i), invoked: 1, returned: 2, answer: answer{result: "ok"}})
	}
	h = append(h, call{command: "get x", invoked: 3, returned: 4, answer: answer{result: "20"}})
	if err := linearizable(h); !errors.Is(err, errUndecided) {
		t.Error(err)
	}
}

// ---- S9. Many seeds -----------------------------------------------------------------------

// stormTime is how long the faults last.
const stormTime = 1200 * oneTick

// result adds up many runs.
type result struct {
	seeds, events int
	hazards       [numberOfHazards]int
	fired         map[string]int
	failed        *world // the one with the shortest story
	err           error
	failedAt      int // seeds before the first failure
}

func (r *result) add(w *world, err error) {
	r.seeds++
	r.events += w.events
	for kind, times := range w.judge.hazards {
		r.hazards[kind] += times
	}
	for tag, times := range w.judge.fired {
		r.fired[tag] += times
	}
	if err != nil && r.failed == nil {
		r.failedAt = r.seeds
	}
	if err != nil && (r.failed == nil || w.events < r.failed.events) {
		r.failed, r.err = w, err
	}
}

// simulateMany runs seeds on all cores until there are enough. After a failure it looks a
// little further, for one that is told in fewer events.
func simulateMany(first int, enough func(*result) bool) *result {
	const further = 20
	all := &result{fired: map[string]int{}}
	var lock sync.Mutex
	var wait sync.WaitGroup
	next := first
	for range runtime.GOMAXPROCS(0) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for {
				lock.Lock()
				if enough(all) || all.failed != nil && all.seeds > all.failedAt+further {
					lock.Unlock()
					return
				}
				seed := next
				next++
				lock.Unlock()
				w := newWorld(seed)
				err := w.simulate(stormTime)
				lock.Lock()
				all.add(w, err)
				lock.Unlock()
			}
		}()
	}
	wait.Wait()
	return all
}

// tell repeats a seed, this time with a story.
func tell(seed int) (w *world, err error) {
	w = newWorld(seed)
	w.story = &story{}
	err = w.simulate(stormTime)
	return w, err
}

// underRace tells whether the race detector watches, which takes ten times as long.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// notCounted are rules whose work raft.go does not count: of the state machine, and of the disk.
var notCounted = strings.Fields("SE3 SE4 DK1 DK2 DK3 DK4 DK5")

// TestSimulator is the default run: many seeds under all faults.
func TestSimulator(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if *flagSeed != 0 && *flagSeeds == 0 {
		w, err := tell(*flagSeed)
		t.Logf("%v\n%s", w, w.story.String(w))
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	seeds, events := 2000, 10_000_000
	switch {
	case *flagSeeds > 0:
		seeds, events = *flagSeeds, 0
	case underRace() || testing.Short():
		seeds, events = 200, 0
	}
	start := time.Now()
	r := simulateMany(max(1, *flagSeed), func(r *result) bool { return r.seeds >= seeds && r.events >= events })
	t.Logf("%d seeds, %d events, %.1f s, %d cores", r.seeds, r.events, time.Since(start).Seconds(), runtime.GOMAXPROCS(0))
	if r.failed != nil {
		w, err := tell(r.failed.seed)
		t.Fatalf("%v (seed %d, event %d)\n%v\n\n%s\n\nto see it again: go test -run TestSimulator -seed %d\n(first failure after %d seeds; this is the shortest of the next)",
			err, w.seed, w.events, w, w.story.String(w)+w.stack, w.seed, r.failedAt)
	}
	if r.seeds < 100 {
		return // too few to have seen everything
	}
	var text []string
	for kind, times := range r.hazards {
		text = append(text, fmt.Sprintf("%s %d", hazardNames[kind], times))
		if times == 0 {
			t.Errorf("fault %q never happened", hazardNames[kind])
		}
	}
	t.Logf("faults: %s", strings.Join(text, ", "))
	text = text[:0]
	for _, rule := range ruleBook() {
		if !slices.Contains(notCounted, rule.tag) {
			text = append(text, fmt.Sprintf("%s %d", rule.tag, r.fired[rule.tag]))
			if r.fired[rule.tag] == 0 {
				t.Errorf("rule [%s] never fired", rule.tag)
			}
		}
	}
	t.Logf("rules: %s", strings.Join(text, ", "))
}

// TestSimulatorRepeats: a seed decides everything, and it makes no difference whether the
// messages go through JSON. (If one in flight shared memory with a log, it would.)
func TestSimulatorRepeats(t *testing.T) {
	for seed := 1; seed <= 40; seed++ {
		hash, run := uint64(0), 0
		for _, json := range []bool{false, false, true} {
			w := newWorld(seed)
			w.json = json
			if err := w.simulate(stormTime / 4); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if run++; run > 1 && w.hash != hash {
				t.Fatalf("seed %d, run %d, JSON %t: hash %016x, before %016x", seed, run, json, w.hash, hash)
			}
			hash = w.hash
		}
		if seed%10 == 0 {
			t.Logf("seed %d: hash %016x", seed, hash) // also the same under -race
		}
	}
}

// BenchmarkSimulator runs one seed an iteration, on one core, with all checks.
func BenchmarkSimulator(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	events := 0
	for seed := 1; b.Loop(); seed++ {
		w := newWorld(seed)
		if err := w.simulate(stormTime); err != nil {
			b.Fatalf("seed %d: %v", seed, err)
		}
		events += w.events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(events)/float64(b.N), "events/seed")
}

// String describes a seed.
func (w *world) String() string {
	var kinds []string
	for kind, weight := range w.hazards.weight {
		if weight > 0 {
			kinds = append(kinds, hazardNames[kind])
		}
	}
	v := w.weather
	return fmt.Sprintf("%d servers and %d clients, %d events, hash %016x\nfaults: %s; at last: loss %d, double %d, slow %d, late %d per mille",
		len(w.nodes)-1, len(w.clients), w.events, w.hash, strings.Join(kinds, ", "), v.loss, v.double, v.slow, v.late)
}

// ---- S10. The story ------------------------------------------------------------------------
//
// One column per server, one row per event. A cell tells what came in, the rules that fired
// and, if it changed, the state: L3 4/6 is a leader in term 3 with 4 of 6 entries committed.

type story struct {
	rows  []string
	cell  []string // the words of this row
	fired map[string]int
	state []string // last told, by server
}

// maxRows is how much of the end is kept.
const maxRows = 60

func (st *story) begin(w *world, n *node, e *event) {
	if st == nil {
		return
	}
	st.cell = st.cell[:0]
	if n != nil && n.s != nil {
		st.fired = maps.Clone(n.s.fired)
	} else {
		st.fired = nil
	}
	switch e.kind {
	case writeEnds:
		st.say("written")
	case fsyncEnds:
		st.say("fsynced")
	case serverStarts:
		st.say("starts")
	}
}

// say adds words to the cell of this row.
func (st *story) say(format string, args ...any) {
	if st != nil {
		st.cell = append(st.cell, fmt.Sprintf(format, args...))
	}
}

// took says what a Step was given.
func (st *story) took(inputs []input) {
	if st == nil {
		return
	}
	for _, in := range inputs {
		switch in := in.(type) {
		case *request:
			st.say("%q", in.Command)
		case *Message:
			switch {
			case in.RequestVote != nil:
				st.say("vote?S%d:t%d", in.From, in.Term)
			case in.RequestVoteReply != nil && in.RequestVoteReply.VoteGranted:
				st.say("vote!S%d:t%d", in.From, in.Term)
			case in.RequestVoteReply != nil:
				st.say("no:S%d:t%d", in.From, in.Term)
			case in.AppendEntries != nil:
				ae := in.AppendEntries
				st.say("AE:S%d:t%d:%d+%d:c%d", in.From, in.Term, ae.PrevLogIndex, len(ae.Entries), ae.LeaderCommit)
			case in.AppendEntriesReply.Success:
				st.say("ok:S%d:t%d:%d", in.From, in.Term, in.AppendEntriesReply.MatchIndex)
			default:
				st.say("refused:S%d:t%d", in.From, in.Term)
			}
		}
	}
}

func (st *story) end(w *world, n *node) {
	if st == nil {
		return
	}
	if n == nil {
		if len(st.cell) > 0 {
			st.row(w, fmt.Sprintf("%8.2f -- %s", w.ticks(), strings.Join(st.cell, " ")))
		}
		return
	}
	state := "dead"
	if s := n.s; s != nil {
		var tags []string
		for tag, times := range s.fired {
			if times > st.fired[tag] {
				tags = append(tags, tag)
			}
		}
		slices.Sort(tags)
		if len(tags) > 0 {
			st.say("[%s]", strings.Join(tags, " "))
		}
		state = fmt.Sprintf("%s%d %d/%d", strings.ToUpper(s.role.String()[:1]), s.currentTerm, s.commitIndex, s.log.length-1)
	}
	for len(st.state) < len(w.nodes) {
		st.state = append(st.state, "")
	}
	if state != st.state[n.id] {
		st.state[n.id] = state
		st.say("%s", state)
	}
	if len(st.cell) == 0 {
		return
	}
	width := max(24, 110/(len(w.nodes)-1))
	pad := strings.Repeat(" ", (n.id-1)*width)
	st.row(w, fmt.Sprintf("%8.2f %s%s", w.ticks(), pad, strings.Join(st.cell, " ")))
}

func (st *story) row(w *world, text string) {
	if st == nil {
		return
	}
	st.rows = append(st.rows, text)
	if len(st.rows) > 2*maxRows {
		st.rows = slices.Delete(st.rows, 0, maxRows)
	}
}

func (st *story) String(w *world) string {
	width := max(24, 110/(len(w.nodes)-1))
	head := "    tick "
	for id := 1; id < len(w.nodes); id++ {
		head += fmt.Sprintf("%-*s", width, fmt.Sprintf("S%d", id))
	}
	rows := append(st.rows[max(0, len(st.rows)-maxRows):], "         "+strings.Join(st.cell, " ")) // what the world died of
	return head + "\n" + strings.Join(rows, "\n")
}

// =============================================================================
// EVERYTHING THAT CAN HAPPEN
// =============================================================================
//
// The simulator meets many of the things that can happen to large clusters; here are all of
// the things that can happen to small ones. A scope says how many servers there are and how
// often each kind of event may occur. From the beginning, every event that is possible is
// tried in every state that is reached: a message may arrive at any time after it was sent,
// twice, or never; a server may crash at any time, also when only some records of a Step are
// on its disk and none of its answers have left.
//
// It is the real code that runs. What a server does is determined by what it is and what it
// is told, so each such pair is stepped once and remembered; a state of the whole is a
// combination of states of servers.

var flagStates = flag.Int("states", 200_000, "small scopes: visit so many `states` of each, at most")

// scope bounds what can happen.
type scope struct {
	servers int
	budget  [numberOfBudgets]int8
	closed  bool // all of it is visited, in seconds
}

const (
	maxElections = iota
	maxCommands
	maxBeats // heartbeats; what is not confirmed by then counts as lost and is sent again
	maxDoubles
	maxCrashes
	numberOfBudgets
)

// whole is a state of everything: what each server is, what is on its way, what may still
// happen; and of what has happened, that which the properties of Figure 3 speak of.
type whole struct {
	servers   [3]int32 // numbers of lives
	network   string   // numbers of messages, two bytes each, in order
	budget    [numberOfBudgets]int8
	leaders   [8]int8 // by term
	committed int32   // number of a list of facts
	asked     int8    // commands so far
}

// life is a state of one server: how it got there, and what is visible of it.
type life struct {
	id   int
	hard hardState // what its file held when its process started,
	log  []entry
	told []cue  // … what it was told since,
	data []byte // … and its file now

	role         role
	term, commit int
	entries      []entry
}

// cue is what a server can be told: a message, a command, or that a timer has run out.
type cue struct {
	key     string
	message *Message
	request *request
}

// effect is what came of a cue.
type effect struct {
	life        int32
	early, send []int32 // messages
	replies     []reply
	crashed     []int32 // lives after a crash with so many of the records on the disk
}

// fact is an entry that was committed, and in which term.
type fact struct {
	entry
	in int
}

// explorer knows everything that can happen, by number.
type explorer struct {
	scope
	lives    numbered[*life]
	messages numbered[*Message]
	facts    numbered[[]fact]
	effects  map[question]*effect
	seen     map[[2]uint64]bool
	seeds    [2]maphash.Seed
	queue    []visit
	steps    int
}

// question is what the code is asked: a life and a cue.
type question struct {
	life int32
	cue  string
}

// numbered gives numbers to things that have a name.
type numbered[T any] struct {
	list   []T
	number map[string]int32
}

func (n *numbered[T]) add(name string, thing T) int32 {
	if number, ok := n.number[name]; ok {
		return number
	}
	if n.number == nil {
		n.number = map[string]int32{}
	}
	number := int32(len(n.list))
	n.number[name] = number
	n.list = append(n.list, thing)
	return number
}

// visit is a state and the way that led there first.
type visit struct {
	whole
	way *way
}

type way struct {
	before *way
	text   func() string
}

func (w *way) String() string {
	if w == nil {
		return ""
	}
	return w.before.String() + "\n    " + w.text()
}

// explore visits the states of a scope, the near ones first, until all are visited or limit.
func explore(sc scope, limit int) *explorer {
	x := &explorer{scope: sc, effects: map[question]*effect{}, seen: map[[2]uint64]bool{},
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	start := whole{budget: sc.budget, committed: x.facts.add("", nil)}
	for id := 1; id <= sc.servers; id++ {
		start.servers[id-1] = x.born(id, appendLine(nil, fmt.Appendf(nil, `{"format":%q,"server":%d}`, diskFormat, id)))
	}
	x.visit(start, nil)
	for len(x.queue) > 0 && len(x.seen) < limit {
		v := x.queue[0]
		x.queue = x.queue[1:]
		x.expand(v)
	}
	return x
}

// visit notes a state, if it is new.
func (x *explorer) visit(w whole, way *way) {
	x.steps++
	key := [2]uint64{maphash.Comparable(x.seeds[0], w), maphash.Comparable(x.seeds[1], w)}
	if !x.seen[key] {
		x.seen[key] = true
		x.queue = append(x.queue, visit{w, way})
	}
}

// expand tries all that can happen next.
func (x *explorer) expand(v visit) {
	for i := range x.servers {
		l := x.lives.list[v.servers[i]]
		says := func(what string) func() string { return func() string { return fmt.Sprintf("S%d: %s", l.id, what) } }
		if l.role != leader {
			x.tell(v, i, maxElections, cue{key: "timeout"}, says("election timeout"))
		} else {
			x.tell(v, i, maxBeats, cue{key: "beat"}, says("heartbeat"))
			for serial := max(1, v.asked); serial <= v.asked+1; serial++ { // the last command again, or the next
				w := v
				w.asked = max(v.asked, serial)
				command := fmt.Sprintf("set x %d", serial)
				x.tell(w, i, maxCommands, cue{key: command, request: &request{Client: "c", Serial: int(serial),
					Command: command, to: clientAddress(1)}}, says(command))
			}
		}
		if v.budget[maxCrashes] > 0 {
			w := v.whole
			w.budget[maxCrashes]--
			w.servers[i] = x.restart(v.servers[i])
			x.visit(w, &way{v.way, says("crash")})
		}
	}
	for at := 0; at < len(v.network); at += 2 {
		number := v.network[at : at+2]
		if at > 0 && number == v.network[at-2:at] {
			continue // the same as before
		}
		m := x.messages.list[int(number[0])<<8|int(number[1])]
		text := func() string {
			return fmt.Sprintf("S%d: gets %s", m.To, strings.TrimSpace(string(appendMessage(nil, m))))
		}
		x.tell(v, m.To-1, maxDoubles, cue{key: number, message: m}, func() string { return text() + ", which will come again" })
		v := v
		v.network = v.network[:at] + v.network[at+2:]
		x.tell(v, m.To-1, -1, cue{key: number, message: m}, text)
	}
}

// tell tells server i something, at the expense of a budget, and visits what comes of it:
// all is performed, or the process dies when only some of its records are on the disk.
func (x *explorer) tell(v visit, i, budget int, c cue, text func() string) {
	if budget >= 0 {
		if v.budget[budget] == 0 {
			return
		}
		v.budget[budget]--
	}
	e := x.effect(v.servers[i], c)
	w, to := v.whole, &way{v.way, text}
	x.judge(&w, i, e, to)
	network := x.carry(v.network, e.early)
	if w.budget[maxCrashes] > 0 {
		for records, crashed := range e.crashed {
			dead := w
			dead.budget[maxCrashes]--
			dead.servers[i], dead.network = crashed, network
			x.visit(dead, &way{v.way, func() string { return fmt.Sprintf("%s, and dies with %d records on its disk", text(), records) }})
		}
	}
	w.servers[i], w.network = e.life, x.carry(network, e.send)
	x.visit(w, to)
}

// carry adds messages to those on their way.
func (x *explorer) carry(network string, messages []int32) string {
	for _, number := range messages {
		name := string([]byte{byte(number >> 8), byte(number)})
		at := 0
		for at < len(network) && network[at:at+2] < name {
			at += 2
		}
		network = network[:at] + name + network[at:]
	}
	return network
}

// restart is a crash of a server whose records are all on its disk.
func (x *explorer) restart(number int32) int32 {
	key := question{number, "crash"}
	if x.effects[key] == nil {
		l := x.lives.list[number]
		x.effects[key] = &effect{life: x.born(l.id, l.data)}
	}
	return x.effects[key].life
}

// born is a process that starts with a file.
func (x *explorer) born(id int, data []byte) int32 {
	hard, log, good, err := replay(data, id)
	must(err == nil && good == len(data), "a file without a torn tail is read to its end")
	return x.settle(&life{id: id, hard: hard, log: log, data: data}, x.revive(&life{id: id, hard: hard, log: log}))
}

// revive builds the server that a life describes.
func (x *explorer) revive(l *life) *server {
	var peers []int
	for id := 1; id <= x.servers; id++ {
		if id != l.id {
			peers = append(peers, id)
		}
	}
	s := newServer(l.id, peers, l.hard, slices.Clone(l.log), rand.New(rand.NewPCG(0, 0)))
	for _, c := range l.told {
		hearCue(s, c)
	}
	return s
}

// hearCue steps a server for which time stands still: its timers run out when it is told so.
func hearCue(s *server, c cue) Output {
	s.electionDue = math.MaxInt
	var inputs []input
	switch {
	case c.message != nil:
		inputs = append(inputs, c.message)
	case c.request != nil:
		inputs = append(inputs, c.request)
	case c.key == "timeout":
		s.electionDue = s.now
	case c.key == "beat":
		for _, p := range s.peers {
			w := s.progress[p]
			w.due = s.now
			for i := range w.flying {
				w.flying[i].sent = s.now - heartbeatTicks
			}
		}
	}
	out := s.Step(inputs...)
	s.electionDue = math.MaxInt
	return out
}

// settle gives a life its number. Lives are the same when the servers are, whatever they
// were told to get there.
func (x *explorer) settle(l *life, s *server) int32 {
	l.role, l.term, l.commit, l.entries = s.role, s.currentTerm, s.commitIndex, logOf(s)
	hard, log, _, err := replay(l.data, l.id)
	must(err == nil && hard == hardState{s.currentTerm, s.votedFor} && slices.Equal(log, l.entries), "restart equals the state before")
	return x.lives.add(fingerprint(s), l)
}

// effect steps a server, or remembers what came of it the last time.
func (x *explorer) effect(number int32, c cue) *effect {
	key := question{number, c.key}
	if e := x.effects[key]; e != nil {
		return e
	}
	before := x.lives.list[number]
	s := x.revive(before)
	out := hearCue(s, c)
	e := &effect{replies: out.Reply, early: x.post(out.Early), send: x.post(out.Send)}
	data := slices.Clone(before.data)
	for _, r := range out.Persist {
		e.crashed = append(e.crashed, x.born(before.id, slices.Clone(data)))
		data = appendRecord(data, r)
	}
	after := *before
	after.told, after.data = append(slices.Clone(before.told), c), data
	e.life = x.settle(&after, s)
	x.effects[key] = e
	return e
}

// post numbers messages. They go through the real JSON.
func (x *explorer) post(messages []Message) (numbers []int32) {
	for i := range messages {
		messages[i].At = 0 // the narration's clock decides nothing
		data := appendMessage(nil, &messages[i])
		m, drop := decode(data, serverAddress(messages[i].From), messages[i].To, addressBook)
		must(drop == "", "what a server sends, another can read")
		numbers = append(numbers, x.messages.add(string(data), m.(*Message)))
	}
	must(len(x.messages.list) < 1<<16, "two bytes for a message are enough")
	return numbers
}

// judge holds a Step of server i against Figure 3, and adds to w what has happened.
func (x *explorer) judge(w *whole, i int, e *effect, to *way) {
	before, l := x.lives.list[w.servers[i]], x.lives.list[e.life]
	check := func(holds bool, what string) {
		if !holds {
			panic(violation{what, to.String()})
		}
	}
	facts := x.facts.list[w.committed]
	check(l.term >= before.term && l.commit >= before.commit && l.commit <= len(l.entries), "term and commit never fall")
	if l.role == leader {
		first := w.leaders[l.term] == 0
		w.leaders[l.term] = int8(l.id)
		check(first || before.role == leader && before.term == l.term, "Election Safety")
		for at, f := range facts {
			check(f.in >= l.term || at < len(l.entries) && l.entries[at] == f.entry, "Leader Completeness")
		}
	}
	for at := before.commit; at < l.commit; at++ {
		if at == len(facts) {
			check(l.role == leader, "only a leader decides that an entry is committed")
			facts = append(facts[:at:at], fact{l.entries[at], l.term})
		}
		check(facts[at].entry == l.entries[at], "State Machine Safety")
	}
	if len(facts) > len(x.facts.list[w.committed]) {
		w.committed = x.facts.add(fmt.Sprint(facts), facts)
	}
	for _, other := range w.servers[:x.servers] {
		o := x.lives.list[other]
		at := min(len(l.entries), len(o.entries)) - 1
		for at >= 0 && l.entries[at].Term != o.entries[at].Term {
			at--
		}
		check(o.id == l.id || at < 0 || slices.Equal(l.entries[:at+1], o.entries[:at+1]), "Log Matching")
	}
	for _, r := range e.replies {
		done := slices.ContainsFunc(facts, func(f fact) bool { return f.Client == r.client && f.Serial == r.serial })
		check(r.err == errNotLeader || r.answer == answer{result: "ok"} && done, "an acknowledged write is committed")
	}
}

// fingerprint writes down all of a server that can make a difference.
func fingerprint(s *server) string {
	var b strings.Builder
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		switch v.Type().Field(i).Name {
		case "rand", "voice", "machine", "out":
		default:
			writeValue(&b, v.Field(i))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.machine.values)) {
		fmt.Fprintf(&b, "%q=%q ", key, s.machine.values[key])
	}
	for e := s.machine.recent.Front(); e != nil; e = e.Next() {
		fmt.Fprintf(&b, "%+v ", *e.Value.(*session))
	}
	return b.String()
}

// writeValue writes a value and all that it points to.
func writeValue(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("nil ")
			return
		}
		writeValue(b, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			writeValue(b, v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		fmt.Fprintf(b, "[%d ", v.Len())
		for i := range v.Len() {
			writeValue(b, v.Index(i))
		}
	case reflect.Map:
		var parts []string
		for _, key := range v.MapKeys() {
			part := new(strings.Builder)
			writeValue(part, key)
			writeValue(part, v.MapIndex(key))
			parts = append(parts, part.String())
		}
		slices.Sort(parts)
		fmt.Fprintf(b, "%q ", parts)
	default:
		fmt.Fprintf(b, "%v ", v)
	}
}

// TestSmallScopes visits every state of the closed scopes and the nearest of the others. With
// -states 3000000 the first of those is closed too.
func TestSmallScopes(t *testing.T) {
	for _, sc := range []scope{
		{servers: 2, budget: [...]int8{maxElections: 1, maxCommands: 1, maxBeats: 1, maxDoubles: 1, maxCrashes: 1}, closed: true},
		{servers: 2, budget: [...]int8{maxElections: 2, maxCommands: 1, maxBeats: 0, maxDoubles: 1, maxCrashes: 1}, closed: true},
		{servers: 3, budget: [...]int8{maxElections: 1, maxCommands: 1, maxBeats: 0, maxDoubles: 0, maxCrashes: 1}, closed: true},
		{servers: 3, budget: [...]int8{maxElections: 2, maxCommands: 0, maxBeats: 0, maxDoubles: 0, maxCrashes: 0}, closed: true},
		{servers: 3, budget: [...]int8{maxElections: 2, maxCommands: 1, maxBeats: 0, maxDoubles: 0, maxCrashes: 0}},
		{servers: 3, budget: [...]int8{maxElections: 2, maxCommands: 1, maxBeats: 1, maxDoubles: 1, maxCrashes: 1}},
	} {
		t.Run(fmt.Sprintf("%d servers", sc.servers), func(t *testing.T) {
			defer func() {
				if r := recover(); r != nil {
					t.Fatal(r)
				}
			}()
			start := time.Now()
			limit := *flagStates
			if underRace() {
				limit /= 10
			}
			x := explore(sc, limit)
			t.Logf("%d elections, %d commands, %d beats, %d doubles, %d crashes: %d states, %d steps between them, %d left; %d lives, %d messages; %.1f s",
				sc.budget[maxElections], sc.budget[maxCommands], sc.budget[maxBeats], sc.budget[maxDoubles], sc.budget[maxCrashes],
				len(x.seen), x.steps, len(x.queue), len(x.lives.list), len(x.messages.list), time.Since(start).Seconds())
			if sc.closed && len(x.queue) > 0 && limit >= 200_000 {
				t.Error("not all was visited")
			}
		})
	}
}

// =============================================================================
// SCENARIOS
// =============================================================================
//
// What MIT's distributed systems course asks of its students' Raft: the scenarios of its labs,
// without those about snapshots, in the world of the simulator, so that all its invariants are
// checked on the way. A tick is 10 ms; where the course waits for a second, here pass a hundred
// ticks. Our leaders begin with an empty entry (D3), so the first command has index 2.

// course is a cluster that does what a scenario says.
type course struct {
	*world
	t         *testing.T
	connected []bool // by id
	commands  int
}

// onCourse runs a scenario with n servers.
func onCourse(t *testing.T, n int, scenario func(c *course)) {
	t.Helper()
	w := emptyWorld(1)
	w.build(n)
	w.calm = true // nothing happens by itself
	w.weather = weather{usual: oneTick / 2}
	w.hazards = hazards{writeTime: 10, fsyncTime: 100, thinking: oneTick, downtime: oneTick, keys: 1}
	w.clients = []*client{{}} // whoever asked
	c := &course{world: w, t: t, connected: make([]bool, n+1)}
	var err error
	func() {
		defer w.catch(&err)
		for id := 1; id <= n; id++ {
			c.connected[id] = true
			w.start(w.nodes[id])
		}
		scenario(c)
	}()
	if err != nil {
		t.Fatalf("%v\n%s", err, w.stack)
	}
}

func (c *course) fail(format string, args ...any) {
	c.judge.check(false, fmt.Sprintf("at tick %.0f", c.ticks()), format, args...)
}

func (c *course) run(ticks int) { c.runUntil(c.now+moment(ticks)*oneTick, nil) }

// disconnect and connect cut servers off from all others, and undo it.
func (c *course) disconnect(ids ...int) { c.setConnected(false, ids) }
func (c *course) connect(ids ...int)    { c.setConnected(true, ids) }

func (c *course) setConnected(to bool, ids []int) {
	for _, id := range ids {
		c.connected[id] = to
	}
	for a := 1; a < len(c.nodes); a++ {
		for b := 1; b < len(c.nodes); b++ {
			c.cut[a][b] = a != b && !(c.connected[a] && c.connected[b])
		}
	}
}

func (c *course) kill(ids ...int) {
	for _, id := range ids {
		c.crash(c.nodes[id], true)
	}
}

// restart starts servers from their files; one that runs is killed first.
func (c *course) restart(ids ...int) {
	c.kill(ids...)
	for _, id := range ids {
		c.start(c.nodes[id])
	}
}

func (c *course) all() (ids []int) {
	for id := 1; id < len(c.nodes); id++ {
		ids = append(ids, id)
	}
	return ids
}

// others are all but these.
func (c *course) others(than ...int) []int {
	return slices.DeleteFunc(c.all(), func(id int) bool { return slices.Contains(than, id) })
}

// leading is the connected leader of the highest term, or none.
func (c *course) leading() (id int) {
	for _, n := range c.nodes[1:] {
		if n.s != nil && c.connected[n.id] && n.s.role == leader && (id == none || n.s.currentTerm > c.nodes[id].s.currentTerm) {
			id = n.id
		}
	}
	return id
}

// leader waits for a leader.
func (c *course) leader() int {
	if !c.runUntil(c.now+1000*oneTick, func() bool { return c.leading() != none }) {
		c.fail("nobody leads within 10 seconds")
	}
	return c.leading()
}

// nobodyLeads waits long, and no connected server must be leader then.
func (c *course) nobodyLeads() {
	c.run(200)
	if id := c.leading(); id != none {
		c.fail("S%d leads without a majority", id)
	}
}

// submit gives a new command to one server. It returns the client that asked and the index
// of the entry, or 0 if the server does not lead.
func (c *course) submit(id int) (client string, index int) {
	c.commands++
	client = fmt.Sprintf("k%d", c.commands)
	return client, c.ask(id, client, fmt.Sprintf("set x %d", c.commands))
}

func (c *course) ask(id int, client, command string) int {
	n := c.nodes[id]
	if n.s == nil {
		return 0
	}
	n.inbox = append(n.inbox, &request{Client: client, Serial: 1, Command: command, to: clientAddress(0)})
	c.turn(n)
	c.runUntil(c.now+oneTick, func() bool { return len(n.inbox) == 0 })
	if n.s == nil || n.s.role != leader {
		return 0
	}
	return n.s.log.length - 1
}

// applied tells how many servers have applied the command of a client.
func (c *course) applied(client string) (servers int) {
	for _, n := range c.nodes[1:] {
		if n.s != nil && n.s.machine.sessions[client] != nil {
			servers++
		}
	}
	return servers
}

// agree gets a command applied on at least so many servers, asking again where it must.
func (c *course) agree(servers int) (index int) {
	c.commands++
	client := fmt.Sprintf("k%d", c.commands)
	c.agreeOn(servers, client, fmt.Sprintf("set x %d", c.commands))
	return c.nodes[c.leader()].s.log.length - 1
}

func (c *course) agreeOn(servers int, client, command string) {
	for end := c.now + 1000*oneTick; c.now < end; {
		c.ask(c.leader(), client, command)
		if c.runUntil(c.now+200*oneTick, func() bool { return c.applied(client) >= servers }) {
			return
		}
	}
	c.fail("no agreement of %d servers within 10 seconds", servers)
}

// notCommitted waits for two seconds, and nobody must have applied the command.
func (c *course) notCommitted(client string) {
	c.run(200)
	if c.applied(client) > 0 {
		c.fail("%s is committed without a majority", client)
	}
}

// unreliable is the course's bad network, and reordering the worst of it.
func (c *course) unreliable() { c.weather = weather{usual: 27 * oneTick / 10, loss: 100} }

func (c *course) reordering() {
	c.weather = weather{usual: 27 * oneTick / 10, loss: 100, slow: 333, slowest: 220 * oneTick}
}

func TestCourse(t *testing.T) {
	for _, scenario := range []struct {
		name    string
		servers int
		run     func(c *course)
	}{
		{"InitialElection", 3, func(c *course) {
			first := c.leader()
			c.run(50)
			term := c.nodes[first].s.currentTerm
			c.run(200)
			for _, n := range c.nodes[1:] {
				if n.s.currentTerm != term || term < 1 {
					c.fail("S%d is in term %d, S%d was in term %d", n.id, n.s.currentTerm, first, term)
				}
			}
			if c.leader() != first {
				c.fail("the leader has changed without a reason")
			}
		}},
		{"ReElection", 3, func(c *course) {
			first := c.leader()
			c.disconnect(first)
			second := c.leader()
			c.connect(first)
			c.run(20)
			if c.leader() != second {
				c.fail("an old leader disturbs the new one")
			}
			another := c.others(second)[0]
			c.disconnect(second, another)
			c.nobodyLeads()
			c.connect(another)
			c.leader()
			c.connect(second)
			c.leader()
		}},
		{"ManyElections", 7, func(c *course) {
			c.leader()
			for range 9 {
				three := []int{1 + c.rand.IntN(7), 1 + c.rand.IntN(7), 1 + c.rand.IntN(7)}
				c.disconnect(three...)
				c.leader()
				c.connect(three...)
			}
			c.leader()
		}},
		{"BasicAgree", 3, func(c *course) {
			for i := range 3 {
				if index := c.agree(3); index != i+2 {
					c.fail("command %d has index %d", i+1, index)
				}
			}
		}},
		{"RPCBytes", 3, func(c *course) {
			c.json = true
			c.agree(3)
			before, payload := c.bytes, 0
			for i := range 10 {
				command := "set x " + padding[:5000]
				payload += len(command)
				c.agreeOn(3, fmt.Sprint("b", i), command)
			}
			if sent := c.bytes - before; sent < 2*payload || sent > 3*payload+50_000 {
				c.fail("%d bytes were sent for %d", sent, payload)
			}
		}},
		{"FollowerFailure", 3, func(c *course) {
			c.agree(3)
			first := c.leader()
			two := c.others(first)
			c.disconnect(two[0])
			c.agree(2)
			c.run(100)
			c.agree(2)
			c.disconnect(two[1])
			client, index := c.submit(first)
			if index != 5 {
				c.fail("the command has index %d", index)
			}
			c.notCommitted(client)
		}},
		{"LeaderFailure", 3, func(c *course) {
			c.agree(3)
			c.disconnect(c.leader())
			c.agree(2)
			c.run(100)
			c.agree(2)
			c.disconnect(c.leader())
			for _, id := range c.all() {
				client, _ := c.submit(id)
				c.notCommitted(client)
			}
		}},
		{"FailAgree", 3, func(c *course) {
			c.agree(3)
			away := c.others(c.leader())[0]
			c.disconnect(away)
			c.agree(2)
			c.agree(2)
			c.run(100)
			c.agree(2)
			c.agree(2)
			c.connect(away)
			c.agree(3)
			c.run(100)
			c.agree(3)
		}},
		{"FailNoAgree", 5, func(c *course) {
			c.agree(5)
			first := c.leader()
			three := c.others(first)[:3]
			c.disconnect(three...)
			client, _ := c.submit(first)
			c.notCommitted(client)
			c.connect(three...)
			c.submit(c.leader())
			c.agree(5)
		}},
		{"ConcurrentStarts", 3, func(c *course) {
			first := c.leader()
			term := c.nodes[first].s.currentTerm
			var clients []string
			for i := range 5 {
				clients = append(clients, fmt.Sprint("five", i))
				c.nodes[first].inbox = append(c.nodes[first].inbox, &request{Client: clients[i], Serial: 1, Command: "incr n", to: clientAddress(0)})
			}
			c.turn(c.nodes[first])
			c.run(100)
			for _, client := range clients {
				if c.applied(client) != 3 {
					c.fail("%s is applied by %d", client, c.applied(client))
				}
			}
			if c.nodes[first].s.currentTerm != term || c.judge.model.values["n"] != "5" {
				c.fail("term %d, n is %s", c.nodes[first].s.currentTerm, c.judge.model.values["n"])
			}
		}},
		{"Rejoin", 3, func(c *course) {
			c.agree(3)
			first := c.leader()
			c.disconnect(first)
			for range 3 {
				c.submit(first)
			}
			c.agree(2)
			second := c.leader()
			c.disconnect(second)
			c.connect(first)
			c.agree(2)
			c.connect(second)
			c.agree(3)
		}},
		{"Backup", 5, func(c *course) {
			c.agree(5)
			first := c.leader()
			rest := c.others(first)
			with, three := rest[0], rest[1:]
			c.disconnect(three...)
			c.submitMany(first, 50) // cannot be committed
			c.run(50)
			c.disconnect(first, with)
			c.connect(three...)
			c.agreeMany(3, 50)
			second := c.leader()
			away := slices.DeleteFunc(slices.Clone(three), func(id int) bool { return id == second })[0]
			c.disconnect(away)
			c.submitMany(second, 50) // neither can these
			c.run(50)
			c.disconnect(c.all()...)
			c.connect(first, with, away)
			c.agreeMany(3, 50)
			c.connect(c.all()...)
			start := c.now
			c.agree(5)
			if c.now > start+200*oneTick {
				c.fail("the logs agree after %d ticks only", (c.now-start)/oneTick)
			}
		}},
		{"Count", 3, func(c *course) {
			c.leader()
			if c.messages > 2*30 { // the course counts requests, we count each way
				c.fail("%d messages for an election", c.messages)
			}
			c.run(20)
			before := c.messages
			first := c.leader()
			c.submitMany(first, 10)
			client, _ := c.submit(first)
			c.runUntil(c.now+100*oneTick, func() bool { return c.applied(client) == 3 })
			if n := c.messages - before; n > 2*(10+1+3)*3 {
				c.fail("%d messages for ten commands", n)
			}
			c.run(20)
			before = c.messages
			c.run(100)
			if n := c.messages - before; n > 2*60 {
				c.fail("%d messages in an idle second", n)
			}
		}},
		{"Persist1", 3, func(c *course) {
			c.agree(3)
			c.restart(c.all()...)
			c.agree(3)
			c.restart(c.leader())
			c.agree(3)
			down := c.leader()
			c.kill(down)
			c.agree(2)
			c.restart(down)
			c.agree(3)
			down = c.others(c.leader())[0]
			c.kill(down)
			c.agree(2)
			c.restart(down)
			c.agree(3)
		}},
		{"Persist2", 5, func(c *course) {
			at := 0
			for range 5 {
				c.agree(5)
				id := func(i int) int { return 1 + (at+i)%5 }
				at = c.leader() - 1
				c.kill(id(1), id(2))
				c.agree(3)
				c.kill(id(0), id(3), id(4))
				c.restart(id(1), id(2)) // the next majority shares few servers with the last
				c.run(50)
				c.restart(id(3))
				c.agree(3)
				c.restart(id(4), id(0))
			}
			c.agree(5)
		}},
		{"Persist3", 3, func(c *course) {
			c.agree(3)
			first := c.leader()
			two := c.others(first)
			c.disconnect(two[1])
			c.agree(2)
			c.kill(first, two[0])
			c.connect(two[1])
			c.restart(first)
			c.agree(2)
			c.restart(two[0])
			c.agree(3)
		}},
		{"Figure8", 5, func(c *course) {
			c.agree(1)
			up := 5
			for range 1000 {
				for _, id := range c.all() {
					c.submit(id)
				}
				crashed := c.leading()
				if c.chance(100) {
					c.run(c.rand.IntN(50))
				} else {
					c.run(c.rand.IntN(2))
				}
				if crashed != none {
					c.kill(crashed)
					up--
				}
				for up < 3 {
					if id := 1 + c.rand.IntN(5); c.nodes[id].s == nil {
						c.restart(id)
						up++
					}
				}
			}
			for _, id := range c.all() {
				if c.nodes[id].s == nil {
					c.restart(id)
				}
			}
			c.agree(5)
		}},
		{"UnreliableAgree", 5, func(c *course) {
			c.unreliable()
			for range 49 {
				for range 4 {
					c.submit(c.leader())
				}
				c.agree(1)
			}
			c.weather = weather{usual: oneTick}
			c.agree(5)
		}},
		{"Figure8Unreliable", 5, func(c *course) {
			c.unreliable()
			c.agree(1)
			up := 5
			for round := range 1000 {
				if round == 200 {
					c.reordering()
				}
				for _, id := range c.all() {
					c.submit(id)
				}
				first := c.leading()
				if c.chance(100) {
					c.run(c.rand.IntN(50))
				} else {
					c.run(c.rand.IntN(2))
				}
				if first != none && c.chance(500) {
					c.disconnect(first)
					up--
				}
				for up < 3 {
					if id := 1 + c.rand.IntN(5); !c.connected[id] {
						c.connect(id)
						up++
					}
				}
			}
			c.connect(c.all()...)
			c.agree(5)
		}},
		{"ReliableChurn", 5, (*course).churn},
		{"UnreliableChurn", 5, func(c *course) { c.unreliable(); c.churn() }},
		{"DeafServer", 3, func(c *course) { // it asks for votes all the time (D8), and never hears that it got them
			c.agree(3)
			deaf := c.others(c.leader())[0]
			for _, id := range c.others(deaf) {
				c.cut[id][deaf] = true
			}
			c.run(100)
			for end := c.now + 40*oneTimeout; c.applied("d") < 2; c.run(5) {
				if id := c.leading(); id != none {
					c.ask(id, "d", "set x 1")
				}
				if c.now > end {
					c.fail("a server that hears nothing keeps the others from electing a leader")
				}
			}
		}},
		{"LeaderPartition", 3, func(c *course) { // a hundred commands at a leader that is alone
			c.agree(3)
			alone := c.leader()
			c.disconnect(alone)
			before := c.commands
			c.submitMany(alone, 100)
			c.agree(2)
			c.connect(alone)
			c.run(100)
			for i := before + 1; i <= before+100; i++ {
				if c.applied(fmt.Sprintf("k%d", i)) > 0 {
					c.fail("a command of the isolated leader is applied")
				}
			}
			c.agree(3)
		}},
		{"RestartReplay", 3, func(c *course) { // all count to a hundred, die, and go on counting
			first := c.leader()
			for i := range 100 {
				c.ask(first, fmt.Sprint("n", i), "incr n")
			}
			c.run(50)
			c.kill(c.all()...)
			c.restart(c.all()...)
			c.agreeOn(3, "last", "incr n")
			for _, n := range c.nodes[1:] {
				if n.s.machine.values["n"] != "101" {
					c.fail("S%d counts %s", n.id, n.s.machine.values["n"])
				}
			}
		}},
	} {
		t.Run(scenario.name, func(t *testing.T) { onCourse(t, scenario.servers, scenario.run) })
	}
}

func (c *course) submitMany(id, commands int) {
	for range commands {
		c.submit(id)
	}
}

func (c *course) agreeMany(servers, commands int) {
	first := c.leader()
	c.submitMany(first, commands-1)
	c.agree(servers)
}

// churn: servers are cut off, killed and started again while clients ask anywhere. What a
// client saw committed is in the final log; the judge would not let it go.
func (c *course) churn() {
	for range 20 {
		if c.chance(200) {
			c.disconnect(1 + c.rand.IntN(5))
		}
		if id := 1 + c.rand.IntN(5); c.chance(500) {
			if c.nodes[id].s == nil {
				c.restart(id)
			}
			c.connect(id)
		}
		if c.chance(200) {
			c.kill(1 + c.rand.IntN(5))
		}
		for range 3 {
			for _, id := range c.all() {
				c.submit(id)
			}
			c.run(20)
		}
	}
	c.weather = weather{usual: oneTick}
	for _, id := range c.all() {
		if c.nodes[id].s == nil {
			c.restart(id)
		}
	}
	c.connect(c.all()...)
	c.agree(5)
}

// TestCourseService: the course's last labs put clients on top: one or many, a bad network,
// partitions, restarts, and their histories must be linearizable.
func TestCourseService(t *testing.T) {
	for _, row := range []struct {
		name    string
		clients int
		bad     bool
		faults  []hazard
	}{
		{"one client", 1, false, nil},
		{"many clients", 6, false, nil},
		{"unreliable", 6, true, nil},
		{"partitions", 6, false, []hazard{cutFull}},
		{"restarts", 6, false, []hazard{powerCutAll}},
		{"unreliable, partitions, restarts", 8, true, []hazard{cutFull, powerCutAll, kill}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := emptyWorld(1)
			w.build(5)
			w.weather = weather{usual: oneTick / 2}
			if row.bad {
				w.weather = weather{usual: 27 * oneTick / 10, loss: 100}
			}
			w.hazards = hazards{interval: 50 * oneTick, downtime: 30 * oneTick, cutTime: 100 * oneTick, writeTime: 10, fsyncTime: 100,
				thinking: oneTick, keys: 2, sum: len(row.faults)}
			for _, kind := range row.faults {
				w.hazards.weight[kind] = 1
			}
			for _, n := range w.nodes[1:] {
				w.start(n)
			}
			for id := range row.clients {
				c := &client{id: id, name: fmt.Sprintf("c%d", id), patience: 20 * oneTick}
				w.clients = append(w.clients, c)
				w.alarm(c, oneTick)
			}
			w.plan(oneTick, event{kind: hazardStrikes})
			if err := w.simulate(1500 * oneTick); err != nil {
				t.Fatal(err, w.stack)
			}
			answered := 0
			for _, c := range w.judge.history {
				if c.returned > 0 {
					answered++
				}
			}
			t.Logf("%d commands, %d answered", len(w.judge.history), answered)
			if answered < 3*1500/heartbeatTicks && row.faults == nil && !row.bad {
				t.Errorf("that is less than three in a heartbeat interval")
			}
		})
	}
}

// ---- Bugs of others ---------------------------------------------------------------------
//
// Stories in which other implementations came to harm, each told up to the point where the
// harm was done. The rule behind each stands in the tables of Rules 2; here one sees what it
// is good for. (Figure 8, exactly once and the reads of deposed leaders are stories too, and
// have their own tests.)

// take takes the messages of one server to another out of the air.
func (d *desk) take(from, to int) (held []Message) {
	d.air = slices.DeleteFunc(d.air, func(m Message) bool {
		if m.From == from && m.To == to {
			held = append(held, m)
			return true
		}
		return false
	})
	return held
}

// pass hands messages over; what they cause stays in the air.
func (d *desk) pass(messages []Message) {
	for i := range messages {
		m := messages[i]
		d.step(m.To, &m)
	}
}

// reboot is a crash of one server and its start from the file.
func (d *desk) reboot(id int) {
	d.servers[id] = nil
	d.start(id)
}

func (d *desk) roles() string {
	text := ""
	for _, s := range d.servers[1:] {
		if s == nil {
			text += "-"
		} else {
			text += s.role.String()[:1]
		}
	}
	return text
}

func TestBugsOfOthers(t *testing.T) {
	for _, story := range []struct {
		name string
		logs []terms // at first, in term 3
		tell func(t *testing.T, d *desk)
	}{
		{"a vote forgotten when stepping down within a term", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			late := d.take(1, 2)
			d.timeout(2) // both are candidates of term 4
			d.pass(d.take(1, 3))
			d.pass(d.take(3, 1))
			d.pass(d.take(1, 2)) // word from the leader: S2 follows it …
			expect(t, "S1 leads", d.roles(), "lff")
			d.drop()
			d.pass(late)
			expect(t, "… and S1's late request finds its vote given", show(d.air[0]), "no")
		}},
		{"a vote of an older election counted in a newer one", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			d.pass(d.take(1, 2))
			old := d.take(2, 1) // granted in term 4
			d.drop()
			d.timeout(2)
			d.pass(d.take(2, 3))
			d.pass(d.take(3, 2))
			expect(t, "S2 leads term 5", d.roles(), "clf")
			d.drop()
			d.timeout(1)
			d.pass(old)
			expect(t, "S1 does not lead it too", words(d.roles(), d.servers[1].currentTerm), "clf 5")
		}},
		{"a vote counted twice", []terms{{}, {}, {}, {}, {}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			d.pass(d.take(1, 2))
			vote := d.take(2, 1)
			d.pass(append(vote, vote[0]))
			d.drop()
			d.timeout(3)
			d.pass(append(d.take(3, 4), d.take(3, 5)...))
			d.pass(append(d.take(4, 3), d.take(5, 3)...))
			expect(t, "only S3 leads", d.roles(), "cflff")
		}},
		{"a vote forgotten in a crash", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			d.pass(d.take(1, 3))
			d.pass(d.take(3, 1))
			d.drop()
			d.reboot(3)
			d.timeout(2)
			d.pass(d.take(2, 3))
			d.pass(d.take(3, 2))
			expect(t, "only S1 leads", d.roles(), "lcf")
			d.reboot(1)
			expect(t, "and S1 would remember its own", hardState{d.servers[1].currentTerm, d.servers[1].votedFor}, hardState{4, 1})
		}},
		{"the longer log wins over the newer one", []terms{{1, 1, 1}, {2}, {2}}, func(t *testing.T, d *desk) { // 2 is committed
			d.timeout(1)
			d.deliver(1, 3)
			expect(t, "S1 does not get the vote", d.roles(), "cff")
			d.drop()
			d.elect(2, 3)
			d.deliver(1, 2, 3)
			expect(t, "and loses its log", d.log(1), terms{2, 4})
		}},
		{"the newer log wins whatever its length", []terms{{1}, {1, 1}, {1, 1}}, func(t *testing.T, d *desk) { // both 1 are committed
			d.timeout(1)
			d.deliver(1, 3)
			expect(t, "S1 does not get the vote", d.roles(), "cff")
		}},
		{"a leader votes for another candidate of its term", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			d.timeout(2)
			late := d.take(2, 1)
			d.pass(d.take(1, 3))
			d.pass(d.take(3, 1))
			d.drop()
			d.pass(late)
			expect(t, "no", words(d.roles(), show(d.air[0])), "lcf no")
		}},
		{"a candidate insists although another has won", []terms{{1, 1}, {}, {1, 1}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			d.timeout(2)
			d.pass(d.take(1, 3))
			d.pass(d.take(3, 1))
			d.pass(d.take(1, 2)) // entries that do not fit to the log of S2
			expect(t, "S2 follows and refuses", words(d.roles(), show(d.air[len(d.air)-1])), "lff no(2;0@1)")
			d.deliver(1, 2, 3)
			expect(t, "until it has what it lacks", d.log(2), terms{1, 1, 4})
		}},
		{"what is committed is applied from the wrong log", []terms{{1, 1}, {1}, {1}}, func(t *testing.T, d *desk) {
			d.elect(2, 3)
			d.deliver(2, 3)
			d.tick(2, heartbeatTicks) // commit 2 is known
			d.bound = 1               // the datagrams are too small for entry 2
			d.deliver(1, 2, 3)
			expect(t, "S1 does not take its own entry 2 for it", words(d.servers[2].commitIndex, d.servers[1].commitIndex <= 1, d.log(1)), words(2, true, terms{1, 1}))
		}},
		{"a late AppendEntries erases what was acknowledged", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.elect(1, 2)
			d.step(1, asks("c", 1, "set x 1"))
			late := slices.Clone(d.take(1, 2))
			d.pass(late)
			d.step(1, asks("d", 1, "set x 2"))
			d.deliver(1, 2)
			expect(t, "both are committed", d.answers(), "c/1 ok, d/1 ok")
			d.pass(late)
			d.crash(1)
			expect(t, "and still there", d.log(2), terms{4, 4, 4})
			d.elect(2, 3)
			expect(t, "also with S3", d.log(2), terms{4, 4, 4, 5})
		}},
		{"a reply confirms what was appended since", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.elect(1, 2)
			d.step(1, asks("c", 1, "set x 1"))
			d.pass(d.take(1, 2))
			reply := d.take(2, 1)
			d.step(1, asks("d", 1, "set x 2"), asks("e", 1, "set x 3"))
			d.pass(reply)
			s := d.servers[1]
			expect(t, "entries 3 and 4 are on S1 only", words(s.lastIndex(), s.matchIndex[2], s.commitIndex, d.answers()), "4 2 2 c/1 ok")
		}},
		{"replies overtake each other", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.elect(1, 2)
			d.tick(1, heartbeatTicks)
			d.pass(d.take(1, 2))
			old := d.take(2, 1)
			d.step(1, asks("c", 1, "set x 1"))
			d.deliver(1, 2)
			d.pass(old)
			s := d.servers[1]
			expect(t, "matchIndex stays", words(s.matchIndex[2], s.nextIndex[2], s.commitIndex), "2 3 2")
		}},
		{"a late refusal takes nextIndex behind matchIndex", []terms{{1, 1, 1, 1}, {}, {1, 1, 1, 1}}, func(t *testing.T, d *desk) {
			d.elect(1, 3)
			d.pass(d.take(1, 2))
			refusal := d.take(2, 1)
			d.pass(refusal)
			d.deliver(1, 2)
			d.pass(refusal)
			s := d.servers[1]
			expect(t, "S2 has all, and S1 knows", words(s.matchIndex[2], s.nextIndex[2], d.log(2)), words(5, 6, terms{1, 1, 1, 1, 4}))
		}},
		{"a reply to an earlier reign", []terms{{}, {}, {}, {}, {}}, func(t *testing.T, d *desk) {
			d.timeout(1)
			d.pass(append(d.take(1, 3), d.take(1, 4)...))
			d.pass(append(d.take(3, 1), d.take(4, 1)...))
			d.step(1, asks("c", 1, "set x 1"), asks("d", 1, "set x 2"))
			d.pass(d.take(1, 2))
			late := d.take(2, 1) // S2 has the three entries of S1's term 4, and nobody else
			d.drop()
			d.timeout(3)
			d.pass(append(d.take(3, 4), d.take(3, 5)...))
			d.pass(append(d.take(4, 3), d.take(5, 3)...))
			d.pass(append(d.take(3, 1), d.take(3, 2)...))
			expect(t, "S3 leads term 5 and cuts them all", words(d.log(1), d.log(2)), words(terms{5}, terms{5}))
			d.crash(3)
			d.timeout(1)
			d.pass(append(d.take(1, 2), d.take(1, 4)...))
			d.pass(append(d.take(2, 1), d.take(4, 1)...))
			d.drop()
			d.step(1, asks("e", 1, "set x 3"), asks("f", 1, "set x 4"))
			d.tick(1, heartbeatTicks)
			d.deliver(1, 4)
			d.pass(late)
			s := d.servers[1]
			expect(t, "S1 leads term 6; two of five have its entries", words(d.log(1), d.log(2), d.log(4)), words(terms{5, 6, 6, 6}, terms{5}, terms{5, 6, 6, 6}))
			expect(t, "what S2 said in term 4 proves nothing", words(s.matchIndex[2], s.commitIndex), words(0, 0))
		}},
		{"a heartbeat's reply confirms a whole log", []terms{{1, 2, 2}, {1, 1, 1}, {1, 2, 2}}, func(t *testing.T, d *desk) {
			d.elect(1, 3)
			d.drop()
			d.servers[1].nextIndex[2] = 2
			d.bound = 1 // a heartbeat behind entry 1
			d.tick(1, heartbeatTicks)
			d.deliver(1, 2)
			expect(t, "only entry 1 is known to match", d.servers[1].matchIndex[2], 1)
			d.bound = 0
			d.tick(1, heartbeatTicks)
			d.deliver(1, 2)
			expect(t, "until the rest is repaired", d.log(2), terms{1, 2, 2, 4})
		}},
		{"a cut log comes back after a crash", []terms{{1, 1, 1}, {1}, {1}}, func(t *testing.T, d *desk) {
			for range 2 { // two conflicts in a row
				d.elect(2, 3)
				d.deliver(1, 2, 3)
				d.tick(2, heartbeatTicks)
				d.deliver(1, 2, 3)
				d.reboot(1)
				expect(t, "S1 comes back with what it confirmed", d.log(1), d.log(2))
				d.timeout(1)
				d.drop()
			}
		}},
		{"entries that nobody has committed are applied at the start", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.elect(1, 2)
			d.deliver(1, 2)
			d.step(1, asks("c", 1, "incr n"))
			d.drop()
			d.reboot(1)
			expect(t, "they wait", words(d.servers[1].commitIndex, d.servers[1].lastApplied, d.servers[1].machine.get("n")), "0 0 (none)")
			d.elect(1, 2)
			d.step(1, asks("c", 1, "incr n"))
			d.deliver(1, 2)
			expect(t, "and count once", words(d.servers[1].machine.get("n"), d.answers()), "1 c/1 1")
		}},
		{"a client is answered for another's entry", []terms{{}, {}, {}}, func(t *testing.T, d *desk) {
			d.elect(1, 2, 3)
			d.drop()
			d.step(1, asks("c", 1, "set x mine"))
			place := d.servers[1].lastIndex()
			d.drop()
			d.elect(2, 3)
			d.deliver(2, 3)
			for d.servers[2].lastIndex() < place { // something else takes the place
				d.step(2, asks("d", 1, "set x another"))
			}
			d.deliver(2, 3)
			d.answers()
			d.tick(2, heartbeatTicks)
			d.deliver(1, 2, 3)
			expect(t, "S1 has applied it and says nothing to its own", words(d.servers[1].lastApplied >= place, d.answers()), "true")
		}},
	} {
		t.Run(story.name, func(t *testing.T) { story.tell(t, newDesk(t, 3, story.logs...)) })
	}
}

// =============================================================================
// BREAK IT
// =============================================================================
//
// Every rule of raft.go carries weight, and this is the proof: take one away, bend it by
// one, forget one record, and some test notices. Each edit is applied to a copy of the
// repository. What notices it is printed, and how fast; an edit that nothing notices is a
// failure. It takes minutes:
//
//	go test -run TestBreakIt -breakit -timeout 30m -v          all edits
//	go test -run TestBreakIt/Lead4 -breakit -v                 those of one rule

var flagBreakIt = flag.Bool("breakit", false, "run TestBreakIt, which takes minutes")

// edits are old lines and the new ones that take their place. The old text stands once in
// raft.go. An edit is marked rules when a client could hardly ever see it, because it only wastes
// a message or an election, or because another rule makes good for it: the tables of rules must
// notice it, the simulator need not.
var edits = []struct {
	rule, what, old, new string
	rules                bool
}{
	// Elections.
	{"Persist", "a new term and vote stay in memory", "s.out.Persist = append(s.out.Persist, record{hard: &hardState{term, votedFor}})", "", false},
	{"Persist", "new entries stay in memory", "s.out.Persist = append(s.out.Persist, record{index: s.lastIndex() + 1, entry: e})", "", false},
	{"Persist", "a vote stays in memory", "s.setTermAndVote(term, rv.CandidateID)", "s.votedFor = rv.CandidateID", false},
	{"Persist", "a vote leaves before its fsync", "if m.AppendEntries != nil {\n\t\ts.out.Early", "if m.AppendEntries != nil || m.RequestVoteReply != nil {\n\t\ts.out.Early", false},
	{"Persist", "an AppendReply leaves before its fsync", "if m.AppendEntries != nil {\n\t\ts.out.Early", "if m.AppendEntries != nil || m.AppendEntriesReply != nil {\n\t\ts.out.Early", false},
	{"Persist", "a RequestVote leaves before its fsync", "if m.AppendEntries != nil {\n\t\ts.out.Early", "if m.AppendEntries != nil || m.RequestVote != nil {\n\t\ts.out.Early", false},
	{"All2", "a higher term is ignored", "if m.Term > s.currentTerm {", "if false {", false},
	{"All2", "a lower term is adopted too", "if m.Term > s.currentTerm {", "if m.Term != s.currentTerm {", false},
	{"All2", "a leader of an older term stays one", "s.setTermAndVote(m.Term, none) // [All2]\n\t\ts.becomeFollower(none)", "s.setTermAndVote(m.Term, none)", false},
	{"All2", "stepping down within a term forgets the vote", "\ts.role = follower\n\ts.leaderID = leaderID", "\tif s.role != follower && s.votedFor != none {\n\t\ts.votedFor = none\n\t\ts.out.Persist = append(s.out.Persist, record{hard: &hardState{s.currentTerm, none}})\n\t}\n\ts.role = follower\n\ts.leaderID = leaderID", false},
	{"Fol2", "a refused vote restarts the timer", "\ts.tellVote(from, term, rv, granted)", "\ts.resetElectionTimer()\n\ts.tellVote(from, term, rv, granted)", true},
	{"Fol2", "a granted vote does not restart the timer", "\t\ts.resetElectionTimer() // [Fol2]\n", "", true},
	{"Fol2", "a vote that is granted again restarts the timer", "\ts.tellVote(from, term, rv, granted)", "\tif granted {\n\t\ts.resetElectionTimer()\n\t}\n\ts.tellVote(from, term, rv, granted)", true},
	{"Fol2", "word from the leader does not restart the timer", "\ts.becomeFollower(leaderID) // [Cand3]\n\ts.resetElectionTimer()", "\ts.becomeFollower(leaderID)", true},
	{"Fol2", "all election timeouts are equal", "electionTicksMin + s.rand.IntN(electionTicksMax-electionTicksMin+1)", "electionTicksMin + s.rand.IntN(1)", true},
	{"Cand1", "a candidate keeps the votes of its last election", "s.votes = map[int]bool{s.id: true}", "if s.votes == nil {\n\t\ts.votes = map[int]bool{}\n\t}\n\ts.votes[s.id] = true", false},
	{"Cand1", "a candidate does not vote for itself", "s.setTermAndVote(s.currentTerm+1, s.id)", "s.setTermAndVote(s.currentTerm+1, none)", false},
	{"Cand2", "a vote of an older election counts", "s.role == candidate && term == s.currentTerm && r.VoteGranted", "s.role == candidate && r.VoteGranted", false},
	{"Cand2", "a vote that arrives twice counts twice", "s.votes[from] = true", "s.votes[1000+len(s.votes)] = true", false},
	{"Cand2", "a refusal counts as a vote", "term == s.currentTerm && r.VoteGranted", "term == s.currentTerm", false},
	{"Cand2", "half of the servers are a majority", "return (len(s.peers)+1)/2 + 1", "return (len(s.peers) + 2) / 2", false},
	{"Cand2", "a majority is one too few", "return (len(s.peers)+1)/2 + 1", "return (len(s.peers) + 1) / 2", false},
	{"Cand3", "a candidate does not yield to a leader", "\ts.becomeFollower(leaderID) // [Cand3]", "\ts.leaderID = leaderID", false},
	{"Cand4", "a candidate never tries again", "s.role == leader || s.now < s.electionDue", "s.role != follower || s.now < s.electionDue", true},
	{"RV1", "a candidate of an older term gets a vote", "granted := term == s.currentTerm && // [RV1]", "granted := true &&", true},
	{"RV2", "two votes a term", "(s.votedFor == none || s.votedFor == rv.CandidateID) && // [RV2] one vote a term,", "true &&", false},
	{"RV2", "a vote for any log", "s.upToDate(rv.LastLogTerm, rv.LastLogIndex) // … and only for such a log", "true", false},
	{"RV2", "logs are compared by their length only", "if lastLogTerm != s.lastTerm() {", "if false {", false},
	{"RV2", "logs are compared by their last term only", "return lastLogIndex >= s.lastIndex()", "return true", false},
	{"RV2", "an equal log is not good enough", "return lastLogIndex >= s.lastIndex()", "return lastLogIndex > s.lastIndex()", false},

	// Replication.
	{"Lead1", "no heartbeats", "if s.now >= s.progress[p].due { // [Lead1]", "if false {", false},
	{"D3", "a leader begins without an empty entry", "if !s.noopOff {", "if false {", false},
	{"AE1", "entries from an older term are taken", "if term < s.currentTerm { // [AE1]", "if false {", false},
	{"AE2", "the entry before the new ones is not looked at", "if !s.matches(prev, ae.PrevLogTerm) { // [AE2]", "if prev > s.lastIndex() {", false},
	{"AE2", "an entry matches whatever its term", "return index <= s.lastIndex() && s.log.at(index).Term == term", "return index <= s.lastIndex()", false},
	{"AE3", "cut without a conflict", "\t\tif s.matches(index, e.Term) {\n\t\t\tcontinue", "\t\tif false {\n\t\t\tcontinue", false},
	{"AE3", "a conflict is not noticed", "\t\tif s.matches(index, e.Term) {\n\t\t\tcontinue", "\t\tif index <= s.lastIndex() {\n\t\t\tcontinue", false},
	{"AE4", "what is in the log already is appended again", "s.store(index, ae.Entries[i:]...)", "s.store(index, ae.Entries...)", false},
	{"AE4", "only the first new entry is appended", "s.store(index, ae.Entries[i:]...)", "s.store(index, ae.Entries[i])", false},
	{"AE5", "the commit reaches to the end of the log", "min(ae.LeaderCommit, lastNew)", "min(ae.LeaderCommit, s.lastIndex())", false},
	{"AE5", "leaderCommit is followed further than entries came", "n := min(ae.LeaderCommit, lastNew); n > s.commitIndex", "n := ae.LeaderCommit; n > s.commitIndex", false},
	{"AE5", "commitIndex falls", "n := min(ae.LeaderCommit, lastNew); n > s.commitIndex", "n := min(ae.LeaderCommit, lastNew); n != s.commitIndex", false},
	{"AE5", "a follower never commits", "\t\ts.commitIndex = n\n\t}\n\ts.tellAppended", "\t}\n\ts.tellAppended", false},
	{"D1", "a reply confirms the whole log", "Success: true, MatchIndex: lastNew", "Success: true, MatchIndex: s.lastIndex()", false},
	{"D1", "a reply of an earlier reign counts", "s.role != leader || term != s.currentTerm {", "s.role != leader {", false},
	{"Lead3a", "an older reply lowers matchIndex", "max(s.matchIndex[from], r.MatchIndex)", "r.MatchIndex", false},
	{"Lead3a", "a reply confirms all that was sent", "max(s.matchIndex[from], r.MatchIndex)", "s.nextIndex[from] - 1", false},
	{"Lead3b", "nextIndex falls below what is confirmed", "next := max(s.matchIndex[from]+1, min(s.tryAgainAt(r), s.nextIndex[from]))", "next := min(s.tryAgainAt(r), s.nextIndex[from])", false},
	{"Lead3b", "a refusal moves nothing", "\ts.nextIndex[from] = next // [Lead3b]\n", "", false},
	{"Lead3b", "a refusal confirms what it asks for", "\tw.flying, w.repair = nil, s.seq\n}\n\n// tryAgainAt", "\ts.matchIndex[from] = max(s.matchIndex[from], r.ConflictIndex-1)\n\tw.flying, w.repair = nil, s.seq\n}\n\n// tryAgainAt", false},
	{"AE1", "a refusal of an earlier reign's message counts", "if r.refusesTerm() {", "if false {", true},
	{"AE3", "a cut keeps one entry too many", "l.pieces[last] = l.pieces[last][:length%pieceLength]", "l.pieces[last] = l.pieces[last][:length%pieceLength+1]", false},
	{"Lead4", "an entry of an older term is committed by counting", "n > s.commitIndex && s.log.at(n).Term == s.currentTerm", "n > s.commitIndex", false},
	{"Lead4", "a minority is enough", "return reached[len(reached)-s.majority()]", "return reached[max(1, len(reached)-1)%len(reached)]", false},
	{"Lead4", "all must have it", "return reached[len(reached)-s.majority()]", "return reached[0]", false},

	// Commands and reads.
	{"All1", "what is not committed is applied", "return s.lastApplied < s.commitIndex", "return s.lastApplied < s.lastIndex()", false},
	{"All1", "an entry is left out", "\t\ts.lastApplied++\n", "\t\ts.lastApplied = min(s.lastApplied+2, s.commitIndex)\n", false},
	{"Lead2", "a write is answered before it is committed", "\t\ts.await(r)                                                                    // chapter 9", "\t\ts.answer(r, answer{result: \"ok\"})", false},
	{"SE1", "a repeat is appended again", "if w, ok := s.waiting[r.Client]; ok && r.Serial <= w.serial { // [SE1]", "if w, ok := s.waiting[r.Client]; ok && r.Serial < 0 {", true},
	{"SE2", "a repeat is carried out again", "if e.Serial <= s.serial { // [SE2]", "if false {", true},
	{"SE2", "a repeat gets no answer", "return s.answer, e.Serial == s.serial", "return s.answer, false", true},
	{"SE2", "an older serial gets the newest answer", "return s.answer, e.Serial == s.serial", "return s.answer, true", true},
	{"SE3", "the leader's look at a session counts as its use", "done := element.Value.(*session)", "s.machine.recent.MoveToBack(element)\n\t\tdone := element.Value.(*session)", false},
	{"SE4", "a serial without a session is carried out", "if e.Serial > 1 { // [SE4]", "if false {", true},
	{"Lead2", "the answer goes to whoever waits", "if !waits || w.serial != e.Serial {", "if !waits {", false},
	{"RD1", "a leader reads before it knows what is committed", "max(s.commitIndex, s.firstIndexOf(s.currentTerm))", "s.commitIndex", false},
	{"RD3", "a leader reads without asking whether it still is", "if r.after >= confirmed || r.index > s.lastApplied {", "if r.index > s.lastApplied {", false},
	{"RD3", "an answer to any question of this reign counts", "read{r, index, s.seq, s.now}", "read{r, index, 0, s.now}", false},
	{"RD4", "a read does not wait for what it must see", "if r.after >= confirmed || r.index > s.lastApplied {", "if r.after >= confirmed {", false},

	{"SE2", "a repeat gets another answer", "s.answer(r, done.answer)", "s.answer(r, answer{result: \"ok\"})", false},
	{"D1", "two numbers change places on the wire", "ae.LeaderCommit, ae.Seq)", "ae.Seq, ae.LeaderCommit)", false},
	{"All1", "applying a command changes the log", "e := s.log.at(s.lastApplied)", "e := s.log.at(s.lastApplied)\n\t\te.Command += \" \"", false},

	// The clock.
	{"Lead1", "a leader sleeps through a heartbeat", "if due = min(due, w.due); len(w.flying) > 0 {", "if len(w.flying) > 0 {", false},
	{"D6", "a leader sleeps while it should send again", "due = min(due, w.flying[0].sent+heartbeatTicks)", "due = min(due, w.due)", false},
	{"D8", "a candidate sleeps while it should ask again", "due = min(due, s.askAgainDue)", "due = min(due, s.electionDue)", false},
	{"Fol2", "a process that was stopped sees a burst of ticks", "return max(0, c.sleep-2), true", "return n, true", true},
	{"Fol2", "a process that was stopped acts before it reads", "return max(0, c.sleep-2), true", "return c.sleep-1, true", true},

	// The disk.
	{"DK2", "an entry is recorded at the next place", "record{index: s.lastIndex() + 1, entry: e}", "record{index: s.lastIndex() + 2, entry: e}", false},
	{"DK2", "an entry is put behind those that it replaces", "*log = append((*log)[:r.Index-1], r.entry) // [DK2]", "*log = append(*log, r.entry)", false},
	{"DK2", "an entry replaces one, and what follows stays", "*log = append((*log)[:r.Index-1], r.entry) // [DK2]", "if r.Index <= len(*log) {\n\t\t(*log)[r.Index-1] = r.entry\n\t\treturn nil\n\t}\n\t*log = append(*log, r.entry)", false},
	{"DK5", "nothing is synced", "return d.file.Sync()\n}\n\n// checkLength", "return nil\n}\n\n// checkLength", true},
	{"DK5", "a failed fsync passes", "return d.file.Sync()\n}\n\n// checkLength", "d.file.Sync()\n\treturn nil\n}\n\n// checkLength", true},
	{"DK3", "a torn tail is an error", "if holdsRecord(data[good:]) { // [DK4]", "if true {", false},
	{"DK4", "damage in the middle passes for a torn tail", "if holdsRecord(data[good:]) { // [DK4]", "if false {", true},
}

// breakItSkips are the tests of real processes, which would only be slow here, and the one that
// would miss a tag in the comment of a line that is gone.
const breakItSkips = "^Test(BreakIt|RuleMap|Notes|Kill|RealFaults|CommandLine|Simulator)"

func TestBreakIt(t *testing.T) {
	source, err := os.ReadFile("raft.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		if n := strings.Count(string(source), edit.old); n != 1 {
			t.Fatalf("%s: its old text stands %d times in raft.go: %s", edit.what, n, edit.old)
		}
	}
	if !*flagBreakIt {
		t.Skip("the edits themselves only with -breakit: they take minutes")
	}
	for _, edit := range edits {
		t.Run(edit.rule, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			copyRepository(t, dir)
			broken := strings.Replace(string(source), edit.old, edit.new, 1)
			if err := os.WriteFile(filepath.Join(dir, "raft.go"), []byte(broken), 0o644); err != nil {
				t.Fatal(err)
			}
			build := []string{"test", "-c", "-vet=off", "-gcflags=-l -dwarf=false", "-ldflags=-s -w", "-o", "broken.test"}
			if out, err := runIn(dir, "go", build...); err != nil {
				t.Fatalf("%s: %v\n%s", edit.what, err, out)
			}
			binary := filepath.Join(dir, "broken.test")
			who := noticed(dir, binary, "-test.run=^TestSimulator$", "-test.failfast")
			if edit.rules && who == "" {
				who = noticed(dir, binary, "-test.short", "-test.failfast", "-test.skip="+breakItSkips)
			}
			if who == "" {
				t.Fatalf("%s: nobody has noticed", edit.what)
			}
			t.Logf("%s: %s", edit.what, who)
		})
	}
}

func copyRepository(t *testing.T, dir string) {
	files, _ := filepath.Glob("*_test.go")
	for _, name := range append(files, "go.mod", "NOTES.md") {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func runIn(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// noticed runs tests of a broken copy. It returns what failed first, or "".
func noticed(dir, binary string, args ...string) string {
	start := time.Now()
	out, err := runIn(dir, binary, append(args, "-test.timeout=120s")...)
	if err == nil {
		return ""
	}
	what := "crash: " + firstLine(out)
	if m := regexp.MustCompile(`--- FAIL: (\S+)`).FindStringSubmatch(out); m != nil {
		what = m[1]
	}
	if m := regexp.MustCompile(`_test.go:\d+: (.* \(seed \d+, event \d+\))`).FindStringSubmatch(out); m != nil {
		what = m[1]
	} else if strings.Contains(out, "panic: test timed out") {
		what = "it hangs"
	}
	return fmt.Sprintf("%s, %.1f s", what, time.Since(start).Seconds())
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// =============================================================================
// REAL PROCESSES
// =============================================================================
//
// The binary itself, on real sockets and files, killed with kill -9. The simulator has seen
// far more than these tests ever will; they are here for what it cannot see: sockets, files,
// processes, the loop and the console, which serves as the client.

// processes is a cluster of server processes.
type processes struct {
	t         testing.TB
	binary    string
	peers     string
	dir       string
	addresses map[int]netip.AddrPort
	running   map[int]*exec.Cmd
}

func startProcesses(t testing.TB, n int) *processes {
	p := prepareProcesses(t, n)
	p.startAll()
	return p
}

func prepareProcesses(t testing.TB, n int) *processes {
	var flags []string
	if underRace() {
		flags = append(flags, "-race") // the servers, too: no other test runs their loop
	}
	p := &processes{t: t, binary: buildRaft(t, flags...), peers: freePeers(t, n), dir: t.TempDir(), running: map[int]*exec.Cmd{}}
	p.addresses, _ = parsePeers(p.peers)
	t.Cleanup(func() {
		for id := range p.running {
			p.kill(id)
		}
	})
	return p
}

func (p *processes) startAll() {
	for id := range p.addresses {
		p.start(id)
	}
}

// start starts a server. It needs no waiting: whoever asks it asks again.
func (p *processes) start(id int) {
	cmd := exec.Command(p.binary, "-id", strconv.Itoa(id), "-peers", p.peers, "-dir", p.dir, "-watch", "0")
	cmd.Stderr = new(bytes.Buffer) // silent, unless it refuses to start or has a data race
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.running[id] = cmd
}

// kill is kill -9.
func (p *processes) kill(id int) {
	cmd := p.running[id]
	cmd.Process.Kill()
	cmd.Wait()
	delete(p.running, id)
	if said := cmd.Stderr.(*bytes.Buffer); said.Len() > 0 {
		p.t.Errorf("S%d says:\n%s", id, said)
	}
}

func (p *processes) signal(id int, name string) {
	exec.Command("kill", "-"+name, strconv.Itoa(p.running[id].Process.Pid)).Run()
}

func (p *processes) console() *console {
	quiet := newScreen(false)
	quiet.err = io.Discard // redirects
	c, err := newConsole(p.addresses, 10*time.Millisecond, quiet)
	if err != nil {
		p.t.Fatal(err)
	}
	c.client += "-" + c.conn.LocalAddr().String()
	c.patience = 10 * time.Second // these machines may be busy
	p.t.Cleanup(func() { c.conn.Close() })
	return c
}

func mustAnswer(t testing.TB, c *console, line, want string) {
	t.Helper()
	if got := c.exec(line); got != want {
		t.Fatalf("%s: got %q, want %q", clip(line, 200), clip(got, 200), clip(want, 200))
	}
}

// TestKillEveryServer: one server at a time, then all at once; nothing is ever lost.
func TestKillEveryServer(t *testing.T) {
	p := startProcesses(t, 3)
	c := p.console()
	for id := 1; id <= 3; id++ {
		mustAnswer(t, c, fmt.Sprintf("set before%d %d", id, id), "ok")
		p.kill(id)
		mustAnswer(t, c, fmt.Sprintf("set without%d %d", id, id), "ok")
		p.start(id)
	}
	mustAnswer(t, c, "incr n", "1")
	for id := 1; id <= 3; id++ {
		p.kill(id)
	}
	for id := 1; id <= 3; id++ {
		p.start(id)
	}
	mustAnswer(t, c, "incr n", "2")
	for id := 1; id <= 3; id++ {
		mustAnswer(t, c, fmt.Sprintf("get before%d", id), strconv.Itoa(id))
		mustAnswer(t, c, fmt.Sprintf("get without%d", id), strconv.Itoa(id))
	}

	// The longest datagrams: a server that was away gets three such commands, two of them in one
	// AppendEntries, and a majority needs it then.
	long := strings.Repeat("v", 32_000)
	p.kill(3)
	for _, key := range []string{"a", "b", "c"} {
		mustAnswer(t, c, "set "+key+" "+key+long, "ok")
	}
	p.start(3)
	p.kill(1)
	for _, key := range []string{"a", "b", "c"} {
		mustAnswer(t, c, "get "+key, key+long)
	}
}

// TestKillAllInTheMiddleOfWrites: every acknowledged write is there afterwards.
func TestKillAllInTheMiddleOfWrites(t *testing.T) {
	p := startProcesses(t, 3)
	const workers, enough = 8, 400
	var acknowledged [workers][]string
	for round := range 2 {
		var done atomic.Int64
		var stop atomic.Bool
		var wait sync.WaitGroup
		for w := range workers {
			c := p.console()
			c.patience = 2 * time.Second
			background(&wait, func() {
				for i := 0; !stop.Load(); i++ {
					key := fmt.Sprintf("k%d-%d-%d", round, w, i)
					if c.exec("set "+key+" "+key) == "ok" {
						acknowledged[w] = append(acknowledged[w], key)
						done.Add(1)
					}
				}
			})
		}
		for probe := p.console(); done.Load() < enough; {
			mustAnswer(t, probe, "del nothing", "(none)") // paces this loop
		}
		for id := 1; id <= 3; id++ {
			p.kill(id)
		}
		stop.Store(true)
		wait.Wait()
		for id := 1; id <= 3; id++ {
			p.start(id)
		}
	}
	c, total := p.console(), 0
	for _, keys := range acknowledged {
		for _, key := range keys {
			mustAnswer(t, c, "get "+key, key)
			total++
		}
	}
	t.Logf("%d acknowledged writes, all there", total)
}

func background(wait *sync.WaitGroup, f func()) {
	wait.Add(1)
	go func() {
		defer wait.Done()
		f()
	}()
}

// TestRealFaults: kill -9, stopped processes, loss, delays and partitions on a real cluster;
// what the clients saw must be linearizable, and all servers must end equal.
func TestRealFaults(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d servers", n), func(t *testing.T) {
			t.Parallel()
			p := startProcesses(t, n)
			history := p.underFaults(4*time.Second, 5)
			answered := 0
			for _, c := range history {
				if c.returned > 0 {
					answered++
				}
			}
			if err := linearizable(history); err != nil {
				t.Error(err)
			}
			p.mustBecomeEqual()
			if answered < 50 {
				t.Errorf("only %d of %d calls were answered", answered, len(history))
			}
			t.Logf("%d calls, %d answered", len(history), answered)
		})
	}
}

// underFaults lets workers use the cluster while one fault after the other happens to it,
// and returns what they saw.
func (p *processes) underFaults(span time.Duration, workers int) (history []call) {
	var lock sync.Mutex
	var clock atomic.Int64 // orders questions and answers
	var stop atomic.Bool
	var wait sync.WaitGroup
	for w := range workers {
		c := p.console()
		c.patience = time.Second
		r := rand.New(rand.NewPCG(uint64(w), 7))
		background(&wait, func() {
			for !stop.Load() {
				key := fmt.Sprintf("k%d", r.IntN(3))
				line := []string{fmt.Sprintf("set %s %d", key, r.IntN(100)), "incr " + key, "del " + key,
					fmt.Sprintf("cas %s %d %d", key, r.IntN(3), r.IntN(3)), "get " + key}[r.IntN(5)]
				if w%2 == 1 { // only reads, so it stays with a deposed leader as long as that answers
					line = "get " + key
				}
				h := call{client: w, command: line, invoked: int(clock.Add(1))}
				switch text := c.exec(line); {
				case strings.HasPrefix(text, "error: no leader known"):
					continue // certainly not done
				case strings.HasPrefix(text, "unknown: "):
				case strings.HasPrefix(text, "error: "):
					h.answer.err = strings.TrimPrefix(text, "error: ")
					h.returned = int(clock.Add(1))
				default:
					h.answer.result = text
					h.returned = int(clock.Add(1))
				}
				lock.Lock()
				history = append(history, h)
				lock.Unlock()
			}
		})
	}
	p.faults(span)
	stop.Store(true)
	wait.Wait()
	return history
}

// faults happen for a span of real time, a few in a second.
func (p *processes) faults(span time.Duration) {
	c := p.console()
	r := rand.New(rand.NewPCG(uint64(len(p.addresses)), 1))
	ids := c.ids
	pace := time.NewTicker(150 * time.Millisecond)
	defer pace.Stop()
	for end := time.Now().Add(span); time.Now().Before(end); <-pace.C {
		id := ids[r.IntN(len(ids))]
		switch r.IntN(6) {
		case 0:
			p.kill(id)
			<-pace.C
			p.start(id)
		case 1:
			p.signal(id, "STOP")
			<-pace.C
			<-pace.C
			p.signal(id, "CONT")
		case 2:
			c.exec("@all loss 20")
		case 3:
			c.exec("@all delay 0 3; @all dup 20")
		case 4:
			c.exec(fmt.Sprintf("@%d cut all", id))
		case 5:
			c.exec("@all heal")
		}
	}
	c.exec("@all heal")
}

// mustBecomeEqual waits until all servers hold the same log and state.
func (p *processes) mustBecomeEqual() {
	c := p.console()
	c.exec("incr probe") // whatever was pending is decided with it
	for end := time.Now().Add(20 * time.Second); ; {
		var states []string
		for _, id := range c.ids {
			v, err := c.viewOf(id, 1)
			if err != nil {
				break
			}
			states = append(states, fmt.Sprint(v.Last, v.Applied, v.State))
		}
		if len(states) == len(c.ids) && len(slices.Compact(slices.Clone(states))) == 1 {
			break
		}
		if time.Now().After(end) {
			p.t.Fatalf("servers stay different: %v", states)
		}
	}
	if text := c.exec("check"); !strings.HasPrefix(text, "ok: ") {
		p.t.Fatal(text)
	}
}

// TestCommandLine: what scripts rely on: answers on stdout, one error line, exit codes.
func TestCommandLine(t *testing.T) {
	raft := buildRaft(t)
	dir := t.TempDir()
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // after the parallel subtests
	foreign := filepath.Join(dir, "foreign")
	os.Mkdir(foreign, 0o755)
	os.WriteFile(filepath.Join(foreign, "server-1.log"), append(header(1), "00000000 {\"index\":1}\n"+string(header(1))...), 0o644)
	tests := []struct {
		name, stdin string
		args        []string
		stdout      string // whole
		stderr      string // whole, if it is one error line
		code        int
	}{
		{"a cluster reads a pipe", "set x 1; get x # both\nset y \"a;b\"\nget y\nincr n 5\n", []string{"-peers", freePeers(t, 3), "-watch", "0"},
			"ok\n1\nok\na;b\n5\n", "", 0},
		{"a failed command", "get\nset x 1\n", []string{"-peers", freePeers(t, 1), "-watch", "0"},
			"error: get needs KEY (got 0 words)\nok\n", "", 1},
		{"a typo", "stat\n", []string{"-client"}, "error: no such command \"stat\"; did you mean \"status\"?\n", "", 1},
		{"nobody there", "@1 status\n", []string{"-client", "-peers", freePeers(t, 1)}, "S1: unknown: S1 does not answer; is it running?\n", "", 1},
		{"a command as arguments", "", []string{"-client", "explain", "RV1"},
			"RV1 (§5.1): no vote for a candidate of an older term.\nWithout it: elections that are over elect leaders.\n", "", 0},
		{"port taken", "", []string{"-id", "1", "-watch", "0", "-peers", "1=" + taken.LocalAddr().String()}, "",
			fmt.Sprintf("error: %v is in use; is server 1 already running?\n", taken.LocalAddr()), 1},
		{"port taken, cluster", "", []string{"-watch", "0", "-peers", "1=" + taken.LocalAddr().String()}, "",
			fmt.Sprintf("error: %v is in use; is server 1 already running?\n", taken.LocalAddr()), 1},
		{"damaged file", "", []string{"-id", "1", "-watch", "0", "-dir", foreign, "-peers", freePeers(t, 1)}, "",
			"error: " + foreign + "/server-1.log line 2: damaged, but intact records follow; this server may have promised what is lost, " +
				"so do not start it with this file\n", 1},
		{"bad flag", "", []string{"-watch", "9"}, "", "error: -watch 9 is not 0 to 3\n", 2},
		{"stray argument", "", []string{"status"}, "", "error: what is \"status\"? only -client takes a command; -h shows the flags\n", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(raft, append([]string{"-dir", t.TempDir()}, test.args...)...)
			cmd.Stdin = strings.NewReader(test.stdin)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Run()
			if stdout.String() != test.stdout || cmd.ProcessState.ExitCode() != test.code ||
				test.stderr != "" && stderr.String() != test.stderr {
				t.Errorf("got %q, %q, exit %d\nwant %q, %q, exit %d", stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(),
					test.stdout, test.stderr, test.code)
			}
		})
	}
}

// TestOwnAnswer: the console takes the answer to its own question, and no other that arrives
// before it.
func TestOwnAnswer(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			q := readRequest(string(buf[:n]))
			if q == nil {
				continue
			}
			for _, r := range []reply{
				{client: q.Client, serial: q.Serial - 1, answer: answer{result: "of an older question"}},
				{client: q.Client + "x", serial: q.Serial, answer: answer{result: "of another client"}},
				{client: q.Client, serial: q.Serial, answer: answer{result: "its own"}},
			} {
				server.WriteToUDPAddrPort(appendReply(nil, &r, ""), from)
			}
		}
	}()
	c, err := newConsole(map[int]netip.AddrPort{1: server.LocalAddr().(*net.UDPAddr).AddrPort()}, 10*time.Millisecond, newScreen(false))
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	for _, line := range []string{"get x", "set x 1", "set x 2", "get x"} {
		mustAnswer(t, c, line, "its own")
	}
}

// ---- Benchmarks -----------------------------------------------------------------------
//
//	go test -run - -bench . -benchtime 3s

// BenchmarkStep: the algorithm alone. One write committed and applied on three servers, in
// memory, in batches of 64 as under load; with each level of narration.
func BenchmarkStep(b *testing.B) {
	for watch := range 4 {
		b.Run(fmt.Sprintf("watch=%d", watch), func(b *testing.B) { benchmarkStep(b, watch) })
	}
}

func benchmarkStep(b *testing.B, watch int) {
	servers := map[int]*server{}
	for id := 1; id <= 3; id++ {
		peers := slices.DeleteFunc([]int{1, 2, 3}, func(p int) bool { return p == id })
		servers[id] = newServer(id, peers, hardState{}, nil, rand.New(rand.NewPCG(1, uint64(id))))
		servers[id].watch = watch
	}
	deliver := func(out Output) {
		for queue := append(out.Early, out.Send...); len(queue) > 0; queue = queue[1:] {
			m := queue[0]
			o := servers[m.To].Step(&m)
			queue = append(append(queue, o.Early...), o.Send...)
		}
	}
	servers[1].electionDue = 0
	deliver(servers[1].Step())
	serial, batch := 0, make([]input, 64)
	for b.Loop() {
		serial++
		i := (serial - 1) % 64
		batch[i] = &request{Client: fmt.Sprintf("c%d", i), Serial: 1 + (serial-1)/64, Command: "set k00000000000000" + strconv.Itoa(i) + " value"}
		if i == 63 {
			deliver(servers[1].Step(batch...))
		}
	}
	if s := servers[1]; s.commitIndex < serial/64*64 {
		b.Fatalf("commit %d of %d", s.commitIndex, serial)
	}
}

// BenchmarkReplay: reading a file, an entry an operation.
func BenchmarkReplay(b *testing.B) {
	const n = 100_000
	data := longFile(1, n)
	entries := 0
	for b.Loop() {
		if entries == 0 {
			_, log, _, err := replay(data, 1)
			if err != nil || len(log) != n {
				b.Fatal(len(log), err)
			}
			entries = n
		}
		entries--
	}
}

// longFile is the file of a server with n writes of 256 clients in its log.
func longFile(id, n int) []byte {
	data := appendRecord(header(id), record{hard: &hardState{1, 1}})
	for i, e := range longLog(n) {
		data = appendRecord(data, record{index: i + 1, entry: e})
	}
	return data
}

func longLog(n int) (log []entry) {
	for i := 1; i <= n; i++ {
		log = append(log, entry{1, fmt.Sprintf("client%d", i%256), 1 + (i-1)/256, fmt.Sprintf("set k%015d %064d", i%1000, i)})
	}
	return log
}

// BenchmarkCatchUp: an empty follower takes over 100,000 entries, an entry an operation,
// through real JSON and the bytes of a file, in windows as the leader sends them.
func BenchmarkCatchUp(b *testing.B) {
	const n = 100_000
	log := longLog(n)
	addresses, _ := parsePeers("1=127.0.0.1:1,2=127.0.0.1:2")
	entries := 0
	for b.Loop() {
		if entries == 0 {
			leader := newServer(1, []int{2}, hardState{1, 1}, log, rand.New(rand.NewPCG(1, 1)))
			follower := newServer(2, []int{1}, hardState{1, 1}, nil, rand.New(rand.NewPCG(1, 2)))
			servers := map[int]*server{1: leader, 2: follower}
			leader.electionDue = 0
			var disk []byte
			for queue := leader.Step().Send; len(queue) > 0; queue = queue[1:] {
				m := queue[0]
				in, drop := decode(appendMessage(nil, &m), addresses[m.From], m.To, addresses)
				if drop != "" {
					b.Fatal(drop)
				}
				out := servers[m.To].Step(in)
				for _, r := range out.Persist {
					disk = appendRecord(disk[:0], r)
				}
				queue = append(append(queue, out.Early...), out.Send...)
			}
			if follower.lastIndex() != n+1 {
				b.Fatal(follower.lastIndex())
			}
			entries = n
		}
		entries--
	}
}

// BenchmarkCluster: writes through three real processes, for numbers of clients that each
// have one write outstanding. BenchmarkRead: the same with linearizable reads.
func BenchmarkCluster(b *testing.B) { benchmarkClients(b, "set k%015d %064d") }

func BenchmarkRead(b *testing.B) { benchmarkClients(b, "get k%015d") }

func benchmarkClients(b *testing.B, command string) {
	for _, clients := range []int{1, 16, 64, 256, 1024} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchmark(b, 3, 0, clients, command) })
	}
}

// BenchmarkScale: writes of 256 clients, with more servers, larger values, a longer log.
func BenchmarkScale(b *testing.B) {
	for _, servers := range []int{3, 5, 7} {
		b.Run(fmt.Sprintf("servers=%d", servers), func(b *testing.B) { benchmark(b, servers, 0, 256, "set k%015d %064d") })
	}
	for _, size := range []int{4 << 10, 32_000} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { benchmark(b, 3, 0, 256, fmt.Sprintf("set k%%015d %%0%dd", size)) })
	}
	for _, entries := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("log=%d", entries), func(b *testing.B) { benchmark(b, 3, entries, 256, "set k%015d %064d") })
	}
}

// BenchmarkIdle: what three servers with nothing to do take of a processor, in percent, and how
// often their threads wake up; b.N is seconds.
func BenchmarkIdle(b *testing.B) {
	p := startProcesses(b, 3)
	mustAnswer(b, p.console(), "set leader known", "ok")
	time.Sleep(2 * time.Second) // the files lose their blanks, the garbage is collected
	cpu, wakes := p.schedstat()
	b.ResetTimer()
	time.Sleep(time.Duration(b.N) * time.Second)
	cpu2, wakes2 := p.schedstat()
	b.ReportMetric(float64(cpu2-cpu)/1e7/float64(b.N), "%cpu")
	b.ReportMetric(float64(wakes2-wakes)/float64(b.N), "wakes/s")
	b.ReportMetric(0, "ns/op")
}

// schedstat adds up what Linux counts for all threads: nanoseconds on a processor, and how often.
func (p *processes) schedstat() (cpu, wakes int) {
	for _, cmd := range p.running {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", cmd.Process.Pid))
		if threads == nil {
			p.t.Skip("only Linux tells")
		}
		for _, name := range threads {
			var ran, waited, times int
			data, _ := os.ReadFile(name)
			fmt.Sscan(string(data), &ran, &waited, &times)
			cpu, wakes = cpu+ran, wakes+times
		}
	}
	return cpu, wakes
}

// benchmark is b.N commands of clients that each have one outstanding, to real servers whose
// logs hold so many entries already.
func benchmark(b *testing.B, servers, entries, clients int, command string) {
	p := prepareProcesses(b, servers)
	for id := range p.addresses {
		file, err := os.Create(filepath.Join(p.dir, fmt.Sprintf("server-%d.log", id)))
		if err != nil {
			b.Fatal(err)
		}
		_, err = file.Write(longFile(id, entries))
		if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
			b.Fatal(err)
		}
	}
	p.startAll()
	c := p.console()
	c.patience = time.Minute
	mustAnswer(b, c, "set leader known", "ok")
	before := p.counters(c)
	var issued atomic.Int64
	latencies := make([][]time.Duration, clients)
	var wait sync.WaitGroup
	b.ResetTimer()
	for w := range clients {
		background(&wait, func() { latencies[w] = closedLoop(b, p.addresses[c.leader], w, command, &issued) })
	}
	wait.Wait()
	b.StopTimer()
	after := p.counters(c)
	all := slices.Concat(latencies...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(after[0]-before[0])/float64(b.N), "fsyncs/op")
	b.ReportMetric(float64(after[1]-before[1])/float64(b.N), "datagrams/op")
}

func (p *processes) counters(c *console) (sum [2]int) {
	for _, id := range c.ids {
		status := c.askServer(id, "status")
		var syncs, sent int
		fmt.Sscanf(status[strings.Index(status, "since start"):], "since start %d fsyncs, %d datagrams", &syncs, &sent)
		sum[0], sum[1] = sum[0]+syncs, sum[1]+sent
	}
	return sum
}

// closedLoop is one client: it issues commands until there were b.N in all, and follows the leader.
func closedLoop(b *testing.B, leader netip.AddrPort, w int, command string, issued *atomic.Int64) (latencies []time.Duration) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	buf := make([]byte, maxDatagram)
	for serial := 1; issued.Add(1) <= int64(b.N); serial++ {
		line := fmt.Sprintf(command, serial%1000, serial)
		if strings.HasPrefix(line, "get") {
			line, _, _ = strings.Cut(line, "%!") // it has no use for the value
		}
		ask, _ := json.Marshal(datagram{ClientRequest: &request{Client: fmt.Sprintf("b%d", w), Serial: serial, Command: line}})
		start := time.Now()
		for answered := false; !answered; {
			conn.WriteToUDPAddrPort(ask, leader)
			conn.SetReadDeadline(time.Now().Add(resendAfter))
			var answer datagram
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil || json.Unmarshal(buf[:n], &answer) != nil || answer.ClientReply == nil || answer.ClientReply.Serial != serial {
				continue
			}
			if answered = answer.ClientReply.Result != nil; !answered && answer.ClientReply.Error != errNotLeader {
				b.Error(answer.ClientReply.Error)
				return
			}
			if answer.ClientReply.Address != "" {
				leader = netip.MustParseAddrPort(answer.ClientReply.Address)
			}
		}
		latencies = append(latencies, time.Since(start))
	}
	return latencies
}

// ---- NOTES.md cannot rot ------------------------------------------------------------
//
// Every script in NOTES.md is pasted into a real cluster, and what NOTES.md says is to be
// seen must be seen, in that order. The list of commands there is the one that help prints.

// script is a block that begins with ```run FLAGS, and the ```see block after it.
type script struct {
	heading, flags, text string
	see                  []string
}

func notesScripts(t *testing.T) (scripts []script) {
	heading, block := "", ""
	for _, line := range strings.Split(readNotes(t), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			flags, isRun := strings.CutPrefix(line, "```run ")
			if isRun {
				scripts = append(scripts, script{heading: heading, flags: flags})
			}
			block = strings.TrimPrefix(line, "```")
		case strings.HasPrefix(block, "run "):
			scripts[len(scripts)-1].text += line + "\n"
		case block == "see":
			s := &scripts[len(scripts)-1]
			s.see = append(s.see, line)
		case strings.HasPrefix(line, "### "):
			heading, _, _ = strings.Cut(line[4:], ".")
		}
	}
	return scripts
}

func readNotes(t *testing.T) string {
	notes, err := os.ReadFile("NOTES.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(notes)
}

func TestNotesScripts(t *testing.T) {
	scripts := notesScripts(t)
	if len(scripts) < 10 {
		t.Fatalf("NOTES.md has only %d scripts", len(scripts))
	}
	raft := buildRaft(t)
	for i, s := range scripts {
		t.Run(fmt.Sprintf("%s-%d", s.heading, i+1), func(t *testing.T) {
			t.Parallel()
			if len(s.see) == 0 {
				t.Fatal("nothing to see")
			}
			flags := strings.Fields(s.flags)
			n := 3
			if flags[0] == "-n" {
				fmt.Sscan(flags[1], &n)
				flags = flags[2:]
			}
			flags = append(flags, "-peers", freePeers(t, n), "-dir", t.TempDir())
			cmd := exec.Command(raft, flags...)
			cmd.Stdin = strings.NewReader(s.text)
			var narration strings.Builder
			cmd.Stderr = &narration
			out, _ := cmd.Output() // its exit code tells of the unknowns that the script wants
			rest := string(out)
			for _, line := range s.see {
				_, after, found := strings.Cut(rest, line)
				if !found {
					t.Fatalf("after\n%s\nNOTES.md says that one sees\n%s\nbut the answers were\n%s\nand the narration\n%s",
						s.text, line, out, narration.String())
				}
				rest = after
			}
		})
	}
}

// TestNotesHelp: the list of commands in NOTES.md is what help prints.
func TestNotesHelp(t *testing.T) {
	if help := (&console{}).help(nil); !strings.Contains(readNotes(t), "```\n"+help+"\n```") {
		t.Errorf("NOTES.md does not show what help prints:\n%s", help)
	}
}

// buildRaft builds the binary once for a test.
func buildRaft(t testing.TB, flags ...string) string {
	t.Helper()
	raft := filepath.Join(t.TempDir(), "raft")
	build := append(append([]string{"build"}, flags...), "-o", raft, ".")
	if out, err := exec.Command("go", build...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return raft
}

// portsGiven counts the ports that freePeers has tried, beginning anywhere.
var portsGiven atomic.Int64

func init() { portsGiven.Store(rand.Int64N(20_000)) }

// freePeers finds n ports that nobody uses on 127.0.0.1. They are below those that a system gives
// to whoever does not care, such as the consoles, which could take one before its server does.
func freePeers(t testing.TB, n int) string {
	t.Helper()
	var peers []string
	for tries := 0; len(peers) < n; tries++ {
		if tries == 20_000 {
			t.Fatal("no free ports")
		}
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+portsGiven.Add(1)%20_000)
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		conn.Close()
		peers = append(peers, fmt.Sprintf("%d=%s", len(peers)+1, address))
	}
	return strings.Join(peers, ",")
}
