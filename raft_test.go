package main

import (
	"math/rand/v2"
	"net/netip"
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
