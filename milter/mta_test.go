package milter

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/testkit"
	"sluice/policy"
)

// realMTA is one of the MTAs that a session must do with.
type realMTA struct {
	name string
	smtp string
	sink *testkit.Sink
}

// realMTAs starts Postfix and Sendmail in front of one server.
func realMTAs(t *testing.T, f *fixture) []realMTA {
	t.Helper()
	host, port, _ := net.SplitHostPort(f.addr)
	a, b := testkit.StartSink(t, testkit.SinkOptions{}), testkit.StartSink(t, testkit.SinkOptions{})
	postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: a.Addr(), SMTPDMilters: "inet:" + f.addr})
	sendmail := testkit.StartSendmail(t, testkit.SendmailOptions{Relay: b.Addr(), Milter: "inet:" + port + "@" + host})
	return []realMTA{{"Postfix", postfix.SMTP, a}, {"Sendmail", sendmail.SMTP, b}}
}

// Changes come out the same on both MTAs, though they count fields differently.
func TestChangesOnRealMTAs(t *testing.T) {
	f := start(t, nil)
	f.onFinish = func(context.Context, *fakeRun) policy.Disposition {
		return policy.Disposition{
			RemoveRecipients: []string{"out@example.org"},
			AddRecipients:    []string{"added@example.com"},
			Fields: []policy.FieldChange{
				{Op: policy.DeleteField, Name: "X-Forged", Index: 1},
				{Op: policy.DeleteField, Name: "x-forged", Index: 1},
				{Op: policy.DeleteField, Name: "X-Keep", Index: 2},
				{Op: policy.DeleteField, Name: "X-Forged", Index: 1},
				{Op: policy.ReplaceField, Name: "Subject", Index: 1, Value: "[SPAM] changed"},
				{Op: policy.InsertField, Name: "X-Forged", Index: 1, Value: "ours,\n\tfolded"},
			},
		}
	}
	for _, mta := range realMTAs(t, f) {
		t.Run(mta.name, func(t *testing.T) {
			results, err := testkit.Send(t.Context(), mta.smtp, testkit.ClientOptions{}, testkit.Mail{
				Sender: "s@example.net", Recipients: []string{"in@example.org", "out@example.org"}, SenderArgs: "BODY=8BITMIME",
				Data: []byte("X-Forged: a\r\nSubject: was\r\nX-Keep: one\r\nx-forged: b\r\nX-Keep: two\r\nX-Keep: three\r\nX-Forged: c\r\n\r\nbody\r\n")})
			if err != nil || results[0].Final().Code != 250 {
				t.Fatalf("%v, %v", results, err)
			}
			got, err := mta.sink.WaitFor(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			d := got[0]
			slices.Sort(d.Recipients)
			if !slices.Equal(d.Recipients, []string{"added@example.com", "in@example.org"}) {
				t.Errorf("recipients %q", d.Recipients)
			}
			if v := d.Fields("X-Forged"); !slices.Equal(v, []string{"ours,\tfolded"}) {
				t.Errorf("X-Forged: %q", v)
			}
			if v := d.Fields("X-Keep"); !slices.Equal(v, []string{"one", "three"}) {
				t.Errorf("X-Keep: %q", v)
			}
			if !strings.Contains(d.Header(), "\r\nSubject: [SPAM] changed\r\n") {
				t.Errorf("header %q", d.Header())
			}
			received, ours := strings.Index(d.Header(), "Received:"), strings.Index(d.Header(), "X-Forged:")
			if received < 0 || ours < received || strings.Index(d.Header(), "Subject:") < ours {
				t.Errorf("the inserted field isn't below the MTA's Received: %q", d.Header())
			}
			if string(d.Body()) != "body\r\n" {
				t.Errorf("body %q", d.Body())
			}
		})
	}
}

// What the client gets to read, and what the next message on the connection gets.
func TestRepliesOnRealMTAs(t *testing.T) {
	f := start(t, nil)
	f.onFinish = func(_ context.Context, r *fakeRun) policy.Disposition {
		switch {
		case strings.Contains(r.raw, "Subject: lines"):
			return policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "one\ntwo (id 1)"}}
		case strings.Contains(r.raw, "Subject: later"):
			return policy.Disposition{Reply: policy.Reply{Code: 451, Enhanced: "4.7.1", Text: "come again (id 1)"}}
		case strings.Contains(r.raw, "Subject: percent"):
			return policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "100% of %s \xe4 (id 1)"}}
		}
		return policy.Disposition{}
	}
	wants := []struct{ subject, reply string }{
		{"percent", "550 5.7.1 100% of %s ? (id 1)"},
		{"clean", "250 "},
		{"lines", "550 5.7.1 one | 5.7.1 two (id 1)"},
		{"later", "451 4.7.1 come again (id 1)"},
		{"clean too", "250 "},
	}
	for _, mta := range realMTAs(t, f) {
		t.Run(mta.name, func(t *testing.T) {
			var mails []testkit.Mail
			for _, w := range wants {
				mails = append(mails, testkit.Mail{Sender: "s@example.net", Recipients: []string{"r@example.org"}, Data: []byte("Subject: " + w.subject + "\r\n\r\nx\r\n")})
			}
			results, err := testkit.Send(t.Context(), mta.smtp, testkit.ClientOptions{}, mails...)
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range wants {
				if got := results[i].Final().String(); !strings.HasPrefix(got, w.reply) {
					t.Errorf("%s: reply %q, want %q", w.subject, got, w.reply)
				}
			}
		})
	}
}

