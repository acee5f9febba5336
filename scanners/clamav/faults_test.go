package clamav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/scanners"
)

// patience bounds what must end by itself long before.
const patience = 20 * time.Second

// bothWays scans a message both ways: handed over on a unix socket, streamed on
// TCP.
func bothWays(t *testing.T, o Options, sp *mail.Spool, body string, play testkit.FakeScan, want func(*testing.T, scanners.Result, error)) {
	t.Helper()
	for _, tcp := range []bool{false, true} {
		name := "FILDES"
		if tcp {
			name = "INSTREAM"
		}
		t.Run(name, func(t *testing.T) {
			fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: tcp, Scans: []testkit.FakeScan{play}})
			o.Endpoints = []string{fake.Endpoint()}
			s := scanner(t, o)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := s.Scan(ctx, input(message(t, sp, body), true))
			want(t, res, err)
			if fake.Commands(name) == 0 {
				t.Errorf("%s was not used", name)
			}
		})
	}
}

func wantFailure(reason scanners.Reason) func(*testing.T, scanners.Result, error) {
	return func(t *testing.T, res scanners.Result, err error) {
		t.Helper()
		if err == nil || res.Complete || len(res.Findings) > 0 {
			t.Fatalf("result %+v, error %v: a failure was expected", res, err)
		}
		var e *scanners.Error
		if !errors.As(err, &e) || e.Reason != reason {
			t.Errorf("error %v has the reason %+v, want %s", err, e, reason)
		}
	}
}

func wantVirus(name string) func(*testing.T, scanners.Result, error) {
	return func(t *testing.T, res scanners.Result, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		check(t, res, true, SymbolVirus, name)
	}
}

func wantUnchecked(symbol string) func(*testing.T, scanners.Result, error) {
	return func(t *testing.T, res scanners.Result, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		check(t, res, false, symbol, "")
	}
}

// Each row of the table of faults of clamd and its client.
func TestFaultsOfClamd(t *testing.T) {
	sp := spool(t)
	slow := func(text string) testkit.FakeScan { // one byte at a time, and never the end
		return func(c *testkit.FakeConn) {
			if _, err := c.ReadMessage(); err != nil {
				return
			}
			for i := 0; ; i = (i + 1) % len(text) {
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
				select {
				case <-c.Stopping():
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		}
	}
	brief := Options{Timeout: 300 * time.Millisecond}
	cases := []struct {
		name string
		opts Options
		play testkit.FakeScan
		want func(*testing.T, scanners.Result, error)
	}{
		{"reads all, closes, no reply", Options{}, testkit.FakeRaw(""), wantFailure(scanners.ReasonUnavailable)},
		{"FOUND without terminator, then close", Options{}, testkit.FakeRaw("stream: Eicar FOUND"), wantVirus("Eicar")},
		{"FOUND ended by LF, then close", Options{}, testkit.FakeRaw("stream: Eicar FOUND\n"), wantVirus("Eicar")},
		{"endless garbage", Options{}, testkit.FakeGarbage, wantFailure(scanners.ReasonProtocol)},
		{"ERROR", Options{}, testkit.FakeAnswer("Can't allocate memory ERROR"), wantFailure(scanners.ReasonUnavailable)},
		{"signature with a colon", Options{}, testkit.FakeAnswer("Win.Test:A-1 FOUND"), wantVirus("Win.Test:A-1")},
		{"signature with hash and size", Options{}, testkit.FakeAnswer("X(44d88612fea8a8f36de82e1278abb02f:68) FOUND"), wantVirus("X(44d8")},
		{"signature with bracket and two words", Options{}, testkit.FakeAnswer("Odd (two: words) FOUND"), wantVirus("Odd (two: words)")},
		{"size limit exceeded", Options{}, testkit.FakeRaw("INSTREAM size limit exceeded. ERROR\x00"), wantUnchecked(SymbolTooLarge)},
		{"hang", brief, testkit.FakeHang, wantFailure(scanners.ReasonTimeout)},
		{"reads nothing", brief, testkit.FakeDeaf, wantFailure(scanners.ReasonTimeout)},
		{"trickle without an end", brief, slow("xyz"), wantFailure(scanners.ReasonTimeout)},
		{"trickle that says OK on the way", brief, slow("stream: OK "), wantFailure(scanners.ReasonTimeout)},
		{"breaks off amid the message", Options{}, testkit.FakeBreak, wantFailure(scanners.ReasonUnavailable)},
		{"OK without terminator", Options{}, testkit.FakeRaw("stream: OK"), wantFailure(scanners.ReasonProtocol)},
		{"OK extra", Options{}, testkit.FakeAnswer("OK extra"), wantFailure(scanners.ReasonProtocol)},
		{"ok", Options{}, testkit.FakeAnswer("ok"), wantFailure(scanners.ReasonProtocol)},
		{"OK, then more", Options{}, testkit.FakeRaw("stream: OK\x00stream: OK\x00"), wantFailure(scanners.ReasonProtocol)},
		{"encrypted", Options{}, testkit.FakeAnswer("Heuristics.Encrypted.PDF FOUND"), wantUnchecked(SymbolEncrypted)},
		{"limits", Options{}, testkit.FakeAnswer("Heuristics.Limits.Exceeded.MaxScanSize FOUND"), wantUnchecked(SymbolLimits)},
		{"other heuristics", Options{}, testkit.FakeAnswer("Heuristics.Phishing.Email.SpoofedDomain FOUND"), wantVirus("Heuristics.Phishing")},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) { bothWays(t, tc.opts, sp, "Hello.\r\n", tc.play, tc.want) })
	}
}

