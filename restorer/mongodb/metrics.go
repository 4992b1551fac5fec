package mongodb

import "github.com/prometheus/client_golang/prometheus"

// Metrics of restores.
type Metrics struct {
	documents  prometheus.Counter
	bytes      prometheus.Counter
	exact      prometheus.Counter
	retries    prometheus.Counter
	mismatches prometheus.Counter
}

// NewMetrics makes the metrics and registers them with reg, unless it is nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "afterimage", Subsystem: "restore", Name: name, Help: help})
	}
	m := &Metrics{
		documents:  counter("documents_total", "Documents that restores wrote."),
		bytes:      counter("bytes_total", "Bytes of documents that restores wrote."),
		exact:      counter("exact_fixes_total", "Documents that a plain insert would have changed or refused."),
		retries:    counter("retries_total", "Commands that were sent again because the target had no primary or did not answer."),
		mismatches: counter("mismatches_total", "Documents that read back differently from the source."),
	}
	if reg != nil {
		reg.MustRegister(m.documents, m.bytes, m.exact, m.retries, m.mismatches)
	}
	return m
}