// What a session knows of the client and of the message.
func TestEnvelopesFromRealMTAs(t *testing.T) {
	f := start(t, nil)
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	host, port, _ := net.SplitHostPort(f.addr)
	message := []byte("Subject: x\r\nX-Raw:  two\r\n\r\nx\r\n")
	mail := testkit.Mail{Sender: "s@example.net", Recipients: []string{"r@example.org"}, SenderArgs: "BODY=8BITMIME", RecipientArgs: "NOTIFY=NEVER", Data: message}
	next := 0
	last := func() *fakeRun { next++; return f.run(next - 1) }

	postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + f.addr, NonSMTPDMilters: "inet:" + f.addr})
	t.Run("Postfix", func(t *testing.T) {
		results, err := testkit.Send(t.Context(), postfix.SMTP, testkit.ClientOptions{XClient: testkit.XClient{
			Addr: "203.0.113.5", Name: "client.example.net", Port: "4711", Helo: "client.example.net", Proto: "ESMTP", Login: "user@example.org"}}, mail)
		if err != nil || results[0].Final().Code != 250 {
			t.Fatalf("%v, %v", results, err)
		}
		r := last()
		e := r.env
		if e.Client.Addr != netip.MustParseAddr("203.0.113.5") || e.Client.Name != "client.example.net" || e.Client.Port != 4711 || e.Client.Helo != "client.example.net" {
			t.Errorf("client %+v", e.Client)
		}
		if e.Login != "user@example.org" || e.Host == "" || e.Daemon == "" || !e.HandsOverAtOnce || e.Local || e.QueueID == "" || r.queueID != e.QueueID {
			t.Errorf("envelope %+v, queue ID %q", e, r.queueID)
		}
		if e.Macros["{client_addr}"] != "203.0.113.5" || e.Macros["{client_port}"] != "4711" {
			t.Errorf("macros that were asked for: %q", e.Macros)
		}
		if len(e.Sender.Parameters) == 0 || len(e.Recipients) != 1 || len(e.Recipients[0].Parameters) == 0 {
			t.Errorf("arguments %v %v", e.Sender.Parameters, e.Recipients)
		}
		if !strings.HasPrefix(r.raw, "Subject: x\r\nX-Raw:  two\r\n") {
			t.Errorf("message %q", r.raw)
		}
	})
	t.Run("Postfix submission", func(t *testing.T) {
		results, err := testkit.Send(t.Context(), postfix.Submission, testkit.ClientOptions{}, mail)
		if err != nil || results[0].Final().Code != 250 {
			t.Fatalf("%v, %v", results, err)
		}
		if e := last().env; e.Daemon != "ORIGINATING" || e.Local {
			t.Errorf("daemon %q, local %v", e.Daemon, e.Local)
		}
	})
	t.Run("Postfix pickup", func(t *testing.T) {
		if err := postfix.Submit(t.Context(), "cron@example.org", []string{"root@example.org"}, []byte("Subject: cron\n\nx\n")); err != nil {
			t.Fatal(err)
		}
		e := last().env
		if !e.Local || e.Sender.Address.String() != "cron@example.org" || len(e.Recipients) != 1 || e.QueueID == "" || !e.HandsOverAtOnce {
			t.Errorf("envelope %+v", e)
		}
	})
	sendmail := testkit.StartSendmail(t, testkit.SendmailOptions{Relay: sink.Addr(), Milter: "inet:" + port + "@" + host})
	t.Run("Sendmail", func(t *testing.T) {
		results, err := testkit.Send(t.Context(), sendmail.SMTP, testkit.ClientOptions{}, mail, mail)
		if err != nil || results[0].Final().Code != 250 || results[1].Final().Code != 250 {
			t.Fatalf("%v, %v", results, err)
		}
		for range 2 {
			r := last()
			e := r.env
			if e.Client.Addr != netip.MustParseAddr("127.0.0.1") || e.Client.Port == 0 || e.Local || e.HandsOverAtOnce || e.Client.Helo != "client.example.net" {
				t.Errorf("envelope %+v", e)
			}
			if r.queueID == "" || r.queueID != e.QueueID {
				t.Errorf("queue ID %q, at the header %q", r.queueID, e.QueueID)
			}
			if len(e.Sender.Parameters) == 0 || len(e.Recipients) != 1 || len(e.Recipients[0].Parameters) == 0 {
				t.Errorf("arguments %v %v", e.Sender.Parameters, e.Recipients)
			}
			if !strings.HasPrefix(r.raw, "Subject: x\r\nX-Raw:  two\r\n") {
				t.Errorf("message %q", r.raw)
			}
		}
	})
	t.Run("Sendmail on IPv6", func(t *testing.T) {
		if sendmail.SMTP6 == "" {
			t.Log("this machine has no IPv6; TestClients has the address as Sendmail writes it")
			return
		}
		results, err := testkit.Send(t.Context(), sendmail.SMTP6, testkit.ClientOptions{}, mail)
		if err != nil || results[0].Final().Code != 250 {
			t.Fatalf("%v, %v", results, err)
		}
		if e := last().env; e.Client.Addr != netip.IPv6Loopback() {
			t.Errorf("client %+v", e.Client)
		}
	})
}

