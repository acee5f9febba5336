package clamav

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sony/gobreaker/v2"

	"sluice/internal/verdict"
	"sluice/scanners"
)

const (
	// tripAfter failures in a row open an endpoint's breaker …
	tripAfter = 3
	// … for so long; then the watch, which comes round every 2 s while an endpoint is
	// away, may probe it.
	openFor     = 1500 * time.Millisecond
	probeEvery  = 2 * time.Second
	dialTimeout = 5 * time.Second
)

// ParseEndpoint reads unix:/path, a bare path, inet:host:port or tcp:host:port.
func ParseEndpoint(s string) (network, address string, err error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case strings.HasPrefix(s, "/"):
		network, address = "unix", s
	case scheme == "unix" || scheme == "local":
		network, address = "unix", rest
	case scheme == "inet" || scheme == "tcp":
		network, address = "tcp", rest
	default:
		return "", "", fmt.Errorf("endpoint %q: write unix:/path or inet:host:port", s)
	}
	if network == "unix" {
		if !strings.HasPrefix(address, "/") || len(address) > 107 { // sun_path, unix(7)
			return "", "", fmt.Errorf("endpoint %q: an absolute path of at most 107 bytes is needed", s)
		}
		return network, address, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return "", "", fmt.Errorf("endpoint %q: write inet:host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("endpoint %q: %q is not a port", s, port)
	}
	return network, address, nil
}

// fault is an attempt that gave no definite answer.
type fault struct {
	reason scanners.Reason
	// broken: there was a connection and it broke, as when clamd is restarted.
	broken bool
	// counts: the endpoint is to blame, not the message or our own side.
	counts bool
	err    error
}

func (f *fault) Error() string { return f.err.Error() }

// Unwrap shows the reason to the pool, and the cause.
func (f *fault) Unwrap() []error {
	return []error{&scanners.Error{Reason: f.reason, Err: f.err}, f.err}
}

// endpoint is one clamd. Safe for concurrent use.
type endpoint struct {
	network, address string
	name             string // as in metrics: unix:/path, inet:host:port
	inFlight         atomic.Int32
	answers          atomic.Bool // the last PING was answered
	up               atomic.Bool // as the metric has it
	trouble          atomic.Pointer[string]
	version          atomic.Pointer[string]
	breaker          *gobreaker.CircuitBreaker[answer]
	tripped          chan struct{} // wakes the watch
}

func newEndpoint(network, address string) *endpoint {
	e := &endpoint{network: network, address: address, tripped: make(chan struct{}, 1)}
	e.name = "unix:" + address
	if network == "tcp" {
		e.name = "inet:" + address
	}
	e.answers.Store(true) // until we know better
	e.breaker = gobreaker.NewCircuitBreaker[answer](gobreaker.Settings{
		Name:        e.name,
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsExcluded: func(err error) bool {
			var f *fault
			return err != nil && (!errors.As(err, &f) || !f.counts)
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				select {
				case e.tripped <- struct{}{}:
				default:
				}
			}
		},
	})
	return e
}

// usable reports whether messages may be sent: the probes alone use a half-open
// breaker.
func (e *endpoint) usable() bool { return e.breaker.State() == gobreaker.StateClosed }

// guard runs one attempt under the breaker and remembers its trouble.
func (e *endpoint) guard(attempt func() (answer, error)) (answer, error) {
	e.inFlight.Add(1)
	defer e.inFlight.Add(-1)
	a, err := e.breaker.Execute(func() (answer, error) {
		a, err := attempt()
		var f *fault
		if errors.As(err, &f) && f.counts {
			e.note(err) // before the breaker wakes the watch, which tells it
		}
		return a, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return a, &fault{reason: scanners.ReasonUnavailable, err: fmt.Errorf("%s: %s", e.name, e.lastTrouble())}
	}
	return a, err
}

func (e *endpoint) note(err error) {
	s := verdict.Printable(err.Error(), 256)
	e.trouble.Store(&s)
}

func (e *endpoint) lastTrouble() string {
	if s := e.trouble.Load(); s != nil {
		return *s
	}
	return "not asked yet"
}

// dial connects. A full backlog of a unix socket refuses at once where TCP would wait; so
// we wait for it here.
func (e *endpoint) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	giveUp := time.Now().Add(dialTimeout)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		conn, err := d.DialContext(ctx, e.network, e.address)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(giveUp) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
