package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sluice/internal/testkit"
)

// Who sends and who gets, unless a test says otherwise.
const (
	alice = "alice@example.net"
	bob   = "bob@example.org"
)

// outside is a client that is no user of ours; Postfix is told so by XCLIENT.
var outside = testkit.ClientOptions{
	Helo:    "mail.example.net",
	XClient: testkit.XClient{Addr: "198.51.100.17", Name: "mail.example.net", Helo: "mail.example.net"},
}

// inside is one on loopback, as Sendmail's, which knows no XCLIENT, always is.
var inside = testkit.ClientOptions{Helo: "mail.example.net"}

// clean, virus and spam are messages of each kind, with a subject to know them by.
func clean(subject string) []byte {
	return identified(subject, testkit.Compose(subject, testkit.Text("The minutes of our meeting on Monday.\n")))
}

func virus(subject string) []byte {
	return identified(subject, testkit.Compose(subject, testkit.Text("See there.\n"), testkit.Attachment("a.com", []byte(testkit.EICAR()))))
}

func spam(subject string) []byte {
	return identified(subject, testkit.Compose(subject, testkit.Text("Dear friend,\n\n"+testkit.GTUBE()+"\n")))
}

func identified(subject string, message []byte) []byte {
	return testkit.WithFields(message, "Message-ID: <"+strings.ReplaceAll(subject, " ", ".")+"@mail.example.net>")
}

// system is a whole mail system. Parts that a test doesn't ask for are nil.
type system struct {
	dir      string
	sink     *testkit.Sink
	clamd    *testkit.Clamd
	daemon   *daemon
	postfix  *testkit.Postfix
	sendmail *testkit.Sendmail
}

// startPostfix starts one before a daemon; the mail goes on to the sink.
func startPostfix(t *testing.T, d *daemon, sink *testkit.Sink, settings map[string]string) *testkit.Postfix {
	t.Helper()
	m := milterOf(d)
	return testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(), SMTPDMilters: m, NonSMTPDMilters: m, Settings: settings})
}

// milterOf is what README has people write in main.cf.
func milterOf(d *daemon) string {
	return fmt.Sprintf("{ unix:%s, connect_timeout=10s, command_timeout=30s, content_timeout=300s, default_action=tempfail }", d.socket)
}

// shared is the system of all tests that break nothing. It is started by the first of
// them and stopped by TestMain.
var shared sharedSystem

type sharedSystem struct {
	once sync.Once
	s    *system
	err  error
}

// sharedPolicy has a domain for each kind of test.
const sharedPolicy = `policies:
  - {match: "@tag.example.org", virus_action: tag, spam_action: tag, banned_action: tag, ambiguous_action: tag, subject_tag: "[SPAM] "}
  - {match: "@drop.example.org", virus_action: discard, spam_action: discard}
  - {match: "@c55.example.net", mark_score: -100, subject_tag: "[SPAM] "}
  - {match: "@c59.example.net", reject_text: "We refuse 100% of it 50%s%n, ask the helpdesk"}
  - {match: "@c62.example.net", max_size: 1, banned_action: reject}
  - {match: "open@c62.example.net", banned_action: tag}
  - {match: "drop@c62.example.net", banned_action: discard}
  - {match: "later@c62.example.net", banned_action: tempfail}
  - {match: "observer@c62.example.net", banned_action: reject, observe: true}
`

func theSystem(t *testing.T) *system {
	t.Helper()
	shared.once.Do(func() { shared.s, shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the shared daemon's log:\n%s", shared.s.daemon.process.LogTail(3<<10))
		}
	})
	return shared.s
}

func startShared() (_ *system, err error) {
	s := &system{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w (%v)", err, s.stop(true))
		}
	}()
	if s.dir, err = testkit.MakeTempDir(); err != nil {
		return nil, err
	}
	sub := func(name string) (dir string) {
		if dir = filepath.Join(s.dir, name); err == nil {
			err = os.Mkdir(dir, 0o755)
		}
		return dir
	}
	c, d, p, m := sub("c"), sub("d"), sub("p"), sub("m")
	if err != nil {
		return nil, err
	}
	if s.sink, err = testkit.RunSink(testkit.SinkOptions{KeepBytes: 1 << 20}); err != nil {
		return nil, err
	}
	if s.clamd, err = testkit.RunClamd(c, testkit.ClamdOptions{Signatures: map[string]string{injectingName: injectingString}}); err != nil {
		return nil, err
	}
	// A client on loopback is a stranger here, so that Sendmail's mail is judged, too.
	if s.daemon, err = runDaemon(d, options{policy: sharedPolicy, scanners: withClamd("60s", s.clamd.Endpoint()), milter: "originating_networks: [192.0.2.0/24]"}); err != nil {
		return nil, err
	}
	if s.postfix, err = testkit.RunPostfix(p, testkit.PostfixOptions{
		Relay: s.sink.Addr(), SMTPDMilters: milterOf(s.daemon), NonSMTPDMilters: milterOf(s.daemon),
		Settings: map[string]string{"message_size_limit": "200000000", "smtp_line_length_limit": "0"},
	}); err != nil {
		return nil, err
	}
	s.sendmail, err = testkit.RunSendmail(m, testkit.SendmailOptions{Relay: s.sink.Addr(), Milter: "unix:" + s.daemon.socket})
	return s, err
}

