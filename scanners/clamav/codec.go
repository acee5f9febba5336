package clamav

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/mail"
	"sluice/internal/verdict"
	"sluice/scanners"
)

const (
	// chunk is the size in which messages are sent.
	chunk = 64 << 10
	// lastWords is how long we wait for a reply after clamd has stopped reading.
	lastWords = 2 * time.Second

	cmdStream = "zINSTREAM\x00"
	cmdFile   = "zFILDES\x00"
)

// buffer is room for one command with a chunk and the end of the stream, and for a
// reply afterwards.
type buffer [len(cmdStream) + 4 + chunk + 4]byte

var past = time.Unix(1, 0)

// wire is one connection to clamd, for one command. When its context ends, so
// does every read and write.
type wire struct {
	ctx  context.Context
	conn net.Conn
	stop func() bool
}

// open connects; the caller closes.
func (e *endpoint) open(ctx context.Context) (*wire, error) {
	conn, err := e.dial(ctx)
	if err != nil {
		return nil, e.broke(ctx, "connect", err, false)
	}
	return &wire{ctx: ctx, conn: conn,
		stop: context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })}, nil // fails only on a closed connection
}

func (w *wire) close() {
	w.stop()
	_ = w.conn.Close() // nothing that counts is left to be written
}

// setDeadline never moves the deadline of an ended context.
func (w *wire) setDeadline(t time.Time) {
	_ = w.conn.SetDeadline(t) // fails only on a closed connection
	if w.ctx.Err() != nil {
		_ = w.conn.SetDeadline(past)
	}
}

// broke makes a fault of a failed call on a connection.
func (e *endpoint) broke(ctx context.Context, doing string, err error, connected bool) *fault {
	f := &fault{reason: scanners.ReasonUnavailable, broken: connected, counts: true,
		err: fmt.Errorf("%s: %s: %w", e.name, doing, err)}
	var timeout net.Error
	switch cause := context.Cause(ctx); {
	case cause != nil && !errors.Is(cause, context.DeadlineExceeded):
		f.reason, f.counts, f.broken = scanners.ReasonCanceled, false, false
	case cause != nil || errors.As(err, &timeout) && timeout.Timeout():
		f.reason, f.broken = scanners.ReasonTimeout, false
	}
	return f
}

// definite turns what isn't a definite answer into a fault.
func (e *endpoint) definite(a answer) (answer, error) {
	switch a.kind {
	case answerClean, answerFound, answerTooLarge:
		return a, nil
	case answerRefused:
		return a, &fault{reason: scanners.ReasonUnavailable, err: fmt.Errorf("%s: clamd says %q", e.name, verdict.Printable(a.text, 120))}
	}
	return a, &fault{reason: scanners.ReasonProtocol, counts: true, err: fmt.Errorf("%s: not a reply: %q", e.name, a.text)}
}

// reply reads one reply into b.
func (w *wire) reply(e *endpoint, b []byte) (answer, error) {
	b = b[:min(len(b), maxReply)]
	n := 0
	for n < len(b) {
		m, err := w.conn.Read(b[n:])
		n += m
		if bytes.ContainsAny(b[n-m:n], "\x00\n") {
			break
		}
		if err == nil {
			continue
		}
		a := parseReply(b[:n])
		switch {
		case a.kind == answerFound:
			return a, nil
		case errors.Is(err, io.EOF) && n == 0:
			return answer{}, e.broke(w.ctx, "closed without a reply", io.ErrUnexpectedEOF, true)
		case errors.Is(err, io.EOF):
			return e.definite(a)
		}
		return answer{}, e.broke(w.ctx, "read reply", err, true)
	}
	return e.definite(parseReply(b[:n]))
}

// afterWriteError reads what clamd may have said before it stopped reading. A
// clean answer to half a message is a lie.
func (w *wire) afterWriteError(e *endpoint, werr error, b []byte) (answer, error) {
	if w.ctx.Err() == nil {
		w.setDeadline(time.Now().Add(lastWords))
		a, err := w.reply(e, b)
		switch {
		case err == nil && a.kind != answerClean:
			return a, nil
		case err == nil:
			return answer{}, e.premature()
		case a.kind == answerRefused:
			return a, err
		}
	}
	return answer{}, e.broke(w.ctx, "send", werr, true)
}

func (e *endpoint) premature() *fault {
	return &fault{reason: scanners.ReasonProtocol, counts: true, err: fmt.Errorf("%s: a reply before the end of the message", e.name)}
}

// scanFile hands the file over (FILDES, unix sockets only).
func (e *endpoint) scanFile(ctx context.Context, f *os.File, b *buffer) (answer, error) {
	w, err := e.open(ctx)
	if err != nil {
		return answer{}, err
	}
	defer w.close()
	conn, ok := w.conn.(*net.UnixConn)
	if !ok {
		return answer{}, &fault{reason: scanners.ReasonInternal, err: fmt.Errorf("%s: not a unix socket", e.name)}
	}
	// The descriptor travels with one byte of data after the command (clamd(8)).
	if _, _, err := conn.WriteMsgUnix([]byte(cmdFile+"\x00"), unix.UnixRights(int(f.Fd())), nil); err != nil {
		return w.afterWriteError(e, err, b[:])
	}
	return w.reply(e, b[:])
}

// scanStream sends the whole of a complete message (INSTREAM).
func (e *endpoint) scanStream(ctx context.Context, r io.Reader, size int64, b *buffer) (answer, error) {
	w, err := e.open(ctx)
	if err != nil {
		return answer{}, err
	}
	defer w.close()
	n := copy(b[:], cmdStream)
	for left := size; ; {
		part := int(min(left, chunk))
		if part > 0 {
			binary.BigEndian.PutUint32(b[n:], uint32(part))
			if _, err := io.ReadFull(r, b[n+4:n+4+part]); err != nil {
				return answer{}, ours(err)
			}
			n += 4 + part
		}
		left -= int64(part)
		if left == 0 {
			n += copy(b[n:], "\x00\x00\x00\x00")
			if peek(w.conn) {
				return w.afterWriteError(e, io.ErrShortWrite, b[:])
			}
		}
		if _, err := w.conn.Write(b[:n]); err != nil {
			return w.afterWriteError(e, err, b[:])
		}
		if left == 0 {
			return w.reply(e, b[:])
		}
		n = 0
	}
}

// ours is an error in reading the message: no endpoint is to blame.
func ours(err error) error { return fmt.Errorf("clamav: read message: %w", err) }

// ask makes one attempt with a complete message.
func (s *Scanner) ask(ctx context.Context, e *endpoint, m *mail.Message) (scanners.Result, error) {
	b := s.buffers.Get().(*buffer)
	defer s.buffers.Put(b)
	a, err := e.guard(func() (answer, error) {
		if e.network != "unix" {
			return e.scanStream(ctx, m.Reader(ctx, 0), m.Size(), b)
		}
		f, err := m.HandOver()
		if err != nil {
			return answer{}, ours(err)
		}
		defer f.Close()
		return e.scanFile(ctx, f, b)
	})
	if err != nil {
		return scanners.Result{}, err
	}
	return result(a, e, s.opts.MaxSize), nil
}
