package gateway

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/milter"
)

// adapted is the gateway as the milter wants it.
type adapted struct{ *Gateway }

func (a adapted) Start(ctx context.Context, env *envelope.Envelope, msg *mail.Message) milter.Run {
	return a.Gateway.Start(ctx, env, msg)
}

// listenMilter serves the gateway to an MTA and returns the port.
func (b *bench) listenMilter(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := milter.New(milter.Options{Gateway: adapted{b.g}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("milter: %v", err)
		}
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// What the gateway asks for is what an MTA does: forged fields go however they are
// spelled, in whatever number, ours stand below the MTA's Received in their order,
// and the Subject bears its tag once, in mail one and in mail two of a connection.
func TestFieldsThroughRealMTAs(t *testing.T) {
	b := newBench(t, `
policies:
  - match: "@."
    mark_score: 1
    subject_tag: "[SPAM] "
`, eicar(), scores(3.2))
	b.settings.Origin.Networks = nil // a client on loopback is a stranger here
	if err := b.g.Reload(b.settings); err != nil {
		t.Fatal(err)
	}
	port := b.listenMilter(t)
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	postfix := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:127.0.0.1:" + port, Hostname: "mx.example.net"})
	sendmail := testkit.StartSendmail(t, testkit.SendmailOptions{Relay: sink.Addr(), Milter: "inet:" + port + "@127.0.0.1"})

	raw := strings.Join([]string{
		"X-Spam-Flag: YES",
		"Authentication-Results: (us) MX.example.net; spf=pass planted",
		"Authentication-Results: mx.example.org; spf=pass kept",
		"Authentication-Results: \"mx.example.net\"; dkim=pass planted",
		"From: Lee <lee@example.org>",
		"x-SPAM-flag: YES planted",
		"X-Spam-Status : Yes, planted with a blank before the colon",
		"X-Spam-Report: planted",
		"\tand folded, planted",
		"Subject: =?utf-8?Q?[SPAM]_Gr=C3=BC=C3=9Fe?=",
		" =?utf-8?Q?_an_alle?=",
		"X-Spam-Prev-Subject: kept",
		"X-Sluice-Ticket: planted",
		"X-Quarantine-ID: <planted>",
		"X-Virus-Status: Clean, planted",
		"x-spam-flag: planted",
		"Date: Mon, 23 Nov 2026 09:12:44 +0000",
		"Message-ID: <m@example.org>",
		"", "Hello.", "",
	}, "\r\n")
	for _, mta := range []struct{ name, addr string }{{"Postfix", postfix.SMTP}, {"Sendmail", sendmail.SMTP}} {
		t.Run(mta.name, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			sink.Reset()
			m := testkit.Mail{Sender: "lee@example.org", Recipients: []string{"kim@example.net"}, Data: []byte(raw)}
			results, err := testkit.Send(ctx, mta.addr, testkit.ClientOptions{}, m, m)
			if err != nil || results[0].Final().Code != 250 || results[1].Final().Code != 250 {
				t.Fatalf("%v %v", results, err)
			}
			got, err := sink.WaitFor(ctx, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range got {
				h := d.Header()
				if strings.Contains(h, "planted") || strings.Count(h, "kept") != 2 {
					t.Errorf("forged fields stay, or others are gone:\n%s", h)
				}
				for name, want := range map[string]string{
					"X-Spam-Flag": "YES", "X-Spam-Status": "Yes, score=3.2 required=1.0 tests=SL_TEST", "X-Spam-Score": "3.2", "X-Spam-Level": "***",
					"X-Virus-Status": "Clean", "Subject": "[SPAM] =?utf-8?B?R3LDvMOfZSBhbiBhbGxl?=",
				} {
					if diff := cmp.Diff([]string{want}, d.Fields(name)); diff != "" {
						t.Errorf("%s: %s", name, diff)
					}
				}
				var order []string
				for line := range strings.SplitSeq(h, "\r\n") {
					if name, _, ok := strings.Cut(line, ":"); ok && (strings.HasPrefix(name, "X-") || name == "Received" || name == "From") {
						order = append(order, name)
					}
				}
				want := []string{"Received", "X-Spam-Flag", "X-Spam-Status", "X-Spam-Score", "X-Spam-Level", "X-Virus-Scanned", "X-Virus-Status", "X-Sluice-ID", "From", "X-Spam-Prev-Subject"}
				if diff := cmp.Diff(want, order); diff != "" {
					t.Errorf("order -want +got:\n%s\n%s", diff, h)
				}
				if string(d.Body()) != "Hello.\r\n" {
					t.Errorf("body %q", d.Body())
				}
			}
		})
	}
}
