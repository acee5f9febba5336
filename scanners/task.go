package scanners

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"sluice/internal/mail"
)

// task is one scanner at work on one message.
type task struct {
	w    *worker
	pool *Pool
	// ctx ends with the run or when the scanner's time is over, whose cause is then
	// context.DeadlineExceeded.
	ctx    context.Context
	cancel context.CancelCauseFunc
	armed  atomic.Int64 // when arm was called, UnixNano; 0: not yet
	timer  *time.Timer  // only arm and settle use it

	done    chan struct{} // closed when outcome is there
	outcome outcome
}

// outcome is what became of a call.
type outcome struct {
	result       Result
	err          error
	queued, took time.Duration
}

var errNoWorker = &Error{ReasonLimit, errors.New("no worker became free in time")}

// arm starts the scanner's time: the message is complete.
func (t *task) arm() {
	t.armed.Store(time.Now().UnixNano())
	t.timer = time.AfterFunc(t.w.Timeout, func() { t.cancel(context.DeadlineExceeded) })
}

// wait returns false if the scanner did not come back.
func (t *task) wait() bool {
	select {
	case <-t.done:
		return true
	case <-t.ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-t.done:
		return true
	case <-late.C:
		return false
	}
}

// run makes the outcome: early if it can be, else once the message is complete.
func (t *task) run(in *Input) {
	if s, ok := t.w.Scanner.(Early); ok && t.w.Stage == 1 && !isDone(in.Message) && t.runEarly(s, in) {
		return
	}
	select {
	case <-in.Message.Done():
	case <-t.ctx.Done():
		t.outcome.err = context.Cause(t.ctx)
		return
	}
	begin := time.Now()
	if t.w.slots != nil {
		if err := t.w.slots.Acquire(t.ctx, 1); err != nil {
			t.outcome.queued = time.Since(begin)
			t.outcome.err = context.Cause(t.ctx)
			if errors.Is(t.outcome.err, context.DeadlineExceeded) {
				t.outcome.err = errNoWorker
			}
			t.observe()
			return
		}
		defer t.w.slots.Release(1)
	}
	started := time.Now()
	t.outcome.queued = started.Sub(begin)
	ctx, cancel := context.WithTimeout(t.ctx, t.w.Timeout-t.outcome.queued)
	defer cancel()
	t.outcome.result, t.outcome.err = t.call(ctx, in, t.w.Scanner.Scan)
	t.outcome.took = time.Since(started)
	t.observe()
}

// runEarly reports whether there is an outcome.
func (t *task) runEarly(s Early, in *Input) bool {
	if t.w.slots != nil {
		if t.w.early == nil || !t.w.early.TryAcquire(1) {
			return false
		}
		defer t.w.early.Release(1)
		if !t.w.slots.TryAcquire(1) {
			return false
		}
		defer t.w.slots.Release(1)
	}
	started := time.Now()
	t.outcome.result, t.outcome.err = t.call(t.ctx, in, s.ScanEarly)
	if errors.Is(t.outcome.err, ErrLater) {
		t.outcome = outcome{}
		return false
	}
	now := time.Now()
	if at := t.armed.Load(); at > 0 {
		t.outcome.took = now.Sub(maxTime(started, time.Unix(0, at)))
	}
	t.observe()
	return true
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func isDone(m *mail.Message) bool {
	select {
	case <-m.Done():
		return true
	default:
		return false
	}
}

// observe fills the histograms of a scanner (the reader has none).
func (t *task) observe() {
	if t.w.metrics.wait == nil {
		return
	}
	t.w.metrics.wait.Observe(t.outcome.queued.Seconds())
	t.w.metrics.duration.Observe(t.outcome.took.Seconds())
}

// harmless tells of a panic's value what can't bear a message's text: the runtime's
// own errors as they are, of others the type.
func harmless(v any) string {
	if e, ok := v.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("%T", v)
}

// call is the border: a panic becomes an error.
func (t *task) call(ctx context.Context, in *Input, scan func(context.Context, *Input) (Result, error)) (res Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			t.pool.panicked("scanner_" + t.w.name)
			err = &Error{ReasonPanic, fmt.Errorf("panic: %s", harmless(v))}
			res = Result{}
			t.pool.logPanic(t.w.name, in.Envelope.ID(), err, debug.Stack())
		}
	}()
	res, err = scan(ctx, in)
	if err != nil && ctx.Err() != nil && t.ctx.Err() == nil {
		// The child's deadline came a moment before ours.
		return res, &Error{ReasonTimeout, err}
	}
	return res, err
}
