package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/afterimagedb/afterimage/bucket"
)

// ErrInjected is in every error that [Faulty] makes up.
var ErrInjected = errors.New("injected failure")

// Op is an operation of a bucket.
type Op string

// The operations.
const (
	OpPut      Op = "put"
	OpCreate   Op = "create"
	OpGet      Op = "get"
	OpGetRange Op = "get range"
	OpSize     Op = "size"
	OpList     Op = "list"
	OpDelete   Op = "delete"
)

// Writes reports whether the operation changes the bucket.
func (o Op) Writes() bool { return o == OpPut || o == OpCreate || o == OpDelete }

// Call is one operation that is about to happen.
type Call struct {
	N    int // operations since the plan was set, from 1
	Op   Op
	Name string // of the object, or the prefix of a listing
}

// Action is what happens to one operation. The zero action lets it through.
type Action struct {
	Delay  time.Duration // first wait, or until the context ends
	Before error         // then fail without doing it
	After  error         // do it, then fail: the lost reply
	Flip   int           // flip a bit of this byte, from 1, of what is written or read; beyond the end: the last byte
}

// The usual actions. Full is a full disk: writes fail, reads and deletions go through.
var (
	Fail      = Action{Before: ErrInjected}
	LoseReply = Action{After: ErrInjected}
	Full      = Action{Before: fmt.Errorf("%w: %w", ErrInjected, syscall.ENOSPC)}
)

// Slow delays an operation.
func Slow(d time.Duration) Action { return Action{Delay: d} }

// Flip corrupts byte n, from 1, of what an operation reads or writes.
func Flip(n int) Action { return Action{Flip: n} }

// Plan decides about each operation. It is called under a lock: it need not be safe for concurrent use, and must not
// use the bucket.
type Plan func(Call) Action

// Always does a to every operation.
func Always(a Action) Plan { return func(Call) Action { return a } }

// At does a to operation n only.
func At(n int, a Action) Plan { return When(func(c Call) bool { return c.N == n }, a) }

// From does a to operation n and all after it: what a crashed or unreachable store looks like.
func From(n int, a Action) Plan { return When(func(c Call) bool { return c.N >= n }, a) }

// When does a to the operations that match says.
func When(match func(Call) bool, a Action) Plan {
	return func(c Call) Action {
		if match(c) {
			return a
		}
		return Action{}
	}
}

// Faulty is a bucket that does to each operation what a plan says. Several may stand in front of one bucket: each is a
// process with its own connection to it.
//
// The pattern for a crash at any instant: for n := 1; ; n++ run the work with Set(From(n, Fail)) and again with LoseReply,
// reopen from the bucket behind it, check the invariants, and stop when a run made fewer than n calls.
type Faulty struct {
	b bucket.Bucket

	mu    sync.Mutex
	plan  Plan
	calls int
}

var _ bucket.Bucket = (*Faulty)(nil)

// NewFaulty returns b with nothing failing yet.
func NewFaulty(b bucket.Bucket) *Faulty { return &Faulty{b: b} }

// Set sets the plan, nil for none, and counts calls anew.
func (f *Faulty) Set(p Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan, f.calls = p, 0
}

// Calls is how many operations began since the plan was set.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// begin waits and fails as the plan says; the action is what is left to do.
func (f *Faulty) begin(ctx context.Context, op Op, name string) (Action, error) {
	f.mu.Lock()
	f.calls++
	c := Call{f.calls, op, name}
	var a Action
	if f.plan != nil {
		a = f.plan(c)
	}
	f.mu.Unlock()
	if a.Delay > 0 {
		t := time.NewTimer(a.Delay)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return a, fmt.Errorf("%s %s in %s: %w", op, name, f.b, ctx.Err())
		case <-t.C:
		}
	}
	if errors.Is(a.Before, syscall.ENOSPC) && (!op.Writes() || op == OpDelete) {
		a.Before = nil
	}
	return a, f.wrap(c, a.Before)
}

// end returns the operation's own error, or the lost reply.
func (f *Faulty) end(op Op, name string, a Action, err error) error {
	if err != nil || a.After == nil {
		return err
	}
	return f.wrap(Call{Op: op, Name: name}, a.After)
}

func (f *Faulty) wrap(c Call, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s in %s: %w", c.Op, c.Name, f.b, err)
}

// flip returns data, or a changed copy.
func (a Action) flip(data []byte) []byte {
	if a.Flip == 0 || len(data) == 0 {
		return data
	}
	data = bytes.Clone(data)
	data[min(a.Flip, len(data))-1] ^= 1 << (a.Flip % 8)
	return data
}

// Put implements [bucket.Bucket].
func (f *Faulty) Put(ctx context.Context, name string, data []byte) error {
	a, err := f.begin(ctx, OpPut, name)
	if err != nil {
		return err
	}
	return f.end(OpPut, name, a, f.b.Put(ctx, name, a.flip(data)))
}

// Create implements [bucket.Bucket].
func (f *Faulty) Create(ctx context.Context, name string, data []byte) error {
	a, err := f.begin(ctx, OpCreate, name)
	if err != nil {
		return err
	}
	return f.end(OpCreate, name, a, f.b.Create(ctx, name, a.flip(data)))
}

// Get implements [bucket.Bucket].
func (f *Faulty) Get(ctx context.Context, name string) ([]byte, error) {
	a, err := f.begin(ctx, OpGet, name)
	if err != nil {
		return nil, err
	}
	data, err := f.b.Get(ctx, name)
	if err = f.end(OpGet, name, a, err); err != nil {
		return nil, err
	}
	return a.flip(data), nil
}

// GetRange implements [bucket.Bucket].
func (f *Faulty) GetRange(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	a, err := f.begin(ctx, OpGetRange, name)
	if err != nil {
		return nil, err
	}
	data, err := f.b.GetRange(ctx, name, offset, length)
	if err = f.end(OpGetRange, name, a, err); err != nil {
		return nil, err
	}
	return a.flip(data), nil
}

// Size implements [bucket.Bucket].
func (f *Faulty) Size(ctx context.Context, name string) (int64, error) {
	a, err := f.begin(ctx, OpSize, name)
	if err != nil {
		return 0, err
	}
	size, err := f.b.Size(ctx, name)
	return size, f.end(OpSize, name, a, err)
}

// List implements [bucket.Bucket]. After fails it when everything was listed.
func (f *Faulty) List(ctx context.Context, prefix, after string, fn func(bucket.Info) error) error {
	a, err := f.begin(ctx, OpList, prefix)
	if err != nil {
		return err
	}
	return f.end(OpList, prefix, a, f.b.List(ctx, prefix, after, fn))
}

// Delete implements [bucket.Bucket].
func (f *Faulty) Delete(ctx context.Context, name string) error {
	a, err := f.begin(ctx, OpDelete, name)
	if err != nil {
		return err
	}
	return f.end(OpDelete, name, a, f.b.Delete(ctx, name))
}

// String implements [bucket.Bucket].
func (f *Faulty) String() string { return f.b.String() }
