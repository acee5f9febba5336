package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testkit"
)

// TestFaultClamdDown: while clamd is away nothing passes, everybody is told, and it goes on
// by itself when clamd is back. (Case 50 from the field.)
func TestFaultClamdDown(t *testing.T) {
	t.Parallel()
	clamd := testkit.StartClamd(t, testkit.ClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("55s", clamd.Endpoint())})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	replies(t, smtp(t, p.SMTP, outside, clean("before")), "250")
	if s := d.status(t); s["state"] != "serving" {
		t.Errorf("status: %v", s)
	}
	if _, err := d.get(t.Context(), "/readyz"); err != nil {
		t.Error(err)
	}

	clamd.Kill()
	for i := range 5 { // the breaker opens on the way
		ctx, stop := context.WithTimeout(t.Context(), patience) // less than that is asked for
		reply, err := trySMTP(ctx, p.SMTP, outside, clean(fmt.Sprintf("away %d", i)))
		stop()
		if err != nil {
			t.Fatal(err)
		}
		replies(t, reply, "451 4.7.1")
		if !strings.Contains(reply, "(id ") {
			t.Errorf("no ID in %q", reply)
		}
	}
	replies(t, smtp(t, p.SMTP, outside, virus("virus while away")), "451 4.7.1")
	eventually(t, func() error {
		if _, err := d.get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "clamav") {
			return fmt.Errorf("/readyz: %v", err)
		}
		return nil
	})
	d.waitMetric(t, "sluice_scanner_up", "0", is(0))
	if out, code := d.command(t, "status"); code != 0 || !strings.Contains(out, "DOWN") {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	if got := d.metric(t, "sluice_scanner_errors_total"); got < 6 {
		t.Errorf("sluice_scanner_errors_total %v", got)
	}

	if err := clamd.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, 15*time.Second, func() error { // so the fault matrix
		reply, err := trySMTP(t.Context(), p.SMTP, outside, clean("back"))
		if err == nil && !strings.HasPrefix(reply, "250") {
			err = fmt.Errorf("still %s", reply)
		}
		return err
	})
	bears(t, arrives(t, sink, "back"), "X-Virus-Status", "Clean")
	eventually(t, func() error { _, err := d.get(t.Context(), "/readyz"); return err })
	replies(t, smtp(t, p.SMTP, outside, virus("virus while back")), "550")
	emptyQueue(t, p)
	for _, never := range []string{"away", "virus"} {
		if n := count(sink, never); n != 0 {
			t.Errorf("%d messages with %q arrived", n, never)
		}
	}
}

// TestFaultClamdSlowHungTrickle: a clamd that doesn't come to an end is given up at the
// scanner's time limit, and other mail doesn't wait for it.
func TestFaultClamdSlowHungTrickle(t *testing.T) {
	trickle := func(c *testkit.FakeConn) { // a byte now and then, for ever
		if _, err := c.ReadMessage(); err != nil {
			return
		}
		for {
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-c.Stopping():
				return
			}
		}
	}
	slowReader := func(c *testkit.FakeConn) { // takes a byte now and then
		var b [1]byte
		for {
			if _, err := c.Read(b[:]); err != nil {
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-c.Stopping():
				return
			}
		}
	}
	for _, tc := range []struct {
		name string
		tcp  bool
		scan testkit.FakeScan
	}{
		{"hung", false, testkit.FakeHang},
		{"trickle", false, trickle},
		{"deaf on TCP", true, testkit.FakeDeaf},
		{"slow on TCP", true, slowReader},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan struct{})
			var once sync.Once
			fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: tc.tcp, Scans: scanOnce(func(c *testkit.FakeConn) {
				once.Do(func() { close(begun) })
				tc.scan(c)
			})})
			d := startDaemon(t, options{scanners: withClamd("6s", fake.Endpoint())})
			files := d.metric(t, "process_open_fds")
			got := make(chan string, 1)
			go func() {
				// Handed over as Sendmail does it, so that TCP has no early scan to try again.
				r, err := d.deliver(t.Context(), milterMail(testkit.Sized("stuck", 300<<10)))
				got <- fmt.Sprint(r.Reply.SMTP(), err)
			}()
			<-begun
			for range 3 {
				d.answers(t, clean("meanwhile"), "250")
			}
			// On TCP the message was streamed while it came; that scan may break off and be made
			// anew, with the answer OK: late, but an answer.
			if r := <-got; !strings.HasPrefix(r, "451 4.7.1") && !(tc.tcp && strings.HasPrefix(r, "250")) {
				t.Errorf("the stuck one: %s", r)
			}
			d.waitMetric(t, "process_open_fds", "what it was", func(v float64) bool { return v <= files })
		})
	}
}

