package e2e

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"sluice/internal/testkit"
)

// A signature whose name would be a field of its own, a format and a reply.
const (
	injectingString = "sluice-test-of-a-signature-with-a-bad-name"
	injectingName   = "Evil.%s%n:X-Injected: yes (id 1) \xc3\xa9"
)

// oneLine says that what a filter asked for can't be taken for more than it is.
func oneLine(t *testing.T, r testkit.MilterResult) {
	t.Helper()
	if text := r.Reply.Text; text != "" {
		lines := strings.Split(text, "\r\n")
		for _, line := range lines {
			if !strings.HasPrefix(line, lines[0][:3]) || len(line) > 510 {
				t.Errorf("reply %q", text)
			}
			for _, b := range []byte(line) {
				if b < ' ' || b > '~' {
					t.Errorf("reply %q holds %#x", text, b)
				}
			}
		}
	}
	for _, m := range r.Modifications {
		for line := range strings.SplitSeq(m.Value, "\n") {
			if strings.ContainsAny(line, "\r\x00") || strings.HasPrefix(line, "X-Injected") || len(line) > 998 {
				t.Errorf("%v", m)
			}
		}
		for i, line := range strings.Split(m.Value, "\n") {
			if i > 0 && !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, " ") {
				t.Errorf("%s has a line that is a field of its own: %q", m.Name, m.Value)
			}
		}
		if strings.ContainsAny(m.Name, "\r\n: ") {
			t.Errorf("field name %q", m.Name)
		}
	}
}

// TestFaultHeaderInjection: what a client or clamd may choose makes no field, no line of a
// reply and no line of the log.
func TestFaultHeaderInjection(t *testing.T) {
	t.Parallel()
	evil := "evil\r\nX-Injected: yes\r\n\r\nmsg=message class=clean \x00\x1b[31m%s%n\u2028\xff"
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("20s", fake.Endpoint()),
		policy: "policies: [{match: '@.', reject_text: 'Ask us'}, {match: '@tag.example.org', virus_action: tag, spam_action: tag, subject_tag: '[SPAM] '}]\n"})
	for _, tc := range []struct {
		name string
		mail func(*testkit.MilterMail)
		// clamd is the name of what clamd finds.
		clamd string
	}{
		{"HELO", func(m *testkit.MilterMail) { m.Helo = evil }, ""},
		{"client name", func(m *testkit.MilterMail) { m.ClientName = strings.ReplaceAll(evil, "\x00", "") }, ""},
		{"sender", func(m *testkit.MilterMail) { m.Sender = `"` + strings.ReplaceAll(evil, " ", "_") + `"@example.net` }, ""},
		{"recipient", func(m *testkit.MilterMail) {
			m.Recipients = append(m.Recipients, strings.ReplaceAll(evil, " ", "_")+"@example.org")
		}, ""},
		{"queue ID", func(m *testkit.MilterMail) { m.QueueID = evil }, ""},
		{"login", func(m *testkit.MilterMail) { m.Login = evil }, ""},
		{"daemon", func(m *testkit.MilterMail) { m.Daemon = evil }, ""},
		{"signature", func(m *testkit.MilterMail) {}, strings.NewReplacer("\x00", "", "\n", "", "\r", "").Replace(evil)},
		{"signature with a carriage return", func(m *testkit.MilterMail) {}, "Evil\rX-Injected: yes"},
		{"long signature", func(m *testkit.MilterMail) {}, strings.Repeat("Long.", 2000)},
	} {
		for _, recipient := range []string{bob, "bob@tag.example.org"} {
			t.Run(tc.name+" to "+recipient, func(t *testing.T) {
				fake.SetScans(testkit.FakeAnswer("OK"))
				if tc.clamd != "" {
					fake.SetScans(testkit.FakeAnswer(tc.clamd + " FOUND"))
				}
				m := milterMail(clean("injection by "+tc.name), recipient)
				tc.mail(&m)
				r, err := d.deliver(t.Context(), m)
				if err != nil {
					t.Fatal(err)
				}
				oneLine(t, r)
				if tc.clamd != "" && recipient == bob {
					replies(t, r.Reply.SMTP(), "550 5.7.1")
				}
			})
		}
	}
	for line := range strings.Lines(d.log()) {
		if !strings.HasPrefix(line, "time=") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\r\x00\x1b\u2028") {
			t.Errorf("log line %q", line)
		}
	}
}