// Postfix in its chroot reaches a socket inside its queue directory, by a relative path, and
// as a member of no group of ours: the socket's group is Postfix's.
func TestSocketInPostfixsChroot(t *testing.T) {
	f := start(t, nil)
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), Chroot: true,
		SMTPDMilters: "{ unix:sluice/milter.sock, default_action=tempfail }", NonSMTPDMilters: "unix:sluice/milter.sock"})
	dir := filepath.Join(postfix.Queue, "sluice")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if r := submit(t, postfix.SMTP, "Subject: early\r\n\r\nx\r\n"); r.Code != 451 {
		t.Errorf("without a socket: %v", r)
	}
	l, err := Listen(Endpoint{"unix", filepath.Join(dir, "milter.sock")}, SocketOptions{Mode: 0o660, Group: "postfix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s, err := New(Options{Gateway: f.fakeGateway, Log: slog.New(slog.NewTextHandler(f.logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.Serve(ctx, l) }()
	if r := submit(t, postfix.SMTP, "Subject: through\r\n\r\nx\r\n"); r.Code != 250 {
		t.Errorf("reply %v", r)
	}
	if err := postfix.Submit(t.Context(), "cron@example.org", []string{"root@example.org"}, []byte("Subject: cron\n\nx\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.WaitFor(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if n := f.count(); n != 2 {
		t.Errorf("%d messages were seen", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// SIGTERM amid a scan: the message gets its verdict, and what comes after it on the same SMTP
// connection is put off, not passed.
func TestDrainUnderPostfix(t *testing.T) {
	f := start(t, nil)
	scanning, release := make(chan struct{}), make(chan struct{})
	f.onFinish = func(context.Context, *fakeRun) policy.Disposition {
		close(scanning)
		<-release
		return policy.Disposition{Fields: []policy.FieldChange{{Name: "X-Seen", Value: "yes", Index: 1}}}
	}
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + f.addr, Settings: map[string]string{"milter_default_action": "tempfail"}})
	c, err := testkit.Dial(t.Context(), postfix.SMTP, testkit.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mail := testkit.Mail{Sender: "s@example.net", Recipients: []string{"r@example.org"}, Data: []byte("Subject: x\r\n\r\nx\r\n")}
	go func() {
		<-scanning
		f.stop()
		eventually(t, "no longer listening", func() bool {
			c, err := net.Dial("tcp", f.addr)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		close(release)
	}()
	first, err := c.Send(t.Context(), mail)
	if err != nil || first.Final().Code != 250 {
		t.Fatalf("%v, %v", first.Final(), err)
	}
	f.wait(t)
	second, err := c.Send(t.Context(), mail)
	if err != nil || second.Final().Code != 451 {
		t.Errorf("after the drain: %v, %v", second.Final(), err)
	}
	got, err := sink.WaitFor(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || len(got[0].Fields("X-Seen")) != 1 {
		t.Errorf("delivered %d, header %q", len(got), got[0].Header())
	}
}

// A third implementation of the MTA's side.
func TestMiltertest(t *testing.T) {
	finish := func(_ context.Context, r *fakeRun) policy.Disposition {
		if strings.Contains(r.raw, "Subject: bad") || strings.Contains(r.raw, "Subject:bad") {
			return policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "refused"}}
		}
		return policy.Disposition{
			RemoveRecipients: []string{"out@example.org"},
			Fields: []policy.FieldChange{
				{Op: policy.DeleteField, Name: "X-Forged", Index: 1},
				{Op: policy.InsertField, Name: "X-Queue-ID", Value: r.queueID, Index: 1},
			},
		}
	}
	f := start(t, func(o *Options) { o.Gateway.(*fakeGateway).onFinish = finish })
	host, port, _ := net.SplitHostPort(f.addr)
	cmd := exec.CommandContext(t.Context(), "miltertest", "-v", "-D", "socket=inet:"+port+"@"+host, "-s", filepath.Join("testdata", "session.lua"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("miltertest: %v\n%s", err, out)
	}
	if f.count() != 3 {
		t.Errorf("%d messages", f.count())
	}
}
