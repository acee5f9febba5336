package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testkit"
)

// TestFaultSIGTERMMidMessage: the message in flight gets its verdict, idle connections end
// at once, mail that comes meanwhile is deferred, and the daemon exits 0.
func TestFaultSIGTERMMidMessage(t *testing.T) {
	t.Parallel()
	h := hold()
	defer h.release()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: scanOnce(h.scan)})
	d := startDaemon(t, options{scanners: withClamd("50s", fake.Endpoint()), milter: "drain_timeout: 50s"})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	idle := d.dial(t, testkit.MilterOptions{CommandTimeout: patience})
	got := make(chan string, 1)
	go func() {
		reply, err := trySMTP(t.Context(), p.SMTP, outside, clean("in flight"))
		got <- fmt.Sprint(reply, err)
	}()
	<-h.begun
	if err := d.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, _, err := idle.ReadReply(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %q, %v", code, err)
	}
	replies(t, smtp(t, p.SMTP, outside, clean("while it drains")), "451")
	if _, err := d.get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("/readyz: %v", err)
	}
	select {
	case r := <-got:
		t.Errorf("answered before its verdict: %s", r)
	default:
	}
	h.release()
	if r := <-got; !strings.HasPrefix(r, "250") {
		t.Errorf("the message in flight: %s", r)
	}
	arrives(t, sink, "in flight")
	select {
	case <-d.process.Done():
		if err := d.process.Err(); err != nil {
			t.Errorf("exit: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it didn't end")
	}
	replies(t, smtp(t, p.SMTP, outside, clean("while it is away")), "451")
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"while it drains", "while it is away"} { // the sender comes again
		replies(t, smtp(t, p.SMTP, outside, clean(subject)), "250")
		arrives(t, sink, subject)
	}
	emptyQueue(t, p)
	if n := len(sink.Deliveries()); n != 3 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestFaultSIGKILL: what was in flight is not accepted, and it starts again amid what it
// left behind.
func TestFaultSIGKILL(t *testing.T) {
	t.Parallel()
	h := hold()
	defer h.release()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: scanOnce(h.scan)})
	spool := filepath.Join(testkit.TempDir(t), "spool")
	d := startDaemon(t, options{scanners: withClamd("50s", fake.Endpoint()), milter: "memory_limit: 1MiB", more: "spool: {path: " + spool + "}\n"})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	large := identified("killed over", testkit.Compose("killed over", testkit.Text("See there.\n"), testkit.Attachment("a.bin", make([]byte, 4<<20))))
	got := make(chan string, 1)
	go func() {
		reply, err := trySMTP(t.Context(), p.SMTP, outside, large)
		got <- fmt.Sprint(reply, err)
	}()
	<-h.begun
	d.process.Kill()
	if r := <-got; !strings.HasPrefix(r, "451") {
		t.Errorf("the message in flight: %s", r)
	}
	if _, err := os.Lstat(d.socket); err != nil {
		t.Errorf("there is no stale socket to take over: %v", err)
	}
	// A kill between making a file and unlinking it leaves one.
	left := filepath.Join(spool, "sluice-left-behind")
	if err := os.WriteFile(left, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	replies(t, smtp(t, p.SMTP, outside, large), "250")
	arrives(t, sink, "killed over")
	emptyQueue(t, p)
	if n := len(sink.Deliveries()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
	if files, err := os.ReadDir(spool); err != nil || len(files) > 0 {
		t.Errorf("left in the spool: %v %v", files, err)
	}
	if s := d.status(t); s["state"] != "serving" {
		t.Errorf("status %v", s)
	}
	// A second daemon mustn't take the sockets of one that lives.
	if out, code := d.command(t, "serve"); code != 75 {
		t.Errorf("a second daemon: exit %d\n%s", code, out)
	}
	d.answers(t, clean("still there"), "250")
}

// TestFaultSIGHUPStorm: reloads under way change no verdict and leave nothing behind.
func TestFaultSIGHUPStorm(t *testing.T) {
	t.Parallel()
	fake := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, options{scanners: withClamd("50s", fake.Endpoint()),
		policy: "policies: [{match: '@tag.example.org', spam_action: tag, subject_tag: '[SPAM] '}]\n"})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	d.answers(t, clean("warm-up"), "250")
	goroutines, files := d.metric(t, "go_goroutines"), d.metric(t, "process_open_fds")
	storming := make(chan struct{})
	var wg sync.WaitGroup
	var sent atomic.Int64
	for range 2 {
		wg.Go(func() {
			for over := false; !over; {
				select {
				case <-storming:
					over = true // one round more, after the last signal
				default:
				}
				replies(t, smtp(t, p.SMTP, outside, spam("in the storm")), "550 5.7.1")
				replies(t, smtp(t, p.SMTP, outside, spam("tagged in the storm"), "bob@tag.example.org"), "250")
				replies(t, smtp(t, p.SMTP, outside, clean("clean in the storm")), "250")
				sent.Add(2)
			}
		})
	}
	const signals = 500
	for range signals {
		if err := d.process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // a pace, not a wait for anything
	}
	close(storming)
	wg.Wait()
	eventually(t, func() error {
		if n := len(sink.Deliveries()); int64(n) != sent.Load() {
			return fmt.Errorf("%d of %d messages arrived", n, sent.Load())
		}
		return nil
	})
	for _, m := range sink.Deliveries() {
		tagged := strings.Contains(m.Fields("Subject")[0], "tagged")
		if got := strings.HasPrefix(m.Fields("Subject")[0], "[SPAM] ") && len(m.Fields("X-Spam-Flag")) == 1; got != tagged {
			t.Errorf("Subject %q, flag %q", m.Fields("Subject"), m.Fields("X-Spam-Flag"))
		}
	}
	if n := strings.Count(d.log(), "configuration reloaded"); n == 0 || n > signals {
		t.Errorf("%d reloads for %d signals", n, signals)
	}
	d.waitMetric(t, "go_goroutines", "what it was", func(v float64) bool { return v <= goroutines+4 })
	d.waitMetric(t, "process_open_fds", "what it was", func(v float64) bool { return v <= files+2 })
	if v := d.metric(t, "sluice_config_last_reload_successful"); v != 1 {
		t.Errorf("sluice_config_last_reload_successful %v", v)
	}
}