// A reply before the message's end is not about the message.
func TestReplyBeforeTheMessageIsNotClean(t *testing.T) {
	sp := spool(t)
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: true, Scans: []testkit.FakeScan{func(c *testkit.FakeConn) {
		if _, err := c.ReadChunk(); err != nil {
			return
		}
		_, _ = io.WriteString(c, c.Reply("OK"))
		_, _ = io.Copy(io.Discard, c)
	}}})
	s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}})
	res, err := s.Scan(t.Context(), input(message(t, sp, strings.Repeat("line of text\r\n", 1<<20)), true))
	wantFailure(scanners.ReasonProtocol)(t, res, err)
}

// clamd says that the stream is too long and closes amid it: the line is read after
// the write error.
func TestSizeLimitAmidTheStream(t *testing.T) {
	sp := spool(t)
	body := strings.Repeat("line of text\r\n", 2<<20/14)
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: true, Scans: []testkit.FakeScan{testkit.FakeTooLarge(100 << 10)}})
	real := testkit.StartClamd(t, testkit.ClamdOptions{TCP: true, StreamMaxLength: 1 << 20})
	for name, endpoint := range map[string]string{"fake": fake.Endpoint(), "real": real.TCPEndpoint()} {
		t.Run(name, func(t *testing.T) {
			s := scanner(t, Options{Endpoints: []string{endpoint}})
			for range 5 {
				res, err := s.Scan(t.Context(), input(message(t, sp, body), true))
				wantUnchecked(SymbolTooLarge)(t, res, err)
			}
		})
	}
}

// Above our own limit clamd isn't asked at all; it would say OK where AlertExceedsMax
// is off.
func TestSizeIsCheckedBefore(t *testing.T) {
	sp := spool(t)
	c := testkit.StartClamd(t, testkit.ClamdOptions{TCP: true, MaxFileSize: 1 << 20, QuietLimits: true})
	body := strings.Repeat("line of text\r\n", 2<<20/14)
	for _, endpoint := range []string{c.Endpoint(), c.TCPEndpoint()} {
		s := scanner(t, Options{Endpoints: []string{endpoint}, MaxSize: 1 << 20})
		res, err := s.Scan(t.Context(), input(message(t, sp, body), true))
		wantUnchecked(SymbolTooLarge)(t, res, err)
		res, err = s.Scan(t.Context(), input(message(t, sp, testkit.EICAR()), true))
		wantVirus(testkit.EICARName)(t, res, err)
	}
}

// The context ends every wait: for a reply, and for room to write.
func TestContextEndsEveryWait(t *testing.T) {
	sp := spool(t)
	for name, play := range map[string]testkit.FakeScan{"hang": testkit.FakeHang, "slow reader": testkit.FakeDeaf} {
		for _, tcp := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s tcp=%v", name, tcp), func(t *testing.T) {
				fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: tcp, Scans: []testkit.FakeScan{play}})
				s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}, Timeout: time.Hour})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(200*time.Millisecond, cancel)
				done := make(chan error, 1)
				m := message(t, sp, strings.Repeat("line of text\r\n", 8<<20/14))
				go func() {
					_, err := s.Scan(ctx, input(m, true))
					done <- err
				}()
				select {
				case err := <-done:
					wantFailure(scanners.ReasonCanceled)(t, scanners.Result{}, err)
				case <-time.After(patience):
					t.Fatal("still running")
				}
			})
		}
	}
}

