package milter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

func TestMalformedFramesCloseTheirSessionOnly(t *testing.T) {
	frame := func(code byte, data string) string { return string(appendFrame(nil, code, data)) }
	offer := string(appendAnswer(nil, terms{6, 0, 0}))
	for _, tt := range []struct {
		name, bytes, reason string
	}{
		{"length zero", offer + "\x00\x00\x00\x00", badLength},
		{"length past the cap", offer + "\x00\x10\x00\x01", badLength},
		{"length of 4 GiB", offer + "\xff\xff\xff\xff", badLength},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", badLength},
		{"command before the negotiation", frame('H', "x\x00"), badOrder},
		{"second negotiation", offer + offer, badOrder},
		{"short offer", frame('O', "\x00\x00\x00\x06"), badForm},
		{"version 1", string(appendAnswer(nil, terms{1, 0, 0})), badVersion},
		{"unknown command", offer + frame('Z', ""), badCode},
		{"macros without stage", offer + frame('D', ""), badMacros},
		{"too many macros", offer + frame('D', "C"+strings.Repeat("x", maxMacros)), badMacros},
		{"CONNECT without NUL", offer + frame('C', "host"), badForm},
		{"CONNECT without family", offer + frame('C', "host\x00"), badForm},
		{"CONNECT of no family", offer + frame('C', "host\x00Z"), badForm},
		{"CONNECT without port", offer + frame('C', "host\x004\x00"), badForm},
		{"MAIL without path", offer + frame('M', ""), badForm},
		{"RCPT without path", offer + frame('R', ""), badForm},
		{"end inside a frame", offer + "\x00\x00\x00\x09H", badEnd},
		{"end inside the length", offer + "\x00\x00", badEnd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			other := dial(t, f.addr, postfixOffer)
			other.greet()
			other.begin("s@example.net", "r@example.org")
			m := dialOnly(t, f.addr)
			m.conn.Write([]byte(tt.bytes)) // it may be closed already
			m.conn.(*net.TCPConn).CloseWrite()
			for {
				if _, err := m.tryRead(); err != nil {
					break
				}
			}
			eventually(t, "the frame is counted", func() bool {
				return testutil.ToFloat64(f.server.o.Metrics.malformed.WithLabelValues(tt.reason)) == 1
			})
			other.content(nil, "x\r\n")
			if got := other.end(); got[0] != "a" {
				t.Errorf("other session: %q", got)
			}
		})
	}
}

// The body of a frame is read as it comes, however much was announced.
func TestAnnouncedLengthIsNotAllocated(t *testing.T) {
	c1, c2 := net.Pipe()
	defer c1.Close()
	o := (&Options{}).withDefaults()
	c := newConn(c2, &o, o.Log)
	go func() {
		c1.Write([]byte("\x00\x10\x00\x00"))
		c1.Write(make([]byte, 5000))
		c1.Close()
	}()
	if _, _, err := c.readFrame(); err == nil {
		t.Fatal("a frame that ended early was taken")
	}
	if cap(c.buf) > 32<<10 {
		t.Errorf("%d bytes were allocated for 5,000", cap(c.buf))
	}
}

