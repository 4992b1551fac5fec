// Package bench measures what the product claims about speed, each claim against a peer in the same run on the same data, with
// real databases: `make bench`.
//
// Words:
//   - row: one claim, with the peer's figure, ours, the target and whether it was met.
//   - step: set-up that several rows need and one may measure (the load, the first image, the operations, the backlog). It is done
//     once, when the first row needs it, so each row can be run alone: -run 'TestBench/Backlog'.
//   - scale: the size of the work, 1 for the full 300,000 documents and 500,000 operations, in AFTERIMAGE_BENCH_SCALE. Targets in
//     seconds of CPU and in bytes shrink with it.
//   - listening process: a child of this test binary with the product's listener and stream, and its compactor if asked for, which
//     says when the backlog is durable in the stream.
//
// What holds:
//  1. CPU seconds are the processes' own, from /proc and getrusage; times include the start of a process.
//  2. A figure is never carried over from another run.
//
// The rows are left in bin/bench.json and bin/bench.md; AFTERIMAGE_BENCH_DOC=1 also puts them into docs/performance.md.
package bench
