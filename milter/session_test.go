package milter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/google/go-cmp/cmp"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

func TestAWholeMessage(t *testing.T) {
	f := start(t, nil)
	f.onFinish = func(_ context.Context, r *fakeRun) policy.Disposition {
		return policy.Disposition{
			RemoveRecipients: []string{"two@example.org"},
			Fields: []policy.FieldChange{
				{Op: policy.DeleteField, Name: "X-Spam-Flag", Index: 2},
				{Op: policy.InsertField, Name: "X-Sluice-ID", Value: "one\n\ttwo", Index: 1},
			},
		}
	}
	m := dial(t, f.addr, postfixOffer)
	m.macros('C', "j", "mx.example.org", "{daemon_name}", "smtpd", "v", "Postfix 3.7.11")
	m.connect("192.0.2.1", 4711)
	m.expect('H', "helo.example.net\x00")
	m.macros('M', "{auth_authen}", "user@example.org", "{mail_addr}", "s@example.net")
	m.expect('M', "<s@example.net>\x00SIZE=100\x00BODY=8BITMIME\x00SMTPUTF8\x00")
	m.expect('R', "<one@example.org>\x00NOTIFY=NEVER\x00ORCPT=rfc822;one@example.org\x00")
	m.macros('R', "i", "QUEUE1")
	m.expect('R', "<two@example.org>\x00")
	m.macros('L', "i", "QUEUE1")
	m.content([][2]string{{"Subject", " a"}, {"X-Folded", " one\n\ttwo"}, {"X-Dup", "1"}, {"x-dup", "2"}, {"Empty", ""}}, "first\r\n", "second\r\n")
	m.macros('E', "i", "QUEUE1")
	got := m.end()
	want := []string{
		"-<two@example.org>\x00",
		"m\x00\x00\x00\x02X-Spam-Flag\x00\x00",
		"i\x00\x00\x00\x01X-Sluice-ID\x00 one\n\ttwo\x00",
		"a",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
	r := f.run(0)
	if r.err != nil || r.queueID != "QUEUE1" {
		t.Errorf("answered %v, queue ID %q", r.err, r.queueID)
	}
	wantRaw := "Subject: a\r\nX-Folded: one\r\n\ttwo\r\nX-Dup:1\r\nx-dup:2\r\nEmpty:\r\n\r\nfirst\r\nsecond\r\n"
	if r.raw != wantRaw {
		t.Errorf("message:\n%q\nwant\n%q", r.raw, wantRaw)
	}
	e := r.env
	if e.Received.IsZero() || e.SessionID == "" {
		t.Errorf("received %v, session ID %q", e.Received, e.SessionID)
	}
	wantMacros := map[string]string{"j": "mx.example.org", "{daemon_name}": "smtpd", "v": "Postfix 3.7.11",
		"{auth_authen}": "user@example.org", "{mail_addr}": "s@example.net", "i": "QUEUE1"}
	if d := cmp.Diff(wantMacros, e.Macros); d != "" {
		t.Errorf("macros (-want +got):\n%s", d)
	}
	e.Macros = nil
	wantEnv := envelope.Envelope{
		SessionID: e.SessionID, QueueID: "QUEUE1", Daemon: "smtpd", Host: "mx.example.org", MTA: "Postfix 3.7.11",
		Login:  "user@example.org",
		Client: envelope.Client{Addr: netip.MustParseAddr("192.0.2.1"), Port: 4711, Name: "client.example.net", Helo: "helo.example.net"},
		Sender: envelope.Sender{Address: envelope.Parse("<s@example.net>"), Parameters: []envelope.Parameter{{Name: "SIZE", Value: "100"}, {Name: "BODY", Value: "8BITMIME"}, {Name: "SMTPUTF8"}}},
		Recipients: []envelope.Recipient{
			{Address: envelope.Parse("one@example.org"), Parameters: []envelope.Parameter{{Name: "NOTIFY", Value: "NEVER"}, {Name: "ORCPT", Value: "rfc822;one@example.org"}}},
			{Address: envelope.Parse("two@example.org")},
		},
		HandsOverAtOnce: true,
		Received:        e.Received,
	}
	if got, want := fmt.Sprintf("%+v", *e), fmt.Sprintf("%+v", wantEnv); got != want {
		t.Errorf("envelope\n got %s\nwant %s", got, want)
	}
}

func TestNegotiation(t *testing.T) {
	tests := []struct {
		name  string
		offer terms
		want  terms
		lists bool
	}{
		{"Postfix", postfixOffer, terms{6, 0x119, 0x1c3380}.withRcpt(), true},
		{"Sendmail of version 2", oldOffer, terms{2, 0x1d, 0}, false},
		{"later version", terms{7, 0xffffffff, 0xffffffff}, terms{6, 0x11d, 0x1c3380}, true},
		{"no actions", terms{6, 0, 0x1fffff}, terms{6, 0, 0x1c3380}, false},
		{"no steps", terms{6, 0x1ff, 0}, terms{6, 0x11d, 0}, true},
		{"symbol lists at version 4", terms{4, 0x1ff, 0x3ff}, terms{4, 0x1d, 0x380}, false},
	}
	f := start(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := dial(t, f.addr, tt.offer)
			if m.terms != tt.want {
				t.Errorf("got %x, want %x", m.terms, tt.want)
			}
			if got := strings.Contains(m.symbols, "{auth_authen}"); got != tt.lists {
				t.Errorf("symbol lists %q", m.symbols)
			}
			m.greet()
			if r := m.message("s@example.net", "r@example.org"); r != "a" {
				t.Errorf("reply %q", r)
			}
		})
	}
}