func TestDeadlines(t *testing.T) {
	soon := 50 * time.Millisecond
	for _, tt := range []struct {
		name   string
		change func(*Options)
		do     func(m *mta)
		cause  string
	}{
		{"nothing is said", func(o *Options) { o.NegotiateTimeout = soon }, func(m *mta) {}, "idle for too long"},
		{"idle", func(o *Options) { o.IdleTimeout = soon }, func(m *mta) { m.negotiate(postfixOffer) }, "idle for too long"},
		{"length begun", func(o *Options) { o.FrameTimeout = soon }, func(m *mta) { m.negotiate(postfixOffer); m.conn.Write([]byte{0, 0}) }, "malformed frame: stall"},
		{"frame begun", func(o *Options) { o.FrameTimeout = soon }, func(m *mta) { m.negotiate(postfixOffer); m.conn.Write([]byte("\x00\x00\x00\x09Hx")) }, "malformed frame: stall"},
		{"frame begun in a message", func(o *Options) { o.FrameTimeout = soon }, func(m *mta) {
			m.negotiate(postfixOffer)
			m.greet()
			m.begin("s@example.net", "r@example.org")
			m.content(nil)
			m.conn.Write([]byte("\x00\x00\xff\xffBx"))
		}, "malformed frame: stall"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, tt.change)
			m := dialOnly(t, f.addr)
			tt.do(m)
			m.closed()
			eventually(t, "the end is logged", func() bool { return strings.Contains(f.logs.String(), tt.cause) })
			if f.count() > 0 {
				if got := f.run(0).calls[0]; got != "abandon: "+tt.cause {
					t.Errorf("run: %q", got)
				}
			}
		})
	}
}

// A frame deadline must not outlive its frame, nor an idle one a wait.
func TestDeadlinesDoNotLinger(t *testing.T) {
	f := start(t, func(o *Options) { o.FrameTimeout, o.NegotiateTimeout = 100*time.Millisecond, 100*time.Millisecond })
	f.onFinish = func(ctx context.Context, _ *fakeRun) policy.Disposition {
		select {
		case <-ctx.Done():
			return policy.Disposition{Reply: policy.Reply{Code: 451}}
		case <-time.After(250 * time.Millisecond):
			return policy.Disposition{}
		}
	}
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	for range 2 {
		if r := m.message("s@example.net", "r@example.org"); r != "a" {
			t.Fatal(r)
		}
	}
}

func TestPastTheConnectionLimit(t *testing.T) {
	f := start(t, func(o *Options) { o.MaxConnections, o.ReserveConnections = 2, 2 })
	var held []*mta
	for range 2 {
		m := dial(t, f.addr, postfixOffer)
		m.greet()
		m.begin("s@example.net", "r@example.org")
		held = append(held, m)
	}
	for range 2 {
		m := dial(t, f.addr, postfixOffer) // still spoken with
		m.greet()
		if r := m.command('M', "<s@example.net>\x00"); !strings.HasPrefix(r, "y451 4.3.2 Too many connections") {
			t.Errorf("reply %q", r)
		}
		held = append(held, m)
	}
	if got := testutil.ToFloat64(f.server.o.Metrics.failed.WithLabelValues(failedOverLimit)); got != 2 {
		t.Errorf("counted %v", got)
	}
	// A further one waits in the backlog until one of those goes.
	late := dialOnly(t, f.addr)
	late.write('O', string(appendAnswer(nil, postfixOffer)[5:17]))
	late.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if frame, err := late.tryRead(); !isTimeout(err) {
		t.Fatalf("past the reserve: %q, %v", frame, err)
	}
	late.conn.SetDeadline(time.Now().Add(patience))
	held[3].write('Q')
	if a := late.read(); a[0] != 'O' {
		t.Fatalf("answer %q", a)
	}
	late.terms, _ = parseOffer([]byte("\x00\x00\x00\x06\x00\x00\x01\x1d\x00\x1c\x33\x80"))
	// As soon as there is room, the same connections are served.
	held[0].write('Q')
	held[0].closed()
	eventually(t, "room", func() bool { return f.server.filtering.Load() < 2 })
	held[2].begin("s@example.net", "r@example.org")
	held[2].content(nil, "x\r\n")
	if got := held[2].end(); got[0] != "a" {
		t.Errorf("with room: %q", got)
	}
	held[1].content(nil, "x\r\n")
	if got := held[1].end(); got[0] != "a" {
		t.Errorf("the one that was admitted first: %q", got)
	}
}

