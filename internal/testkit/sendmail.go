package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// SendmailOptions describe a private Sendmail.
type SendmailOptions struct {
	// Relay is where all mail goes on to, host:port with a numeric host, as a Sink
	// has.
	Relay string
	// Milter is the filter's address in Sendmail's form: "unix:/path",
	// "inet:port@127.0.0.1", "inet6:port@::1"; "" for none. Several are parted by
	// blanks and asked in that order.
	Milter string
	// MilterTimeouts is the T= equate; "" means Sendmail's own "C:5m;S:10s;R:10s;E:5m".
	MilterTimeouts string
	// Settings are further options of sendmail.cf by their long names, such as
	// MaxMessageSize; they win over ours.
	Settings map[string]string
}

// Sendmail is a private instance of a Sendmail that lies unpacked beside the
// system's MTA (deploy/install-test-servers.sh puts it there). It relays for
// everyone and asks no DNS.
//
// Its log goes to syslog, so a transcript of its SMTP sessions is kept instead.
type Sendmail struct {
	// Dir holds everything, Queue is its QueueDirectory.
	Dir, Queue string
	// SMTP is where mail comes in, 127.0.0.1:port; SMTP6 the same on ::1, "" if the
	// machine has no IPv6.
	SMTP, SMTP6 string
	// Transcript is the file with every line of the SMTP sessions.
	Transcript string
	process    *Process
}

// StartSendmail starts a Sendmail in a directory of its own and stops it at the
// end of the test. It must run as root.
func StartSendmail(t TB, options SendmailOptions) *Sendmail {
	t.Helper()
	s, err := RunSendmail(TempDir(t), options)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Logf("testkit: %v", err)
		}
		if t.Failed() {
			t.Logf("testkit: end of %s:\n%s", s.Transcript, tail(s.Transcript, 4096))
		}
	})
	return s
}

// RunSendmail starts a Sendmail below dir and waits until its ports greet. The
// caller calls Stop.
func RunSendmail(dir string, options SendmailOptions) (*Sendmail, error) {
	binary, err := sendmailBinary()
	if err != nil {
		return nil, fmt.Errorf("sendmail: %w", err)
	}
	port, err := FindPort()
	if err != nil {
		return nil, fmt.Errorf("sendmail: %w", err)
	}
	s := &Sendmail{Dir: dir, Queue: filepath.Join(dir, "mqueue"), SMTP: Loopback(port), Transcript: filepath.Join(dir, "transcript")}
	if HasIPv6() {
		s.SMTP6 = net.JoinHostPort("::1", fmt.Sprint(port))
	}
	cf, err := s.configuration(options)
	if err != nil {
		return nil, fmt.Errorf("sendmail: %w", err)
	}
	err = errors.Join(
		os.Mkdir(s.Queue, 0o700),
		os.WriteFile(filepath.Join(dir, "sendmail.cf"), []byte(cf), 0o644),
		os.WriteFile(filepath.Join(dir, "service.switch"), []byte("hosts files\n"), 0o644),
	)
	if err != nil {
		return nil, fmt.Errorf("sendmail: %w", err)
	}
	path, args := named("mx.example.org", binary, "-C", filepath.Join(dir, "sendmail.cf"), "-bD", "-q1s", "-X", s.Transcript)
	s.process, err = StartProcess(context.Background(), Command{
		Path: path, Args: args, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"},
		Log: filepath.Join(dir, "sendmail.out"),
		Ready: func(ctx context.Context) error {
			if s.SMTP6 != "" {
				return errors.Join(greets(ctx, s.SMTP), greets(ctx, s.SMTP6))
			}
			return greets(ctx, s.SMTP)
		},
		// Where the host's name can't be set it first waits 60 s for a better one.
		ReadyWithin: 90 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("sendmail: %w", err)
	}
	return s, nil
}

// Stop ends it; its queue stays.
func (s *Sendmail) Stop() error {
	err := s.process.Stop()
	// Sendmail leaves the sessions that are open to its children; they are ours too.
	s.process.Kill()
	if err != nil {
		return fmt.Errorf("sendmail: %w", err)
	}
	return nil
}

// Process returns the running daemon, whose group its children are in.
func (s *Sendmail) Process() *Process { return s.process }

// Queued counts the messages in the queue, held ones (hf…) apart.
func (s *Sendmail) Queued() (queued, held int, err error) {
	entries, err := os.ReadDir(s.Queue)
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "qf"):
			queued++
		case strings.HasPrefix(e.Name(), "hf"):
			held++
		}
	}
	return queued, held, err
}

// named wraps a command so that it sees host as the machine's name, in a UTS
// namespace of its own: Sendmail waits a minute where that name has no dot.
// Where namespaces are refused the command is returned as it is.
func named(host, path string, args ...string) (string, []string) {
	if exec.Command("unshare", "--uts", "hostname", host).Run() != nil {
		return path, args
	}
	return "unshare", append([]string{"--uts", "/bin/sh", "-c", `hostname "$0" && exec "$@"`, host, path}, args...)
}

// sendmailBinary finds the unpacked program: below $SLUICE_CACHE, or build/cache
// of the repository that the working directory is in.
func sendmailBinary() (string, error) {
	const inside = "sendmail/usr/libexec/sendmail/sendmail"
	cache := os.Getenv("SLUICE_CACHE")
	if cache == "" {
		root, err := RepositoryRoot()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(root, "build", "cache")
	}
	path := filepath.Join(cache, inside)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: run deploy/install-test-servers.sh", err)
	}
	return path, nil
}

// RepositoryRoot returns the directory of the go.mod above the working directory
// whose module is sluice.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(mod), "module sluice\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the repository (no go.mod of module sluice above)")
		}
		dir = parent
	}
}
