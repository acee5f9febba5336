package clamav

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/internal/verdict"
	"sluice/scanners"
)

// steady scans clean and infected messages until stop is closed, and returns how many
// were right, failed, and wrong.
func steady(t *testing.T, s *Scanner, sp *mail.Spool, stop <-chan struct{}) (right, failed, wrong *atomic.Int64, wait func()) {
	right, failed, wrong = new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				body, virus := fmt.Sprintf("Hello %d.\r\n", i), i%2 == 0
				if virus {
					body += testkit.EICAR() + "\r\n"
				}
				m := sp.New()
				if _, err := m.ReadFrom(strings.NewReader("Subject: x\r\n\r\n" + body)); err != nil {
					t.Error(err)
				}
				res, err := s.Scan(t.Context(), input(m, true))
				switch {
				case err != nil:
					failed.Add(1)
				case res.Complete && (len(res.Findings) > 0) == virus:
					right.Add(1)
				default:
					wrong.Add(1)
				}
				m.Close()
			}
		})
	}
	return right, failed, wrong, wg.Wait
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := testkit.Poll(ctx, nil, func(context.Context) error {
		if !f() {
			return errors.New("not yet")
		}
		return nil
	}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Five reloads, one of them of a broken database, change no verdict.
func TestReloadStorm(t *testing.T) {
	sp := spool(t)
	c := testkit.StartClamd(t, testkit.ClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{c.Endpoint()}})
	stop := make(chan struct{})
	right, failed, wrong, wait := steady(t, s, sp, stop)
	for i := range 5 {
		if err := c.WriteSignatures(map[string]string{"Round": fmt.Sprintf("round %d of the reloads", i)}); err != nil {
			t.Error(err)
		}
		if i == 3 {
			if err := c.BreakSignatures(); err != nil {
				t.Error(err)
			}
		}
		if err := s.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		begin := right.Load()
		until(t, "scans after a reload", func() bool { return right.Load() > begin+50 })
	}
	close(stop)
	wait()
	if failed.Load() > 0 || wrong.Load() > 0 {
		t.Errorf("%d right, %d failed, %d wrong", right.Load(), failed.Load(), wrong.Load())
	}
}

// clamd is killed amid scans and comes back, again and again: what it didn't answer
// has failed, nothing else is wrong.
func TestKilledAmidScans(t *testing.T) {
	sp := spool(t)
	c := testkit.StartClamd(t, testkit.ClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{c.Endpoint()}})
	stop := make(chan struct{})
	right, failed, wrong, wait := steady(t, s, sp, stop)
	for range 3 {
		begin := right.Load()
		until(t, "scans", func() bool { return right.Load() > begin+20 })
		c.Kill()
		gone := failed.Load()
		until(t, "failures", func() bool { return failed.Load() > gone+tripAfter })
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		begin = right.Load()
		until(t, "recovery", func() bool { return right.Load() > begin }) // 20 s at most; see recovers for the 15
	}
	close(stop)
	wait()
	if wrong.Load() > 0 {
		t.Errorf("%d right, %d failed, %d wrong", right.Load(), failed.Load(), wrong.Load())
	}
}

// A stopped clamd still takes connections: scans time out, then fail at once, and after
// SIGCONT all is well.
func TestFrozen(t *testing.T) {
	sp := spool(t)
	c := testkit.StartClamd(t, testkit.ClamdOptions{})
	s := scanner(t, Options{Endpoints: []string{c.Endpoint()}, Timeout: 200 * time.Millisecond})
	m := message(t, sp, "Hello.\r\n")
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range tripAfter {
		res, err := s.Scan(t.Context(), input(m, true))
		wantFailure(scanners.ReasonTimeout)(t, res, err)
	}
	res, err := s.Scan(t.Context(), input(m, true))
	wantFailure(scanners.ReasonUnavailable)(t, res, err) // the breaker is open
	if err := c.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	recovers(t, s, m)
}

// want is a line of a case from the field.
type want struct {
	Class []string
	Clamd struct{ Reply string }
}

// TestField has the cases 46 (clamd says encrypted, or too much) and 50 (clamd is
// away), through the pool.
func TestField(t *testing.T) {
	sp := spool(t)
	dir := testkit.TempDir(t)
	for _, name := range []string{"46-clamd-says-encrypted-or-too-much", "50-clamd-is-away"} {
		t.Run(name, func(t *testing.T) {
			var wants []want
			raw, err := os.ReadFile(filepath.Join("testdata", "field", name, "want.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &wants); err != nil || len(wants) == 0 {
				t.Fatal(len(wants), err)
			}
			eml, err := os.ReadFile(filepath.Join("testdata", "field", name, "message.eml"))
			if err != nil {
				t.Fatal(err)
			}
			endpoint := filepath.Join(dir, "nobody")
			if wants[0].Clamd.Reply != "" {
				var plays []testkit.FakeScan
				for _, w := range wants {
					plays = append(plays, testkit.FakeAnswer(w.Clamd.Reply))
				}
				endpoint = testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: plays}).Endpoint()
			}
			pool, err := scanners.NewPool(scanners.PoolOptions{Entries: []scanners.Entry{{
				Scanner: scanner(t, Options{Endpoints: []string{endpoint}}), Stage: 1, Required: true}}})
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range wants {
				m := sp.New()
				if _, err := m.ReadFrom(strings.NewReader(string(eml))); err != nil {
					t.Fatal(err)
				}
				run := pool.Start(t.Context(), input(m, true))
				found, _ := run.Wait(t.Context())
				run.Cancel()
				m.Close()
				kinds := map[string]bool{}
				for _, f := range found {
					if f.Scanner == Name {
						kinds[f.Kind.String()] = true
					}
				}
				if len(kinds) != 1 || !kinds[w.Class[0]] || kinds[verdict.KindVirus.String()] {
					t.Errorf("message %d: %v of %+v, want %v", i, kinds, found, w.Class)
				}
			}
		})
	}
}