func TestDrain(t *testing.T) {
	f := start(t, nil)
	release := make(chan struct{})
	scanning := make(chan struct{})
	f.onFinish = func(ctx context.Context, r *fakeRun) policy.Disposition {
		if r.env.Sender.Address.String() == "scanned@example.net" {
			close(scanning)
			<-release
		}
		return policy.Disposition{}
	}
	idle, fresh := dial(t, f.addr, postfixOffer), dialOnly(t, f.addr)
	idle.greet()
	idle.message("s@example.net", "r@example.org")
	arriving := dial(t, f.addr, postfixOffer)
	arriving.greet()
	arriving.begin("s@example.net", "r@example.org")
	scanned := dial(t, f.addr, postfixOffer)
	scanned.greet()
	scanned.begin("scanned@example.net", "r@example.org")
	scanned.content(nil, "x\r\n")
	scanned.write('E')
	<-scanning
	eventually(t, "all are accepted", func() bool { return f.server.Connections() == 4 })

	f.stop()
	idle.closed()
	fresh.closed()
	if c, err := net.Dial("tcp", f.addr); err == nil {
		c.Close()
		t.Error("still listening")
	}
	arriving.content([][2]string{{"A", " 1"}}, "x\r\n")
	if got := arriving.end(); got[0] != "a" {
		t.Errorf("message that was arriving: %q", got)
	}
	arriving.closed()
	select {
	case err := <-f.stopped:
		t.Fatalf("Serve returned amid a scan: %v", err)
	default:
	}
	close(release)
	if got := scanned.verdict(); got[0] != "a" {
		t.Errorf("message that was being scanned: %q", got)
	}
	scanned.closed()
	f.wait(t)
	if n := f.server.Connections(); n != 0 {
		t.Errorf("%d connections left", n)
	}
}

// Past the drain's time scans are cancelled, and still answered; what is only arriving is cut.
func TestDrainThatTakesTooLong(t *testing.T) {
	f := start(t, func(o *Options) { o.DrainTimeout, o.DrainGrace = 50*time.Millisecond, 200*time.Millisecond })
	scanning := make(chan struct{})
	f.onFinish = func(ctx context.Context, r *fakeRun) policy.Disposition {
		close(scanning)
		<-ctx.Done()
		return policy.Disposition{Reply: policy.Reply{Code: 451, Enhanced: "4.3.2", Text: "stopped"}}
	}
	arriving := dial(t, f.addr, postfixOffer)
	arriving.greet()
	arriving.begin("s@example.net", "r@example.org")
	arriving.content(nil, "x\r\n")
	scanned := dial(t, f.addr, postfixOffer)
	scanned.greet()
	scanned.begin("s@example.net", "r@example.org")
	scanned.content(nil, "x\r\n")
	scanned.write('E')
	<-scanning
	f.stop()
	if got := scanned.verdict(); got[0] != "y451 4.3.2 stopped\x00" {
		t.Errorf("answer %q", got)
	}
	arriving.closed()
	f.wait(t)
}

