package milter

import (
	"context"
	"io"
	"log"
	"net"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"

	gomilter "github.com/emersion/go-milter"

	"sluice/internal/testkit"
	"sluice/policy"
)

// Three ways in which go-milter v0.5.0 loses or passes mail in silence when it is used as
// its documentation shows. Each is shown against a real MTA, with the library as it is
// and with our server.

// plainMilter is a filter written against the library alone.
type plainMilter struct {
	gomilter.NoOpMilter
	body func() gomilter.Response
	seen func(textproto.MIMEHeader)
}

func (p *plainMilter) Headers(h textproto.MIMEHeader, _ *gomilter.Modifier) (gomilter.Response, error) {
	if p.seen != nil {
		p.seen(h)
	}
	return gomilter.RespContinue, nil
}

func (p *plainMilter) Body(*gomilter.Modifier) (gomilter.Response, error) {
	return p.body(), nil
}

// servePlain serves with the library alone and returns host and port.
func servePlain(t *testing.T, p *plainMilter, steps gomilter.OptProtocol) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log.SetOutput(io.Discard)
	s := &gomilter.Server{NewMilter: func() gomilter.Milter { return p }, Protocol: steps}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		<-served
		log.SetOutput(os.Stderr)
	})
	host, port, _ = net.SplitHostPort(l.Addr().String())
	return host, port
}

// submit sends one small message through an MTA and returns the reply that settled it.
func submit(t *testing.T, addr string, data string) testkit.Reply {
	t.Helper()
	results, err := testkit.Send(t.Context(), addr, testkit.ClientOptions{},
		testkit.Mail{Sender: "s@example.net", Recipients: []string{"r@example.org"}, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return results[0].Final()
}

// 1. Where no reply is due the library's replies queue up, and the MTA takes one of them
// for the answer to the end of message: what was rejected is delivered.
func TestDefectNoReplyBitsLoseTheVerdict(t *testing.T) {
	reject := policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "refused"}}
	t.Run("library", func(t *testing.T) {
		host, port := servePlain(t, &plainMilter{body: func() gomilter.Response { return gomilter.RespReject }}, gomilter.OptNoHeaderReply)
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + host + ":" + port})
		if r := submit(t, postfix.SMTP, "Subject: bad\r\nX-A: 1\r\n\r\nx\r\n"); r.Code != 250 {
			t.Fatalf("the library got its reject through (%v): mended upstream? Then this workaround can go", r)
		}
		if _, err := sink.WaitForSubject(t.Context(), "bad"); err != nil {
			t.Error(err)
		}
	})
	t.Run("ours", func(t *testing.T) {
		f := start(t, nil)
		f.onFinish = func(context.Context, *fakeRun) policy.Disposition { return reject }
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + f.addr})
		for range 3 {
			if r := submit(t, postfix.SMTP, "Subject: bad\r\nX-A: 1\r\n\r\nx\r\n"); r.String() != "550 5.7.1 refused" {
				t.Errorf("reply %v", r)
			}
		}
		if n := len(sink.Deliveries()); n != 0 {
			t.Errorf("%d messages were delivered", n)
		}
	})
}

// 2. SMFIR_SHUTDOWN at the end of a message: Postfix 3.7 says 250 and throws the mail away.
// Whatever goes wrong, our server answers 451.
func TestDefectShutdownAtEndOfMessageLosesMail(t *testing.T) {
	t.Run("library", func(t *testing.T) {
		host, port := servePlain(t, &plainMilter{body: func() gomilter.Response { return gomilter.NewResponse('4', nil) }}, 0)
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + host + ":" + port})
		if r := submit(t, postfix.SMTP, "Subject: lost\r\n\r\nx\r\n"); r.Code != 250 {
			t.Fatalf("reply %v: this Postfix doesn't lose mail at SMFIR_SHUTDOWN", r)
		}
		if _, err := postfix.WaitLog(t.Context(), "milter-reject"); err != nil {
			t.Error(err)
		}
		queued, err := postfix.Queued()
		if err != nil || len(queued) > 0 || len(sink.Deliveries()) > 0 {
			t.Errorf("the mail isn't lost: queued %v, %v, delivered %d", queued, err, len(sink.Deliveries()))
		}
	})
	t.Run("ours", func(t *testing.T) {
		f := start(t, nil)
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + f.addr})
		for name, finish := range map[string]func(context.Context, *fakeRun) policy.Disposition{
			"panic": func(context.Context, *fakeRun) policy.Disposition { panic("boom") },
			"bad code": func(context.Context, *fakeRun) policy.Disposition {
				return policy.Disposition{Reply: policy.Reply{Code: 4}}
			},
			"nobody left": func(context.Context, *fakeRun) policy.Disposition {
				return policy.Disposition{RemoveRecipients: []string{"r@example.org"}}
			},
		} {
			f.onFinish = finish
			if r := submit(t, postfix.SMTP, "Subject: kept\r\n\r\nx\r\n"); r.Code != 451 {
				t.Errorf("%s: reply %v", name, r)
			}
		}
		if n := len(sink.Deliveries()); n != 0 {
			t.Errorf("%d messages were delivered", n)
		}
	})
}

// 3. Sendmail sends no ABORT between two messages, and only at ABORT does the library empty
// its header map: the second message is judged by the first one's fields.
func TestDefectHeadersLeakIntoTheNextMessage(t *testing.T) {
	two := func(t *testing.T, sendmail *testkit.Sendmail) {
		t.Helper()
		results, err := testkit.Send(t.Context(), sendmail.SMTP, testkit.ClientOptions{},
			testkit.Mail{Sender: "s@example.net", Recipients: []string{"r@example.org"}, Data: []byte("X-One: 1\r\n\r\nx\r\n")},
			testkit.Mail{Sender: "s@example.net", Recipients: []string{"r@example.org"}, Data: []byte("X-Two: 1\r\n\r\nx\r\n")})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Final().Code != 250 {
				t.Fatalf("message %d: %v", i+1, r.Final())
			}
		}
	}
	t.Run("library", func(t *testing.T) {
		var mu sync.Mutex
		var seen []textproto.MIMEHeader
		p := &plainMilter{body: func() gomilter.Response { return gomilter.RespAccept }, seen: func(h textproto.MIMEHeader) {
			mu.Lock()
			defer mu.Unlock()
			c := textproto.MIMEHeader{}
			for k, v := range h {
				c[k] = v
			}
			seen = append(seen, c)
		}}
		host, port := servePlain(t, p, 0)
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		two(t, testkit.StartSendmail(t, testkit.SendmailOptions{Relay: sink.Addr(), Milter: "inet:" + port + "@" + host}))
		mu.Lock()
		defer mu.Unlock()
		if len(seen) != 2 || seen[1].Get("X-One") == "" || seen[1].Get("X-Two") == "" {
			t.Fatalf("fields seen: %v; the leak is gone upstream?", seen)
		}
	})
	t.Run("ours", func(t *testing.T) {
		f := start(t, nil)
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		_, port, _ := net.SplitHostPort(f.addr)
		two(t, testkit.StartSendmail(t, testkit.SendmailOptions{Relay: sink.Addr(), Milter: "inet:" + port + "@127.0.0.1"}))
		one, second := f.run(0), f.run(1)
		if !strings.Contains(one.raw, "X-One: 1\r\n") || !strings.Contains(second.raw, "X-Two: 1\r\n") || strings.Contains(second.raw, "X-One") {
			t.Errorf("messages %q and %q", one.raw, second.raw)
		}
	})
}
