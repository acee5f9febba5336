package clamav

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/internal/testkit"
)

func TestParseEndpoint(t *testing.T) {
	cases := []struct{ in, network, address string }{
		{"unix:/run/clamav/clamd.ctl", "unix", "/run/clamav/clamd.ctl"},
		{"/run/clamav/clamd.ctl", "unix", "/run/clamav/clamd.ctl"},
		{"local:/run/x", "unix", "/run/x"},
		{"inet:127.0.0.1:3310", "tcp", "127.0.0.1:3310"},
		{"tcp:clamd.example.org:3310", "tcp", "clamd.example.org:3310"},
		{"inet:[2001:db8::1]:3310", "tcp", "[2001:db8::1]:3310"},
		{"", "", ""}, {"unix:", "", ""}, {"unix:relative", "", ""}, {"unix:/" + strings.Repeat("x", 107), "", ""},
		{"inet:127.0.0.1", "", ""}, {"inet::3310", "", ""}, {"inet:h:0", "", ""}, {"inet:h:65536", "", ""}, {"inet:h:clamd", "", ""},
		{"inet:2001:db8::1:3310", "", ""}, {"127.0.0.1:3310", "", ""}, {"http://h:1", "", ""},
	}
	for _, tc := range cases {
		network, address, err := ParseEndpoint(tc.in)
		if network != tc.network || address != tc.address || (err == nil) != (tc.network != "") {
			t.Errorf("%q: %q %q %v", tc.in, network, address, err)
		}
	}
}

// TestProbeTellsTheDateOfSignatures: as a time, not in words.
func TestProbeTellsTheDateOfSignatures(t *testing.T) {
	c := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{}) // its signatures are of 2026-11-23 09:00
	s := scanner(t, Options{Endpoints: []string{c.Endpoint()}})
	es := s.Probe(t.Context())
	want := time.Date(2026, 11, 23, 9, 0, 0, 0, time.Local)
	if len(es) != 1 || !es[0].Up || !es[0].SignaturesDated.Equal(want) || es[0].Detail != "" {
		t.Errorf("probe: %+v, want signatures of %s", es, want)
	}
	c.Stop()
	es = s.Probe(t.Context())
	if es[0].Up || !es[0].SignaturesDated.IsZero() {
		t.Errorf("away: %+v", es)
	}
	// The detail is for the operator: one line, and nothing of the socket between us and the package.
	if d := es[0].Detail; !strings.Contains(d, "connect: ") || strings.Contains(d, "\n") || strings.Contains(d, "sluice-clamd") {
		t.Errorf("away: detail %q", d)
	}
}

func TestSignatureTime(t *testing.T) {
	got, ok := signatureTime("ClamAV 1.4.6/27463/Wed Nov 20 09:38:20 2024")
	if want := time.Date(2024, 11, 20, 9, 38, 20, 0, time.Local); !ok || !got.Equal(want) {
		t.Errorf("%v %v, want %v", got, ok, want)
	}
	if got, ok := signatureTime("ClamAV 1.4.6/27463/Sun Nov  3 09:38:20 2024"); !ok || got.Day() != 3 {
		t.Errorf("%v %v", got, ok)
	}
	for _, s := range []string{"", "ClamAV 1.4.6", "ClamAV 1.4.6/27463/never", "a/b", "///", "a/b/c/d"} {
		if got, ok := signatureTime(s); ok {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// What a lying or silent server can't do by its answers to control commands: pass as
// up, hold us past the context, or make us read without end.
func TestControlIsBounded(t *testing.T) {
	endless := func(c net.Conn, s string) {
		for {
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	}
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	trickle := func(c net.Conn) { // lines without end, each of which would begin the package's time anew
		for {
			if _, err := io.WriteString(c, "line\n"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // the peer's pace
		}
	}
	for name, serve := range map[string]func(net.Conn){
		"closes":           func(net.Conn) {},
		"hangs":            hang,
		"trickles":         trickle,
		"garbage":          func(c net.Conn) { endless(c, strings.Repeat("x", 64<<10)) },
		"lines":            func(c net.Conn) { endless(c, strings.Repeat("x\n", 32<<10)) },
		"another protocol": func(c net.Conn) { _, _ = io.WriteString(c, "220 mx.example.org ESMTP\r\n") },
		"error":            func(c net.Conn) { _, _ = io.WriteString(c, "UNKNOWN COMMAND ERROR\n") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(testkit.TempDir(t), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() {
						defer c.Close()
						serve(c)
					})
				}
			})
			defer wg.Wait()
			defer l.Close()
			e := newEndpoint("unix", path)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := e.control(ctx, doPing)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil {
					t.Error("it passes as up")
				}
			case <-time.After(patience):
				t.Fatal("still running")
			}
		})
	}
}