func TestMTAGoesAway(t *testing.T) {
	// No progress is sent, so that only the watch can see it.
	f := start(t, func(o *Options) { o.ProgressInterval, o.FrameTimeout = time.Hour, 100*time.Millisecond })
	finishing := make(chan struct{}, 1)
	f.onFinish = func(ctx context.Context, r *fakeRun) policy.Disposition {
		finishing <- struct{}{}
		select {
		case <-ctx.Done(): // the point of the test
		case <-time.After(patience):
			t.Error("scan isn't cancelled")
		}
		return policy.Disposition{}
	}
	for i, tt := range []struct {
		name  string
		do    func(m *mta)
		calls string
	}{
		{"mid-body", func(m *mta) { m.content(nil, "x\r\n") }, "abandon: connection closed by the MTA"},
		{"inside a frame", func(m *mta) { m.content(nil); m.conn.Write([]byte("\x00\x00\x00\x10Bxx")) }, "abandon: malformed frame: end"},
		{"quit", func(m *mta) { m.content(nil); m.write('Q') }, "abandon: quit"},
		{"abort", func(m *mta) { m.content(nil); m.write('A') }, "abandon: aborted by the MTA"},
		{"at end of message", func(m *mta) { m.content(nil, "x\r\n"); m.write('E'); <-finishing }, "finish answered"},
		{"at end of message, past the deadline of its frame", func(m *mta) {
			m.content(nil, "x\r\n")
			m.conn.Write([]byte{0, 0})
			time.Sleep(10 * time.Millisecond) // so that it comes in two pieces
			m.conn.Write([]byte("\x00\x01E"))
			<-finishing
			time.Sleep(150 * time.Millisecond)
		}, "finish answered"},
		{"at end of message, after QUIT", func(m *mta) { m.content(nil, "x\r\n"); m.write('E'); <-finishing; m.write('Q') }, "finish answered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			m.begin("s@example.net", "r@example.org")
			tt.do(m)
			m.conn.Close()
			r := f.run(i)
			if got := strings.Join(r.calls, " "); got != tt.calls {
				t.Errorf("calls %q", got)
			}
			if r.calls[0] == "finish" && r.err == nil {
				t.Error("Answered without the error")
			}
			select {
			case <-r.ctx.Done(): // soon after Answered, in the session's own goroutine
			case <-time.After(patience):
				t.Error("the run's context goes on")
			}
		})
	}
	// Before there is a run, what was begun is given back (see fakeGateway.check).
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net", "r@example.org")
	m.expect('L', "A\x00 "+strings.Repeat("x", 10_000)+"\x00")
	m.conn.Close()
	eventually(t, "seven lost connections are counted", func() bool { return testutil.ToFloat64(f.server.o.Metrics.aborted) == 7 })
}

