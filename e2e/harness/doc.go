// Package harness runs the real programs that tests and the demo work with: mongods as replica sets, an S3 server, and
// the judge that compares a restored server with what was there.
//
// Words:
//   - binary: a program outside the module, named by an AFTERIMAGE_ variable, else in the cache that `make deps` fills.
//   - member: one mongod process. It can be killed, paused and started again on its own port and files.
//   - set: the members of one replica set, or one mongod alone.
//
// What holds:
//  1. A program dies with this process, however this process ends (on Linux).
//  2. What is missing is an error that says `run: make deps`; nothing is skipped.
//  3. Nothing listens on another address than 127.0.0.1.
//  4. Stop ends the processes and removes the files that the harness made.
//
// The package imports no testing; package harnesstest ties it to a test.
package harness