// withRcpt adds that recipients may be added and removed.
func (t terms) withRcpt() terms {
	t.actions |= gomilter.OptAddRcpt | gomilter.OptRemoveRcpt
	return t
}

func TestBlankAfterTheColon(t *testing.T) {
	for _, tt := range []struct {
		name  string
		offer terms
		value string // as the MTA sends "Subject: x"
		want  string // as it is to get ours
	}{
		{"MTA keeps it", postfixOffer, " x", " v"},
		{"MTA takes it off", oldOffer, "x", "v"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			f.onFinish = func(context.Context, *fakeRun) policy.Disposition {
				return policy.Disposition{Fields: []policy.FieldChange{{Name: "X-A", Value: "v"}}}
			}
			m := dial(t, f.addr, tt.offer)
			m.greet()
			m.begin("s@example.net", "r@example.org")
			m.content([][2]string{{"Subject", tt.value}})
			if got, want := m.end()[0], "i\x00\x00\x00\x00X-A\x00"+tt.want+"\x00"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if r := f.run(0); r.raw != "Subject: x\r\n\r\n" {
				t.Errorf("message %q", r.raw)
			}
		})
	}
}

// Two defects at once: the library begins a new backend after a verdict, and keeps header
// fields from message to message where no ABORT comes between (Sendmail).
func TestSeveralMessagesOnAConnection(t *testing.T) {
	for _, abort := range []bool{true, false} {
		t.Run(fmt.Sprintf("ABORT %v", abort), func(t *testing.T) {
			f := start(t, nil)
			f.onFinish = func(_ context.Context, r *fakeRun) policy.Disposition {
				if strings.Contains(r.raw, "virus") {
					return policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "no (id 1)"}}
				}
				return policy.Disposition{Fields: []policy.FieldChange{{Name: "X-ID", Value: r.queueID}}}
			}
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			send := func(queueID, field, body, sender string, rcpts ...string) []string {
				m.macros('M', "i", queueID)
				m.begin(sender, rcpts...)
				m.content([][2]string{{field, " 1"}}, body)
				got := m.end()
				if abort {
					m.write('A')
				}
				return got
			}
			m.macros('M', "i", "Q1", "{auth_authen}", "first@example.org")
			m.expect('M', "<one@example.net>\x00")
			m.expect('R', "<a@example.org>\x00")
			m.content([][2]string{{"X-One", " 1"}}, "virus\r\n")
			if got := m.end(); !slices.Equal(got, []string{"y550 5.7.1 no (id 1)\x00"}) {
				t.Errorf("first: %q", got)
			}
			if abort {
				m.write('A')
			}
			m.begin("two@example.net", "b@example.org") // no macro i
			m.content([][2]string{{"X-Two", " 1"}}, "clean\r\n")
			m.macros('E', "i", "Q2")
			if got := m.end(); got[0] != "i\x00\x00\x00\x00X-ID\x00 Q2\x00" || got[1] != "a" {
				t.Errorf("second: %q", got)
			}
			if abort {
				m.write('A')
			}
			// Broken off after its header.
			m.begin("three@example.net", "c@example.org")
			m.content([][2]string{{"X-Three", " 1"}})
			if abort {
				m.write('A')
			}
			if got := send("Q4", "X-Four", "clean\r\n", "four@example.net", "d@example.org", "e@example.org"); got[len(got)-1] != "a" {
				t.Errorf("fourth: %q", got)
			}

			wants := []struct {
				raw, sender, login, call string
				rcpts                    int
			}{
				{"X-One: 1\r\n\r\nvirus\r\n", "one@example.net", "first@example.org", "finish", 1},
				{"X-Two: 1\r\n\r\nclean\r\n", "two@example.net", "", "finish", 1},
				{"", "three@example.net", "", "abandon: ", 1},
				{"X-Four: 1\r\n\r\nclean\r\n", "four@example.net", "", "finish", 2},
			}
			for i, want := range wants {
				r := f.run(i)
				if r.raw != want.raw || r.env.Sender.Address.String() != want.sender || r.env.Login != want.login ||
					!strings.HasPrefix(r.calls[0], want.call) || len(r.env.Recipients) != want.rcpts {
					t.Errorf("message %d: %q from %v, login %q, %v, calls %q", i+1, r.raw, r.env.Sender.Address, r.env.Login, r.env.Recipients, r.calls)
				}
				if c := r.env.Client; c.Addr != netip.MustParseAddr("192.0.2.1") || c.Helo != "helo.example.net" || r.env.Daemon != "mx.example.org" {
					t.Errorf("message %d: client %+v, daemon %q", i+1, c, r.env.Daemon)
				}
			}
			if f.count() != len(wants) {
				t.Errorf("%d runs", f.count())
			}
		})
	}
}

