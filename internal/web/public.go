package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds what /readyz waits for.
const readyTimeout = 5 * time.Second

// PublicOptions are what NewPublic needs.
type PublicOptions struct {
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Ready says why no mail can be scanned right now; nil means that it can. Its
	// text is shown.
	Ready func(context.Context) error
	Log   *slog.Logger
}

// NewPublic makes the server of /metrics, /healthz (the process answers) and
// /readyz (mail can be scanned: 200, else 503 and why).
func NewPublic(o PublicOptions) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: 4, Timeout: writeTimeout / 2, ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := context.WithTimeout(r.Context(), readyTimeout)
		defer stop()
		if o.Ready == nil {
			plain(w, http.StatusServiceUnavailable, "not ready")
			return
		}
		if err := o.Ready(ctx); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	return newServer(mux, o.Log)
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // the client is gone if it fails
}

// Reasons of Readiness.
var (
	ErrStarting = errors.New("starting: the listeners are not open yet")
	ErrDraining = errors.New("draining")
)
