package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/scanners"
)

// Options are what New needs and no reload changes.
type Options struct {
	// Spool makes the messages that Begin hands out. It may be nil for Examine
	// alone.
	Spool *mail.Spool
	// Journal keeps the records; nil means LogOnly.
	Journal Journal
	// Metrics counts; nil means unseen ones.
	Metrics *Metrics
	// Log takes the line of each message; nil means none.
	Log *slog.Logger
	// Now and NewID are for tests; nil means the clock and UUIDv7.
	Now   func() time.Time
	NewID func() string
}

// Gateway judges messages. Safe for concurrent use.
type Gateway struct {
	spool    *mail.Spool
	journal  Journal
	metrics  *Metrics
	log      *slog.Logger
	now      func() time.Time
	newID    func() string
	inFlight atomic.Int64

	mu       sync.Mutex
	settings *snapshot // guarded by mu; what it points to is not changed but for users
}

// Reasons of sluice_admission_refused_total.
const (
	refusedSpool    = "spool"
	refusedInFlight = "in_flight"
)

// reserveInFlight is how many messages of reinject_daemons are taken past
// MaxInFlight: those that other messages may be waiting for.
const reserveInFlight = 64

// Errors of Begin.
var (
	// ErrBusy: as many messages as are allowed are being worked on.
	ErrBusy = errors.New("too many messages in flight")
)

// New makes a gateway with its first settings.
func New(o Options, s Settings) (*Gateway, error) {
	set, err := s.prepared()
	if err != nil {
		return nil, err
	}
	g := &Gateway{spool: o.Spool, journal: o.Journal, metrics: o.Metrics, log: o.Log, now: o.Now, newID: o.NewID, settings: set}
	if g.journal == nil {
		g.journal = LogOnly{}
	}
	if g.metrics == nil {
		if g.metrics, err = NewMetrics(nil, Build{}); err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.newID == nil {
		g.newID = newID
	}
	if err := g.registerState(g.metrics.reg); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return g, nil
}

// newID returns a UUIDv7 (RFC 9562 §5.7).
func newID() string {
	id, err := uuid.NewV7()
	if err != nil { // crypto/rand does not fail on any system that we run on
		return uuid.NewString()
	}
	return id.String()
}

// Reload puts other settings in force. Messages that have begun keep theirs. After
// an error the old ones stay.
func (g *Gateway) Reload(s Settings) error {
	set, err := s.prepared()
	if err != nil {
		return err
	}
	g.mu.Lock()
	old := g.settings
	g.settings = set
	idle := old.users == 0
	g.mu.Unlock()
	if idle && old.Retired != nil {
		old.Retired()
	}
	return nil
}

// current returns the settings in force, for reading.
func (g *Gateway) current() *Settings {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &g.settings.Settings
}

// acquire returns the settings in force, to be given back by release.
func (g *Gateway) acquire() *snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settings.users++
	return g.settings
}

func (g *Gateway) release(s *snapshot) {
	g.mu.Lock()
	s.users--
	last := s.users == 0 && s != g.settings
	g.mu.Unlock()
	if last && s.Retired != nil {
		s.Retired()
	}
}

// InFlight returns the number of messages that are being worked on.
func (g *Gateway) InFlight() int64 { return g.inFlight.Load() }

// Begin begins a message at MAIL FROM. An error (mail.ErrSpoolFull, ErrBusy) means
// that the MTA is to be told 451. The message belongs to the caller until Start.
func (g *Gateway) Begin(env *envelope.Envelope) (*mail.Message, error) {
	s := g.current()
	limit := int64(s.MaxInFlight)
	if s.Origin.reinjects(env) {
		limit += reserveInFlight
	}
	if g.inFlight.Load() >= limit {
		g.metrics.refused.WithLabelValues(refusedInFlight).Inc()
		return nil, ErrBusy
	}
	if g.spool == nil || g.spool.Full() {
		g.metrics.refused.WithLabelValues(refusedSpool).Inc()
		return nil, mail.ErrSpoolFull
	}
	return g.spool.New(), nil
}

// Start sets reader and scanners to work on a message whose envelope and header
// section are complete. ctx ends with the session. The Run owns the message from
// now on and must be ended by Finish and Answered, or by Abandon.
func (g *Gateway) Start(ctx context.Context, env *envelope.Envelope, msg *mail.Message) *Run {
	g.inFlight.Add(1)
	r := &Run{g: g, set: g.acquire(), env: env, msg: msg, id: g.newID(), began: g.now()}
	defer func() {
		if v := recover(); v != nil {
			r.trouble = g.panicked(v, env, r.id)
		}
	}()
	r.scan = g.scan(ctx, r.set, env, msg)
	return r
}

// scan starts the pool on a message.
func (g *Gateway) scan(ctx context.Context, s *snapshot, env *envelope.Envelope, msg *mail.Message) *scanners.Run {
	return s.Pool.Start(ctx, &scanners.Input{
		Envelope: env, Direction: s.Origin.direction(env), Relay: s.Origin.isRelay(env), Message: msg,
	})
}

// panicked logs and counts a panic and returns what the record says of it. The
// panic's value isn't logged unless it is an error of the runtime: it could bear
// a message's text.
func (g *Gateway) panicked(v any, env *envelope.Envelope, id string) string {
	g.metrics.Panicked(componentGateway)
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(interface {
		error
		RuntimeError()
	}); ok {
		what = e.Error()
	}
	g.log.Error("gateway panicked", "queue_id", env.QueueID, "session_id", env.SessionID, "id", id, "err", what, "stack", string(debug.Stack()))
	return "panic: " + what
}
