package milter

import (
	"context"
	"sync"
	"time"
)

// Limits are what of the Options can change while the server serves. A zero field means
// the default of Options.
type Limits struct {
	MaxConnections int
	DrainTimeout   time.Duration
}

// SetLimits puts other limits in force. Connections that are open stay, also past a lower
// MaxConnections, and those that were admitted stay admitted; with a higher one the others
// are at their next message. A drain that has begun keeps its time.
func (s *Server) SetLimits(l Limits) {
	o := Options{MaxConnections: l.MaxConnections, DrainTimeout: l.DrainTimeout}.withDefaults()
	s.limits.Store(&Limits{MaxConnections: o.MaxConnections, DrainTimeout: o.DrainTimeout})
	s.slots.limit(o.MaxConnections + s.o.ReserveConnections)
}

// Limits returns the limits that are in force.
func (s *Server) Limits() Limits { return *s.limits.Load() }

// slots counts connections against a limit that may change. The zero value has none to
// give.
type slots struct {
	mu    sync.Mutex // guards what follows
	max   int
	spare int // beside max: one for each waiting acceptor but the first
	used  int
	// more is made by who waits, and closed when there may be a slot.
	more chan struct{}
}

// take waits for a slot until ctx ends, and reports whether it got one.
func (s *slots) take(ctx context.Context) bool {
	for {
		s.mu.Lock()
		if s.used < s.max+s.spare {
			s.used++
			s.mu.Unlock()
			return true
		}
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

// giveBack frees a slot.
func (s *slots) giveBack() { s.change(func() { s.used-- }) }

// limit sets how many slots there are. Those that are taken stay so.
func (s *slots) limit(n int) { s.change(func() { s.max = n }) }

// acceptors says how many goroutines take a slot before they wait for a connection.
func (s *slots) acceptors(n int) { s.change(func() { s.spare = n - 1 }) }

func (s *slots) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
}
