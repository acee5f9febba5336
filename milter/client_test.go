package milter

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

// patience bounds every wait of the tests; none is meant to be that long.
const patience = 30 * time.Second

// What Postfix offers, and what an MTA of version 2 does.
var (
	postfixOffer = terms{6, 0x1ff, 0x1fffff}
	oldOffer     = terms{2, 0x3f, 0x7f}
)

// mta is the MTA's side of a connection.
type mta struct {
	t     testing.TB
	conn  net.Conn
	r     *bufio.Reader
	terms terms
	// symbols is what followed the terms in the filter's answer.
	symbols string
}

// dial connects and negotiates.
func dial(t testing.TB, addr string, offer terms) *mta {
	t.Helper()
	m := dialOnly(t, addr)
	m.negotiate(offer)
	return m
}

func dialOnly(t testing.TB, addr string) *mta {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &mta{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (m *mta) negotiate(offer terms) {
	m.t.Helper()
	var b []byte
	b = binary.BigEndian.AppendUint32(b, offer.version)
	b = binary.BigEndian.AppendUint32(b, uint32(offer.actions))
	b = binary.BigEndian.AppendUint32(b, uint32(offer.steps))
	m.write('O', string(b))
	answer := m.read()
	got, ok := parseOffer([]byte(answer[1:]))
	if answer[0] != 'O' || !ok {
		m.t.Fatalf("answer to the offer: %q", answer)
	}
	m.terms, m.symbols = got, answer[13:]
}

func (m *mta) write(code byte, data ...string) {
	m.t.Helper()
	if _, err := m.conn.Write(appendFrame(nil, code, data...)); err != nil {
		m.t.Fatalf("write %c: %v", code, err)
	}
}

// read returns the next frame, its code first.
func (m *mta) read() string {
	m.t.Helper()
	frame, err := m.tryRead()
	if err != nil {
		m.t.Fatalf("read: %v", err)
	}
	return frame
}

func (m *mta) tryRead() (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(m.r, head[:]); err != nil {
		return "", err
	}
	frame := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(m.r, frame)
	return string(frame), err
}

// command sends a command and returns its reply, "" where none is due.
func (m *mta) command(code byte, data ...string) string {
	m.t.Helper()
	m.write(code, data...)
	if !m.terms.replyDue(gomilter.Code(code)) {
		return ""
	}
	return m.read()
}

// expect sends a command whose reply, if one is due, must be continue.
func (m *mta) expect(code byte, data ...string) {
	m.t.Helper()
	if r := m.command(code, data...); r != "" && r != "c" {
		m.t.Fatalf("%c: reply %q, want continue", code, r)
	}
}

func (m *mta) macros(stage byte, pairs ...string) {
	m.t.Helper()
	m.write('D', string(stage), strings.Join(pairs, "\x00"), "\x00")
}

func (m *mta) connect(addr string, port uint16) {
	m.t.Helper()
	family := "4"
	if strings.Contains(addr, ":") {
		family = "6"
	}
	m.expect('C', "client.example.net\x00", family, string(binary.BigEndian.AppendUint16(nil, port)), addr, "\x00")
}

// greet opens an SMTP session as Postfix does.
func (m *mta) greet() {
	m.t.Helper()
	m.macros('C', "j", "mx.example.org", "{daemon_name}", "mx.example.org", "v", "Postfix 3.7.11")
	m.connect("192.0.2.1", 4711)
	m.expect('H', "helo.example.net\x00")
}

// begin opens a message.
func (m *mta) begin(sender string, recipients ...string) {
	m.t.Helper()
	m.macros('M', "{mail_addr}", "x")
	m.expect('M', "<"+sender+">\x00")
	for _, r := range recipients {
		m.expect('R', "<"+r+">\x00")
	}
}

func (m *mta) content(fields [][2]string, body ...string) {
	m.t.Helper()
	for _, f := range fields {
		m.expect('L', f[0]+"\x00"+f[1]+"\x00")
	}
	m.expect('N')
	for _, b := range body {
		m.expect('B', b)
	}
}

// end sends the end of message and returns all that came but progress, the reply
// last.
func (m *mta) end() []string {
	m.t.Helper()
	m.write('E')
	return m.verdict()
}

func (m *mta) verdict() []string {
	m.t.Helper()
	var frames []string
	for {
		f := m.read()
		if f == "p" {
			continue
		}
		frames = append(frames, f)
		if strings.IndexByte("acdrty4f", f[0]) >= 0 {
			return frames
		}
	}
}

// message sends a small message whole and returns the reply.
func (m *mta) message(sender string, recipients ...string) string {
	m.t.Helper()
	m.begin(sender, recipients...)
	m.content([][2]string{{"Subject", " hello"}}, "body\r\n")
	frames := m.end()
	return frames[len(frames)-1]
}

// closed waits for the filter to close the connection.
func (m *mta) closed() {
	m.t.Helper()
	if f, err := m.tryRead(); err == nil {
		m.t.Fatalf("got %q, want the connection closed", f)
	} else if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		m.t.Fatal("connection stays open")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// fakeGateway is a gateway with a real spool. It checks the contract of Run.
type fakeGateway struct {
	t     testing.TB
	spool *mail.Spool
	// onBegin, onStart and onFinish, if set, take the place of what is usual.
	onBegin  func(*envelope.Envelope) (*mail.Message, error)
	onStart  func(*fakeRun) Run
	onFinish func(context.Context, *fakeRun) policy.Disposition

	mu   sync.Mutex
	runs []*fakeRun
}

type fakeRun struct {
	g       *fakeGateway
	ctx     context.Context
	env     *envelope.Envelope
	msg     *mail.Message
	raw     string // the message, after Finish
	queueID string

	mu      sync.Mutex
	calls   []string // "finish", "answered", "abandon: reason"
	err     error    // of Answered
	over    chan struct{}
	closing sync.Once
}

func newGateway(t testing.TB) *fakeGateway {
	t.Helper()
	spool, err := mail.NewSpool(mail.SpoolOptions{Dir: filepath.Join(t.TempDir(), "spool"), MemoryLimit: 64 << 20, MaxBytes: 64 << 20, MaxMessage: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeGateway{t: t, spool: spool}
}

func (g *fakeGateway) Begin(env *envelope.Envelope) (*mail.Message, error) {
	if g.onBegin != nil {
		return g.onBegin(env)
	}
	return g.spool.New(), nil
}

func (g *fakeGateway) Start(ctx context.Context, env *envelope.Envelope, msg *mail.Message) Run {
	r := &fakeRun{g: g, ctx: ctx, env: env, msg: msg, over: make(chan struct{})}
	if g.onStart != nil {
		return g.onStart(r)
	}
	return g.keep(r)
}

func (g *fakeGateway) keep(r *fakeRun) *fakeRun {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runs = append(g.runs, r)
	return r
}

func (r *fakeRun) call(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, s)
}

func (r *fakeRun) Finish(ctx context.Context, queueID string) policy.Disposition {
	r.call("finish")
	r.queueID = queueID
	raw, err := io.ReadAll(r.msg.Reader(context.WithoutCancel(ctx), 0))
	if err != nil {
		r.g.t.Errorf("message can't be read at Finish: %v", err)
	}
	r.raw = string(raw)
	if r.g.onFinish != nil {
		return r.g.onFinish(ctx, r)
	}
	return policy.Disposition{}
}

func (r *fakeRun) Answered(err error) {
	r.err = err
	r.call("answered")
	r.release()
}

func (r *fakeRun) Abandon(reason string) {
	r.call("abandon: " + reason)
	r.release()
}

func (r *fakeRun) release() {
	r.closing.Do(func() {
		_ = r.msg.Close()
		close(r.over)
	})
}

// run waits for the nth run to be over and returns it.
func (g *fakeGateway) run(n int) *fakeRun {
	g.t.Helper()
	var r *fakeRun
	eventually(g.t, fmt.Sprintf("run %d", n), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.runs) <= n {
			return false
		}
		r = g.runs[n]
		return true
	})
	select {
	case <-r.over:
	case <-time.After(patience):
		g.t.Fatalf("run %d is neither answered nor abandoned", n)
	}
	return r
}

func (g *fakeGateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.runs)
}

// check holds all runs against the contract; nothing may be left in the spool.
func (g *fakeGateway) check(t testing.TB) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, r := range g.runs {
		r.mu.Lock()
		ok := slices.Equal(r.calls, []string{"finish", "answered"}) || len(r.calls) == 1 && strings.HasPrefix(r.calls[0], "abandon: ")
		if !ok {
			t.Errorf("run %d: calls %q", i, r.calls)
		}
		r.mu.Unlock()
	}
	if memory, disk := g.spool.Used(); memory != 0 || disk != 0 {
		t.Errorf("spool holds %d bytes in memory and %d on disk after all messages", memory, disk)
	}
}

// fixture is a server with a fake gateway.
type fixture struct {
	*fakeGateway
	addr    string
	server  *Server
	logs    *logBuffer
	panics  *counter
	stop    context.CancelFunc
	stopped chan error
}

// start starts a server on loopback, which the end of the test stops; then the gateway is
// checked.
func start(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{fakeGateway: newGateway(t), logs: &logBuffer{}, panics: &counter{}, stopped: make(chan error, 1)}
	o := Options{
		Gateway:  f.fakeGateway,
		Log:      slog.New(slog.NewTextHandler(f.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Panicked: f.panics.inc,
	}
	if change != nil {
		change(&o)
	}
	var err error
	if f.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() { f.stopped <- f.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		f.stop()
		f.wait(t)
		f.check(t)
		if t.Failed() {
			t.Logf("log:\n%s", f.logs)
		}
	})
	return f
}

// wait waits for Serve to return.
func (f *fixture) wait(t testing.TB) {
	t.Helper()
	select {
	case err := <-f.stopped:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
		f.stopped <- nil
	case <-time.After(patience):
		t.Fatal("Serve doesn't return")
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) inc() { c.mu.Lock(); c.n++; c.mu.Unlock() }

func (c *counter) get() int { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
