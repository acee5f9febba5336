package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/config"
	"sluice/internal/strictyaml"
	"sluice/internal/testkit"
)

// logBuffer takes a log that is read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a daemon in this process.
type running struct {
	*daemon
	log    *logBuffer
	milter string // its unix socket
	http   string // host:port
	file   string // its configuration
	hup    chan os.Signal
	stop   context.CancelFunc
	ended  chan error
}

// startDaemon starts a daemon with the given further lines of configuration.
func startDaemon(t *testing.T, lines string) *running {
	t.Helper()
	dir := testkit.TempDir(t)
	r := &running{log: &logBuffer{}, milter: testkit.SocketPath(t, dir, "m.sock"), file: filepath.Join(dir, "sluice.yaml"), hup: make(chan os.Signal, 1), ended: make(chan error, 1)}
	r.configure(t, fmt.Sprintf("user: \"\"\nmilter: {listen: [\"unix:m.sock\"], drain_timeout: 10s}\nhttp: {listen: \"127.0.0.1:0\", admin: \"unix:a.sock\"}\nstore: {path: store}\n%s", lines))
	load := func() (*config.Loaded, strictyaml.Problems) {
		return config.Load(config.Source{File: r.file}, thisBuild)
	}
	cfg, problems := load()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	logs := newLogging(r.log, cfg.Log, false)
	log := logs.logger()
	ls, err := openListeners(cfg, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	r.http = ls.public.Addr().String()
	r.daemon, err = newDaemon(cfg, daemonOptions{log: log, logging: logs, reload: load})
	if err != nil {
		ls.close()
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.ended <- r.daemon.run(ctx, r.hup, ls) }()
	t.Cleanup(func() {
		r.stop()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the daemon didn't end")
		}
		ls.close()
	})
	r.eventually(t, func() error { return r.ready.Ready(context.Background()) })
	return r
}

func (r *running) configure(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f returns nil.
func (r *running) eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := testkit.Poll(ctx, nil, func(context.Context) error { return f() }); err != nil {
		t.Fatalf("%v\n%s", err, r.log.String())
	}
}

func (r *running) logged(t *testing.T, want string) {
	t.Helper()
	r.eventually(t, func() error {
		if !strings.Contains(r.log.String(), want) {
			return fmt.Errorf("not logged: %s", want)
		}
		return nil
	})
}

// send hands over one message as Postfix does.
func (r *running) send(t *testing.T, data []byte) (testkit.MilterResult, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := testkit.DialMilter(ctx, "unix", r.milter, testkit.MilterOptions{})
	if err != nil {
		return testkit.MilterResult{}, err
	}
	defer func() { _ = c.Close() }() // the answer is there
	return c.Send(ctx, testkit.MilterMail{
		ClientName: "mail.example.net", ClientAddr: netip.MustParseAddr("192.0.2.1"), ClientPort: 2525, Helo: "mail.example.net", Daemon: "smtpd", QueueID: "4Q1",
		Sender: "alice@example.net", Recipients: []string{"bob@example.org"}, Data: data,
	})
}

// answers sends a message and compares the reply's start.
func (r *running) answers(t *testing.T, data []byte, want string) {
	t.Helper()
	got, err := r.send(t, data)
	if err != nil || !strings.HasPrefix(got.Reply.SMTP(), want) {
		t.Errorf("reply %q, %v; want %s\n%s", got.Reply.SMTP(), err, want, r.log.String())
	}
}

const onlyRules = "scanners: {rules: {paths: []}}\n"

func withClamd(f *testkit.FakeClamd) string {
	return "scanners: {rules: {paths: []}, clamav: {timeout: 5s, endpoints: [\"" + f.Endpoint() + "\"]}}\n"
}

func TestDaemonJudgesMail(t *testing.T) {
	clamd := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, withClamd(clamd))
	clean := testkit.Compose("Minutes", testkit.Text("The minutes of our meeting."))
	d.answers(t, clean, "250")
	d.answers(t, testkit.Compose("Test", testkit.Text(testkit.GTUBE())), "550 5.7.1")
	clamd.SetScans(testkit.FakeAnswer("Eicar-Test-Signature FOUND"))
	d.answers(t, clean, "550 5.7.1")
	clamd.SetScans(testkit.FakeGarbage)
	d.answers(t, clean, "451")
	clamd.Stop()
	d.answers(t, clean, "451")
	d.logged(t, "queue_id=4Q1")
}

func TestDrainAnswersWhatIsInFlight(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	clamd := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{Scans: []testkit.FakeScan{func(c *testkit.FakeConn) {
		close(begun)
		<-release
		testkit.FakeAnswer("OK")(c)
	}}})
	d := startDaemon(t, withClamd(clamd))
	got := make(chan string, 1)
	go func() {
		r, err := d.send(t, testkit.Compose("Minutes", testkit.Text("The minutes.")))
		got <- fmt.Sprint(r.Reply.SMTP(), err)
	}()
	<-begun
	d.stop()
	d.logged(t, "stopping: messages in flight are answered first\" messages=1")
	if err := d.ready.Ready(context.Background()); err == nil || d.ready.State() != "draining" {
		t.Errorf("ready while draining: %v, %s", err, d.ready.State())
	}
	close(release)
	if r := <-got; !strings.HasPrefix(r, "250") {
		t.Errorf("the message in flight was answered %s", r)
	}
	d.logged(t, "msg=stopped")
}

