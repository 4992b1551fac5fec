package mongodb

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/restorer"
)

// TTLMode says what becomes of times to live.
type TTLMode string

// The modes. Hold, the default, restores them as "never": what was alive at T would be deleted at once.
const (
	TTLHold TTLMode = "hold"
	TTLKeep TTLMode = "keep"
)

// Options of a restore. URI and Source must be given.
type Options struct {
	URI      string
	Source   restorer.Source
	At       afterimage.Time // for the record and the journal
	Select   restorer.Selection
	Rename   restorer.Rules
	Masks    []Mask
	Only     *Documents // restore these documents only
	Users    bool       // also users and roles
	TTL      TTLMode
	DryRun   bool
	StateDir string // where the journal lives; empty means that an interruption can't be resumed

	// Overwrite drops target namespaces that are in the way, each just before it is restored; with Only it replaces the
	// documents, and deletes those that were not there at T.
	Overwrite bool

	BytesPerSecond int64 // of documents; 0 is no limit
	Workers        int   // insert commands in flight, 4 when 0

	Progress func(restorer.Progress) // called from one goroutine at a time; must be quick
	Log      *slog.Logger
	Metrics  *Metrics
}

func (o *Options) defaults() error {
	if o.Source == nil {
		return afterimage.Usagef("restore: no source")
	}
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	for _, m := range o.Masks {
		if err := m.check(); err != nil {
			return err
		}
	}
	switch o.TTL {
	case "":
		o.TTL = TTLHold
	case TTLHold, TTLKeep:
	default:
		return afterimage.Usagef("ttl %q: want hold or keep", o.TTL)
	}
	return nil
}

// run is one restore on its way.
type run struct {
	opts    Options
	target  *target
	plan    *plan
	journal *journal
	slots   chan struct{} // one for each insert command in flight
	limit   *rate.Limiter // nil is no limit
	buffers sync.Pool     // of *batch

	mu       sync.Mutex
	report   restorer.Report
	progress restorer.Progress
}

// Restore writes the state of o.Source to a server. The report is valid, as far as it goes, also with an error: an
// [restorer.ExistsError] before anything was written, a [restorer.VerifyError] when the result is not exact.
func Restore(ctx context.Context, o Options) (restorer.Report, error) {
	if err := o.defaults(); err != nil {
		return restorer.Report{}, err
	}
	begin := time.Now()
	t, err := connect(ctx, o.URI)
	if err != nil {
		return restorer.Report{}, err
	}
	defer t.close(ctx)
	r := &run{opts: o, target: t, slots: make(chan struct{}, o.Workers)}
	r.report = restorer.Report{At: o.At, Target: t.name, DryRun: o.DryRun}
	if o.BytesPerSecond > 0 {
		r.limit = rate.NewLimiter(rate.Limit(o.BytesPerSecond), batchBytesMax)
	}
	r.buffers.New = func() any { return new(batch) }
	if o.Only != nil {
		err = r.documents(ctx)
	} else {
		err = r.everything(ctx)
	}
	r.report.Elapsed = time.Since(begin)
	return r.report, err
}

func (r *run) everything(ctx context.Context) (err error) {
	if r.journal, err = openJournal(r.opts, r.target.name); err != nil {
		return err
	}
	defer r.journal.close()
	if r.plan, err = r.makePlan(ctx); err != nil {
		return err
	}
	r.report.Resumed = r.journal.resumed
	r.report.Warnings = append(r.report.Warnings, r.plan.warnings...)
	r.progress.TablesTotal = len(r.plan.tables) + len(r.plan.views)
	if r.opts.DryRun {
		r.dryRun()
		return nil
	}
	if err := r.journal.begin(r.opts.At, r.target.name); err != nil {
		return err
	}
	if err := r.tables(ctx); err != nil {
		return err
	}
	if err := r.views(ctx); err != nil {
		return err
	}
	if err := r.auth(ctx); err != nil {
		return err
	}
	if err := r.verdict(); err != nil {
		return err
	}
	return r.journal.finish()
}

// tables restores a few tables at once; the slots bound what they send together.
func (r *run) tables(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	reports := make([]*restorer.NamespaceReport, len(r.plan.tables))
	for i := range r.plan.tables {
		g.Go(func() error {
			rep, err := r.restoreTable(ctx, r.plan.tables[i])
			reports[i] = rep
			return err
		})
	}
	err := g.Wait()
	for _, rep := range reports {
		if rep != nil {
			r.add(*rep)
		}
	}
	return err
}

func (r *run) add(rep restorer.NamespaceReport) {
	r.report.Namespaces = append(r.report.Namespaces, rep)
	r.report.Documents += rep.Documents
	r.report.Bytes += rep.Bytes
}

func (r *run) dryRun() {
	for _, p := range r.plan.tables {
		r.add(p.report())
	}
	for _, v := range r.plan.views {
		r.add(v.report())
	}
	for _, a := range r.plan.auth {
		r.add(a.report())
	}
}

// verdict turns what the report holds into the error that the operator must see.
func (r *run) verdict() error {
	var problems []string
	for _, n := range r.report.Namespaces {
		for _, m := range n.Mismatch {
			problems = append(problems, n.Target+": document "+m.ID+" "+m.Problem)
		}
		for _, f := range n.Failed {
			problems = append(problems, n.Target+": "+f)
		}
	}
	if len(problems) > 0 {
		return &restorer.VerifyError{Problems: problems}
	}
	return nil
}

// step reports progress; f changes it.
func (r *run) step(f func(p *restorer.Progress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.progress)
	if r.opts.Progress != nil {
		r.opts.Progress(r.progress)
	}
}

func (r *run) warn(msg string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Warnings = append(r.report.Warnings, msg)
	r.opts.Log.Warn(msg)
}

func (r *run) held(h restorer.HeldTTL) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Held = append(r.report.Held, h)
}

// jsonOf prints a document; the driver panics on some bytes that are none.
func jsonOf(doc []byte) string {
	if !sound(doc, 0) {
		return "(not a document)"
	}
	b, err := bson.MarshalExtJSON(bson.Raw(doc), true, false)
	if err != nil {
		return "(not printable)"
	}
	return string(b)
}
