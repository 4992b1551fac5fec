// Package chaos writes to a real replica set everything that a backup may get wrong: every update operator, odd documents, DDL of
// every kind, transactions of every kind, and a ledger of acknowledged writes.
//
// Words:
//   - rate: operations per second of all workers together, the ledger aside.
//   - quiesced: no operation is under way and none begins; DDL still: the same for DDL only, and no collection comes into being.
//   - ledger: documents of ledger.acks, written with majority one after another; what was acknowledged is remembered here.
//
// What holds:
//  1. Each worker draws from its own random source, all from one seed; how they interleave is the server's business.
//  2. An operation that the server refuses is counted and forgotten. A connection that breaks is made again.
//  3. A ledger write is repeated under its own transaction number until the server has answered: acknowledged means
//     written once.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"golang.org/x/sync/errgroup"

	"github.com/afterimagedb/afterimage/e2e/wire"
)

// Databases that the chaos writes to.
var databases = []string{"shop", "crm", "z-odd"}

// Options say how wild it is.
type Options struct {
	URI     string
	Version string // 6.0, 5.0 or 4.4
	Seed    uint64
	Rate    int // per second; default 150
	Workers int // of documents; default 3. One more does DDL, one writes the ledger.

	NoDDL    bool // only documents and the ledger
	NoTxn    bool
	NoHuge   bool // no document above 100 kB
	Members  int  // of the set: w for waits; default 1
	LedgerMS int  // pause between ledger writes; default 5
}

// Chaos is one run. Make it with New.
type Chaos struct {
	o    Options
	rate *time.Ticker

	docs sync.RWMutex // held for reading by every operation
	ddl  sync.RWMutex // held for reading by every DDL operation, before docs

	mu    sync.Mutex
	colls map[string]kind // by namespace: what documents may go to
	// A user's applyOps waits for the whole server, and a transaction that prepares for secondaries that then can't read the log:
	// they exclude each other. Held for reading by every transaction.
	txns sync.RWMutex

	chain sync.Mutex // held by the one chained transaction
	huge  int        // documents of the greatest size so far

	ledger ledger

	count sync.Map // operation -> *tally
}

type kind int

const (
	plain kind = iota
	clustered
	capped
	series
)

type tally struct {
	done, refused atomic.Int64
	last          atomic.Value // the last refusal, a string
}

// New makes the collections that the chaos begins with.
func New(ctx context.Context, o Options) (*Chaos, error) {
	if o.Rate == 0 {
		o.Rate = 150
	}
	if o.Workers == 0 {
		o.Workers = 3
	}
	if o.LedgerMS == 0 {
		o.LedgerMS = 5
	}
	c := &Chaos{o: o, colls: map[string]kind{}, rate: time.NewTicker(time.Second / time.Duration(o.Rate))}
	w := c.worker(0)
	defer w.cl.Close()
	for _, db := range databases {
		for i := range 3 {
			w.create(ctx, db, fmt.Sprintf("c%d", i), plain)
		}
		w.create(ctx, db, "cap", capped)
	}
	if c.from5() {
		w.create(ctx, "shop", "ts", series)
		if c.from53() {
			w.create(ctx, "crm", "clu", clustered)
		}
	}
	_, err := w.cl.Run(ctx, "ledger", wire.D("create", "acks", "writeConcern", wire.D("w", "majority")))
	if err != nil && wire.Code(err) != 48 {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	for range 60 {
		_ = w.insert(ctx) // odd documents may be refused
	}
	if len(c.colls) < 12 {
		return nil, fmt.Errorf("chaos: only %d collections could be made", len(c.colls))
	}
	return c, nil
}

func (c *Chaos) from5() bool  { return c.o.Version != "4.4" }
func (c *Chaos) from53() bool { return c.from5() && c.o.Version != "5.0" }

// Run goes on until the context ends.
func (c *Chaos) Run(ctx context.Context) error {
	g, run := errgroup.WithContext(ctx)
	for i := range c.o.Workers {
		g.Go(func() error { return c.worker(uint64(i + 1)).documents(run) })
	}
	if !c.o.NoDDL {
		g.Go(func() error { return c.worker(100).definitions(run) })
	}
	g.Go(func() error { return c.worker(200).acks(run) })
	err := g.Wait()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to end
	}
	return err
}

// Pause waits until nothing is under way and holds everything until Resume.
func (c *Chaos) Pause() {
	c.ddl.Lock()
	c.docs.Lock()
}

// Resume lets everything go on.
func (c *Chaos) Resume() {
	c.docs.Unlock()
	c.ddl.Unlock()
}

// PauseDDL holds DDL until ResumeDDL; documents go on, into collections that exist.
func (c *Chaos) PauseDDL(ctx context.Context) error {
	c.ddl.Lock()
	c.docs.Lock()
	defer c.docs.Unlock()
	if err := c.refresh(ctx); err != nil {
		c.ddl.Unlock()
		return err
	}
	return nil
}

// ResumeDDL lets DDL go on.
func (c *Chaos) ResumeDDL() { c.ddl.Unlock() }

