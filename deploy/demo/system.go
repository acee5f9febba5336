package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice/internal/testkit"
)

// system is everything that the demo starts.
type system struct {
	dir     string
	sluice  string // path of the program
	config  string
	web     string // host:port of /metrics
	mailbox *testkit.Sink
	clamd   *testkit.Clamd
	daemon  *testkit.Process
	postfix *testkit.Postfix
}

const policy = `# What becomes of mail for whom. The most specific entry that sets a field wins it.
policies:
  - match: "@."                      # everyone: spam is refused (the built-in default)
    reject_text: "Ask postmaster@example.org if this is wrong."
  - match: "@tag.example.org"        # this domain wants all spam, with a tag before the subject
    spam_action: tag
    subject_tag: "[SPAM] "
  - match: "@drop.example.org"       # this one never wants to hear of it
    spam_action: discard
`

func start(ctx context.Context, sluice string) (s *system, err error) {
	dir, err := testkit.MakeTempDir()
	if err != nil {
		return nil, err
	}
	s = &system{dir: dir, sluice: sluice}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop(true))
			s = nil
		}
	}()
	if s.mailbox, err = testkit.RunSink(testkit.SinkOptions{}); err != nil {
		return s, err
	}
	clamdDir := filepath.Join(dir, "clamd")
	if err = os.MkdirAll(clamdDir, 0o755); err != nil {
		return s, err
	}
	if s.clamd, err = testkit.RunClamd(clamdDir, testkit.ClamdOptions{}); err != nil {
		return s, err
	}
	if err = s.startDaemon(ctx); err != nil {
		return s, err
	}
	postfixDir := filepath.Join(dir, "postfix")
	if err = os.MkdirAll(postfixDir, 0o755); err != nil {
		return s, err
	}
	milter := fmt.Sprintf("{ unix:%s, connect_timeout=10s, content_timeout=300s, default_action=tempfail }", s.milterSocket())
	s.postfix, err = testkit.RunPostfix(postfixDir, testkit.PostfixOptions{
		Relay: s.mailbox.Addr(), SMTPDMilters: milter, NonSMTPDMilters: milter,
		Settings: map[string]string{"message_size_limit": "20000000"},
	})
	return s, err
}

func (s *system) milterSocket() string { return filepath.Join(s.dir, "sluice", "milter.sock") }

func (s *system) startDaemon(ctx context.Context) error {
	home := filepath.Join(s.dir, "sluice")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	port, err := testkit.FindPort()
	if err != nil {
		return err
	}
	s.web, s.config = testkit.Loopback(port), filepath.Join(home, "sluice.yaml")
	config := fmt.Sprintf(`user: ""                                # stay what we are: this is a demonstration
milter:
  listen: ["unix:%s"]
  socket_mode: 0666
  authserv_id: mx.example.org
http:
  listen: %s
  admin: "unix:%s/admin.sock"
policy: { file: policy.yaml }
store: { path: %s/store }
scanners:
  clamav: { endpoints: ["%s"] }
  rules: { paths: [], builtin: true }
`, s.milterSocket(), s.web, home, home, s.clamd.Endpoint())
	for path, content := range map[string]string{s.config: config, filepath.Join(home, "policy.yaml"): policy} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	s.daemon, err = testkit.StartProcess(ctx, testkit.Command{
		Path: s.sluice, Args: []string{"serve", "--config", s.config}, Log: filepath.Join(home, "sluice.log"),
		Ready: func(ctx context.Context) error { _, err := s.get(ctx, "/readyz"); return err },
	})
	return err
}

func (s *system) get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.web+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(body), err
}

// stop ends everything in the order of the mail's way, and removes the
// directory, unless there is something to look at in it.
func (s *system) stop(failed bool) error {
	var errs []error
	if s.postfix != nil {
		errs = append(errs, s.postfix.Stop())
	}
	if s.daemon != nil {
		errs = append(errs, s.daemon.Stop())
	}
	if s.clamd != nil {
		errs = append(errs, s.clamd.Stop())
	}
	if s.mailbox != nil {
		s.mailbox.Stop()
	}
	if failed {
		errs = append(errs, fmt.Errorf("logs and configuration are kept in %s", s.dir))
	} else {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func (s *system) describe() {
	fmt.Printf(`
  outside client ──SMTP──▶ Postfix (%s) ──milter──▶ Sluice ──▶ clamd
                               │
                               └──SMTP──▶ mailbox (%s)

Everything lies in %s; Sluice's configuration is in sluice/sluice.yaml there, and its policy file:

%s
`, s.postfix.SMTP, s.mailbox.Addr(), s.dir, indent(policy))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

func (s *system) printMetrics(ctx context.Context) error {
	text, err := s.get(ctx, "/metrics")
	if err != nil {
		return err
	}
	fmt.Printf("\nA few of the metrics (http://%s/metrics):\n\n", s.web)
	for line := range strings.Lines(text) {
		for _, name := range []string{"sluice_messages_total{", "sluice_scanner_errors_total{", "sluice_scanner_up{", "sluice_milter_connections", "sluice_message_duration_seconds_count", "sluice_policy_generation"} {
			if strings.HasPrefix(line, name) && !strings.HasSuffix(line, " 0\n") {
				fmt.Print("    ", line)
			}
		}
	}
	return nil
}

func (s *system) explainKeep() {
	host, port, _ := net.SplitHostPort(s.postfix.SMTP) // our own address, always in this form
	fmt.Printf(`
It goes on running until you press Ctrl-C. Try, in another terminal:

    swaks --server %s --port %s --from sender@example.net --to bob@example.org
    %s status --config %s
    %s policy explain bob@tag.example.org --config %s
    $EDITOR %s    # then: kill -HUP %d
    curl -s http://%s/metrics | grep ^sluice_
    tail -f %s %s
`, host, port, s.sluice, s.config, s.sluice, s.config,
		filepath.Join(s.dir, "sluice", "policy.yaml"), s.daemon.PID(), s.web,
		filepath.Join(s.dir, "sluice", "sluice.log"), s.postfix.Log)
}
