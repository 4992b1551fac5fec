package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/afterimagedb/afterimage"
)

// atHelp describes the forms of a time on the command line.
const atHelp = "RFC 3339 (2026-11-21T13:00:00Z), now, latest, -15m (before the horizon), a timestamp 1795252057.9, or before:EVENT-ID."

// nowWaitMax bounds how long `now` waits for the horizon.
const nowWaitMax = 2 * time.Minute

// resolve turns a time as typed into a commit time; T is inclusive. `now` waits until the horizon has passed the present.
func (a *app) resolve(p *protected, text string) (afterimage.Time, error) {
	horizon := p.state.Horizon()
	switch {
	case text == "latest":
		if horizon == 0 {
			return 0, &afterimage.NotRecoverableError{Reason: "nothing was committed for source " + p.name, Later: true}
		}
		return horizon, nil
	case text == "now":
		return a.waitForNow(p)
	case strings.HasPrefix(text, "before:"):
		return beforeEvent(text)
	case strings.HasPrefix(text, "-"):
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, afterimage.Usagef("time %q: want a duration such as -15m or -2h30m", text)
		}
		at := horizon.Clock().Add(d)
		return afterimage.MongoTime(uint32(at.Unix()), 0).EndOfSecond(), nil
	}
	if t, err := afterimage.ParseTime(text); err == nil {
		return t, nil
	}
	clock, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, afterimage.Usagef("time %q: want one of: %s", text, atHelp)
	}
	if clock.Unix() < 0 || clock.Unix() > int64(^uint32(0)) {
		return 0, afterimage.Usagef("time %q is out of range", text)
	}
	if clock.Nanosecond() != 0 {
		return p.snap.TimeOfWall(a.ctx, clock.UnixMilli())
	}
	return afterimage.MongoTime(uint32(clock.Unix()), 0).EndOfSecond(), nil
}

// beforeEvent reads before:SECONDS.ORDINAL-N.
func beforeEvent(text string) (afterimage.Time, error) {
	id := strings.TrimPrefix(text, "before:")
	stamp, order, ok := strings.Cut(id, "-")
	if _, err := strconv.ParseUint(order, 10, 32); !ok || err != nil {
		return 0, afterimage.Usagef("time %q: want before:EVENT-ID, as `afterimage events` prints it", text)
	}
	t, err := afterimage.ParseTime(stamp)
	if err != nil {
		return 0, afterimage.Usagef("time %q: %w", text, err)
	}
	return t - 1, nil
}

// waitForNow polls the manifest until its horizon has reached the second in which it was called.
func (a *app) waitForNow(p *protected) (afterimage.Time, error) {
	goal := afterimage.MongoTime(uint32(time.Now().Unix()), 0)
	ctx, cancel := context.WithTimeout(a.ctx, nowWaitMax)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for p.state.Horizon() < goal {
		select {
		case <-a.ctx.Done():
			return 0, a.ctx.Err()
		case <-ctx.Done():
			return 0, &afterimage.NotRecoverableError{
				At: goal, Later: true, Before: p.state.Horizon(),
				Reason: fmt.Sprintf("the horizon did not reach it within %s: is `afterimage serve` running", nowWaitMax),
			}
		case <-tick.C:
			if err := a.reload(p); err != nil {
				return 0, err
			}
		}
	}
	return p.state.Horizon(), nil
}
