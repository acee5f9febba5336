package testkit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Delivery is one message that a Sink accepted.
type Delivery struct {
	// Helo is the client's name, Sender and Recipients the paths without angle
	// brackets, SenderArgs the ESMTP arguments of MAIL as they were written.
	Helo       string
	Sender     string
	SenderArgs []string
	Recipients []string
	// Data is the message as it was sent, dots unstuffed, line ends as they came;
	// of a message longer than SinkOptions.KeepBytes only its beginning.
	Data []byte
	// Size is the whole message's length in bytes.
	Size     int64
	Received time.Time
}

// Header returns the header section with the empty line that ends it left out.
func (d Delivery) Header() string {
	head, _, _ := bytes.Cut(d.Data, []byte("\r\n\r\n"))
	return string(head) + "\r\n"
}

// Body returns what follows the header section's empty line.
func (d Delivery) Body() []byte {
	_, body, _ := bytes.Cut(d.Data, []byte("\r\n\r\n"))
	return body
}

// Fields returns the values of all header fields of that name (in any case), in
// order, unfolded as RFC 5322 §2.2.3 says, without surrounding blanks.
func (d Delivery) Fields(name string) []string { return headerFields(d.Header(), name) }

func headerFields(header, name string) []string {
	var values []string
	unfolded := strings.NewReplacer("\r\n ", " ", "\r\n\t", "\t", "\n ", " ", "\n\t", "\t").Replace(header)
	for line := range strings.SplitSeq(unfolded, "\n") {
		n, v, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(strings.TrimRight(n, " \t"), name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// SinkOptions say how a Sink behaves.
type SinkOptions struct {
	// KeepBytes is how much of each message is kept; 0 means 64 MiB.
	KeepBytes int64
	// Log, if set, is told each delivery instead of keeping it; it is called
	// before the client's 250, by several goroutines at once.
	Log func(Delivery)
}

// Sink is an SMTP server that takes all mail and keeps it in memory. It offers
// PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN and ENHANCEDSTATUSCODES. Its methods
// are safe for concurrent use.
type Sink struct {
	options  SinkOptions
	listener net.Listener
	sessions sync.WaitGroup

	mu         sync.Mutex // guards all below
	conns      map[net.Conn]bool
	deliveries []Delivery
	refusals   map[string]string // by recipient in lower case
	changed    chan struct{}     // closed and renewed at each delivery
}

// StartSink starts a sink on a free port of 127.0.0.1 and stops it at the end of
// the test.
func StartSink(t TB, options SinkOptions) *Sink {
	t.Helper()
	s, err := RunSink(options)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

// RunSink is StartSink for programs, which call Stop.
func RunSink(options SinkOptions) (*Sink, error) {
	if options.KeepBytes == 0 {
		options.KeepBytes = 64 << 20
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &Sink{options: options, listener: l, conns: map[net.Conn]bool{}, refusals: map[string]string{}, changed: make(chan struct{})}
	s.sessions.Go(s.accept)
	return s, nil
}

// Addr returns the address it listens on, 127.0.0.1:port.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Port returns the port of Addr.
func (s *Sink) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Stop closes the listener and all sessions and waits for them.
func (s *Sink) Stop() {
	_ = s.listener.Close() // a second Stop does no harm
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.sessions.Wait()
}

// Refuse makes the sink answer RCPT for that recipient (in any case) with reply,
// a code and a text such as "451 4.3.0 Come again"; "" makes it accept again.
func (s *Sink) Refuse(recipient, reply string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reply == "" {
		delete(s.refusals, strings.ToLower(recipient))
		return
	}
	s.refusals[strings.ToLower(recipient)] = reply
}

// Deliveries returns what has arrived so far, in order.
func (s *Sink) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.deliveries)
}

// Reset forgets what has arrived.
func (s *Sink) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries = nil
}

// WaitFor waits until at least n messages have arrived since the start or the
// last Reset and returns them all; with the error of ctx if it ended before.
func (s *Sink) WaitFor(ctx context.Context, n int) ([]Delivery, error) {
	var got []Delivery
	err := s.wait(ctx, func(ds []Delivery) bool {
		got = slices.Clone(ds)
		return len(ds) >= n
	})
	if err != nil {
		return got, fmt.Errorf("sink: %d of %d messages arrived: %w", len(got), n, err)
	}
	return got, nil
}

// WaitForSubject waits for a message whose Subject field contains text.
func (s *Sink) WaitForSubject(ctx context.Context, text string) (Delivery, error) {
	var got Delivery
	err := s.wait(ctx, func(ds []Delivery) bool {
		for _, d := range ds {
			if slices.ContainsFunc(d.Fields("Subject"), func(v string) bool { return strings.Contains(v, text) }) {
				got = d
				return true
			}
		}
		return false
	})
	if err != nil {
		return got, fmt.Errorf("sink: no message with subject %q: %w", text, err)
	}
	return got, nil
}

func (s *Sink) wait(ctx context.Context, enough func([]Delivery) bool) error {
	for {
		s.mu.Lock()
		ok, changed := enough(s.deliveries), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // Stop closed it
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.sessions.Go(func() {
			(&sinkSession{sink: s, conn: c, r: bufio.NewReaderSize(c, 32<<10), w: bufio.NewWriter(c)}).serve()
			_ = c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Sink) refusal(recipient string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusals[strings.ToLower(recipient)]
}

func (s *Sink) keep(d Delivery) {
	if s.options.Log != nil {
		s.options.Log(d)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries = append(s.deliveries, d)
	close(s.changed)
	s.changed = make(chan struct{})
}

// sinkSession is one SMTP session.
type sinkSession struct {
	sink *Sink
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	helo string
	mail *Delivery // open transaction, or nil
}

// serve speaks until the client leaves, a line is too long or nothing comes for
// five minutes.
func (c *sinkSession) serve() {
	c.reply("220 sink.example ESMTP")
	for {
		if c.r.Buffered() == 0 && c.w.Flush() != nil {
			return
		}
		_ = c.conn.SetDeadline(time.Now().Add(5 * time.Minute)) // a failure shows at the next read
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return
		}
		if !c.command(strings.TrimRight(string(line), "\r\n")) {
			_ = c.w.Flush()
			return
		}
	}
}

func (c *sinkSession) reply(lines ...string) {
	for _, l := range lines {
		_, _ = c.w.WriteString(l + "\r\n") // shows at Flush
	}
}

// command answers one command and reports whether the session goes on.
func (c *sinkSession) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		c.helo, c.mail = rest, nil
		c.reply("250-sink.example", "250-PIPELINING", "250-SIZE", "250-8BITMIME", "250-SMTPUTF8", "250-DSN", "250 ENHANCEDSTATUSCODES")
	case "HELO":
		c.helo, c.mail = rest, nil
		c.reply("250 sink.example")
	case "MAIL":
		path, args, ok := smtpPath(rest, "FROM:")
		if !ok {
			c.reply("501 5.5.4 Syntax: MAIL FROM:<address>")
			return true
		}
		c.mail = &Delivery{Helo: c.helo, Sender: path, SenderArgs: args}
		c.reply("250 2.1.0 Ok")
	case "RCPT":
		path, _, ok := smtpPath(rest, "TO:")
		switch refusal := c.sink.refusal(path); {
		case !ok:
			c.reply("501 5.5.4 Syntax: RCPT TO:<address>")
		case c.mail == nil:
			c.reply("503 5.5.1 MAIL first")
		case refusal != "":
			c.reply(refusal)
		default:
			c.mail.Recipients = append(c.mail.Recipients, path)
			c.reply("250 2.1.5 Ok")
		}
	case "DATA":
		return c.data()
	case "RSET":
		c.mail = nil
		c.reply("250 2.0.0 Ok")
	case "NOOP":
		c.reply("250 2.0.0 Ok")
	case "QUIT":
		c.reply("221 2.0.0 Bye")
		return false
	default:
		c.reply("502 5.5.2 Command not known")
	}
	return true
}

func (c *sinkSession) data() bool {
	if c.mail == nil || len(c.mail.Recipients) == 0 {
		c.reply("554 5.5.1 No valid recipients")
		return true
	}
	c.reply("354 End data with <CR><LF>.<CR><LF>")
	if c.w.Flush() != nil {
		return false
	}
	d := c.mail
	c.mail = nil
	if err := readDots(c.r, c.sink.options.KeepBytes, d); err != nil {
		return false
	}
	d.Received = time.Now()
	c.sink.keep(*d)
	c.reply("250 2.0.0 Ok: kept")
	return true
}

// readDots reads a message up to the line with a single dot (RFC 5321 §4.5.2).
func readDots(r *bufio.Reader, keep int64, d *Delivery) error {
	for start := true; ; {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return io.ErrUnexpectedEOF
		}
		if start && line[0] == '.' {
			if s := string(line); s == ".\r\n" || s == ".\n" {
				return nil
			}
			line = line[1:]
		}
		start = err == nil
		d.Size += int64(len(line))
		d.Data = append(d.Data, line[:min(int64(len(line)), max(0, keep-int64(len(d.Data))))]...)
	}
}

// smtpPath reads "FROM:<path> args".
func smtpPath(s, prefix string) (path string, args []string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", nil, false
	}
	s = strings.TrimLeft(s[len(prefix):], " ")
	end := strings.LastIndexByte(s, '>')
	if !strings.HasPrefix(s, "<") || end < 0 {
		return "", nil, false
	}
	return s[1:end], strings.Fields(s[end+1:]), true
}
