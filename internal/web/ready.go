package web

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Readiness answers /readyz: mail can be scanned. The zero value is not ready.
// Safe for concurrent use.
type Readiness struct {
	state atomic.Int32
	// Probe asks the scanners' servers; nil asks none. It is set before first use.
	Probe func(context.Context) []Endpoint
	// Required names the scanners that must have a server that is up. It is set
	// before first use and may be called at any time.
	Required func() []string

	mu    sync.Mutex
	up    map[string]bool // guarded by mu: by scanner, true if a server is up
	asked time.Time       // guarded by mu: when up was found out
}

// probeAge is for how long the answers of scanners' servers are good: however
// often /readyz is asked, they are asked no oftener.
const probeAge = 2 * time.Second

const (
	starting int32 = iota
	serving
	draining
)

// Serving says that the listeners are open; Draining that no new mail is wanted.
func (r *Readiness) Serving() { r.state.CompareAndSwap(starting, serving) }

// Draining says that the daemon ends; it stays so.
func (r *Readiness) Draining() { r.state.Store(draining) }

// Ready returns why no mail can be scanned, nil if it can.
func (r *Readiness) Ready(ctx context.Context) error {
	switch r.state.Load() {
	case starting:
		return ErrStarting
	case draining:
		return ErrDraining
	}
	if r.Probe == nil || r.Required == nil {
		return nil
	}
	servers := r.servers(ctx)
	for _, name := range r.Required() {
		if up, asked := servers[name]; asked && !up {
			return fmt.Errorf("no server of the required scanner %s answers", name)
		}
	}
	return nil
}

// servers says for each scanner that has servers whether one of them is up.
func (r *Readiness) servers(ctx context.Context) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.up != nil && time.Since(r.asked) < probeAge {
		return r.up
	}
	// The answer is for others too: whoever asked may go away meanwhile.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer stop()
	up := map[string]bool{}
	for _, e := range r.Probe(ctx) {
		up[e.Scanner] = up[e.Scanner] || e.Up
	}
	r.up, r.asked = up, time.Now()
	return up
}

// State is "starting", "serving" or "draining", as Status shows it.
func (r *Readiness) State() string {
	return [...]string{"starting", "serving", "draining"}[r.state.Load()]
}