func TestMacrosOfEarlierStages(t *testing.T) {
	f := start(t, nil)
	m := dial(t, f.addr, postfixOffer)
	// Sendmail: i comes at MAIL only, and EOM has a set of its own.
	m.macros('C', "{daemon_name}", "MTA")
	m.connect("192.0.2.1", 4711)
	m.macros('H', "{tls_version}", "TLSv1.2")
	m.expect('H', "one\x00")
	m.macros('H', "{tls_version}", "TLSv1.3")
	m.expect('H', "two\x00")
	m.macros('M', "{i}", "Q1", "{auth_authen}", "u")
	m.expect('M', "<>\x00")
	m.macros('R', "{rcpt_addr}", "r")
	m.expect('R', "<r@example.org>\x00")
	m.content([][2]string{{"A", " 1"}})
	m.macros('E', "{msg_id}", "<m@example.net>")
	if got := m.end(); got[0] != "a" {
		t.Fatal(got)
	}
	r := f.run(0)
	if r.queueID != "Q1" || r.env.Login != "u" || r.env.Macros["{tls_version}"] != "TLSv1.3" || r.env.Daemon != "MTA" || r.env.Client.Helo != "two" {
		t.Errorf("queue ID %q, envelope %+v", r.queueID, r.env)
	}
	if !r.env.Sender.Address.IsNull() {
		t.Errorf("sender %v", r.env.Sender.Address)
	}
}

