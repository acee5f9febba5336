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
