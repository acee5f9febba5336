package milter

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"
)

// Ways in which a session ends that are nobody's fault.
var (
	errClosed   = errors.New("connection closed by the MTA")
	errQuit     = errors.New("quit")
	errDraining = errors.New("daemon is shutting down")
	errIdle     = errors.New("idle for too long")
	errBroken   = errors.New("session broke off")
)

// frameError is a frame that broke the protocol. reason is one of malformedReasons.
type frameError struct{ reason string }

func (e *frameError) Error() string { return "malformed frame: " + e.reason }

// The reasons of a frameError, which are label values.
const (
	badLength  = "length"  // zero, or over maxFrame
	badEnd     = "end"     // the connection ended inside the frame
	badStall   = "stall"   // begun, but not complete in time
	badForm    = "form"    // not of its code's form
	badOrder   = "order"   // before the negotiation, or a second negotiation
	badCode    = "code"    // a command that isn't known
	badMacros  = "macros"  // macros without stage, or too many
	badVersion = "version" // an MTA that speaks version 1
)

var malformedReasons = [...]string{badLength, badEnd, badStall, badForm, badOrder, badCode, badMacros, badVersion}

// conn is the connection that the library sees. Read gives it one frame for each command
// of the MTA, made here; Write takes its replies and lets through those that are due.
// Neither ever returns an error but io.EOF, so that the library has nothing to log.
//
// Everything but drain belongs to the session's goroutine; during Finish the progress ticker
// writes and the watcher peeks, while that goroutine waits for both.
type conn struct {
	net.Conn // the MTA's socket
	r        *bufio.Reader
	o        *Options
	log      *slog.Logger

	head        [4]byte
	buf         []byte // the frame in hand
	toLibrary   []byte // what the library has yet to read
	fromLibrary []byte // the part of a frame that it has written
	out         []byte // frames being put together, reused

	terms      terms
	negotiated bool
	cmd        command // the command in hand
	due        bool    // cmd awaits its reply
	rinse      bool    // the library's next ABORT is ours, not the MTA's
	fields     int     // header fields since the last rinse
	macros     macroStore
	cause      error // why the session ends

	// closing is called once, when the library is done with the connection; ended is
	// closed after it.
	closing func(cause error)
	ended   chan struct{}
	once    sync.Once

	mu       sync.Mutex // guards what follows, and the read deadline while waiting
	waiting  bool       // between two frames
	open     bool       // a message is under way
	draining bool
}

func newConn(sock net.Conn, o *Options, log *slog.Logger) *conn {
	return &conn{Conn: sock, r: bufio.NewReaderSize(sock, 4096), o: o, log: log, ended: make(chan struct{})}
}

// Read implements net.Conn for the library.
func (c *conn) Read(p []byte) (int, error) {
	for len(c.toLibrary) == 0 {
		if err := c.next(); err != nil {
			c.fail(err)
			return 0, io.EOF
		}
	}
	n := copy(p, c.toLibrary)
	c.toLibrary = c.toLibrary[n:]
	return n, nil
}

// Write implements net.Conn for the library: it takes replies, whole or in pieces.
func (c *conn) Write(p []byte) (int, error) {
	c.fromLibrary = append(c.fromLibrary, p...)
	for len(c.fromLibrary) >= 5 {
		n := int(binary.BigEndian.Uint32(c.fromLibrary)) + 4
		if len(c.fromLibrary) < n {
			break
		}
		c.reply(c.fromLibrary[:n])
		c.fromLibrary = append(c.fromLibrary[:0], c.fromLibrary[n:]...)
	}
	return len(p), nil
}

// Close implements net.Conn for the library, which calls it when the session is over.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.fail(errBroken)
		c.closing(c.cause)
		err = c.Conn.Close()
		close(c.ended)
	})
	return err
}

// fail notes why the session ends; the first cause counts.
func (c *conn) fail(err error) {
	if c.cause == nil {
		c.cause = err
	}
}

// next handles one frame of the MTA: itself, or by passing it on to the library.
func (c *conn) next() error {
	if c.cause != nil {
		return c.cause
	}
	if c.due { // a defect of ours: the MTA must neither wait for ever nor take it for a yes
		c.log.Error("command got no reply", "command", string(rune(c.cmd.code)))
		c.out = appendFrame[string](c.out[:0], byte(gomilter.ActTempFail))
		c.answer(c.out)
		if c.cause != nil {
			return c.cause
		}
	}
	code, data, err := c.readFrame()
	if err != nil {
		return err
	}
	return c.interpret(code, data)
}