func TestDisconnectsLeakNothing(t *testing.T) {
	f := start(t, nil)
	f.onFinish = func(ctx context.Context, r *fakeRun) policy.Disposition {
		<-ctx.Done()
		return policy.Disposition{Reply: policy.Reply{Code: 451}}
	}
	round := func(n int) {
		for i := range n {
			conn, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			b := appendFrame(nil, 'O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")
			b = appendFrame(b, 'C', "h\x00U")
			b = appendFrame(b, 'M', "<s@example.net>\x00")
			b = appendFrame(b, 'R', "<r@example.org>\x00")
			switch i % 4 {
			case 1:
				b = appendFrame(b, 'L', "A\x00 1\x00")
			case 2:
				b = append(appendFrame[string](b, 'N'), "\x00\x00\x00\xffBx"...)
			case 3:
				b = appendFrame[string](appendFrame(appendFrame[string](b, 'N'), 'B', "x"), 'E')
			}
			conn.Write(b) // it is closed either way
			conn.Close()
		}
		eventually(t, "all sessions are over", func() bool { return f.server.Connections() == 0 })
	}
	round(100)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	round(2000)
	eventually(t, "goroutines are flat", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	eventually(t, "descriptors are flat", func() bool { return openFiles(t) <= files+2 })
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A million header fields are answered, not kept.
func TestAMillionFields(t *testing.T) {
	f := start(t, nil)
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net", "r@example.org")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var b []byte
	for range 1000 {
		b = appendFrame(b, 'L', "X\x00 1\x00")
	}
	for range 1000 {
		if _, err := m.conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	m.expect('N')
	if got := m.end(); !strings.HasPrefix(got[0], "y552 5.3.4 ") {
		t.Errorf("answer %q", got)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes are held after a million fields", grown)
	}
}

// failingListener has no descriptors left for a while.
type failingListener struct {
	net.Listener
	failures atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAcceptGoesOnWithoutDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fl := &failingListener{Listener: l}
	fl.failures.Store(4)
	s, err := New(Options{Gateway: newGateway(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, fl) }()
	m := dial(t, l.Addr().String(), postfixOffer)
	m.greet()
	if got := testutil.ToFloat64(s.o.Metrics.acceptErrors); got != 4 {
		t.Errorf("%v errors counted", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeTellsWhenAListenerIsLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Gateway: newGateway(t)})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(context.Background(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := s.Serve(context.Background()); err == nil {
		t.Error("Serve without listeners")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New without gateway")
	}
}

// The library logs to the global logger; it is to have no reason to.
func TestTheLibraryHasNothingToLog(t *testing.T) {
	var global logBuffer
	log.SetOutput(&global)
	defer log.SetOutput(os.Stderr)
	f := start(t, func(o *Options) { o.IdleTimeout = 50 * time.Millisecond })
	f.onFinish = func(context.Context, *fakeRun) policy.Disposition { panic("boom") }
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.message("s@example.net", "r@example.org")
	m.closed()
	for _, bad := range []string{"\x00\x00\x00\x00", "\x00\x00\x00\x01Z", "\x00\x00\x00\x09H"} {
		m := dial(t, f.addr, postfixOffer)
		m.conn.Write([]byte(bad))
		m.conn.Close()
	}
	eventually(t, "all sessions are over", func() bool { return f.server.Connections() == 0 })
	if s := global.String(); s != "" {
		t.Errorf("global log: %s", s)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := start(t, func(o *Options) { o.Metrics = NewMetrics(reg) })
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	if got := testutil.ToFloat64(f.server.o.Metrics.connections); got != 1 {
		t.Errorf("connections %v", got)
	}
	// All label values start at zero.
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 4+len(malformedReasons)+len(failures) {
		t.Errorf("%d series, %v", n, err)
	}
}

func TestNoCredentialInTheLog(t *testing.T) {
	f := start(t, nil)
	f.onBegin = func(*envelope.Envelope) (*mail.Message, error) { return nil, errors.New("out of order") }
	m := dial(t, f.addr, postfixOffer)
	m.macros('C', "j", "mx")
	m.connect("192.0.2.1", 25)
	m.macros('M', "{auth_authen}", "hush@example.org")
	m.command('M', "<s@example.net>\x00AUTH=<secret@example.org>\x00")
	m.write('Q')
	m.closed()
	if s := f.logs.String(); strings.Contains(s, "secret") || !strings.Contains(s, "sender=s@example.net") {
		t.Errorf("log: %s", s)
	}
}

// What the handler forgets to answer is answered 451, and what it says where nothing is due
// goes nowhere: the MTA never takes one reply for another.
func TestRepliesAreCounted(t *testing.T) {
	mine, theirs := net.Pipe()
	o := (&Options{}).withDefaults()
	logs := &logBuffer{}
	c := newConn(theirs, &o, slog.New(slog.NewTextHandler(logs, nil)))
	c.closing = func(error) {}
	lib := &gomilter.Server{NewMilter: func() gomilter.Milter { return wayward{} }}
	if err := lib.Serve(&oneShot{c: c}); err == nil {
		t.Fatal("no error")
	}
	mine.SetDeadline(time.Now().Add(patience))
	m := &mta{t: t, conn: mine, r: bufio.NewReader(mine)}
	m.negotiate(postfixOffer)
	m.write('L', "A\x001\x00")          // answered with reject
	m.write('M', "<s@example.net>\x00") // not answered
	go mine.Write(appendFrame(nil, 'R', "<r@example.org>\x00"))
	if got := m.read(); got != "t" {
		t.Errorf("MAIL: reply %q", got)
	}
	if got := m.read(); got != "c" {
		t.Errorf("RCPT: reply %q", got)
	}
	mine.Close()
	<-c.ended
	if s := logs.String(); !strings.Contains(s, "command got no reply") || !strings.Contains(s, "reply where none is due was dropped") {
		t.Errorf("log: %s", s)
	}
}

// wayward answers header fields, and MAIL not at all.
type wayward struct{ gomilter.NoOpMilter }

func (wayward) MailFrom(string, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }
func (wayward) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespReject, nil
}

func ExampleParseEndpoint() {
	e, _ := ParseEndpoint("inet:8891@127.0.0.1")
	fmt.Println(e)
	// Output: inet:127.0.0.1:8891
}
