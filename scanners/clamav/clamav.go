// Package clamav asks clamd whether a message is malware. Scans are spoken by a
// codec of our own, whose deadline is absolute and for which only an exact "OK" is
// clean; the package baruwa-enterprise/clamd does the control commands (PING,
// VERSION, RELOAD, STATS), through a socket that we own, because it ignores its
// context and bounds no reply.
//
// clamd being away, reloading, or dying amid a scan is routine: one retry, then an
// error that names it. An endpoint that failed three times in a row isn't asked
// until a probe has got an answer from it again.
//
// Invariants:
//   - A message is clean only if clamd was sent all of it and answered exactly
//     "OK", with the reply's terminator. Everything else is a detection, content
//     that wasn't looked at (verdict.KindUnchecked), or an error.
//   - No reply takes more than 64 KiB of memory, no attempt outlives its context.
//   - What clamd says of limits and encryption (Heuristics.Limits.*,
//     Heuristics.Encrypted.*) is unchecked, never a virus, each time anew.
//   - Every goroutine is waited for by Close or by the call that made it.
//
// Sources: clamd(8) and clamd.conf(5) of ClamAV 1.4.
package clamav

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/scanners"
)

// Name is the scanner's name in configuration, metrics and findings.
const Name = "clamav"

// Symbols of this scanner's findings.
const (
	SymbolVirus     = "CLAMAV_VIRUS"           // virus; the signature's name is the detail
	SymbolEncrypted = "CLAMAV_ENCRYPTED"       // unchecked: clamd met something encrypted
	SymbolLimits    = "CLAMAV_LIMITS_EXCEEDED" // unchecked: clamd hit one of its limits
	SymbolTooLarge  = "CLAMAV_TOO_LARGE"       // unchecked: larger than clamd takes
)

const (
	// DefaultMaxSize is Debian's MaxFileSize and StreamMaxLength. clamd passes
	// over a larger file and says OK, unless AlertExceedsMax is on, so the limit must
	// not be above what clamd has; it can't be asked for it.
	DefaultMaxSize = 25 << 20
	// DefaultEndpoint is Debian's LocalSocket.
	DefaultEndpoint = "unix:/run/clamav/clamd.ctl"

	// defaultHandOver is how long an MTA of which we don't know how it sends is given to
	// send all, so that clamd can be handed the file.
	defaultHandOver = 50 * time.Millisecond
	// defaultStall is how long a stream may stand still before clamd's thread is given back.
	// clamd itself gives up after ReadTimeout (Debian: 180 s) or CommandReadTimeout (30 s).
	defaultStall = 5 * time.Second
)

// Options of New. The zero value asks Debian's clamd.
type Options struct {
	// Endpoints are unix:/path, /path, inet:host:port or tcp:host:port; none means
	// DefaultEndpoint.
	Endpoints []string
	// Timeout is the time one message has from its end on; 0 means 60 s.
	Timeout time.Duration
	// MaxSize is the size in bytes above which a message isn't sent to clamd but
	// unchecked; 0 means DefaultMaxSize. No greater than clamd's MaxFileSize and
	// StreamMaxLength.
	MaxSize int64
	// Log takes the comings and goings of endpoints; nil: slog.Default().
	Log *slog.Logger
	// Registerer takes the metrics; nil: none. Several scanners, one after the other, may use the
	// same.
	Registerer prometheus.Registerer

	// For tests: 0 means the default.
	stall       time.Duration
	handOver    time.Duration
	healthEvery time.Duration
}

// Scanner asks clamd. Safe for concurrent use. It must be closed.
type Scanner struct {
	opts      Options
	log       *slog.Logger
	metrics   *metrics
	endpoints []*endpoint
	turn      atomic.Uint32 // breaks ties between endpoints
	buffers   sync.Pool     // of *buffer

	stop    context.CancelFunc
	watches sync.WaitGroup
}