// TestFaultClamdKilledMidScan: nothing passes that clamd was killed over, nor is it lost.
func TestFaultClamdKilledMidScan(t *testing.T) {
	t.Run("handed over", func(t *testing.T) {
		t.Parallel()
		clamd := testkit.StartClamd(t, testkit.ClamdOptions{})
		d := startDaemon(t, options{scanners: withClamd("30s", clamd.Endpoint())})
		sink := testkit.StartSink(t, testkit.SinkOptions{})
		p := startPostfix(t, d, sink, nil)
		for round := range 3 {
			// Frozen, it takes the connection and the file, and then it dies over it.
			if err := clamd.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			got := make(chan string, 2)
			for _, data := range [][]byte{virus(fmt.Sprintf("virus in round %d", round)), clean(fmt.Sprintf("clean in round %d", round))} {
				go func() {
					reply, err := trySMTP(t.Context(), p.SMTP, outside, data)
					got <- fmt.Sprint(reply, err)
				}()
			}
			d.waitMetric(t, "sluice_messages_in_flight", "2", is(2))
			clamd.Kill()
			for range 2 {
				if r := <-got; !strings.HasPrefix(r, "451 4.7.1") {
					t.Errorf("round %d: %s", round, r)
				}
			}
			if err := clamd.Start(); err != nil {
				t.Fatal(err)
			}
			d.waitMetric(t, "sluice_scanner_up", "1", is(1))
		}
		replies(t, smtp(t, p.SMTP, outside, virus("virus again")), "550")
		replies(t, smtp(t, p.SMTP, outside, clean("clean again")), "250")
		arrives(t, sink, "clean again")
		emptyQueue(t, p)
		if n := len(sink.Deliveries()); n != 1 {
			t.Errorf("%d messages arrived", n)
		}
	})
	t.Run("while the message arrives", func(t *testing.T) {
		t.Parallel()
		clamd := testkit.StartClamd(t, testkit.ClamdOptions{})
		d := startDaemon(t, options{scanners: withClamd("30s", clamd.Endpoint())})
		// The virus stands at the end of a message that comes in slowly.
		data := testkit.Compose("streamed", testkit.Text(strings.Repeat("A harmless line.\n", 4000)), testkit.Attachment("a.com", []byte(testkit.EICAR())))
		for _, back := range []bool{false, true} {
			c := d.dial(t, testkit.MilterOptions{MTA: testkit.SendmailMTA})
			m := milterMail(data)
			m.ChunkBytes, m.ChunkDelay = 1000, 10*time.Millisecond
			got := make(chan string, 1)
			go func() {
				r, err := c.Send(t.Context(), m)
				got <- fmt.Sprint(r.Reply.SMTP(), err)
			}()
			d.waitMetric(t, "sluice_messages_in_flight", "1", is(1))
			clamd.Kill()
			want := "451 4.7.1"
			if back {
				want = "550 5.7.1"
				if err := clamd.Start(); err != nil {
					t.Fatal(err)
				}
			}
			if r := <-got; !strings.HasPrefix(r, want) && !(back && strings.HasPrefix(r, "451 4.7.1")) {
				t.Errorf("clamd back %v: %s, want %s", back, r, want)
			}
			if !back {
				if err := clamd.Start(); err != nil {
					t.Fatal(err)
				}
				d.waitMetric(t, "sluice_scanner_up", "1", is(1))
			}
		}
	})
	t.Run("with another endpoint", func(t *testing.T) {
		t.Parallel()
		// The first endpoint breaks off amid each scan; the real one answers for it.
		fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: []testkit.FakeScan{testkit.FakeBreak}})
		clamd := testkit.StartClamd(t, testkit.ClamdOptions{})
		d := startDaemon(t, options{scanners: withClamd("30s", fake.Endpoint(), clamd.Endpoint())})
		for range 6 {
			d.answers(t, virus("elsewhere"), "550 5.7.1")
			d.answers(t, clean("elsewhere"), "250")
		}
		if fake.Commands("FILDES")+fake.Commands("INSTREAM") == 0 {
			t.Error("the endpoint that breaks off was never asked")
		}
	})
}