func TestClients(t *testing.T) {
	port := func(n uint16) string { return string(binary.BigEndian.AppendUint16(nil, n)) }
	tests := []struct {
		name, data string
		macros     []string
		addr       string // "" = none
		host       string
		local      bool
	}{
		{"IPv6 as Sendmail writes it", "h\x006" + port(25) + "IPv6:2001:db8:0:0:0:0:0:1\x00", nil, "2001:db8::1", "h", false},
		{"IPv6 as Postfix writes it", "h\x006" + port(25) + "2001:db8::1\x00", nil, "2001:db8::1", "h", false},
		{"mapped IPv4", "h\x006" + port(25) + "::ffff:192.0.2.1\x00", nil, "192.0.2.1", "h", false},
		{"without NUL at the end", "h\x004" + port(25) + "192.0.2.1", nil, "192.0.2.1", "h", false},
		{"unreadable address", "h\x004" + port(0) + "unknown\x00", nil, "", "h", false},
		{"unknown family", "unknown\x00U", nil, "", "unknown", false},
		{"unix socket", "localhost\x00L" + port(0) + "/run/x\x00", nil, "", "localhost", false},
		{"pickup", "localhost\x004" + port(0) + "127.0.0.1\x00", nil, "127.0.0.1", "localhost", true},
		{"port 0 from outside", "h\x004" + port(0) + "192.0.2.1\x00", nil, "192.0.2.1", "h", false},
		{"port 0 with a login", "localhost\x004" + port(0) + "127.0.0.1\x00", []string{"{auth_authen}", "u"}, "127.0.0.1", "localhost", false},
		{"name that doesn't resolve", "[192.0.2.1]\x004" + port(25) + "192.0.2.1\x00", nil, "192.0.2.1", "unknown", false},
		{"forged name", "h\x004" + port(25) + "192.0.2.1\x00", []string{"{client_resolve}", "FORGED"}, "192.0.2.1", "unknown", false},
	}
	f := start(t, nil)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := dial(t, f.addr, postfixOffer)
			m.macros('C', append([]string{"j", "mx"}, tt.macros...)...)
			m.expect('C', tt.data)
			m.expect('H', "helo\x00")
			if r := m.message("s@example.net", "r@example.org"); r != "a" {
				t.Fatalf("reply %q", r)
			}
			e := f.run(i).env
			want := netip.Addr{}
			if tt.addr != "" {
				want = netip.MustParseAddr(tt.addr)
			}
			if e.Client.Addr != want || e.Client.Name != tt.host || e.Local != tt.local {
				t.Errorf("address %v, name %q, local %v", e.Client.Addr, e.Client.Name, e.Local)
			}
		})
	}
}

// A refused recipient must not cost the message its sender and other recipients.
func TestRecipientRefusedThenEndOfMessage(t *testing.T) {
	f := start(t, func(o *Options) { o.MaxRecipients = 2 })
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net", "one@example.org", "two@example.org")
	for range 3 {
		if r := m.command('R', "<late@example.org>\x00"); !strings.HasPrefix(r, "y452 4.5.3 Too many recipients (id ") {
			t.Fatalf("reply %q", r)
		}
	}
	m.content(nil, "x\r\n")
	if got := m.end(); got[0] != "a" {
		t.Fatal(got)
	}
	e := f.run(0).env
	if e.Sender.Address.String() != "s@example.net" || len(e.Recipients) != 2 || e.Client.Helo == "" {
		t.Errorf("envelope %+v", e)
	}
}

