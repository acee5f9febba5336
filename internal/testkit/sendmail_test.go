package testkit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSendmailRelaysToSink(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sink := StartSink(t, SinkOptions{})
	sendmail := StartSendmail(t, SendmailOptions{Relay: sink.Addr()})
	addrs := []string{sendmail.SMTP}
	if sendmail.SMTP6 != "" {
		addrs = append(addrs, sendmail.SMTP6)
	}
	for _, addr := range addrs {
		for _, sender := range []string{"a@example.net", ""} {
			sink.Reset()
			message := "Subject: through\r\n\r\n.dot\r\nh\xc3\xa9\r\n"
			results, err := Send(ctx, addr, ClientOptions{},
				Mail{Sender: sender, Recipients: []string{"b@example.org", "C+d@example.com"}, Data: []byte(message)})
			if err != nil || results[0].Final().Code != 250 {
				t.Fatalf("%s: %v, %v", addr, results, err)
			}
			got, err := sink.WaitFor(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			d := got[0]
			slices.Sort(d.Recipients) // Sendmail sorts them as it likes
			if d.Sender != sender || strings.Join(d.Recipients, " ") != "C+d@example.com b@example.org" ||
				string(d.Body()) != ".dot\r\nh\xc3\xa9\r\n" || d.Fields("subject")[0] != "through" {
				t.Errorf("%s: arrived from %q for %q as %q", addr, d.Sender, d.Recipients, d.Data)
			}
		}
	}
	err := Poll(ctx, nil, func(context.Context) error {
		queued, held, err := sendmail.Queued()
		if err == nil && queued+held != 0 {
			return fmt.Errorf("%d queued, %d held", queued, held)
		}
		return err
	})
	if err != nil {
		t.Errorf("queue isn't empty: %v", err)
	}
}