// TestFaultPolicyFileInvalidOnReload: whatever is wrong with the new files, the old ones
// stay in force, and everybody is told.
func TestFaultPolicyFileInvalidOnReload(t *testing.T) {
	t.Parallel()
	const good = "policies: [{match: '@.', spam_action: tag, subject_tag: '[SPAM] '}]\n"
	d := startDaemon(t, options{policy: good, more: "policy: {file: policy.yaml}\n"})
	config, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(good float64) {
		t.Helper()
		before := strings.Count(d.log(), "reloaded") // "configuration reloaded", "configuration not reloaded"
		if err := d.process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if strings.Count(d.log(), "reloaded") == before {
				return errors.New("nothing was reloaded")
			}
			return nil
		})
		if v := d.metric(t, "sluice_config_last_reload_successful"); v != good {
			t.Errorf("sluice_config_last_reload_successful %v, want %v", v, good)
		}
	}
	d.answers(t, spam("before"), "250")
	for _, tc := range []struct {
		name  string
		spoil func()
		says  string
	}{
		{"unknown action", func() { write(d.policy, "policies:\n  - match: '@.'\n    spam_action: tga\n") }, "policy.yaml:3"},
		{"not YAML", func() { write(d.policy, "policies: [{match: '@.'\n") }, "policy.yaml:"},
		{"empty match", func() { write(d.policy, "policies: [{match: ''}]\n") }, "policy.yaml:1"},
		{"binary rubbish", func() { write(d.policy, "\x00\x01\xff\xfe") }, "policy.yaml:"},
		{"an action that needs the store", func() { write(d.policy, "policies: [{match: '@.', spam_action: quarantine}]\n") }, "quarantine"},
		{"missing", func() {
			if err := os.Remove(d.policy); err != nil {
				t.Fatal(err)
			}
		}, "policy.yaml"},
		{"a folder", func() {
			if err := errors.Join(os.Remove(d.policy), os.Mkdir(d.policy, 0o755)); err != nil {
				t.Fatal(err)
			}
		}, "policy.yaml"},
		{"unknown key of the configuration", func() { write(d.config, string(config)+"no_such_key: 1\n") }, "no_such_key"},
		{"empty configuration value", func() { write(d.config, strings.Replace(string(config), "store: {path: store}", "store: 7", 1)) }, "sluice.yaml:"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.spoil()
			reload(0)
			r := d.answers(t, spam("meanwhile"), "250")
			if !strings.Contains(fmt.Sprint(r.Modifications), "[SPAM]") {
				t.Errorf("the old policy is not in force: %v", r.Modifications)
			}
			if s := d.status(t); !strings.Contains(fmt.Sprint(s["config_error"]), tc.says) {
				t.Errorf("status: config_error %v, want something with %s", s["config_error"], tc.says)
			}
			if err := os.RemoveAll(d.policy); err != nil {
				t.Fatal(err)
			}
			write(d.policy, good)
			write(d.config, string(config))
		})
	}
	write(d.policy, "policies: [{match: '@.', spam_action: reject}]\n")
	reload(1)
	d.answers(t, spam("after"), "550 5.7.1")
	if s := d.status(t); s["config_error"] != nil && s["config_error"] != "" {
		t.Errorf("status: %v", s["config_error"])
	}
}