func TestAwayAtStartAndBackLater(t *testing.T) {
	sp := spool(t)
	dir := testkit.TempDir(t)
	path := filepath.Join(dir, "fakeclamd.ctl")
	s := scanner(t, Options{Endpoints: []string{path}}) // starts anyway
	m := message(t, sp, "Hello.\r\n")
	for range 2 * tripAfter { // and on, with the breaker open
		res, err := s.Scan(t.Context(), input(m, true))
		wantFailure(scanners.ReasonUnavailable)(t, res, err)
		if !strings.Contains(err.Error(), "no such file") {
			t.Errorf("error %v does not say what is wrong", err)
		}
	}
	if es := s.Probe(t.Context()); es[0].Up || es[0].Detail == "" {
		t.Errorf("probe: %+v", es)
	}
	fake, err := testkit.RunFakeClamd(dir, testkit.FakeClamdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	recovers(t, s, m)
}

// recovers waits until a scan is clean; 15 s is what is promised.
func recovers(t *testing.T, s *Scanner, m *mail.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := testkit.Poll(ctx, nil, func(ctx context.Context) error {
		res, err := s.Scan(ctx, input(m, true))
		if err == nil && !res.Complete {
			err = fmt.Errorf("not complete: %+v", res)
		}
		return err
	}); err != nil {
		t.Fatalf("no recovery: %v", err)
	}
}

func TestConnectionRefusedIsTriedElsewhere(t *testing.T) {
	sp := spool(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "inet:" + l.Addr().String()
	l.Close()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{dead, fake.Endpoint()}})
	for range 2 * tripAfter {
		res, err := s.Scan(t.Context(), input(message(t, sp, "Hello.\r\n"), true))
		if err != nil || !res.Complete {
			t.Fatalf("%+v %v", res, err)
		}
	}
}

// Each trouble of one endpoint is mended by the other; with the only one, a connection
// that broke amid the scan is tried once more.
func TestRetry(t *testing.T) {
	sp := spool(t)
	cases := []struct {
		name  string
		play  testkit.FakeScan
		alone bool // one endpoint alone recovers
	}{
		{"breaks off", testkit.FakeBreak, true},
		{"closes without a reply", testkit.FakeRaw(""), true},
		{"lies", testkit.FakeRaw("stream: OK"), false},
		{"says ERROR", testkit.FakeAnswer("no ERROR"), false},
		{"hangs", testkit.FakeHang, false},
	}
	for _, tc := range cases {
		o := Options{Timeout: time.Minute}
		if tc.name == "hangs" {
			o.Timeout = 2 * time.Second
		}
		t.Run(tc.name, func(t *testing.T) {
			bad := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: []testkit.FakeScan{tc.play}})
			good := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: []testkit.FakeScan{testkit.FakeAnswer("X FOUND")}})
			o.Endpoints = []string{bad.Endpoint(), good.Endpoint()}
			s := scanner(t, o)
			for range 2 { // so that each is the first once
				res, err := s.Scan(t.Context(), input(message(t, sp, "Hello.\r\n"), true))
				wantVirus("X")(t, res, err)
			}
			if bad.Commands("FILDES") == 0 {
				t.Error("the bad one was never asked")
			}
		})
		t.Run(tc.name+", alone", func(t *testing.T) {
			fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: []testkit.FakeScan{tc.play, testkit.FakeAnswer("OK")}})
			o.Endpoints = []string{fake.Endpoint()}
			s := scanner(t, o)
			res, err := s.Scan(t.Context(), input(message(t, sp, "Hello.\r\n"), true))
			if (err == nil) != tc.alone || res.Complete != tc.alone {
				t.Errorf("%+v %v, want an answer: %v", res, err, tc.alone)
			}
		})
	}
}