// New makes a scanner and begins to watch its endpoints. An endpoint that is away is no
// error; a misspelt one is.
func New(o Options) (*Scanner, error) {
	if len(o.Endpoints) == 0 {
		o.Endpoints = []string{DefaultEndpoint}
	}
	if o.Timeout == 0 {
		o.Timeout = scanners.DefaultTimeout
	}
	if o.MaxSize == 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.stall == 0 {
		o.stall = defaultStall
	}
	if o.handOver == 0 {
		o.handOver = defaultHandOver
	}
	if o.healthEvery == 0 {
		o.healthEvery = 5 * time.Second
	}
	s := &Scanner{opts: o, log: o.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.buffers.New = func() any { return new(buffer) }
	var err error
	if s.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("clamav: %w", err)
	}
	seen := map[string]bool{}
	for _, text := range o.Endpoints {
		network, address, err := ParseEndpoint(text)
		if err != nil {
			return nil, fmt.Errorf("clamav: %w", err)
		}
		e := newEndpoint(network, address)
		if seen[e.name] {
			return nil, fmt.Errorf("clamav: endpoint %s is there twice", e.name)
		}
		seen[e.name] = true
		s.endpoints = append(s.endpoints, e)
		s.metrics.setUp(e.name, false) // until it has answered
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, e := range s.endpoints {
		s.watches.Go(func() { s.watch(ctx, e) })
	}
	return s, nil
}

// Close ends the watching of the endpoints and waits for it. No scan may be running.
func (s *Scanner) Close() error {
	s.stop()
	s.watches.Wait()
	for _, e := range s.endpoints {
		s.metrics.forget(e.name)
	}
	return nil
}

// Name returns "clamav".
func (s *Scanner) Name() string { return Name }

// Scan asks clamd about a complete message: by handing over its file on a unix socket, by
// sending it on TCP. One endpoint more is asked if the first breaks and more than
// half of the time is left; the only one is asked again if it broke off amid the
// scan, as it does when it is restarted.
func (s *Scanner) Scan(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
	if size := in.Message.Size(); size > s.opts.MaxSize {
		return tooLarge(size, s.opts.MaxSize), nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	half := time.Now().Add(time.Until(deadline) / 2)

	first := s.pick(nil)
	if first == nil {
		return scanners.Result{}, s.nobody()
	}
	attempt, release := ctx, context.CancelFunc(func() {})
	if s.pick(first) != nil {
		// Leave the other one time for a retry.
		attempt, release = context.WithTimeout(ctx, time.Until(half)*9/10)
	}
	res, err := s.ask(attempt, first, in.Message)
	release()
	var f *fault
	if err == nil || !errors.As(err, &f) || ctx.Err() != nil || time.Now().After(half) {
		return res, err
	}
	second := s.pick(first)
	if second == nil && f.broken {
		second = s.pick(nil)
	}
	if second == nil {
		return res, err
	}
	s.metrics.retries.Inc()
	res, again := s.ask(ctx, second, in.Message)
	if again != nil {
		return res, fmt.Errorf("%w (before that: %v)", again, err)
	}
	return res, nil
}

// ScanEarly sends a message to clamd while it arrives, unless waiting costs nothing.
// Trouble on the way isn't final: the message is scanned anew when it is
// complete.
func (s *Scanner) ScanEarly(ctx context.Context, in *scanners.Input) (scanners.Result, error) {
	e := s.pick(nil)
	if e == nil {
		return scanners.Result{}, scanners.ErrLater // it may be back by then
	}
	if e.network == "unix" {
		if in.Envelope.HandsOverAtOnce {
			return scanners.Result{}, scanners.ErrLater
		}
		wait := time.NewTimer(s.opts.handOver)
		defer wait.Stop()
		select {
		case <-in.Message.Done():
			return scanners.Result{}, scanners.ErrLater
		case <-ctx.Done():
			return scanners.Result{}, context.Cause(ctx)
		case <-wait.C:
		}
	}
	res, err := s.stream(ctx, e, in.Message)
	switch {
	case err == nil:
		return res, nil
	case ctx.Err() != nil:
		return res, context.Cause(ctx)
	case errors.Is(err, mail.ErrAborted):
		return res, err
	}
	return scanners.Result{}, scanners.ErrLater
}

// nobody is the error when no endpoint can be asked.
func (s *Scanner) nobody() error {
	var why []string
	for _, e := range s.endpoints {
		why = append(why, e.name+": "+e.lastTrouble())
	}
	return &scanners.Error{Reason: scanners.ReasonUnavailable, Err: fmt.Errorf("no clamd answers (%s)", strings.Join(why, "; "))}
}

// pick chooses the endpoint with the fewest scans in flight among those whose
// breaker is closed, those that answered the last PING first. nil: there is none.
func (s *Scanner) pick(not *endpoint) *endpoint {
	var best *endpoint
	start := int(s.turn.Load())
	if not == nil {
		start = int(s.turn.Add(1))
	}
	for i := range s.endpoints {
		e := s.endpoints[(start+i)%len(s.endpoints)]
		if e == not || !e.usable() {
			continue
		}
		if best == nil || e.answers.Load() && !best.answers.Load() ||
			e.answers.Load() == best.answers.Load() && e.inFlight.Load() < best.inFlight.Load() {
			best = e
		}
	}
	return best
}

// result says what an answer means for the message. Only definite answers come
// here.
func result(a answer, e *endpoint, max int64) scanners.Result {
	switch a.kind {
	case answerClean:
		return scanners.Result{Complete: true}
	case answerTooLarge:
		return tooLarge(0, max)
	}
	f := verdict.Finding{Symbol: SymbolVirus, Kind: verdict.KindVirus, Scanner: Name,
		Description: "Malware, by ClamAV's signature", Detail: verdict.Printable(a.name, 256)}
	switch {
	case strings.HasPrefix(a.name, "Heuristics.Limits."):
		f.Symbol, f.Kind, f.Description = SymbolLimits, verdict.KindUnchecked, "ClamAV reached one of its limits and did not look at everything"
	case strings.HasPrefix(a.name, "Heuristics.Encrypted."):
		f.Symbol, f.Kind, f.Description = SymbolEncrypted, verdict.KindUnchecked, "ClamAV can't look into encrypted content"
	}
	return scanners.Result{Findings: []verdict.Finding{f}, Complete: f.Kind == verdict.KindVirus}
}

// tooLarge is the result for a message above the limit; size 0: clamd said so.
func tooLarge(size, max int64) scanners.Result {
	detail := "clamd's StreamMaxLength"
	if size > 0 {
		detail = fmt.Sprintf("%d bytes, at most %d are sent to clamd", size, max)
	}
	return scanners.Result{Findings: []verdict.Finding{{Symbol: SymbolTooLarge, Kind: verdict.KindUnchecked, Scanner: Name,
		Description: "The message is larger than what ClamAV looks at", Detail: detail}}}
}
