package milter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gomilter "github.com/emersion/go-milter"
)

// Options say how a Server works. Only Gateway is needed; the defaults of the others are
//
//	Log                 slog.Default
//	Metrics             not registered
//	MaxConnections      2000
//	ReserveConnections  64
//	MaxRecipients       50,000 a message
//	MaxEnvelopeBytes    16 MiB a message
//	MaxHeaderFields     10,000 a message
//	NegotiateTimeout    10 s
//	IdleTimeout         7,210 s, libmilter's
//	FrameTimeout        10 s
//	WriteTimeout        10 s
//	ProgressInterval    10 s
//	DrainTimeout        30 s
//	DrainGrace          2 s
type Options struct {
	Gateway Gateway
	Log     *slog.Logger
	Metrics *Metrics
	// Panicked is called for each panic that was recovered (sluice_panics_total).
	Panicked func()

	// MaxConnections is how many connections may have mail filtered at once. Past it,
	// ReserveConnections more are served, each of whose messages is answered 451 at MAIL
	// FROM as long as there is no room (local submission: at its end). Further ones wait
	// in the listener's backlog.
	MaxConnections, ReserveConnections int
	// MaxRecipients and MaxEnvelopeBytes bound the recipients; the ones past it get 452.
	MaxRecipients, MaxEnvelopeBytes int
	// MaxHeaderFields bounds the header section; past it the message gets 552.
	MaxHeaderFields int

	// NegotiateTimeout is how long a new connection may take to its first byte, IdleTimeout
	// how long one may say nothing between two frames, FrameTimeout how long a frame may
	// take from its first byte on. The connection is closed then. An MTA is silent as
	// long as its SMTP client is, so IdleTimeout is to be long: mail that comes after it is
	// subject to the MTA's default action.
	NegotiateTimeout, IdleTimeout, FrameTimeout time.Duration
	// WriteTimeout bounds each write.
	WriteTimeout time.Duration
	// ProgressInterval is how often the MTA is told to go on waiting for the verdict.
	ProgressInterval time.Duration
	// DrainTimeout is how long messages under way may take once the server is to stop.
	// Past it they are cancelled, and after DrainGrace more cut off.
	DrainTimeout, DrainGrace time.Duration
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Panicked == nil {
		o.Panicked = func() {}
	}
	for _, n := range []struct {
		value *int
		or    int
	}{
		{&o.MaxConnections, 2000}, {&o.ReserveConnections, 64}, {&o.MaxRecipients, 50_000},
		{&o.MaxEnvelopeBytes, 16 << 20}, {&o.MaxHeaderFields, 10_000},
	} {
		if *n.value <= 0 {
			*n.value = n.or
		}
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&o.NegotiateTimeout, 10 * time.Second}, {&o.IdleTimeout, 7210 * time.Second}, {&o.FrameTimeout, 10 * time.Second},
		{&o.WriteTimeout, 10 * time.Second}, {&o.ProgressInterval, 10 * time.Second},
		{&o.DrainTimeout, 30 * time.Second}, {&o.DrainGrace, 2 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	return o
}

// Server serves MTAs. Make it with New; its methods may be called from any goroutine.
type Server struct {
	o Options
	// filtering counts connections that were admitted, held all that are open.
	filtering, held atomic.Int64
	crowded         atomic.Bool // past MaxConnections: said once
	skipped         sync.Once   // changes that the MTA doesn't permit: said once

	limits atomic.Pointer[Limits] // in place of those in o
	slots  slots

	mu       sync.Mutex // guards sessions and draining
	sessions map[*conn]struct{}
	draining bool
}

// New makes a server.
func New(o Options) (*Server, error) {
	if o.Gateway == nil {
		return nil, errors.New("milter: no gateway")
	}
	s := &Server{o: o.withDefaults(), sessions: make(map[*conn]struct{})}
	s.SetLimits(Limits{MaxConnections: s.o.MaxConnections, DrainTimeout: s.o.DrainTimeout})
	return s, nil
}

// Connections returns how many connections are open.
func (s *Server) Connections() int { return int(s.held.Load()) }

// Serve accepts connections from the listeners, which it closes, until ctx ends or a
// listener is closed. Then it drains: connections without a message under way are
// closed at once, the others once their message has been answered. It returns when
// all are gone: nil after the end of ctx, or the listeners' error. It is called once.
//
// A message that is still under way after DrainTimeout is cancelled; the gateway's
// Finish is to return then, and its reply is still sent.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("milter: nothing to listen on")
	}
	// Sessions outlive ctx, until their message is answered.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	closeAll := func() {
		for _, l := range listeners {
			_ = l.Close() // it is closed then, or was before
		}
	}
	context.AfterFunc(accepting, closeAll)

	var acceptors, sessions sync.WaitGroup
	errs := make([]error, len(listeners))
	s.slots.acceptors(len(listeners))
	for i, l := range listeners {
		acceptors.Go(func() {
			errs[i] = s.accept(accepting, l, func(sock net.Conn) {
				sessions.Go(func() {
					s.serve(base, sock)
					s.slots.giveBack()
				})
			})
			stop()
		})
	}
	acceptors.Wait()
	closeAll() // sockets must be gone from their paths before Serve returns

	s.drain()
	done := make(chan struct{})
	go func() { sessions.Wait(); close(done) }()
	if !within(done, s.Limits().DrainTimeout) {
		s.o.Log.Warn("drain took too long, messages under way are cancelled", "connections", s.Connections())
		cancel()
		if !within(done, s.o.DrainGrace) {
			s.cut()
			<-done
		}
	}
	return errors.Join(errs...)
}