func TestManyRecipientsAreBounded(t *testing.T) {
	f := start(t, func(o *Options) { o.MaxEnvelopeBytes = 1 << 20 })
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net")
	refused := 0
	rcpt := "<" + strings.Repeat("r", 200) + "@example.org>\x00"
	for range 20_000 {
		switch r := m.command('R', rcpt); {
		case strings.HasPrefix(r, "y452 4.5.3 "):
			refused++
		case r != "c" || refused > 0:
			t.Fatalf("reply %q", r)
		}
	}
	m.content(nil, "x\r\n")
	if got := m.end(); got[0] != "a" {
		t.Fatal(got)
	}
	if n := len(f.run(0).env.Recipients); n == 0 || n*200 > 1<<20 || n+refused != 20_000 {
		t.Errorf("%d recipients, %d refused", n, refused)
	}
}

// With the no-reply bits any reply would be taken for that to a later command, and the
// final reject would be lost.
func TestNoReplyBitsWithFinalReject(t *testing.T) {
	for _, offer := range []terms{postfixOffer, oldOffer, {6, 0x1ff, 0x80}, {6, 0x1ff, uint32Steps(gomilter.OptNoBodyReply)}} {
		t.Run(fmt.Sprintf("%x", offer.steps), func(t *testing.T) {
			f := start(t, nil)
			f.onFinish = func(context.Context, *fakeRun) policy.Disposition {
				return policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "no"}}
			}
			m := dial(t, f.addr, offer)
			m.greet()
			m.begin("s@example.net", "r@example.org")
			m.content([][2]string{{"A", "1"}, {"B", "2"}}, "x\r\n", "y\r\n")
			if got := m.end(); !slices.Equal(got, []string{"y550 5.7.1 no\x00"}) {
				t.Errorf("answer %q", got)
			}
			m.write('Q')
			m.closed() // and nothing more came
		})
	}
}

func uint32Steps(s gomilter.OptProtocol) gomilter.OptProtocol { return s }

func TestNothingOfAFieldGoesUnseen(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"NUL inside", "X-A\x00 one\x00two\x00", "X-A: one\x00two\r\n\r\n"},
		{"no name", "\x00 value\x00", ": value\r\n\r\n"},
		{"no value", "X-A\x00", "X-A:\r\n\r\n"},
		{"one word", "X-A", "X-A:\r\n\r\n"},
		{"empty", "", ":\r\n\r\n"},
		{"no NUL at the end", "X-A\x00 v", "X-A: v\r\n\r\n"},
		{"8-bit", "X-A\x00 \xff\xfe\x00", "X-A: \xff\xfe\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			m.begin("s@example.net", "r@example.org")
			m.expect('L', tt.data)
			m.expect('N')
			if got := m.end(); got[0] != "a" {
				t.Fatal(got)
			}
			if r := f.run(0); r.raw != tt.want {
				t.Errorf("message %q, want %q", r.raw, tt.want)
			}
		})
	}
}

func TestPiecesMayBeLeftOutOrComeLate(t *testing.T) {
	f := start(t, nil)
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net", "r@example.org")
	m.expect('L', "A\x00 1\x00")
	if got := m.end(); got[0] != "a" {
		t.Fatal(got)
	}
	m.begin("s@example.net", "r@example.org")
	m.expect('L', "A\x00 1\x00")
	m.expect('B', "body\r\n")
	if got := m.end(); got[0] != "a" {
		t.Fatal(got)
	}
	m.begin("s@example.net", "r@example.org")
	if got := m.end(); got[0] != "a" {
		t.Fatal(got)
	}
	// libmilter takes the last piece of the body from the end of message.
	m.begin("s@example.net", "r@example.org")
	m.content(nil, "first\r\n")
	m.write('E', "last\r\n")
	if got := m.verdict(); got[0] != "a" {
		t.Fatal(got)
	}
	for i, want := range []string{"A: 1\r\n\r\n", "A: 1\r\n\r\nbody\r\n", "\r\n", "\r\nfirst\r\nlast\r\n"} {
		if r := f.run(i); r.raw != want {
			t.Errorf("message %d: %q", i+1, r.raw)
		}
	}
}