// TestFaultHeaderInjectionThroughMTAs: the same as far as it gets through SMTP.
func TestFaultHeaderInjectionThroughMTAs(t *testing.T) {
	s := theSystem(t)
	for _, m := range s.both() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			client := m.client
			if m.name == "Postfix" { // Sendmail refuses it
				client.Helo, client.XClient.Helo = "evil%s%n.example.net", "evil%s%n.example.net"
			}
			subject := "bad signature name by " + m.name
			data := identified(subject, testkit.Compose(subject, testkit.Text(injectingString+"\n")))
			reply := smtp(t, m.addr, client, data)
			replies(t, reply, "550 5.7.1")
			if !strings.HasSuffix(reply, ")") || !strings.Contains(reply, "(id ") || strings.Contains(reply, "|") {
				t.Errorf("reply %q", reply)
			}
			replies(t, smtp(t, m.addr, client, data, "bob@tag.example.org"), "250")
			d := arrives(t, s.sink, subject)
			bears(t, d, "X-Injected")
			bears(t, d, "X-Virus-Status", "Infected (Evil.%s%n:X-Injected: yes _id 1_ ")
		})
	}
}

// TestFaultForgedFields: of verdicts that somebody else wrote none is left, through
// either MTA, in whatever spelling and number. (Case 56 from the field.)
func TestFaultForgedFields(t *testing.T) {
	s := theSystem(t)
	for _, m := range s.both() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			subject := "forged fields by " + m.name
			data := testkit.WithFields(clean(subject),
				"X-Spam-Flag: YES, planted", "X-Spam-Prev-Subject: kept", "X-Spam-Flag: YES, planted", "X-Spam-Status: Yes, score=99.9 planted",
				"X-Spam-Level: ******** planted", "X-Spam-Score: 99.9 planted", "X-Spam-Report: planted\r\n\tplanted too",
				"X-Virus-Status: Infected (planted)", "X-Virus-Scanned: planted", "X-Sluice-ID: planted", "X-Sluice-Class: virus; reason=planted",
				"X-Sluice-Ticket: planted", "X-Quarantine-ID: <planted>", "x-spam-flag: YES, planted", "X-SPAM-STATUS:planted",
				"Authentication-Results: mx.example.org; spf=pass planted", "Authentication-Results: mx.elsewhere.example; spf=pass kept")
			replies(t, smtp(t, m.addr, m.client, data), "250")
			d := arrives(t, s.sink, subject)
			if h := d.Header(); strings.Contains(h, "planted") || strings.Count(h, "kept") != 2 {
				t.Errorf("arrived with\n%s", h)
			}
			bears(t, d, "X-Spam-Flag")
			bears(t, d, "X-Spam-Status", "No, score=")
			bears(t, d, "X-Virus-Status", "Clean")
			bears(t, d, "X-Spam-Prev-Subject", "kept")
			bears(t, d, "X-Sluice-Class")
		})
	}
}

// TestFaultLogFloodAndCardinality: a thousand senders, domains and hosts make no metric
// that wasn't there, and one line of log each.
func TestFaultLogFloodAndCardinality(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{})
	d.answers(t, clean("first"), "250")
	d.answers(t, spam("first"), "550")
	before := d.metrics(t)
	c := d.dial(t, testkit.MilterOptions{})
	const n = 1000
	for i := range n {
		m := milterMail(clean("one of many"), fmt.Sprintf("bob@d%d.example.org", i))
		m.Sender = fmt.Sprintf("a%d@s%d.example.net", i, i)
		m.QueueID = fmt.Sprintf("4Q%d", i)
		if i%10 == 0 {
			m.Data = spam("one of many")
		}
		if _, err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for name := range d.metrics(t) {
		if _, known := before[name]; !known {
			t.Errorf("new metric %s", name)
		}
		if strings.Contains(name, "example") {
			t.Errorf("metric %s", name)
		}
	}
	if got := strings.Count(d.log(), "msg=message"); got != n+2 {
		t.Errorf("%d lines for %d messages", got, n+2)
	}
}

// scanOnce plays scan for the first scan and answers OK to all others.
func scanOnce(scan testkit.FakeScan) []testkit.FakeScan {
	return []testkit.FakeScan{scan, testkit.FakeAnswer("OK")}
}

// held is a scan that waits: begun is closed when it has the message, and it
// answers after release.
type held struct {
	begun   chan struct{}
	release context.CancelFunc
	scan    testkit.FakeScan
}

func hold() *held {
	ctx, release := context.WithCancel(context.Background())
	h := &held{begun: make(chan struct{}), release: release}
	h.scan = func(c *testkit.FakeConn) {
		_, err := c.ReadMessage()
		close(h.begun)
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			_, _ = io.WriteString(c, c.Reply("OK")) // the client may be gone
		case <-c.Stopping():
		}
	}
	return h
}
