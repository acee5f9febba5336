package scanners

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

// Values that an Entry's zero fields stand for.
const (
	DefaultWorkers = 8
	DefaultTimeout = 60 * time.Second
)

// Entry is one scanner of a pool and how it is run.
type Entry struct {
	Scanner Scanner
	// Stage is 1 (asked at once) or 2 (asked once stage 1 is done, and given its
	// findings).
	Stage int
	// Required: no definite answer makes the message failed.
	Required bool
	// Local: the scanner works inside our own process and asks no server, so that a
	// time-out is the message's doing (KindUnchecked) and would come again.
	Local bool
	// Workers is the number of messages that are scanned at a time; 0 means
	// DefaultWorkers.
	Workers int
	// Timeout counts from the end of the message (in stage 2 from the end of stage 1), waiting for a worker
	// included; 0 means DefaultTimeout.
	Timeout time.Duration
}

// PoolOptions are what NewPool needs.
type PoolOptions struct {
	Entries []Entry
	// Registerer takes the pool's metrics; nil: none are registered. A further pool
	// may use the same one: it goes on counting where the other stopped.
	Registerer prometheus.Registerer
	// Log takes stacks of panics; nil: slog.Default().
	Log *slog.Logger
	// Panicked counts panics (sluice_panics_total{component}); nil: not counted.
	Panicked func(component string)
}

// Pool runs scanners over messages. Safe for concurrent use.
type Pool struct {
	stages   [2][]*worker
	log      *slog.Logger
	panicked func(component string)
	runs     sync.WaitGroup // goroutines of all runs

	mu      sync.Mutex
	stacked map[string]time.Time // when a scanner's stack was last logged; guarded by mu
}

// worker is one scanner with its slots.
type worker struct {
	Entry
	name    string
	slots   *semaphore.Weighted // FIFO
	early   *semaphore.Weighted // how many of slots may be held by arriving messages; nil: none
	metrics scannerMetrics
}

// NewPool checks the entries and makes a pool, which owns the scanners from now on.
func NewPool(o PoolOptions) (*Pool, error) {
	p := &Pool{log: o.Log, panicked: o.Panicked, stacked: map[string]time.Time{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	if p.panicked == nil {
		p.panicked = func(string) {}
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("scanners: %w", err)
	}
	seen := map[string]bool{}
	for _, e := range o.Entries {
		name := e.Scanner.Name()
		switch {
		case e.Stage != 1 && e.Stage != 2:
			return nil, fmt.Errorf("scanners: %s: stage %d: 1 or 2", name, e.Stage)
		case seen[name]:
			return nil, fmt.Errorf("scanners: %s is there twice", name)
		case e.Workers < 0 || e.Timeout < 0:
			return nil, fmt.Errorf("scanners: %s: workers and timeout can't be negative", name)
		}
		seen[name] = true
		if e.Workers == 0 {
			e.Workers = DefaultWorkers
		}
		if e.Timeout == 0 {
			e.Timeout = DefaultTimeout
		}
		w := &worker{Entry: e, name: name, slots: semaphore.NewWeighted(int64(e.Workers)), metrics: m.scanner(name)}
		if half := e.Workers / 2; half > 0 {
			w.early = semaphore.NewWeighted(int64(half))
		}
		p.stages[e.Stage-1] = append(p.stages[e.Stage-1], w)
	}
	return p, nil
}

// stackEvery is how often a scanner's stack is logged: who sends mail on which a
// scanner crashes can't fill the log.
const stackEvery = time.Minute

// logPanic logs each panic, and of each scanner one stack a minute.
func (p *Pool) logPanic(scanner, queueID string, err error, stack []byte) {
	p.mu.Lock()
	now := time.Now()
	full := now.Sub(p.stacked[scanner]) >= stackEvery
	if full {
		p.stacked[scanner] = now
	}
	p.mu.Unlock()
	attrs := []any{"scanner", scanner, "queue_id", queueID, "err", err}
	if full {
		attrs = append(attrs, "stack", string(stack))
	}
	p.log.Error("scanner panicked", attrs...)
}

// Probe asks each scanner that can be asked how its servers are, side by side,
// and returns their answers in the order of the entries. ctx bounds the wait.
func (p *Pool) Probe(ctx context.Context) []Endpoint {
	var wg sync.WaitGroup
	answers := make([][]Endpoint, 0, 4)
	var probers []Prober
	for _, stage := range p.stages {
		for _, w := range stage {
			if pr, ok := w.Scanner.(Prober); ok {
				probers, answers = append(probers, pr), append(answers, nil)
			}
		}
	}
	for i, pr := range probers {
		wg.Go(func() { answers[i] = pr.Probe(ctx) })
	}
	wg.Wait()
	var all []Endpoint
	for _, a := range answers {
		all = append(all, a...)
	}
	return all
}

// Close waits for what still runs and closes the scanners that are io.Closers.
// No run may be started any more.
func (p *Pool) Close() error {
	p.runs.Wait()
	var errs []error
	for _, stage := range p.stages {
		for _, w := range stage {
			if c, ok := w.Scanner.(io.Closer); ok {
				errs = append(errs, c.Close())
			}
		}
	}
	return errors.Join(errs...)
}