// What the session itself can't take is told at the end of the message, once.
func TestMessagesThatCantBeTaken(t *testing.T) {
	big := strings.Repeat("x", 64<<10)
	for _, tt := range []struct {
		name   string
		change func(*Options)
		spool  mail.SpoolOptions
		fields int
		want   string
	}{
		{"too large", nil, mail.SpoolOptions{MemoryLimit: 8 << 20, MaxBytes: 8 << 20, MaxMessage: 100 << 10}, 1, "y552 5.3.4 "},
		{"spool full", nil, mail.SpoolOptions{MemoryLimit: 100 << 10, MaxBytes: 1, MaxMessage: 8 << 20}, 1, "y451 4.3.1 "},
		{"too many fields", func(o *Options) { o.MaxHeaderFields = 100 }, mail.SpoolOptions{MemoryLimit: 8 << 20, MaxBytes: 8 << 20, MaxMessage: 8 << 20}, 101, "y552 5.3.4 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, tt.change)
			tt.spool.Dir = filepath.Join(t.TempDir(), "spool")
			var err error
			if f.spool, err = mail.NewSpool(tt.spool); err != nil {
				t.Fatal(err)
			}
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			m.begin("s@example.net", "r@example.org")
			m.content(slices.Repeat([][2]string{{"A", " 1"}}, tt.fields), big, big, big)
			got := m.end()
			if len(got) != 1 || !strings.HasPrefix(got[0], tt.want) || !strings.Contains(got[0], "(id ") {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			if m, d := f.spool.Used(); m != 0 || d != 0 {
				t.Errorf("spool still holds %d and %d bytes", m, d)
			}
			if r := m.message("s@example.net", "r@example.org"); r != "a" {
				t.Errorf("next message: %q", r)
			}
		})
	}
}

func TestGatewayThatCantBegin(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"spool full", fmt.Errorf("begin: %w", mail.ErrSpoolFull), "y451 4.3.1 "},
		{"other", errors.New("out of order"), "y451 4.3.0 "},
		{"no message", nil, "y451 4.3.0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			f.onBegin = func(*envelope.Envelope) (*mail.Message, error) { return nil, tt.err }
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			for range 2 {
				if r := m.command('M', "<s@example.net>\x00"); !strings.HasPrefix(r, tt.want) {
					t.Errorf("reply %q, want %q", r, tt.want)
				}
			}
			// Local submission: a refusal before the end would leave the mail in maildrop.
			m.expect('C', "localhost\x004\x00\x00127.0.0.1\x00")
			m.expect('M', "s@example.net\x00")
			m.expect('R', "r@example.org\x00")
			m.content([][2]string{{"A", " 1"}}, "x\r\n")
			if got := m.end(); len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
				t.Errorf("local submission: %q, want %q", got, tt.want)
			}
		})
	}
}

// At the end of message even local submission gets a refusal: continue would pass it.
func TestPanicAtTheEndOfLocalSubmission(t *testing.T) {
	f := start(t, nil)
	f.onStart = func(*fakeRun) Run { panic("boom") }
	m := dial(t, f.addr, postfixOffer)
	m.expect('C', "localhost\x004\x00\x00127.0.0.1\x00")
	m.expect('M', "s@example.net\x00")
	m.expect('R', "r@example.org\x00")
	m.expect('L', "A\x00 1\x00")
	if got := m.end(); len(got) != 1 || !strings.HasPrefix(got[0], "y451 4.3.0 ") { // Start comes only now
		t.Errorf("answer %q", got)
	}
}