// stop ends the system, and keeps its files if something failed.
func (s *sharedSystem) stop(failed bool) error {
	if s.s == nil {
		return nil
	}
	return s.s.stop(failed)
}

func (s *system) stop(failed bool) error {
	var errs []string
	note := func(err error) {
		if err != nil {
			errs = append(errs, err.Error())
		}
	}
	if s.postfix != nil {
		note(s.postfix.Stop())
	}
	if s.sendmail != nil {
		note(s.sendmail.Stop())
	}
	if s.daemon != nil && s.daemon.process != nil {
		note(s.daemon.stop())
	}
	if s.clamd != nil {
		note(s.clamd.Stop())
	}
	if s.sink != nil {
		s.sink.Stop()
	}
	if failed {
		errs = append(errs, "files are kept in "+s.dir)
	} else {
		note(os.RemoveAll(s.dir))
	}
	if len(errs) > 0 {
		return fmt.Errorf("%s", strings.Join(errs, "; "))
	}
	return nil
}

// mta is one of the two, for tests that run through both.
type mta struct {
	name, addr string
	client     testkit.ClientOptions
}

func (s *system) both() []mta {
	return []mta{{"Postfix", s.postfix.SMTP, outside}, {"Sendmail", s.sendmail.SMTP, inside}}
}

// smtp sends one message by SMTP and returns the reply that settled it.
func smtp(t *testing.T, addr string, client testkit.ClientOptions, data []byte, recipients ...string) string {
	t.Helper()
	reply, err := trySMTP(t.Context(), addr, client, data, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func trySMTP(ctx context.Context, addr string, client testkit.ClientOptions, data []byte, recipients ...string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, 2*patience)
	defer stop()
	if len(recipients) == 0 {
		recipients = []string{bob}
	}
	results, err := testkit.Send(ctx, addr, client, testkit.Mail{Sender: alice, SenderArgs: "BODY=8BITMIME", Recipients: recipients, Data: data})
	if err != nil {
		return "", err
	}
	return results[0].Final().String(), nil
}

// replies says that a reply begins as it should.
func replies(t *testing.T, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) {
		t.Errorf("the reply is %q, want %s", got, want)
	}
}

// arrives waits for the message of that subject.
func arrives(t *testing.T, sink *testkit.Sink, subject string) testkit.Delivery {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	d, err := sink.WaitForSubject(ctx, subject)
	if err != nil {
		t.Fatalf("%q did not arrive: %v", subject, err)
	}
	return d
}

// count returns how many messages with that in their subject have arrived.
func count(sink *testkit.Sink, subject string) int {
	n := 0
	for _, d := range sink.Deliveries() {
		if f := d.Fields("Subject"); len(f) > 0 && strings.Contains(f[0], subject) {
			n++
		}
	}
	return n
}

// bears says that a message has exactly these values of a field.
func bears(t *testing.T, d testkit.Delivery, name string, want ...string) {
	t.Helper()
	got := d.Fields(name)
	if len(got) != len(want) {
		t.Errorf("%s: %q, want %q", name, got, want)
		return
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s: %q, want %q", name, got[i], want[i])
		}
	}
}

// emptyQueue waits until Postfix has nothing left, so that what hasn't arrived won't.
func emptyQueue(t *testing.T, p *testkit.Postfix) {
	t.Helper()
	eventually(t, func() error {
		queued, err := p.Queued()
		if err != nil {
			return err
		}
		for queue, n := range queued {
			if n > 0 {
				return fmt.Errorf("%d messages in %s", n, queue)
			}
		}
		return nil
	})
}

// milterMail is a message from outside, as an MTA hands it over.
func milterMail(data []byte, recipients ...string) testkit.MilterMail {
	if len(recipients) == 0 {
		recipients = []string{bob}
	}
	return testkit.MilterMail{
		ClientName: "mail.example.net", ClientAddr: netip.MustParseAddr("198.51.100.17"), ClientPort: 2525, Helo: "mail.example.net",
		QueueID: "4Q1", Sender: alice, Recipients: recipients, Data: data,
	}
}

// dial opens a milter connection, which is dropped at the end of the test.
func (d *daemon) dial(t *testing.T, o testkit.MilterOptions) *testkit.MilterClient {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	c, err := testkit.DialMilter(ctx, "unix", d.socket, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Drop() }) // closed already, perhaps
	return c
}

// deliver hands one message over on a connection of its own.
func (d *daemon) deliver(ctx context.Context, m testkit.MilterMail) (testkit.MilterResult, error) {
	ctx, stop := context.WithTimeout(ctx, 2*patience)
	defer stop()
	c, err := testkit.DialMilter(ctx, "unix", d.socket, testkit.MilterOptions{})
	if err != nil {
		return testkit.MilterResult{}, err
	}
	defer func() { _ = c.Close() }() // the answer is there
	return c.Send(ctx, m)
}

// answers hands one message over and compares the reply's start.
func (d *daemon) answers(t *testing.T, data []byte, want string) testkit.MilterResult {
	t.Helper()
	r, err := d.deliver(t.Context(), milterMail(data))
	if err != nil {
		t.Errorf("%v, want %s", err, want)
		return r
	}
	replies(t, r.Reply.SMTP(), want)
	return r
}
