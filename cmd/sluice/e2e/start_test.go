package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/testkit"
)

// Started as root it drops to its user, having bound sockets with the rights that the MTA
// needs, and it can be reloaded and restarted.
func TestUserIsDropped(t *testing.T) {
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, options{user: "nobody", milter: "socket_mode: 0660, socket_group: postfix"})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	for _, round := range []string{"first", "restarted"} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.PID()))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{
			strings.Join([]string{"Uid:", nobody.Uid, nobody.Uid, nobody.Uid, nobody.Uid}, "\t"),
			strings.Join([]string{"Gid:", nobody.Gid, nobody.Gid, nobody.Gid, nobody.Gid}, "\t"),
			"CapEff:\t0000000000000000",
		} {
			if !strings.Contains(string(status), "\n"+line+"\n") {
				t.Errorf("%s: no %q in\n%s", round, line, status)
			}
		}
		rights := func(path string, mode os.FileMode, gid string) {
			t.Helper()
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(st.Sys().(*syscall.Stat_t).Gid); st.Mode().Perm() != mode || got != gid || st.Mode().Type() != os.ModeSocket {
				t.Errorf("%s: %s has mode %v and group %s, want %v and %s", round, path, st.Mode(), got, mode, gid)
			}
		}
		rights(d.socket, 0o660, group.Gid)
		rights(d.dir+"/run/admin.sock", 0o660, nobody.Gid)
		// smtpd runs as the user postfix: this goes through only if the rights are right.
		replies(t, smtp(t, p.SMTP, outside, clean(round)), "250")
		arrives(t, sink, round)
		replies(t, smtp(t, p.SMTP, outside, identified("large", testkit.Sized("large", 1<<20))), "250")
		if err := d.process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		d.waitLog(t, "configuration reloaded")
		if s := d.status(t); s["state"] != "serving" {
			t.Errorf("%s: status %v", round, s)
		}
		if round == "first" {
			if err := d.stop(); err != nil {
				t.Fatal(err)
			}
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Sockets that a service manager hands over (sd_listen_fds(3)) are served.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	d, err := prepareDaemon(testkit.TempDir(t), options{milter: `listen: [systemd]`})
	if err != nil {
		t.Fatal(err)
	}
	path := testkit.SocketPath(t, d.dir, "passed.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(d.dir + "/sluice.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, d.o.binary, "serve", "--config", d.config)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = log, log
	// A message that is sent before it starts waits in the backlog and is not lost.
	d.socket = path
	got := make(chan string, 1)
	go func() {
		r, err := d.deliver(t.Context(), milterMail(spam("early")))
		got <- fmt.Sprint(r.Reply.SMTP(), err)
	}()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := testkit.Poll(ctx, nil, func(ctx context.Context) error { _, err := d.get(ctx, "/readyz"); return err }); err != nil {
		text, _ := os.ReadFile(log.Name()) // only to explain
		t.Fatalf("%v\n%s", err, text)
	}
	if r := <-got; !strings.HasPrefix(r, "550 5.7.1") {
		t.Errorf("the early message: %s", r)
	}
	d.answers(t, clean("later"), "250")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("exit: %v", err)
		}
	case <-ctx.Done():
		t.Error("it didn't end")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("it removed a socket that isn't its own: %v", err)
	}
}

// Past max_connections mail is deferred, and served again when there is room.
func TestConnectionOverTheLimit(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{milter: "max_connections: 2"})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	d.waitMetric(t, "sluice_milter_connections", "0", is(0)) // Postfix was asked whether it is up
	first, second := d.dial(t, testkit.MilterOptions{}), d.dial(t, testkit.MilterOptions{})
	replies(t, smtp(t, p.SMTP, outside, clean("too many")), "451 4.3.2")
	r, err := first.Send(t.Context(), milterMail(clean("admitted")))
	if err != nil {
		t.Fatal(err)
	}
	replies(t, r.Reply.SMTP(), "250")
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	d.waitMetric(t, "sluice_milter_connections", "1", is(1))
	replies(t, smtp(t, p.SMTP, outside, clean("room again")), "250")
	arrives(t, sink, "room again")
	if n := count(sink, "too many"); n != 0 {
		t.Error("what was deferred arrived")
	}
}
