package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
	"github.com/afterimagedb/afterimage/segment"
	"github.com/afterimagedb/afterimage/snapshotter"
)

type sourcesCmd struct{ output }

// Run lists the configured sources.
func (c *sourcesCmd) Run(a *app) error {
	conf, err := a.config()
	if err != nil {
		return err
	}
	type source struct {
		Name   string `json:"name"`
		Kind   string `json:"kind"`
		Bucket string `json:"bucket"`
	}
	out := []source{}
	for _, s := range conf.Sources {
		b, err := a.sourceBucket(s.Name)
		if err != nil {
			return err
		}
		out = append(out, source{s.Name, "mongodb", b.String()})
	}
	return c.print(a, out, func(w io.Writer) {
		row(w, "SOURCE", "KIND", "BUCKET")
		for _, s := range out {
			row(w, s.Name, s.Kind, s.Bucket)
		}
	})
}

type lanesCmd struct {
	output
	Source string `arg:"" help:"Name of the source."`
}

// Run lists the lanes of a source.
func (c *lanesCmd) Run(a *app) error {
	p, err := a.open(c.Source)
	if err != nil {
		return err
	}
	return c.print(a, p.state.Lanes, func(w io.Writer) {
		row(w, "LANE", "INCARNATION", "EPOCH", "SINCE", "HORIZON")
		for _, l := range p.state.Lanes {
			row(w, l.Name, l.Incarnation, l.Epoch, when(l.StartTime), when(l.Horizon))
		}
	})
}

// sourceStatus is one source in short.
type sourceStatus struct {
	Source            string                 `json:"source"`
	Manifest          uint64                 `json:"manifest"`
	Horizon           afterimage.Time        `json:"horizon"`
	HorizonAgeSeconds float64                `json:"horizonAgeSeconds"` // now less horizon: an upper bound of the RPO
	Windows           []manifest.Interval    `json:"windows"`
	Lanes             []manifest.Lane        `json:"lanes"`
	Gaps              []manifest.Gap         `json:"gaps"`
	Uncertified       []manifest.Uncertified `json:"uncertified"`
	ScansUnderWay     int                    `json:"scansUnderWay"`
	Segments          int                    `json:"segments"`
	Images            int                    `json:"images"`
	Changes           int64                  `json:"changes"`
	StoredBytes       int64                  `json:"storedBytes"`
	RawBytes          int64                  `json:"rawBytes"`
	DoomedObjects     int                    `json:"doomedObjects"`
	State             string                 `json:"state"` // protecting, first image, lagging, nothing yet
}

func statusOf(name string, s *manifest.State, now time.Time) sourceStatus {
	st := sourceStatus{
		Source: name, Manifest: s.Number, Horizon: s.Horizon(),
		Lanes: list(s.Lanes), Gaps: list(s.Gaps), Uncertified: list(s.Uncertified),
		ScansUnderWay: len(s.Scans), Segments: len(s.Segments), Images: len(s.Images), DoomedObjects: len(s.Doomed),
		Windows: list(snapshotter.New(snapshotter.Options{State: s}).Windows()),
	}
	for _, m := range s.Segments {
		if m.Kind == segment.Changes {
			st.Changes += m.Rows
		}
		st.StoredBytes += m.Bytes
		st.RawBytes += m.RawBytes
	}
	st.HorizonAgeSeconds = now.Sub(st.Horizon.Clock()).Seconds()
	switch {
	case s.Number == 0 || st.Horizon == 0:
		st.State = "nothing yet"
	case len(s.Scans) > 0:
		st.State = "first image"
	case st.HorizonAgeSeconds > readyLagMax.Seconds():
		st.State = "lagging"
	default:
		st.State = "protecting"
	}
	return st
}

// list makes JSON print an empty list instead of null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

type statusCmd struct {
	output
	Source string `arg:"" optional:"" help:"Name of a source; default all."`
}

// Run prints the state of sources straight from the bucket.
func (c *statusCmd) Run(a *app) error {
	names, err := a.sourceNames(c.Source)
	if err != nil {
		return err
	}
	out := []sourceStatus{}
	for _, n := range names {
		p, err := a.open(n)
		switch {
		case errors.Is(err, manifest.ErrNoRepository) && c.Source == "":
			out = append(out, sourceStatus{Source: n, State: "nothing yet"})
			continue
		case err != nil:
			return err
		}
		out = append(out, statusOf(n, p.state, time.Now()))
	}
	return c.print(a, out, func(w io.Writer) {
		for i, st := range out {
			if i > 0 {
				fmt.Fprintln(w)
			}
			st.table(w)
		}
	})
}

func (st *sourceStatus) table(w io.Writer) {
	row(w, "source", st.Source)
	row(w, "state", st.State)
	if st.Manifest == 0 {
		return
	}
	row(w, "horizon", fmt.Sprintf("%s, %.0f s ago", when(st.Horizon), st.HorizonAgeSeconds))
	for _, win := range slices.Backward(st.Windows) {
		to := "the horizon"
		if win.To != 0 {
			to = when(win.To)
		}
		row(w, "restorable", when(win.From)+" to "+to)
	}
	if len(st.Windows) == 0 {
		row(w, "restorable", "nothing yet: the first image is under way")
	}
	if st.ScansUnderWay > 0 {
		row(w, "first image", fmt.Sprintf("%d tables to go", st.ScansUnderWay))
	}
	for _, g := range st.Gaps {
		row(w, "GAP", fmt.Sprintf("%s to %s: %s", when(g.From), when(g.To), g.Reason))
	}
	for _, u := range st.Uncertified {
		row(w, "NOT CERTIFIED", fmt.Sprintf("%s: %s", when(u.Time), u.Reason))
	}
	for _, l := range st.Lanes {
		row(w, "lane", fmt.Sprintf("%s (%s), epoch %d, since %s", l.Name, l.Incarnation, l.Epoch, when(l.StartTime)))
	}
	row(w, "stored", fmt.Sprintf("%s in %d segments (%s of keys and bodies, %d changes), %d images", bytesOf(st.StoredBytes), st.Segments, bytesOf(st.RawBytes), st.Changes, st.Images))
	row(w, "manifest", st.Manifest)
}