// A message that stops arriving gives clamd's thread back, and so does trouble on
// the way; Scan comes later.
func TestStreamGivesUpEarly(t *testing.T) {
	sp := spool(t)
	for name, play := range map[string]testkit.FakeScan{"stalled": testkit.FakeHang, "broken": testkit.FakeBreak} {
		t.Run(name, func(t *testing.T) {
			fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: true, Scans: []testkit.FakeScan{play}})
			s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}, stall: 100 * time.Millisecond})
			m := sp.New()
			defer m.Close()
			begin(t, m)
			res, err := s.ScanEarly(t.Context(), input(m, false))
			if !errors.Is(err, scanners.ErrLater) {
				t.Fatalf("%+v %v, want ErrLater", res, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := testkit.Poll(ctx, nil, func(context.Context) error {
				if n := fake.Open(); n > 0 {
					return fmt.Errorf("%d connections are open", n)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

func begin(t *testing.T, m *mail.Message) {
	t.Helper()
	if err := errors.Join(m.WriteField("From", " <a@example.org>"), m.EndHeader()); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesAreStreamedWhileTheyArrive(t *testing.T) {
	sp := spool(t)
	real := testkit.StartClamd(t, testkit.ClamdOptions{TCP: true})
	for name, endpoint := range map[string]string{"unix": real.Endpoint(), "inet": real.TCPEndpoint()} {
		for _, body := range []string{"Hello.\r\n", testkit.EICAR() + "\r\n", strings.Repeat("padding line\r\n", 100<<10) + testkit.EICAR() + "\r\n"} {
			t.Run(fmt.Sprintf("%s %d", name, len(body)), func(t *testing.T) {
				s := scanner(t, Options{Endpoints: []string{endpoint}, handOver: time.Millisecond})
				virus := strings.Contains(body, testkit.EICAR())
				m := sp.New()
				defer m.Close()
				begin(t, m)
				type answer struct {
					res scanners.Result
					err error
				}
				got := make(chan answer, 1)
				go func() {
					res, err := s.ScanEarly(t.Context(), input(m, false))
					got <- answer{res, err}
				}()
				until(t, "the stream", func() bool { return s.endpoints[0].inFlight.Load() > 0 })
				for len(body) > 0 {
					n := min(len(body), 30_000)
					if _, err := m.Write([]byte(body[:n])); err != nil {
						t.Fatal(err)
					}
					body = body[n:]
				}
				if err := m.Complete(); err != nil {
					t.Fatal(err)
				}
				a := <-got
				if a.err != nil {
					t.Fatal(a.err)
				}
				if virus {
					check(t, a.res, true, SymbolVirus, testkit.EICARName)
				} else {
					check(t, a.res, true, "", "")
				}
			})
		}
	}
}

// An MTA that hands over at once, or is quick, isn't streamed on a unix socket.
func TestHandedOverAtOnceIsNotStreamed(t *testing.T) {
	sp := spool(t)
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}, handOver: time.Hour})
	m := sp.New()
	defer m.Close()
	begin(t, m)
	if _, err := s.ScanEarly(t.Context(), input(m, true)); !errors.Is(err, scanners.ErrLater) {
		t.Errorf("at once: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.ScanEarly(t.Context(), input(m, false))
		done <- err
	}()
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, scanners.ErrLater) {
		t.Errorf("quick: %v", err)
	}
	if n := fake.Commands("INSTREAM") + fake.Commands("FILDES"); n > 0 {
		t.Errorf("clamd was asked %d times", n)
	}
}

// An MTA that goes away amid the body: the scan ends, nobody is blamed.
func TestAbortedMessage(t *testing.T) {
	sp := spool(t)
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{TCP: true, Scans: []testkit.FakeScan{testkit.FakeHang}})
	s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}})
	m := sp.New()
	defer m.Close()
	begin(t, m)
	done := make(chan error, 1)
	go func() {
		_, err := s.ScanEarly(t.Context(), input(m, false))
		done <- err
	}()
	m.Abort()
	if err := <-done; !errors.Is(err, mail.ErrAborted) {
		t.Errorf("early: %v", err)
	}
	if _, err := s.Scan(t.Context(), input(m, false)); !errors.Is(err, mail.ErrAborted) {
		t.Errorf("late: %v", err)
	}
	if !s.endpoints[0].usable() {
		t.Error("the endpoint was blamed")
	}
}

func TestManyAtOnceOnFewThreads(t *testing.T) {
	sp := spool(t)
	c := testkit.StartClamd(t, testkit.ClamdOptions{MaxThreads: 4, TCP: true})
	for _, endpoint := range []string{c.Endpoint(), c.TCPEndpoint()} {
		s := scanner(t, Options{Endpoints: []string{endpoint}})
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				body, virus := fmt.Sprintf("Hello %d.\r\n", i), i%3 == 0
				if virus {
					body += testkit.EICAR() + "\r\n"
				}
				m := sp.New()
				defer m.Close()
				if _, err := m.ReadFrom(strings.NewReader("Subject: x\r\n\r\n" + body)); err != nil {
					t.Error(err)
					return
				}
				res, err := s.Scan(t.Context(), input(m, true))
				if err != nil || (len(res.Findings) > 0) != virus || !res.Complete {
					t.Errorf("%d: %+v %v", i, res, err)
				}
			})
		}
		wg.Wait()
	}
}

// Descriptors and goroutines are as many afterwards as before, whatever went wrong.
func TestNothingLeaks(t *testing.T) {
	sp := spool(t)
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}, Timeout: 20 * time.Millisecond})
	plays := []testkit.FakeScan{testkit.FakeAnswer("OK"), testkit.FakeBreak, testkit.FakeHang, testkit.FakeRaw("x"), testkit.FakeGarbage}
	round := func() {
		for _, play := range plays {
			fake.SetScans(play)
			m := sp.New()
			if _, err := m.ReadFrom(strings.NewReader("Subject: x\r\n\r\nHello.\r\n")); err != nil {
				t.Fatal(err)
			}
			_, _ = s.Scan(t.Context(), input(m, true)) // whatever comes of it
			m.Close()
		}
	}
	round()
	settled := func() (int, int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(fds)
	}
	goroutines, fds := settled()
	for range 20 {
		round()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := testkit.Poll(ctx, nil, func(context.Context) error {
		if g, f := settled(); g > goroutines+2 || f > fds+4 { // the watch comes and goes
			return fmt.Errorf("%d goroutines, %d descriptors; at first %d, %d", g, f, goroutines, fds)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
