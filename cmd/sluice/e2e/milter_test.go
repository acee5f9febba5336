package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/testkit"
)

// steady says that a daemon holds no more goroutines, descriptors and bytes than before.
type steady struct{ goroutines, files float64 }

func (d *daemon) steady(t *testing.T) steady {
	t.Helper()
	d.answers(t, clean("warm-up"), "250")
	d.waitMetric(t, "sluice_milter_connections", "0", is(0))
	return steady{d.metric(t, "go_goroutines"), d.metric(t, "process_open_fds")}
}

func (s steady) check(t *testing.T, d *daemon) {
	t.Helper()
	d.waitMetric(t, "go_goroutines", "what it was", func(v float64) bool { return v <= s.goroutines+3 })
	d.waitMetric(t, "process_open_fds", "what it was", func(v float64) bool { return v <= s.files+2 })
	d.waitMetric(t, "sluice_spool_bytes", "0", is(0))
	d.waitMetric(t, "sluice_messages_in_flight", "0", is(0))
	d.waitMetric(t, "sluice_milter_connections", "0", is(0))
}

// TestFaultMTADisconnectMidBody: MTAs that go away amid a message leave nothing behind.
func TestFaultMTADisconnectMidBody(t *testing.T) {
	t.Parallel()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("50s", fake.Endpoint()), milter: "memory_limit: 1MiB"})
	before := d.steady(t)
	const rounds, each = 4, 25
	for range rounds {
		ctx, goAway := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range each {
			c := d.dial(t, testkit.MilterOptions{MTA: testkit.MTA(i % 2)}) // Postfix's way and Sendmail's
			wg.Go(func() {
				m := milterMail(testkit.Sized("never ends", 200<<10))
				m.ChunkBytes, m.ChunkDelay = 65535, time.Hour // so it stops amid the body
				if _, err := c.Send(ctx, m); err == nil {
					t.Error("a message that never ended was answered")
				}
				_ = c.Drop() // closed already, perhaps
			})
		}
		d.waitMetric(t, "sluice_messages_in_flight", "all", is(each))
		goAway()
		wg.Wait()
	}
	before.check(t, d)
	if v := d.metric(t, "sluice_messages_abandoned_total"); v != rounds*each {
		t.Errorf("%v messages were abandoned, want %d", v, rounds*each)
	}
	if n := strings.Count(d.log(), "disposition=abandoned"); n != rounds*each {
		t.Errorf("%d lines for %d messages", n, rounds*each)
	}
	if v := d.metric(t, "sluice_messages_total"); v != 1 { // the warm-up
		t.Errorf("%v messages count as answered", v)
	}
}

// TestFaultMTADisconnectAtEOM: the scan for an MTA that is gone ends, and the message is
// accounted for.
func TestFaultMTADisconnectAtEOM(t *testing.T) {
	t.Parallel()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("55s", fake.Endpoint())})
	before := d.steady(t)
	fake.SetScans(testkit.FakeHang)
	asked := fake.Commands("FILDES")
	const n = 30 // more than the workers that may scan at once
	ctx, goAway := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range n {
		c := d.dial(t, testkit.MilterOptions{})
		wg.Go(func() {
			if _, err := c.Send(ctx, milterMail(clean("nobody waits"))); err == nil {
				t.Error("a message was answered that clamd still has")
			}
			_ = c.Drop() // closed already, perhaps
		})
	}
	d.waitMetric(t, "sluice_messages_in_flight", "all", is(n))
	eventually(t, func() error {
		if fake.Commands("FILDES") == asked {
			return errors.New("clamd was not asked")
		}
		return nil
	})
	goAway()
	wg.Wait()
	before.check(t, d) // long before the scanner's own limit
	eventually(t, func() error {
		if open := fake.Open(); open > 0 {
			return fmt.Errorf("%d scans go on", open)
		}
		return nil
	})
	if got := strings.Count(d.log(), "msg=message"); got != n+1 {
		t.Errorf("%d lines for %d messages", got, n+1)
	}
	fake.SetScans(testkit.FakeAnswer("OK"))
	eventually(t, func() error { // the breaker may have opened
		r, err := d.deliver(t.Context(), milterMail(clean("after")))
		if err == nil && !strings.HasPrefix(r.Reply.SMTP(), "250") {
			err = errors.New(r.Reply.SMTP())
		}
		return err
	})
}

