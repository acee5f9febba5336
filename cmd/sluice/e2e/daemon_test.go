package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/internal/testkit"
)

// options say how a daemon is set up. The zero value looks with the built-in rules
// only, and has no policy but the defaults.
type options struct {
	// policy is policy.yaml; "" leaves the file out.
	policy string
	// scanners is the section of that name, in flow style; "" is onlyRules.
	scanners string
	// milter are further keys of that section, and more further sections.
	milter, more string
	// binary is the program, prefix a command that starts it.
	binary string
	prefix []string
	env    []string
	// user is the account it drops to.
	user string
}

// gorace makes the first race end the program, and its end quick.
const gorace = "GORACE=halt_on_error=1 atexit_sleep_ms=10"

const onlyRules = "{rules: {paths: []}}"

// withClamd is the section scanners with a clamd, or several.
func withClamd(timeout string, endpoints ...string) string {
	return fmt.Sprintf(`{rules: {paths: []}, clamav: {timeout: %s, endpoints: ["%s"]}}`, timeout, strings.Join(endpoints, `", "`))
}

// daemon is one that runs.
type daemon struct {
	o                   options
	dir, config, policy string
	socket              string // the milter's
	web                 string // host:port
	process             *testkit.Process
}

// startDaemon starts a daemon and stops it at the end of the test: it must exit 0.
func startDaemon(t *testing.T, o options) *daemon {
	t.Helper()
	d, err := runDaemon(testkit.TempDir(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the daemon's log:\n%s", d.process.LogTail(3<<10))
		}
	})
	return d
}

func runDaemon(dir string, o options) (*daemon, error) {
	d, err := prepareDaemon(dir, o)
	if err != nil {
		return nil, err
	}
	return d, d.start()
}

// prepareDaemon writes its files.
func prepareDaemon(dir string, o options) (*daemon, error) {
	port, err := testkit.FindPort()
	if err != nil {
		return nil, err
	}
	d := &daemon{o: o, dir: dir, config: filepath.Join(dir, "sluice.yaml"), policy: filepath.Join(dir, "policy.yaml"),
		socket: filepath.Join(dir, "run", "milter.sock"), web: testkit.Loopback(port)}
	if d.o.scanners == "" {
		d.o.scanners = onlyRules
	}
	if d.o.binary == "" {
		d.o.binary = built.sluice
	}
	if o.policy != "" {
		if err := os.WriteFile(d.policy, []byte(o.policy), 0o644); err != nil {
			return nil, err
		}
	}
	return d, os.WriteFile(d.config, []byte(d.configuration()), 0o644)
}

func (d *daemon) configuration() string {
	milter := "listen: [\"unix:run/milter.sock\"]"
	if strings.Contains(d.o.milter, "listen:") {
		milter = ""
	}
	if !strings.Contains(d.o.milter, "socket_mode:") {
		milter = join(milter, "socket_mode: 0666")
	}
	return fmt.Sprintf(`user: %q
milter: {authserv_id: mx.example.org, %s}
http: {listen: %q, admin: "unix:run/admin.sock"}
store: {path: store}
scanners: %s
%s`, d.o.user, join(milter, d.o.milter), d.web, d.o.scanners, d.o.more)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// start starts it, or starts it again after its end.
func (d *daemon) start() error {
	command := append(append([]string{}, d.o.prefix...), d.o.binary, "serve", "--config", d.config)
	p, err := testkit.StartProcess(context.Background(), testkit.Command{
		Path: command[0], Args: command[1:], Dir: d.dir, Log: filepath.Join(d.dir, "sluice.log"),
		Env:   append(append(os.Environ(), gorace), d.o.env...),
		Ready: func(ctx context.Context) error { _, err := d.get(ctx, "/healthz"); return err },
		// A milter that is asked to end may take its drain_timeout.
		ReadyWithin: patience, StopWithin: patience,
	})
	if err == nil {
		d.process = p
	}
	return err
}

// stop asks it to end, which it is to do with exit code 0.
func (d *daemon) stop() error {
	if err := d.process.Stop(); err != nil {
		return err
	}
	if err := d.process.Err(); err != nil {
		return fmt.Errorf("the daemon ended with %w", err)
	}
	return nil
}

// get asks the daemon's HTTP server.
func (d *daemon) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.web+path, nil)
	if err != nil {
		return "", err
	}
	req.Close = true // connections that stay would count as descriptors
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, resp.StatusCode, body)
	}
	return string(body), err
}

// metrics returns all samples, by name and labels as they are written.
func (d *daemon) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	text, err := d.get(ctx, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:i]] = v
	}
	return all
}

// metric returns the sum of all samples of that name.
func (d *daemon) metric(t *testing.T, name string) float64 {
	t.Helper()
	sum, found := 0.0, false
	for key, v := range d.metrics(t) {
		if bare, _, _ := strings.Cut(key, "{"); bare == name || key == name {
			sum, found = sum+v, true
		}
	}
	if !found {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}

// waitMetric waits until a metric is as it should be.
func (d *daemon) waitMetric(t *testing.T, name, what string, ok func(float64) bool) {
	t.Helper()
	eventually(t, func() error {
		if v := d.metric(t, name); !ok(v) {
			return fmt.Errorf("%s is %v, not %s", name, v, what)
		}
		return nil
	})
}

func is(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

// log returns the daemon's log.
func (d *daemon) log() string { return d.process.LogTail(16 << 20) }

// waitLog waits for a line with all of the texts and returns it.
func (d *daemon) waitLog(t *testing.T, texts ...string) string {
	t.Helper()
	found := ""
	eventually(t, func() error {
		for line := range strings.Lines(d.log()) {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				found = line
				return nil
			}
		}
		return fmt.Errorf("not logged: %q", texts)
	})
	return found
}

// command runs another subcommand with the daemon's configuration.
func (d *daemon) command(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, d.o.binary, append(args, "--config", d.config)...)
	cmd.Env = append(os.Environ(), gorace)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// status is what `sluice status --json` says.
func (d *daemon) status(t *testing.T) map[string]any {
	t.Helper()
	out, code := d.command(t, "status", "--json")
	var s map[string]any
	object := out[max(strings.IndexByte(out, '{'), 0):] // below what it may complain of
	if err := json.Unmarshal([]byte(object), &s); err != nil || code != 0 {
		t.Fatalf("sluice status: exit %d, %v\n%s", code, err, out)
	}
	return s
}

// eventually waits until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	within(t, patience, f)
}

func within(t *testing.T, d time.Duration, f func() error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	if err := testkit.Poll(ctx, nil, func(context.Context) error { return f() }); err != nil {
		t.Fatal(err)
	}
}
