package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sluice/internal/testkit"
)

// Case 55: marked mail bears the tag once, in front, whatever its subject was.
func TestFieldTagOnce(t *testing.T) {
	s := theSystem(t)
	for _, m := range s.both() {
		for _, tc := range []struct{ name, subject, want string }{
			{"plain", "Subject: Offer of the week", "[SPAM] Offer of the week"},
			{"tagged already", "Subject: [SPAM] Offer of the week", "[SPAM] Offer of the week"},
			{"twice", "Subject: [SPAM] [SPAM] Offer of the week", "[SPAM] Offer of the week"},
			{"none", "", "[SPAM]"},
			{"empty", "Subject:", "[SPAM]"},
		} {
			t.Run(m.name+", "+tc.name, func(t *testing.T) {
				t.Parallel()
				id := strings.NewReplacer(" ", ".", ",", "").Replace("<55." + m.name + "." + tc.name + "@example.net>")
				data := "From: alice@example.net\r\nTo: kim@c55.example.net\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: " + id + "\r\n"
				if tc.subject != "" {
					data += tc.subject + "\r\n"
				}
				replies(t, smtp(t, m.addr, m.client, []byte(data+"\r\nHello.\r\n"), "kim@c55.example.net"), "250")
				d := byID(t, s.sink, id)
				if got := d.Fields("Subject"); len(got) != 1 || got[0] != tc.want {
					t.Errorf("Subject %q, want %q", got, tc.want)
				}
				bears(t, d, "X-Spam-Flag", "YES")
				if string(d.Body()) != "Hello.\r\n" {
					t.Errorf("body %q", d.Body())
				}
			})
		}
	}
}

// byID waits for the message with that Message-ID.
func byID(t *testing.T, sink *testkit.Sink, id string) testkit.Delivery {
	t.Helper()
	var found testkit.Delivery
	eventually(t, func() error {
		for _, d := range sink.Deliveries() {
			if slices.Contains(d.Fields("Message-ID"), id) {
				found = d
				return nil
			}
		}
		return fmt.Errorf("%s did not arrive", id)
	})
	return found
}

// Case 59: the text of a refusal comes through both MTAs whole: percent signs once, one
// line, the ID at its end.
func TestFieldTextOfARefusal(t *testing.T) {
	s := theSystem(t)
	for _, m := range s.both() {
		for _, tc := range []struct {
			name string
			data []byte
		}{{"virus", virus("59 by " + m.name)}, {"spam", spam("59 by " + m.name)}} {
			t.Run(m.name+", "+tc.name, func(t *testing.T) {
				t.Parallel()
				reply := smtp(t, m.addr, m.client, tc.data, "kim@c59.example.net")
				replies(t, reply, "550 5.7.1 ")
				if strings.Count(reply, "We refuse 100% of it 50%s%n, ask the helpdesk") != 1 || strings.Contains(reply, "%%") {
					t.Errorf("the text is not whole: %q", reply)
				}
				_, id, _ := strings.Cut(reply, "(id ")
				if !strings.HasSuffix(reply, ")") || len(id) < 36 {
					t.Errorf("no ID at the end: %q", reply)
				}
				s.daemon.waitLog(t, "msg=message", "id="+strings.TrimSuffix(id, ")"), "550 5.7.1")
			})
		}
	}
}

// Case 62: two recipients, two fates.
func TestFieldTwoRecipientsTwoFates(t *testing.T) {
	s := theSystem(t)
	const at = "@c62.example.net"
	for _, m := range s.both() {
		for _, tc := range []struct {
			name       string
			recipients []string
			want       string
			arrives    []string
		}{
			{"accepted", []string{"open"}, "250", []string{"open"}},
			// There is no store yet: the reject counts for all.
			{"one accepts, one rejects", []string{"open", "kim"}, "552 5.3.4", nil},
			{"one rejects, one accepts", []string{"kim", "open"}, "552 5.3.4", nil},
			{"both reject", []string{"kim", "lee"}, "552 5.3.4", nil},
			{"a tempfail among accepting", []string{"open", "later"}, "451", nil},
			{"a tempfail among rejecting", []string{"kim", "later", "open"}, "451", nil},
			{"one discards, one accepts", []string{"drop", "open"}, "250", []string{"open"}},
			{"one discards between two", []string{"open", "drop", "bob@tag.example.org"}, "250", []string{"bob@tag.example.org", "open"}},
			{"all discard", []string{"drop"}, "250", nil},
			{"an observer beside one who accepts", []string{"observer", "open"}, "250", []string{"observer", "open"}},
		} {
			t.Run(m.name+", "+tc.name, func(t *testing.T) {
				t.Parallel()
				full := func(names []string) []string {
					var all []string
					for _, n := range names {
						if !strings.Contains(n, "@") {
							n += at
						}
						all = append(all, n)
					}
					return all
				}
				subject := "62 by " + m.name + ", " + tc.name + "."
				reply := smtp(t, m.addr, m.client, clean(subject), full(tc.recipients)...)
				replies(t, reply, tc.want)
				var got []string
				if tc.arrives != nil {
					arrives(t, s.sink, subject)
				}
				// What is accepted goes on to each recipient; the sink may get it in one piece or more.
				eventually(t, func() error {
					got = nil
					for _, d := range s.sink.Deliveries() {
						if f := d.Fields("Subject"); len(f) > 0 && strings.Contains(f[0], subject) {
							got = append(got, d.Recipients...)
						}
					}
					if len(got) < len(tc.arrives) {
						return fmt.Errorf("arrived for %v only", got)
					}
					return nil
				})
				slices.Sort(got)
				if want := full(tc.arrives); !slices.Equal(got, want) {
					t.Errorf("arrived for %v, want %v", got, want)
				}
			})
		}
	}
	t.Cleanup(func() {
		for _, d := range s.sink.Deliveries() {
			for _, r := range d.Recipients {
				if slices.Contains([]string{"kim" + at, "lee" + at, "later" + at, "drop" + at}, r) {
					t.Errorf("%q arrived for %s", d.Fields("Subject"), r)
				}
			}
		}
	})
}

