package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/afterimagedb/afterimage"
	"github.com/afterimagedb/afterimage/manifest"
)

// readyLagMax is how old a source's committed horizon may be for /readyz: an idle replica set writes a no-op every 10 s.
const readyLagMax = time.Minute

// health is what /readyz and /api/status answer from: the newest state of each source, nil until its compactor runs.
type health struct {
	mu     sync.Mutex
	states map[string]func() *manifest.State
}

func newHealth() *health { return &health{states: map[string]func() *manifest.State{}} }

func (h *health) set(source string, state func() *manifest.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[source] = state
}

// status is the state of every source in short; ready is false while one lags or has not begun.
func (h *health) status(now time.Time) (out []sourceStatus, ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ready = true
	for name, state := range h.states {
		if state == nil {
			ready = false
			out = append(out, sourceStatus{Source: name})
			continue
		}
		st := statusOf(name, state(), now)
		ready = ready && st.HorizonAgeSeconds < readyLagMax.Seconds()
		out = append(out, st)
	}
	return out, ready
}

// serveHTTP answers /metrics, /healthz, /readyz, /api/status and Go profiles under /debug/pprof/ until ctx ends.
func serveHTTP(ctx context.Context, log *slog.Logger, addr string, registry *prometheus.Registry, h *health) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		out, ready := h.status(time.Now())
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		writeJSON(w, out)
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		out, _ := h.status(time.Now())
		writeJSON(w, out)
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return afterimage.Usagef("http: %w: set http: HOST:PORT to a free address", err)
	}
	log.Info("listening", "http", l.Addr().String())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away
}
