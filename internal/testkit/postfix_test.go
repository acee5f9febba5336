package testkit

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestPostfixRelaysToSink(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sink := StartSink(t, SinkOptions{})
	for _, chroot := range []bool{false, true} {
		postfix := StartPostfix(t, PostfixOptions{Relay: sink.Addr(), Chroot: chroot})
		sink.Reset()
		message := "Subject: through\r\n\r\n.dot\r\nh\xc3\xa9\r\n"
		results, err := Send(ctx, postfix.SMTP, ClientOptions{XClient: XClient{Addr: "192.0.2.10", Name: "out.example.net"}},
			Mail{Sender: "a@example.net", Recipients: []string{"b@example.org", "c@example.org"}, Data: []byte(message)})
		if err != nil || results[0].Final().Code != 250 {
			t.Fatalf("chroot %v: %v, %v", chroot, results, err)
		}
		got, err := sink.WaitFor(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if d := got[0]; d.Sender != "a@example.net" || strings.Join(d.Recipients, " ") != "b@example.org c@example.org" ||
			string(d.Body()) != ".dot\r\nh\xc3\xa9\r\n" || d.Fields("subject")[0] != "through" {
			t.Errorf("chroot %v: arrived as %q", chroot, d.Data)
		}
		if received := got[0].Fields("Received"); !strings.Contains(received[len(received)-1], "out.example.net [192.0.2.10]") {
			t.Errorf("chroot %v: XCLIENT had no effect: %q", chroot, received)
		}
		if _, err := postfix.WaitLog(ctx, "postfix/smtp", "status=sent"); err != nil {
			t.Error(err)
		}
	}
}

func TestPostfixEntrancesAndMacros(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sink := StartSink(t, SinkOptions{})
	filter := startRecorder(t, "tcp", "127.0.0.1:0", 0, nil)
	milters := "{ inet:" + filter.addr + ", connect_timeout=10s, default_action=tempfail }"
	postfix := StartPostfix(t, PostfixOptions{Relay: sink.Addr(), SMTPDMilters: milters, NonSMTPDMilters: milters, TLS: true})
	message := Compose("entrance", Text("hello\n"))
	outside := XClient{Addr: "2001:db8::7", Name: "out.example.net", Login: "carol@example.org"}
	for _, tc := range []struct {
		name    string
		send    func() error
		wants   []string // frames that must have been there
		plainly bool     // paths without brackets
	}{
		{"from outside over TLS, logged in", func() error {
			_, err := Send(ctx, postfix.SMTP, ClientOptions{XClient: outside, StartTLS: true}, Mail{Sender: "a@example.net", Recipients: []string{"b@example.org"}, Data: message})
			return err
		}, []string{"C out.example.net|6", "2001:db8::7|", "{auth_authen}|carol@example.org|", "{tls_version}|TLSv1.3|", "M <a@example.net>|"}, false},
		{"submission", func() error {
			_, err := Send(ctx, postfix.Submission, ClientOptions{}, Mail{Sender: "a@example.net", Recipients: []string{"b@example.org"}, Data: message})
			return err
		}, []string{"{daemon_name}|ORIGINATING|", "M <a@example.net>|"}, false},
		{"local", func() error {
			return postfix.Submit(ctx, "root@mx.example.org", []string{"b@example.org"}, message)
		}, []string{"C localhost|4", "H localhost|", "M root@mx.example.org|", "R b@example.org|"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sink.Reset()
			if err := tc.send(); err != nil {
				t.Fatal(err)
			}
			if _, err := sink.WaitFor(ctx, 1); err != nil {
				t.Fatal(err)
			}
			frames := strings.Join(filter.take(ctx, t, "E", 1), "\n")
			for _, want := range tc.wants {
				if !strings.Contains(frames, want) {
					t.Errorf("no %q in\n%q", want, frames)
				}
			}
		})
	}
}

// TestPostfixFeedsAnother holds that a feeding Postfix keeps what is refused for
// now and that all of it arrives in the end.
func TestPostfixFeedsAnother(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sink := StartSink(t, SinkOptions{})
	sink.Refuse("b@example.org", "451 4.3.0 Not now")
	feeder := StartPostfix(t, PostfixOptions{Relay: sink.Addr(), Feeder: true})
	const n = 20
	client, err := Dial(ctx, feeder.SMTP, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if res, err := client.Send(ctx, Mail{Sender: "", Recipients: []string{"b@example.org"}, Data: Sized("feed", 2000)}); err != nil || res.Final().Code != 250 {
			t.Fatalf("%v, %v", res, err)
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := feeder.WaitLog(ctx, "status=deferred", "451 4.3.0 Not now"); err != nil {
		t.Fatal(err)
	}
	queued, err := feeder.Queued()
	if err != nil || queued["active"]+queued["deferred"]+queued["incoming"] == 0 {
		t.Errorf("queued: %v, %v", queued, err)
	}
	if err := feeder.Stop(); err != nil {
		t.Fatal(err)
	}
	sink.Refuse("b@example.org", "")
	if err := feeder.Start(); err != nil {
		t.Fatal(err)
	}
	if err := feeder.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.WaitFor(ctx, n); err != nil {
		t.Fatal(err)
	}
	if usage, err := feeder.Process().Usage(); err != nil || usage.Processes < 3 || usage.RSS == 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}