// Case 65, through the MTAs: a virus, a clean mail, one broken off and another clean one
// in one session don't touch each other.
func TestFieldSeveralMailsOnOneConnection(t *testing.T) {
	s := theSystem(t)
	for _, m := range s.both() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithTimeout(t.Context(), 2*patience)
			defer stop()
			c, err := testkit.Dial(ctx, m.addr, m.client)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Abort() }() // closed already
			send := func(data []byte, want string, recipients ...string) {
				t.Helper()
				r, err := c.Send(ctx, testkit.Mail{Sender: alice, Recipients: recipients, Data: data})
				if err != nil {
					t.Fatal(err)
				}
				replies(t, r.Final().String(), want)
			}
			send(virus("65 virus by "+m.name), "550 5.7.1", "kim@example.org", "lee@example.org")
			send(clean("65 first by "+m.name), "250", "bob@example.org")
			for _, line := range []string{"MAIL FROM:<mallory@example.net>", "RCPT TO:<kim@example.org>", "RSET"} {
				if r, err := c.Command(line); err != nil || !r.OK() {
					t.Fatal(line, r, err)
				}
			}
			send(spam("65 tagged by "+m.name), "250", "bob@tag.example.org")
			send(clean("65 second by "+m.name), "250", "ann@example.org", "joe@example.org")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			ids := map[string]bool{}
			for _, tc := range []struct {
				subject    string
				recipients []string
				flag       []string
			}{
				{"65 first by " + m.name, []string{"bob@example.org"}, nil},
				{"65 tagged by " + m.name, []string{"bob@tag.example.org"}, []string{"YES"}},
				{"65 second by " + m.name, []string{"ann@example.org", "joe@example.org"}, nil},
			} {
				d := arrives(t, s.sink, tc.subject)
				slices.Sort(d.Recipients)
				if !slices.Equal(d.Recipients, tc.recipients) || d.Sender != alice {
					t.Errorf("%s: from %s for %v", tc.subject, d.Sender, d.Recipients)
				}
				bears(t, d, "X-Spam-Flag", tc.flag...)
				bears(t, d, "X-Virus-Status", "Clean")
				for _, id := range d.Fields("X-Sluice-ID") {
					ids[id] = true
				}
				if m.name == "Postfix" {
					line := s.daemon.waitLog(t, "msg=message", "id="+d.Fields("X-Sluice-ID")[0])
					if !strings.Contains(line, "client_address=198.51.100.17") {
						t.Errorf("the client got lost: %s", line)
					}
				}
			}
			if len(ids) != 3 {
				t.Errorf("IDs %v for three messages", ids)
			}
			if n := count(s.sink, "65 virus by "+m.name); n != 0 {
				t.Error("the virus arrived")
			}
		})
	}
}

// frame is one frame of the milter protocol.
func frame(code byte, payload string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1))
	return append(append(b, code), payload...)
}

// begin is a message up to amid its body, without an end.
func begin(sender, recipient string) []byte {
	return bytes.Join([][]byte{
		frame('M', "<"+sender+">\x00"), frame('R', "<"+recipient+">\x00"), frame('L', "Subject\x00broken off\x00"), frame('L', "From\x00"+sender+"\x00"),
		frame('N', ""), frame('B', "The beginning"),
	}, nil)
}

