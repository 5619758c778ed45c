// Tests of raft.go, to be read: Raft's corner cases.
package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSingleServer: a cluster of one leads at once and commits alone.
func TestSingleServer(t *testing.T) {
	s := newServer(1, nil, hardState{}, nil, rand.New(rand.NewPCG(1, 1)))
	for range electionTicksMax {
		s.Step(tick{})
	}
	if s.role != leader || s.commitIndex != 1 {
		t.Fatalf("%v, commit %d", s.role, s.commitIndex)
	}
	out := s.Step(&request{Client: "c", Serial: 1, Command: "set x 1", to: netip.MustParseAddrPort("127.0.0.1:1")})
	if len(out.Reply) != 1 || out.Reply[0].result != "ok" {
		t.Fatalf("%+v", out.Reply)
	}
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
	if help := (&console{}).help(none, nil); !strings.Contains(readNotes(t), "```\n"+help+"\n```") {
		t.Errorf("NOTES.md does not show what help prints:\n%s", help)
	}
}

// buildRaft builds the binary once for a test.
func buildRaft(t *testing.T) string {
	t.Helper()
	raft := filepath.Join(t.TempDir(), "raft")
	if out, err := exec.Command("go", "build", "-o", raft, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return raft
}

// freePeers finds n ports that nobody uses on 127.0.0.1.
func freePeers(t *testing.T, n int) string {
	t.Helper()
	var peers []string
	for id := 1; id <= n; id++ {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // after all are known, so that none is found twice
		peers = append(peers, fmt.Sprintf("%d=%v", id, conn.LocalAddr()))
	}
	return strings.Join(peers, ",")
}
