package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/listeners"
)

// calm is how long a session must last for the next failure to be retried at once again.
const calm = 30 * time.Second

// Listener tails one replica set.
type Listener struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	begun   bool      // a session has been: what fails now can pass, whatever it is
	tries   int       // sessions that failed in a row: the next one prefers another member
	missing time.Time // since when no member that answers holds our position
}

// New checks the options.
func New(o Options) (*Listener, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Listener{opts: o, log: o.Logger.With("source", o.Source), metrics: newMetrics(o.Registerer, o.Source)}, nil
}

// Run listens until ctx ends. What can pass is retried; an error means that it can't: wrong use, refused credentials,
// or [afterimage.ErrHalt].
func (l *Listener) Run(ctx context.Context, pub listeners.Publisher) error {
	if err := sweepScratch(l.opts.Scratch); err != nil {
		return err
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, 10*time.Second
	following := false
	for {
		began := time.Now()
		var err error
		if following {
			if err = l.follow(ctx, pub); err == nil {
				l.log.Info("the lane's leader is silent; taking over")
				following = false
				continue
			}
		} else {
			err = l.lead(ctx, pub)
			l.metrics.leader.Set(0)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, afterimage.ErrFenced) {
			l.metrics.fenced.Inc()
			l.log.Info("another listener leads this lane; following it")
			following = true
			continue
		}
		if errors.Is(err, afterimage.ErrHalt) || !l.begun && final(err) {
			return err
		}
		if time.Since(began) > calm {
			b.Reset()
			l.tries = 0
		}
		l.tries++
		l.metrics.failures.Inc()
		wait := b.NextBackOff()
		l.log.Warn("the session ended; beginning another", "error", err, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// final reports whether the first session failed in a way that trying again won't mend.
func final(err error) bool {
	var usage *afterimage.UsageError
	var cmd mongo.CommandError
	const unauthorized, authenticationFailed = 13, 18
	if errors.As(err, &cmd) && (cmd.Code == unauthorized || cmd.Code == authenticationFailed) {
		return true
	}
	return errors.As(err, &usage)
}

// follow watches the lane until its leader has published nothing for a while although there was something to publish.
func (l *Listener) follow(ctx context.Context, pub listeners.Publisher) error {
	all, err := members(ctx, l.opts.URI)
	if err != nil {
		return err
	}
	defer func() {
		for _, m := range all {
			disconnect(ctx, m.client)
		}
	}()
	var seen afterimage.Position
	var silentSince time.Time
	for {
		last, err := pub.Last(ctx)
		if err != nil {
			return fmt.Errorf("read the lane's last batch: %w", err)
		}
		h, err := hello(ctx, all[0].client)
		if err != nil {
			return fmt.Errorf("ask for the majority's time: %w", err)
		}
		behind := last.To.Less(afterimage.Position{Hi: uint64(h.majority())})
		switch {
		case !behind || last.To != seen:
			seen, silentSince = last.To, time.Time{}
		case silentSince.IsZero():
			silentSince = time.Now()
		case time.Since(silentSince) >= l.opts.TakeOverAfter:
			return nil
		}
		if err := sleep(ctx, l.opts.TakeOverAfter/6); err != nil {
			return err
		}
	}
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