// Case 65, in the protocol itself, where the third mail can be broken off after its
// header: with the ABORT that Postfix sends, and without, as Sendmail does.
func TestFieldSeveralMailsOnOneMilterConnection(t *testing.T) {
	s := theSystem(t)
	for _, tc := range []struct {
		name  string
		o     testkit.MilterOptions
		abort bool
	}{
		{"Postfix, with ABORT", testkit.MilterOptions{}, true},
		{"without ABORT after each", testkit.MilterOptions{NoAbort: true}, true},
		{"Sendmail", testkit.MilterOptions{MTA: testkit.SendmailMTA}, true},
		{"Sendmail, without any ABORT", testkit.MilterOptions{MTA: testkit.SendmailMTA}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := s.daemon.dial(t, tc.o)
			send := func(data []byte, want string, recipient string) testkit.Changed {
				t.Helper()
				m := milterMail(data, recipient)
				r, err := c.Send(t.Context(), m)
				if err != nil {
					t.Fatal(err)
				}
				replies(t, r.Reply.SMTP(), want)
				if r.Stray != 0 {
					t.Errorf("%d bytes after the reply", r.Stray)
				}
				return c.Apply(m, r.Modifications)
			}
			send(virus("65"), "550 5.7.1", bob)
			first := send(clean("65"), "250", bob)
			if err := c.Raw(begin("mallory@example.net", "kim@example.org")); err != nil {
				t.Fatal(err)
			}
			for range 2 { // to MAIL and RCPT
				if code, _, err := c.ReadReply(); err != nil || code != 'c' {
					t.Fatalf("%q %v", code, err)
				}
			}
			if tc.abort {
				if err := c.Abort(); err != nil {
					t.Fatal(err)
				}
			}
			second := send(clean("65"), "250", "ann@example.org")
			for i, got := range []testkit.Changed{first, second} {
				want := []string{bob, "ann@example.org"}[i]
				if !slices.Equal(got.Recipients, []string{want}) || got.Sender != alice {
					t.Errorf("message %d from %s for %v", i, got.Sender, got.Recipients)
				}
				if v := got.Fields("X-Virus-Status"); !slices.Equal(v, []string{"Clean"}) {
					t.Errorf("message %d: X-Virus-Status %q", i, v)
				}
			}
			if a, b := first.Fields("X-Sluice-ID"), second.Fields("X-Sluice-ID"); len(a) != 1 || len(b) != 1 || a[0] == b[0] {
				t.Errorf("IDs %q %q", a, b)
			}
			s.daemon.waitLog(t, "sender=mallory@example.net", "disposition=abandoned")
		})
	}
}

// pickup wakes Postfix's pickup(8), which looks into maildrop once a minute by itself.
func pickup(t *testing.T, p *testkit.Postfix) {
	t.Helper()
	eventually(t, func() error {
		cmd := exec.Command("/usr/sbin/postkick", "-c", p.Config, "public", "pickup", "W")
		cmd.Env = []string{"MAIL_CONFIG=" + p.Config}
		if out, err := cmd.CombinedOutput(); err != nil { // it breaks off if pickup has just ended
			return fmt.Errorf("postkick: %w %s", err, out)
		}
		return nil
	})
}

// Case 61: mail of the machine itself is accepted and not marked; spam among it is refused
// at its end, and nothing stays in maildrop; while clamd is away all of it stays there.
func TestFieldMailOfTheMachineItself(t *testing.T) {
	t.Parallel()
	clamd := testkit.StartClamd(t, testkit.ClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("20s", clamd.Endpoint())})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	submit := func(data string) {
		t.Helper()
		if err := p.Submit(t.Context(), "root@host.example.net", []string{"root@host.example.net"}, []byte(data)); err != nil {
			t.Fatal(err)
		}
		pickup(t, p)
	}
	cron := func(subject string) string {
		return "From: root@host.example.net (Cron Daemon)\nTo: root@host.example.net\nSubject: " + subject + "\n" +
			"Content-Type: text/plain; charset=UTF-8\nAuto-Submitted: auto-generated\n\n/etc/cron.daily/backup:\ntar: Removing leading / from member names\n"
	}
	unmarked := func(subject string) {
		t.Helper()
		m := arrives(t, sink, subject)
		for _, name := range []string{"X-Spam-Flag", "X-Spam-Status", "X-Sluice-Class", "X-Virus-Status"} {
			bears(t, m, name)
		}
		if got := m.Fields("Subject"); len(got) != 1 || got[0] != subject {
			t.Errorf("Subject %q", got)
		}
	}
	submit(cron("Cron first"))
	unmarked("Cron first")
	d.waitLog(t, "msg=message", "direction=outbound", "recipient=root@host.example.net", "disposition=accept")

	submit(cron("Cron spam") + testkit.GTUBE() + "\n")
	d.waitLog(t, "msg=message", "550 5.7.1", "recipient=root@host.example.net")
	emptyQueue(t, p)

	clamd.Kill()
	submit(cron("Cron while clamd is away"))
	d.waitLog(t, "msg=message", "451 4.7.1", "class=failed")
	queued, err := p.Queued()
	if err != nil || queued["maildrop"] != 1 || count(sink, "Cron while clamd is away") != 0 {
		t.Errorf("queued %v, %v", queued, err)
	}
	if err := clamd.Start(); err != nil {
		t.Fatal(err)
	}
	d.waitMetric(t, "sluice_scanner_up", "1", is(1))
	pickup(t, p)
	unmarked("Cron while clamd is away")
	emptyQueue(t, p)
	if n := count(sink, "Cron spam"); n != 0 {
		// What comes back is a bounce to the user, whose subject is another.
		t.Errorf("spam arrived %d times", n)
	}
	if n := count(sink, "Cron while clamd is away"); n != 1 {
		t.Errorf("arrived %d times", n)
	}
}