// A unix socket whose backlog is full refuses at once (EAGAIN): it is waited for.
func TestFullBacklogIsWaitedFor(t *testing.T) {
	path := filepath.Join(testkit.TempDir(t), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // fill it
		c, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	e := newEndpoint("unix", path)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.dial(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("full: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		if conn, _, err := syscall.Accept(fd); err == nil {
			syscall.Close(conn)
		}
	})
	c, err := e.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// The metrics and the log tell when an endpoint goes and comes, once each time.
func TestComingAndGoingIsTold(t *testing.T) {
	var log syncBuffer
	reg := prometheus.NewRegistry()
	dir := testkit.TempDir(t)
	fake, err := testkit.RunFakeClamd(dir, testkit.FakeClamdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Stop()
	s := scanner(t, Options{Endpoints: []string{fake.Endpoint()}, Registerer: reg, Log: slog.New(slog.NewTextHandler(&log, nil)), healthEvery: 10 * time.Millisecond})
	up := func() float64 { return testutil.ToFloat64(s.metrics.up.WithLabelValues(Name, fake.Endpoint())) }
	until(t, "up", func() bool { return up() == 1 })
	if n, err := testutil.GatherAndCount(reg, "sluice_clamd_signature_age_seconds"); n != 1 || err != nil {
		t.Errorf("%d ages, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	fake.Stop()
	until(t, "down", func() bool { return up() == 0 })
	again, err := testkit.RunFakeClamd(dir, testkit.FakeClamdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	until(t, "up again", func() bool { return up() == 1 })
	until(t, "log", func() bool { return strings.Count(log.String(), "clamd answers") == 2 })
	if n := strings.Count(log.String(), "clamd is away"); n != 1 {
		t.Errorf("told %d times that it is away:\n%s", n, log.String())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "sluice_scanner_up"); n != 0 || err != nil {
		t.Errorf("%d series after Close, %v", n, err)
	}
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestNewRefuses(t *testing.T) {
	for _, endpoints := range [][]string{{"nonsense"}, {"/a", "unix:/a"}} {
		if s, err := New(Options{Endpoints: endpoints}); err == nil {
			s.Close()
			t.Errorf("%v: no error", endpoints)
		}
	}
}

// What the real clamd says of limits and encryption, the first time and from its cache.
func TestRealLimitsAndEncryptionAreUnchecked(t *testing.T) {
	sp := spool(t)
	c := testkit.StartClamd(t, testkit.ClamdOptions{TCP: true, MaxFileSize: 100 << 10})
	for name, tc := range map[string]struct{ body, symbol string }{
		"encrypted": {"MIME-Version: 1.0\r\n" + attachment(string(encryptedZip(t))), SymbolEncrypted},
		"limits":    {strings.Repeat("line of text\r\n", 200<<10/14), SymbolLimits},
	} {
		for _, endpoint := range []string{c.Endpoint(), c.TCPEndpoint()} {
			t.Run(fmt.Sprint(name, " ", endpoint[:4]), func(t *testing.T) {
				s := scanner(t, Options{Endpoints: []string{endpoint}})
				for range 2 {
					m := sp.New()
					defer m.Close()
					if _, err := m.ReadFrom(strings.NewReader("From: <a@example.org>\r\n" + tc.body)); err != nil {
						t.Fatal(err)
					}
					res, err := s.Scan(t.Context(), input(m, true))
					wantUnchecked(tc.symbol)(t, res, err)
				}
			})
		}
	}
}