// A panic answers 451 and the session lives on.
func TestPanicInTheGateway(t *testing.T) {
	boom := func() { panic("boom") }
	for _, tt := range []struct {
		name  string
		local bool
		set   func(*fixture)
		calls string
	}{
		{"Begin", false, func(f *fixture) {
			f.onBegin = func(*envelope.Envelope) (*mail.Message, error) { boom(); return nil, nil }
		}, ""},
		{"Begin of local submission", true, func(f *fixture) {
			f.onBegin = func(*envelope.Envelope) (*mail.Message, error) { boom(); return nil, nil }
		}, ""},
		{"Start", false, func(f *fixture) { f.onStart = func(*fakeRun) Run { boom(); return nil } }, ""},
		{"Start of local submission", true, func(f *fixture) { f.onStart = func(*fakeRun) Run { boom(); return nil } }, ""},
		{"Start gives no run", false, func(f *fixture) { f.onStart = func(*fakeRun) Run { return nil } }, ""},
		{"Finish", false, func(f *fixture) {
			f.onFinish = func(context.Context, *fakeRun) policy.Disposition { boom(); return policy.Disposition{} }
		}, "finish answered"},
		{"Finish of local submission", true, func(f *fixture) {
			f.onFinish = func(context.Context, *fakeRun) policy.Disposition { boom(); return policy.Disposition{} }
		}, "finish answered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			tt.set(f)
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			if tt.local {
				m.expect('C', "localhost\x004\x00\x00127.0.0.1\x00")
			}
			reply := m.command('M', "<s@example.net>\x00")
			if reply == "c" {
				m.expect('R', "<r@example.org>\x00")
				m.content([][2]string{{"A", " 1"}}, "x\r\n")
				frames := m.end()
				reply = frames[len(frames)-1]
			}
			if !strings.HasPrefix(reply, "y451 4.3.0 ") {
				t.Errorf("reply %q", reply)
			}
			if tt.calls != "" {
				if got := strings.Join(f.run(0).calls, " "); got != tt.calls {
					t.Errorf("calls %q", got)
				}
			}
			if want := 1; tt.name != "Start gives no run" && f.panics.get() != want {
				t.Errorf("%d panics counted", f.panics.get())
			}
			f.onBegin, f.onStart, f.onFinish = nil, nil, nil
			if r := m.message("s@example.net", "r@example.org"); r != "a" {
				t.Errorf("next message: %q", r)
			}
		})
	}
}

func TestChangesThatTheMTADoesNotPermit(t *testing.T) {
	const noRcpt = 0x11
	for _, tt := range []struct {
		name    string
		actions gomilter.OptAction
		d       policy.Disposition
		want    []string
		wantErr bool
	}{
		{"remove a recipient", noRcpt, policy.Disposition{RemoveRecipients: []string{"a@example.org"}}, []string{"y451"}, true},
		{"add a recipient", noRcpt, policy.Disposition{AddRecipients: []string{"a@example.org"}}, []string{"y451"}, true},
		{"insert a field", 0x1c, policy.Disposition{Fields: []policy.FieldChange{{Name: "A", Value: "v"}, {Op: policy.DeleteField, Name: "B", Index: 1}}}, []string{"m\x00\x00\x00\x01B\x00\x00", "a"}, false},
		{"delete a field", 0x0d, policy.Disposition{Fields: []policy.FieldChange{{Name: "A", Value: "v"}, {Op: policy.DeleteField, Name: "B", Index: 1}}}, []string{"i\x00\x00\x00\x00A\x00v\x00", "a"}, false},
		{"reject needs nothing", 0, policy.Disposition{RemoveRecipients: []string{"a@example.org"}, Reply: policy.Reply{Code: 550}}, []string{"y550"}, false},
		{"discard needs nothing", 0, policy.Disposition{RemoveRecipients: []string{"a@example.org"}, Discard: true}, []string{"d"}, false},
		{"nobody left", 0x1d, policy.Disposition{RemoveRecipients: []string{"a@example.org", "b@example.org"}}, []string{"y451"}, true},
		{"another in their place", 0x1d, policy.Disposition{RemoveRecipients: []string{"a@example.org", "b@example.org"}, AddRecipients: []string{"c@example.org"}},
			[]string{"-<a@example.org>\x00", "-<b@example.org>\x00", "+<c@example.org>\x00", "a"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			f.onFinish = func(context.Context, *fakeRun) policy.Disposition { return tt.d }
			m := dial(t, f.addr, terms{6, tt.actions, 0})
			m.greet()
			m.begin("s@example.net", "a@example.org", "b@example.org")
			m.content([][2]string{{"B", "1"}})
			got := m.end()
			if last := &got[len(got)-1]; (*last)[0] == 'y' {
				*last = (*last)[:4]
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("answer (-want +got):\n%s", d)
			}
			if r := f.run(0); (r.err != nil) != tt.wantErr {
				t.Errorf("answered with %v", r.err)
			}
		})
	}
}

