package stream

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	batches    *prometheus.CounterVec
	rawBytes   *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	ackSeconds *prometheus.HistogramVec
	fenced     *prometheus.CounterVec
	retries    *prometheus.CounterVec
	waiting    *prometheus.GaugeVec
	pending    *prometheus.GaugeVec
	stored     *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, source string) (*metrics, error) {
	lane := []string{"lane"}
	labels := prometheus.Labels{"source": source}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, lane)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, lane)
	}
	m := &metrics{
		batches:  counter("afterimage_stream_published_batches_total", "Batches acknowledged by the stream."),
		rawBytes: counter("afterimage_stream_published_raw_bytes_total", "Bytes of published batches before compression."),
		bytes:    counter("afterimage_stream_published_bytes_total", "Bytes of published batches as stored, compressed."),
		ackSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:        "afterimage_stream_ack_seconds",
			Help:        "Time from sending a message to its acknowledgement: with a server that syncs always, to the disk.",
			ConstLabels: labels,
			Buckets:     prometheus.ExponentialBuckets(0.0001, 2, 18),
		}, lane),
		fenced:  counter("afterimage_stream_fenced_total", "Times that another publisher of the lane came first."),
		retries: counter("afterimage_stream_retries_total", "Times that messages were sent again: a lost acknowledgement or a full stream."),
		waiting: gauge("afterimage_stream_full", "1 while the stream or its disk is full and the publisher waits, else 0."),
		pending: gauge("afterimage_stream_pending_messages", "Messages sent and not acknowledged yet."),
		stored:  gauge("afterimage_stream_stored_bytes", "Bytes in the lane's stream when it was last looked at, plus what was published since."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.batches, m.rawBytes, m.bytes, m.ackSeconds, m.fenced, m.retries, m.waiting, m.pending, m.stored} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// laneMetrics are the metrics of one lane, looked up once.
type laneMetrics struct {
	batches, rawBytes, bytes, fenced, retries prometheus.Counter
	ackSeconds                                prometheus.Observer
	waiting, pending, stored                  prometheus.Gauge
}

func (m *metrics) lane(name string) laneMetrics {
	return laneMetrics{
		batches:    m.batches.WithLabelValues(name),
		rawBytes:   m.rawBytes.WithLabelValues(name),
		bytes:      m.bytes.WithLabelValues(name),
		fenced:     m.fenced.WithLabelValues(name),
		retries:    m.retries.WithLabelValues(name),
		ackSeconds: m.ackSeconds.WithLabelValues(name),
		waiting:    m.waiting.WithLabelValues(name),
		pending:    m.pending.WithLabelValues(name),
		stored:     m.stored.WithLabelValues(name),
	}
}
