package testkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PostfixOptions describe a private Postfix.
type PostfixOptions struct {
	// Relay is where all mail goes on to, host:port with a numeric host: a Sink,
	// or another Postfix. "" leaves mail in the queue.
	Relay string
	// SMTPDMilters and NonSMTPDMilters are smtpd_milters and non_smtpd_milters as
	// in main.cf, per-milter settings in braces included.
	SMTPDMilters, NonSMTPDMilters string
	// Chroot runs smtpd, cleanup and the others that Debian's master.cf has so with
	// chroot y: paths of unix sockets are then relative to Postfix.Queue.
	Chroot bool
	// TLS offers STARTTLS with a certificate made for the occasion.
	TLS bool
	// Hostname is myhostname; "" means mx.example.org.
	Hostname string
	// Settings are further lines of main.cf; they win over ours. An empty value
	// empties the parameter.
	Settings map[string]string
	// Feeder makes a queue that tries again every second and sends by many
	// connections, to feed another server that may say 451.
	Feeder bool
}

// Postfix is a private instance of the Postfix that is installed. It relays for
// everyone, believes XCLIENT from loopback, and asks no DNS.
type Postfix struct {
	// Dir holds everything; Config is config_directory, Queue queue_directory.
	Dir, Config, Queue string
	// SMTP is where mail comes in from outside, Submission a second entrance with
	// milter_macro_daemon_name=ORIGINATING. Both are 127.0.0.1:port.
	SMTP, Submission string
	// Log is maillog_file.
	Log     string
	process *Process
}

// StartPostfix starts a Postfix in a directory of its own and stops it at the end
// of the test. It must run as root, as Postfix must.
func StartPostfix(t TB, options PostfixOptions) *Postfix {
	t.Helper()
	dir := TempDir(t)
	p, err := RunPostfix(dir, options)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Logf("testkit: %v", err)
		}
		if t.Failed() {
			t.Logf("testkit: end of %s:\n%s", p.Log, tail(p.Log, 4096))
		}
	})
	return p
}

