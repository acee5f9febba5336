package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/config"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/milter"
)

// TestReloadOfLimits: under traffic the limits of a new file come into force, for mail that
// comes then, and none is lost.
func TestReloadOfLimits(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	t.Setenv("GOMEMLIMIT", "")

	d := startDaemon(t, onlyRules)
	good, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	small := testkit.Compose("Minutes", testkit.Text("The minutes."))
	large := testkit.Compose("Figures", testkit.Text(strings.Repeat("The same figures as last week.\n", 4000)))
	d.answers(t, large, "250")

	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for range 3 {
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				d.answers(t, small, "250")
			}
		})
	}
	text := strings.Replace(string(good), "drain_timeout: 10s", "drain_timeout: 11s, max_connections: 7, max_message_size: 64KiB, memory_limit: 3MiB", 1) +
		"spool: {max_bytes: 5MiB}\nlog: {level: info, format: json}\n"
	d.configure(t, text)
	d.hup <- syscall.SIGHUP
	d.logged(t, `"msg":"configuration reloaded"`)
	close(stop)
	traffic.Wait()

	if got := d.server.Limits(); got != (milter.Limits{MaxConnections: 7, DrainTimeout: 11 * time.Second}) {
		t.Errorf("milter: %+v", got)
	}
	if got := d.spool.Limits(); got != (mail.SpoolLimits{MemoryLimit: 3 << 20, MaxBytes: 5 << 20, MaxMessage: 64 << 10}) {
		t.Errorf("spool: %+v", got)
	}
	if got := debug.SetMemoryLimit(-1); got != 3<<20+64<<20 {
		t.Errorf("GOMEMLIMIT is %d", got)
	}
	s := d.status(t.Context())
	if s.MaxConnections != 7 || s.Spool.MemoryLimit != 3<<20 || s.Spool.DiskLimit != 5<<20 {
		t.Errorf("status: %+v", s)
	}
	if strings.Contains(d.log.String(), "need a restart") {
		t.Error("a restart is asked for")
	}
	d.answers(t, large, "552")
	d.answers(t, small, "250")

	// A mistake changes nothing; the old file brings everything back.
	d.configure(t, strings.Replace(text, "max_connections: 7", "max_connections: 0", 1))
	d.hup <- syscall.SIGHUP
	d.logged(t, "configuration not reloaded")
	if d.server.Limits().MaxConnections != 7 {
		t.Errorf("a wrong file: %+v", d.server.Limits())
	}
	d.configure(t, string(good))
	d.hup <- syscall.SIGHUP
	d.logged(t, "msg=\"configuration reloaded\"")
	d.answers(t, large, "250")
}

// TestReloadWithoutSpool: if the spool's folder can't be used nothing of the new file is in
// force.
func TestReloadWithoutSpool(t *testing.T) {
	d := startDaemon(t, onlyRules+"\nspool: {max_bytes: 0}\n")
	good, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(filepath.Dir(d.file), "store", "spool"), 0o755); err != nil {
		t.Fatal(err)
	}
	limits, spool := d.server.Limits(), d.spool.Limits()
	d.configure(t, strings.Replace(strings.Replace(string(good), "max_bytes: 0", "max_bytes: 1GiB", 1), "drain_timeout: 10s", "drain_timeout: 11s", 1))
	d.hup <- syscall.SIGHUP
	d.logged(t, "is open to others")
	if d.server.Limits() != limits || d.spool.Limits() != spool {
		t.Errorf("limits changed: %+v, %+v", d.server.Limits(), d.spool.Limits())
	}
	d.answers(t, testkit.Compose("Minutes", testkit.Text("The minutes.")), "250")
}

// TestReloadWithMailInFlight: a message that is being scanned keeps the limits that it began
// under, and the scanner.
func TestReloadWithMailInFlight(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	clamd := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: []testkit.FakeScan{func(c *testkit.FakeConn) {
		close(begun)
		<-release
		testkit.FakeAnswer("OK")(c)
	}}})
	d := startDaemon(t, withClamd(clamd))
	good, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	large := testkit.Compose("Figures", testkit.Text(strings.Repeat("The same figures as last week.\n", 60_000)))
	got := make(chan string, 1)
	go func() {
		r, err := d.send(t, large)
		got <- fmt.Sprint(r.Reply.SMTP(), err)
	}()
	<-begun
	clamd.SetScans(testkit.FakeAnswer("OK"))
	d.configure(t, strings.Replace(string(good), "drain_timeout: 10s", "max_connections: 1, max_message_size: 64KiB, memory_limit: 1MiB", 1))
	d.hup <- syscall.SIGHUP
	d.logged(t, "configuration reloaded")
	d.answers(t, large, "451 4.3.2") // one is being filtered, as many as may
	close(release)
	if r := <-got; !strings.HasPrefix(r, "250") {
		t.Errorf("the message in flight was answered %s", r)
	}
	d.eventually(t, func() error {
		if n := d.server.Connections(); n > 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	d.answers(t, large, "552")
}

// TestMemoryLimitOfTheEnvironment: $GOMEMLIMIT has precedence.
func TestMemoryLimitOfTheEnvironment(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	t.Setenv("GOMEMLIMIT", "900MiB")
	c := config.Default()
	limitMemory(&c)
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("the limit became %d", got)
	}
}

// TestNoSuchUser: the message says what to type.
func TestNoSuchUser(t *testing.T) {
	_, err := lookupAccount("no-such-user")
	for _, want := range []string{"adduser --system --group --no-create-home --home /var/lib/sluice no-such-user", `user: ""`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to name %s", err, want)
		}
	}
	if os.Geteuid() == 0 {
		c := &config.Loaded{Config: config.Default()}
		c.User = "no-such-user"
		_, err := accountFor(c, nil)
		if e := (*exitError)(nil); !errors.As(err, &e) || e.code != exitConfig {
			t.Errorf("as root: %v, want exit code 78", err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := lookupAccount(me.Username); err != nil || fmt.Sprint(a.uid) != me.Uid {
		t.Errorf("%s: %+v, %v", me.Username, a, err)
	}
}