func TestReload(t *testing.T) {
	d := startDaemon(t, onlyRules)
	spam := testkit.Compose("Test", testkit.Text(testkit.GTUBE()))
	d.answers(t, spam, "550")
	good, err := os.ReadFile(d.file)
	if err != nil {
		t.Fatal(err)
	}
	policyFile := filepath.Join(filepath.Dir(d.file), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(policyFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("policies: [{match: '@.', spam_action: tag}]\n")
	d.hup <- syscall.SIGHUP
	d.logged(t, "policy_generation=2")
	d.answers(t, spam, "250")

	// Neither a wrong configuration nor a wrong policy file changes anything.
	d.configure(t, string(good)+"no_such_key: 1\n")
	write("policies: [{match: '@.', spam_action: discard}]\n")
	d.hup <- syscall.SIGHUP
	d.logged(t, "no_such_key: unknown key")
	d.answers(t, spam, "250")
	if v := d.metric(t, "sluice_config_last_reload_successful"); v != "0" {
		t.Errorf("sluice_config_last_reload_successful %s", v)
	}
	d.configure(t, string(good))
	write("policies: [{match: '@.', spam_action: tga}]\n")
	d.hup <- syscall.SIGHUP
	d.logged(t, "unknown action")
	d.answers(t, spam, "250")

	// What needs a restart is said; the rest is in force.
	write("policies: [{match: '@.', spam_action: reject}]\n")
	d.configure(t, strings.Replace(string(good), "drain_timeout: 10s", "socket_mode: 0666", 1)+"log: {level: debug}\n")
	d.hup <- syscall.SIGHUP
	d.logged(t, "changes that need a restart are not in force\" keys=[milter.socket_mode]")
	d.answers(t, spam, "550")
	if v := d.metric(t, "sluice_config_last_reload_successful"); v != "1" {
		t.Errorf("sluice_config_last_reload_successful %s", v)
	}
	if !d.daemonOptions.log.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("the level is not debug")
	}
}

// TestReloadStorm: a thousand signals under traffic lose no message and leave no scanners
// behind.
func TestReloadStorm(t *testing.T) {
	clamd := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, withClamd(clamd))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				d.answers(t, testkit.Compose("Minutes", testkit.Text("The minutes.")), "250")
			}
		})
	}
	for range 1000 {
		select {
		case d.hup <- syscall.SIGHUP:
		default: // as the runtime does it: one that waits is enough
		}
	}
	wg.Wait()
	d.eventually(t, func() error {
		if len(d.hup) > 0 {
			return fmt.Errorf("signals are left")
		}
		return nil
	})
	d.answers(t, testkit.Compose("Minutes", testkit.Text("The minutes.")), "250")
}

// metric reads one metric without labels over HTTP.
func (r *running) metric(t *testing.T, name string) string {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return fmt.Sprint(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}

// TestServeTellsSystemd runs the command itself beside a service manager's socket.
func TestServeTellsSystemd(t *testing.T) {
	dir := testkit.TempDir(t)
	path := testkit.SocketPath(t, dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := os.Chmod(path, 0o777); err != nil { // as systemd's: everyone may write
		t.Fatal(err)
	}
	states := make(chan string, 100)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			states <- string(buf[:n])
		}
	}()
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, []byte("user: nobody\nmilter: {listen: [\"unix:run/m.sock\"]}\nhttp: {listen: \"\", admin: \"unix:a.sock\"}\nstore: {path: store}\n"+onlyRules), 0o644); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// testscript makes this binary the program if it is called by its name.
	link := filepath.Join(dir, "sluice")
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	p, err := testkit.StartProcess(context.Background(), testkit.Command{
		Path: link, Args: []string{"serve", "--config", file}, Log: filepath.Join(dir, "log"),
		Env: append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000"),
	})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case s := <-states:
				if strings.HasPrefix(s, want) {
					return
				}
			case <-deadline:
				log, _ := os.ReadFile(filepath.Join(dir, "log")) // only to explain
				t.Fatalf("the service manager wasn't told %s\n%s", want, log)
			}
		}
	}
	expect("READY=1")
	expect("WATCHDOG=1")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil || !strings.Contains(string(status), "\nUid:\t65534\t65534\t65534\t65534\n") || !strings.Contains(string(status), "\nGid:\t65534\t65534\t65534\t65534\n") || strings.Contains(string(status), "\nGroups:\t0") {
		t.Errorf("privileges were not dropped: %v\n%s", err, status)
	}
	if st, err := os.Stat(filepath.Join(dir, "store")); err != nil || st.Sys().(*syscall.Stat_t).Uid != 65534 {
		t.Errorf("the store isn't the user's: %v", err)
	}
	if err := syscall.Kill(p.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("RELOADING=1\nMONOTONIC_USEC=")
	expect("READY=1")
	if err := p.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	expect("STOPPING=1")
}

func TestMetricsAndHealthOverHTTP(t *testing.T) {
	d := startDaemon(t, onlyRules)
	for path, want := range map[string]string{"/metrics": "sluice_build_info{", "/healthz": "", "/readyz": ""} {
		resp, err := http.Get("http://" + d.http + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // read to its end
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, %v, %.200s", path, resp.StatusCode, err, body)
		}
	}
}
