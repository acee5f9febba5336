package web

import (
	"context"
	"fmt"
	"sync/atomic"
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
}

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
	up, asked := map[string]bool{}, map[string]bool{}
	for _, e := range r.Probe(ctx) {
		asked[e.Scanner] = true
		up[e.Scanner] = up[e.Scanner] || e.Up
	}
	for _, name := range r.Required() {
		if asked[name] && !up[name] {
			return fmt.Errorf("no server of the required scanner %s answers", name)
		}
	}
	return nil
}

// State is "starting", "serving" or "draining", as Status shows it.
func (r *Readiness) State() string {
	return [...]string{"starting", "serving", "draining"}[r.state.Load()]
}