func (c *conn) interpret(code gomilter.Code, data []byte) error {
	switch code {
	case gomilter.CodeQuit:
		return errQuit
	case gomilter.CodeOptNeg:
		return c.negotiate(data)
	}
	if !c.negotiated {
		return &frameError{badOrder}
	}
	var pass string
	switch code {
	case gomilter.CodeMacro:
		if !c.macros.set(data) {
			return &frameError{badMacros}
		}
		return nil
	case codeUnknown: // an SMTP command that the MTA doesn't know: not our business
		c.cmd, c.due = command{code: code}, c.terms.replyDue(code)
		if c.due {
			c.out = appendFrame[string](c.out[:0], byte(gomilter.ActContinue))
			c.answer(c.out)
		}
		return nil
	case gomilter.CodeQuitNewConn, gomilter.CodeAbort:
		pass = passAbort
	case gomilter.CodeConn:
		pass = passConnect
	case gomilter.CodeHelo:
		pass = passHelo
	case gomilter.CodeMail:
		pass, c.rinse, c.fields = passAbort+passMail, true, 0
	case gomilter.CodeRcpt:
		pass = passRcpt
	case gomilter.CodeData:
		pass = passData
	case gomilter.CodeHeader:
		pass = passHeader
		if c.fields++; c.fields%rinseEvery == 0 {
			pass, c.rinse = passAbort+passHeader, true
		}
	case gomilter.CodeEOH:
		pass = passEOH
	case gomilter.CodeBody:
		pass = passBody
	case gomilter.CodeEOB:
		pass = passEOM
	default:
		return &frameError{badCode}
	}
	cmd, ok := parseCommand(code, data)
	if !ok {
		return &frameError{badForm}
	}
	c.macros.begin(code)
	c.cmd, c.due = cmd, c.terms.replyDue(code)
	c.toLibrary = append(c.toLibrary[:0], pass...)
	return nil
}

// The frames that the library is given: just enough for it to make the callback. ABORT
// before MAIL, and now and then between header fields, empties its map of fields, which
// otherwise would grow and pass from one message to the next.
const (
	passAbort   = "\x00\x00\x00\x01A"
	passConnect = "\x00\x00\x00\x05C-\x00U\x00"
	passHelo    = "\x00\x00\x00\x03H-\x00"
	passMail    = "\x00\x00\x00\x03M-\x00"
	passRcpt    = "\x00\x00\x00\x03R-\x00"
	passData    = "\x00\x00\x00\x01T"
	passHeader  = "\x00\x00\x00\x04L-\x00\x00"
	passEOH     = "\x00\x00\x00\x01N"
	passBody    = "\x00\x00\x00\x01B"
	passEOM     = "\x00\x00\x00\x01E"
	passOffer   = "\x00\x00\x00\x01O"

	rinseEvery = 1000
)

// negotiate answers the MTA's offer with what of it we want.
func (c *conn) negotiate(data []byte) error {
	if c.negotiated {
		return &frameError{badOrder}
	}
	offer, ok := parseOffer(data)
	switch {
	case !ok:
		return &frameError{badForm}
	case offer.version < minVersion:
		return &frameError{badVersion}
	}
	c.terms, c.negotiated = agree(offer), true
	c.cmd, c.due = command{code: gomilter.CodeOptNeg}, true
	c.toLibrary = append(c.toLibrary[:0], passOffer...)
	return nil
}

// reply takes a frame that the library wrote.
func (c *conn) reply(frame []byte) {
	switch {
	case c.cmd.code == gomilter.CodeOptNeg && c.due:
		c.out = appendAnswer(c.out[:0], c.terms) // in place of the library's, which knows no offer
		c.answer(c.out)
	case c.due:
		c.answer(frame)
	case frame[4] != byte(gomilter.ActContinue):
		c.log.Error("reply where none is due was dropped", "command", string(rune(c.cmd.code)), "reply", string(rune(frame[4])))
	}
}

// answer sends the frames that end with the reply to the command in hand.
func (c *conn) answer(frames []byte) error {
	c.due = false
	err := c.send(frames)
	if err != nil {
		c.fail(err)
	}
	return err
}

// send writes frames to the MTA, with a deadline for each 64 KiB.
func (c *conn) send(frames []byte) error {
	for len(frames) > 0 {
		n := min(len(frames), 64<<10)
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.o.WriteTimeout)); err != nil {
			return err
		}
		if _, err := c.Conn.Write(frames[:n]); err != nil {
			return err
		}
		frames = frames[n:]
	}
	return nil
}