// TestFaultMTADisconnectBySMTP: SMTP clients that go away amid DATA are the MTA's to deal
// with; neither of the two leaves us anything.
func TestFaultMTADisconnectBySMTP(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	postfix := startPostfix(t, d, sink, nil)
	sendmail := testkit.StartSendmail(t, testkit.SendmailOptions{Relay: sink.Addr(), Milter: "unix:" + d.socket})
	before := d.steady(t)
	for _, addr := range []string{postfix.SMTP, sendmail.SMTP} {
		for range 5 {
			c, err := testkit.Dial(t.Context(), addr, inside)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{"MAIL FROM:<" + alice + ">", "RCPT TO:<" + bob + ">", "DATA", "Subject: broken off\r\n\r\nHello\r\n"} {
				if strings.HasPrefix(line, "Subject") {
					break
				}
				if r, err := c.Command(line); err != nil || !r.OK() {
					t.Fatal(line, r, err)
				}
			}
			if err := c.Abort(); err != nil {
				t.Error(err)
			}
		}
	}
	before.check(t, d)
	if n := len(sink.Deliveries()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestFaultMalformedMilterPackets: what isn't the protocol ends its own session and no other.
func TestFaultMalformedMilterPackets(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{})
	before := d.steady(t)
	other := d.dial(t, testkit.MilterOptions{})
	long := func(n uint32, code byte) []byte { return append(binary.BigEndian.AppendUint32(nil, n), code) }
	message := begin(alice, bob)
	for _, tc := range []struct {
		name string
		// fresh: the bytes are the first of the connection, without negotiation.
		fresh bool
		data  []byte
	}{
		{"HTTP", true, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"SMTP", true, []byte("EHLO mail.example.net\r\n")},
		{"TLS", true, []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
		{"zero bytes", true, make([]byte, 4096)},
		{"ones", true, []byte(strings.Repeat("\xff", 4096))},
		{"message before negotiation", true, message},
		{"negotiation too short", true, frame('O', "\x00\x00")},
		{"negotiation of version 0", true, frame('O', strings.Repeat("\x00", 12))},
		{"negotiation twice", false, offer()},
		{"frame without length", false, []byte{0, 0, 0, 0}},
		{"frame of 2 GiB", false, long(1<<31, 'B')},
		{"frame of 4 GiB", false, long(1<<32-1, 'L')},
		{"unknown command", false, frame('!', "what")},
		{"code 0", false, frame(0, "")},
		{"body first", false, frame('B', "body")},
		{"end first", false, frame('E', "")},
		{"header without NUL", false, append(message[:len(message):len(message)], frame('L', "Subject")...)},
		{"header without value", false, append(message[:len(message):len(message)], frame('L', "Subject\x00")...)},
		{"sender without NUL", false, frame('M', "<a@example.net>")},
		{"sender empty", false, frame('M', "")},
		{"recipient first", false, frame('R', "<bob@example.org>\x00")},
		{"macros without values", false, frame('D', "Mi\x00")},
		{"macros empty", false, frame('D', "")},
		{"connect of a kind unknown", false, frame('C', "host\x00X\x00\x19address\x00")},
		{"connect cut", false, frame('C', "host\x004\x00")},
		{"random", false, []byte("\x00\x00\x00\x05Mab\x00\x00\x00\x01\x02\x03\x00\x00\x00\x09\x7f\x80\x81")},
		{"cut frame", false, long(1000, 'B')},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("unix", d.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			data := tc.data
			if !tc.fresh {
				data = append(offer(), data...)
			}
			if _, err := conn.Write(data); err != nil {
				t.Fatal(err)
			}
			if r, err := other.Send(t.Context(), milterMail(clean("unmoved"))); err != nil || !strings.HasPrefix(r.Reply.SMTP(), "250") {
				t.Errorf("another session meanwhile: %q %v", r.Reply.SMTP(), err)
			}
			// Whatever it was, our end of the stream is the session's end.
			if err := conn.(*net.UnixConn).CloseWrite(); err != nil && !strings.Contains(err.Error(), "not connected") {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the session goes on: %v", err)
			}
		})
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	before.check(t, d)
	if v := d.metric(t, "sluice_milter_malformed_frames_total"); v == 0 {
		t.Error("no malformed frame was counted")
	}
	if v := d.metric(t, "sluice_panics_total"); v != 0 {
		t.Errorf("%v panics", v)
	}
}

// TestFaultSlowMilterClient: who begins a frame must end it; who is slow between frames is
// served; and nobody else waits for either.
func TestFaultSlowMilterClient(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{})
	before := d.steady(t)
	ended := make(chan string, 10)
	stuck := 0
	for _, begun := range [][]byte{
		{0},                                   // a length, begun
		frame('L', "Subject\x00slow\x00")[:8], // a frame, begun
		frame('B', strings.Repeat("x", 60000))[:30000],
	} {
		c := d.dial(t, testkit.MilterOptions{CommandTimeout: patience})
		if err := c.Raw(append(begin(alice, bob), begun...)); err != nil {
			t.Fatal(err)
		}
		stuck++
		go func() {
			for {
				if _, _, err := c.ReadReply(); err != nil {
					ended <- fmt.Sprint(err)
					return
				}
			}
		}()
	}
	silent, err := net.Dial("unix", d.socket) // doesn't even negotiate
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stuck++
	go func() {
		_, err := io.Copy(io.Discard, silent)
		ended <- fmt.Sprint(err, io.EOF)
	}()

	c := d.dial(t, testkit.MilterOptions{MTA: testkit.SendmailMTA})
	m := milterMail(spam("slow"))
	m.ChunkBytes, m.ChunkDelay = 20, 200*time.Millisecond
	r, err := c.Send(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	replies(t, r.Reply.SMTP(), "550 5.7.1")
	for range 5 {
		d.answers(t, clean("others"), "250")
	}
	for range stuck {
		if how := <-ended; !strings.Contains(how, "EOF") && !strings.Contains(how, "reset") {
			t.Errorf("a session that was stuck ended with %s", how)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	before.check(t, d)
}

// TestFaultHalfOpenTCP: the kernel looks after connections over TCP, so that one whose
// other end is gone without a word comes to an end.
func TestFaultHalfOpenTCP(t *testing.T) {
	t.Parallel()
	port := testkit.FreePort(t)
	startDaemon(t, options{milter: fmt.Sprintf(`listen: ["unix:run/milter.sock", "inet:127.0.0.1:%d"]`, port)})
	c, err := testkit.DialMilter(t.Context(), "tcp", testkit.Loopback(port), testkit.MilterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Drop() }() // all is done
	if r, err := c.Send(t.Context(), milterMail(clean("over TCP"))); err != nil || !strings.HasPrefix(r.Reply.SMTP(), "250") {
		t.Fatalf("%q %v", r.Reply.SMTP(), err)
	}
	// proc_net_tcp(5): timer 2 of an established socket is the one of keepalive.
	eventually(t, func() error {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line)
			if len(f) < 6 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) || f[3] != "01" {
				continue
			}
			if strings.HasPrefix(f[5], "02:") {
				return nil
			}
			return fmt.Errorf("no keepalive: %s", line)
		}
		return errors.New("the connection isn't in the kernel's table")
	})
}

// TestFaultThousandIdleSessions: connections that wait cost little, and nobody waits for them.
func TestFaultThousandIdleSessions(t *testing.T) {
	t.Parallel()
	binary, err := built.plain()
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, options{binary: binary})
	before := d.steady(t)
	rss, err := testkit.ProcessUsage(d.process.PID())
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	clients := make([]*testkit.MilterClient, n)
	for i := range clients {
		clients[i] = d.dial(t, testkit.MilterOptions{})
		if r, err := clients[i].Send(t.Context(), milterMail(clean("one each"))); err != nil || !strings.HasPrefix(r.Reply.SMTP(), "250") {
			t.Fatalf("connection %d: %q %v", i, r.Reply.SMTP(), err)
		}
	}
	if v := d.metric(t, "sluice_milter_connections"); v != n {
		t.Errorf("%v connections", v)
	}
	with, err := testkit.ProcessUsage(d.process.PID())
	if err != nil {
		t.Fatal(err)
	}
	if each := (with.RSS - rss.RSS) / n; each > 256<<10 {
		t.Errorf("%d bytes each", each)
	} else {
		t.Logf("%d bytes each", each)
	}
	d.answers(t, spam("amid them"), "550 5.7.1")
	for i, c := range clients { // none was given up
		if i%100 == 0 {
			if r, err := c.Send(t.Context(), milterMail(clean("one more"))); err != nil || !strings.HasPrefix(r.Reply.SMTP(), "250") {
				t.Errorf("connection %d: %q %v", i, r.Reply.SMTP(), err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(strconv.Itoa(i), err)
		}
	}
	before.check(t, d)
}