// TestFaultClamdReloadBrokenDatabase: neither a reload under load nor a database that can't
// be loaded changes a verdict.
func TestFaultClamdReloadBrokenDatabase(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		t.Run(fmt.Sprintf("blocking %v", blocking), func(t *testing.T) {
			t.Parallel()
			clamd := testkit.StartClamd(t, testkit.ClamdOptions{BlockingReload: blocking})
			d := startDaemon(t, options{scanners: withClamd("55s", clamd.Endpoint())})
			under := func(f func()) { // mail flows while f runs
				stop := make(chan struct{})
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for !t.Failed() {
							d.answers(t, virus("during"), "550 5.7.1")
							d.answers(t, clean("during"), "250")
							select {
							case <-stop:
								return
							default:
							}
						}
					})
				}
				f()
				close(stop)
				wg.Wait()
			}
			reload := func() {
				if _, err := clamd.Command("RELOAD"); err != nil {
					t.Error(err)
				}
			}
			rounds := 3
			if blocking {
				rounds = 1 // it takes its time
			}
			under(func() {
				for i := range rounds {
					before := strings.Count(clamd.Log(), "eload")
					if err := clamd.WriteSignatures(map[string]string{fmt.Sprintf("New.%d", i): fmt.Sprintf("a string that is new in round %d", i)}); err != nil {
						t.Error(err)
					}
					reload()
					eventually(t, func() error {
						if strings.Count(clamd.Log(), "eload") <= before {
							return fmt.Errorf("clamd hasn't reloaded")
						}
						return nil
					})
				}
			})
			if blocking {
				return // with a broken database such a clamd ends: that is TestFaultClamdDown
			}
			under(func() {
				if err := clamd.BreakSignatures(); err != nil {
					t.Error(err)
				}
				reload()
				eventually(t, func() error {
					if log := clamd.Log(); !strings.Contains(log, "alformed") && !strings.Contains(log, "failed") {
						return fmt.Errorf("clamd says nothing of its database:\n%s", log)
					}
					return nil
				})
			})
			d.answers(t, virus("after"), "550 5.7.1")
			d.answers(t, clean("after"), "250")
		})
	}
}

// TestFaultClamdReplyGarbage: only a whole, exact OK is clean.
func TestFaultClamdReplyGarbage(t *testing.T) {
	t.Parallel()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("20s", fake.Endpoint())})
	raw := func(reply string) testkit.FakeScan { return testkit.FakeRaw(reply) }
	for _, tc := range []struct {
		name string
		scan testkit.FakeScan
		want string
	}{
		{"nothing", raw(""), "451"},
		{"OK without its end", raw("fd[10]: OK"), "451"},
		{"OK of another command", raw("PONG\x00"), "451"},
		{"OK alone", raw("OK\x00"), "451"},
		{"OK amid words", testkit.FakeAnswer("OK or not"), "451"},
		{"not OK", testkit.FakeAnswer("not OK"), "451"},
		{"OK in lower case", testkit.FakeAnswer("ok"), "451"},
		{"two answers", raw("fd[10]: OK\x00fd[10]: OK\x00"), "451"},
		{"OK, then a virus", raw("fd[10]: OK\x00fd[10]: X FOUND\x00"), "550"},
		{"an error", testkit.FakeAnswer("Can't allocate memory ERROR"), "451"},
		{"an unknown command", raw("UNKNOWN COMMAND\x00"), "451"},
		{"letters without an end", testkit.FakeGarbage, "451"},
		{"broken off", testkit.FakeBreak, "451"},
		{"NUL bytes", raw(strings.Repeat("\x00", 100)), "451"},
		{"a name with a colon and blanks", testkit.FakeAnswer("Win.Test:A-1 (two words) FOUND"), "550"},
		{"a name that ends in OK", testkit.FakeAnswer("Evil.OK FOUND"), "550"},
		{"OK as a name", testkit.FakeAnswer("OK FOUND"), "550"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fake.SetScans(tc.scan)
			r := d.answers(t, clean("answer"), tc.want)
			if bytes.Contains([]byte(r.Reply.Text), []byte("FOUND")) {
				t.Errorf("clamd's words in %q", r.Reply.Text)
			}
			fake.SetScans(testkit.FakeAnswer("OK")) // so that the breaker stays closed
			d.answers(t, clean("answer"), "250")
		})
	}
}
