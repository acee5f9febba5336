package milter

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"

	"sluice/policy"
)

// fuzzConn is a socket that gives what it has and then ends. While a message is being
// scanned it is silent, so that verdicts are given.
type fuzzConn struct {
	in  *bytes.Reader
	out bytes.Buffer

	mu     sync.Mutex
	silent chan struct{} // nil unless there is no deadline; closed by the next one
}

func (c *fuzzConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	silent := c.silent
	c.mu.Unlock()
	if silent != nil {
		<-silent
		return 0, os.ErrDeadlineExceeded
	}
	return c.in.Read(p)
}

func (c *fuzzConn) SetReadDeadline(d time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.silent == nil && d.IsZero():
		c.silent = make(chan struct{})
	case c.silent != nil && d.Equal(time.Unix(1, 0)):
		close(c.silent)
	case c.silent != nil:
		c.silent = nil
	}
	return nil
}

func (c *fuzzConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *fuzzConn) Close() error                     { return nil }
func (c *fuzzConn) LocalAddr() net.Addr              { return nil }
func (c *fuzzConn) RemoteAddr() net.Addr             { return nil }
func (c *fuzzConn) SetDeadline(time.Time) error      { return nil }
func (c *fuzzConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzConversation gives whole conversations to a session: it ends without a panic, each
// command got one reply or none, as negotiated, and whatever was begun was ended once.
func FuzzConversation(f *testing.F) {
	conversation := func(offer terms, frames ...string) []byte {
		b := appendFrame(nil, 'O', string(appendAnswer(nil, terms{offer.version, offer.actions &^ gomilter.OptSetSymList, offer.steps})[5:]))
		for _, s := range frames {
			b = appendFrame(b, s[0], s[1:])
		}
		return b
	}
	whole := []string{"DCj\x00mx\x00v\x00Postfix 3.7.11\x00", "Ch\x004\x00\x19192.0.2.1\x00", "Hx\x00", "DMi\x00Q\x00", "M<s@example.net>\x00SIZE=1\x00", "R<r@example.org>\x00",
		"LA\x00 1\x00", "L\x00\x00x\x00", "N", "Bbody\r\n", "E", "A", "U FOO\x00", "M<>\x00", "Rr\x00", "E", "M<>\x00", "N", "K", "Ch\x00U", "Q"}
	f.Add(conversation(postfixOffer, whole...))
	f.Add(conversation(oldOffer, whole...))
	f.Add(conversation(terms{6, 0, 0}, whole...))
	f.Add(conversation(postfixOffer, "Ch\x004\x00\x00127.0.0.1\x00", "M\x00", "Rr\x00", "LA\x001\x00", "N", "LB\x001\x00", "Bx", "Bx", "E"))
	f.Add(conversation(postfixOffer, "E", "R\x00", "N", "B", "L", "M\x00", "M\x00", "H", "E", "E"))
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xffO"))
	g := newGateway(f)
	f.Fuzz(func(t *testing.T, conv []byte) {
		g.t, g.runs = t, nil
		g.onFinish = func(_ context.Context, r *fakeRun) policy.Disposition {
			return policy.Disposition{
				RemoveRecipients: []string{"r@example.org"}, AddRecipients: []string{"x"},
				Fields: []policy.FieldChange{{Name: "A", Value: r.raw}, {Op: policy.DeleteField, Name: "A", Index: 1}},
			}
		}
		panics := &counter{}
		s, err := New(Options{Gateway: g, Log: slog.New(slog.DiscardHandler), Panicked: panics.inc, MaxRecipients: 3, MaxHeaderFields: 20})
		if err != nil {
			t.Fatal(err)
		}
		sock := &fuzzConn{in: bytes.NewReader(conv)}
		s.serve(context.Background(), sock)
		if panics.get() > 0 {
			t.Error("panic")
		}
		if s.Connections() != 0 || s.filtering.Load() != 0 {
			t.Error("the connection is still counted")
		}
		g.check(t)
		checkReplies(t, conv, sock.out.Bytes())
	})
}

// checkReplies holds what a session answered against what was due.
func checkReplies(t *testing.T, conv, out []byte) {
	due, agreed, negotiated := 0, terms{}, false
	for {
		if len(conv) < 5 {
			break
		}
		frames, rest, ok := cutFrame(conv)
		if !ok {
			break
		}
		conv = rest
		code := gomilter.Code(frames[0])
		if code == gomilter.CodeOptNeg && !negotiated {
			if offer, ok := parseOffer(frames[1:]); ok {
				agreed, negotiated = agree(offer), true
			}
		}
		if agreed.replyDue(code) {
			due++
		}
	}
	replies := 0
	for len(out) > 0 {
		frame, rest, ok := cutFrame(out)
		if !ok {
			t.Fatalf("not a frame: %q", out)
		}
		out = rest
		switch frame[0] {
		case 'O', 'c', 'a', 'd', 't', 'y':
			replies++
			if frame[0] == 'y' {
				checkReply(t, strings.TrimSuffix(string(frame[1:]), "\x00"))
			}
		case '+', '-', 'm', 'i', 'p':
		default:
			t.Fatalf("frame %q", frame)
		}
	}
	if replies > due {
		t.Errorf("%d replies to %d commands that await one", replies, due)
	}
}

func cutFrame(b []byte) (frame, rest []byte, ok bool) {
	var head [4]byte
	r := bytes.NewReader(b)
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, nil, false
	}
	n := int(head[0])<<24 | int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if n == 0 || n > maxFrame || n > len(b)-4 {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

// FuzzMacros: what is looked up is what came last and is still in force; no macro of a
// message is seen after its end.
func FuzzMacros(f *testing.F) {
	f.Add([]byte("Mi\x00Q1\x00{auth_authen}\x00u\x00"), "i")
	f.Add([]byte("C{j}\x00mx\x00v"), "j")
	f.Add([]byte("X\x00\x00\x00"), "")
	f.Add([]byte{}, "{i}")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		var m macroStore
		m.set([]byte("Cj\x00mx\x00"))
		m.begin(gomilter.CodeConn)
		if ok := m.set(data); ok != (len(data) > 0 && len(data) <= maxMacros) {
			t.Fatalf("set reports %v", ok)
		}
		all := m.all()
		if got := m.get(name); got != all[name] {
			t.Errorf("get %q, all %q", got, all[name])
		}
		for n, v := range all {
			if m.get(n) != v || n == "" || strings.ContainsRune(n+v, 0) {
				t.Errorf("%q is %q, looked up %q", n, v, m.get(n))
			}
		}
		m.endMessage()
		if len(data) > 0 && strings.IndexByte("CH", data[0]) < 0 {
			if left := m.all(); len(left) != 1 || left["j"] != "mx" {
				t.Errorf("after the message: %q", left)
			}
		}
	})
}

