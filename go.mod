module raft

go 1.24
