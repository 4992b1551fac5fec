package mongodb

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterimagedb/afterimage/listeners/mongodb/oplog"
)

// metrics of one listener. Every one carries the name of its source.
type metrics struct {
	leader       prometheus.Gauge
	lag          prometheus.Gauge
	horizon      prometheus.Gauge
	open         prometheus.Gauge
	entries      prometheus.Counter
	readBytes    prometheus.Counter
	changes      prometheus.Counter
	changeBytes  prometheus.Counter
	batches      prometheus.Counter
	spilled      prometheus.Counter
	unknown      prometheus.Counter
	gaps         prometheus.Counter
	failures     prometheus.Counter
	fenced       prometheus.Counter
	scanTables   prometheus.Gauge
	scanRows     prometheus.Counter
	scanBytes    prometheus.Counter
	scanRanges   prometheus.Counter
	scanSegments prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, source string) *metrics {
	labels := prometheus.Labels{"source": source}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "afterimage_listener_" + name, Help: help, ConstLabels: labels})
		reg.MustRegister(g)
		return g
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "afterimage_listener_" + name, Help: help, ConstLabels: labels})
		reg.MustRegister(c)
		return c
	}
	return &metrics{
		leader:       gauge("leader", "1 while this listener publishes its lane, 0 while it follows another or has no connection."),
		lag:          gauge("lag_seconds", "Wall clock now minus that of the last entry handed to the stream."),
		horizon:      gauge("horizon_seconds", "Time up to which nothing more can appear, as of the last batch, in seconds since the Unix epoch."),
		open:         gauge("open_transactions", "Transactions that have begun in the log and not ended."),
		entries:      counter("entries_total", "Oplog entries read."),
		readBytes:    counter("read_bytes_total", "Bytes of oplog entries read."),
		changes:      counter("changes_total", "Changes handed to the stream."),
		changeBytes:  counter("change_bytes_total", "Bytes of keys and bodies of these changes."),
		batches:      counter("batches_total", "Batches handed to the stream."),
		spilled:      counter("spilled_bytes_total", "Bytes of open transactions written to scratch files."),
		unknown:      counter("unknown_entries_total", "Entries kept raw because they were not understood. Each makes a moment that is not certified: report it."),
		gaps:         counter("gaps_total", "Holes in the log: the oplog no longer held our position."),
		failures:     counter("session_failures_total", "Sessions that ended with an error and were begun again."),
		fenced:       counter("fenced_total", "Batches lost to another listener of the lane."),
		scanTables:   gauge("scan_tables", "Tables whose first image is still to be completed."),
		scanRows:     counter("scan_rows_total", "Rows read for first images."),
		scanBytes:    counter("scan_bytes_total", "Bytes of rows read for first images."),
		scanRanges:   counter("scan_ranges_total", "Ranges completed for first images."),
		scanSegments: counter("scan_segments_total", "Segments written for first images."),
	}
}

// decoder adds what a decoder has counted since the last call.
func (m *metrics) decoder(d *oplog.Decoder, seen *oplog.Stats) {
	s := d.Stats()
	m.entries.Add(float64(s.Entries - seen.Entries))
	m.unknown.Add(float64(s.Unknown - seen.Unknown))
	m.spilled.Add(float64(s.SpilledBytes - seen.SpilledBytes))
	m.open.Set(float64(d.OpenTransactions()))
	*seen = s
}