// readFrame waits for a frame and reads it. The data are valid until the next call.
func (c *conn) readFrame() (gomilter.Code, []byte, error) {
	if err := c.await(); err != nil {
		return 0, nil, err
	}
	timed := c.r.Buffered() < len(c.head)
	var deadline time.Time
	if timed {
		deadline = time.Now().Add(c.o.FrameTimeout)
		c.Conn.SetReadDeadline(deadline) // an error shows in the read
	}
	if _, err := io.ReadFull(c.r, c.head[:]); err != nil {
		return 0, nil, inFrame(err)
	}
	length := binary.BigEndian.Uint32(c.head[:])
	if length == 0 || length > maxFrame {
		return 0, nil, &frameError{badLength}
	}
	if !timed && c.r.Buffered() < int(length) {
		c.Conn.SetReadDeadline(time.Now().Add(c.o.FrameTimeout)) // as above
	}
	// The announced length is trusted only as far as bytes have come.
	c.buf = c.buf[:0]
	for rest := int(length); rest > 0; {
		step := min(rest, max(4096, len(c.buf)))
		have := len(c.buf)
		if cap(c.buf) < have+step {
			grown := make([]byte, have, have+step)
			copy(grown, c.buf)
			c.buf = grown
		}
		c.buf = c.buf[:have+step]
		if _, err := io.ReadFull(c.r, c.buf[have:]); err != nil {
			return 0, nil, inFrame(err)
		}
		rest -= step
	}
	return gomilter.Code(c.buf[0]), c.buf[1:], nil
}

// inFrame says what an error inside a frame means.
func inFrame(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &frameError{badStall}
	}
	return &frameError{badEnd}
}

// await waits for the first byte of a frame.
func (c *conn) await() error {
	if c.r.Buffered() > 0 {
		return nil
	}
	timeout := c.o.IdleTimeout
	if !c.negotiated {
		timeout = c.o.NegotiateTimeout
	}
	c.mu.Lock()
	if c.draining && !c.open {
		c.mu.Unlock()
		return errDraining
	}
	if !c.open && cap(c.buf) > 4096 {
		c.buf = nil // an idle connection is to be small
	}
	c.waiting = true
	c.Conn.SetReadDeadline(time.Now().Add(timeout)) // an error shows in the read
	c.mu.Unlock()

	_, err := c.r.Peek(1)

	c.mu.Lock()
	c.waiting = false
	draining := c.draining && !c.open
	c.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case draining:
		return errDraining
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errIdle
	case errors.Is(err, io.EOF):
		return errClosed
	}
	return err
}

// setOpen says whether a message is under way, so that a drain waits for it.
func (c *conn) setOpen(open bool) {
	c.mu.Lock()
	c.open = open
	c.mu.Unlock()
}

// drain makes the session end as soon as no message is under way. It may be called from
// any goroutine.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.waiting && !c.open {
		c.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes await; an error means that it is awake
	}
}

// attendAfter is how long Finish may take before the MTA is looked after. Most messages
// are answered sooner and pay nothing for it.
const attendAfter = 100 * time.Millisecond

// attend calls f. If f takes long it keeps the MTA waiting with progress frames and watches
// the socket: gone is called as soon as the MTA is seen to be gone, and attend then returns
// why. No goroutine is left when it returns.
func (c *conn) attend(gone func(), f func()) error {
	var (
		mu      sync.Mutex // guards over, and the read deadline
		over    bool
		lost    error
		stop    = make(chan struct{})
		stopped = make(chan struct{})
	)
	timer := time.AfterFunc(min(attendAfter, c.o.ProgressInterval), func() {
		defer close(stopped)
		mu.Lock()
		if !over {
			c.Conn.SetReadDeadline(time.Time{}) // an error shows in the read
		}
		mu.Unlock()
		lost = c.lookAfter(stop, gone)
	})
	func() {
		defer func() {
			if timer.Stop() {
				return
			}
			mu.Lock()
			over = true
			c.Conn.SetReadDeadline(time.Unix(1, 0)) // ends the watch
			mu.Unlock()
			close(stop)
			<-stopped
		}()
		f()
	}()
	return lost
}

// lookAfter watches the MTA and tells it to wait, until stop is closed.
func (c *conn) lookAfter(stop <-chan struct{}, gone func()) error {
	var watched, ticked error
	var wg sync.WaitGroup
	wg.Go(func() {
		if watched = c.watch(stop); watched != nil {
			gone()
		}
	})
	ticker := time.NewTicker(c.o.ProgressInterval)
	defer ticker.Stop()
	for waiting := true; waiting; {
		select {
		case <-stop:
			waiting = false
		case <-ticker.C:
			if ticked = c.send([]byte{0, 0, 0, 1, codeProgress}); ticked != nil {
				gone()
				waiting = false
			}
		}
	}
	wg.Wait()
	return errors.Join(watched, ticked)
}

// watch returns an error as soon as the MTA is gone, nil once stop is closed. What the MTA
// sends meanwhile stays in the buffer.
func (c *conn) watch(stop <-chan struct{}) error {
	for {
		if c.r.Buffered() == c.r.Size() {
			return nil // an MTA that sends on is there
		}
		_, err := c.r.Peek(c.r.Buffered() + 1)
		select {
		case <-stop:
			return nil
		default:
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
