package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/internal/testkit"
)

// system is what mail goes through: feeder, front with Sluice and clamd, mailbox.
type system struct {
	dir     string
	mailbox *testkit.Sink
	clamd   *testkit.Clamd
	daemon  *testkit.Process
	front   *testkit.Postfix
	feeder  *testkit.Postfix

	mu       sync.Mutex
	arrived  map[string]int // by the ID in the subject; guarded by mu
	infected []string       // that arrived; guarded by mu
	unmarked []string       // that don't say they are clean; guarded by mu
}

func start(ctx context.Context, sluice string) (s *system, err error) {
	dir, err := testkit.MakeTempDir()
	if err != nil {
		return nil, err
	}
	s = &system{dir: dir, arrived: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop(true))
		}
	}()
	folders := map[string]string{}
	for _, name := range []string{"clamd", "sluice", "front", "feeder"} {
		folders[name] = filepath.Join(dir, name)
		if err = os.MkdirAll(folders[name], 0o755); err != nil {
			return s, err
		}
	}
	if s.mailbox, err = testkit.RunSink(testkit.SinkOptions{KeepBytes: 64 << 10, Log: s.take}); err != nil {
		return s, err
	}
	if s.clamd, err = testkit.RunClamd(folders["clamd"], testkit.ClamdOptions{}); err != nil {
		return s, err
	}
	if err = s.startDaemon(ctx, sluice, folders["sluice"]); err != nil {
		return s, err
	}
	s.front, err = testkit.RunPostfix(folders["front"], testkit.PostfixOptions{
		Relay:        s.mailbox.Addr(),
		SMTPDMilters: fmt.Sprintf("{ unix:%s/milter.sock, default_action=tempfail }", folders["sluice"]),
		Settings:     map[string]string{"smtpd_client_connection_count_limit": "0", "smtpd_error_sleep_time": "0", "smtpd_soft_error_limit": "1000", "smtpd_hard_error_limit": "1000"},
	})
	if err != nil {
		return s, err
	}
	s.feeder, err = testkit.RunPostfix(folders["feeder"], testkit.PostfixOptions{Relay: s.front.SMTP, Feeder: true,
		Hostname: "mail.example.net", Settings: map[string]string{"maximal_queue_lifetime": "1h", "default_process_limit": "20", "bounce_queue_lifetime": "1h", "enable_long_queue_ids": "yes"}})
	return s, err
}

func (s *system) startDaemon(ctx context.Context, sluice, dir string) error {
	port, err := testkit.FindPort()
	if err != nil {
		return err
	}
	web, config := testkit.Loopback(port), filepath.Join(dir, "sluice.yaml")
	// Loopback stands for the outside here: nothing is originating.
	content := fmt.Sprintf(`user: ""
milter: { listen: ["unix:%[1]s/milter.sock"], socket_mode: 0666, originating_networks: [] }
http: { listen: %[2]s, admin: "unix:%[1]s/admin.sock" }
store: { path: %[1]s/store }
scanners:
  clamav: { endpoints: [%[3]q] }
  rules: { paths: [], builtin: true }
log: { format: json }
`, dir, web, s.clamd.Endpoint())
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return err
	}
	s.daemon, err = testkit.StartProcess(ctx, testkit.Command{
		Path: sluice, Args: []string{"serve", "--config", config}, Log: s.daemonLog(),
		Ready: func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+web+"/readyz", nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			return nil
		},
	})
	return err
}

func (s *system) daemonLog() string { return filepath.Join(s.dir, "sluice", "sluice.log") }

// take is told each delivery by the mailbox.
func (s *system) take(d testkit.Delivery) {
	id := strings.Join(d.Fields("Subject"), "")
	status := strings.Join(d.Fields("X-Virus-Status"), "")
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(id, "soak-") {
		s.arrived[id]++
	}
	if strings.HasSuffix(id, virusMark) {
		s.infected = append(s.infected, id)
	}
	if strings.HasPrefix(id, "soak-") && status != "Clean" {
		s.unmarked = append(s.unmarked, id+": "+status)
	}
}

// delivered counts the messages of the soak that have arrived.
func (s *system) delivered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.arrived)
}

func (s *system) stop(failed bool) error {
	var errs []error
	for _, p := range []*testkit.Postfix{s.feeder, s.front} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
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
		return errors.Join(append(errs, fmt.Errorf("logs are kept in %s", s.dir))...)
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// drain waits until neither Postfix has anything left.
func (s *system) drain(ctx context.Context) error {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return testkit.Poll(ctx, nil, func(ctx context.Context) error {
		left := 0
		for _, p := range []*testkit.Postfix{s.feeder, s.front} {
			queued, err := p.Queued()
			if err != nil {
				return err
			}
			for _, n := range queued {
				left += n
			}
		}
		if left > 0 {
			return fmt.Errorf("%d messages are still queued after %s", left, time.Since(started).Round(time.Second))
		}
		return nil
	})
}