// refresh forgets collections that are not there: a write to one would make it.
func (c *Chaos) refresh(ctx context.Context) error {
	cl := wire.FromURI(c.o.URI)
	defer cl.Close()
	there := map[string]bool{}
	for _, db := range databases {
		err := cl.Each(ctx, db, wire.D("listCollections", 1, "nameOnly", true, "cursor", wire.D()), func(d bson.Raw) error {
			there[db+"."+d.Lookup("name").StringValue()] = true
			return nil
		})
		if err != nil {
			return fmt.Errorf("chaos: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.colls, func(ns string, _ kind) bool { return !there[ns] })
	return nil
}

// Report prints how often each operation was done and refused.
func (c *Chaos) Report() string {
	var lines []string
	c.count.Range(func(name, t any) bool {
		n := t.(*tally)
		lines = append(lines, fmt.Sprintf("%s %d/%d", name, n.done.Load(), n.refused.Load()))
		return true
	})
	slices.Sort(lines)
	return fmt.Sprintf("%d ledger; done/refused: %s", len(c.Acked()), strings.Join(lines, ", "))
}

// worker is one goroutine's state.
type worker struct {
	*Chaos
	cl  *wire.Client
	r   *rand.Rand
	gen gen
	txn int64 // the last transaction number
	id  wire.Doc
}

func (c *Chaos) worker(n uint64) *worker {
	r := rand.New(rand.NewPCG(c.o.Seed, n))
	id := make([]byte, 16)
	for i := range id {
		id[i] = byte(rand.N(256)) // not from the seed: a server must not know this session from another run
	}
	return &worker{Chaos: c, cl: wire.FromURI(c.o.URI), r: r, gen: gen{r: r, v44: !c.from5()}, id: wire.D("id", wire.Bin{Sub: 4, Data: id})}
}

// op is one weighted operation.
type op struct {
	name   string
	weight int
	do     func(context.Context, *worker) error
}

func pick(r *rand.Rand, ops []op) op {
	sum := 0
	for _, o := range ops {
		sum += o.weight
	}
	n := r.IntN(sum)
	for _, o := range ops {
		if n -= o.weight; n < 0 {
			return o
		}
	}
	panic("chaos: weights")
}

func (w *worker) note(name string, err error) {
	t, _ := w.count.LoadOrStore(name, &tally{})
	if err == nil {
		t.(*tally).done.Add(1)
	} else {
		t.(*tally).refused.Add(1)
		t.(*tally).last.Store(err.Error())
	}
}

// tick waits for the next turn at the rate.
func (w *worker) tick(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-w.rate.C:
		return true
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (w *worker) documents(ctx context.Context) error {
	defer w.cl.Close()
	for w.tick(ctx) {
		w.docs.RLock()
		ops := documentOps
		if !w.o.NoTxn && w.r.IntN(12) == 0 {
			ops = transactionOps
		}
		o := pick(w.r, ops)
		err := o.do(ctx, w)
		w.docs.RUnlock()
		w.after(ctx, o.name, err)
	}
	return nil
}

// definitions does DDL at every second of its turns.
func (w *worker) definitions(ctx context.Context) error {
	defer w.cl.Close()
	for w.tick(ctx) {
		if w.r.IntN(2) == 0 {
			continue
		}
		w.ddl.RLock()
		w.docs.RLock()
		o := pick(w.r, ddlOps)
		err := o.do(ctx, w)
		w.docs.RUnlock()
		w.ddl.RUnlock()
		w.after(ctx, o.name, err)
	}
	return nil
}

// after counts, and takes a breath when the server is away.
func (w *worker) after(ctx context.Context, name string, err error) {
	var refused *wire.Error
	if err != nil && !errors.As(err, &refused) {
		wait(ctx, 100*time.Millisecond)
	}
	if ctx.Err() == nil && refused != errNothing {
		w.note(name, err)
	}
}

func (c *Chaos) know(ns string, k kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.colls[ns] = k
}

func (c *Chaos) forget(ns string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.colls, ns)
}

// some returns a collection of one of the kinds that exists as far as is known.
func (w *worker) some(kinds ...kind) (db, name string, k kind, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for ns, k := range w.colls {
		if slices.Contains(kinds, k) {
			all = append(all, ns)
		}
	}
	if len(all) == 0 {
		return "", "", 0, false
	}
	slices.Sort(all)
	ns := all[w.r.IntN(len(all))]
	db, name, _ = strings.Cut(ns, ".")
	return db, name, w.colls[ns], true
}

var errNothing = &wire.Error{Message: "nothing to do it to"}

// NeverDone lists the operations that were tried often and never succeeded, each with its last refusal.
func (c *Chaos) NeverDone() []string {
	var out []string
	c.count.Range(func(name, t any) bool {
		if n := t.(*tally); n.done.Load() == 0 && n.refused.Load() >= 5 {
			out = append(out, fmt.Sprintf("%s: %v", name, n.last.Load()))
		}
		return true
	})
	slices.Sort(out)
	return out
}
