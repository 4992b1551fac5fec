package compactor

import "github.com/prometheus/client_golang/prometheus"

// metrics of the compactor; the help texts are their documentation.
type metrics struct {
	batches       *prometheus.CounterVec
	changes       *prometheus.CounterVec
	duplicates    prometheus.Counter
	retries       prometheus.Counter
	broken        *prometheus.CounterVec
	segments      *prometheus.CounterVec
	rawBytes      *prometheus.CounterVec
	storedBytes   *prometheus.CounterVec
	merges        prometheus.Counter
	images        prometheus.Counter
	swept         prometheus.Counter
	liveSegments  prometheus.Gauge
	manifest      prometheus.Gauge
	horizon       *prometheus.GaugeVec
	commitSeconds prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "afterimage_compactor_" + name, Help: help})
	}
	counters := func(name, by, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "afterimage_compactor_" + name, Help: help}, []string{by})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "afterimage_compactor_" + name, Help: help})
	}
	m := &metrics{
		batches:      counters("batches_total", "lane", "Batches taken from the stream."),
		changes:      counters("changes_total", "lane", "Changes in the batches taken from the stream."),
		duplicates:   counter("duplicate_changes_total", "Changes left out because the manifest covered them or an equal one was there."),
		retries:      counter("retries_total", "Failures of ingest that were tried again."),
		broken:       counters("broken_chains_total", "lane", "Times that batches were missing in the stream and the log was read again."),
		segments:     counters("segments_total", "kind", "Segments written."),
		rawBytes:     counters("segment_raw_bytes_total", "kind", "Keys and bodies in the segments written, before compression."),
		storedBytes:  counters("segment_bytes_total", "kind", "Size of the segments written."),
		merges:       counter("merges_total", "Background merges committed."),
		images:       counter("images_total", "Incremental images committed."),
		swept:        counter("swept_objects_total", "Doomed objects deleted after their grace time."),
		liveSegments: gauge("live_segments", "Segments in the newest manifest."),
		manifest:     gauge("manifest_number", "Number of the newest manifest."),
		horizon: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "afterimage_compactor_horizon_seconds",
			Help: "Committed horizon of a lane on the source's clock, seconds since the Unix epoch.",
		}, []string{"lane"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "afterimage_compactor_commit_seconds", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
			Help: "Time to sort, write and commit one flush of level 0.",
		}),
	}
	r.MustRegister(m.batches, m.changes, m.duplicates, m.retries, m.broken, m.segments, m.rawBytes, m.storedBytes, m.merges,
		m.images, m.swept, m.liveSegments, m.manifest, m.horizon, m.commitSeconds)
	return m
}