// RunPostfix starts a Postfix below dir, which must be there and open to others
// (0755), and waits until both of its ports greet. The caller calls Stop.
func RunPostfix(dir string, options PostfixOptions) (*Postfix, error) {
	p, err := preparePostfix(dir, options)
	if err != nil {
		return nil, fmt.Errorf("postfix: %w", err)
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

func preparePostfix(dir string, options PostfixOptions) (*Postfix, error) {
	port, err := FindPort()
	if err != nil {
		return nil, err
	}
	submission := port
	for submission == port {
		if submission, err = FindPort(); err != nil {
			return nil, err
		}
	}
	p := &Postfix{
		Dir: dir, Config: filepath.Join(dir, "etc"), Queue: filepath.Join(dir, "queue"), Log: filepath.Join(dir, "mail.log"),
		SMTP: Loopback(port), Submission: Loopback(submission),
	}
	if err := p.makeDirectories(); err != nil {
		return nil, err
	}
	files := map[string]string{"main.cf": p.mainCF(options), "master.cf": p.masterCF(options), "dynamicmaps.cf": ""}
	if options.TLS {
		pem, err := selfSigned(orString(options.Hostname, "mx.example.org"))
		if err != nil {
			return nil, err
		}
		files["key.pem"] = pem
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(p.Config, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Start starts a Postfix that was stopped, with the same queue and ports.
func (p *Postfix) Start() error {
	process, err := StartProcess(context.Background(), Command{
		// master(8) itself: postfix(1) adds checks and a shell in between, and takes
		// longer than all else.
		Path: "/usr/lib/postfix/sbin/master",
		Args: []string{"-s", "-c", p.Config},
		Env:  []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "MAIL_CONFIG=" + p.Config, "TZ="},
		Log:  filepath.Join(p.Dir, "master.out"),
		Ready: func(ctx context.Context) error {
			return errors.Join(greets(ctx, p.SMTP), greets(ctx, p.Submission))
		},
	})
	if err != nil {
		return fmt.Errorf("postfix: %w\n%s", err, tail(p.Log, 4096))
	}
	p.process = process
	return nil
}

// Stop ends it; its queue stays.
func (p *Postfix) Stop() error {
	if err := p.process.Stop(); err != nil {
		return fmt.Errorf("postfix: %w", err)
	}
	return nil
}

// Process returns the running master(8), whose group all of Postfix is in.
func (p *Postfix) Process() *Process { return p.process }

// Maillog returns the log so far.
func (p *Postfix) Maillog() string { return tail(p.Log, 64<<20) }

// WaitLog waits until a line of the log contains all of the texts and returns it.
func (p *Postfix) WaitLog(ctx context.Context, texts ...string) (string, error) {
	var found string
	err := Poll(ctx, nil, func(context.Context) error {
		for line := range strings.Lines(p.Maillog()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				found = line
				return nil
			}
		}
		return fmt.Errorf("no line with %q in %s", texts, p.Log)
	})
	return found, err
}

// Queued counts the messages in the queues maildrop, incoming, active, deferred
// and hold, by queue. A message that moves meanwhile may be missed or counted
// twice: ask again until the sum is what you wait for.
func (p *Postfix) Queued() (map[string]int, error) {
	counts := map[string]int{}
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "hold", "corrupt"} {
		err := filepath.WalkDir(filepath.Join(p.Queue, queue), func(_ string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.Type().IsRegular() {
				counts[queue]++
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("postfix: %w", err)
		}
	}
	return counts, nil
}

// Submit hands a message to sendmail(1) of this instance, as a program on the
// machine does, from the given sender ("" is the null sender).
func (p *Postfix) Submit(ctx context.Context, sender string, recipients []string, message []byte) error {
	args := append([]string{"-C", p.Config, "-i", "-f", sender, "--"}, recipients...)
	return p.tool(ctx, "/usr/sbin/sendmail", message, args...)
}

// Flush has all deferred mail tried at once.
func (p *Postfix) Flush(ctx context.Context) error {
	return p.tool(ctx, "/usr/sbin/postqueue", nil, "-c", p.Config, "-f")
}

// Reload has the configuration read again.
func (p *Postfix) Reload(ctx context.Context) error {
	return p.tool(ctx, "/usr/sbin/postfix", nil, "-c", p.Config, "reload")
}

// Set changes parameters of main.cf; Reload or Start puts them in force.
func (p *Postfix) Set(ctx context.Context, settings map[string]string) error {
	args := []string{"-c", p.Config, "-e"}
	for name, value := range settings {
		args = append(args, name+"="+value)
	}
	return p.tool(ctx, "/usr/sbin/postconf", nil, args...)
}

func (p *Postfix) tool(ctx context.Context, path string, stdin []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "MAIL_CONFIG=" + p.Config}
	cmd.Stdin = strings.NewReader(string(stdin))
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, out)
	}
	return nil
}

// makeDirectories makes what postfix-files(5) lists, with its owners and modes.
func (p *Postfix) makeDirectories() error {
	postfix, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	drop, err := user.LookupGroup("postdrop")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(postfix.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(drop.Gid)
	if err != nil {
		return err
	}
	type directory struct {
		name     string
		mode     fs.FileMode
		uid, gid int
	}
	all := []directory{
		{"etc", 0o755, 0, 0}, {"queue", 0o755, 0, 0}, {"queue/pid", 0o755, 0, 0}, {"data", 0o700, uid, 0},
		{"queue/maildrop", 0o730 | fs.ModeSticky, uid, gid}, {"queue/public", 0o710 | fs.ModeSetgid, uid, gid},
	}
	for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"} {
		all = append(all, directory{"queue/" + name, 0o700, uid, 0})
	}
	for _, d := range all {
		path := filepath.Join(p.Dir, d.name)
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, d.uid, d.gid), os.Chmod(path, d.mode)); err != nil {
			return err
		}
	}
	return nil
}
