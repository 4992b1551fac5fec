package mongodb

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/bucket"
	"github.com/afterimagedb/afterimage/manifest"
)

// Options of a listener. Source, URI, Bucket, State and Scratch are needed; the rest has defaults.
type Options struct {
	Source   string        // name of the source, for log lines
	URI      string        // of the replica set; never printed
	LookBack time.Duration // how far back a new lane starts, 0: now

	Bucket  bucket.Bucket                                      // scoped to the source: names like segments/x.parquet
	State   func(ctx context.Context) (*manifest.State, error) // the newest committed state
	Scratch string                                             // folder for large open transactions

	Logger     *slog.Logger
	Registerer prometheus.Registerer

	BatchBytesMax     int           // changes are published when they reach this size; 512 KB when 0
	Pace              time.Duration // least time between two reads of a quiet log: lets the server rest; 3 ms when 0
	SegmentBytes      int64         // rows of the first image in one segment, uncompressed; 64 MB when 0
	BytesPerSecondMax int64         // limit of the scan, 0: none
	OpenBytesMax      int64         // open transactions held in memory; 64 MB when 0
	TakeOverAfter     time.Duration // a leader that publishes nothing for so long has lost its lane; 3 s when 0

	rangeBytes int64 // tests make ranges small
	wholeBytes int64
	rowsPerGet int32
}

func (o *Options) check() error {
	switch {
	case o.URI == "":
		return afterimage.Usagef("source %s: no mongodb uri", o.Source)
	case o.Bucket == nil || o.State == nil:
		return afterimage.Usagef("source %s: a listener needs a bucket and a manifest", o.Source)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	setDefault(&o.BatchBytesMax, 512<<10)
	setDefault(&o.Pace, 3*time.Millisecond)
	setDefault(&o.SegmentBytes, 64<<20)
	setDefault(&o.rangeBytes, rangeBytes)
	setDefault(&o.wholeBytes, wholeBytes)
	setDefault(&o.rowsPerGet, rowsPerGet)
	setDefault(&o.OpenBytesMax, 64<<20)
	setDefault(&o.TakeOverAfter, 3*time.Second)
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