// within waits for done, for at most d.
func within(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// accept hands connections on, one slot each, until ctx ends. Errors of Accept, such
// as no descriptor being left, are waited out.
func (s *Server) accept(ctx context.Context, l net.Listener, start func(net.Conn)) error {
	var pause time.Duration
	for {
		if !s.slots.take(ctx) {
			return nil
		}
		sock, err := l.Accept()
		if err == nil {
			pause = 0
			start(sock)
			continue
		}
		s.slots.giveBack()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("milter: %s: %w", l.Addr(), err)
		}
		s.o.Metrics.acceptErrors.Inc()
		if pause == 0 {
			s.o.Log.Warn("can't accept connections, trying on", "listener", l.Addr().String(), "err", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// serve runs one session to its end.
func (s *Server) serve(base context.Context, sock net.Conn) {
	ctx, cancel := context.WithCancel(base)
	defer cancel()
	id := strings.ToLower(rand.Text()[:12])
	log := s.o.Log.With("session_id", id)
	c := newConn(sock, &s.o, log)
	admitted := s.admit()
	h := &handler{c: c, o: &s.o, id: id, ctx: ctx, log: log,
		admit: func() bool {
			admitted = admitted || s.admit()
			return admitted
		},
		skipped: s.saySkipped,
	}
	c.closing = h.end
	s.add(c)
	// One library server a connection, for the same handler is to serve all of it. Serve
	// starts the session's goroutine and returns at the second Accept.
	lib := &gomilter.Server{
		NewMilter: func() gomilter.Milter { return h },
		Actions:   wantedActions,
		Protocol:  wantedSteps,
	}
	_ = lib.Serve(&oneShot{c: c}) // always oneShot's error
	<-c.ended
	s.remove(c)
	if admitted {
		s.filtering.Add(-1)
	}
	s.ended(log, h)
}

// ended counts and logs how a session ended, if there is anything to say.
func (s *Server) ended(log *slog.Logger, h *handler) {
	cause := h.c.cause
	var malformed *frameError
	switch {
	case errors.As(cause, &malformed):
		s.o.Metrics.malformed.WithLabelValues(malformed.reason).Inc()
		log.Warn("session closed", "client_address", h.client.Addr, "err", cause)
	case errors.Is(cause, errQuit), errors.Is(cause, errDraining), errors.Is(cause, errClosed):
		log.Debug("session ended", "err", cause)
	default:
		log.Info("session ended", "err", cause)
	}
}

// admit takes one of MaxConnections, if there is one.
func (s *Server) admit() bool {
	// A reserve of its own for the daemons that hand back what we re-injected
	// ({daemon_name}, known at MAIL) belongs here, once there is re-injection.
	if s.filtering.Add(1) <= int64(s.Limits().MaxConnections) {
		s.crowded.Store(false)
		return true
	}
	s.filtering.Add(-1)
	if !s.crowded.Swap(true) {
		s.o.Log.Warn("too many connections, further mail gets 451", "connections", s.Connections())
	}
	return false
}

func (s *Server) saySkipped(queueID string, n int) {
	s.skipped.Do(func() {
		s.o.Log.Error("the MTA doesn't permit changes of header fields, so mail lacks ours and may bear forged ones", "queue_id", queueID, "changes", n)
	})
}

func (s *Server) add(c *conn) {
	s.held.Add(1)
	s.o.Metrics.connections.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[c] = struct{}{}
	if s.draining {
		c.drain()
	}
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.sessions, c)
	s.mu.Unlock()
	s.held.Add(-1)
	s.o.Metrics.connections.Dec()
}

// drain lets idle sessions end, and the others after their message.
func (s *Server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for c := range s.sessions {
		c.drain()
	}
}

// cut closes the sockets of all sessions.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		_ = c.Conn.Close() // the session sees it
	}
}

// oneShot is a listener that has one connection to give.
type oneShot struct{ c *conn }

func (o *oneShot) Accept() (net.Conn, error) {
	if o.c == nil {
		return nil, io.EOF
	}
	c := o.c
	o.c = nil
	return c, nil
}

func (o *oneShot) Close() error   { return nil }
func (o *oneShot) Addr() net.Addr { return nil }