func TestUnknownCommandsAndQuitNewConnection(t *testing.T) {
	f := start(t, nil)
	m := dial(t, f.addr, terms{6, 0x1ff, 0})
	m.macros('C', "{daemon_name}", "first")
	m.connect("192.0.2.1", 25)
	m.expect('U', "FOO\x00")
	m.expect('T')
	if r := m.message("s@example.net", "r@example.org"); r != "a" {
		t.Fatal(r)
	}
	m.begin("s@example.net", "r@example.org")
	m.content(nil)
	m.write('K')
	m.expect('C', "unknown\x00U")
	if r := m.message("s@example.net", "r@example.org"); r != "a" {
		t.Fatal(r)
	}
	if r := f.run(1); r.calls[0] != "abandon: aborted by the MTA" {
		t.Errorf("calls %q", r.calls)
	}
	if e := f.run(2).env; e.Client != (envelope.Client{Name: "unknown"}) || e.Daemon != "" {
		t.Errorf("after QUIT_NC: %+v", e)
	}
}

func TestProgressWhileScanning(t *testing.T) {
	f := start(t, func(o *Options) { o.ProgressInterval = time.Millisecond })
	release := make(chan struct{})
	f.onFinish = func(context.Context, *fakeRun) policy.Disposition {
		<-release
		return policy.Disposition{Fields: []policy.FieldChange{{Name: "A", Value: "v"}}}
	}
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net", "r@example.org")
	m.content(nil, "x\r\n")
	m.write('E')
	for range 5 {
		if p := m.read(); p != "p" {
			t.Fatalf("got %q, want progress", p)
		}
	}
	close(release)
	if got := m.verdict(); len(got) != 2 || got[1] != "a" {
		t.Errorf("answer %q", got)
	}
	// Silence after the verdict: the next frame is the reply to the next command.
	if r := m.command('M', "<s@example.net>\x00"); r != "c" {
		t.Errorf("MAIL: %q", r)
	}
}

func TestDispositionReplies(t *testing.T) {
	for _, tt := range []struct {
		name string
		d    policy.Disposition
		want string
	}{
		{"percent and lines", policy.Disposition{Reply: policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "100% of %s\nsecond (id 1)"}}, "y550-5.7.1 100%% of %%s\r\n550 5.7.1 second (id 1)\x00"},
		{"tempfail", policy.Disposition{Reply: policy.Reply{Code: 451, Enhanced: "4.7.1", Text: "later (id 1)"}}, "y451 4.7.1 later (id 1)\x00"},
		{"a code of the gateway's that is none", policy.Disposition{Reply: policy.Reply{Code: 250, Text: "ok"}}, "y451 4.3.0 ok\x00"},
		{"discard", policy.Disposition{Discard: true}, "d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, nil)
			f.onFinish = func(context.Context, *fakeRun) policy.Disposition { return tt.d }
			m := dial(t, f.addr, postfixOffer)
			m.greet()
			if r := m.message("s@example.net", "r@example.org"); r != tt.want {
				t.Errorf("reply %q, want %q", r, tt.want)
			}
		})
	}
}