// FuzzReply: any reply comes out in the form that both MTAs pass on, its end kept.
func FuzzReply(f *testing.F) {
	f.Add(550, "5.7.1", "100% of\n%s (id 1)")
	f.Add(451, "", strings.Repeat("x", 2000))
	f.Add(474, "", strings.Repeat("0", 462))
	f.Add(250, "9.9.9.9", "\r\n\r\n\x00\xff")
	f.Fuzz(func(t *testing.T, code int, enhanced, text string) {
		got := replyText(policy.Reply{Code: code, Enhanced: enhanced, Text: text + " (id 1)"})
		checkReply(t, got)
		if !strings.HasSuffix(got, "(id 1)") {
			t.Errorf("the end is lost: %q", got)
		}
	})
}

// FuzzEdits: whatever a disposition says comes out as frames whose fields hold no NUL and
// whose values bring no lines of their own.
func FuzzEdits(f *testing.F) {
	f.Add("r@example.org", "X-A", "v\nB: c", 1, uint8(0))
	f.Add("", "", "\r\n\r\n", -1, uint8(1))
	f.Add("a\x00b", "A", "", 2, uint8(2))
	f.Fuzz(func(t *testing.T, rcpt, name, value string, index int, op uint8) {
		change := policy.FieldChange{Op: policy.FieldOp(op % 3), Name: name, Value: value, Index: index}
		b, _ := appendEdits(nil, &policy.Disposition{RemoveRecipients: []string{rcpt}, AddRecipients: []string{rcpt}, Fields: []policy.FieldChange{change, change}}, agree(postfixOffer))
		for _, frame := range splitFrames(t, b) {
			data := frame[1:]
			fields := 1
			if frame[0] == 'm' || frame[0] == 'i' {
				data, fields = data[4:], 2
			}
			if strings.Count(data, "\x00") != fields || !strings.HasSuffix(data, "\x00") {
				t.Fatalf("frame %q", frame)
			}
			for i := range len(data) {
				if data[i] == '\r' || data[i] == '\n' && (data[i+1] != ' ' && data[i+1] != '\t') {
					t.Fatalf("a line of its own: %q", frame)
				}
			}
		}
	})
}
