package clamav

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/mail"
	"sluice/scanners"
)

// errStalled: the message stopped arriving.
var errStalled = errors.New("clamav: the message stopped arriving")

// stream makes one attempt with a message that still arrives. Its end starts the
// time that clamd has.
func (s *Scanner) stream(ctx context.Context, e *endpoint, m *mail.Message) (scanners.Result, error) {
	b := s.buffers.Get().(*buffer)
	defer s.buffers.Put(b)
	large := int64(0)
	a, err := e.guard(func() (answer, error) {
		w, err := e.open(ctx)
		if err != nil {
			return answer{}, err
		}
		defer w.close()
		r := newPatient(ctx, m, s.opts.stall)
		defer r.close()
		n := copy(b[:], cmdStream)
		for sent := int64(0); ; {
			part, err := r.Read(b[n+4 : n+4+chunk])
			if sent += int64(part); sent > s.opts.MaxSize {
				large = sent
				return answer{kind: answerTooLarge}, nil
			}
			if part > 0 {
				binary.BigEndian.PutUint32(b[n:], uint32(part))
				n += 4 + part
			}
			ended := errors.Is(err, io.EOF) || err == nil && isDone(m) && sent == m.Size()
			switch {
			case ended:
				n += copy(b[n:], "\x00\x00\x00\x00")
				if peek(w.conn) {
					return w.afterWriteError(e, io.ErrShortWrite, b[:])
				}
			case err != nil:
				return answer{}, ours(err)
			}
			w.setDeadline(time.Now().Add(s.opts.Timeout))
			if n > 0 {
				if _, err := w.conn.Write(b[:n]); err != nil {
					return w.afterWriteError(e, err, b[:])
				}
			}
			if ended {
				return w.reply(e, b[:])
			}
			n = 0
		}
	})
	if err != nil {
		return scanners.Result{}, err
	}
	if large > 0 {
		return tooLarge(large, s.opts.MaxSize), nil
	}
	return result(a, e, s.opts.MaxSize), nil
}

func isDone(m *mail.Message) bool {
	select {
	case <-m.Done():
		return true
	default:
		return false
	}
}

// patient reads a message that arrives, and gives up when nothing came for a while.
type patient struct {
	r      io.Reader
	ctx    context.Context
	cancel context.CancelCauseFunc
	after  time.Duration
	timer  *time.Timer
}

func newPatient(ctx context.Context, m *mail.Message, after time.Duration) *patient {
	p := &patient{after: after}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.r = m.Reader(p.ctx, 0)
	p.timer = time.AfterFunc(after, func() { p.cancel(errStalled) })
	return p
}

func (p *patient) close() {
	p.timer.Stop()
	p.cancel(nil)
}

// Read reads what has arrived. The clock runs only while it waits.
func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(p.after)
	n, err := p.r.Read(b)
	p.timer.Stop()
	if err != nil && errors.Is(context.Cause(p.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

// peek reports whether there is something to read, without waiting for it.
func peek(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	there := false
	// An error shows up again at the write that follows.
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		there = err == nil && n > 0
	})
	return there
}
