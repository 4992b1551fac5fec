// Package wire talks to a mongod in raw documents: what the tests write and read goes through no driver that decodes and encodes
// it again, and a test can number its own transactions and retries.
//
// Words:
//   - document: a BSON document as bytes ([Doc]).
//   - client: one connection to one server, or to whichever of several servers is primary. It is for one goroutine.
//
// What holds:
//  1. Bytes given are bytes sent; bytes received are bytes returned.
//  2. A client whose connection broke dials again at its next command; it never repeats a command.
package wire
