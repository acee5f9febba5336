package milter

import (
	"context"
	"log/slog"
	"net"
	"net/textproto"
	"runtime"
	"strings"
	"testing"

	gomilter "github.com/emersion/go-milter"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

// acceptAll is a gateway that looks at nothing.
type acceptAll struct{ spool *mail.Spool }

type acceptRun struct{ msg *mail.Message }

func (g acceptAll) Begin(*envelope.Envelope) (*mail.Message, error) { return g.spool.New(), nil }
func (g acceptAll) Start(_ context.Context, _ *envelope.Envelope, msg *mail.Message) Run {
	return acceptRun{msg}
}
func (r acceptRun) Finish(context.Context, string) policy.Disposition { return policy.Disposition{} }
func (r acceptRun) Answered(error)                                    { _ = r.msg.Close() }
func (r acceptRun) Abandon(string)                                    { _ = r.msg.Close() }

// BenchmarkMessage compares a message of 20 fields and 5 kB through our server and through
// the library alone with the same no-reply bits, on one connection.
func BenchmarkMessage(b *testing.B) {
	body := strings.Repeat("0123456789abcdef\r\n", 280)
	drive := func(b *testing.B, addr string) {
		m := dial(b, addr, postfixOffer)
		m.greet()
		b.ReportAllocs()
		for b.Loop() {
			var frames []byte
			frames = appendFrame(frames, 'M', "<s@example.net>\x00")
			m.conn.Write(frames)
			m.read()
			m.expect('R', "<r@example.org>\x00")
			frames = frames[:0]
			for range 20 {
				frames = appendFrame(frames, 'D', "Li\x00QUEUE\x00")
				frames = appendFrame(frames, 'L', "X-Field\x00 some value of ordinary length, as fields have it\x00")
			}
			frames = appendFrame[string](frames, 'N')
			frames = appendFrame(frames, 'B', body)
			frames = appendFrame[string](frames, 'E')
			m.conn.Write(frames)
			if r := m.verdict(); r[0] != "a" {
				b.Fatal(r)
			}
			m.write('A')
		}
	}
	b.Run("ours", func(b *testing.B) {
		s, err := New(Options{Gateway: acceptAll{newGateway(b).spool}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		drive(b, l.Addr().String())
		cancel()
		<-done
	})
	b.Run("library", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		s := &gomilter.Server{NewMilter: func() gomilter.Milter { return quiet{} }, Protocol: agree(postfixOffer).steps}
		go s.Serve(l)
		drive(b, l.Addr().String())
	})
}

// quiet is the library's no-op filter, keeping its mouth shut where no reply is due.
type quiet struct{ gomilter.NoOpMilter }

func (quiet) Connect(string, string, uint16, net.IP, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}
func (quiet) Helo(string, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }
func (quiet) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}
func (quiet) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}
func (quiet) BodyChunk([]byte, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }

// An idle connection is small, whatever it carried before.
func TestIdleConnectionsAreSmall(t *testing.T) {
	f := start(t, nil)
	f.onFinish = func(_ context.Context, r *fakeRun) policy.Disposition { r.raw = ""; return policy.Disposition{} }
	const n = 300
	size := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	body := strings.Repeat("x", 65535)
	before := size()
	for range n {
		m := dial(t, f.addr, postfixOffer)
		m.greet()
		m.begin("s@example.net", "r@example.org")
		m.content([][2]string{{"A", " 1"}}, body)
		if got := m.end(); got[0] != "a" {
			t.Fatal(got)
		}
		m.write('A')
	}
	f.mu.Lock()
	f.runs = nil // what the test itself remembers
	f.mu.Unlock()
	// The MTA's side is in the same process and counts too.
	if each := (size() - before) / n; each > 64<<10 {
		t.Errorf("%d bytes a connection", each)
	} else {
		t.Logf("%d bytes a connection, both sides", each)
	}
}
