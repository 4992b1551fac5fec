// Package format tests the outputs of snapshots against real servers and the real mongorestore. Its tests need the build
// tag e2e.
package format
