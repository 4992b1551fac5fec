// Package bucket is the object store as the rest of the product needs it: objects are written once, read whole or by
// range, listed and deleted. Names are slash-separated and relative to the bucket's prefix.
//
// # Invariants, held by the contract suite in buckettest
//
//  1. An object appears whole or not at all; when Put or Create returns nil it is durable.
//  2. Of any number of concurrent Creates of one name, in any processes, exactly one succeeds.
//  3. After a successful Put, Create or Delete every read sees it.
//  4. A Create or Put that returned an error may have happened all the same: read back to know.
package bucket

import (
	"context"
	"errors"
)

// Errors of every implementation, to be tested with errors.Is.
var (
	ErrNotFound = errors.New("object not found")
	ErrExists   = errors.New("object exists already")
)

// Bucket is an object store. Implementations are safe for concurrent use. Errors name the object and the store.
type Bucket interface {
	// Put stores data under name; the caller chose a name that nobody else uses.
	Put(ctx context.Context, name string, data []byte) error
	// Create stores data under name only if there is no such object, else ErrExists.
	Create(ctx context.Context, name string, data []byte) error
	// Get reads an object whole.
	Get(ctx context.Context, name string) ([]byte, error)
	// GetRange reads length bytes at offset; a range past the end is an error. The caller owns the result.
	GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error)
	// Size returns an object's size in bytes.
	Size(ctx context.Context, name string) (int64, error)
	// List calls fn for each object under prefix whose name is greater than after, in ascending byte order of names,
	// until fn returns an error; SkipAll ends the listing without one.
	List(ctx context.Context, prefix, after string, fn func(Info) error) error
	// Delete removes an object; one that does not exist is no error.
	Delete(ctx context.Context, name string) error
	// String names the store for people, without secrets.
	String() string
}

// SkipAll ends a listing early, without an error.
var SkipAll = errors.New("skip all") //nolint:revive,staticcheck // named as fs.SkipAll is

// Info is one object of a listing.
type Info struct {
	Name string
	Size int64
}
